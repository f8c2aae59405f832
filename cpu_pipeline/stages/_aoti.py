"""Compile a torch program ahead of time, for one instruction set, in a place of its own, into the same bytes each time.

What Inductor generates follows the machine it runs on (vector instructions, threads, paths, compiled headers in a cache
that outlives the process): each of these is set here, so that the recipe's target and the compiler decide alone.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from cpu_pipeline.backends import hf, pt2
from cpu_pipeline.core import host
from cpu_pipeline.core.artifact import Card
from cpu_pipeline.core.errors import BackendMissing, StageFailed
from cpu_pipeline.stages import _trace

FAILURES = (*_trace.FAILURES, AssertionError, NotImplementedError)
"""What exporting and Inductor raise where a model does something that they cannot hold."""
PROBE = "#include <omp.h>\n#include <vector>\nint probe() { return std::vector<int>(omp_get_max_threads()).size(); }\n"


@dataclass(frozen=True)
class Level:
    """What Inductor and the compiler are told about a processor, and what that makes the artifact need."""

    vector: str
    """Name of Inductor's class of vector instructions."""
    flags: str
    needs: tuple[str, ...]


AVX512_FLAGS = "-mavx512f -mavx512dq -mavx512vl -mavx512bw -mfma -mf16c"
LEVELS = (
    Level("VecAVX512", AVX512_FLAGS, host.TARGETS["avx512"]),
    Level("VecAVX2", "-mavx2 -mfma -mf16c", host.TARGETS["avx2"]),
    Level("VecNEON", "", ("aarch64", "asimd")),
)
"""Best first. Instructions for tiles and dot products are left to oneDNN, which finds them when it runs: the loops that
Inductor generates have no use for them, and an artifact that does not name them runs on more processors."""
THREADS = 2
"""How many Inductor sees when it decides how deep to part a loop among them; any number can run it."""
BFLOAT16 = {"avx512_bf16": "-mavx512bf16", "bf16": "-march=armv8.2-a+bf16"}
"""Instruction set -> the compiler's flag for it, where bfloat16 has a use for it."""


def level(where: str, isa: Sequence[str], dtype: str) -> Level:
    """Choose the best level of a target's instruction sets, for what matrix products are computed in.

    Raises:
        BackendMissing: there is none, or this machine cannot run what the target can.
    """
    for found in LEVELS:
        if host.missing(found.needs, tuple(isa)):
            continue
        chosen = found
        if dtype == "bfloat16":
            if found.vector == "VecAVX2" or (found.vector == "VecNEON" and "bf16" not in isa):
                raise BackendMissing(
                    f"{where}: oneDNN computes in bfloat16 on AVX-512 or ARM's bf16, and the target has neither; "
                    "set `dtype: float32`, or another `target: {isa: ...}`"
                )
            there = [name for name in BFLOAT16 if name in isa]
            flags = " ".join([found.flags, *(BFLOAT16[name] for name in there)]).strip()
            chosen = Level(found.vector, flags, (*found.needs, *there))
        if lacking := host.missing(chosen.needs):
            raise BackendMissing(
                f"{where}: the target has {', '.join(lacking)}, which this CPU has not: what is compiled for it could "
                "not be checked here; build on a machine like the target, or set a lower `target: {isa: ...}`"
            )
        return chosen
    raise BackendMissing(
        f"{where}: Inductor compiles for AVX2, AVX-512 and ARM's NEON; the target names {', '.join(isa) or 'nothing'}"
    )


def compiler(where: str, flags: str) -> tuple[str, str]:
    """Find the C++ compiler, try it on a line of OpenMP, and return its path and its first line about itself.

    Raises:
        BackendMissing: there is none, or it does not know the instruction sets or OpenMP.
    """
    asked = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    path = shutil.which(asked)
    advice = "install g++ 11 or later (Debian, Ubuntu: apt install g++), or name another C++ compiler in CXX"
    if path is None:
        raise BackendMissing(f"{where}: compiling needs a C++ compiler, and there is no {asked} here; {advice}")
    said, problem = _probe(path, flags)
    if problem:
        raise BackendMissing(f"{where}: {asked} does not compile C++20 with OpenMP ({flags}): {problem}; {advice}")
    return path, said


@cache
def _probe(path: str, flags: str) -> tuple[str, str]:
    """Return the compiler's first line about itself, and what is wrong with it, if anything."""
    with tempfile.TemporaryDirectory(prefix="cpu-pipeline-") as folder:
        source = Path(folder, "probe.cpp")
        source.write_text(PROBE)
        command = [path, *flags.split(), "-std=c++20", "-fopenmp", "-shared", "-fPIC", "-o", folder + "/probe.so"]
        try:
            about = subprocess.run([path, "--version"], capture_output=True, text=True, check=False, timeout=60)
            tried = subprocess.run([*command, str(source)], capture_output=True, text=True, check=False, timeout=60)
        except (OSError, subprocess.TimeoutExpired) as error:
            return "", " ".join(str(error).split())[:300]
    name = (about.stdout.splitlines() or [Path(path).name])[0]
    lines = [line for line in tried.stderr.splitlines() if "error" in line] or tried.stderr.splitlines()
    return name, (lines or ["it fails"])[0].strip()[:200] if tried.returncode else ""


def export(where: str, module: Any, names: Sequence[str], example: Mapping[str, Any]) -> Any:
    """Export a module that takes int64 `names` of shape (batch, sequence), both dynamic.

    Raises:
        StageFailed: the exporter does not know how.
    """
    import torch

    dynamic = torch.export.Dim.DYNAMIC
    try:
        with torch.no_grad():
            return torch.export.export(
                module, (), kwargs=dict(example), dynamic_shapes={name: {0: dynamic, 1: dynamic} for name in names}
            )
    except FAILURES as error:
        raise StageFailed(f"{where}: torch.export does not take this model: {_line(error)}") from error


def compile(
    where: str,
    program: Any,
    out: Path,
    built: Level,
    cxx: str,
    *,
    freezing: bool,
    mixed: str = "float32",
    more: Mapping[str, Any] | None = None,
) -> str:
    """Compile an exported program into `out`/model.pt2, and return the C++ that calls its kernels.

    `mixed` is what torch's autocast computes matrix products in; `more` are further options of Inductor.

    The bytes depend on the program, the level, the compiler and torch alone: names are fixed, paths are mapped away,
    the number of threads is asked for when it runs, and sources are left out.

    Raises:
        StageFailed: Inductor or the compiler fails.
    """
    import torch

    _, given = program.example_inputs
    options = {
        "freezing": freezing,
        "compile_threads": 1,
        "max_autotune": False,
        "cpp.dynamic_threads": True,
        "cpp.march": "",
        "cpp.vec_isa_ok": True,
        # They name functions by their address, in the library.
        "size_asserts": False,
        "alignment_asserts": False,
        "aot_inductor.package": True,
        "aot_inductor.model_name_for_generated_files": "model",
        "aot_inductor.precompile_headers": False,
        "aot_inductor.enable_line_tables": False,
        "aot_inductor.enable_frame_pointer": False,
        **(more or {}),
    }
    with (
        tempfile.TemporaryDirectory(prefix="cpu-pipeline-", dir=_room()) as folder,
        _apart(Path(folder)),
        _vectors(built) as width,
        _quoted(),
        threads(THREADS),
    ):
        from torch._inductor.package import package_aoti

        options |= {"cpp.simdlen": width, "cpp.cxx": (str(_wrap(Path(folder), cxx)),)}
        try:
            with torch.no_grad(), autocast(mixed):
                files = torch._inductor.aot_compile(program.module(check_guards=False), (), given, options=options)
        except FAILURES as error:
            raise StageFailed(f"{where}: Inductor does not compile this model: {_line(error)}") from error
        (wrapper,) = (Path(file) for file in files if file.endswith(".wrapper.cpp"))
        # The loader has no use for the sources, which are full of the paths of this machine.
        package_aoti(out / pt2.MODEL, [file for file in files if ".wrapper" in file and not file.endswith(".cpp")])
        return wrapper.read_text(encoding="utf-8")


def autocast(dtype: str) -> Any:
    """Compute matrix products in `dtype`; norms, sums and softmax stay in float32. float32 changes nothing."""
    import torch

    return torch.autocast("cpu", getattr(torch, dtype), enabled=dtype != "float32")


def card(
    built: Level, model: Any, names: Sequence[str], outputs: Sequence[str], dtype: str, needs: Sequence[str] = ()
) -> Card:
    """Write down what the artifact needs and takes; its loader knows neither transformers nor the task."""
    import torch

    runtime = {
        "inputs": list(names),
        "outputs": list(outputs),
        "dtype": dtype,
        "torch": torch.__version__,
        "limits": _limits(model),
    }
    return Card(pt2.FORMAT, tuple(dict.fromkeys((*built.needs, *needs))), runtime)


def inputs(model: Any, outputs: tuple[str, ...], mixed: str = "float32") -> tuple[Any, tuple[str, ...], dict[str, Any]]:
    """Return a module that gives the named outputs alone in float32, the names it takes, and an example of them."""
    import torch

    class Mixed(torch.nn.Module):  # type: ignore[misc]  # torch is not typed here
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, **given: Any) -> Any:
            with autocast(mixed):
                return self.model(**given)

    names = hf.inputs_of(model)
    return (
        _trace.named(model if mixed == "float32" else Mixed(), names, outputs),
        names,
        _trace.example(model, names),
    )


def _limits(model: Any) -> dict[str, int]:
    """Say what the embeddings hold: ids below a limit, by input, and under `length` the longest sequence.

    The compiled loops check it too, but inside a parallel region, where an error ends the process.
    """
    places = {
        "word_embeddings": "input_ids",
        "token_type_embeddings": "token_type_ids",
        "position_embeddings": "length",
    }
    found = {}
    for name, module in model.named_modules():
        place = places.get(name.rpartition(".")[2])
        if place and hasattr(module, "num_embeddings"):
            first = 0 if place != "length" or module.padding_idx is None else module.padding_idx + 1
            found[place] = int(module.num_embeddings) - first
    return found


@contextlib.contextmanager
def _apart(folder: Path) -> Iterator[None]:
    """Keep every cache of Inductor in `folder`, not in the user's."""
    before = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder / "cache")
    try:
        yield
    finally:
        os.environ.pop("TORCHINDUCTOR_CACHE_DIR")
        if before is not None:
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = before


def _room() -> str:
    """Name a folder for temporary files whose path is one word: Inductor does not quote those in its commands."""
    folder = tempfile.gettempdir()
    return folder if shlex.quote(folder) == folder or os.name == "nt" else "/tmp"


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


@contextlib.contextmanager
def _quoted() -> Iterator[None]:
    """Let torch lie in a folder whose name has a space: Inductor puts it unquoted into a command that it splits."""
    from torch.utils import cpp_extension

    before = cpp_extension.TORCH_LIB_PATH
    cpp_extension.TORCH_LIB_PATH = shlex.quote(before)
    try:
        yield
    finally:
        cpp_extension.TORCH_LIB_PATH = before


@contextlib.contextmanager
def _vectors(built: Level) -> Iterator[int]:
    """Let Inductor see one kind of vector instructions, whatever this machine has; yield its width in bits."""
    from torch._inductor import cpu_vec_isa

    base: Any = getattr(cpu_vec_isa, built.vector)

    class Chosen(base):  # type: ignore[misc]  # torch is not typed here
        __hash__ = base.__hash__

        def __bool__(self) -> bool:
            return True

        def build_arch_flags(self) -> str:
            return built.flags

    before, chosen = cpu_vec_isa.valid_vec_isa_list, Chosen()
    cpu_vec_isa.valid_vec_isa_list = lambda: [chosen]
    try:
        yield chosen.bit_width()
    finally:
        cpu_vec_isa.valid_vec_isa_list = before


def _wrap(folder: Path, cxx: str) -> Path:
    """Write a compiler of our own: the one that was found, with paths mapped away and no executable stack.

    Inductor has no option for flags, and the assembly that it writes weights in asks for an executable stack, which
    newer C libraries refuse to load.
    """
    import torch

    places = {folder: "aoti", Path(torch.__file__).parent: "torch", Path(sys.base_prefix): "python"}
    flags = [*(f"-ffile-prefix-map={place}={name}" for place, name in places.items()), "-Wa,--noexecstack", "-w"]
    script = folder / ("clang++" if "clang" in Path(cxx).name else "g++")
    script.write_text(f'#!/bin/sh\nexec {shlex.join([cxx, *flags])} "$@"\n')
    script.chmod(0o755)
    return script


def _line(error: BaseException) -> str:
    """Make one short line of what may be pages of compiler output."""
    return " ".join(str(error).split())[:300] or type(error).__name__
