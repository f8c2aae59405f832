"""What happens inside an encoder: its hidden states, and the relations between its tokens' queries, keys and values."""

from __future__ import annotations

from typing import Any

from cpu_pipeline.backends import _encoder
from cpu_pipeline.core.errors import StageFailed

KINDS = ("query", "key", "value")


def count(model: Any) -> int:
    """Return the number of a model's layers."""
    return int(model.config.num_hidden_layers)


class Relations:
    """Keeps queries, keys and values of a model's last layer, each time that it runs."""

    def __init__(self, model: Any) -> None:
        """Watch a model.

        Raises:
            StageFailed: its parts are not known.
        """
        kind = str(model.config.model_type)
        if kind not in _encoder.ARCHITECTURES:
            known = ", ".join(_encoder.ARCHITECTURES)
            raise StageFailed(f"relations: the model is a {kind}, and its parts are not known; those of {known} are")
        parts = _encoder.ARCHITECTURES[kind]
        layer = list(model.base_model.get_submodule(parts.layers))[-1]
        self.seen: dict[str, Any] = {}
        for name in KINDS:
            layer.get_submodule(getattr(parts, name)).register_forward_hook(self._keeper(name))

    def _keeper(self, name: str) -> Any:
        def keep(module: Any, given: Any, output: Any) -> None:
            self.seen[name] = output

        return keep


def relation_gap(student: Any, teacher: Any, mask: Any, heads: int) -> Any:
    """Average KL(teacher ‖ student) of how each token relates to the others: softmax of scaled products of vectors.

    Wang et al. 2021 (MiniLMv2), https://arxiv.org/abs/2012.15828: widths need not match, numbers of heads do.

    Args:
        student: queries, keys or values: (rows, tokens, width).
        teacher: the same of the teacher, of any width.
        mask: 1 for real tokens: (rows, tokens).
        heads: relation heads that each width is divided into.
    """
    import torch
    from torch.nn.functional import kl_div, log_softmax

    def related(vectors: Any) -> Any:
        rows, tokens, width = vectors.shape
        if width % heads:
            raise StageFailed(f"relation_heads: {heads} does not divide the width {width}; choose a divisor of both")
        split = vectors.float().reshape(rows, tokens, heads, width // heads).transpose(1, 2)
        scores = split @ split.transpose(-1, -2) / (width // heads) ** 0.5
        return log_softmax(scores.masked_fill(mask[:, None, None] == 0, torch.finfo(scores.dtype).min), dim=-1)

    gap = kl_div(related(student), related(teacher), reduction="none", log_target=True)
    gap = gap.masked_fill(mask[:, None, None] == 0, 0.0).sum(dim=-1)
    weights = mask[:, None].to(gap.dtype).expand_as(gap)
    return (gap * weights).sum() / weights.sum().clamp(min=1)


def state_gap(student: Any, teacher: Any, mask: Any) -> Any:
    """Average the squared difference of hidden states over real tokens, as a share of the teacher's mean square.

    Raises:
        StageFailed: the widths differ.
    """
    if student.shape[-1] != teacher.shape[-1]:
        raise StageFailed(
            f"distill.hidden: the student's hidden states have {student.shape[-1]} numbers, the teacher's "
            f"{teacher.shape[-1]}; say `match: relations`, whose widths need not match"
        )
    weights = mask[..., None].to(teacher.dtype)
    gap = ((student.float() - teacher) ** 2 * weights).sum()
    return gap / ((teacher**2) * weights).sum().clamp(min=1e-9)
