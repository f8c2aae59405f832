"""Train a student to compute as its teacher does: hidden states, or the relations between tokens.

Jiao et al. 2020 (TinyBERT), https://arxiv.org/abs/1909.10351; Wang et al. 2021 (MiniLMv2),
https://arxiv.org/abs/2012.15828.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, PrivateAttr

from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.stages._base import Inputs
from cpu_pipeline.stages.distill import _hidden
from cpu_pipeline.stages.distill._base import Distillation
from cpu_pipeline.stages.train._base import Batch


class DistillHidden(Distillation):
    """Train a student on its teacher's hidden states, or on how the teacher's tokens relate, and on its outputs."""

    hidden_weight: float = Field(default=1.0, gt=0)
    """Weight of the distance inside the encoder."""
    match: Literal["states", "relations"] = "states"
    """`states`: the squared difference from the teacher's layers that were stored, each with the student's layer at the
    same height; `relations`: those of queries, keys and values in the last layer, whose widths need not match."""
    relation_heads: int = Field(default=12, ge=1)
    """Parts that widths are divided into for relations; a divisor of both widths."""

    _watched: Any = PrivateAttr(default=None)

    def loss(self, course: Batch, inputs: Inputs) -> Any:
        """Add the distance inside the encoder to that of the outputs.

        Raises:
            RecipeError: the teacher's step kept no layer, or no relations.
        """
        runner = course.runner
        if self.match == "relations":
            if self._watched is None:
                self._watched = _hidden.Relations(runner.model)
            if "query" not in self._taught.names:
                raise RecipeError("match: relations: nothing is kept of them; set `relations: true` in distill.teacher")
            outputs, whole = runner.answer(course.arrays)
            gaps = [
                _hidden.relation_gap(seen, self.teacher(course, name), course.mask, self.relation_heads)
                for name, seen in self._watched.seen.items()
            ]
        else:
            outputs, whole = runner.answer(course.arrays, output_hidden_states=True)
            gaps = [
                _hidden.state_gap(whole["hidden_states"][own], self.teacher(course, name), course.mask)
                for own, name in self._pairs(_hidden.count(runner.model)).items()
            ]
        return self.summed(course, outputs, whole) + self.hidden_weight * sum(gaps) / len(gaps)

    def _pairs(self, layers: int) -> Mapping[int, str]:
        """Pair each kept layer of the teacher with the student's layer at the same height; of several the highest."""
        kept = sorted(int(n.removeprefix("hidden.")) for n in self._taught.names if n.startswith("hidden."))
        if not kept:
            raise RecipeError("match: states: no layer is kept; name some in `hidden` of distill.teacher")
        return {max(1, round(layer * layers / self._taught.layers)): f"hidden.{layer}" for layer in kept}
