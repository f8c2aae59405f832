"""Which instruction sets a compiled model may use, and the C++ compiler that builds it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from cpu_pipeline.core import host
from cpu_pipeline.core.errors import BackendMissing
from cpu_pipeline.core.text import one_line

PROBE = "#include <omp.h>\n#include <vector>\nint probe() { return std::vector<int>(omp_get_max_threads()).size(); }\n"
ADVICE = "install g++ 11 or later (Debian, Ubuntu: apt install g++), or name another C++ compiler in CXX"


@dataclass(frozen=True)
class Level:
    """A processor as Inductor and the compiler know it, and what an artifact for it needs."""

    vector: str
    """Name of Inductor's class of vector instructions."""
    flags: str
    """Flags of the compiler."""
    needs: tuple[str, ...]
    """Instruction sets, as `host.isa` spells them."""


@dataclass(frozen=True)
class Toolchain:
    """What a program is compiled for, and with what."""

    level: Level
    cxx: str
    """Path of the C++ compiler."""
    about: str
    """First line of what the compiler prints about itself."""


AVX512_FLAGS = "-mavx512f -mavx512dq -mavx512vl -mavx512bw -mfma -mf16c"
LEVELS = (
    Level("VecAVX512", AVX512_FLAGS, host.TARGETS["avx512"]),
    Level("VecAVX2", "-mavx2 -mfma -mf16c", host.TARGETS["avx2"]),
    Level("VecNEON", "", ("aarch64", "asimd")),
)
"""Best first. Instructions for tiles and dot products are left to oneDNN, which finds them when it runs: the loops that
Inductor generates have no use for them, and an artifact that does not name them runs on more processors."""
BFLOAT16 = {"avx512_bf16": "-mavx512bf16", "bf16": "-march=armv8.2-a+bf16"}
"""Instruction set -> the compiler's flag for it, where bfloat16 has a use for it."""


def toolchain(where: str, isa: Sequence[str], dtype: str) -> Toolchain:
    """Choose the level for a target's instruction sets, and find a compiler that knows it.

    Args:
        where: name of the stage, for messages.
        isa: instruction sets of the target.
        dtype: what matrix products are computed in, `float32` or `bfloat16`.

    Raises:
        BackendMissing: there is no such level or compiler, or this machine cannot run what the target can.
    """
    chosen = level(where, isa, dtype)
    return Toolchain(chosen, *compiler(where, chosen.flags))


def level(where: str, isa: Sequence[str], dtype: str) -> Level:
    """Choose the best level of a target's instruction sets.

    Args:
        where: name of the stage, for messages.
        isa: instruction sets of the target.
        dtype: what matrix products are computed in, `float32` or `bfloat16`.

    Raises:
        BackendMissing: there is none, or this machine cannot run what the target can.
    """
    best = next((found for found in LEVELS if not host.missing(found.needs, tuple(isa))), None)
    if best is None:
        names = ", ".join(isa) or "nothing"
        raise BackendMissing(f"{where}: Inductor compiles for AVX2, AVX-512 and ARM's NEON; the target names {names}")
    chosen = _with_bfloat16(where, best, isa) if dtype == "bfloat16" else best
    if lacking := host.missing(chosen.needs):
        raise BackendMissing(
            f"{where}: the target has {', '.join(lacking)}, which this CPU lacks: the compiled model could not be "
            "checked here; build on a machine like the target, or set a lower `target: {isa: ...}`"
        )
    return chosen


def _with_bfloat16(where: str, found: Level, isa: Sequence[str]) -> Level:
    """Add the target's instruction sets for bfloat16 to a level."""
    if found.vector == "VecAVX2" or (found.vector == "VecNEON" and "bf16" not in isa):
        raise BackendMissing(
            f"{where}: oneDNN computes in bfloat16 on AVX-512 or ARM's bf16, and the target has neither; "
            "set `dtype: float32`, or another `target: {isa: ...}`"
        )
    available = [name for name in BFLOAT16 if name in isa]
    flags = " ".join([found.flags, *(BFLOAT16[name] for name in available)]).strip()
    return Level(found.vector, flags, (*found.needs, *available))


def compiler(where: str, flags: str) -> tuple[str, str]:
    """Find the C++ compiler, try it on a line of OpenMP, and return its path and its first line about itself.

    Raises:
        BackendMissing: there is none, or it does not know the instruction sets or OpenMP.
    """
    wanted = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    path = shutil.which(wanted)
    if path is None:
        raise BackendMissing(f"{where}: compiling needs a C++ compiler, and there is no {wanted} here; {ADVICE}")
    about, problem = _probe(path, flags)
    if problem:
        raise BackendMissing(f"{where}: {wanted} does not compile C++20 with OpenMP ({flags}): {problem}; {ADVICE}")
    return path, about


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
            return "", one_line(error)
    name = (about.stdout.splitlines() or [Path(path).name])[0]
    lines = [line for line in tried.stderr.splitlines() if "error" in line] or tried.stderr.splitlines()
    return name, (lines or ["it fails"])[0].strip()[:200] if tried.returncode else ""
