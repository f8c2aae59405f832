"""The lock of a recipe, a file beside it to be checked in: one fact a line, in an order that never changes.

`recipes/NAME.lock` holds the request, the files it was built from, the packages, and the output of each step. What a
machine measures (latency) is no fact of a recipe: of such a step the lock holds the verdicts alone, and nothing that
another run would have to repeat.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from cpu_pipeline.core import host
from cpu_pipeline.core.artifact import Artifact, digest_json, digest_listing, list_tree
from cpu_pipeline.core.errors import RecipeError, Stale, newer_format
from cpu_pipeline.core.files import write_file, writing
from cpu_pipeline.core.jsonl import ROWS, read_jsonl
from cpu_pipeline.engine import environments
from cpu_pipeline.engine.environments import DEFAULT
from cpu_pipeline.engine.keys import differences, walk
from cpu_pipeline.engine.packages import installed, made_with
from cpu_pipeline.engine.result import BuildResult, Damaged
from cpu_pipeline.graph.plan import Node, Plan
from cpu_pipeline.recipe.document import read_document, scalar
from cpu_pipeline.recipe.spec import Trigger
from cpu_pipeline.store.local import Store

LOCK_FORMAT = 2
"""Raised when what a lock says changes its meaning. 2: `recipe.digest` is of what the recipe means, not of its text."""
HEAD = "# Written by `cpu-pipeline lock`, to be checked in; not to be edited.\n"
MERGE = re.compile(r"^(<<<<<<<|=======|>>>>>>>|\|\|\|\|\|\|\|)( |$)")

LOCAL = "local"
"""The origin of files of this machine; they are identified by content."""
Lock = Mapping[str, Any]


class _LockedStep(BaseModel):
    model_config = ConfigDict(defer_build=True, extra="forbid", strict=True)

    use: str
    version: int
    key: str | None = None
    output: str | None = None


class _Shape(BaseModel):
    """What a lock holds, as far as it is compared."""

    model_config = ConfigDict(defer_build=True, extra="forbid", strict=True)

    lock: int
    recipe: dict[str, str]
    made_with: dict[str, str]
    packages: dict[str, str]
    environments: dict[str, str]
    steps: dict[str, _LockedStep]
    sources: dict[str, Any]
    rows: dict[str, Any]
    gates: dict[str, Any]


def lock_path(recipe: Path) -> Path:
    """Return the path of a recipe's lock: the file beside it."""
    return recipe.with_suffix(".lock")


def make_lock(built: BuildResult, store: Store) -> Lock:
    """Return the lock of a build whose every step succeeded.

    Args:
        built: the build.
        store: holds the objects; a damaged one is set aside.

    Raises:
        Damaged: a fetched object is not what it was.
    """
    plan = built.plan
    outputs = {name: artifact.digest for name, artifact in built.artifacts.items()}
    sources, rows = {}, {}
    for node in plan.nodes.values():
        path = built.artifacts[node.id].path
        if node.use == "fetch":
            files = list_tree(path)
            if digest_listing(files) != outputs[node.id]:
                store.check(built.artifacts[node.id], again=True)  # sets it aside
                raise Damaged(node.id)
            listed = {name: f"{size} {sha}" for name, (size, sha) in sorted(files.items())}
            sources[node.id] = {"from": _origin(node), "files": listed}
        elif node.use == "load.rows":
            if not store.check(built.artifacts[node.id]):
                raise Damaged(node.id)
            ids = [str(row["id"]) for row in read_jsonl(path / ROWS)]
            # Of the files; older locks have no `total`, and nothing is compared with it.
            total = {"total": count} if (count := built.artifacts[node.id].facts.get("total")) is not None else {}
            digest = hashlib.sha256("\n".join(ids).encode()).hexdigest()
            rows[node.id] = {"count": len(ids), **total, "ids": digest}
    expected = expect(plan, outputs)
    for name, step in expected["steps"].items():
        if "key" in step:
            step["output"] = outputs[name]
    gates = {
        name: {v.check: {"passed": v.passed, "value": v.value, "bound": v.bound} for v in found}
        for name, found in built.verdicts.items()
    }
    return {"lock": LOCK_FORMAT, **expected, "sources": sources, "rows": rows, "gates": gates}


def expect(plan: Plan, outputs: Mapping[str, str], format: int = LOCK_FORMAT) -> dict[str, Any]:
    """Return the lock of a plan as far as it is known before a build, if its steps have these outputs.

    A step whose inputs `outputs` does not name has no key here.
    """

    def promised(node: Node, _: str) -> Artifact | None:
        return Artifact(node.gives, Path(), outputs[node.id], {}) if node.id in outputs else None

    steps: dict[str, dict[str, Any]] = {}
    packages: dict[str, str] = {}
    pins: dict[str, str] = {}
    for node, keyed, _ in walk(plan, promised):
        steps[node.id] = {"use": node.use, "version": node.stage.version}
        if keyed is None:
            continue
        used, elsewhere = made_with(keyed.ingredients)
        packages |= used
        pins |= {environment: environments.get(environment).digest for environment in elsewhere}
        task = keyed.ingredients["task"]
        if task is not None and keyed.ingredients["environment"] == DEFAULT:
            packages |= task.get("packages", {})
        if node.stage.host() != "machine":
            steps[node.id]["key"] = keyed.key
    return {
        "recipe": {"name": plan.name, "digest": _meaning(plan) if format > 1 else _wording(plan)},
        "made_with": {
            "cpu-pipeline": installed("cpu-pipeline"),
            "python": platform.python_version(),
            "system": f"{platform.system()} {platform.machine()}",
            "isa": " ".join(host.isa()),
        },
        "packages": dict(sorted(packages.items())),
        "environments": dict(sorted(pins.items())),
        "steps": steps,
    }


def _meaning(plan: Plan) -> str:
    """Return the digest of what a recipe means: not of its order, its pipeline's name, or defaults that it repeats."""
    meant = {
        name: [node.use, dict(node.inputs), dict(node.data), node.timeout, _options(node, exclude_defaults=True)]
        for name, node in plan.nodes.items()
    }
    sources = plan.recipe.model_dump(
        mode="json", by_alias=True, include={"model", "tokenizer", "teacher", "data", "target", "unchecked"},
        exclude_defaults=True,
    )  # fmt: skip
    task = plan.context.task
    options = task.model_dump(mode="json", exclude_defaults=True) if task is not None else {}
    named = [plan.context.task_name, options, sorted(plan.context.allow), sorted(plan.outputs)]
    return digest_json([sources, meant, named])


def _wording(plan: Plan) -> str:
    """Return the digest that locks of format 1 have of a recipe."""
    # The options that were set: one that a later version adds is no change of the recipe.
    meant = {
        name: [node.use, dict(node.inputs), dict(node.data), _options(node, exclude_unset=True)]
        for name, node in plan.nodes.items()
    }
    written = plan.recipe.model_dump(mode="json", by_alias=True, exclude={"about", "refresh"}, exclude_defaults=True)
    return digest_json([written, meant, list(plan.outputs)])


@dataclass(frozen=True)
class Drift:
    """One thing in which a build would differ from the lock."""

    kind: Trigger
    """What kind of change it is."""
    says: str
    source: bool = False
    """True when its text names the kind already."""

    @property
    def cause(self) -> str:
        """Return it as a reason to build."""
        return self.says if self.source else f"{self.kind}: {self.says}"


def drift(lock: Lock, plan: Plan) -> list[Drift]:
    """List everything in which a build of this plan would differ from the lock, as far as is known before it."""
    before = lock["steps"]
    now = expect(plan, {name: step["output"] for name, step in before.items() if "output" in step}, lock["lock"])
    found: list[Drift] = []

    def compare(kind: Trigger, of: str, old: Any, new: Any) -> None:
        found.extend(Drift(kind, f"{of}{change}") for change in differences(old, new))

    for part in ("recipe", "made_with", "packages", "environments"):
        compare("recipe" if part == "recipe" else "toolchain", "", {part: lock[part]}, {part: now[part]})
    rest: Trigger = "recipe" if found and found[0].kind == "recipe" else "toolchain"
    for name in dict.fromkeys([*before, *now["steps"]]):
        step = {fact: value for fact, value in before.get(name, {}).items() if fact != "output"}
        fetched = name in plan.nodes and name in before and plan.nodes[name].use == "fetch"
        kind: Trigger = ("data" if name.startswith("data.") else "model") if fetched else rest
        change = _other_files(lock["sources"].get(name), plan.nodes[name]) if fetched else ""
        if change and step.get("key") != now["steps"][name].get("key"):
            found.append(Drift(kind, f"{name.removesuffix(':files')}: {change}", source=True))
        else:
            compare(kind, "steps.", {name: step or None}, {name: now["steps"].get(name)})
    return found


def _other_files(source: Any, node: Node) -> str:
    """Say which files are named now instead of those of the lock; empty for the same ones."""
    was, now = source.get("from") if isinstance(source, dict) else None, _origin(node)
    if was is not None and was != now:
        return f"{was} → {now}"
    return "its files on this machine changed" if now == LOCAL else ""


def deviations(lock: Lock, built: BuildResult) -> list[str]:
    """List the steps of a build whose output is not the locked one."""
    return [
        f"step `{name}` came out as {built.artifacts[name].digest[:12]}, the lock says {step['output'][:12]}"
        for name, step in lock["steps"].items()
        if "output" in step and name in built.artifacts and built.artifacts[name].digest != step["output"]
    ]


def require(found: Sequence[str], path: Path) -> None:
    """Refuse when anything differs from the lock.

    Raises:
        Stale: lists the differences.
    """
    if found:
        more = "".join(f"\n  {line}" for line in found)
        raise Stale(f"{path} is stale:{more}\nwrite it anew with `cpu-pipeline lock`, or go back to what it says")


def write_lock(lock: Lock, path: Path) -> bool:
    """Write a lock, whole or not at all; return whether its text is new."""
    text = dump(lock)
    if path.is_file() and path.read_bytes() == text.encode():  # what is there need not be UTF-8
        return False
    with writing(path):
        write_file(path, text, path.with_name(f".{path.name}.{os.getpid()}"))
    return True


def dump(lock: Lock) -> str:
    """Write a lock as YAML, one fact a line."""
    return HEAD + yaml.dump(dict(lock), Dumper=_Dumper, sort_keys=False, width=10**6, allow_unicode=True)


class _Dumper(yaml.SafeDumper):
    """Quotes what YAML 1.2 would not read as text: PyYAML looks at 1.1 alone, for which `12e3` is no number."""


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
    try:
        plain = scalar(value) == value and value.isprintable()
    except ValueError:
        plain = False
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=None if plain else '"')


_Dumper.add_representer(str, _text)


def read_lock(path: Path) -> Lock:
    """Read a lock.

    Raises:
        RecipeError: there is none, it holds a merge that was not settled, is newer than this version, or no lock.
    """
    again = "write it with `cpu-pipeline lock`"
    if not path.is_file():
        raise RecipeError(f"{path}: there is no lock; {again}")
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        if MERGE.match(line):
            raise RecipeError(f"{path}:{number}:1: a merge that was not settled (`{line[:7]}`); settle it, or {again}")
    written = read_document(path, any_text=True).value
    if not isinstance(written, dict) or not isinstance(written.get("lock"), int):
        raise RecipeError(f"{path}:1:1: not a lock: it does not say `lock: {LOCK_FORMAT}`; {again}")
    if written["lock"] > LOCK_FORMAT:
        raise newer_format(path, written["lock"], LOCK_FORMAT, f"install that version, or {again}")
    try:
        _Shape.model_validate(written)
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join(map(str, first["loc"]))
        raise RecipeError(f"{path}: not a whole lock: {at}: {first['msg'].lower()}; {again}") from error
    return written


def _options(node: Node, *, exclude_unset: bool = False, exclude_defaults: bool = False) -> dict[str, Any]:
    return node.stage.model_dump(
        mode="json", exclude={"fields"}, exclude_unset=exclude_unset, exclude_defaults=exclude_defaults
    )


def _origin(node: Node) -> str:
    """Return the origin of what a node fetched: repository and commit, or this machine."""
    fields = node.stage.model_dump()["fields"]
    return f"{fields['hub']} at {fields['revision']}" if "hub" in fields else LOCAL
