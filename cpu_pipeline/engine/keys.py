"""Cache keys: everything that may change the output of a step. No other file decides it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from cpu_pipeline import backends, sources, stages, tasks
from cpu_pipeline.core import host
from cpu_pipeline.core.artifact import Artifact, digest_json
from cpu_pipeline.engine import environments
from cpu_pipeline.engine.environments import DEFAULT
from cpu_pipeline.engine.packages import installed
from cpu_pipeline.engine.plugins import Plugins, plugins_of
from cpu_pipeline.engine.requirements import home_environment
from cpu_pipeline.graph.plan import Context, Node, Plan
from cpu_pipeline.sources._base import Source
from cpu_pipeline.stages._base import Stage

EPOCH = 1
"""Part of every key: raise it by one, and nothing that was built is reused."""


def ingredients(
    use: str,
    stage: Stage,
    formats: Mapping[str, str],
    inputs: Mapping[str, str],
    data: Mapping[str, str],
    context: Context,
) -> dict[str, Any]:
    """List everything that may change what `stage.run` writes.

    Args:
        use: the stage's name.
        stage: the stage with its options.
        formats: input name -> format.
        inputs: input name -> content digest.
        data: role -> content digest of its rows.
        context: the recipe's task, target and permissions, of which only what the stage reads counts.
    """
    environment = home_environment(stage, formats)
    asked: list[str] = []

    def find(name: str, fields: Mapping[str, object]) -> Source:
        asked.append(name)
        return sources.find(name, fields)

    listed = {
        "epoch": EPOCH,
        "stage": use,
        "version": stage.version,
        "options": stage.model_dump(mode="json", exclude=set(stage.unkeyed)),
        "identity": stage.identity(find),
        "inputs": dict(inputs),
        "data": dict(data),
        "task": _task(stage, context, environment),
        "target": list(context.isa) if "target" in stage.asks() else None,
        "allow": sorted(context.allow) if "allow" in stage.asks() else None,
        "packages": {name: installed(name, environment) for name in stage.packages},
        "backends": {name: _backend(name) for name in sorted(stage.backends(formats))},
        "environment": _pins(environment),
        "host": _host(stage, context),
        **_python(stage),
    }
    plugins = _plugins(use, stage, formats, asked, context)
    return listed | ({"plugins": plugins} if plugins else {})


def _python(stage: Stage) -> dict[str, str]:
    """Name the Python that runs the stage, but for fetching, which copies bytes; environments have the same one."""
    return {} if stage.online else {"python": f"{sys.version_info[0]}.{sys.version_info[1]}"}


def _plugins(use: str, stage: Stage, formats: Mapping[str, str], asked: Sequence[str], context: Context) -> Plugins:
    """Describe the plug-ins whose code runs in a step: its own, its task's, its backends' and its sources'."""
    used = [(stages.registry, use), *((backends.registry, name) for name in stage.backends(formats))]
    used += [(sources.registry, name) for name in asked]
    if context.task_name is not None and {"task", "task.head"} & stage.asks():
        used.append((tasks.registry, context.task_name))
    return plugins_of(used)


def differences(old: Any, new: Any) -> list[str]:
    """Describe what changed between two lists of ingredients, each change once."""
    return list(dict.fromkeys(_differences(old, new, "")))


def _differences(old: Any, new: Any, path: str) -> Iterator[str]:
    if not (isinstance(old, Mapping) and isinstance(new, Mapping)):
        if old != new:
            yield f"{path}: {_short(old)} → {_short(new)}"
        return
    versions = path.rpartition(".")[2] == "packages"
    for key in sorted(old.keys() | new.keys()):
        before, after = old.get(key), new.get(key)
        if versions and before != after:
            yield f"{key} {_short(before)} → {_short(after)}"
        elif not versions:
            yield from _differences(before, after, f"{path}.{key}" if path else key)


def _short(value: Any) -> str:
    if value is None:
        return "none"
    text = str(value)
    return text if len(text) <= 40 else text[:12] + "…"


def _task(stage: Stage, context: Context, environment: str) -> Any:
    """List what a stage reads of the task: nothing, the head alone, or everything."""
    read = stage.asks()
    if context.task is None or not {"task", "task.head"} & read:
        return None
    task = context.task
    name = context.task_name
    if "task" not in read:
        return {"use": name, "outputs": list(task.outputs)}
    return {
        "use": name,
        "version": task.version,
        "options": task.model_dump(mode="json"),
        "packages": {name: installed(name, environment) for name in task.packages},
    }


def _backend(name: str) -> dict[str, Any]:
    module = backends.get(name)
    environment = module.ENVIRONMENT
    versions = {package: installed(package, environment) for package in module.PACKAGES}
    return {"version": module.VERSION, "packages": versions, "environment": _pins(environment)}


def _pins(environment: str) -> Any:
    """Name an environment, with the digest of its pins unless it is the default one."""
    if environment == DEFAULT:
        return environment
    return {"name": environment, "pins": environments.get(environment).digest}


def _host(stage: Stage, context: Context) -> Any:
    match stage.host():
        case "none":
            return None
        case "isa":
            return {"isa": list(host.isa())}
        case _:
            return {**host.machine(), "threads": context.threads}


def reasons(before: Any, needed: Mapping[str, Any]) -> tuple[str, ...]:
    """Say why a step is built: what changed since the record `before`, None where there is none."""
    if before is None:
        return ("never built",)
    return tuple(differences(before.ingredients, needed)) or ("its object is gone",)


class Keyed(NamedTuple):
    """The key of a node, and the ingredients that it is the digest of."""

    key: str
    ingredients: Mapping[str, Any]


class Visit(NamedTuple):
    """One node of a walk over a plan."""

    node: Node
    keyed: Keyed | None
    """None where the content of an input is unknown."""
    artifact: Artifact | None
    """What was found for the key; None where nothing was found, or the key is unknown."""


def key_of(plan: Plan, node: Node, known: Mapping[str, Artifact]) -> Keyed:
    """Compute the key of a node.

    Args:
        plan: the plan that the node is part of.
        node: the node.
        known: node id -> artifact, of at least every node that it reads.
    """
    needed = ingredients(
        node.use,
        node.stage,
        plan.formats(node),
        {name: known[source].digest for name, source in node.inputs.items()},
        {role: known[source].digest for role, source in node.data.items()},
        plan.context,
    )
    return Keyed(digest_json(needed), needed)


def walk(plan: Plan, find: Callable[[Node, str], Artifact | None]) -> Iterator[Visit]:
    """Go through a plan in order, and compute the key of every node whose inputs are known.

    Args:
        plan: the plan.
        find: returns the artifact of a node with this key, None where it is unknown. The keys of the nodes that read
            this one depend on it.

    Yields:
        Every node, once; a node comes after those that it reads.
    """
    known: dict[str, Artifact] = {}
    for node in plan.nodes.values():
        if any(source not in known for source in node.reads):
            yield Visit(node, None, None)
            continue
        keyed = key_of(plan, node, known)
        if (found := find(node, keyed.key)) is not None:
            known[node.id] = found
        yield Visit(node, keyed, found)
