"""What is in service, taken up again, so that what would take its place is compared with it and not with memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cpu_pipeline import stages
from cpu_pipeline.core.artifact import Artifact, list_tree
from cpu_pipeline.core.errors import Refused
from cpu_pipeline.engine.result import BuildResult
from cpu_pipeline.graph.plan import Node, Plan
from cpu_pipeline.release.lockfile import Lock
from cpu_pipeline.release.manifest import artifact_files, edited, read_manifest
from cpu_pipeline.store.lease import Lease

MARK = "@service"
"""Ends the names of nodes that stand for what is in service, or compare with it."""
PREDICTIONS = "predictions"


@dataclass(frozen=True)
class ReleasedArtifact:
    """One artifact of an earlier build, and where its files lie."""

    format: str
    digest: str
    folder: Path
    files: tuple[str, ...]


@dataclass(frozen=True)
class Answers:
    """What a model answered when it was let out."""

    of: ReleasedArtifact
    rows: str
    """Digest of the rows that were asked."""
    task: Any
    """The task as the recipe had it."""


@dataclass(frozen=True)
class Service:
    """What is in service under a recipe's name."""

    version: str | None
    """None when no version is here, and only lock and store tell."""
    models: Mapping[str, ReleasedArtifact]
    """Output -> its artifact."""
    answers: Mapping[str, Answers] = field(default_factory=dict)
    """Node that predicted -> its predictions."""


def of_version(version: Path) -> Service:
    """Take up a version's folder.

    Raises:
        Refused: it was edited since it was written.
    """
    if changed := edited(version):
        raise Refused(
            f"{version} is in service and was edited ({', '.join(changed[:5])}): put it right, name another version "
            "with `cpu-pipeline rollback`, or overwrite it with `run --force`"
        )
    manifest = read_manifest(version)
    steps, files = manifest["steps"], manifest["files"]
    models = {
        name: ReleasedArtifact(said["format"], said["digest"], version / name, tuple(artifact_files(manifest, name)))
        for name, said in manifest["outputs"].items()
    }
    answers = {}
    for gate in manifest["checks"]:
        for side, source in steps[gate]["inputs"].items():
            step = steps.get(source, {})
            if step.get("format") != PREDICTIONS:
                continue
            place = f"checks/{gate}/{side}/"
            names = tuple(name.removeprefix(place) for name in files if name.startswith(place))
            rows = steps[step["inputs"]["data.validation"]]["digest"]
            kept = ReleasedArtifact(PREDICTIONS, step["digest"], version / place, names)
            answers[source] = Answers(kept, rows, manifest["recipe"]["task"])
    return Service(manifest["version"], models, answers)


def of_lock(lock: Lock, plan: Plan, lease: Lease) -> tuple[Service, list[str]]:
    """Take up what a lock names of a plan's outputs, on a machine that has no artifacts of its own.

    Returns what the store has, or its remote, and the names of those that neither has.
    """
    models, lacking = {}, []
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
            lacking.append(name)
    return Service(None, models), lacking


def against(service: Service, built: BuildResult) -> Plan:
    """Add to a plan the gates that hold its outputs against what is in service.

    What was answered when the version was let out is taken as it was, where the same rows were asked for the same task;
    otherwise the artifact in service answers again.
    """
    plan = built.plan
    added: dict[str, Node] = {}
    for gate, node in plan.nodes.items():
        after = node.stage.successor()
        if after is None or not {"candidate", "reference"} <= node.inputs.keys():
            continue
        between = plan.nodes[node.inputs["candidate"]] if "candidate" in node.stage.through else None
        model = judged(plan, node)
        if model not in service.models or built.artifacts[model].digest == service.models[model].digest:
            continue
        reference = _take_up(f"{model}{MARK}", service.models[model], node, added)
        if between is not None:
            reference = _answers(service, built, between, reference, added)
        inputs = {**node.inputs, "reference": reference}
        added[f"{gate}{MARK}"] = replace(node, id=f"{gate}{MARK}", stage=after, inputs=inputs)
    return replace(plan, nodes={**plan.nodes, **added})


def judged(plan: Plan, gate: Node) -> str:
    """Name the step whose model a gate judges."""
    candidate = gate.inputs["candidate"]
    if "candidate" not in gate.stage.through:
        return candidate
    return next(iter(plan.nodes[candidate].inputs.values()))  # its predictions lie between


def _take_up(name: str, kept: ReleasedArtifact, beside: Node, added: dict[str, Node]) -> str:
    if name not in added:
        options = {"format": kept.format, "digest": kept.digest, "folder": str(kept.folder), "files": kept.files}
        stage = stages.get("load.kept")(**options)
        added[name] = Node(name, "load.kept", stage, after=beside.after, where=beside.where)
    return name


def _answers(service: Service, built: BuildResult, ours: Node, model: str, added: dict[str, Node]) -> str:
    """Name the node of what the service answers: as it was recorded, or anew."""
    recorded = service.answers.get(ours.id)
    rows = built.artifacts[ours.data["validation"]].digest
    task = built.plan.recipe.model_dump(mode="json", by_alias=True, exclude_defaults=True)["task"]
    name = f"{ours.id}{MARK}"
    if recorded is not None and recorded.rows == rows and recorded.task == task:
        return _take_up(name, recorded.of, ours, added)
    added[name] = replace(ours, id=name, inputs={next(iter(ours.inputs)): model})
    return name
