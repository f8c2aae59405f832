"""What is in service, loaded again: the baseline that a candidate is compared with."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
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

BEST = "@best"
"""Ends the names of nodes that compare with the best version that was in service before."""
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
    return _against(baseline, built, MARK)


def _against(baseline: Baseline, built: BuildResult, mark: str, gates: Collection[str] | None = None) -> Plan:
    """Add the gates that compare with a baseline, their names ending in `mark`; all gates when None are named."""
    plan = built.plan
    added: dict[str, Node] = {}
    for gate, node in plan.nodes.items():
        after = node.stage.successor()
        if after is None or not {"candidate", "reference"} <= node.inputs.keys():
            continue
        if gates is not None and gate not in gates:
            continue
        between = plan.nodes[node.inputs["candidate"]] if "candidate" in node.stage.through else None
        model = judged(plan, node)
        if model not in baseline.models or built.artifacts[model].digest == baseline.models[model].digest:
            continue
        reference = _load(f"{model}{mark}", baseline.models[model], node, added)
        if between is not None and after.looks() > 1:  # it looks as the gate does, and predicts no more than it needs
            sides = {"candidate": model, "reference": reference}
            marked = replace(node, id=f"{gate}{mark}", stage=after)
            added |= in_parts(marked, sides, between, plan.context.task)
            continue
        if between is not None:
            reference = _predict(baseline, built, between, reference, added, mark)
        inputs = {**node.inputs, "reference": reference}
        added[f"{gate}{mark}"] = replace(node, id=f"{gate}{mark}", stage=after, inputs=inputs)
    return replace(plan, nodes={**plan.nodes, **added})


def against_best(versions: Sequence[Standing], built: BuildResult) -> Plan:
    """Add to a plan the gates that compare its outputs with the best version that was in service before.

    Each refresh may lose what a gate allows from what is in service. Held against the best version too, several
    refreshes together can't lose more than that.

    Args:
        versions: those that were in service and are whole; the newest first.
        built: the candidate's build. A gate is added where a version has predictions of the same rows by the same task,
            and its metric there is better than that of any other one; a later one wins where two are as good.
    """
    plan = built.plan
    loaded = [(standing, one) for standing in versions if (one := of_version(standing)) is not None]
    for gate, node in built.plan.nodes.items():
        if not ({"candidate", "reference"} <= node.inputs.keys() and "candidate" in node.stage.through):
            continue
        predicted = built.plan.nodes[node.inputs["candidate"]]
        metric = node.stage.headline_metric(node.stage.parse_facts(built.artifacts[gate].facts))
        if metric is None:
            continue
        scored = []
        for standing, baseline in loaded:
            value = _scored(standing, gate, metric[0]) if _fits(baseline, built, predicted) else None
            if value is not None:
                scored.append((value if metric[1] else -value, baseline))
        if scored:
            best = max(scored, key=lambda pair: pair[0])[1]
            added = _against(best, built, BEST, {gate})
            plan = replace(plan, nodes={**added.nodes, **plan.nodes})
    return plan


def best_versions(versions: Sequence[Standing], plan: Plan) -> set[str]:
    """Name the versions that gates of later refreshes are to compare with: of each gate, the best by its metric.

    Args:
        versions: that in service, then those that were, the newest first. Only those count that have predictions of
            the same rows by the same task as the one in service.
        plan: of the recipe; its gates name the metric.
    """
    loaded = [(standing, one) for standing in versions if not standing.edited and (one := of_version(standing))]
    if not loaded or loaded[0][0] is not versions[0]:
        return set()
    found = set()
    for gate, node in plan.nodes.items():
        predicted = node.inputs.get("candidate", "")
        asked = loaded[0][1].predictions.get(predicted)
        if asked is None or (metric := _headline(node, versions[0], gate)) is None:
            continue
        scored = []
        for standing, one in loaded:
            kept = one.predictions.get(predicted)
            value = _scored(standing, gate, metric[0])
            if kept is not None and (kept.rows, kept.task) == (asked.rows, asked.task) and value is not None:
                scored.append((value if metric[1] else -value, str(one.version)))
        if scored:
            found.add(max(scored, key=lambda pair: pair[0])[1])
    return found


def _headline(node: Node, standing: Standing, gate: str) -> tuple[str, bool] | None:
    """Return the metric of a gate, by the facts of a version; None where they are those of other options."""
    try:
        facts = (standing.manifest or {})["steps"][gate]["facts"]
        return node.stage.headline_metric(node.stage.parse_facts(facts))
    except (KeyError, ValueError):
        return None


def _fits(baseline: Baseline, built: BuildResult, predicted: Node) -> bool:
    """Say whether a version has predictions of the same rows by the same task."""
    kept = baseline.predictions.get(predicted.id)
    task = built.plan.recipe.model_dump(mode="json", by_alias=True, exclude_defaults=True)["task"]
    return kept is not None and kept.task == task and kept.rows == built.artifacts[predicted.data["validation"]].digest


def _scored(standing: Standing, gate: str, metric: str) -> float | None:
    """Return what a version's gate measured of its candidate; None where it can't be read."""
    try:
        step = (standing.manifest or {})["steps"][gate]
        stage = stages.get(step["use"])
        return stage.model_construct(**step["options"]).scores(stage.parse_facts(step["facts"])).get(metric)
    except (KeyError, ValueError, TypeError, AttributeError):
        return None


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


def _predict(baseline: Baseline, built: BuildResult, ours: Node, model: str, added: dict[str, Node], mark: str) -> str:
    """Add a node for the baseline's predictions, published or new; return its name."""
    recorded = baseline.predictions.get(ours.id)
    rows = built.artifacts[ours.data["validation"]].digest
    task = built.plan.recipe.model_dump(mode="json", by_alias=True, exclude_defaults=True)["task"]
    name = f"{ours.id}{mark}"
    if recorded is not None and recorded.rows == rows and recorded.task == task:
        return _load(name, recorded.artifact, ours, added)
    added[name] = replace(ours, id=name, inputs={next(iter(ours.inputs)): model})
    return name
