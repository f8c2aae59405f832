"""Compile a torch program ahead of time with AOTInductor, for one instruction set, into the same bytes each time.

What Inductor generates follows the machine it runs on (vector instructions, threads, paths, compiled headers in a cache
that outlives the process): `reproducible_inductor` sets each of these, so that the recipe's target and the compiler
decide alone. Inductor has no public options for all of that: private attributes of torch are replaced, see `PRIVATE`.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cpu_pipeline.backends import hf, pt2
from cpu_pipeline.core.artifact import Card
from cpu_pipeline.core.errors import StageFailed
from cpu_pipeline.core.model_io import TOKENS
from cpu_pipeline.core.text import one_line
from cpu_pipeline.stages import _module
from cpu_pipeline.stages.compile._toolchain import Level, Toolchain

CHECKED_TORCH = "2.13.0"
"""Version of torch whose private attributes, options and generated code were read for what stands here."""
PRIVATE = (
    ("torch._inductor.cpu_vec_isa", "valid_vec_isa_list"),
    ("torch._inductor.cpu_vec_isa", "VecAVX512"),
    ("torch._inductor.cpu_vec_isa", "VecAVX2"),
    ("torch._inductor.cpu_vec_isa", "VecNEON"),
    ("torch.utils.cpp_extension", "TORCH_LIB_PATH"),
    ("torch._inductor", "aot_compile"),
    ("torch._inductor.package", "package_aoti"),
    ("torch._inductor.config", "pre_grad_custom_pass"),
)
"""(module, attribute) of torch that is replaced or called here and in `quantize.pt2e`, and that torch may move."""
FAILURES = (*_module.FAILURES, AssertionError, NotImplementedError)
"""What exporting and Inductor raise where a model does something that they cannot hold."""
THREADS = 2
"""How many Inductor sees when it decides how deep to part a loop among them; any number can run it."""
OPTIONS: Mapping[str, object] = {
    "compile_threads": 1,  # a pool of processes would outlive the step
    "max_autotune": False,  # it chooses by timing, and no two timings are alike
    "cpp.dynamic_threads": True,  # the number of threads is read when the model runs, not built in
    "cpp.march": "",  # the level's flags alone, never this machine's `native`
    "cpp.vec_isa_ok": True,  # no test program is compiled and run: the target may have what this machine lacks
    "size_asserts": False,  # they name functions by their address, in the library
    "alignment_asserts": False,  # the same
    "aot_inductor.package": True,  # a file that any process can load
    "aot_inductor.model_name_for_generated_files": "model",  # else a digest of paths
    "aot_inductor.precompile_headers": False,  # they hold this machine's paths, and outlive the process
    "aot_inductor.enable_line_tables": False,  # they hold paths
    "aot_inductor.enable_frame_pointer": False,  # for profilers: slower, and another library
}
"""Inductor's options (torch/_inductor/config.py), each with why it is not left as it is."""


def export_program(where: str, module: Any, names: Sequence[str], example: Mapping[str, Any]) -> Any:
    """Export a module as a torch.export.ExportedProgram.

    Args:
        where: name of the stage, for messages.
        module: takes int64 `names` of shape (batch, sequence), both dynamic.
        names: its inputs.
        example: name -> an int64 tensor of that shape.

    Raises:
        StageFailed: the exporter does not know how.
    """
    import torch

    dynamic = torch.export.Dim.DYNAMIC
    shapes = {name: {0: dynamic, 1: dynamic} for name in names}
    try:
        with torch.no_grad():
            return torch.export.export(module, (), kwargs=dict(example), dynamic_shapes=shapes)
    except FAILURES as error:
        raise StageFailed(f"{where}: torch.export does not take this model: {one_line(error)}") from error


def compile_program(
    where: str,
    program: Any,
    out: Path,
    tools: Toolchain,
    *,
    mixed: str = "float32",
    options: Mapping[str, Any],
) -> str:
    """Compile an exported program into `out`/model.pt2.

    The bytes depend on the program, the options, the tools and torch alone: names are fixed, paths are mapped away, and
    sources are left out.

    Args:
        where: name of the stage, for messages.
        program: what `export_program` returned.
        out: directory to write into.
        tools: what to compile for, and with what.
        mixed: what torch's autocast computes matrix products in.
        options: options of Inductor besides `OPTIONS`.

    Returns:
        The C++ code that calls the program's kernels.

    Raises:
        StageFailed: Inductor or the compiler fails.
    """
    import torch

    _, example = program.example_inputs
    with reproducible_inductor(tools) as fixed:
        from torch._inductor.package import package_aoti

        every = {**fixed, **options}
        try:
            with torch.no_grad(), autocast(mixed):
                files = torch._inductor.aot_compile(program.module(check_guards=False), (), example, options=every)
        except FAILURES as error:
            raise StageFailed(f"{where}: Inductor does not compile this model: {one_line(error)}") from error
        (wrapper,) = (Path(file) for file in files if file.endswith(".wrapper.cpp"))
        # The loader has no use for the sources, which are full of the paths of this machine.
        package_aoti(out / pt2.MODEL, [file for file in files if ".wrapper" in file and not file.endswith(".cpp")])
        return wrapper.read_text(encoding="utf-8")


@contextlib.contextmanager
def reproducible_inductor(tools: Toolchain) -> Iterator[dict[str, object]]:
    """Let Inductor see the target and the compiler, and nothing else of this machine; yield its options.

    What it writes lies in a temporary directory and is gone afterwards; everything that is replaced is put back.
    """
    with (
        tempfile.TemporaryDirectory(prefix="cpu-pipeline-", dir=_temporary()) as folder,
        _own_cache(Path(folder)),
        _vectors(tools.level) as width,
        _quoted_library_path(),
        threads(THREADS),
    ):
        yield {**OPTIONS, "cpp.simdlen": width, "cpp.cxx": (str(_wrap_compiler(Path(folder), tools.cxx)),)}


def autocast(dtype: str) -> Any:
    """Compute matrix products in `dtype`; norms, sums and softmax stay in float32. float32 changes nothing."""
    import torch

    return torch.autocast("cpu", getattr(torch, dtype), enabled=dtype != "float32")


def card(
    level: Level, model: Any, names: Sequence[str], outputs: Sequence[str], dtype: str, needs: Sequence[str] = ()
) -> Card:
    """Write down what the artifact needs and takes; its loader knows neither transformers nor the task.

    Args:
        level: what it was compiled for.
        model: the transformers model, whose embeddings limit the ids and the length of a sequence.
        names: inputs, in order.
        outputs: outputs, in order.
        dtype: what it computes in, for people.
        needs: instruction sets besides those of the level.
    """
    import torch

    runtime = {
        "inputs": list(names),
        "outputs": list(outputs),
        "dtype": dtype,
        "torch": torch.__version__,
        "limits": _limits(model),
    }
    return Card(pt2.FORMAT, tuple(dict.fromkeys((*level.needs, *needs))), runtime)


def prepare(
    model: Any, outputs: tuple[str, ...], mixed: str = "float32", given: Iterable[str] = TOKENS
) -> tuple[Any, tuple[str, ...], dict[str, Any]]:
    """Return what is exported of a transformers model.

    Args:
        model: what `hf.checkpoint` returned.
        outputs: what the task reads.
        mixed: what torch's autocast computes matrix products in.
        given: what the task can feed to it, as `hf.inputs_of` has it.

    Returns:
        A module that gives the named outputs alone in float32, the names of its inputs, and an example of them.
    """
    import torch

    class Mixed(torch.nn.Module):  # type: ignore[misc]  # torch is not typed here
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, **arrays: Any) -> Any:
            with autocast(mixed):
                return self.model(**arrays)

    names = hf.inputs_of(model, given)
    wrapped = _module.with_names(model if mixed == "float32" else Mixed(), names, outputs)
    return wrapped, names, _module.example(model, names)


def _limits(model: Any) -> dict[str, int]:
    """Count what the embeddings hold: ids below a limit, by input, and under `length` the longest sequence.

    The compiled loops check it too, but inside a parallel region, where an error ends the process.
    """
    embeddings = {
        "word_embeddings": "input_ids",
        "token_type_embeddings": "token_type_ids",
        "position_embeddings": "length",
    }
    limits = {}
    for name, module in model.named_modules():
        key = embeddings.get(name.rpartition(".")[2])
        if key and hasattr(module, "num_embeddings"):
            first = 0 if key != "length" or module.padding_idx is None else module.padding_idx + 1
            limits[key] = int(module.num_embeddings) - first
    return limits


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch use `count` threads, and afterwards what it used before."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _temporary() -> str:
    """Name a directory for temporary files whose path is one word: Inductor does not quote those in its commands."""
    folder = tempfile.gettempdir()
    return folder if shlex.quote(folder) == folder or os.name == "nt" else "/tmp"


@contextlib.contextmanager
def _own_cache(folder: Path) -> Iterator[None]:
    """Keep every cache of Inductor in `folder`, not in the user's."""
    before = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder / "cache")
    try:
        yield
    finally:
        os.environ.pop("TORCHINDUCTOR_CACHE_DIR")
        if before is not None:
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = before


@contextlib.contextmanager
def _quoted_library_path() -> Iterator[None]:
    """Let torch lie in a folder whose name has a space: Inductor puts it unquoted into a command that it splits."""
    from torch.utils import cpp_extension

    before = cpp_extension.TORCH_LIB_PATH
    cpp_extension.TORCH_LIB_PATH = shlex.quote(before)
    try:
        yield
    finally:
        cpp_extension.TORCH_LIB_PATH = before


@contextlib.contextmanager
def _vectors(level: Level) -> Iterator[int]:
    """Let Inductor see one kind of vector instructions, whatever this machine has; yield its width in bits."""
    from torch._inductor import cpu_vec_isa

    base: Any = getattr(cpu_vec_isa, level.vector)

    class Chosen(base):  # type: ignore[misc]  # torch is not typed here
        __hash__ = base.__hash__

        def __bool__(self) -> bool:
            return True

        def build_arch_flags(self) -> str:
            return level.flags

    before, chosen = cpu_vec_isa.valid_vec_isa_list, Chosen()
    cpu_vec_isa.valid_vec_isa_list = lambda: [chosen]
    try:
        yield chosen.bit_width()
    finally:
        cpu_vec_isa.valid_vec_isa_list = before


def _wrap_compiler(folder: Path, cxx: str) -> Path:
    """Write a compiler of our own: the one that was found, with paths mapped away and no executable stack.

    Inductor has no option for flags, and the assembly that it writes weights in asks for an executable stack, which
    newer C libraries refuse to load.
    """
    import torch

    mapped = {folder: "aoti", Path(torch.__file__).parent: "torch", Path(sys.base_prefix): "python"}
    flags = [*(f"-ffile-prefix-map={path}={name}" for path, name in mapped.items()), "-Wa,--noexecstack", "-w"]
    script = folder / ("clang++" if "clang" in Path(cxx).name else "g++")
    script.write_text(f'#!/bin/sh\nexec {shlex.join([cxx, *flags])} "$@"\n')
    script.chmod(0o755)
    return script
