"""Properties of this machine: instruction sets, cores, memory. Read from the system, cached, never guessed."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import psutil

_AVX2 = ("sse4_2", "avx", "f16c", "fma", "avx2")
_AVX512 = (*_AVX2, "avx512f", "avx512bw", "avx512dq", "avx512vl")
_AMX = (*_AVX512, "avx512_vnni", "avx512_bf16", "amx_tile", "amx_int8", "amx_bf16")
TARGETS = {
    "avx2": ("x86_64", *_AVX2),
    "avx_vnni": ("x86_64", *_AVX2, "avx_vnni"),
    "avx512": ("x86_64", *_AVX512),
    "avx512_vnni": ("x86_64", *_AVX512, "avx512_vnni"),
    "amx": ("x86_64", *_AMX),
    "neon": ("aarch64", "asimd", "asimddp"),
}
"""A recipe's `target.isa` -> the instruction sets that may be used."""
KNOWN = (*_AMX, "avx_vnni", "avx512_fp16", "asimd", "asimddp", "i8mm", "bf16", "sve", "sve2")
"""Instruction sets that change what numeric libraries compute, spelled as Linux spells them."""

VNNI = "avx512_vnni|avx_vnni|amx_int8|asimddp"
"""The requirement of a model that was quantized for CPUs which sum int8 products without overflow: any of these."""


@cache
def isa() -> tuple[str, ...]:
    """Name this machine's architecture and those of its instruction sets that are in `KNOWN`, in a fixed order."""
    return (platform.machine().lower(), *(name for name in KNOWN if name in _flags()))


@cache
def _flags() -> frozenset[str]:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith(("flags", "Features")):
                return frozenset(line.partition(":")[2].split())
    if platform.system() == "Darwin":
        names = {"hw.optional.arm.FEAT_DotProd": "asimddp", "hw.optional.arm.FEAT_I8MM": "i8mm",
                 "hw.optional.arm.FEAT_BF16": "bf16", "hw.optional.avx2_0": "avx2"}  # fmt: skip
        output = subprocess.run(["sysctl", *names], capture_output=True, text=True, check=False).stdout
        return frozenset(flag for name, flag in names.items() if f"{name}: 1" in output)
    return frozenset()


def has_vnni(instructions: tuple[str, ...] | None = None) -> bool:
    """Say whether int8 products are summed without overflow (VNNI, AMX, or ARM's dot product)."""
    return not missing([VNNI], instructions)


def missing(needs: Iterable[str], instructions: tuple[str, ...] | None = None) -> list[str]:
    """List the required instruction sets that are missing; `a|b` is met by either.

    Args:
        needs: the required ones.
        instructions: the available ones; None for those of this machine.
    """
    available = set(isa() if instructions is None else instructions)
    return [need for need in needs if not available & set(need.split("|"))]


@cache
def cpu_model() -> str:
    """Name the processor as the system names it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = dict(
            line.split(":", 1)
            for line in cpuinfo.read_text(errors="replace").split("\n\n")[0].splitlines()
            if ":" in line
        )
        fields = {key.strip(): value.strip() for key, value in lines.items()}
        if "model name" in fields:
            return f"{fields['model name']} (family {fields.get('cpu family', '?')}, model {fields.get('model', '?')})"
    return platform.processor() or platform.machine()


@cache
def cores() -> int:
    """Count the cores that this process may use, by its affinity and the container's quota."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = Path("/sys/fs/cgroup/cpu.max")
    if quota.is_file():
        limit, _, period = quota.read_text().strip().partition(" ")
        if limit != "max":
            count = min(count, max(1, int(limit) // int(period or 100_000)))
    return max(1, count)


def memory() -> int:
    """Return the memory that this process may use, in bytes: the machine's, or the container's if that is less."""
    total = int(psutil.virtual_memory().total)
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.is_file() and (text := limit.read_text().strip()).isdigit():
        return min(total, int(text))
    return total


def machine() -> dict[str, object]:
    """Return the properties that timings depend on: part of the key of a measurement."""
    return {"isa": list(isa()), "cpu": cpu_model(), "cores": cores(), "memory_gib": round(memory() / 2**30)}


def pinned(threads: int) -> list[int]:
    """Choose the cores that a timed process is pinned to; empty where the system can't pin."""
    if not hasattr(os, "sched_getaffinity"):
        return []
    return sorted(os.sched_getaffinity(0))[:threads]
