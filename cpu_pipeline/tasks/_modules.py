"""The modules that sentence-transformers runs one after the other, after the transformer: modules.json, in numpy."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.tasks import _pooling, _weights
from cpu_pipeline.tasks._activations import ACTIVATIONS
from cpu_pipeline.tasks._files import read_json

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]
    Features = dict[str, Array]
    """`token_embeddings` of shape (tokens, size), and `sentence_embedding` from pooling on."""
    Module = Callable[[Features, int], None]
    """Changes features in place; the number is that of the prompt's tokens."""

MODULES = "modules.json"
TOKENS, SENTENCE = "token_embeddings", "sentence_embedding"
HINT = "save the model again with sentence-transformers"
OWN = "sentence_transformers."
"""Where the classes live that are known; any other is code that comes with the model."""
WEIGHTS = "model.safetensors"
PICKLE = "pytorch_model.bin"
FILES = {"Pooling": ("config.json",), "Dense": ("config.json", WEIGHTS), "LayerNorm": ("config.json", WEIGHTS)}
"""Class of a module -> the files that it has."""
KNOWN = "Transformer, Pooling, Dense, LayerNorm, Normalize and Dropout"
WHY = {
    "Router": "it treats queries and documents differently: save the route that you need as a model of its own",
    "Asym": "it treats queries and documents differently: save the side that you need as a model of its own",
    "WeightedLayerPooling": "it reads every layer of the model, and only the last is built here",
}
"""Class that is refused -> why, and what to do; the others make no use of a transformer's last layer alone."""


@dataclass(frozen=True)
class Dense:
    """A linear layer and its activation."""

    weight: Array
    """Of shape (out, in)."""
    bias: Array | None
    activation: str
    residual: Array | bool
    """What is added: False nothing, True the input, or the input through these weights."""
    name: str
    """What it replaces."""
    where: str

    def __call__(self, features: Features, prompt: int) -> None:
        values = _taken(features, self.name, self.weight.shape[1], self.where)
        found = values @ self.weight.T
        found = ACTIVATIONS[self.activation](found if self.bias is None else found + self.bias)
        if self.residual is not False:
            found = found + (values if self.residual is True else values @ self.residual.T)
        features[self.name] = found


@dataclass(frozen=True)
class LayerNorm:
    """A layer normalisation of the sentence's vector, as torch's with its usual epsilon."""

    weight: Array
    bias: Array
    where: str

    def __call__(self, features: Features, prompt: int) -> None:
        values = _taken(features, SENTENCE, len(self.weight), self.where)
        centred = values - values.mean()
        features[SENTENCE] = centred / math.sqrt(float((centred**2).mean()) + 1e-5) * self.weight + self.bias


@dataclass(frozen=True)
class Normalize:
    """Scale to length 1."""

    name: str = SENTENCE
    """What it scales; nothing where that is not there yet."""

    def __call__(self, features: Features, prompt: int) -> None:
        import numpy as np

        if self.name in features:
            values = features[self.name]
            lengths = np.linalg.norm(values, axis=-1, keepdims=True)
            features[self.name] = values / np.maximum(lengths, 1e-12)


def read(model: Path, *, whole: bool = True) -> tuple[Module, ...]:
    """Read modules.json and what it points at: what is applied to the transformer's last layer, in order.

    Args:
        model: The model's folder.
        whole: Whether every file must be there; otherwise a module without its own is left out.

    Raises:
        RecipeError: a module or one of its settings is not supported, or a file is missing; says what to do.
    """
    modules: list[Module] = []
    written = {TOKENS}
    for number, entry in enumerate(_entries(model)):
        kind, path = _kind(entry, number), _inside(str(entry.get("path", "")))
        if kind == "Transformer":
            if path != PurePosixPath():
                raise RecipeError(f"{MODULES}: the transformer is in the folder {path}, not at the top; {HINT}")
        elif not whole and not all((model / path / name).is_file() for name in FILES.get(kind, ())):
            written.add(SENTENCE)
        else:
            module = READERS[kind](model / path)
            _check_order(module, kind, written)
            modules.append(module)
    if SENTENCE not in written:
        raise RecipeError(f"{MODULES}: no Pooling module, and a sentence needs one vector; {HINT}")
    return tuple(modules)


def _entries(model: Path) -> Sequence[Mapping[str, Any]]:
    """Read modules.json; sentence-transformers runs its entries in the file's order, whatever `idx` says."""
    entries: list[Any] = read_json(model / MODULES, HINT, list)
    if not entries or not all(isinstance(entry, dict) for entry in entries):
        raise RecipeError(f"{MODULES}: not a list of modules; {HINT}")
    names = [str(entry.get("name")) for entry in entries]
    if len({*names}) != len(names):
        raise RecipeError(f"{MODULES}: two modules have one name; give each its own")
    return entries


def _kind(entry: Mapping[str, Any], number: int) -> str:
    """Return the class of a module, whose package has moved with sentence-transformers' versions."""
    where = str(entry.get("type", ""))
    kind = where.rpartition(".")[2]
    if not where.startswith(OWN):
        raise RecipeError(
            f"{MODULES}: the module {where or number} is code that comes with the model, which is never run here; "
            f"choose a model of {KNOWN}"
        )
    known = {"Transformer"} if number == 0 else {*READERS}
    if kind not in known:
        why = WHY.get(kind, f"choose a model of {KNOWN}, with one Transformer, the first")
        raise RecipeError(f"{MODULES}: module {number} is a {kind}, which is not supported: {why}")
    return kind


def _inside(path: str) -> PurePosixPath:
    found = PurePosixPath(path)
    if found.is_absolute() or ".." in found.parts:
        raise RecipeError(f"{MODULES}: the path {path!r} leads outside the model; {HINT}")
    return found


def _check_order(module: Module, kind: str, written: set[str]) -> None:
    name = getattr(module, "name", SENTENCE)
    if kind == "Pooling":
        written.add(name)
    elif name not in written and kind != "Normalize":
        raise RecipeError(f"{MODULES}: {kind} comes before Pooling, and there is no sentence's vector yet; {HINT}")


def _pooled(folder: Path) -> Module:
    where = f"{folder.name}/config.json"
    return _pooling.read(read_json(folder / "config.json", f"{MODULES} names {where}"), where)


def _dense(folder: Path) -> Module:
    where = f"{folder.name}/config.json"
    config = read_json(folder / "config.json", f"{MODULES} names {where}")
    activation = str(config.get("activation_function", "torch.nn.Tanh"))
    function = activation.rpartition(".")[2]
    if not activation.startswith("torch.nn.") or function not in ACTIVATIONS:
        raise RecipeError(
            f"{where}: the activation function {activation} is not known here; known are, of torch.nn, "
            f"{', '.join(ACTIVATIONS)}; choose a model that uses one of them"
        )
    name = _name(config, where)
    residual = bool(config.get("use_residual", False))
    through = residual and config.get("in_features") != config.get("out_features")
    names = ["linear.weight", *(["linear.bias"] if config.get("bias", True) else []), *["residual.weight"] * through]
    weights = _tensors(folder, names)
    shape = (config.get("out_features"), config.get("in_features"))
    for key in ("linear.weight", *["residual.weight"] * through):
        if weights[key].shape != shape:
            raise RecipeError(f"{where}: out_features and in_features are not the shape of {key}; {HINT}")
    more = weights["residual.weight"] if through else residual
    return Dense(weights["linear.weight"], weights.get("linear.bias"), function, more, name, folder.name)


def _layer_norm(folder: Path) -> Module:
    read_json(folder / "config.json", f"{MODULES} names {folder.name}/config.json")
    weights = _tensors(folder, ["norm.weight", "norm.bias"])
    return LayerNorm(weights["norm.weight"], weights["norm.bias"], folder.name)


def _normalize(folder: Path) -> Module:
    file = folder / "config.json"
    return Normalize(_name(read_json(file, HINT) if file.is_file() else {}, f"{folder.name}/config.json"))


def _dropout(folder: Path) -> Module:
    return lambda features, prompt: None  # nothing is dropped outside of training


def _name(config: Mapping[str, Any], where: str) -> str:
    """Read what a module takes and replaces: the token vectors, or the sentence's."""
    source = config.get("module_input_name") or SENTENCE
    target = config.get("module_output_name") or source
    if source not in (TOKENS, SENTENCE) or source != target:
        raise RecipeError(
            f"{where}: the module reads {source} and writes {target}; it must replace {TOKENS} or {SENTENCE}; "
            f"choose a model whose modules do"
        )
    return str(source)


def _tensors(folder: Path, names: Sequence[str]) -> Mapping[str, Array]:
    """Read exactly the named weights of a module.

    Raises:
        RecipeError: there are none, they are pickled, or they are others.
    """
    if not (folder / WEIGHTS).is_file():
        pickled = f" (`load.model` makes it of {PICKLE} where the recipe says `allow: [pickle]`)"
        raise RecipeError(
            f"{folder.name}/{WEIGHTS} is not there{pickled if (folder / PICKLE).is_file() else ''}: {HINT}"
        )
    weights = _weights.read(folder / WEIGHTS)
    if {*weights} != {*names}:
        raise RecipeError(f"{folder.name}/{WEIGHTS}: it holds {', '.join(weights)}, not {', '.join(names)}; {HINT}")
    return weights


def _taken(features: Features, name: str, size: int, where: str) -> Array:
    values = features[name]
    if values.shape[-1] != size:
        raise RecipeError(f"{where}: it takes vectors of {size} numbers, and gets {values.shape[-1]}; {HINT}")
    return values


READERS: Mapping[str, Callable[[Path], Module]] = {
    "Pooling": _pooled,
    "Dense": _dense,
    "LayerNorm": _layer_norm,
    "Normalize": _normalize,
    "Dropout": _dropout,
}
"""Class of a module -> how its folder is read."""
