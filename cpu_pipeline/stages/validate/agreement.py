"""Does the candidate answer as the reference does? Needs no labels: compares raw outputs, padded and not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Self

from pydantic import Field

from cpu_pipeline.runtime.batching import Kinds, grouped
from cpu_pipeline.runtime.parity import compare
from cpu_pipeline.stages._base import Count, Host, Inputs, Job, Verdict
from cpu_pipeline.stages._facts import Comparison
from cpu_pipeline.stages.validate._gate import Gate, spread, task_of
from cpu_pipeline.tasks._base import Feature

SINGLES = 4
"""Sequences that are run alone, unpadded."""
BATCH = 8
"""Sequences in each of the other batches, which are padded."""
CHECKS = (
    ("max_difference", "max_abs", True),
    ("mean_difference", "mean_abs", True),
    ("cosine", "cosine_min", False),
    ("same_top", "same_top", False),
)
"""Option, the fact that it bounds, and whether it is the largest value allowed (else the least)."""


class AgreementFacts(Comparison):
    """How far the two sides' outputs are apart."""

    sequences: Count
    """Sequences that were compared."""
    choices: Count | None = None
    """Different answers that the reference chose; 0 where outputs choose nothing, as the number of a regression."""
    on: str
    """`rows`, or `random tokens` where the recipe has no validation rows."""


class ValidateAgreement(Gate):
    """Compare the candidate's raw outputs with the reference's: no labels, several lengths, with padding."""

    samples: int = Field(default=64, ge=1)
    """How many sequences of the validation rows to compare on; random tokens where the recipe has no such rows."""
    max_difference: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Largest difference of any output value, in the outputs' own unit (logits, embedding values)."""
    mean_difference: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Largest mean difference over all output values."""
    cosine: float | None = Field(default=None, gt=-1, le=1, allow_inf_nan=False)
    """Least cosine between the two outputs of any sequence."""
    same_top: float | None = Field(default=None, gt=0, le=1, allow_inf_nan=False)
    """Least share of sequences with the same answer, as a fraction: the highest-scored one, or all chosen labels."""

    facts_model: ClassVar = AgreementFacts
    reads: ClassVar = frozenset({"task", "data.validation?"})
    packages: ClassVar = ("numpy",)
    version: ClassVar = 3
    bounds: ClassVar = frozenset({"max_difference", "mean_difference", "cosine", "same_top"})
    unkeyed: ClassVar = bounds
    remedies: ClassVar = ("max_difference", "mean_difference", "cosine", "same_top")

    def host(self) -> Host:
        """Say that rounding depends on the instruction sets."""
        return "isa"

    def run(self, inputs: Inputs, out: Path, job: Job) -> AgreementFacts:
        """Run both sides on the same batches and compare every output value.

        Raises:
            StageFailed: a side can't be loaded or run.
        """
        task, reference = task_of(job, "agreement"), inputs["reference"]
        kinds = task.input_kinds(reference.path)
        if "validation" in job.data:
            rows = task.read_rows(job.data["validation"])
            features = task.encode(spread(rows, self.samples), reference.path)
            batches = arrange(spread(features, self.samples), kinds)
        else:
            batches = task.examples(reference.path)
        sessions = job.load(inputs["candidate"]), job.load(reference)
        compared = compare(*sessions, batches, kinds, task.per_token, task.choice(reference.path))
        sequences = sum(len(batch) for batch in batches)
        found = {**compared, "sequences": sequences, "on": "rows" if "validation" in job.data else "random tokens"}
        (out / "agreement.json").write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        return AgreementFacts.model_validate(found)

    def trial(self, rows: int) -> Self:
        """Compare no more sequences than a trial has rows."""
        return self.model_copy(update={"samples": min(self.samples, rows)})

    def judge(self, facts: AgreementFacts) -> list[Verdict]:
        """Judge each bound; a value that is NaN or infinite on either side fails whatever the bounds say."""
        finite = not facts.nonfinite and facts.values > 0
        message = f"{facts.nonfinite} of {facts.values} output values are NaN or infinite"
        verdicts = [Verdict("finite", finite, message, facts.nonfinite, 0)]
        for option, fact, largest in CHECKS:
            bound, value = getattr(self, option), getattr(facts, fact)
            if bound is None:
                continue
            passed = value is not None and (value <= bound if largest else value >= bound)
            shown = "NaN" if value is None else f"{value:.6g}"
            side = "at most" if largest else "at least"
            message = f"{option} {shown} over {facts.sequences} sequences, {side} {bound:g} asked"
            if blind := _blind(option, facts):
                passed, message = False, f"{option}: {blind}"
            verdicts.append(Verdict(option, passed, message, value, bound))
        return verdicts


def _blind(option: str, facts: AgreementFacts) -> str:
    """Say why a bound on this option could not fail here; nothing where it could."""
    if option in ("same_top", "cosine") and facts.choices == 0 and facts.values:
        why = "chooses nothing" if option == "same_top" else "has a sign alone as its direction"
        return f"the output is one number, which {why}; bound `max_difference` or `mean_difference` instead"
    if option == "same_top" and facts.on == "rows" and facts.choices == 1 and facts.sequences > 1:
        return (
            f"the reference chooses one answer for all {facts.sequences} sequences, so that any constant agrees; take "
            "rows that differ, or bound `max_difference` or `cosine` instead"
        )
    return ""


def arrange(features: Sequence[Feature], kinds: Kinds) -> list[list[Feature]]:
    """Make batches of one (shortest to longest) and then of mixed lengths, which are padded where that is allowed."""
    order = sorted(features, key=lambda feature: feature.length)
    singles = [[feature] for feature in spread(order, SINGLES)]
    return [*singles, *grouped(features, BATCH, kinds)]
