"""Rows that flipped: the candidate of a gate answers them worse, or better, than its reference."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from cpu_pipeline import tasks
from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.core.jsonl import PREDICTIONS, ROWS, SCORES, read_jsonl
from cpu_pipeline.engine.result import BuildResult
from cpu_pipeline.graph.plan import CHECKS
from cpu_pipeline.release.manifest import MANIFEST, read_manifest
from cpu_pipeline.runtime import losses
from cpu_pipeline.store.local import Store
from cpu_pipeline.tasks._base import Task

FILE = "flips.jsonl"
"""All flips of a failed build, in its report's directory."""
MOST = 50
"""Rows of each way that a report shows."""
LONGEST = 400
"""Characters of one text of a row."""
Way = Literal["lost", "won", "moved"]
WAYS: Mapping[Way, str] = {
    "lost": "that the reference answers right are answered wrong, or worse, by the candidate",
    "won": "that the reference answers wrong are answered right, or better, by the candidate",
    "moved": "have another score; the metric is of all rows together, so that none is right or wrong by itself",
}
"""Way -> what became of such rows."""


@dataclass(frozen=True)
class Flip:
    """One row that the two sides of a gate answer differently well."""

    way: Way
    """`lost` where the candidate is worse, `won` where it is better; `moved` where no row is right by itself."""
    gate: str
    """The step that compared them."""
    id: str
    """The row's id."""
    metric: str | None
    """The metric that differs, of this row alone; null where one row has none."""
    reference_score: float | None
    """The reference's value of the metric, as a fraction."""
    candidate_score: float | None
    """The candidate's."""
    reference: Mapping[str, Any]
    """The reference's answer."""
    candidate: Mapping[str, Any]
    """The candidate's answer."""
    row: Mapping[str, Any]
    """The row's columns, long texts cut; empty where the store has them no more."""

    @property
    def score(self) -> str:
        """Write how the row's score changed."""
        if self.metric is None or self.reference_score is None or self.candidate_score is None:
            return ""
        return f"{self.metric} {self.reference_score:.2f} → {self.candidate_score:.2f}"

    @property
    def says(self) -> str:
        """Write both answers on one line."""
        sides = (json.dumps(side, ensure_ascii=False, sort_keys=True) for side in (self.reference, self.candidate))
        return " → ".join(sides)


def of_build(built: BuildResult, gate: str) -> list[Flip]:
    """List the rows that flipped in a gate of a build, those that lost most first; none where it scores no rows."""
    node = built.plan.nodes.get(gate)
    task = built.plan.context.task
    if node is None or task is None or not (built.artifacts[gate].path / SCORES).is_file():
        return []
    sides = {
        side: built.artifacts[node.inputs[side]].path / PREDICTIONS
        for side in ("reference", "candidate")
        if side in node.inputs
    }
    rows = next((built.artifacts[source].path / ROWS for source in node.data.values()), None)
    return _found(gate, built.artifacts[gate].path / SCORES, sides, rows, task)


def read(folder: Path, store: Store) -> list[Flip]:
    """List all rows that flipped, of every gate.

    Args:
        folder: a version, one of its outputs, or the report of a failed run.
        store: has the rows' texts, perhaps.

    Raises:
        RecipeError: it is none of these.
    """
    if (folder / FILE).is_file():
        return [Flip(**line) for line in read_jsonl(folder / FILE)]
    version, output = (folder, None) if (folder / MANIFEST).is_file() else (folder.resolve().parent, folder.name)
    try:
        manifest = read_manifest(version)
        steps, use = manifest["steps"], manifest["recipe"]["task"]
        if output is not None and output not in manifest["outputs"]:
            raise KeyError(output)
        task = tasks.get(use["use"])(**use.get("with", {}))
        gates = [gate for gate in manifest["checks"] if output in (None, _candidate(steps, gate))]
        return [flip for gate in gates for flip in _of_version(version, gate, steps, task, store)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecipeError(
            f"{folder}: no version, no output of one and no report of a failed run ({error}); "
            "name artifacts/NAME/latest, artifacts/NAME/latest/OUTPUT or artifacts/NAME/failed/RUN"
        ) from error


def write(path: Path, flips: Sequence[Flip]) -> None:
    """Write flips as lines of JSON."""
    lines = (json.dumps(asdict(flip), ensure_ascii=False, sort_keys=True) + "\n" for flip in flips)
    path.write_text("".join(lines), encoding="utf-8", newline="\n")


def _candidate(steps: Mapping[str, Any], gate: str) -> str:
    """Name the model that a gate judges; it may read its predictions."""
    return str(steps[gate]["inputs"].get("candidate", "")).rpartition(":")[2]


def _of_version(version: Path, gate: str, steps: Mapping[str, Any], task: Task, store: Store) -> list[Flip]:
    home = version / CHECKS / gate
    if not (home / SCORES).is_file():
        return []
    sides = {side: home / side / PREDICTIONS for side in ("reference", "candidate")}
    sources = [source for name, source in steps[gate]["inputs"].items() if name.startswith("data.")]
    rows = next((store.path_of(steps[source]["digest"]) / ROWS for source in sources), None)
    return _found(gate, home / SCORES, sides, rows, task)


def _found(gate: str, scores: Path, sides: Mapping[str, Path], rows: Path | None, task: Task) -> list[Flip]:
    changes = {}
    for line in read_jsonl(scores):
        change = losses.change(line["candidate"], line["reference"], task)
        if change.loss:
            changes[str(line["id"])] = change
    if not changes:
        return []
    answers = {side: dict(_chosen(path, changes)) for side, path in sides.items()}
    texts = dict(_chosen(rows, changes)) if rows is not None else {}
    order = sorted(changes.items(), key=lambda item: (-abs(item[1].loss), item[0]))
    found = [
        Flip(
            _way(change),
            gate,
            name,
            change.metric,
            change.reference,
            change.candidate,
            answers.get("reference", {}).get(name, {}),
            answers.get("candidate", {}).get(name, {}),
            texts.get(name, {}),
        )
        for name, change in order
    ]
    return sorted(found, key=lambda flip: list(WAYS).index(flip.way))


def _way(change: losses.Change) -> Way:
    if change.metric is None:
        return "moved"
    return "lost" if change.loss > 0 else "won"


def _chosen(path: Path, wanted: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    if not path.is_file():
        return
    for line in read_jsonl(path):
        if str(line["id"]) in wanted:
            yield str(line["id"]), short(line)


def short(line: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out the id, and cut long texts."""
    return {key: _cut(value) for key, value in line.items() if key != "id"}


def _cut(value: Any) -> Any:
    if isinstance(value, str):
        return value if len(value) <= LONGEST else value[:LONGEST] + "…"
    text = str(value)
    return value if len(text) <= LONGEST else text[:LONGEST] + "…"
