"""From token vectors to one vector: the ways of sentence-transformers' Pooling module, in numpy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cpu_pipeline.core.errors import RecipeError

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

PREFIX = "pooling_mode_"
FLAGS = {
    "cls_token": "cls",
    "max_tokens": "max",
    "mean_tokens": "mean",
    "mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "weightedmean_tokens": "weightedmean",
    "lasttoken": "lasttoken",
}
"""Flag of older files, without its prefix -> the mode; in the order in which several are joined."""
KEYS = {"embedding_dimension", "word_embedding_dimension", "pooling_mode", "include_prompt"}
"""Other keys of the file."""
SMALLEST = 1e-9
"""What a count is at least, as a divisor."""


@dataclass(frozen=True)
class Pooling:
    """Make one vector of a sentence's."""

    modes: tuple[str, ...] = ("mean",)
    """Vectors to make, joined in this order."""
    include_prompt: bool = True
    """Whether the tokens of the prompt count."""

    def __call__(self, features: dict[str, Array], prompt: int) -> None:
        """Pool `token_embeddings` of shape (tokens, size) into `sentence_embedding`.

        Args:
            features: What modules read and write.
            prompt: Tokens at the beginning that are the prompt's.
        """
        import numpy as np

        vectors = features["token_embeddings"]
        kept = np.ones(len(vectors))
        if not self.include_prompt:
            kept[:prompt] = 0
        features["sentence_embedding"] = np.concatenate([POOLS[mode](vectors, kept) for mode in self.modes])


def read(config: Mapping[str, Any], where: str) -> Pooling:
    """Read the module's settings.

    Args:
        config: What its config.json says.
        where: The file, for messages.

    Raises:
        RecipeError: it names a mode or a setting that is not known.
    """
    flags = {key.removeprefix(PREFIX): bool(on) for key, on in config.items() if key.startswith(PREFIX)}
    named = config.get("pooling_mode")
    if named is None:
        modes = [mode for flag, mode in FLAGS.items() if flags.get(flag)] or ["mean"]
    else:
        modes = list(named) if isinstance(named, list) else [named]
    wrong = [mode for mode in modes if not isinstance(mode, str) or mode not in POOLS]
    wrong += [PREFIX + flag for flag in flags if flag not in FLAGS]
    wrong += [key for key in config if key not in KEYS and not key.startswith(PREFIX)]
    if wrong or not modes:
        raise RecipeError(
            f"{where}: {wrong[0] if wrong else 'no pooling mode'!r} is not known here; the modes are "
            f"{', '.join(POOLS)}; choose a model that uses these"
        )
    return Pooling(tuple(modes), bool(config.get("include_prompt", True)))


def _first(vectors: Array, kept: Array) -> Array:
    found: Array = vectors[int(kept.argmax())]
    return found


def _last(vectors: Array, kept: Array) -> Array:
    import numpy as np

    numbers = np.flatnonzero(kept)
    found: Array = vectors[numbers[-1]] if len(numbers) else np.zeros(vectors.shape[1])
    return found


def _max(vectors: Array, kept: Array) -> Array:
    import numpy as np

    found: Array = np.where(kept[:, None] > 0, vectors, -np.inf).max(axis=0)
    return found


def _mean(vectors: Array, kept: Array) -> Array:
    return _total(vectors, kept) / max(float(kept.sum()), SMALLEST)


def _mean_sqrt(vectors: Array, kept: Array) -> Array:
    found: Array = _total(vectors, kept) / max(float(kept.sum()), SMALLEST) ** 0.5
    return found


def _weighted(vectors: Array, kept: Array) -> Array:
    import numpy as np

    weights = kept * np.arange(1, len(vectors) + 1)
    found: Array = _total(vectors, weights) / max(float(weights.sum()), SMALLEST)
    return found


def _total(vectors: Array, weights: Array) -> Array:
    found: Array = (vectors * weights[:, None]).sum(axis=0)
    return found


POOLS: Mapping[str, Callable[[Array, Array], Array]] = {
    "cls": _first,
    "max": _max,
    "mean": _mean,
    "mean_sqrt_len_tokens": _mean_sqrt,
    "weightedmean": _weighted,
    "lasttoken": _last,
}
"""Mode -> the vector of token vectors (tokens, size) and what each counts: 1, or 0 for tokens of a prompt left out."""
