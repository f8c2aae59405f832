"""How often does a gate pass what is truly worse, and fail what is not? Tried on redraws of a recipe's own rows.

`python -m cpu_pipeline.bench.redraws recipes/quickstart.yaml` takes the rows and predictions of a recipe that was built
from the store. It draws the rows anew with replacement (those that belong together as wholes), and judges on each draw

- a candidate made truly worse: the reference's answers, a share of them replaced by the answers to other rows;
- one that is truly no worse: the answers of both sides, swapped row by row by the toss of a coin;
- the reference itself, byte for byte.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpu_pipeline.core.errors import StageFailed
from cpu_pipeline.core.jsonl import PREDICTIONS, ROWS, read_jsonl
from cpu_pipeline.engine import preview
from cpu_pipeline.graph import planner
from cpu_pipeline.recipe.reader import load_recipe
from cpu_pipeline.runtime import paired
from cpu_pipeline.runtime.rows_needed import rows_needed
from cpu_pipeline.stages._columns import clusters_of, read_columns
from cpu_pipeline.stages.validate._accuracy_facts import MetricFacts
from cpu_pipeline.stages.validate._verdicts import Difference
from cpu_pipeline.stages.validate.accuracy import ValidateAccuracy
from cpu_pipeline.store.local import Store
from cpu_pipeline.tasks._base import Task

if TYPE_CHECKING:
    import numpy as np

Scores = Sequence[Mapping[str, Any]]
KINDS = ("worse", "no worse", "identical")
SEED = 0
TRIALS = 24
"""Random replacements by which the share is found that costs the metric what is asked."""


@dataclass(frozen=True)
class Redrawn:
    """What one gate said of each kind of candidate."""

    gate: str
    metric: str
    rows: int
    drop: float
    """The allowed drop on all rows, as a difference."""
    flips: float
    """Share of rows whose score really differs between the two sides."""
    needed: int | None
    """Rows that the table asks for at that share."""
    outcomes: Mapping[str, Mapping[str, int]]
    """Kind of candidate -> outcome -> draws."""


def redraw(recipe: Path, store: Store, draws: int = 200, worse: float = 0.02) -> list[Redrawn]:
    """Judge candidates on redraws of the rows of every accuracy gate of a recipe.

    Args:
        recipe: the recipe; it was built, so that the store has its predictions.
        store: the store.
        draws: how many redraws.
        worse: how much worse the worse candidate truly is, in the metric.

    Raises:
        StageFailed: the store lacks a prediction.
    """
    plan = planner.make_plan(load_recipe(recipe))
    known = {seen.node.id: seen.artifact for seen in preview.look(plan, store) if seen.artifact is not None}
    found = []
    for node in plan.nodes.values():
        if not isinstance(node.stage, ValidateAccuracy) or node.stage.allowed is None or plan.context.task is None:
            continue
        needs = {**node.inputs, "rows": node.data["validation"]}
        if missing := [name for name in needs.values() if name not in known]:
            raise StageFailed(f"{node.label}: {', '.join(missing)} is not in the store; run the recipe first")
        paths = {name: known[source].path for name, source in needs.items()}
        found.append(_Gate.read(node.id, node.stage, plan.context.task, paths).redraw(draws, worse))
    return found


@dataclass
class _Gate:
    """One gate, and the scores of its rows."""

    name: str
    stage: ValidateAccuracy
    task: Task
    metric: str
    candidate: Scores
    reference: Scores
    wrong: Scores
    """The reference's scores with the answers to other rows."""
    clusters: Sequence[str] | None

    @classmethod
    def read(cls, name: str, stage: ValidateAccuracy, task: Task, paths: Mapping[str, Path]) -> _Gate:
        import numpy as np

        rows = read_jsonl(paths["rows"] / ROWS)
        said = {
            side: {str(one["id"]): one for one in read_jsonl(paths[side] / PREDICTIONS)}
            for side in ("candidate", "reference")
        }
        rows = [row for row in rows if all(str(row["id"]) in one for one in said.values())]
        scores = {side: task.score(rows, one) for side, one in said.items()}
        others = np.random.default_rng(SEED).permutation(len(rows))
        mixed = {
            str(row["id"]): {**said["reference"][str(rows[other]["id"])], **_own(said["reference"], row)}
            for row, other in zip(rows, others, strict=True)
        }
        metric = stage.metric or next(iter(scores["reference"].metrics))
        clusters = clusters_of(rows, read_columns(paths["rows"] / ROWS), stage.cluster_column(task))
        return cls(
            name,
            stage,
            task,
            metric,
            scores["candidate"].rows,
            scores["reference"].rows,
            task.score(rows, mixed).rows,
            clusters,
        )

    def redraw(self, draws: int, worse: float) -> Redrawn:
        import numpy as np

        rng = np.random.default_rng(SEED)
        share = self._share(worse)
        outcomes = {kind: dict.fromkeys(("pass", "inconclusive", "fail"), 0) for kind in KINDS}
        for positions, clusters in self._draws(rng, draws):
            lost, swapped = rng.random(len(positions)) < share, rng.random(len(positions)) < 0.5
            theirs = [self.reference[i] for i in positions]
            ours = [self.candidate[i] for i in positions]
            made = {
                "worse": (self._mixed(positions, lost), theirs),
                "no worse": (_where(swapped, theirs, ours), _where(swapped, ours, theirs)),
                "identical": (theirs, theirs),
            }
            for kind, (one, other) in made.items():
                outcomes[kind][self._judge(one, other, clusters, identical=kind == "identical")] += 1
        flips = sum(c != r for c, r in zip(self.candidate, self.reference, strict=True)) / len(self.reference)
        whole = self._facts(self.candidate, self.reference, self.clusters, identical=False)
        drop = self.stage.margin(whole) or 0.0
        needed = rows_needed(flips, drop, self.stage.confidence)
        return Redrawn(self.name, self.metric, len(self.reference), drop, flips, needed, outcomes)

    def _share(self, worse: float) -> float:
        """Find the share of answers to replace that costs the metric so much on average."""
        import numpy as np

        rng = np.random.default_rng(SEED)
        draws = [rng.random(len(self.reference)) for _ in range(TRIALS)]
        sign = -1 if self.metric in self.task.lower_is_better else 1
        before = self.task.aggregate(self.reference, self.metric)

        def lost(share: float) -> float:
            after = [self.task.aggregate(_where(one < share, self.wrong, self.reference), self.metric) for one in draws]
            return sign * (before - float(np.mean(after)))

        low, high = 0.0, 1.0
        for _ in range(12):
            middle = (low + high) / 2
            low, high = (middle, high) if lost(middle) < worse else (low, middle)
        return (low + high) / 2

    def _draws(self, rng: np.random.Generator, draws: int) -> Iterator[tuple[list[int], list[str] | None]]:
        """Draw rows, or whole clusters, which count as new ones each time that they are drawn."""
        count = len(self.reference)
        if self.clusters is None:
            for _ in range(draws):
                yield rng.integers(0, count, count).tolist(), None
            return
        members: dict[str, list[int]] = {}
        for position, cluster in enumerate(self.clusters):
            members.setdefault(cluster, []).append(position)
        groups = list(members.values())
        for _ in range(draws):
            drawn = rng.integers(0, len(groups), len(groups))
            pairs = [(position, str(number)) for number, i in enumerate(drawn) for position in groups[i]]
            yield [position for position, _ in pairs], [name for _, name in pairs]

    def _mixed(self, positions: Sequence[int], lost: Any) -> list[Mapping[str, Any]]:
        return [self.wrong[i] if worse else self.reference[i] for i, worse in zip(positions, lost, strict=True)]

    def _facts(self, ours: Scores, theirs: Scores, clusters: Sequence[str] | None, *, identical: bool) -> MetricFacts:
        task, confidence = self.task, self.stage.confidence
        found = paired.compare(
            ours,
            theirs,
            self.metric,
            task.aggregate,
            [confidence],
            packed=(task.packed(ours), task.packed(theirs)),
            clusters=clusters,
            identical=identical,
        )
        return MetricFacts(
            candidate=task.aggregate(ours, self.metric),
            reference=task.aggregate(theirs, self.metric),
            difference=found.value,
            low=None,
            high=None,
            better="lower" if self.metric in task.lower_is_better else "higher",
            lower=found.lower[0],
            upper=found.upper[0],
        )

    def _judge(self, ours: Scores, theirs: Scores, clusters: Sequence[str] | None, *, identical: bool) -> str:
        facts = self._facts(ours, theirs, clusters, identical=identical)
        turned = Difference.of(facts.difference, facts.lower, facts.upper, facts.better, None)
        drop = self.stage.margin(facts)
        if turned is None or drop is None:
            return "inconclusive"
        return turned.outcome(drop, by_estimate=self.stage.by_estimate)


def _own(predictions: Mapping[str, Mapping[str, Any]], row: Mapping[str, Any]) -> dict[str, Any]:
    """Take what of a prediction belongs to its row: the id, and the row's own right answer."""
    own = predictions[str(row["id"])]
    return {key: own[key] for key in ("id", "gold") if key in own}


def _where(chosen: Any, one: Scores, other: Scores) -> list[Mapping[str, Any]]:
    return [a if first else b for first, a, b in zip(chosen, one, other, strict=True)]


def main() -> None:
    """Print a line for each gate and kind of candidate."""
    import argparse

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--worse", type=float, default=0.02)
    given = parser.parse_args()
    for found in redraw(given.recipe, Store(given.store), given.draws, given.worse):
        needed = "more than anyone has" if found.needed is None else f"{found.needed:,}"
        print(
            f"{found.gate}: {found.metric} on {found.rows:,} rows, a drop of {found.drop:.4f} is allowed; "
            f"{found.flips:.1%} of the rows differ, for which the table asks for {needed}"
        )
        for kind, outcomes in found.outcomes.items():
            print(f"  {kind:10} " + ", ".join(f"{count} {what}" for what, count in outcomes.items()))


if __name__ == "__main__":
    main()
