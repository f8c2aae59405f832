"""How much each operator's own quantization changes a model's answers, all others being float.

The measure is the Kullback-Leibler divergence between the distributions that the two models' outputs stand for. For a
small error e of an operator's output it is ½E[(gᵀe)²] with g the gradient of the log-likelihood (Fisher information;
Amari and Nagaoka 2000, section 2.2; used for quantization by Dong et al. 2020, arXiv:1911.03852). It is measured here
with the error itself in place, because ONNX Runtime and OpenVINO compute no gradients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.runtime.batching import answer
from cpu_pipeline.stages._base import Progress
from cpu_pipeline.stages.quantize._scratch import Notes
from cpu_pipeline.stages.quantize._variants import Variants, alone
from cpu_pipeline.tasks._base import Feature

if TYPE_CHECKING:
    from cpu_pipeline.core.model_io import Arrays, Session
    from cpu_pipeline.tasks._base import Task

BATCH = 8
"""Features that run together, as in `predict`."""


class Probe:
    """Sequences of calibration rows, answered by any number of models; answers are compared with those of the first."""

    def __init__(self, task: Task, model: Path, rows: Path, sequences: int) -> None:
        """Encode rows.

        Args:
            task: encodes them.
            model: directory with the tokenizer, or what else the task encodes with.
            rows: JSON lines, a row each.
            sequences: how many to take at most, spread evenly over what the rows give.

        Raises:
            RecipeError: there are no rows.
        """
        features = task.encode(task.read_rows(rows), model)
        if not features:
            raise RecipeError("data.calibration has no rows; ranking operators needs at least one")
        taken = min(sequences, len(features))
        self.features: list[Feature] = [features[i * len(features) // taken] for i in range(taken)]
        self._task, self._kinds = task, task.input_kinds(model)
        self._kind = divergence_of(task, model)

    def answers(self, session: Session) -> list[Arrays]:
        """Answer the sequences."""
        return answer(session, self.features, self._task, self._kinds, BATCH)

    def distance(self, reference: Sequence[Arrays], candidate: Sequence[Arrays]) -> float:
        """Return the mean divergence of the candidate's answers, in nats; relative squared error without logits."""
        import numpy as np

        found = [
            _DISTANCES[self._kind](np.asarray(ours[name], np.float64), np.asarray(theirs[name], np.float64))
            for theirs, ours in zip(reference, candidate, strict=True)
            for name in theirs
        ]
        value = float(np.mean(found))
        return value if np.isfinite(value) else float("inf")

    @property
    def measure(self) -> str:
        """Name what `distance` measures."""
        return "relative squared error" if self._kind == "values" else "KL divergence"


def divergence_of(task: Task, model: Path) -> str:
    """Say what outputs stand for: `one` choice, `many` yes-or-no choices, or `values` that choose nothing."""
    choice = task.choice(model)
    if choice is None or task.auto_class == "AutoModel":
        return "values"
    import numpy as np

    return "many" if np.shape(choice(np.zeros(3, np.float32))) == (3,) else "one"


def _softmax_divergence(ours: Any, theirs: Any) -> float:
    import numpy as np

    p, q = (x - x.max(-1, keepdims=True) for x in (theirs, ours))
    p, q = (x - np.log(np.exp(x).sum(-1, keepdims=True)) for x in (p, q))
    return float((np.exp(p) * (p - q)).sum(-1).mean())


def _bernoulli_divergence(ours: Any, theirs: Any) -> float:
    import numpy as np

    share = 1 / (1 + np.exp(-theirs))
    # The logarithm of a sigmoid is -log(1 + e^-x), that of what is left of 1 is -log(1 + e^x).
    yes, no = (np.logaddexp(0, sign * ours) - np.logaddexp(0, sign * theirs) for sign in (-1, 1))
    return float((share * yes + (1 - share) * no).sum(-1).mean())


def _squared_error(ours: Any, theirs: Any) -> float:
    return float(((ours - theirs) ** 2).sum() / max(float((theirs**2).sum()), 1e-30))


_DISTANCES = {"one": _softmax_divergence, "many": _bernoulli_divergence, "values": _squared_error}


def damages(variants: Variants, probe: Probe, notes: Notes, progress: Progress) -> Mapping[str, float]:
    """Measure every operator's damage: operator -> divergence when it alone is quantized, the largest first.

    Args:
        variants: the quantized model.
        probe: the rows that it is measured on.
        notes: keeps what was measured, for a run that resumes.
        progress: takes how many operators were measured.
    """
    reference: list[Arrays] | None = None
    found: dict[str, float] = {}
    for number, operator in enumerate(variants.operators):
        progress("operators ranked", number, len(variants.operators))
        key = f"damage {operator.name}"
        if (known := notes.get(key)) is None:
            if reference is None:
                reference = probe.answers(variants.original())
            known = probe.distance(reference, probe.answers(alone(variants, operator.name)))
            notes.put(key, known)
        found[operator.name] = float(known)
    order = {operator.name: number for number, operator in enumerate(variants.operators)}
    return dict(sorted(found.items(), key=lambda item: (-item[1], order[item[0]])))
