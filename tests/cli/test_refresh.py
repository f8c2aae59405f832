"""`refresh`: what it ends with, prints and writes when recipes come to different things; none is built here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import Cli

from cpu_pipeline.core.errors import Interrupted, StageFailed, TryAgain
from cpu_pipeline.refresh import reconcile
from cpu_pipeline.refresh.outcome import Refreshed


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Let recipes come to what they are called; note which were asked for."""
    asked: list[str] = []

    def pretend(path: Path, *_: Any, **__: Any) -> Refreshed:
        asked.append(path.stem)
        if path.stem == "failed":
            raise StageFailed("no")
        if path.stem == "offline":
            raise TryAgain("later")
        if path.stem == "stopped":
            raise Interrupted("interrupted")
        return Refreshed(path.stem, path.stem, 3 if path.stem == "refused" else 0, says="said")

    monkeypatch.setattr(reconcile, "refresh", pretend)
    monkeypatch.setenv("CPU_PIPELINE_STORE", str(tmp_path / "store"))
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    return asked


@pytest.mark.parametrize(
    ("recipes", "going_on", "code", "count"),
    [
        (["fresh", "promoted"], False, 0, 2),
        (["fresh", "promoted"], True, 0, 2),
        (["fresh", "refused", "promoted"], False, 3, 2),
        (["fresh", "refused", "promoted"], True, 6, 3),
        (["refused", "offline"], False, 3, 1),
        (["refused", "offline"], True, 3, 2),
        (["offline", "failed"], True, 75, 2),
        (["failed"], True, 1, 1),
    ],
)
def test_it_ends_as_the_recipes_do(
    cli: Cli, asked: list[str], recipes: list[str], going_on: bool, code: int, count: int
) -> None:
    """Partly done (6) says that something was done; the first failure's own code, that nothing was."""
    said = cli("refresh", *recipes, *(["--keep-going"] if going_on else []))
    assert (said.code, asked) == (code, recipes[:count])
    assert [json.loads(line)["recipe"] for line in said.out.splitlines()] == asked


def test_nothing_goes_on_after_ctrl_c(cli: Cli, asked: list[str]) -> None:
    assert cli("refresh", "fresh", "stopped", "promoted", "--keep-going").code == 130
    assert asked == ["fresh", "stopped"]


def test_the_summary_comes_after_what_other_steps_wrote(
    cli: Cli, asked: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "summary.md"
    place.write_text("# Another step\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(place))
    assert cli("refresh", "fresh", "refused", "promoted").code == 3
    lines = place.read_text().splitlines()
    assert lines[0] == "# Another step"
    assert [line.split(" | ")[0] for line in lines if line.startswith("| ")] == ["| recipe", "| fresh", "| refused"]
