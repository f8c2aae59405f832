"""A quantized model with some of its operators in float: what ranking and healing ask of each runtime."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from cpu_pipeline.core.model_io import Session


@dataclass(frozen=True)
class Operator:
    """One quantized operator."""

    name: str
    """Its name in the float graph, as options that leave operators in float take it."""
    kind: str
    """Its type, such as MatMul."""
    weights: int
    """Elements of its own weights: bytes that 8 bits take of them; 0 where it multiplies activations."""


class Variants(Protocol):
    """Opens a model with any of its quantized operators in float; ranges and biases are found once for all of them."""

    @property
    def operators(self) -> Sequence[Operator]:
        """List what is quantized, in the order of the graph."""

    def original(self) -> Session:
        """Open the float model."""

    def keeping(self, names: Set[str]) -> Session:
        """Open the quantized model with these operators in float."""

    def write(self, names: Set[str], out: Path) -> None:
        """Write that model's own files."""


def alone(variants: Variants, name: str) -> Session:
    """Open the float model with one operator quantized."""
    return variants.keeping({operator.name for operator in variants.operators} - {name})
