"""Bounds of memory and processor time, in processes of their own."""

from __future__ import annotations

import subprocess
import sys

import pytest

from cpu_pipeline.core.limits import OVERTIME

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such limits")
MEMORY = """
from cpu_pipeline.core.errors import StageFailed
from cpu_pipeline.core.limits import capped
try:
    with capped("the tokenizer", most=64 << 20):
        print("small", len(bytearray(8 << 20)))
        bytearray(256 << 20)
except StageFailed as error:
    print(error)
print("after", len(bytearray(256 << 20)))
"""
TIME = """
from cpu_pipeline.core.limits import capped
with capped("the tokenizer", seconds=0.05):
    pass
print(sum(range(10**7)), flush=True)
with capped("the tokenizer", seconds=0.05):
    while True:
        pass
"""


def run(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)


def test_memory_beyond_the_cap_is_an_error_and_the_cap_ends_with_the_work() -> None:
    done = run(MEMORY)
    assert done.returncode == 0, done.stderr
    small, error, after = done.stdout.splitlines()
    assert small == f"small {8 << 20}" and after == f"after {256 << 20}"
    assert error == "the tokenizer takes more than 64 MiB of memory: it is damaged, or made to do so"


def test_time_beyond_the_cap_ends_the_process_and_the_cap_ends_with_the_work() -> None:
    done = run(TIME)
    assert done.stdout == f"{sum(range(10**7))}\n"
    assert OVERTIME is not None and done.returncode == -OVERTIME
