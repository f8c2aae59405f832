"""A check of two models: the score that is written into each one's config.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar, Self

from cpu_pipeline.core.artifact import Artifact
from cpu_pipeline.core.errors import StageFailed
from cpu_pipeline.stages import Facts, Inputs, Job, Stage, Verdict
from cpu_pipeline.stages._base import Host


class VersusFacts(Facts):
    """Both scores."""

    candidate: float
    reference: float


class FaultyVersus(Stage):
    """Compare two models' scores."""

    max_drop: float = 0.1
    """How far below the reference the candidate may be."""
    afraid_of: float | None = None
    """A score of a reference at which it fails to run."""
    runs: Path | None = None
    """A file that gets a line for each run."""

    noise: Path | None = None
    """A file that says how much worse than it is the candidate seems, and perhaps the score of a reference that can't
    be run just now; with it, this measures the machine."""

    facts_model: ClassVar = VersusFacts
    takes: ClassVar = {"candidate": {"hf", "onnx"}, "reference": {"hf", "onnx"}}
    unkeyed: ClassVar = frozenset({"max_drop", "runs", "noise"})

    def gives(self) -> str:
        return "report"

    def host(self) -> Host:
        return "none" if self.noise is None else "machine"

    def run(self, inputs: Inputs, out: Path, job: Job) -> VersusFacts:
        """Write both down."""
        scores = {side: _score(inputs[side]) for side in ("candidate", "reference")}
        afraid_of = self.afraid_of
        if self.noise is not None:
            noise, *others = map(float, self.noise.read_text(encoding="utf-8").split())
            scores["candidate"] -= noise
            afraid_of = others[0] if others else afraid_of
        if scores["reference"] == afraid_of:
            raise StageFailed("this reference can't be run any more")
        if self.runs is not None:
            with self.runs.open("a", encoding="utf-8") as file:
                file.write(f"compared {scores['candidate']} {scores['reference']}\n")
        (out / "scores.json").write_text(json.dumps(scores) + "\n", encoding="utf-8")
        return VersusFacts.model_validate(scores)

    def judge(self, facts: VersusFacts) -> list[Verdict]:
        """Compare them."""
        drop = facts.reference - facts.candidate
        return [Verdict("score", drop <= self.max_drop, f"a drop of {drop:.2f}", drop, self.max_drop)]

    def successor(self) -> Self:
        """Allow the same drop."""
        return self

    def changes(self, facts: VersusFacts) -> list[str]:
        """Say both."""
        return [f"score: {facts.reference} → {facts.candidate}"]


def _score(model: Artifact) -> float:
    config = json.loads((model.path / "config.json").read_text(encoding="utf-8"))
    return float(config.get("score", 1.0))
