"""Reduce an encoder to its token embeddings: a model that is one table and needs no torch to run."""

from __future__ import annotations

from collections.abc import Mapping, Set
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from cpu_pipeline.core.artifact import Artifact, Card
from cpu_pipeline.core.errors import StageFailed
from cpu_pipeline.core.repo_files import carry
from cpu_pipeline.stages import Count, Facts, Inputs, Job, Stage, Verdict

EMBEDDINGS = "embeddings.word_embeddings.weight"
"""Name of the table in a BERT checkpoint."""


class StaticFacts(Facts):
    """The shape of the table."""

    tokens: Count
    """Rows: tokens of the vocabulary."""
    size: Count
    """Columns: values for each token."""


class ExportStatic(Stage):
    """Store the token embeddings of a BERT checkpoint as a static model."""

    # What the engine must know. Everything here is a promise; the engine trusts it.
    facts_model: ClassVar[type[Facts]] = StaticFacts
    takes: ClassVar[Mapping[str, Set[str]]] = {"model": {"hf"}}
    packages: ClassVar[tuple[str, ...]] = ("numpy", "safetensors")
    unkeyed: ClassVar[Set[str]] = frozenset({"min_tokens"})
    version: ClassVar[int] = 1

    # What a recipe can set. The line under an option documents it in `cpu-pipeline stages` and in schema.json.
    scale: float = Field(default=1.0, gt=0)
    """Factor for every value of the table."""
    min_tokens: int = Field(default=1, ge=1)
    """Fewest tokens that the table must have. It only judges, so it is in no key."""

    def gives(self) -> str:
        """Name the format of the output."""
        return "static"

    def backends(self, formats: Mapping[str, str]) -> Set[str]:
        """Name the backends that `run` loads, because their versions belong to the key."""
        return {"static"}

    def run(self, inputs: Inputs, out: Path, job: Job) -> StaticFacts:
        """Write the table, load it once, and return its shape.

        Raises:
            StageFailed: the checkpoint has no such table, or the written model does not answer.
        """
        import numpy as np
        from safetensors.numpy import load_file

        source = inputs["model"].path
        tensors = load_file(source / "model.safetensors")
        names = [name for name in tensors if name.endswith(EMBEDDINGS)]
        if len(names) != 1:
            raise StageFailed(f"export.static: {len(names)} tensors are called {EMBEDDINGS}; it needs one")
        table = (tensors[names[0]] * np.float32(self.scale)).astype(np.float32)
        carry(source, out)  # config.json and the tokenizer, so that the output is complete
        np.save(out / "embeddings.npy", table, allow_pickle=False)
        Card("static").write(out)

        session = job.load(Artifact("static", out, "", {}))
        answer = session({"input_ids": np.array([[0, 1]])})["last_hidden_state"]
        if answer.shape != (1, 2, table.shape[1]):
            raise StageFailed(f"export.static: the model answers with shape {answer.shape}")
        return StaticFacts(tokens=table.shape[0], size=table.shape[1])

    def judge(self, facts: StaticFacts) -> list[Verdict]:
        """Compare the facts with the bounds; measure nothing here."""
        line = f"{facts.tokens} tokens, at least {self.min_tokens} required"
        return [Verdict("tokens", facts.tokens >= self.min_tokens, line, facts.tokens, self.min_tokens)]
