"""Record what a checkpoint computes as TorchScript: one trace, named inputs, the task's outputs in order."""

from __future__ import annotations

import re
import tempfile
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cpu_pipeline.core.errors import StageFailed
from cpu_pipeline.core.text import one_line
from cpu_pipeline.stages._module import example, with_names

ADDED = (".debug_pkl", "/.data/serialization_id")
"""Endings of the files that torch.jit.save adds to a model: paths of its source, stack traces, a digest of those."""
NUMBERED = re.compile(rb"___torch_mangle_(\d+)")
"""How TorchScript tells classes apart: with a counter of the process."""


def trace(
    module: Any,
    names: Sequence[str],
    outputs: tuple[str, ...],
    warned: list[str] | None = None,
    arrays: Mapping[str, Any] | None = None,
) -> Any:
    """Trace a transformers model into a torch.jit.ScriptModule that takes keyword tensors and gives a tuple.

    The tracer's own check is off: it runs the model a second time on the same example, which shows no shape that was
    frozen, and refuses BERT although its trace is right. Compare with eager at other shapes afterwards.

    Args:
        module: what `hf.checkpoint` returned, in eval mode.
        names: its inputs, as `hf.inputs_of` lists them; int64 of shape (batch, sequence).
        outputs: what the task reads; the order of the tuple.
        warned: gets one line for each warning of the tracer: the source file's name and the warning. Not all are
            true: every architecture here makes a mask under a condition that only asks whether it is being traced.
        arrays: name -> numpy array to trace with, for a model that takes no tokens.

    Raises:
        Exception: one of `_module.FAILURES`, where the model does something that a trace cannot hold.
    """
    import torch

    with warnings.catch_warnings(record=True) as heard, torch.no_grad():
        warnings.simplefilter("always")
        traced = torch.jit.trace(
            with_names(module, names, outputs),
            example_kwarg_inputs=_tensors(arrays) if arrays else example(module, names),
            strict=False,
            check_trace=False,
        )
    if warned is not None:
        tracers = (w for w in heard if issubclass(w.category, torch.jit.TracerWarning))
        lines = (f"{Path(w.filename).name}: {' '.join(str(w.message).split())[:200]}" for w in tracers)
        warned.extend(dict.fromkeys(lines))
    return traced


def _tensors(arrays: Mapping[str, Any]) -> dict[str, Any]:
    import torch

    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def write(module: Any, path: Path, where: str) -> None:
    """Save a ScriptModule as a file whose bytes depend on the model alone.

    torch.jit.save adds paths of the source and its stack traces, and names that count what was traced before in this
    process; without the first and with the second counted from 0, Python and C++ load it all the same.

    Args:
        module: a traced and frozen torch.jit.ScriptModule.
        path: the file to write.
        where: name of the stage, for the message.

    Raises:
        StageFailed: torch cannot save it.
    """
    import torch

    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        raw = Path(scratch) / "raw.pt"
        try:
            torch.jit.save(module, raw)
        except RuntimeError as error:
            raise StageFailed(f"{where}: torch cannot save this module: {one_line(error)}") from error
        _tidy(raw, path)


def _tidy(raw: Path, path: Path) -> None:
    """Copy a saved module without the files that torch adds, its counted names counted anew."""
    numbers: dict[bytes, int] = {}

    def renumber(found: re.Match[bytes]) -> bytes:
        return b"___torch_mangle_%d" % numbers.setdefault(found[1], len(numbers))

    with zipfile.ZipFile(raw) as before, zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as after:
        for name in before.namelist():
            if name.endswith(ADDED):
                continue
            inside = name.partition("/")[2]
            plain = NUMBERED.sub(renumber, inside.encode()).decode()
            entry = zipfile.ZipInfo(f"{path.stem}/{plain}")  # dated 1980, as torch does
            data = before.read(name)
            after.writestr(entry, NUMBERED.sub(renumber, data) if inside.endswith((".py", ".pkl")) else data)
