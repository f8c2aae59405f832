"""Record what a checkpoint computes as TorchScript: one trace, named inputs, the task's outputs in order."""

from __future__ import annotations

import inspect
import re
import tempfile
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cpu_pipeline.backends import hf
from cpu_pipeline.core.errors import StageFailed

SHAPE = (3, 9)
"""(batch, sequence) of the example: sizes of 0 and 1 broadcast, and a trace could take them for constants."""
LENGTHS = (9, 6, 4)
"""Real tokens of each row: a trace of an example without padding may leave the mask out."""
FAILURES = (RuntimeError, ValueError, TypeError, AttributeError, IndexError, KeyError)
"""What tracing raises where a model does something that a trace cannot hold."""
PLACES = (".debug_pkl", "/.data/serialization_id")
"""How files end that torch.jit.save adds to the model: where its source lay, stack traces, and a digest of those."""
NUMBERED = re.compile(rb"___torch_mangle_(\d+)")
"""How TorchScript tells classes apart: with a counter of the process."""


def trace(
    module: Any,
    names: Sequence[str],
    outputs: tuple[str, ...],
    said: list[str] | None = None,
    given: Mapping[str, Any] | None = None,
) -> Any:
    """Trace a transformers model into a torch.jit.ScriptModule that takes keyword tensors and gives a tuple.

    The tracer's own check is off: it runs the model a second time on the same example, which shows no shape that was
    frozen, and refuses BERT although its trace is right. Compare with eager at other shapes afterwards.

    Args:
        module: what `hf.checkpoint` gave, in eval mode.
        names: its inputs, as `hf.inputs_of` names them; int64 of shape (batch, sequence).
        outputs: what the task reads; the order of the tuple.
        said: gets one line for each warning of the tracer: the source file's name and what it fears. Not all are
            true: every architecture here makes a mask under a condition that only asks whether it is being traced.

        given: arrays to trace with, for a model that takes no tokens.

    Raises one of `FAILURES` where the model does something that a trace cannot hold.
    """
    import torch

    with warnings.catch_warnings(record=True) as heard, torch.no_grad():
        warnings.simplefilter("always")
        traced = torch.jit.trace(
            named(module, names, outputs),
            example_kwarg_inputs=_tensors(given) if given else example(module, names),
            strict=False,
            check_trace=False,
        )
    if said is not None:
        fears = (w for w in heard if issubclass(w.category, torch.jit.TracerWarning))
        said.extend(dict.fromkeys(f"{Path(w.filename).name}: {' '.join(str(w.message).split())[:200]}" for w in fears))
    return traced


def _tensors(arrays: Mapping[str, Any]) -> dict[str, Any]:
    import torch

    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def example(module: Any, names: Sequence[str]) -> dict[str, Any]:
    """Make a small padded batch that the model can take: int64 tensors by name.

    Each row has one end token, the last before the padding: some heads (BART's) look for it.
    """
    import torch

    rows, length = SHAPE
    padding, end, vocabulary = (
        getattr(module.config, name, None) for name in ("pad_token_id", "eos_token_id", "vocab_size")
    )
    lengths = torch.tensor(LENGTHS)[:, None]
    places = torch.arange(length)
    real = places < lengths
    ids = (torch.arange(rows * length).reshape(rows, length) + 3) % int(vocabulary or 2)
    if isinstance(end, int) and 0 <= end < int(vocabulary or 2):
        ids = torch.where(places == lengths - 1, end, ids)
    given = {
        "input_ids": torch.where(real, ids, padding if isinstance(padding, int) else 0),
        "attention_mask": real.long(),
        "token_type_ids": (real & (places > 2)).long(),
    }
    return {name: given[name] for name in names}


def named(module: Any, names: Sequence[str], outputs: tuple[str, ...]) -> Any:
    """Wrap a transformers model into a module that takes `names` alone and gives the task's outputs alone, in order.

    Outputs are float32 whatever the weights are.
    """
    import torch

    def cast(value: Any) -> Any:
        """Bring floats, such as pixels, to the type of the weights; leave no trace of it where they have it."""
        return value.to(module.dtype) if value.is_floating_point() and value.dtype != module.dtype else value

    class Named(torch.nn.Module):  # type: ignore[misc]  # torch is not typed here
        def __init__(self) -> None:
            super().__init__()
            self.model = module

        def forward(self, **given: Any) -> tuple[Any, ...]:
            answers = hf.outputs_of(self.model(**{n: cast(v) for n, v in given.items()}), outputs).values()
            # Not `.float()` on all: the trace would note it where there is nothing to do.
            return tuple(answer if answer.dtype == torch.float32 else answer.float() for answer in answers)

    # The tracer names the graph's inputs after these.
    keyword = inspect.Parameter.POSITIONAL_OR_KEYWORD
    given = [inspect.Parameter(name, keyword) for name in ("self", *names)]
    Named.forward.__signature__ = inspect.Signature(given)  # type: ignore[attr-defined]  # the tracer reads it; mypy knows none on functions
    return Named().eval()


def write(module: Any, path: Path, where: str) -> None:
    """Save a ScriptModule as a file whose bytes depend on the model alone.

    torch.jit.save adds where the source lay and its stack traces, and names that count what was traced before in this
    process; without the first and with the second counted from 0, Python and C++ load it all the same.

    Raises:
        StageFailed: torch cannot save it; `where` is the stage that it says.
    """
    import torch

    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        raw = Path(scratch) / "raw.pt"
        try:
            torch.jit.save(module, raw)
        except RuntimeError as error:
            raise StageFailed(
                f"{where}: torch cannot save this module: {' '.join(str(error).split())[:300]}"
            ) from error
        _tidy(raw, path)


def _tidy(raw: Path, path: Path) -> None:
    numbers: dict[bytes, int] = {}

    def renumber(found: re.Match[bytes]) -> bytes:
        return b"___torch_mangle_%d" % numbers.setdefault(found[1], len(numbers))

    with zipfile.ZipFile(raw) as before, zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as after:
        for name in before.namelist():
            if name.endswith(PLACES):
                continue
            inside = name.partition("/")[2]
            plain = NUMBERED.sub(renumber, inside.encode()).decode()
            entry = zipfile.ZipInfo(f"{path.stem}/{plain}")  # dated 1980, as torch does
            data = before.read(name)
            after.writestr(entry, NUMBERED.sub(renumber, data) if inside.endswith((".py", ".pkl")) else data)
