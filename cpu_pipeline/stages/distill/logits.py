"""Train a student to answer as its teacher does.

Hinton et al. 2015, "Distilling the Knowledge in a Neural Network", https://arxiv.org/abs/1503.02531.
"""

from __future__ import annotations

from pydantic import model_validator

from cpu_pipeline.stages.distill._base import Distillation


class DistillLogits(Distillation):
    """Train a student on its teacher's outputs: logits at a temperature, windows' starts and ends, or embeddings."""

    @model_validator(mode="after")
    def _learns_something(self) -> DistillLogits:
        if not self.logits_weight:
            raise ValueError("logits_weight: more than 0; without a teacher it is `train.finetune`")
        return self
