"""Run TorchScript modules that hold operators of Intel Extension for PyTorch, fused when the session opens."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from cpu_pipeline.backends import _usage
from cpu_pipeline.backends._base import TESTED
from cpu_pipeline.backends.torchscript import MODEL, names, ready, screen
from cpu_pipeline.core import host
from cpu_pipeline.core.artifact import Card
from cpu_pipeline.core.errors import BackendMissing
from cpu_pipeline.core.text import one_line

if TYPE_CHECKING:
    from cpu_pipeline.core.model_io import Head, Session

PACKAGES = ("torch", "intel_extension_for_pytorch", "numpy")
VERSION = 1
ENVIRONMENT = "ipex"
PRECISIONS = ("float32", "bfloat16")
ARCHITECTURES = TESTED
ONLY = False
STATUS = "archived in March 2026 with known security issues; bound to torch 2.8"
FORMAT = "ipex"
PACKAGE = "intel_extension_for_pytorch"
LIBRARY = "lib/libintel-ext-pt-cpu.so"
"""Of IPEX, below its package: all that running a module takes."""
NEEDS = {"float32": host.TARGETS["avx2"], "bfloat16": host.TARGETS["avx512"]}
"""Instruction sets without which IPEX does not start, or has no bfloat16 linear layers (it stores weights plainly and
packs them for the CPU that opens them, so nothing else of the building machine is bound)."""


def load(path: Path, head: Head | None, threads: int) -> Session:
    """Open the artifact at `path` and have it fused; 0 threads leaves torch's own choice.

    IPEX fuses in the second call, when torch optimizes the graph; what it fused then serves every shape. Both calls
    happen here, so that no answer depends on how many came before it.

    Raises:
        StageFailed: the file is not a whole TorchScript archive, or not the module that the card tells of.
        BackendMissing: torch, IPEX, or an instruction set that they need, is not here.
    """
    card = Card.read(path, FORMAT)
    if lacking := host.missing(card.needs):
        raise BackendMissing(
            f"{path}: it needs {', '.join(lacking)}, which this CPU lacks; fuse it in float32, or use export.openvino"
        )
    inputs, outputs = names(path, card, head)
    screen(path / MODEL)  # before a library is loaded for its sake
    register(path)
    return ready(path, threads, inputs, outputs, head.outputs if head else outputs)


def register(path: Path) -> None:
    """Load the library that adds IPEX's operators and fusions to torch; `path` is what an error is about.

    The library alone, as programs in C++ do: importing the package brings transformers and some ten seconds with it.

    Raises:
        BackendMissing: torch or IPEX is not installed, or this CPU is older than AVX2.
    """
    if lacking := host.missing(NEEDS["float32"]):
        raise BackendMissing(f"{path}: IPEX needs {', '.join(lacking)}, which this CPU lacks; use export.openvino")
    hint = "make its environment with `cpu-pipeline env create ipex`"
    package = importlib.util.find_spec(PACKAGE)
    if package is None or not package.submodule_search_locations:
        raise BackendMissing(f"{path}: running it needs {PACKAGE}, which is not installed; {hint}")
    try:
        import torch

        torch.ops.load_library(Path(package.submodule_search_locations[0]) / LIBRARY)
    except (ImportError, OSError) as error:
        raise BackendMissing(
            f"{path}: {PACKAGE} does not fit the torch beside it: {one_line(error)}; {hint}"
        ) from error


def usage(folder: str, head: Head | None) -> str:
    """Write how to run the module with torch and IPEX."""
    names = ", ".join(head.outputs) if head is not None else "the outputs"
    return f"""
import intel_extension_for_pytorch  # adds the operators and the fusions; made for torch 2.8 alone
import torch
{_usage.inputs(folder, head)}

model = torch.jit.load("{folder}/{MODEL}", map_location="cpu")
names = [argument.name for argument in model.forward.schema.arguments[1:]]
with torch.inference_mode():
    for _ in range(3):  # the second call fuses
        outputs = model(**{{name: torch.tensor([inputs[name]]) for name in names}})  # {names}
{_usage.embedding(folder, head, "outputs[0][0].float().numpy()")}"""
