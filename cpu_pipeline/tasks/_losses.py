"""What training minimises, in torch: each task picks of these what fits its outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.tasks._modules import Dense, LayerNorm, Normalize
from cpu_pipeline.tasks._pooling import SMALLEST, Pooling

if TYPE_CHECKING:
    from cpu_pipeline.tasks._base import Feature, Target
    from cpu_pipeline.tasks._sentences import Sentences

IGNORED = -100
"""Label of a token that no loss counts; torch's own default."""
LEAST = -1e9
"""Logit of a token that cannot be chosen: padding."""
EMBEDDING = "sentence_embedding"
"""What a teacher of sentences is asked for: the pooled vector."""


def values(targets: Sequence[Target], name: str, like: Any, dtype: str = "int64") -> Any:
    """Stack one value of each target into a tensor on the device of `like`."""
    import numpy as np
    import torch

    stacked = np.array([target.values[name] for target in targets], dtype=dtype)
    return torch.from_numpy(stacked).to(like.device)


def classification(logits: Any, labels: Any) -> Any:
    """Average the cross-entropy of logits (rows, labels) with label numbers (rows)."""
    from torch.nn.functional import cross_entropy

    return cross_entropy(logits, labels)


def several(logits: Any, wanted: Any) -> Any:
    """Average the binary cross-entropy of logits with 0 and 1, or shares between, both (rows, labels)."""
    from torch.nn.functional import binary_cross_entropy_with_logits

    return binary_cross_entropy_with_logits(logits, wanted)


def squared(values: Any, wanted: Any) -> Any:
    """Average the squared difference."""
    from torch.nn.functional import mse_loss

    return mse_loss(values, wanted)


def tokens(logits: Any, labels: Sequence[Any]) -> Any:
    """Average the cross-entropy over the tokens that have a label.

    Args:
        logits: (rows, tokens, labels), padded.
        labels: label numbers of each row's own tokens; `IGNORED` where there is none.
    """
    import torch
    from torch.nn.functional import cross_entropy

    wanted = torch.full(logits.shape[:2], IGNORED, dtype=torch.int64)
    for row, own in enumerate(labels):
        wanted[row, : len(own)] = torch.as_tensor(own, dtype=torch.int64)
    wanted = wanted.to(logits.device)
    total = cross_entropy(logits.flatten(0, 1), wanted.flatten(), ignore_index=IGNORED, reduction="sum")
    return total / (wanted != IGNORED).sum().clamp(min=1)


def real(logits: Any, mask: Any) -> Any:
    """Give padding (mask of 0) the least logit; both are of shape (rows, tokens)."""
    return logits.masked_fill(mask == 0, LEAST)


def divergence(student: Any, teacher: Any, temperature: float, kept: Any = None) -> Any:
    """Average T² · KL(teacher ‖ student) over rows, of distributions along the last axis.

    Hinton et al. 2015, https://arxiv.org/abs/1503.02531: the factor T² keeps gradients of one size.

    Args:
        student: logits.
        teacher: logits of the same shape.
        temperature: T.
        kept: mask of the rows that count, of the shape without the last axis; all unless given.
    """
    from torch.nn.functional import kl_div, log_softmax

    found = kl_div(
        log_softmax(student / temperature, dim=-1),
        log_softmax(teacher / temperature, dim=-1),
        reduction="none",
        log_target=True,
    ).sum(dim=-1)
    found = found * temperature**2
    if kept is None:
        return found.mean()
    weights = kept.to(found.dtype)
    return (found * weights).sum() / weights.sum().clamp(min=1)


def cosine_gap(student: Any, teacher: Any) -> Any:
    """Average one minus the cosine of vectors (rows, size)."""
    from torch.nn.functional import cosine_similarity

    return (1 - cosine_similarity(student, teacher, dim=-1)).mean()


def embed(outputs: Mapping[str, Any], mask: Any, features: Sequence[Feature], sentences: Sentences) -> Any:
    """Make embeddings (rows, size) of token vectors, as `Sentences.embed` does in numpy, with gradients.

    Raises:
        RecipeError: the model has modules besides Pooling and Normalize.
    """
    import torch
    from torch.nn.functional import normalize

    vectors = outputs["last_hidden_state"]
    found = None
    for module in sentences.modules:
        if isinstance(module, Pooling):
            kept = mask.to(vectors.dtype)
            if not module.include_prompt:
                skipped = torch.tensor([feature.extra or 0 for feature in features], device=vectors.device)
                kept = kept * (torch.arange(kept.shape[1], device=vectors.device) >= skipped[:, None])
            found = torch.cat([_pooled(vectors, kept, mode) for mode in module.modes], dim=-1)
        elif isinstance(module, Normalize) and found is not None:
            found = normalize(found, dim=-1)
        elif isinstance(module, Dense | LayerNorm):
            name = type(module).__name__
            raise RecipeError(f"modules.json: training knows Pooling and Normalize, not {name}; choose another model")
    if found is None:
        raise RecipeError("modules.json: no Pooling module, and a sentence needs one vector")
    return found[:, : sentences.truncate_dim]


def _pooled(vectors: Any, kept: Any, mode: str) -> Any:
    """Pool vectors (rows, tokens, size) by one mode; `kept` (rows, tokens) is 1 for tokens that count."""
    import torch

    rows = torch.arange(len(vectors), device=vectors.device)
    if mode == "cls":
        return vectors[rows, kept.argmax(dim=1)]
    if mode == "lasttoken":
        places = torch.arange(kept.shape[1], device=vectors.device)
        return vectors[rows, (kept * places).argmax(dim=1)]
    if mode == "max":
        return vectors.masked_fill(kept[..., None] == 0, LEAST).amax(dim=1)
    weights = kept
    if mode == "weightedmean":
        weights = kept * torch.arange(1, kept.shape[1] + 1, device=vectors.device)
    total, count = (vectors * weights[..., None]).sum(dim=1), weights.sum(dim=1).clamp(min=SMALLEST)[:, None]
    return total / (count**0.5 if mode == "mean_sqrt_len_tokens" else count)
