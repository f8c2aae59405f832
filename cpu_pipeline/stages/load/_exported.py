"""A graph that was exported elsewhere: under its usual name, and screened before any runtime opens it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cpu_pipeline.backends import onnx, openvino
from cpu_pipeline.backends._external import screen
from cpu_pipeline.core.artifact import CARD
from cpu_pipeline.core.errors import RecipeError, Refused, StageFailed
from cpu_pipeline.core.repo_files import is_tokenizer
from cpu_pipeline.stages.load._configs import read_json

PRECISIONS = ("f32", "bf16", "f16", "dynamic")
"""What a card from outside may ask OpenVINO to compute in. It may set nothing else: some settings name files."""


def settle(out: Path, format: str) -> dict[str, Any]:
    """Bring the one graph of a fetched model to where its backend looks for it, and screen it with all beside it.

    Raises:
        RecipeError: there is not exactly one.
        Refused: it refers to files elsewhere, or its card sets what a card from outside may not.
        StageFailed: it is cut, broken, or not of this format.
    """
    if format == "onnx":
        facts = _move(out, ".onnx", onnx.MODEL)
        screen(out / onnx.MODEL)
    else:
        facts = _move(out, ".xml", openvino.XML, ".bin")
        openvino.check_files(out)
    if (out / CARD).is_file():
        _screen_card(out / CARD, format)
    return facts


def _move(out: Path, ending: str, usual: str, *companions: str) -> dict[str, Any]:
    """Move graph and companions to the top of `out`; files of external data keep the names the graph knows them by."""
    graphs = sorted(p for p in out.rglob(f"*{ending}") if p.is_file())
    if len(graphs) != 1:
        raise RecipeError(f"the model has {len(graphs)} files that end in {ending}; it must have one, called {usual}")
    [graph] = graphs
    for companion in companions:
        if not graph.with_suffix(companion).is_file():
            raise StageFailed(f"{graph.name}: not a valid model: {graph.with_suffix(companion).name} is missing")
        graph.with_suffix(companion).rename((out / usual).with_suffix(companion))
    home = graph.parent
    graph.rename(out / usual)
    if home != out:
        for path in sorted(home.iterdir()):
            path.rename(out / path.name)
        home.rmdir()
    weights = [p for p in out.iterdir() if p.is_file() and p.suffix != ".json" and not is_tokenizer(p.name)]
    return {"weight_bytes": sum(p.stat().st_size for p in weights)}


def _screen_card(path: Path, format: str) -> None:
    """Check the card that a published build of ours carries: what it was built for, and at which precision it runs."""
    card = read_json(path)
    needs, runtime = card.get("needs"), card.get("runtime")
    if card.get("format") != format:
        raise RecipeError(f"{CARD}: the model is {card.get('format')!r}, not {format!r}; correct `format:`")
    if not isinstance(needs, list) or not all(isinstance(n, str) and re.fullmatch(r"[\w|]+", n) for n in needs):
        raise StageFailed(f"{CARD}: not a valid card: `needs` must list instruction sets; fetch the model again")
    if not isinstance(runtime, Mapping):
        raise StageFailed(f"{CARD}: not a valid card: `runtime` must be a JSON object; fetch the model again")
    for name, value in runtime.items():
        if name != "INFERENCE_PRECISION_HINT" or value not in PRECISIONS:
            raise Refused(
                f"{CARD}: the model sets {name!r} to {value!r} for its runtime, and a model from outside may choose "
                f"its precision alone; remove that line from the file if you trust the model"
            )
