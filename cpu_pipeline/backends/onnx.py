"""Run ONNX models with ONNX Runtime on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpu_pipeline.backends import _usage
from cpu_pipeline.backends._base import MEDIA, TESTED
from cpu_pipeline.backends._external import screen
from cpu_pipeline.core import host
from cpu_pipeline.core.artifact import Card
from cpu_pipeline.core.errors import BackendMissing, StageFailed
from cpu_pipeline.core.model_io import shapes
from cpu_pipeline.core.text import one_line

if TYPE_CHECKING:
    from cpu_pipeline.core.model_io import Arrays, Head, Session

PACKAGES = ("onnxruntime", "numpy")
VERSION = 1
ENVIRONMENT = "default"
PRECISIONS = ("float32", "int8")
ARCHITECTURES = TESTED | MEDIA
ONLY = False
STATUS = "current; the new exporter of torch and ONNX Runtime are developed"
FORMAT = "onnx"
MODEL = "model.onnx"
DATA = "model.onnx_data"
"""Weights that do not fit into `MODEL`."""


def load(path: Path, head: Head | None, threads: int) -> Session:
    """Open a CPU session on the model in the directory `path`; 0 threads lets ONNX Runtime choose.

    Raises:
        StageFailed: the file is not a valid ONNX model, or lacks the task's outputs.
        Refused: its external data is outside its directory.
        BackendMissing: ONNX Runtime, or an instruction set that it was built for, is missing.
    """
    lacking = host.missing(Card.read(path, FORMAT).needs)
    if lacking:
        raise BackendMissing(
            f"{path}: built for {', '.join(lacking)}, which this CPU lacks: it would answer wrongly here; "
            "build it again on this machine"
        )
    screen(path / MODEL)
    session = open_session(path / MODEL, threads)
    names = tuple(output.name for output in session.get_outputs())
    if head and set(head.outputs) - set(names):
        raise StageFailed(f"{path}: the model gives {', '.join(names)}, the task reads {', '.join(head.outputs)}")
    return Running(session, head.outputs if head else names)


def open_session(model: Path, threads: int = 0) -> Any:
    """Open a bare onnxruntime.InferenceSession on one file that was screened, or that we wrote ourselves.

    Raises:
        StageFailed: the file is not a valid ONNX model.
        BackendMissing: ONNX Runtime is not installed.
    """
    try:
        import onnxruntime
        from onnxruntime.capi import onnxruntime_pybind11_state as state
    except ImportError as error:
        raise BackendMissing(f"{model}: running ONNX models needs onnxruntime: {error}") from error

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    options.log_severity_level = 3
    onnxruntime.disable_telemetry_events()
    broken: tuple[type[Exception], ...] = (state.Fail, state.InvalidArgument, state.InvalidGraph, state.InvalidProtobuf)
    broken += (state.NoModel, state.NoSuchFile, state.NotImplemented, state.RuntimeException, state.EPFail)
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except broken as error:
        raise StageFailed(f"{model}: not a valid ONNX model: {one_line(error)}") from error


class Running:
    """An ONNX Runtime session called with named numpy arrays."""

    def __init__(self, session: Any, outputs: tuple[str, ...]) -> None:
        self.inputs = tuple(value.name for value in session.get_inputs())
        self._session = session
        self._outputs = list(outputs)

    def __call__(self, arrays: Arrays, /) -> Arrays:
        """Run one batch: arrays of the graph's own types and shapes in, float32 arrays out."""
        import numpy as np
        from onnxruntime.capi import onnxruntime_pybind11_state as state

        try:
            answers = self._session.run(self._outputs, dict(arrays))
        except (state.Fail, state.InvalidArgument, state.RuntimeException) as error:
            raise StageFailed(f"the ONNX model does not run on {shapes(arrays)}: {one_line(error)}") from error
        return {name: np.asarray(a, dtype=np.float32) for name, a in zip(self._outputs, answers, strict=True)}


def usage(folder: str, head: Head | None) -> str:
    """Write how to run the model with ONNX Runtime alone."""
    return f"""
import numpy as np, onnxruntime
{_usage.inputs(folder, head)}

session = onnxruntime.InferenceSession("{folder}/{MODEL}", providers=["CPUExecutionProvider"])
outputs = session.run(None, {{i.name: np.array([inputs[i.name]]) for i in session.get_inputs()}})
{_usage.embedding(folder, head, "outputs[0][0]")}"""
