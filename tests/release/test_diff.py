"""Two versions are compared by their manifests: everything that changed is told, and nothing else."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from project import ProjectFixture

from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.release.diff import Change, diff

STEPS = ({"id": "one"}, {"id": "two", "text": "two"}, {"id": "gate", "use": "faulty.gate"})
COUNTS = {"missing": 0, "unknown": 0, "nan": 0}
METRIC = {"candidate": 0.5, "reference": 0.6, "difference": -0.1, "low": -0.2, "high": 0.0}
SIDE = {"median": 0.01, "p90": 0.02, "p99": 0.03, "throughput": 100.0, "load": 1.0, "peak_memory": 1 << 20}


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> tuple[ProjectFixture, Path, Path]:
    """Give two versions of one recipe: an option, a bound and a step differ."""
    bench = ProjectFixture(tmp_path_factory.mktemp("diff") / "project")
    latest = bench.out / "small" / "latest"
    bench.built(bench.recipe(*STEPS))
    old = latest.resolve()
    bench.built(bench.recipe(STEPS[0], {"id": "two", "text": "other"}, {**STEPS[2], "at_least": 0.6}, {"id": "three"}))
    return bench, old, latest


def test_tells_what_changed(versions: tuple[ProjectFixture, Path, Path]) -> None:
    bench, old, new = versions
    out = bench.call("diff", old, new).expect(0).out
    assert "options.text" not in out and "step     two    text: two → other" in out
    assert "came out different: " in out and "step     three  new (faulty.copy)" in out
    assert "verdict  gate   bound of score: 0.5 → 0.6" in out
    assert "step     one" not in out and "package" not in out
    said = json.loads(bench.call("diff", old, new, "--json").expect(0).out)
    assert {"kind": "step", "of": "two", "says": "text: two → other"} in said


def test_a_version_is_no_different_from_itself(versions: tuple[ProjectFixture, Path, Path]) -> None:
    bench, old, _ = versions
    assert bench.call("diff", old, old).expect(0).out == "nothing changed\n"


def test_runs_are_compared_by_their_ids_or_folders(versions: tuple[ProjectFixture, Path, Path]) -> None:
    """What a run came to is told even where a gate refused it, and nothing came out."""
    bench, old, new = versions
    failed = bench.recipe(STEPS[0], {"id": "two", "text": "bad"}, {**STEPS[2], "at_least": 2.0})
    bench.run(failed).expect(3)
    runs = json.loads(bench.call("history", "--json", "--store", bench.store).expect(0).out)["runs"]
    last, second, first = (run["id"] for run in runs)
    store = ("--store", bench.store)
    wanted = bench.call("diff", old, new).expect(0).out
    assert bench.call("diff", first, second, *store).expect(0).out == wanted
    assert bench.call("diff", bench.store / "runs" / first, new).expect(0).out == wanted
    out = bench.call("diff", new, last[:-3], *store).expect(0).out
    assert "step     two    text: other → bad" in out and "bound of score: 0.6 → 2.0" in out
    bench.call("diff", first[:9], second, *store).expect(2, "3 runs begin so: ", "`cpu-pipeline history` lists them")
    bench.call("diff", "19700101T", second, *store).expect(2, "no run begins so")
    bench.run(bench.recipe(STEPS[0], {"id": "two", "text": "never", "act": "raise"})).expect(1)
    runs = json.loads(bench.call("history", "--json", *store).out)["runs"]
    bench.call("diff", runs[0]["id"], second, *store).expect(2, "this run (run) built not everything")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not a whole record of a run"),
        ('{"run": 9}', "written by a newer cpu-pipeline"),
        ('{"run": 1, "manifest": {"recipe": {}}}', "written by another version"),
        ('{"run": 1, "manifest": []}', "built not everything"),
    ],
)
def test_a_run_that_cannot_be_read_is_told(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(RecipeError, match=re.escape(says)):
        diff(tmp_path, tmp_path)


def test_what_is_no_version_is_told(versions: tuple[ProjectFixture, Path, Path], tmp_path: Path) -> None:
    bench, old, _ = versions
    bench.call("diff", old, bench.home).expect(2, "no version of an artifact")
    shutil.copytree(old, tmp_path / "older")
    (tmp_path / "older" / "manifest.json").write_text("{}")
    with pytest.raises(RecipeError, match="written by another version"):
        diff(old, tmp_path / "older")


@pytest.fixture
def pair(tmp_path: Path) -> Callable[..., list[Change]]:
    """Write two manifests by hand, the second changed, and compare them."""

    def compare(change: Callable[[dict[str, Any]], None]) -> list[Change]:
        step = {"digest": "a" * 64, "options": {}}
        latency = {
            "candidate": SIDE, "reference": SIDE, "speedup": {"value": 2.0, "low": 1.5, "high": 2.5}, "batch": 1,
            "throughput_batch": 1, "confidence": 0.95, "tokens": 9.0, "calls": 16, "threads": 1, "load_average": 0.5,
        }  # fmt: skip
        said: dict[str, Any] = {
            "recipe": {}, "packages": {"onnx": "1.0"}, "environments": {}, "host": {"cpu": "one"}, "checks": {},
            "steps": {
                "int8": {**step, "use": "quantize.onnx", "facts": {"bytes": 2048, "operators": {"MatMul": 2}}},
                "accuracy": {**step, "use": "validate.accuracy", "options": {"metric": "f1", "max_drop": 0.1},
                             "facts": {"metric": "f1", "metrics": {"f1": METRIC}, "rows": 200, "confidence": 0.95,
                                       "counts": {"candidate": COUNTS, "reference": COUNTS}}},
                "speed": {**step, "use": "validate.latency", "facts": latency},
                "left": {**step, "use": "not.here", "facts": {}},
            },
        }  # fmt: skip
        places = []
        for name in ("old", "new"):
            if name == "new":
                said = json.loads(json.dumps(said))
                change(said)
            (tmp_path / name).mkdir()
            (tmp_path / name / "manifest.json").write_text(json.dumps(said))
            places.append(tmp_path / name)
        return diff(*places)

    return compare


def test_tells_packages_machine_sizes_and_operators(pair: Callable[..., list[Change]]) -> None:
    def change(said: dict[str, Any]) -> None:
        said["packages"]["onnx"] = "2.0"
        said["host"]["cpu"] = "two"
        said["environments"]["ipex"] = {"pins": "b" * 64}
        said["steps"]["int8"] |= {
            "digest": "c" * 64,
            "facts": {"bytes": {"a": 1024, "b": 3072}, "operators": {"MatMul": 1, "MatMulInteger": 1}},
        }  # fmt: skip

    assert pair(change) == [
        Change("package", "", "onnx 1.0 → 2.0"),
        Change("environment", "", "ipex: none → bbbbbbbbbbbb…"),
        Change("machine", "", "cpu: one → two"),
        Change("step", "int8", "came out different: aaaaaaaaaaaa → cccccccccccc"),
        Change("size", "int8", "2.0 KiB → 4.0 KiB"),
        Change("operator", "int8", "MatMul: 2 → 1"),
        Change("operator", "int8", "MatMulInteger: none → 1"),
    ]


def test_tells_metrics_with_their_interval_and_latency(pair: Callable[..., list[Change]]) -> None:
    def change(said: dict[str, Any]) -> None:
        said["steps"]["accuracy"]["digest"] = said["steps"]["speed"]["digest"] = said["steps"]["left"]["digest"] = (
            "d" * 64
        )
        said["steps"]["accuracy"]["facts"]["metrics"]["f1"]["candidate"] = 0.4
        said["steps"]["speed"]["facts"]["candidate"]["median"] = 0.02

    figures = [change for change in pair(change) if change.kind == "figure"]
    assert figures == [
        Change(
            "figure", "accuracy",
            "f1 (interval of its difference): 0.5000 (-0.2000 to 0.0000) → 0.4000 (-0.2000 to 0.0000)",
        ),
        Change("figure", "speed", "median ms, batch 1: 10.00 → 20.00"),
    ]  # fmt: skip
