"""Facts that several stages remember: how far a new model's outputs are from those of the model it was built from."""

from __future__ import annotations

from cpu_pipeline.stages._base import Count, Facts, Figure


class Comparison(Facts):
    """What `runtime.parity.compare` measured between two models on the same padded batches."""

    max_abs: Figure
    """Largest difference of an output value, in the outputs' own unit."""
    mean_abs: Figure
    """Mean difference of all output values that are finite on both sides."""
    cosine_min: Figure
    """Least cosine between the two outputs of a sequence."""
    cosine_mean: Figure
    """Mean cosine over all sequences and outputs."""
    same_top: Figure
    """Share of positions whose largest value is at the same index, as a fraction."""
    nonfinite: Count
    """Output values of either side that are NaN or infinite."""
    values: Count
    """Output values that were compared."""
    shapes: list[tuple[Count, ...]]
    """Shape of the first input of each batch: (batch, sequence) of tokens, (batch, channels, height, width)."""


class ExportFacts(Facts):
    """What an exporter remembers of any model."""

    inputs: list[str]
    """Names of the model's inputs, in order."""
    outputs: list[str]
    """Names of its outputs, in order."""
    parity: Comparison
    """Distance from the checkpoint's own outputs."""
