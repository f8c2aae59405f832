"""Run TorchScript modules, or the checkpoint that an artifact holds instead, on the CPU."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpu_pipeline.backends import _usage, hf
from cpu_pipeline.backends._base import MEDIA, TESTED
from cpu_pipeline.core import host
from cpu_pipeline.core.artifact import Card
from cpu_pipeline.core.errors import BackendMissing, StageFailed
from cpu_pipeline.core.model_io import shapes

if TYPE_CHECKING:
    from cpu_pipeline.core.model_io import Arrays, Head, Session

PACKAGES = ("torch", "transformers", "safetensors", "numpy")
VERSION = 1
ENVIRONMENT = "default"
PRECISIONS = ("float32", "bfloat16")
ARCHITECTURES = TESTED | MEDIA
ONLY = False
STATUS = "deprecated: torch names torch.export as its successor; it still loads everywhere, C++ too"
FORMAT = "torchscript"
MODEL = "model.pt"
MEMBERS = (("data.pkl",), ("constants.pkl",), ("code/",), (".data/version", "version"))
"""What torch.jit.save puts under the one folder of its archive: how a file begins, one of each group."""
WARM = (1, 8)
"""(batch, sequence) of the two calls that make a session ready; a card may name shapes and types of its own (`warm`:
input name -> [shape, type]), as those of images and sound do."""


def load(path: Path, head: Head | None, threads: int) -> Session:
    """Open the artifact at `path`; 0 threads leaves torch's own choice.

    torch's profiling executor interprets the first call and optimizes the graph in the second; both happen here. What
    it made then serves every shape: measured, each later call of a new shape costs what it costs again.

    Raises:
        StageFailed: the file is not a whole TorchScript archive, or not the module that the card describes.
        BackendMissing: torch, or an instruction set that it was built for, is not here.
    """
    card = Card.read(path, FORMAT)
    if lacking := host.missing(card.needs):
        raise BackendMissing(
            f"{path}: built for {', '.join(lacking)}, which this CPU lacks: it would answer wrongly here; "
            "build it again on this machine"
        )
    if card.runtime.get("eager"):
        return hf.load(path, head, threads)
    inputs, outputs = names(path, card, head)
    return ready(path, threads, inputs, outputs, head.outputs if head else outputs, card.runtime.get("warm", {}))


def names(path: Path, card: Card, head: Head | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Read from the card what the module takes and gives, in order.

    Raises:
        StageFailed: it does not say, or the task reads something else.
    """
    inputs, outputs = (tuple(card.runtime.get(kind, ())) for kind in ("inputs", "outputs"))
    if not inputs or not outputs:
        raise StageFailed(f"{path}: its card names no inputs and outputs; build it again")
    if head and set(head.outputs) - set(outputs):
        raise StageFailed(f"{path}: the model gives {', '.join(outputs)}, the task reads {', '.join(head.outputs)}")
    return inputs, outputs


def ready(
    path: Path,
    threads: int,
    inputs: tuple[str, ...],
    gives: tuple[str, ...],
    outputs: tuple[str, ...],
    warm: Mapping[str, Sequence[Any]] | None = None,
) -> Scripted:
    """Open the module in the directory `path`, which gives `gives`, and make the calls in which torch optimizes it.

    Raises:
        StageFailed: the file is not a whole TorchScript archive, or not the module that the card describes.
        BackendMissing: torch is not installed.
    """
    module = open_module(path / MODEL, threads)
    takes = tuple(argument.name for argument in module.forward.schema.arguments[1:])
    if takes != inputs:
        raise StageFailed(f"{path / MODEL}: it takes {', '.join(takes)}, its card names {', '.join(inputs)}")
    session = Scripted(module, inputs, gives, outputs)
    session.warm_up(warm or {})
    return session


def open_module(model: Path, threads: int = 0) -> Any:
    """Open a bare torch.jit.ScriptModule, on the CPU and in eval mode.

    Raises:
        StageFailed: the file is not a whole TorchScript archive.
        BackendMissing: torch is not installed.
    """
    screen(model)
    try:
        import torch
    except ImportError as error:
        raise BackendMissing(f"{model}: running TorchScript needs torch: {error}") from error

    if threads > 0:
        torch.set_num_threads(threads)
    # A torch whose fuser knows this CPU would compile anew for each of the first shapes; once, for any shape, will do.
    torch.jit.set_fusion_strategy([("DYNAMIC", 1)])
    try:
        return torch.jit.load(model, map_location="cpu").eval()
    except (RuntimeError, ValueError) as error:
        raise StageFailed(f"{model}: not a valid TorchScript module: {_line(error)}") from error


def screen(model: Path) -> None:
    """Check that a file can be a TorchScript archive at all, from its directory alone, before torch maps it.

    Raises:
        StageFailed: it is missing, empty, cut, no zip, or has not what torch.jit.save writes.
    """
    what = f"{model}: not a valid TorchScript module"
    if not model.is_file():
        raise StageFailed(f"{what}: no such file")
    try:
        with zipfile.ZipFile(model) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise StageFailed(f"{what}: {_line(error)}; it is cut or something else") from error
    roots = {name.partition("/")[0] for name in names}
    inside = [name.partition("/")[2] for name in names]
    lacking = [members[0] for members in MEMBERS if not any(name.startswith(members) for name in inside)]
    if len(roots) != 1 or lacking:
        raise StageFailed(f"{what}: it is an archive without {', '.join(lacking) or 'one folder of its own'}")


class Scripted:
    """A TorchScript module called with named numpy arrays; its answers are a tuple in the order of `gives`."""

    def __init__(self, module: Any, inputs: tuple[str, ...], gives: Sequence[str], outputs: Sequence[str]) -> None:
        self.inputs = inputs
        self.module = module
        self._indices = {name: tuple(gives).index(name) for name in outputs}
        self._count = len(gives)

    def __call__(self, arrays: Arrays, /) -> Arrays:
        """Run one batch without gradients: arrays of the types and shapes of the trace in, float32 arrays out."""
        import torch

        tensors = {name: torch.from_numpy(arrays[name]) for name in self.inputs}
        try:
            with torch.inference_mode():
                answers = self.module(**tensors)
        except RuntimeError as error:
            raise StageFailed(f"the TorchScript module does not run on {shapes(arrays)}: {_line(error)}") from error
        if not isinstance(answers, tuple) or len(answers) != self._count:
            raise StageFailed(f"the TorchScript module does not give a tuple of {self._count}: its card is not its own")
        return {name: answers[index].float().numpy() for name, index in self._indices.items()}

    def warm_up(self, warm: Mapping[str, Sequence[Any]]) -> None:
        """Run the two calls in which torch optimizes this module; `warm` is as the card has it."""
        import numpy as np

        for _ in range(2):
            shapes = {name: warm.get(name, (WARM, "int64")) for name in self.inputs}
            self({name: np.ones(shape, dtype=kind) for name, (shape, kind) in shapes.items()})


def _line(error: BaseException) -> str:
    """Pick the line that names the cause: torch's messages begin or end with a trace through its interpreter."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    found = [line for line in lines if line.startswith("RuntimeError:")] or lines[:1] or [type(error).__name__]
    return found[-1].removeprefix("RuntimeError:").strip()[:300]


def usage(folder: str, head: Head | None) -> str:
    """Write how to run the module with torch alone."""
    names = ", ".join(head.outputs) if head is not None else "the outputs"
    auto_class = head.auto_class if head is not None else "AutoModel"
    return f"""
import torch
{_usage.inputs(folder, head)}

# Where the report says that it is not TorchScript: transformers.{auto_class}.from_pretrained("{folder}")
model = torch.jit.load("{folder}/{MODEL}", map_location="cpu")
names = [argument.name for argument in model.forward.schema.arguments[1:]]
with torch.inference_mode():
    outputs = model(**{{name: torch.tensor([inputs[name]]) for name in names}})  # {names}
{_usage.embedding(folder, head, "outputs[0][0].numpy()")}"""
