"""Solve the output projections of a pruned encoder anew, so that each layer gives what the whole one gave.

From the bottom up, ridge least squares on real tokens: first the attention's output projection, then that of the
feed-forward. The target is what the whole model adds up before each norm, so that errors of the layers below are
repaired, too. Nothing is trained. The idea is that of Kwon et al. 2022 (mask tuning), https://arxiv.org/abs/2204.09656.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from cpu_pipeline.backends import _structure

RIDGE = 0.01
"""λ as a share of the mean of the diagonal."""


class _Reached(Exception):
    """The first layer was reached; what it was given is known."""


@dataclass
class _State:
    """A batch between two layers."""

    arguments: tuple[Any, ...]
    """What layers take after the hidden states."""
    keywords: dict[str, Any]
    real: Any
    """Which tokens are real: (rows, tokens)."""
    whole: Any
    """Hidden states of the whole model: (rows, tokens, size)."""
    pruned: Any
    """Those of the pruned one."""


def repair(whole: Any, pruned: Any, batches: Sequence[dict[str, Any]], tell: Callable[[int, int], None]) -> list[float]:
    """Repair a pruned module in place.

    Args:
        whole: the module before.
        pruned: a copy of it with fewer heads and neurons.
        batches: inputs by name, as tensors of tokens.
        tell: takes layers that are done, and all.

    Returns:
        For each layer the squared error after the repair of both projections, as a share of that before it.
    """
    import torch

    parts = _structure.parts_of(whole)
    shares = []
    with torch.inference_mode():
        states = [_first(whole, batch) for batch in batches]
        layers = list(zip(_structure.layers_of(whole), _structure.layers_of(pruned), strict=True))
        for number, (teacher, student) in enumerate(layers):
            tell(number, len(layers))
            goals = [_sums(teacher, parts, state) for state in states]
            before = after = 0.0
            for part, residual in ((parts.out, None), (parts.down, parts.attention_norm)):
                linear = student.get_submodule(part)
                equations = _Equations(linear)
                for state, goal in zip(states, goals, strict=True):
                    seen = _seen(student, parts, state)
                    base = state.pruned if residual is None else seen[residual]
                    equations.add(seen[part][state.real], (goal[part] - base)[state.real])
                old, new = equations.solve()
                before, after = before + old, after + new
            shares.append(after / before if before else 0.0)
            for state, goal in zip(states, goals, strict=True):
                state.whole = goal["output"]
                state.pruned = _seen(student, parts, state)["output"]
    return shares


def _first(model: Any, batch: dict[str, Any]) -> _State:
    """Run a model up to its first layer."""
    found: list[_State] = []

    def reached(module: Any, given: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        hidden = given[0] if given else keywords.pop("hidden_states")
        real = batch["attention_mask"].bool()
        found.append(_State(given[1:], dict(keywords), real, hidden, hidden))
        raise _Reached

    handle = _structure.layers_of(model)[0].register_forward_pre_hook(reached, with_kwargs=True)
    try:
        model(**batch)
    except _Reached:
        pass
    finally:
        handle.remove()
    return found[0]


def _sums(layer: Any, parts: Any, state: _State) -> dict[str, Any]:
    """Run a layer of the whole model; return what it adds up before each of its norms, and its output."""
    seen = _run(layer, parts, state, state.whole)
    return {
        parts.out: state.whole + seen[f"{parts.out}>"],
        parts.down: seen[parts.attention_norm] + seen[f"{parts.down}>"],
        "output": seen["output"],
    }


def _seen(layer: Any, parts: Any, state: _State) -> dict[str, Any]:
    """Run a layer of the pruned model; return the inputs of its projections, the first norm's output, and its own."""
    return _run(layer, parts, state, state.pruned)


def _run(layer: Any, parts: Any, state: _State, hidden: Any) -> dict[str, Any]:
    seen: dict[str, Any] = {}
    with _watched(layer, (parts.out, parts.down), parts.attention_norm, seen):
        given = layer(hidden, *state.arguments, **state.keywords)
    seen["output"] = given[0] if isinstance(given, tuple) else given
    return seen


@contextmanager
def _watched(layer: Any, projections: Sequence[str], norm: str, seen: dict[str, Any]) -> Iterator[None]:
    def projected(name: str) -> Callable[..., None]:
        def hook(module: Any, given: tuple[Any, ...], output: Any) -> None:
            seen[name], seen[f"{name}>"] = given[0], output

        return hook

    def normed(module: Any, given: tuple[Any, ...], output: Any) -> None:
        seen[norm] = output

    handles = [layer.get_submodule(name).register_forward_hook(projected(name)) for name in projections]
    handles.append(layer.get_submodule(norm).register_forward_hook(normed))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Equations:
    """Least squares for one linear layer, summed up batch by batch in float64."""

    def __init__(self, linear: Any) -> None:
        import torch

        size, outputs = linear.in_features + 1, linear.out_features
        self._linear = linear
        self._left = torch.zeros(size, size, dtype=torch.float64)
        self._right = torch.zeros(size, outputs, dtype=torch.float64)
        self._error = 0.0

    def add(self, inputs: Any, wanted: Any) -> None:
        """Add tokens: inputs (tokens, in) and what should come out (tokens, out)."""
        import torch

        missing = (wanted - self._linear(inputs)).double()
        with_one = torch.cat([inputs.double(), torch.ones(len(inputs), 1, dtype=torch.float64)], dim=1)
        self._left += with_one.T @ with_one
        self._right += with_one.T @ missing
        self._error += float((missing**2).sum())

    def solve(self) -> tuple[float, float]:
        """Change weight and bias; return the squared error before and after.

        What is solved for is the change, so that λ draws weights to what they were; the bias is free of it.
        """
        import torch

        diagonal = self._left.diagonal()[:-1]
        ridge = torch.zeros(len(self._left), dtype=torch.float64)
        ridge[:-1] = RIDGE * diagonal.mean()
        ridge[-1] = 1e-9
        change = torch.linalg.solve(self._left + torch.diag(ridge), self._right)
        linear = self._linear
        linear.weight.data += change[:-1].T.to(linear.weight.dtype)
        if linear.bias is not None:
            linear.bias.data += change[-1].to(linear.bias.dtype)
        gained = 2 * float((change * self._right).sum()) - float((change * (self._left @ change)).sum())
        return self._error, max(0.0, self._error - gained)
