"""The one loop of every stage that trains: AdamW, warm-up and linear decay, checkpoints, the best one wins."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpu_pipeline.core.errors import StageFailed

if TYPE_CHECKING:
    from cpu_pipeline.stages._base import Progress

STATE = "state.pt"
"""In the scratch directory: everything that goes on where it was; replaced as a whole."""
POINTS = 60
"""Points of the loss curve that are kept."""
CLIP = 1.0
"""Largest norm of a step's gradient."""


@dataclass(frozen=True)
class Course:
    """How to train."""

    steps: Sequence[Sequence[Sequence[int]]]
    """Step -> batches -> numbers of targets, as `_batches.plan` gives them."""
    sizes: Sequence[int]
    """Tokens of each target."""
    rate: float
    """Largest learning rate."""
    warmup: float
    """Share of the steps in which the rate grows from 0; then it falls to 0 linearly."""
    decay: float
    """Weight decay of matrices."""
    seed: int
    dropout: bool
    """Whether the module is in train mode while it learns."""
    every: int
    """Steps between checkpoints."""
    evaluations: int
    """How often the model is scored, evenly spread; the last time at the end."""


@dataclass
class History:
    """What is kept of a training."""

    step: int = 0
    """Steps that are done."""
    curve: list[tuple[int, float]] = field(default_factory=list)
    """(step, mean loss since the point before)."""
    scores: list[tuple[int, float]] = field(default_factory=list)
    """(step, metric on the selection rows)."""
    best: int | None = None
    """Step with the best score; None where nothing was scored."""
    losses: list[float] = field(default_factory=list)
    """Of the steps since the last point."""


def train(
    model: Any,
    course: Course,
    loss: Callable[[Sequence[int]], Any],
    score: Callable[[], float] | None,
    scratch: Path,
    tell: Progress,
    lower: bool = False,
) -> History:
    """Train a module in place, from where the scratch directory says; its weights are then the best ones.

    Args:
        model: the module; its parameters that ask for gradients are trained.
        course: how.
        loss: mean loss of the targets of these numbers, a torch scalar.
        score: the metric on the selection rows, in eval mode; None to take the last weights.
        scratch: a directory that outlives a failure.
        tell: takes the progress.
        lower: whether less is better.

    Raises:
        StageFailed: the loss is no finite number.
    """
    import torch

    torch.manual_seed(course.seed)
    optimizer = _optimizer(model, course)
    history, best = _resume(model, optimizer, scratch)
    total = len(course.steps)
    marks = {max(1, round(total * (i + 1) / course.evaluations)) for i in range(course.evaluations)}
    point = max(1, total // POINTS)
    clock = _Clock(tell, course, history.step)
    if score is not None and history.step == 0 and not history.scores:
        best = _evaluated(model, history, score, best, lower)
    for number in range(history.step, total):
        model.train(course.dropout)
        factor = _factor(number, total, course.warmup)
        for group in optimizer.param_groups:
            group["lr"] = course.rate * factor
        history.losses.append(_step(model, optimizer, course.steps[number], loss))
        history.step = number + 1
        if history.step % point == 0 or history.step == total:
            history.curve.append((history.step, sum(history.losses) / len(history.losses)))
            history.losses.clear()
        clock.told(history)
        if score is not None and history.step in marks:
            best = _evaluated(model, history, score, best, lower)
        if history.step % course.every == 0 and history.step < total:
            _save(model, optimizer, history, best, scratch)
    if best is not None:
        model.load_state_dict(best)
    model.eval()
    return history


def _optimizer(model: Any, course: Course) -> Any:
    """Make AdamW; biases and the scales of norms do not decay, as in BERT's own training."""
    import torch

    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": course.decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=course.rate)


def _factor(step: int, total: int, warmup: float) -> float:
    """Return the share of the learning rate at a step: linear from 0 to 1, then linear to 0."""
    rising = round(warmup * total)
    if step < rising:
        return (step + 1) / rising
    return (total - step) / max(1, total - rising)


def _step(model: Any, optimizer: Any, batches: Sequence[Sequence[int]], loss: Callable[[Sequence[int]], Any]) -> float:
    """Learn the batches of one step together; return their mean loss."""
    import torch

    optimizer.zero_grad(set_to_none=True)
    count, sum_of_losses = sum(len(batch) for batch in batches), 0.0
    for batch in batches:
        part = loss(batch) * (len(batch) / count)
        part.backward()
        sum_of_losses += float(part.detach())
    if not math.isfinite(sum_of_losses):
        raise StageFailed("training: the loss is no finite number; lower `learning_rate`, or set `precision: float32`")
    torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], CLIP)
    optimizer.step()
    return sum_of_losses


def _evaluated(model: Any, history: History, score: Callable[[], float], best: Any, lower: bool) -> Any:
    """Score the model as it is; return the weights of the best so far, of equals the last."""
    model.eval()
    found = score()
    known = [value for _, value in history.scores if math.isfinite(value)]
    history.scores.append((history.step, found))
    better = math.isfinite(found) and (not known or (found <= min(known) if lower else found >= max(known)))
    if not better and best is not None:
        return best
    history.best = history.step
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def _save(model: Any, optimizer: Any, history: History, best: Any, scratch: Path) -> None:
    """Replace the checkpoint; whoever is killed meanwhile leaves the one before."""
    import torch

    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "random": torch.get_rng_state(),
        "best": best,
        "history": vars(history),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    fresh = scratch / f"{STATE}.new"
    with fresh.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(scratch / STATE)


def _resume(model: Any, optimizer: Any, scratch: Path) -> tuple[History, Any]:
    """Go on from the checkpoint, where there is one."""
    import torch

    if not (scratch / STATE).is_file():
        return History(), None
    state = torch.load(scratch / STATE, weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    torch.set_rng_state(state["random"])
    if "cuda" in state:
        torch.cuda.set_rng_state_all(state["cuda"])
    history = History(**state["history"])
    history.curve = [(int(step), float(loss)) for step, loss in history.curve]
    return history, state["best"]


class _Clock:
    """Tells step, loss, tokens in a second and the time left."""

    def __init__(self, tell: Progress, course: Course, step: int) -> None:
        self._tell, self._course = tell, course
        self._begin, self._tokens = time.monotonic(), 0
        self._work = [sum(course.sizes[i] for batch in batches for i in batch) for batches in course.steps]
        self._left = sum(self._work[step:])

    def told(self, history: History) -> None:
        done = self._work[history.step - 1]
        self._tokens += done
        self._left -= done
        speed = self._tokens / max(1e-9, time.monotonic() - self._begin)
        loss = history.losses[-1] if history.losses else history.curve[-1][1]
        left = self._left / max(1e-9, speed) / 60
        says = f"steps (loss {loss:.3f}, {speed:,.0f} tokens/s, {left:.0f} min left)"
        self._tell(says, history.step, len(self._course.steps))
