"""How much each attention head and feed-forward neuron matters: the Fisher information of a mask over them.

Kwon et al. 2022, "A Fast Post-Training Pruning Framework for Transformers", https://arxiv.org/abs/2204.09656.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from cpu_pipeline.backends import _structure, hf
from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.stages._base import Count, Facts, Host, Inputs, Job, Stage
from cpu_pipeline.stages.prune import _choice, _rows
from cpu_pipeline.stages.train._base import Lessons, Runner

FILE = "importance.safetensors"
"""For each layer and kind (`heads.0`, `neurons.0`): `.order`, the units as they go, and `.loss`, what so many cost."""


class ImportanceFacts(Facts):
    """What was looked at."""

    targets: Count
    """Sequences, or pairs, whose loss was differentiated."""
    tokens: Count
    """Their tokens, without padding."""
    layers: Count
    heads: Count
    """Heads of all layers."""
    neurons: Count
    """Feed-forward neurons of all layers."""


class PruneImportance(Stage):
    """Measure on training rows how much each attention head and feed-forward neuron matters to the task's loss."""

    facts_model: ClassVar = ImportanceFacts
    takes: ClassVar[Mapping[str, Set[str]]] = {"model": {"hf"}}
    reads: ClassVar[Set[str]] = frozenset({"task", "data.training"})
    packages: ClassVar = ("torch", "transformers", "safetensors", "numpy")

    tokens: int = Field(default=100_000, ge=16)
    """Tokens of training rows to look at; more give a steadier order."""
    batch_tokens: int = Field(default=2048, ge=16)
    """Most tokens of a batch, with padding."""
    seed: int = Field(default=0, ge=0)
    """Seed of the sample of rows."""

    def gives(self) -> str:
        """Name the format."""
        return "report"

    def host(self) -> Host:
        """Say that rounding depends on the instruction sets."""
        return "isa"

    def backends(self, formats: Mapping[str, str]) -> Set[str]:
        """Load with transformers."""
        return {"hf"}

    def trial(self, rows: int) -> PruneImportance:
        """Look at few tokens."""
        return self.model_copy(update={"tokens": 512})

    def run(self, inputs: Inputs, out: Path, job: Job) -> ImportanceFacts:
        """Differentiate the loss of each target by a mask of ones, sum the products, and order the units.

        Raises:
            RecipeError: no row has a label.
            StageFailed: heads and neurons cannot be taken out of this architecture.
        """
        import torch
        from safetensors.numpy import save_file

        torch.set_num_threads(job.threads)
        source = inputs["model"].path
        task, rows = _rows.some(job, self.tokens, self.seed)
        model = hf.checkpoint(source, task)
        widths = _structure.widths_of(model)
        features = task.encode(rows, source)
        lessons = Lessons(task, source, rows, features, task.targets(rows, features, source))
        taken: list[int] = []
        total = 0
        for number, target in enumerate(lessons.targets):
            total += sum(features[i].length for i in target.features)
            if taken and total > self.tokens:
                break
            taken.append(number)
        if not taken:
            raise RecipeError("data.training: not one row has a label; importance is that of the loss")
        runner = Runner(model, lessons, "float32", "cpu")
        masks = _Masks(model)
        done = 0
        for numbers in _rows.batches(taken, lessons.sizes, self.batch_tokens):
            job.progress("rows", done, len(taken))
            batch = runner.batch(numbers)
            masks.fresh(len(batch.features))
            outputs, _ = runner.answer(batch.arrays)
            loss = task.loss(outputs, batch.mask, batch.features, batch.targets, source) * len(numbers)
            loss.backward()
            masks.add(len(batch.features) // len(numbers))
            done += len(numbers)
        tensors: dict[str, Any] = {}
        for name, fisher in masks.sums.items():
            tensors[f"{name}.order"] = torch.tensor(_choice.eliminate(fisher.numpy())).numpy()
            tensors[f"{name}.loss"] = _choice.losses(fisher.numpy())
        save_file(tensors, out / FILE)
        return ImportanceFacts(
            targets=len(taken),
            tokens=sum(features[i].length for n in taken for i in lessons.targets[n].features),
            layers=len(widths),
            heads=sum(width.heads for width in widths),
            neurons=sum(width.neurons for width in widths),
        )


class _Masks:
    """A mask of ones over every head and neuron, one for each row of a batch, and the sums of its gradients' products.

    A mask of its own for each row gives the gradient of each row's own loss in one pass.
    """

    def __init__(self, model: Any) -> None:
        import torch

        parts, size = _structure.parts_of(model), _structure.head_size(model)
        self.sums: dict[str, Any] = {}
        self._now: dict[str, Any] = {}
        for number, (layer, width) in enumerate(
            zip(_structure.layers_of(model), _structure.widths_of(model), strict=True)
        ):
            for kind, part, count, repeat in (
                ("heads", parts.out, width.heads, size),
                ("neurons", parts.down, width.neurons, 1),
            ):
                name = f"{kind}.{number}"
                self.sums[name] = torch.zeros(count, count)
                layer.get_submodule(part).register_forward_pre_hook(partial(self._masked, name, repeat))

    def _masked(self, name: str, repeat: int, module: Any, given: tuple[Any, ...]) -> tuple[Any, ...]:
        mask = self._now[name]
        return (given[0] * (mask if repeat == 1 else mask.repeat_interleave(repeat, dim=-1)),)

    def fresh(self, rows: int) -> None:
        """Make masks of ones for a batch."""
        import torch

        self._now = {name: torch.ones(rows, 1, len(total), requires_grad=True) for name, total in self.sums.items()}

    def add(self, together: int) -> None:
        """Add the products of the batch's gradients; `together` rows that follow each other have one loss."""
        for name, mask in self._now.items():
            gradients = mask.grad[:, 0].reshape(-1, together, mask.shape[-1]).sum(dim=1)
            self.sums[name] += gradients.T @ gradients
