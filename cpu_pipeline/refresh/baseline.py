"""What is in service, loaded again: the baseline that a candidate is compared with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cpu_pipeline import stages
from cpu_pipeline.core.artifact import Artifact, list_tree
from cpu_pipeline.core.errors import Refused
from cpu_pipeline.engine.result import BuildResult
from cpu_pipeline.graph.looks import in_parts
from cpu_pipeline.graph.plan import CHECKS, Node, Plan
from cpu_pipeline.release.lockfile import Lock
from cpu_pipeline.release.manifest import artifact_files
from cpu_pipeline.release.standing import Standing
from cpu_pipeline.store.lease import Lease

MARK = "@service"
"""Ends the names of nodes that load what is in service, or compare with it."""
PREDICTIONS = "predictions"


@dataclass(frozen=True)
class ReleasedArtifact:
    """One artifact of an earlier build, and where its files lie."""

    format: str
    digest: str
    folder: Path
    files: tuple[str, ...]


@dataclass(frozen=True)
class Predictions:
    """The predictions of a model that were published with it."""

    artifact: ReleasedArtifact
    rows: str
    """Digest of the rows that were predicted."""
    task: Any
    """The task as the recipe had it."""


@dataclass(frozen=True)
class Baseline:
    """What is in service under a recipe's name."""

    version: str | None
    """None when this machine has no version, and it was loaded from lock and store."""
    models: Mapping[str, ReleasedArtifact]
    """Output -> its artifact."""
    predictions: Mapping[str, Predictions] = field(default_factory=dict)
    """Node that predicted -> its predictions."""


def of_version(standing: Standing) -> Baseline | None:
    """Load the version in service; None when there is none.

    Raises:
        Refused: it was edited since it was written.
    """
    version, manifest = standing.folder, standing.manifest
    if version is None:
        return None
    if standing.edited or manifest is None:
        raise Refused(
            f"{version} is in service and was edited ({', '.join(standing.edited[:5])}): put it right, name another "
            "version with `cpu-pipeline rollback`, or overwrite it with `run --force`"
        )
    steps, files = manifest["steps"], manifest["files"]
    models = {
        name: ReleasedArtifact(
            output["format"], output["digest"], version / name, tuple(artifact_files(manifest, name))
        )
        for name, output in manifest["outputs"].items()
    }
    predictions = {}
    for gate in manifest["checks"]:
        for side, source in steps[gate]["inputs"].items():
            step = steps.get(source, {})
            if step.get("format") != PREDICTIONS:
                continue
            folder = f"{CHECKS}/{gate}/{side}/"
            names = tuple(name.removeprefix(folder) for name in files if name.startswith(folder))
            rows = steps[step["inputs"]["data.validation"]]["digest"]
            released = ReleasedArtifact(PREDICTIONS, step["digest"], version / folder, names)
            predictions[source] = Predictions(released, rows, manifest["recipe"]["task"])
    return Baseline(manifest["version"], models, predictions)


def of_lock(lock: Lock, plan: Plan, lease: Lease) -> tuple[Baseline, list[str]]:
    """Load the outputs of a plan that a lock names, on a machine that has no artifacts of its own.

    Args:
        lock: the recipe's lock.
        plan: names the outputs.
        lease: of this refresh; `gc` leaves alone what is found.

    Returns:
        What the store or its remote has, and the names of the outputs that neither has.
    """
    models, missing = {}, []
    for name in plan.outputs:
        step = lock["steps"].get(name, {})
        if (digest := step.get("output")) is None:
            continue
        found = lease.find(step["key"]) if "key" in step else None
        # What the recipe asks for now may have another format; without a record there is nothing else to go by.
        format = plan.nodes[name].gives if found is None else found.format
        artifact = Artifact(format, lease.store.path_of(digest), digest, {})
        if lease.store.check(artifact):
            models[name] = ReleasedArtifact(format, digest, artifact.path, tuple(list_tree(artifact.path)))
        else:
            missing.append(name)
    return Baseline(None, models), missing


def against(baseline: Baseline, built: BuildResult) -> Plan:
    """Add to a plan the gates that compare its outputs with what is in service.

    Published predictions are used again where rows and task are the same; otherwise the artifact in service predicts
    again.
    """
    plan = built.plan
    added: dict[str, Node] = {}
    for gate, node in plan.nodes.items():
        after = node.stage.successor()
        if after is None or not {"candidate", "reference"} <= node.inputs.keys():
            continue
        between = plan.nodes[node.inputs["candidate"]] if "candidate" in node.stage.through else None
        model = judged(plan, node)
        if model not in baseline.models or built.artifacts[model].digest == baseline.models[model].digest:
            continue
        reference = _load(f"{model}{MARK}", baseline.models[model], node, added)
        if between is not None and after.looks() > 1:  # it looks as the gate does, and predicts no more than it needs
            sides = {"candidate": model, "reference": reference}
            marked = replace(node, id=f"{gate}{MARK}", stage=after)
            added |= in_parts(marked, sides, between, plan.context.task)
            continue
        if between is not None:
            reference = _predict(baseline, built, between, reference, added)
        inputs = {**node.inputs, "reference": reference}
        added[f"{gate}{MARK}"] = replace(node, id=f"{gate}{MARK}", stage=after, inputs=inputs)
    return replace(plan, nodes={**plan.nodes, **added})


def judged(plan: Plan, gate: Node) -> str:
    """Name the step whose model a gate judges."""
    candidate = gate.inputs["candidate"]
    if "candidate" not in gate.stage.through:
        return candidate
    return next(iter(plan.nodes[candidate].inputs.values()))  # its predictions lie between


def _load(name: str, released: ReleasedArtifact, beside: Node, added: dict[str, Node]) -> str:
    """Add a node that loads an artifact of the version in service; return its name."""
    if name not in added:
        options = {
            "format": released.format, "digest": released.digest, "folder": str(released.folder),
            "files": released.files,
        }  # fmt: skip
        stage = stages.get("load.kept")(**options)
        added[name] = Node(name, "load.kept", stage, after=beside.after, where=beside.where)
    return name


def _predict(baseline: Baseline, built: BuildResult, ours: Node, model: str, added: dict[str, Node]) -> str:
    """Add a node for the baseline's predictions, published or new; return its name."""
    recorded = baseline.predictions.get(ours.id)
    rows = built.artifacts[ours.data["validation"]].digest
    task = built.plan.recipe.model_dump(mode="json", by_alias=True, exclude_defaults=True)["task"]
    name = f"{ours.id}{MARK}"
    if recorded is not None and recorded.rows == rows and recorded.task == task:
        return _load(name, recorded.artifact, ours, added)
    added[name] = replace(ours, id=name, inputs={next(iter(ours.inputs)): model})
    return name
