"""Watch a float ONNX model answer calibration rows, and note the range of each activation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.runtime.batching import batches, pad
from cpu_pipeline.stages._base import Progress

if TYPE_CHECKING:
    from cpu_pipeline.core.model_io import Arrays
    from cpu_pipeline.tasks._base import Task

Method = Literal["minmax", "entropy", "percentile"]
FILE = "ranges.json"


def feed(task: Task, model: Path, rows: Path, samples: int, batch: int, names: Sequence[str]) -> list[Arrays]:
    """Encode rows into batches of neighbouring lengths.

    Args:
        task: encodes the rows.
        model: directory with the tokenizer, or what else the task encodes with.
        rows: JSON lines, a row each.
        samples: how many rows to take, spread evenly over the file.
        batch: features in a batch.
        names: inputs to return.

    Returns:
        Batches of input name -> array of shape (batch, ...), right-padded to the longest feature; tokens are int64.

    Raises:
        RecipeError: there are no rows.
    """
    available = task.read_rows(rows)
    if not available:
        raise RecipeError("quantize.onnx: data.calibration has no rows; take some")
    step = max(1.0, len(available) / samples)
    chosen = [available[int(i * step)] for i in range(min(samples, len(available)))]
    features, kinds = task.encode(chosen, model), task.input_kinds(model)
    return [pad([features[i] for i in numbers], names, kinds) for numbers in batches(features, batch, kinds)]


def observe(
    model: Path,
    batches: Sequence[Arrays],
    operators: Sequence[str],
    method: Method,
    percentile: float,
    work: Path,
    progress: Progress,
) -> Path:
    """Find the range of every activation of the operators, and write them as ONNX Runtime's calibration cache.

    Args:
        model: the float ONNX graph.
        batches: what `feed` returned.
        operators: types of the operators whose activations are watched.
        method: how a range follows from the values: all of them, least entropy lost, or a percentile.
        percentile: percentage of the values within a range, with the method `percentile`.
        work: directory to write into.
        progress: takes how many batches were seen.

    Returns:
        The file that was written.
    """
    from onnxruntime.quantization import CalibrationMethod
    from onnxruntime.quantization.calibrate import create_calibrator, save_tensors_data

    methods = {name.lower(): value for name, value in CalibrationMethod.__members__.items()}
    calibrator = create_calibrator(
        model,
        list(operators),
        augmented_model_path=str(work / "augmented.onnx"),
        calibrate_method=methods[method],
        use_external_data_format=any(model.parent.glob("*.onnx_data")),
        extra_options={"percentile": percentile} if method == "percentile" else {},
    )
    # One by one: the calibrators keep every activation of the arrays that they get at once, which for a few hundred
    # long sequences is tens of gigabytes.
    for number, arrays in enumerate(batches):
        progress("calibration batches", number, len(batches))
        calibrator.collect_data(_Once(dict(arrays)))
    save_tensors_data(calibrator.compute_data(), work / FILE)
    return work / FILE


class _Once:
    """ONNX Runtime's calibration reader over a single batch."""

    def __init__(self, arrays: dict[str, Any]) -> None:
        self._left: dict[str, Any] | None = arrays

    def get_next(self) -> dict[str, Any] | None:
        """Give the batch, then nothing."""
        left, self._left = self._left, None
        return left
