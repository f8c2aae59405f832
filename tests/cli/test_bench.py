"""`bench padding` measures every way on the same tokens, and draws the same lengths every time."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest
import torch
from conftest import Cli

from cpu_pipeline.bench import padding
from cpu_pipeline.bench.padding import draw_lengths
from cpu_pipeline.core.errors import RecipeError

SMALL = ("--layers", 1, "--hidden", 32, "--heads", 2, "--batch", 4, "--length", 24, "--rounds", 2, "--threads", 1)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The PyTorch API of nested tensors")
        yield


@pytest.mark.parametrize("share", [100, 70, 50, 40, 30, 15])
def test_lengths_add_up_vary_and_stay(share: int) -> None:
    lengths = draw_lengths(8, 256, share)
    assert len(lengths) == 8 and max(lengths) == 256 and min(lengths) >= 3
    assert sum(lengths) == round(8 * 256 * share / 100)
    assert lengths == draw_lengths(8, 256, share)
    if share < 100:
        assert len(set(lengths)) > 3, "real batches vary"
        assert lengths != draw_lengths(8, 256, share, seed=1)


def test_shares_that_can_not_be_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"a share of 10 %: 8 sequences, one of 256 tokens, have 14 to 100 %"):
        draw_lengths(8, 256, 10)
    assert draw_lengths(1, 16, 100) == [16]
    with pytest.raises(RecipeError, match="100 to 100 %"):
        draw_lengths(1, 16, 50)


def test_measures_every_way_on_the_same_tokens(cli: Cli) -> None:
    before = torch.get_num_threads()
    found = cli("bench", "padding", *SMALL, "--shares", "100,50", "--bf16", "--json").json
    assert torch.get_num_threads() == before
    assert found["threads"] == 1 and found["machine"]["cpu"] and len(found["load"]) == 2
    assert found["model"] == {"layers": 1, "hidden": 32, "heads": 2}
    assert [entry["share"] for entry in found["shares"]] == [100, 50]
    for entry in found["shares"]:
        assert sum(entry["lengths"]) == round(4 * 24 * entry["share"] / 100) == round(entry["real"] * 96)
        ways = entry["ways"]
        assert list(ways) == ["sdpa", "nested", "packed", "packed bf16"]
        assert all(len(way["seconds"]) == 2 and min(way["seconds"]) > 0 for way in ways.values())
        assert ways["sdpa"]["max_abs"] == 0 and ways["sdpa"]["times_faster"] == 1
        assert 0 <= ways["packed"]["max_abs"] < 1e-5 and 0 <= ways["nested"]["max_abs"] < 1e-5
        assert 1e-5 < ways["packed bf16"]["max_abs"] < 0.1
        assert ways["packed"]["times_faster"] == pytest.approx(ways["sdpa"]["median"] / ways["packed"]["median"])


def test_prints_a_table_with_the_machine(cli: Cli) -> None:
    said = cli("bench", "padding", *SMALL, "--shares", "50")
    assert said.code == 0 and "round 2 of 2" in said.err
    lines = said.out.splitlines()
    assert lines[0].startswith("cpu ") and any(line.startswith("load ") for line in lines)
    assert lines[-2].split()[:4] == ["real", "tokens", "sdpa", "nested"] and lines[-1].startswith("50 % ")
    assert "bf16" not in said.out.splitlines()[-2]


def test_ways_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []
    bench = padding.PaddingBenchmark(
        layers=1, hidden=32, heads=2, batch=2, length=8, rounds=3, shares=(100,), threads=1
    )
    sessions = {name: lambda arrays, name=name: called.append(name) for name in "abc"}
    bench._time(sessions, {100: {}}, lambda _: None)
    assert "".join(called) == "abcbcacab", "each goes first as often as the others"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--shares", "0"), "whole percents"),
        (("--shares", "a"), "whole percents"),
        (("--shares", ""), "whole percents"),
        (("--shares", "10"), "have 35 to 100 %"),
        (("--heads", 3), "an even number"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(cli: Cli, options: tuple[object, ...], says: str) -> None:
    said = cli("bench", "padding", *SMALL, *options)
    assert said.code == 2 and says in said.err
