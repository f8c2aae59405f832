"""F1: SIGKILL before every single write of a refresh; tests/faults has a few of them in the quick suite."""

from __future__ import annotations

from pathlib import Path

from faults.bench import Bench
from faults.forks import Forks
from faults.refreshing import killing


def test_a_refresh_killed_at_every_write(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "project")
    forks = Forks(bench.environment(), bench.home)
    try:
        kill, at = killing(bench, forks), 1
        while kill(at):
            at += 1
    finally:
        forks.close()
    assert at > 200, "the sweep has lost its grip on the writes"
