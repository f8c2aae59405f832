"""Run what AOTInductor compiled: a shared library in an archive, bound to an instruction set and a version of torch."""

from __future__ import annotations

import re
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpu_pipeline.backends import _usage
from cpu_pipeline.backends._base import TESTED
from cpu_pipeline.core import host
from cpu_pipeline.core.artifact import Card
from cpu_pipeline.core.errors import BackendMissing, StageFailed
from cpu_pipeline.core.model_io import shapes
from cpu_pipeline.core.text import one_line

if TYPE_CHECKING:
    from cpu_pipeline.core.model_io import Arrays, Head, Session

PACKAGES = ("torch", "numpy")
VERSION = 1
ENVIRONMENT = "default"
PRECISIONS = ("float32", "bfloat16", "int8")
ARCHITECTURES = TESTED
ONLY = False
STATUS = "current; AOTInductor is how torch.compile is shipped"
FORMAT = "pt2"
MODEL = "model.pt2"
LIBRARY = "data/aotinductor/model/model.wrapper.so"
METADATA = "data/aotinductor/model/model.wrapper_metadata.json"
MEMBERS = re.compile(
    r"model/(archive_format|archive_version|byteorder|\.data/version|\.data/serialization_id"
    r"|data/aotinductor/model/model\.wrapper[A-Za-z0-9_.]*)"
)
"""What our archives hold; the loader would write anything else wherever its name says."""


def load(path: Path, head: Head | None, threads: int) -> Session:
    """Open the compiled model in the directory `path`, with torch alone; 0 threads leaves torch's own choice.

    It is a program: open only what you compiled, or trust as you trust the programs you install.

    Raises:
        StageFailed: the archive is not one of ours, is cut, or lacks the task's outputs.
        BackendMissing: torch, its version, or an instruction set that it was compiled for, is missing.
    """
    card = Card.read(path, FORMAT)
    if lacking := host.missing(card.needs):
        raise BackendMissing(
            f"{path}: compiled for {', '.join(lacking)}, which this CPU lacks; build it again on this machine, or "
            "with a `target: {isa: ...}` that both have"
        )
    try:
        import torch
        from torch._C._aoti import AOTIModelPackageLoader
    except ImportError as error:
        raise BackendMissing(f"{path}: running compiled models needs torch: {error}") from error

    names = _names(path, card.runtime, head)
    _check_version(path, str(card.runtime.get("torch")), torch.__version__)
    if threads > 0:
        torch.set_num_threads(threads)
    # Unpacked by us: the loader's own directory outlives a process that is killed. The library stays mapped.
    with tempfile.TemporaryDirectory(prefix="cpu-pipeline-") as folder:
        _unpack(path / MODEL, Path(folder))
        try:
            loader = AOTIModelPackageLoader(str(Path(folder, "model")), "model", False, 1, -1)
        except RuntimeError as error:
            reason = one_line(error).replace(folder, "")
            raise StageFailed(f"{path / MODEL}: not a valid compiled model: {reason}") from error
    return Compiled(loader, *names, card.runtime.get("limits", {}))


class Compiled:
    """A compiled model called with named numpy arrays."""

    def __init__(
        self,
        loader: Any,
        inputs: tuple[str, ...],
        outputs: tuple[str, ...],
        chosen: tuple[str, ...],
        limits: Mapping[str, int],
    ) -> None:
        self.inputs = inputs
        self._loader = loader
        self._outputs = outputs
        self._chosen = chosen
        self._limits = dict(limits)

    def __call__(self, arrays: Arrays, /) -> Arrays:
        """Run one batch."""
        import torch

        self._check(arrays)
        tensors = [torch.from_numpy(arrays[name]) for name in self.inputs]
        try:
            answers = self._loader.run(tensors)
        except RuntimeError as error:
            raise StageFailed(f"the compiled model does not run on {shapes(arrays)}: {one_line(error)}") from error
        found = dict(zip(self._outputs, answers, strict=True))
        return {name: found[name].float().numpy() for name in self._chosen}

    def _check(self, arrays: Arrays) -> None:
        """Refuse what the embeddings do not hold: the library would end the process."""
        length = arrays[self.inputs[0]].shape[-1]
        if length > self._limits.get("length", length):
            raise StageFailed(f"a batch of {length} tokens: the compiled model takes {self._limits['length']} at most")
        for name in self.inputs:
            limit, array = self._limits.get(name), arrays[name]
            if limit is not None and array.size and not 0 <= int(array.min()) <= int(array.max()) < limit:
                raise StageFailed(f"{name}: the compiled model takes numbers from 0 to {limit - 1}")


def _names(
    path: Path, runtime: Mapping[str, Any], head: Head | None
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Read the inputs and outputs that the card says, in order, and which of them the task reads."""
    if not {"inputs", "outputs", "torch"} <= set(runtime):
        raise StageFailed(f"{path}: its cpu_pipeline.json does not list what a compiled model takes; build it again")
    outputs = tuple(runtime["outputs"])
    if head and set(head.outputs) - set(outputs):
        raise StageFailed(f"{path}: the model gives {', '.join(outputs)}, the task reads {', '.join(head.outputs)}")
    return tuple(runtime["inputs"]), outputs, head.outputs if head else outputs


def _check_version(path: Path, built: str, here: str) -> None:
    """Refuse another torch: packed weights and the library's calls into torch are the builder's."""
    if built.partition("+")[0] != here.partition("+")[0]:
        raise BackendMissing(
            f"{path}: compiled with torch {built}, but torch {here} is installed; install {built} or build it again"
        )


def _unpack(archive: Path, folder: Path) -> None:
    """Unpack the archive at `archive`, if it holds what ours hold; sums are checked on the way."""
    try:
        with zipfile.ZipFile(archive) as opened:
            names = opened.namelist()
            strange = [name for name in names if not MEMBERS.fullmatch(name)]
            if strange or len(set(names)) < len(names):
                raise StageFailed(
                    f"{archive}: not a valid compiled model: {(strange or sorted(names))[0]!r} is not what ours hold; "
                    "do not open this file"
                )
            for name in (LIBRARY, METADATA):
                if f"model/{name}" not in names:
                    raise StageFailed(f"{archive}: not a valid compiled model: it lacks {name}; build it again")
            opened.extractall(folder)
    except (OSError, EOFError, RuntimeError, NotImplementedError, zipfile.BadZipFile) as error:
        raise StageFailed(f"{archive}: not a valid compiled model: {one_line(error)}; build it again") from error


def usage(folder: str, head: Head | None) -> str:
    """Write how to run the model with torch alone."""
    return f"""
import json, torch
{_usage.inputs(folder, head)}

model = torch._inductor.aoti_load_package("{folder}/{MODEL}")
names = json.load(open("{folder}/cpu_pipeline.json"))["runtime"]["inputs"]
outputs = model(**{{name: torch.tensor([inputs[name]]) for name in names}})
{_usage.embedding(folder, head, "outputs[0][0].numpy()")}"""
