"""From token vectors to one sentence vector, by the modules.json of a sentence-transformers checkpoint."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from cpu_pipeline.core.errors import StageFailed
from cpu_pipeline.tasks._files import read_json

HINT = "save the checkpoint again with sentence-transformers"
PREFIX = "pooling_mode_"
MODES = {
    "cls_token": "cls",
    "mean_tokens": "mean",
    "max_tokens": "max",
    "mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "weightedmean_tokens": "weightedmean",
    "lasttoken": "lasttoken",
}
"""Flags of 1_Pooling/config.json -> the mode's short name, which newer files give as `pooling_mode` instead."""


@dataclass(frozen=True)
class Pooling:
    """How a checkpoint makes one vector of a sentence's."""

    modes: tuple[str, ...] = ("mean",)
    """Vectors to make, joined in this order."""
    normalize: bool = False
    """Scale the result to length 1."""
    max_seq_length: int | None = None
    """Tokens that the checkpoint was trained to read."""
    lower: bool = False
    """Lower the text's case before the tokenizer sees it."""

    def __call__(self, vectors: Any) -> Any:
        """Pool token vectors of shape (tokens, size) into one float64 vector."""
        import numpy as np

        vectors = vectors.astype(np.float64)
        count = len(vectors)
        weights = np.arange(1, count + 1)[:, None]
        pools = {
            "cls": lambda: vectors[0],
            "mean": lambda: vectors.mean(axis=0),
            "max": lambda: vectors.max(axis=0),
            "mean_sqrt_len_tokens": lambda: vectors.sum(axis=0) / count**0.5,
            "weightedmean": lambda: (vectors * weights).sum(axis=0) / weights.sum(),
            "lasttoken": lambda: vectors[-1],
        }
        pooled = np.concatenate([pools[mode]() for mode in self.modes])
        length = float(np.linalg.norm(pooled))
        return pooled / length if self.normalize and 0 < length < math.inf else pooled


def read(model: Path) -> Pooling:
    """Read modules.json and what it points at; without one: the mean, not normalised, as sentence-transformers does.

    Raises:
        StageFailed: it names a module or a pooling mode that is not supported, or a file it points at is missing.
    """
    file = model / "modules.json"
    if not file.is_file():
        return Pooling()
    modes: tuple[str, ...] = ()
    normalize = False
    for module in read_json(file, HINT, list, StageFailed):
        kind = str(module.get("type", "")).rpartition(".")[2]
        if kind == "Pooling":
            modes = _modes(_inside(model, str(module.get("path", ""))) / "config.json")
        elif kind == "Normalize":
            normalize = True
        elif kind != "Transformer":
            raise StageFailed(
                f"modules.json: a {kind or 'nameless'} module; only Transformer, Pooling and Normalize are supported"
            )
    if not modes:
        raise StageFailed("modules.json: no Pooling module; a sentence needs one vector")
    settings = model / "sentence_bert_config.json"
    config = read_json(settings, HINT, error=StageFailed) if settings.is_file() else {}
    return Pooling(modes, normalize, config.get("max_seq_length"), bool(config.get("do_lower_case")))


def _inside(model: Path, path: str) -> Path:
    if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
        raise StageFailed(f"modules.json: the path {path!r} leads outside the checkpoint")
    return model / path


def _modes(file: Path) -> tuple[str, ...]:
    config = read_json(file, f"modules.json names {file.parent.name}/{file.name}", error=StageFailed)
    named = config.get("pooling_mode")
    if named is not None:
        modes = [named] if isinstance(named, str) else list(named)
    else:
        modes = [key.removeprefix(PREFIX) for key, on in config.items() if key.startswith(PREFIX) and on]
        # Flags are joined in the order that sentence-transformers joins them, whatever the file's.
        modes = [MODES.get(mode, mode) for mode in [*MODES, *modes] if mode in modes]
    known = tuple(dict.fromkeys(mode for mode in modes if mode in MODES.values()))
    if not known or set(known) != set(modes):
        raise StageFailed(f"{file.parent.name}/config.json: pooling modes {modes}; supported are {[*MODES.values()]}")
    return known
