"""A fetched checkpoint, screened and completed, so that everything after it may trust its files."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Set
from pathlib import Path
from typing import Any, ClassVar

from pydantic import JsonValue

from cpu_pipeline.core.errors import PipelineError, RecipeError, StageFailed
from cpu_pipeline.core.limits import capped
from cpu_pipeline.core.repo_files import PICKLE, Format, refuse_pickles
from cpu_pipeline.stages._base import Count, Facts, Inputs, Job, Stage
from cpu_pipeline.stages.load import _configs, _exported, _files, _pickles, _safetensors, _shapes, _tokenizer
from cpu_pipeline.stages.load._autotokenizer import FAST

PROCESSOR = "preprocessor_config.json"
"""How a model's images or recordings are prepared."""


class ModelFacts(Facts):
    """What a checkpoint's configuration, weights and tokenizer say."""

    architecture: JsonValue
    """First of `architectures` in config.json."""
    model_type: JsonValue
    """`model_type` of config.json."""
    weight_bytes: Count
    """Bytes of all weights."""
    parameters: Count | None = None
    """Numbers in the weights; of a checkpoint alone, as the next."""
    dtypes: dict[str, Count] | None = None
    """Type as safetensors spells it -> number of tensors of it."""
    tokens: Count | None = None
    """Different ids that the tokenizer can give; None for a model that reads no text."""
    vocab_size: Count | None = None
    """Rows of the embeddings, where config.json names them."""


class LoadModel(Stage):
    """Screen a fetched model (no code, no pickles, valid weights, a tokenizer that fits) and make it complete."""

    takes: ClassVar[Mapping[str, Set[str]]] = {"files": {"files"}, "tokenizer": {"files"}}
    optional: ClassVar[Set[str]] = frozenset({"tokenizer"})
    reads: ClassVar[Set[str]] = frozenset({"allow"})
    packages: ClassVar[tuple[str, ...]] = ("safetensors", "tokenizers", "torch", "transformers")
    internal: ClassVar[bool] = True
    facts_model: ClassVar = ModelFacts
    version: ClassVar[int] = 3

    format: Format = "hf"
    """What the model is: `hf`, `onnx` or `openvino`."""

    def gives(self) -> str:
        """Return the format of the checkpoint, which does not change."""
        return self.format

    def run(self, inputs: Inputs, out: Path, job: Job) -> ModelFacts:
        """Copy, screen, complete.

        Raises:
            Refused: it brings code or pickled weights, and the recipe does not allow them.
            RecipeError: files are missing, or the tokenizer is of another model.
            StageFailed: a file is not valid.
        """
        _files.collect(inputs["files"], inputs.get("tokenizer"), out)
        if not (out / "config.json").is_file():
            raise RecipeError("the model has no config.json; name a folder or repository that holds a model")
        _configs.screen(out, job.allow)
        _configs.refuse_adapter(out)
        config = _configs.read_json(out / "config.json")
        _tokenizer.check_special(config)
        weights = self._weights(out, job)
        if (out / PROCESSOR).is_file() and not (out / FAST).is_file():
            return ModelFacts.model_validate({**_kind(config), **weights})  # a model of images or sound reads no text
        with capped("the tokenizer"):
            tokens = _tokenizer.complete(out, config)
        return ModelFacts.model_validate({**_kind(config), **weights, **tokens})

    def precheck(self, inputs: Inputs, out: Path, job: Job) -> Iterable[PipelineError]:
        """Screen configurations and the headers of the weights, and compare the tokenizer with the model."""
        _files.link(inputs["files"], inputs.get("tokenizer"), out)
        if not (out / "config.json").is_file():
            return
        yield from _errors(lambda: _configs.screen(out, job.allow))
        yield from _errors(lambda: _configs.refuse_adapter(out))
        if inputs["files"].format == "part":
            return
        if self.format == "hf" and not list(out.glob("pytorch_model*")):
            yield from _errors(lambda: _screen_weights(out, _configs.read_json(out / "config.json")))
        if not (out / PROCESSOR).is_file() or (out / FAST).is_file():
            yield from _errors(lambda: (_tokenizer.compare if job.thorough else _tokenizer.precheck)(out))

    def _weights(self, out: Path, job: Job) -> dict[str, Any]:
        pickled = [p for p in (q.relative_to(out) for q in out.rglob("*")) if PICKLE.fullmatch(p.as_posix())]
        refuse_pickles([p.as_posix() for p in pickled], job.allow, "the model")
        for folder in sorted({path.parent for path in pickled}):
            _pickles.convert(out / folder)
        if self.format == "hf":
            return _screen_weights(out, _configs.read_json(out / "config.json"), job.allow)
        for module in sorted(out.glob("*/model.safetensors")):
            _safetensors.screen(module)
        return _exported.settle(out, self.format)


def _errors(check: Callable[[], object]) -> Iterator[PipelineError]:
    try:
        check()
    except PipelineError as error:
        yield error


def _screen_weights(out: Path, config: dict[str, Any], allow: Collection[str] | None = None) -> dict[str, Any]:
    """Check every safetensors file; with shards, that the index and they agree; and that config.json fits them.

    Args:
        out: the model's directory.
        config: its config.json.
        allow: the permissions of the recipe; None to leave out what needs transformers.
    """
    single, index = out / "model.safetensors", out / "model.safetensors.index.json"
    if single.is_file():
        weights = _safetensors.screen(single)
    elif index.is_file():
        weights = _screen_shards(out, index)
    else:
        raise RecipeError("the model has no weights: neither model.safetensors nor shards with their index")
    if not weights.names:
        raise StageFailed("model.safetensors: not a valid model: it holds no tensor")
    _shapes.precheck(config, weights.shapes)
    if allow is not None:
        _shapes.compare(out, weights.shapes, allow)
    for module in sorted(out.glob("*/model.safetensors")):
        weights += _safetensors.screen(module)
    dtypes = dict(sorted(weights.dtypes.items()))
    return {"parameters": weights.parameters, "weight_bytes": weights.size, "dtypes": dtypes}


def _screen_shards(out: Path, index: Path) -> _safetensors.Weights:
    shards = _configs.read_json(index).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(shard, str) for shard in shards.values()):
        raise StageFailed(f"{index.name}: not a valid index: weight_map must map tensors to files")
    weights = _safetensors.Weights()
    for shard in sorted(set(shards.values())):
        if not re.fullmatch(r"[\w.-]+\.safetensors", shard) or not (out / shard).is_file():
            raise RecipeError(
                f"{index.name}: the shard {shard!r} is missing; bring every shard, or fetch the model again"
            )
        found = _safetensors.screen(out / shard)
        if lost := sorted(name for name, file in shards.items() if file == shard and name not in found.names):
            raise StageFailed(f"{shard}: not a valid shard: it lacks {lost[0]!r}, which {index.name} promises")
        weights += found
    return weights


def _kind(config: dict[str, Any]) -> dict[str, Any]:
    names = config.get("architectures")
    first = names[0] if isinstance(names, list) and names else None
    return {"architecture": first, "model_type": config.get("model_type")}
