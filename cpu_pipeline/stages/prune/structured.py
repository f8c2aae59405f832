"""Take whole attention heads and feed-forward neurons out of a checkpoint, and repair what is left without training.

Importance and the order of the steps: Kwon et al. 2022, https://arxiv.org/abs/2204.09656.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from cpu_pipeline.backends import _structure, hf
from cpu_pipeline.core.errors import RecipeError, StageFailed
from cpu_pipeline.core.figures import Cell, Note, Quantity, Table
from cpu_pipeline.runtime.batching import pad
from cpu_pipeline.stages import _checkpoint
from cpu_pipeline.stages._base import Count, Facts, Host, Inputs, Job, Stage
from cpu_pipeline.stages.prune import _choice, _repair, _rows
from cpu_pipeline.stages.prune.importance import FILE

Kind = Literal["macs", "parameters"]
PLAIN = ("intermediate_size", "hidden_dim")
"""Keys of config.json that say the neurons of all layers."""


class LayerFacts(Facts):
    """What is left of one layer, and what there was before."""

    heads: Count
    heads_before: Count
    neurons: Count
    neurons_before: Count


class StructuredFacts(Facts):
    """What was taken out."""

    layers: list[LayerFacts]
    target: str
    """What was bounded: macs or parameters."""
    kept: float
    """Share of it that is left."""
    macs: float
    """Share of the layers' multiply-adds that is left."""
    parameters: float
    """Share of the layers' weights that is left."""
    repaired: list[float] = Field(default_factory=list)
    """For each layer the squared error that the repair left, as a share of that before."""
    structure: bool
    """Whether structure.json has the widths; otherwise config.json has, and any program can load it."""
    bytes: Count
    """Bytes of the weights."""


class PruneStructured(Stage):
    """Take the least important attention heads and feed-forward neurons out, and repair the rest without training."""

    facts_model: ClassVar = StructuredFacts
    takes: ClassVar[Mapping[str, Set[str]]] = {"model": {"hf"}, "importance": {"report"}}
    reads: ClassVar[Set[str]] = frozenset({"task", "data.training"})
    packages: ClassVar = ("torch", "transformers", "safetensors", "numpy")
    remedies: ClassVar = ("target", "repair_tokens")

    target: dict[Kind, float] = Field(default={"macs": 0.5}, min_length=1, max_length=1)
    """Share of the encoder layers that may stay: `{macs: 0.5}` of their multiply-adds, or `{parameters: 0.6}` of their
    weights."""
    length: int = Field(default=128, ge=1)
    """Tokens of a sequence for which multiply-adds are counted."""
    min_heads: int = Field(default=2, ge=1)
    """Heads that every layer keeps; of a layer with one, ONNX Runtime's fusion makes another, unpacked operator."""
    tile: int = Field(default=64, ge=1)
    """Neurons stay in multiples of this: the tile of VNNI and AMX kernels."""
    repair_tokens: int = Field(default=40_000, ge=0)
    """Tokens of training rows that the repair looks at; 0 leaves the weights as they are."""
    batch_tokens: int = Field(default=4096, ge=16)
    """Most tokens of a batch, with padding."""
    seed: int = Field(default=1, ge=0)
    """Seed of the sample of rows."""

    @model_validator(mode="after")
    def _is_a_share(self) -> PruneStructured:
        if not all(0 < share <= 1 for share in self.target.values()):
            raise ValueError("target: a share is more than 0 and at most 1")
        return self

    def gives(self) -> str:
        """Name the format of the pruned checkpoint."""
        return "hf"

    def host(self) -> Host:
        """Say that rounding depends on the instruction sets."""
        return "isa"

    def backends(self, formats: Mapping[str, str]) -> Set[str]:
        """Load with transformers."""
        return {"hf"}

    def trial(self, rows: int) -> PruneStructured:
        """Repair on few tokens."""
        return self.model_copy(update={"repair_tokens": min(512, self.repair_tokens)})

    def run(self, inputs: Inputs, out: Path, job: Job) -> StructuredFacts:
        """Choose, cut, repair, and write a smaller dense checkpoint.

        Raises:
            RecipeError: the target is below what the fewest heads and one tile of neurons in each layer cost.
            StageFailed: heads and neurons cannot be taken out of this architecture.
        """
        import torch
        from safetensors.numpy import load_file

        torch.set_num_threads(job.threads)
        source = inputs["model"].path
        task, rows = _rows.some(job, max(self.repair_tokens, 16), self.seed)
        model = hf.checkpoint(source, task)
        before = _structure.widths_of(model)
        importance = load_file(inputs["importance"].path / FILE)
        if len(importance) != 4 * len(before):
            raise StageFailed("prune.structured: the importance is that of another model; measure this one")
        [(kind, share)] = self.target.items()
        prices = self._prices(kind, model)
        groups = [group for n, width in enumerate(before) for group in self._groups(n, width, importance, prices)]
        whole = sum(group.costs[-1] for group in groups)
        counts = _choice.choose(groups, share * whole)
        if counts is None:
            least = (sum(group.costs[0] for group in groups)) / whole
            raise RecipeError(
                f"prune.structured: target: {{{kind}: {share:g}}} is out of reach: {self.min_heads} heads and one "
                f"tile of neurons in each layer are {least:.2f} of the model; say more"
            )
        pairs = list(zip(counts[0::2], counts[1::2], strict=True))
        heads, neurons = (
            [
                sorted(
                    int(u) for u in importance[f"{name}.{n}.order"][len(importance[f"{name}.{n}.order"]) - pair[at] :]
                )
                for n, pair in enumerate(pairs)
            ]
            for at, name in enumerate(("heads", "neurons"))
        )
        pruned = copy.deepcopy(model)
        _structure.cut(pruned, heads, neurons)
        repaired = self._repair(model, pruned, task, rows, source, job) if self.repair_tokens else []
        size = _checkpoint.save(pruned, task, source, out)
        after = _structure.widths_of(pruned)
        structure = not _says_config(out, before, after)
        if structure:
            _structure.write(out, after)
        else:
            (out / _structure.FILE).unlink(missing_ok=True)
        costs = {name: self._prices(name, model) for name in ("macs", "parameters")}
        return StructuredFacts(
            layers=[
                LayerFacts(heads=a.heads, heads_before=b.heads, neurons=a.neurons, neurons_before=b.neurons)
                for a, b in zip(after, before, strict=True)
            ],
            target=kind,
            kept=_cost(prices, after) / _cost(prices, before),
            macs=_cost(costs["macs"], after) / _cost(costs["macs"], before),
            parameters=_cost(costs["parameters"], after) / _cost(costs["parameters"], before),
            repaired=[round(value, 6) for value in repaired],
            structure=structure,
            bytes=size,
        )

    def _prices(self, kind: str, model: Any) -> _choice.Prices:
        hidden, size = int(model.config.hidden_size), _structure.head_size(model)
        if kind == "macs":
            return _choice.multiply_adds(hidden, size, self.length)
        return _choice.parameters(hidden, size)

    def _groups(
        self, number: int, width: _structure.Width, importance: Mapping[str, Any], prices: _choice.Prices
    ) -> list[_choice.Group]:
        tiles = sorted({*range(self.tile, width.neurons, self.tile), width.neurons})
        found = []
        for name, counts, price in (
            ("heads", list(range(min(self.min_heads, width.heads), width.heads + 1)), prices.heads),
            ("neurons", tiles, prices.neurons),
        ):
            losses = importance[f"{name}.{number}.loss"]
            lost = [float(losses[len(losses) - count - 1]) if count < len(losses) else 0.0 for count in counts]
            found.append(_choice.Group(counts, [price(count) for count in counts], lost))
        return found

    def _repair(self, model: Any, pruned: Any, task: Any, rows: Any, source: Path, job: Job) -> list[float]:
        import torch

        features = task.encode(rows, source)
        numbers = _rows.limited(features, self.repair_tokens)
        kinds, names = task.input_kinds(source), hf.inputs_of(model, task.input_kinds(source))
        lengths = [feature.length for feature in features]
        batches = []
        for batch in _rows.batches(numbers, lengths, self.batch_tokens):
            arrays = pad([features[i] for i in batch], names, kinds)
            batches.append({name: torch.from_numpy(array) for name, array in arrays.items()})
        return _repair.repair(model, pruned, batches, lambda done, total: job.progress("repairing layers", done, total))

    def details(self, facts: StructuredFacts) -> Sequence[Table | Note]:
        """Show what is left of each layer, as numbers and as bars."""
        rows = {
            f"layer {n}": [
                Cell("heads", Quantity(layer.heads, digits=0)),
                Cell("of", Quantity(layer.heads_before, digits=0), "heads"),
                Cell("neurons", Quantity(layer.neurons, digits=0)),
                Cell("of", Quantity(layer.neurons_before, digits=0), "neurons"),
            ]
            for n, layer in enumerate(facts.layers)
        }
        heads = "".join(_bar(layer.heads, layer.heads_before) for layer in facts.layers)
        neurons = "".join(_bar(layer.neurons, layer.neurons_before) for layer in facts.layers)
        text = (
            f"Kept {facts.kept:.1%} of {facts.target} ({facts.macs:.1%} of multiply-adds, {facts.parameters:.1%} of "
            f"weights of the layers). From the first layer to the last, heads {heads}, neurons {neurons}."
        )
        return [Note(text), Table("layer", rows)]


def _bar(now: int, before: int) -> str:
    return "▁▂▃▄▅▆▇█"[max(0, round(8 * now / before) - 1)]


def _cost(prices: _choice.Prices, widths: Sequence[_structure.Width]) -> float:
    return sum(prices.heads(width.heads) + prices.neurons(width.neurons) for width in widths)


def _says_config(out: Path, before: Sequence[_structure.Width], after: Sequence[_structure.Width]) -> bool:
    """Let config.json say the widths where it can: all heads kept, and as many neurons in each layer."""
    file = out / "config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    whole = config.get("num_attention_heads", config.get("n_heads"))
    if len({width.neurons for width in after}) > 1 or any(width.heads != whole for width in after):
        return False
    key = next((name for name in PLAIN if name in config), None)
    if key is None:
        return False
    config[key] = after[0].neurons
    file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return True
