"""A check that says what its options say."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from cpu_pipeline.stages import Facts, Figure, Inputs, Job, Stage, Verdict
from cpu_pipeline.stages._base import Waiver


class GateFacts(Facts):
    """What was measured."""

    score: Figure


class FaultyGate(Stage):
    """Report a score that is given, or NaN, and judge it."""

    score: float | None = 1.0
    """The score; NaN when none is given."""
    at_least: float = 0.5
    """The bound."""
    waive: Waiver | None = None
    """Let it pass though it failed."""
    runs: Path | None = None
    """A file that gets a line for each run."""

    facts_model: ClassVar = GateFacts
    takes: ClassVar = {"candidate": {"hf", "onnx"}}
    unkeyed: ClassVar = frozenset({"at_least", "runs", "waive"})

    def gives(self) -> str:
        return "report"

    def run(self, inputs: Inputs, out: Path, job: Job) -> GateFacts:
        """Write the score down."""
        if self.runs is not None:
            with self.runs.open("a", encoding="utf-8") as file:
                file.write("measured\n")
        (out / "score.txt").write_text(f"{self.score}\n", encoding="utf-8")
        return GateFacts(score=float("nan") if self.score is None else self.score)

    def judge(self, facts: GateFacts) -> list[Verdict]:
        """Compare; what is no number fails."""
        value = facts.score
        passed = value is not None and value >= self.at_least
        return [Verdict("score", passed, f"score {value}, at least {self.at_least} asked", value, self.at_least)]

    def waiver(self) -> Waiver | None:
        """Return the option."""
        return self.waive
