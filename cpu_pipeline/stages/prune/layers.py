"""Drop whole layers of an encoder: a student's start, which has to learn before it is of use."""

from __future__ import annotations

import json
from collections.abc import Mapping, Set
from pathlib import Path
from typing import ClassVar

from pydantic import Field, model_validator

from cpu_pipeline.backends import _encoder, _structure, hf
from cpu_pipeline.core.errors import RecipeError, StageFailed
from cpu_pipeline.stages import _checkpoint
from cpu_pipeline.stages._base import Count, Facts, Inputs, Job, Stage

KEYS = ("num_hidden_layers", "n_layers")
"""What configurations call the number of layers."""


class LayersFacts(Facts):
    """What is left."""

    kept: list[Count]
    """Numbers of the layers that stayed, from 0."""
    layers: Count
    """Layers that there were."""
    bytes: Count
    """Bytes of the weights."""


class PruneLayers(Stage):
    """Drop layers of an encoder, named or evenly spread, as a student's start for distillation."""

    facts_model: ClassVar = LayersFacts
    takes: ClassVar[Mapping[str, Set[str]]] = {"model": {"hf"}}
    reads: ClassVar[Set[str]] = frozenset({"task.head"})
    packages: ClassVar = ("torch", "transformers", "safetensors")
    remedies: ClassVar = ("keep",)

    keep: int | None = Field(default=None, ge=1)
    """How many layers to keep, evenly spread, the first and the last among them."""
    drop: tuple[int, ...] = ()
    """Or the layers to drop, by number from 0, as the names of weights count them."""

    @model_validator(mode="after")
    def _one_of_two(self) -> PruneLayers:
        if (self.keep is None) == (not self.drop):
            raise ValueError("keep: say how many layers to keep, or name those to drop, and not both")
        return self

    def gives(self) -> str:
        """Name the format of the smaller checkpoint."""
        return "hf"

    def backends(self, formats: Mapping[str, str]) -> Set[str]:
        """Load with transformers."""
        return {"hf"}

    def run(self, inputs: Inputs, out: Path, job: Job) -> LayersFacts:
        """Write the checkpoint without these layers; config.json says how many are left.

        Raises:
            RecipeError: the model has no such layer, or none would be left.
            StageFailed: the names of the layers are not known for this architecture.
        """
        import torch

        if job.task is None:
            raise RecipeError("prune.layers: the recipe names no task; it says which head to keep")
        source = inputs["model"].path
        model = hf.checkpoint(source, job.task)
        kind = str(model.config.model_type)
        if kind not in _encoder.ARCHITECTURES:
            known = ", ".join(_encoder.ARCHITECTURES)
            raise StageFailed(f"prune.layers: the model is a {kind}; layers can be dropped of {known}")
        name = _encoder.ARCHITECTURES[kind].layers
        layers = list(model.base_model.get_submodule(name))
        kept = self._kept(len(layers))
        parent, _, last = name.rpartition(".")
        setattr(model.base_model.get_submodule(parent), last, torch.nn.ModuleList(layers[i] for i in kept))
        size = _checkpoint.save(model, job.task, source, out)
        config = json.loads((out / "config.json").read_text(encoding="utf-8"))
        config[next(key for key in KEYS if key in config)] = len(kept)
        (out / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        if (widths := _structure.read(source)) is not None:
            _structure.write(out, [widths[i] for i in kept])
        return LayersFacts(kept=kept, layers=len(layers), bytes=size)

    def _kept(self, layers: int) -> list[int]:
        if self.keep is not None:
            if self.keep > layers:
                raise RecipeError(f"prune.layers: keep: {self.keep}, but the model has {layers} layers; keep fewer")
            return spread(layers, self.keep)
        if wrong := [number for number in self.drop if not 0 <= number < layers]:
            raise RecipeError(f"prune.layers: drop: no layer {wrong[0]}; the model has 0 to {layers - 1}")
        kept = [number for number in range(layers) if number not in self.drop]
        if not kept:
            raise RecipeError("prune.layers: drop: every layer; leave one at least")
        return kept


def spread(layers: int, keep: int) -> list[int]:
    """Choose `keep` of so many layers, at even distances from the first to the last; of one the first."""
    if keep == 1:
        return [0]
    return [(2 * i * (layers - 1) + keep - 1) // (2 * (keep - 1)) for i in range(keep)]
