"""Load, run and write OpenVINO IR on the CPU, checked before the runtime maps it, and without telemetry."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.parsers import expat

from cpu_pipeline.backends import _usage
from cpu_pipeline.backends._base import MEDIA, TESTED
from cpu_pipeline.core import host
from cpu_pipeline.core.artifact import Card
from cpu_pipeline.core.errors import BackendMissing, StageFailed

if TYPE_CHECKING:
    from cpu_pipeline.core.model_io import Arrays, Head

PACKAGES = ("openvino",)
VERSION = 1
ENVIRONMENT = "default"
PRECISIONS = ("float32", "bfloat16", "int8")
ARCHITECTURES = TESTED | MEDIA
ONLY = False
STATUS = "current; OpenVINO and NNCF are developed"

FORMAT = "openvino"
XML = "openvino_model.xml"
BIN = "openvino_model.bin"
"""What optimum-intel's OVModelFor* classes look for in a directory."""

MAX_XML = 128 << 20
"""Bytes. The graph of a transformer is a few megabytes of XML; its weights are in the other file."""

_NUMBERED = re.compile(r"[A-Za-z]\w*?_\d+")


class OpenVINOSession:
    """A compiled model: arrays of its ports' types in, float32 arrays out, one request at a time."""

    def __init__(self, compiled: Any, outputs: Mapping[str, int]) -> None:
        self._request = compiled.create_infer_request()
        self._types = {port.get_any_name(): port.get_element_type().to_dtype() for port in compiled.inputs}
        self._inputs = tuple(self._types)
        self._outputs = dict(outputs)
        self.compiled = compiled

    @property
    def inputs(self) -> tuple[str, ...]:
        """Name the inputs the model takes; pass no others."""
        return self._inputs

    def __call__(self, arrays: Arrays, /) -> Arrays:
        """Run one batch; outputs are float32 copies, named as the task names them.

        Args:
            arrays: int64 tokens of shape (batch, sequence), or what else the model takes.
        """
        import numpy as np

        inputs = {name: np.ascontiguousarray(arrays[name], dtype=kind) for name, kind in self._types.items()}
        # Shared outputs are views of memory that the next call overwrites.
        answers = self._request.infer(inputs, share_inputs=True, share_outputs=False)
        return {name: np.asarray(answers[index], dtype=np.float32) for name, index in self._outputs.items()}


def load(path: Path, head: Head | None, threads: int) -> OpenVINOSession:
    """Open the artifact at `path` on the CPU; 0 threads lets OpenVINO choose.

    Floats are computed in float32 unless the artifact's card asks for something else: the default of OpenVINO is bf16
    where the processor has it.

    Raises:
        StageFailed: the files are not a valid OpenVINO model.
        BackendMissing: OpenVINO, or an instruction set that the model needs, is missing.
    """
    card = Card.read(path, FORMAT)
    if lacking := host.missing(card.needs):
        raise BackendMissing(
            f"{path}: built for {', '.join(lacking)}, which this CPU lacks: it would answer wrongly here; "
            "build it again on this machine"
        )
    check_files(path)
    try:
        model = runtime().Core().read_model(path / XML, path / BIN)
    except (RuntimeError, ValueError) as error:
        raise StageFailed(f"{path / XML}: not a valid OpenVINO model: {_last_line(error)}") from error
    return open_model(model, card.runtime, head, threads, path / XML)


def open_model(
    model: Any, settings: Mapping[str, Any], head: Head | None, threads: int, path: Path = Path(XML)
) -> OpenVINOSession:
    """Compile an `openvino.Model` for the CPU; 0 threads lets OpenVINO choose.

    Args:
        model: the model.
        settings: those of its card; they win over ours.
        head: the task whose outputs it must have; None for all that it gives.
        threads: threads to answer with.
        path: its file, for messages.

    Raises:
        StageFailed: it does not compile, or lacks an output.
    """
    chosen: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        # Two processes that each pin their threads would pin them to the same cores.
        "ENABLE_CPU_PINNING": False,
        **settings,
    }
    if threads > 0:
        chosen["INFERENCE_NUM_THREADS"] = threads
    try:
        compiled = runtime().Core().compile_model(model, "CPU", chosen)
    except (RuntimeError, ValueError, TypeError) as error:
        raise StageFailed(f"{path}: does not compile with {chosen}: {_last_line(error)}") from error
    return session(compiled, head, path.parent)


def session(compiled: Any, head: Head | None, folder: Path) -> OpenVINOSession:
    """Open a model that was compiled elsewhere.

    Args:
        compiled: an `openvino.CompiledModel`.
        head: the task whose outputs it must have; None for all that it gives.
        folder: its directory, for messages.

    Raises:
        StageFailed: it lacks an output.
    """
    return OpenVINOSession(compiled, _find_outputs(folder, compiled, head))


def runtime() -> Any:
    """Import OpenVINO with its telemetry left out.

    `import openvino` sends telemetry through the package openvino_telemetry unless the user opted out (it reads a file
    in the home directory and the variable CI); without that package OpenVINO and NNCF put a stub in its place.
    """
    if "openvino" not in sys.modules:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # None is how an import is forbidden
    try:
        import openvino
    except ImportError as error:
        raise BackendMissing(f"openvino cannot be imported ({error}); install cpu-pipeline[runtime]") from error
    return openvino


def check_files(path: Path) -> None:
    """Check that the two files can be a model at all, before a runtime that maps them lazily opens them.

    Raises:
        StageFailed: one is missing or empty, the XML is broken, too large or has a DOCTYPE, or the weights are cut.
    """
    for name in (XML, BIN):
        if not (path / name).is_file():
            raise StageFailed(f"{path}: not a valid OpenVINO model: {name} is missing")
    need, weights = _weight_bytes(path / XML), (path / BIN).stat().st_size
    if need > weights:
        raise StageFailed(
            f"{path / BIN}: not a valid OpenVINO model: {weights} bytes, but {XML} refers to {need}; it was cut"
        )


def write(model: Any, out: Path, half: bool = False) -> None:
    """Write an `openvino.Model` as the same bytes whatever was converted before it in this process, and wherever.

    OpenVINO numbers what it makes (`Constant_6110`, `Model3`) with counters of the process; here the numbers follow
    the order of the graph. Versions and conversion parameters are left out: the manifest has them.

    Args:
        model: is renamed in place.
        out: the directory that gets the two files.
        half: store float32 weights as float16.
    """
    ov = runtime()
    model.set_friendly_name("model")
    taken = {node.get_friendly_name() for node in model.get_ordered_ops()}
    count = 0
    for node in model.get_ordered_ops():
        name, kind = node.get_friendly_name(), node.get_type_name()
        if _NUMBERED.fullmatch(name) and name.rpartition("_")[0] == kind:
            taken.discard(name)
            while (fresh := f"{kind}_{count}") in taken:
                count += 1
            node.set_friendly_name(fresh)
            count += 1
    ov.save_model(model, out / XML, compress_to_fp16=half)
    _drop_remarks(out / XML)


def _drop_remarks(xml: Path) -> None:
    text = xml.read_text(encoding="utf-8")
    start, end = text.rfind("\n\t<rt_info>"), text.rfind("\n</net>")
    if 0 <= start < end:
        xml.write_text(text[:start] + text[end:], encoding="utf-8", newline="\n")


def _weight_bytes(xml: Path) -> int:
    """Read the XML as a stream; say how many bytes of weights it refers to."""
    size = xml.stat().st_size
    if size > MAX_XML:
        raise StageFailed(f"{xml}: not a valid OpenVINO model: {size} bytes of XML, more than {MAX_XML}")
    seen = _Seen()
    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = seen.doctype
    parser.StartElementHandler = seen.element
    try:
        with xml.open("rb") as file:
            parser.ParseFile(file)
    except (expat.ExpatError, ValueError) as error:
        raise StageFailed(f"{xml}: not a valid OpenVINO model: {error}") from error
    return seen.need


class _Seen:
    """What one pass over the XML has shown so far."""

    def __init__(self) -> None:
        self.need = 0
        self.root = ""

    def doctype(self, *_: object) -> None:
        # The one door to entities, and to the files and bombs behind them.
        raise ValueError("it has a DOCTYPE")

    def element(self, tag: str, attributes: dict[str, str]) -> None:
        if not self.root:
            self.root = tag
            if tag != "net":
                raise ValueError(f"its root is {tag}, not net")
        if tag == "data" and "offset" in attributes:
            offset, size = int(attributes["offset"]), int(attributes.get("size", "0"))
            if offset < 0 or size < 0:
                raise ValueError(f"weights at offset {offset}, size {size}")
            self.need = max(self.need, offset + size)


def _find_outputs(path: Path, compiled: Any, head: Head | None) -> dict[str, int]:
    """Find each output of the task by name, or by position where none of the names is the model's."""
    names = [port.get_names() for port in compiled.outputs]
    if head is None:
        return {min(found, key=lambda name: (name.isdigit(), name), default=str(i)): i for i, found in enumerate(names)}
    indices = {name: i for name in head.outputs for i, found in enumerate(names) if name in found}
    if len(indices) == len(head.outputs):
        return indices
    if not indices and len(names) == len(head.outputs):
        return {name: i for i, name in enumerate(head.outputs)}
    raise StageFailed(
        f"{path / XML}: the task needs the outputs {', '.join(head.outputs)}, "
        f"the model gives {', '.join(min(found, default='?') for found in names)}"
    )


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def usage(folder: str, head: Head | None) -> str:
    """Write how to run the model with OpenVINO alone."""
    return f"""
import numpy as np, openvino
{_usage.inputs(folder, head)}

model = openvino.Core().compile_model("{folder}/{XML}", "CPU", {{"INFERENCE_PRECISION_HINT": "f32"}})
outputs = model({{i.any_name: np.array([inputs[i.any_name]]) for i in model.inputs}})
{_usage.embedding(folder, head, "outputs[0][0]")}"""
