"""config.json held against the weights: names and shapes of the tensors, from the headers alone.

transformers' own loader compares them, on tensors that hold no memory, so that its renamings and its lists of weights
that may be left out hold here, too. Heads are another matter: which of them a task needs, its backend says.
"""

from __future__ import annotations

import re
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
            model, report = cls.from_pretrained(
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
    _judge(model, report, allow)


def _class(transformers: Any, name: str, config: Any) -> Any:
    found = getattr(transformers, name, None) if name.isidentifier() else None
    if isinstance(found, type) and issubclass(found, transformers.PreTrainedModel):
        return found
    base = transformers.MODEL_MAPPING.get(type(config), None)
    return base[0] if isinstance(base, tuple) else base


def _judge(model: Any, report: Mapping[str, Any], allow: Collection[str]) -> None:
    """Judge what transformers reports of the body; heads, and whole parts that are missing, the backend judges.

    Raises:
        RecipeError: a weight has another shape, is missing, or is not used.
    """
    parts = {name for name, _ in model.base_model.named_children()} - {"pooler"}
    prefix = f"{model.base_model_prefix}."

    def part(key: str) -> str | None:
        name = key.removeprefix(prefix).partition(".")[0]
        return name if name in parts else None

    if wrong := sorted(report["mismatched_keys"], key=str):
        key, held, asked = wrong[0]
        shapes = f"{'x'.join(map(str, held))} in the weights, and {'x'.join(map(str, asked))} by config.json"
        raise RecipeError(f"config.json does not fit the weights: {key} is {shapes}; fetch the model again")
    there = {part(key) for key in model.state_dict().keys() - set(report["missing_keys"])}
    if missing := sorted(key for key in report["missing_keys"] if part(key) is not None and part(key) in there):
        raise RecipeError(
            f"config.json does not fit the weights: they lack {missing[0]!r} and {len(missing) - 1} more that it "
            "asks for; fetch the model again"
        )
    unused = sorted(key for key in report["unexpected_keys"] if part(key) is not None)
    if unused and ALLOW not in allow:
        raise RecipeError(
            f"config.json does not fit the weights: it leaves {unused[0]!r} and {len(unused) - 1} more unused; "
            f"correct it (does it count fewer layers?), or say `allow: [{ALLOW}]` in the recipe to leave them out"
        )


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
