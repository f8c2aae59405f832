"""Does the candidate answer as the reference does? Needs no labels: compares raw outputs, padded and not."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import ClassVar, Self, TypeVar

from pydantic import Field, model_validator

from cpu_pipeline import backends
from cpu_pipeline.core.errors import StageFailed
from cpu_pipeline.runtime.batching import Kinds, grouped
from cpu_pipeline.runtime.parity import compare
from cpu_pipeline.stages._base import Facts, Host, Inputs, Job, Stage, Verdict
from cpu_pipeline.tasks._base import Feature

T = TypeVar("T")

SINGLES = 4
BATCH = 8


class ValidateAgreement(Stage):
    """Compare the candidate's raw outputs with the reference's: no labels, several lengths, with padding."""

    samples: int = Field(default=64, ge=1)
    """How many sequences of the validation rows to compare on; random tokens where the recipe has no such rows."""
    max_difference: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Largest difference of any output value, in the outputs' own unit (logits, embedding values)."""
    mean_difference: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Largest mean difference over all output values."""
    cosine: float | None = Field(default=None, ge=-1, le=1)
    """Least cosine between the two outputs of any sequence."""
    same_top: float | None = Field(default=None, ge=0, le=1)
    """Least share of sequences whose highest-scored answer is the same, as a fraction."""

    takes: ClassVar = dict.fromkeys(("candidate", "reference"), frozenset(backends.names()))
    reads: ClassVar = frozenset({"task", "data.validation?"})
    packages: ClassVar = ("numpy",)
    version: ClassVar = 2
    unkeyed: ClassVar = frozenset({"max_difference", "mean_difference", "cosine", "same_top"})

    @model_validator(mode="after")
    def _can_fail(self) -> Self:
        if all(getattr(self, name) is None for name in self.unkeyed):
            raise ValueError(f"a gate must be able to fail: set one of {', '.join(sorted(self.unkeyed))}")
        return self

    def gives(self) -> str:
        return "report"

    def host(self) -> Host:
        return "isa"

    def backends(self, formats: Mapping[str, str]) -> Set[str]:
        return frozenset(formats.values())

    def run(self, inputs: Inputs, out: Path, job: Job) -> Facts:
        """Run both sides on the same batches and compare every output value.

        Raises:
            StageFailed: a side can't be loaded or run.
        """
        if job.task is None:
            raise StageFailed("agreement needs the recipe's task")
        reference = inputs["reference"]
        kinds = job.task.input_kinds(reference.path)
        if "validation" in job.data:
            rows = job.task.read_rows(job.data["validation"])
            features = job.task.encode(spread(rows, self.samples), reference.path)
            batches = arrange(spread(features, self.samples), kinds)
        else:
            batches = job.task.examples(reference.path)
        sessions = job.load(inputs["candidate"]), job.load(reference)
        facts = compare(*sessions, batches, kinds, job.task.per_token)
        sequences = sum(len(batch) for batch in batches)
        found = {**facts, "sequences": sequences, "on": "rows" if "validation" in job.data else "random tokens"}
        (out / "agreement.json").write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        return found

    def judge(self, facts: Facts) -> list[Verdict]:
        """Judge each bound; a value that is NaN or infinite on either side fails whatever the bounds say."""
        broken = facts["nonfinite"]
        verdicts = [
            Verdict("finite", not broken and facts["values"] > 0,
                    f"{broken} of {facts['values']} output values are NaN or infinite", broken, 0)
        ]  # fmt: skip
        for name, fact, most in (
            ("max_difference", "max_abs", True),
            ("mean_difference", "mean_abs", True),
            ("cosine", "cosine_min", False),
            ("same_top", "same_top", False),
        ):
            bound, value = getattr(self, name), facts[fact]
            if bound is None:
                continue
            passed = value is not None and (value <= bound if most else value >= bound)
            shown = "NaN" if value is None else f"{value:.6g}"
            side = "at most" if most else "at least"
            says = f"{name} {shown} over {facts['sequences']} sequences, {side} {bound:g} asked"
            verdicts.append(Verdict(name, passed, says, value, bound))
        return verdicts


def spread(items: Sequence[T], count: int) -> list[T]:
    """Take `count` items, evenly spread over all."""
    if len(items) <= count:
        return list(items)
    return [items[i * len(items) // count] for i in range(count)]


def arrange(features: Sequence[Feature], kinds: Kinds) -> list[list[Feature]]:
    """Make batches of one (shortest to longest) and then of mixed lengths, which are padded where that is allowed."""
    order = sorted(features, key=lambda feature: feature.length)
    singles = [[feature] for feature in spread(order, SINGLES)]
    return [*singles, *grouped(features, BATCH, kinds)]
