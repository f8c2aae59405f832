"""What this machine is, read from files that the system writes, and what an artifact may ask of it."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from cpu_pipeline.core import host

XEON = """\
processor\t: 0
model name\t: Intel(R) Xeon(R) Platinum 8358
cpu family\t: 6
model\t\t: 106
flags\t\t: fpu sse4_2 avx f16c fma avx2 avx512f avx512bw avx512dq avx512vl avx512_vnni

processor\t: 1
model name\t: something else
"""
OLD = "processor\t: 0\nmodel name\t: Old\nflags\t\t: sse4_2 avx avx2 fma f16c\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd asimddp i8mm bf16 sve\n"
System = Callable[[dict[str, str]], None]


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[System]:
    """Give the module other system files to read."""
    cached = (host.isa, host._flags, host.cpu_model, host.cores)

    def pretend(files: dict[str, str]) -> None:
        for name, text in files.items():
            (tmp_path / name.replace("/", "_")).write_text(text)
        monkeypatch.setattr(host, "Path", lambda name: tmp_path / str(name).replace("/", "_"))
        for function in cached:
            function.cache_clear()

    yield pretend
    for function in cached:
        function.cache_clear()


def test_names_architecture_and_instruction_sets_in_a_fixed_order(system: System, monkeypatch: Any) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    system({"/proc/cpuinfo": XEON})
    assert host.isa() == (
        "x86_64", "sse4_2", "avx", "f16c", "fma", "avx2", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni"
    )  # fmt: skip
    assert host.has_vnni()
    assert host.cpu_model() == "Intel(R) Xeon(R) Platinum 8358 (family 6, model 106)"


def test_knows_what_lacks_vnni(system: System, monkeypatch: Any) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    system({"/proc/cpuinfo": OLD})
    assert not host.has_vnni()
    assert host.missing(["avx2", host.VNNI, "avx512f"]) == [host.VNNI, "avx512f"]


def test_knows_arm(system: System, monkeypatch: Any) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "AARCH64")
    system({"/proc/cpuinfo": ARM})
    assert host.isa() == ("aarch64", "asimd", "asimddp", "i8mm", "bf16", "sve")
    assert host.has_vnni()


def test_a_need_is_met_by_any_of_its_sets() -> None:
    assert host.missing(["a|b", "c"], ("b",)) == ["c"]
    assert host.missing([], ()) == []
    assert host.has_vnni(("x86_64", "avx_vnni")) and not host.has_vnni(("x86_64", "avx512f"))


@pytest.mark.parametrize("name", host.TARGETS)
def test_targets_say_whether_int8_overflows(name: str) -> None:
    assert host.has_vnni(host.TARGETS[name]) == (name not in ("avx2", "avx512"))


@pytest.mark.parametrize(
    ("quota", "count"),
    [("max 100000", 8), ("150000 100000", 1), ("200000 100000", 2), ("50000 100000", 1), ("9900000 100000", 8)],
)
def test_counts_the_cores_that_affinity_and_quota_leave(
    system: System, monkeypatch: pytest.MonkeyPatch, quota: str, count: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    system({"/sys/fs/cgroup/cpu.max": quota + "\n"})
    assert host.cores() == count


def test_memory_is_the_machines_or_the_containers(system: System) -> None:
    whole = psutil.virtual_memory().total
    system({"/sys/fs/cgroup/memory.max": "max\n"})
    assert host.memory() == whole
    system({"/sys/fs/cgroup/memory.max": f"{1 << 30}\n"})
    assert host.memory() == 1 << 30


def test_pins_to_cores_that_it_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {5, 3, 7}, raising=False)
    assert host.pinned(2) == [3, 5]
    assert host.pinned(9) == [3, 5, 7]


def test_this_machine_is_json() -> None:
    import json

    said = host.machine()
    assert json.loads(json.dumps(said)) == said
    assert said["isa"] == list(host.isa()) and said["cores"] >= 1  # type: ignore[operator]  # a number
