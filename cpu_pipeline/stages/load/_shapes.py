"""config.json held against the weights: names and shapes of the tensors, from the headers alone.

transformers' own loader compares them, on tensors that hold no memory, so that its renamings and its lists of weights
that may be left out hold here, too. Heads are another matter: which of them a task needs, its backend says.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.core.text import one_line
from cpu_pipeline.stages.load._autotokenizer import quiet
from cpu_pipeline.stages.load._configs import read_json

LAYERS = re.compile(r"((num|n)_)?((hidden|encoder|decoder)_)?(layers?|blocks)")
"""Keys of config.json that count layers: each layer has tensors. Others, such as max_window_layers, only bound them."""
WIDTHS = re.compile(
    r"vocab_size|hidden_size|intermediate_size|d_model|dim|hidden_dim|d_ff|ffn_dim|n_embd|embedding_size"
)
"""Keys of config.json that size a weight in one direction."""
ALLOW = "unused_weights"
"""What a recipe says to take a model whose weights are not all used."""


def precheck(config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Compare the numbers of config.json with the weights, without any library.

    Args:
        config: config.json.
        shapes: tensor -> its shape.

    Raises:
        RecipeError: more layers than there are tensors, a size beyond all weights, or one that is none.
    """
    largest = sum(_count(shape) for shape in shapes.values())
    for key, number in _numbers(config):
        layers = LAYERS.fullmatch(key) is not None
        if not layers and WIDTHS.fullmatch(key) is None:
            continue
        if number < 0 or (not layers and number == 0 and key in ("hidden_size", "d_model", "n_embd")):
            raise RecipeError(f"config.json: {key} is {number}; correct it, or fetch the model again")
        most = len(shapes) if layers else largest
        if number > most:
            holds = f"the weights hold {most} {'tensors' if layers else 'numbers'} in all"
            raise RecipeError(f"config.json: {key} is {number}, and {holds}; fetch the model again")


def compare(folder: Path, shapes: Mapping[str, tuple[int, ...]], allow: Collection[str]) -> None:
    """Compare the model that config.json describes with its weights, as transformers would load them.

    Args:
        folder: the directory with config.json.
        shapes: tensor -> its shape.
        allow: the permissions of the recipe.

    Raises:
        RecipeError: weights are missing, have other shapes, or are not used; a model can't be made of config.json.
    """
    import torch
    import transformers

    said = read_json(folder / "config.json")
    if said.get("model_type") not in transformers.CONFIG_MAPPING or said.get("quantization_config"):
        return
    names = said.get("architectures")
    name = names[0] if isinstance(names, list) and names and isinstance(names[0], str) else ""
    try:
        transformers.utils.logging.disable_progress_bar()
        with quiet():
            config = transformers.AutoConfig.from_pretrained(
                str(folder), trust_remote_code=False, local_files_only=True
            )
            cls = _class(transformers, name, config)
            if cls is None:
                return
            with torch.device("meta"):
                wanted = sum(_count(tuple(each.shape)) for each in cls(config).parameters())
            held = sum(_count(shape) for shape in shapes.values())
            if wanted > 8 * held + (1 << 24):
                raise RecipeError(f"config.json: it describes a model of {wanted} numbers, the weights hold {held}")
            empty = torch.zeros(())
            _, report = cls.from_pretrained(
                None,
                config=config,
                state_dict={key: empty.expand(shape) for key, shape in shapes.items()},
                dtype=torch.float32,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
    except RecipeError:
        raise
    except Exception as error:  # a configuration fails in every way that its class does arithmetic with it
        raise RecipeError(
            f"config.json: transformers makes no {name or 'model'} of it: {one_line(error)}; fetch the model again"
        ) from None
    _judge(cls, report, allow)


def _class(transformers: Any, name: str, config: Any) -> Any:
    found = getattr(transformers, name, None) if name.isidentifier() else None
    if isinstance(found, type) and issubclass(found, transformers.PreTrainedModel):
        return found
    base = transformers.MODEL_MAPPING.get(type(config), None)
    return base[0] if isinstance(base, tuple) else base


def _judge(cls: Any, report: Mapping[str, Any], allow: Collection[str]) -> None:
    """Judge what transformers reports.

    Raises:
        RecipeError: it is wrong with the body of the model, or a head has another shape.
    """
    heads = _heads(cls)
    if wrong := sorted(report["mismatched_keys"], key=str):
        key, held, asked = wrong[0]
        shapes = f"{'x'.join(map(str, held))} in the weights, and {'x'.join(map(str, asked))} by config.json"
        raise RecipeError(f"config.json does not fit the weights: {key} is {shapes}; fetch the model again")
    if missing := sorted(key for key in report["missing_keys"] if not _is_head(key, heads)):
        raise RecipeError(
            f"config.json does not fit the weights: they lack {missing[0]!r} and {len(missing) - 1} more that it "
            "asks for; fetch the model again"
        )
    unused = sorted(key for key in report["unexpected_keys"] if not _is_head(key, heads))
    if unused and ALLOW not in allow:
        raise RecipeError(
            f"config.json does not fit the weights: it leaves {unused[0]!r} and {len(unused) - 1} more unused; "
            f"correct it (does it count fewer layers?), or say `allow: [{ALLOW}]` in the recipe to leave them out"
        )


def _is_head(key: str, heads: Collection[str]) -> bool:
    return key.partition(".")[0] in heads or not set(key.split(".")[:2]).isdisjoint({"pooler"})


def _heads(cls: Any) -> set[str]:
    """Name what the classes of a model's kind have beside its body: `classifier`, `lm_head`, `cls`, ..."""
    module = sys.modules[cls.__module__]
    usual = {"pooler", "classifier", "score", "lm_head", "cls", "qa_outputs"}
    names = set[str]()
    body = set[str]()
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.ClassDef):
            (names if "For" in node.name or "Head" in node.name else body).update(_members(node))
    return usual | names - body - {cls.base_model_prefix}


def _members(node: ast.ClassDef) -> Iterator[str]:
    """Name the modules that a class of a model makes: attributes set in `__init__`."""
    if "For" not in node.name and not node.name.endswith("Model"):
        return
    for each in ast.walk(node):
        if isinstance(each, ast.Attribute) and isinstance(each.ctx, ast.Store) and isinstance(each.value, ast.Name):
            yield each.attr


def _numbers(value: Any, key: str = "", depth: int = 0) -> Iterator[tuple[str, int]]:
    """List key -> whole number, of nested configurations, too."""
    if type(value) is int:
        yield key, value
    elif depth < 8 and isinstance(value, dict):
        for name, inner in value.items():
            yield from _numbers(inner, str(name), depth + 1)


def _count(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count
