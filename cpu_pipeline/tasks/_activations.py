"""The activation functions of torch.nn that stand in saved models, in numpy, with torch's usual arguments."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]


def _sigmoid(x: Array) -> Array:
    import numpy as np

    found: Array = np.exp(-np.logaddexp(0, -x))
    return found


def _softplus(x: Array) -> Array:
    import numpy as np

    found: Array = np.where(x > 20, x, np.logaddexp(0, x))
    return found


def _elu(x: Array) -> Array:
    import numpy as np

    found: Array = np.where(x > 0, x, np.expm1(np.minimum(x, 0)))
    return found


def _gelu(x: Array) -> Array:
    import numpy as np

    found: Array = x * 0.5 * (1 + np.vectorize(math.erf, otypes=[float])(x / math.sqrt(2)))
    return found


def _tanh(x: Array) -> Array:
    import numpy as np

    found: Array = np.tanh(x)
    return found


def _log_sigmoid(x: Array) -> Array:
    import numpy as np

    found: Array = -np.logaddexp(0, -x)
    return found


SCALE, ALPHA = 1.0507009873554805, 1.6732632423543772
"""Of SELU. https://arxiv.org/abs/1706.02515"""

ACTIVATIONS: Mapping[str, Callable[[Array], Array]] = {
    "Identity": lambda x: x,
    "Tanh": _tanh,
    "ReLU": lambda x: x.clip(0),
    "ReLU6": lambda x: x.clip(0, 6),
    "LeakyReLU": lambda x: x.clip(0) + 0.01 * x.clip(max=0),
    "ELU": _elu,
    "CELU": _elu,
    "SELU": lambda x: SCALE * (x.clip(0) + ALPHA * _elu(x.clip(max=0))),
    "GELU": _gelu,
    "SiLU": lambda x: x * _sigmoid(x),
    "Mish": lambda x: x * _tanh(_softplus(x)),
    "Sigmoid": _sigmoid,
    "LogSigmoid": _log_sigmoid,
    "Softplus": _softplus,
    "Softsign": lambda x: x / (1 + abs(x)),
    "Tanhshrink": lambda x: x - _tanh(x),
    "Hardtanh": lambda x: x.clip(-1, 1),
    "Hardsigmoid": lambda x: (x / 6 + 0.5).clip(0, 1),
    "Hardswish": lambda x: x * (x / 6 + 0.5).clip(0, 1),
}
"""Class of torch.nn -> what it does to an array."""
