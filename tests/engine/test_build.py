"""What the engine builds again, what it keeps, what it says about it, and what a failure leaves behind.

Only the light nodes run here (fetching, screening a checkpoint, reading rows, proving roles apart); faults of every
other kind are injected into the real command under tests/suites/faults.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import models
import pytest
from filelock import Timeout
from project import write_model

from cpu_pipeline import api
from cpu_pipeline.core.errors import Interrupted, PipelineError, RecipeError, StageFailed, TryAgain
from cpu_pipeline.core.events import Event
from cpu_pipeline.engine import build as engine
from cpu_pipeline.engine import preview
from cpu_pipeline.engine.executors._base import Handle, StepOutcome, StepRequest
from cpu_pipeline.engine.result import BuildResult
from cpu_pipeline.engine.worker.protocol import Ran
from cpu_pipeline.graph.plan import Plan
from cpu_pipeline.store.local import Store

TASK = "text-classification"
RECIPE = """\
model: {folder: model}
task: text-classification
data:
  calibration: {file: calibration.jsonl}
  validation: {file: validation.jsonl}
stages:
  - {id: float, use: export.onnx}
  - {id: int8, use: quantize.onnx, with: {mode: static}}
  - {id: same, use: validate.agreement, from: {reference: model}, with: {cosine: 0.9}}
"""
DATA = ["data.calibration:files", "data.calibration", "data.validation:files", "data.validation", "data"]
Run = Callable[..., tuple[BuildResult, list[str]]]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Write a project: a model, rows of two roles, a recipe."""
    path = tmp_path / "project"
    write_model(path / "model")
    models.write_rows(path / "calibration.jsonl", TASK, 20, seed=1)
    models.write_rows(path / "validation.jsonl", TASK, 20, seed=2)
    (path / "toy.yaml").write_text(RECIPE)
    return path


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def planned(home: Path, until: str = "data", **sets: Any) -> Plan:
    return api.plan(api.load_recipe(home / "toy.yaml", sets), until)


@pytest.fixture
def run(home: Path, store: Store) -> Run:
    """Build up to a step; return what came of it, and what was told."""

    def build(until: str = "data", jobs: int = 1) -> tuple[BuildResult, list[str]]:
        events: list[Event] = []
        built = engine.build(planned(home, until), store, tell=events.append, jobs=jobs)
        return built, [f"{e.what} {e.node}" for e in events if e.what in ("cached", "building", "failed", "skipped")]

    return build


def looked(home: Path, store: Store, until: str = "data") -> dict[str, tuple[str, tuple[str, ...]]]:
    return {o.node.id: (o.state, o.why) for o in preview.look(planned(home, until), store)}


def test_builds_once_and_then_keeps(run: Run, home: Path, store: Store) -> None:
    assert looked(home, store) == {
        name: ("build", ("never built",)) for name in planned(home).nodes
    } and not store.root.exists()  # fmt: skip
    built, told = run()
    assert sorted(told) == sorted(f"building {name}" for name in DATA)
    assert sorted(built.made) == sorted(DATA) and built.passed
    assert built.artifacts["data"].facts == {"rows": {"calibration": 20, "validation": 20}}
    again, told = run()
    assert again.made == [] and sorted(told) == sorted(f"cached {name}" for name in DATA)
    assert {n: a.digest for n, a in again.artifacts.items()} == {n: a.digest for n, a in built.artifacts.items()}
    assert looked(home, store) == {name: ("cached", ()) for name in DATA}


def test_builds_again_what_a_changed_row_reaches_and_nothing_else(run: Run, home: Path, store: Store) -> None:
    run()
    models.write_rows(home / "validation.jsonl", TASK, 20, seed=3)
    seen = looked(home, store)
    assert [name for name, (state, _) in seen.items() if state == "cached"] == DATA[:2]
    state, [why] = seen["data.validation:files"]
    assert state == "build" and why.startswith("identity.what.file: ")
    assert seen["data.validation"] == ("depends", ("on what `data.validation:files` becomes",))
    assert seen["data"] == ("depends", ("on what `data.validation` becomes",))
    built, _ = run()
    assert sorted(built.made) == sorted(["data.validation:files", "data.validation", "data"])


def test_stops_early_when_a_rebuilt_input_turns_out_the_same(run: Run, home: Path) -> None:
    run()
    text = (home / "validation.jsonl").read_text()
    (home / "validation.jsonl").write_text("\n" + text.replace('", "', '",  "') + "\n")
    built, _ = run()
    assert sorted(built.made) == ["data.validation", "data.validation:files"]


def test_never_remembers_a_failure_and_builds_the_rest(run: Run, home: Path, store: Store) -> None:
    good = (home / "validation.jsonl").read_text()
    (home / "validation.jsonl").write_text((home / "calibration.jsonl").read_text())
    for _ in range(2):
        built, told = run()
        assert "failed data" in told and not built.passed
        [(name, error)] = built.errors.items()
        assert name == "data" and isinstance(error, RecipeError)
        assert str(error).startswith(
            "step `data` (load.apart): data.calibration and data.validation share 20 of 20 rows"
        )
        assert set(built.artifacts) == set(DATA) - {"data"}
    (home / "validation.jsonl").write_text(good)
    built, _ = run()
    assert built.passed and "data" in built.made


def test_what_depends_on_a_failure_is_skipped_before_it_costs(run: Run, home: Path) -> None:
    (home / "validation.jsonl").write_text((home / "calibration.jsonl").read_text())
    built, told = run("same")
    assert {t for t in told if t.startswith("skipped")} == {
        "skipped float",
        "skipped int8",
        "skipped same",
        "skipped model:fidelity",
    }
    assert list(built.errors) == ["data"] and "model" in built.artifacts


def test_a_broken_file_is_an_error_of_its_step(run: Run, home: Path) -> None:
    (home / "model" / "model.safetensors").write_bytes(b"\xff" * 64)
    built, told = run("model")
    assert told[-1] == "failed model"
    assert isinstance(built.errors["model"], StageFailed)
    assert str(built.errors["model"]).startswith("step `model` (load.model): ")


def test_runs_branches_at_once_with_the_same_outcome(run: Run, home: Path, tmp_path: Path) -> None:
    built, _ = run(jobs=3)
    other = engine.build(planned(home), Store(tmp_path / "other"))
    assert {n: a.digest for n, a in built.artifacts.items()} == {n: a.digest for n, a in other.artifacts.items()}
    assert built.keys == other.keys


def test_the_same_files_elsewhere_are_the_same_build(run: Run, home: Path, store: Store) -> None:
    run()
    moved = home.rename(home.with_name("moved"))
    built = engine.build(planned(moved), store)
    assert built.made == []


def test_keys_are_what_was_asked_in_clear(run: Run, store: Store) -> None:
    built, _ = run()
    record = json.loads(store.record_of(built.keys["data.validation"]).read_text())
    assert record["ingredients"]["stage"] == "load.rows"
    assert record["ingredients"]["inputs"] == {"files": built.artifacts["data.validation:files"].digest}
    assert "role" not in record["ingredients"]["options"]


def test_looking_at_what_a_task_option_changes(run: Run, home: Path, store: Store) -> None:
    run()
    (home / "toy.yaml").write_text(RECIPE.replace("file: validation.jsonl}", "file: validation.jsonl, take: 10}"))
    assert looked(home, store)["data.validation"] == ("build", ("options.take: none → 10",))
    assert looked(home, store)["data"] == ("depends", ("on what `data.validation` becomes",))


def test_a_worker_is_given_the_options_that_were_set_alone(home: Path, store: Store) -> None:
    """`mode: weights` refuses the options of calibration, which have defaults."""
    step = "{id: int8, use: quantize.openvino, with: {mode: weights}}"
    text = RECIPE.replace("{id: float, use: export.onnx}", "{id: float, use: export.openvino}")
    (home / "toy.yaml").write_text(text.replace("{id: int8, use: quantize.onnx, with: {mode: static}}", step))
    models.make("distilbert", home / "model", TASK)
    built = engine.build(planned(home, "int8"), store)
    assert built.passed and built.made[-1] == "int8"


FACTS: Mapping[str, Mapping[str, Any]] = {
    "fetch": {"files": 1, "bytes": 1},
    "load.rows": {"rows": 20, "total": 20, "ids": "0" * 64, "files": ["rows.jsonl"], "labels": {}},
    "load.apart": {"rows": {"calibration": 20, "validation": 20}},
}


class Pretending:
    """An executor without processes: a step ends when it is polled, as `results` says."""

    def __init__(self, results: Mapping[str, Ran | PipelineError] | None = None) -> None:
        self.results = results or {}
        self.started: dict[Handle, StepRequest] = {}
        self.most = self.count = 0
        self.closed: list[float] = []

    def start(self, request: StepRequest) -> Handle:
        self.count += 1
        handle = Handle(self.count)
        self.started[handle] = request
        self.most = max(self.most, len(self.started))
        return handle

    def poll(self, seconds: float) -> list[StepOutcome]:
        handle, request = self.started.popitem()
        (request.out / "file").write_text(f"{request.use} {request.options}")
        result = self.results.get(request.use, Ran(FACTS[request.use], 1))
        return [StepOutcome(handle, 1.0, result)]

    def stop(self, handle: Handle, grace: float) -> None:
        self.started.pop(handle, None)

    def close(self, grace: float = 0.0) -> None:
        self.closed.append(grace)


def locked(store: Store) -> list[str]:
    """Name the keys whose lock is held."""
    held = []
    for path in store.root.glob("locks/*/*.lock"):
        try:
            store.lock(path.stem).acquire(timeout=0).lock.release()
        except Timeout:
            held.append(path.stem)
    return held


@pytest.mark.parametrize("jobs", [1, 2, 9])
def test_no_more_than_the_jobs_run_at_once(jobs: int, home: Path, store: Store) -> None:
    executor = Pretending()
    built = engine.build(planned(home), store, jobs=jobs, executor=executor)
    assert executor.most <= jobs and (jobs == 1) == (executor.most == 1)
    assert sorted(built.made) == sorted(DATA) == sorted(built.records)
    assert executor.closed == [0.0] and locked(store) == []


def test_an_outcome_that_is_an_error_fails_its_step_alone(home: Path, store: Store) -> None:
    executor = Pretending({"load.rows": StageFailed("no rows")})
    built = engine.build(planned(home), store, executor=executor)
    assert sorted(built.errors) == ["data.calibration", "data.validation"]
    assert str(built.errors["data.calibration"]) == "step `data.calibration` (load.rows): no rows"
    assert sorted(built.made) == ["data.calibration:files", "data.validation:files"] and locked(store) == []


def test_facts_that_the_stage_does_not_declare_fail_its_step(home: Path, store: Store) -> None:
    built = engine.build(planned(home), store, executor=Pretending({"load.rows": Ran({"rows": "many"}, 1)}))
    assert sorted(built.errors) == ["data.calibration", "data.validation"]
    assert "its facts are not what it declares" in str(built.errors["data.calibration"])
    assert locked(store) == []


def test_an_interruption_gives_the_steps_time_and_every_lock_back(home: Path, store: Store) -> None:
    class Interrupting(Pretending):
        def poll(self, seconds: float) -> list[StepOutcome]:
            raise KeyboardInterrupt

    executor = Interrupting()
    with pytest.raises(Interrupted):
        engine.build(planned(home), store, executor=executor)
    assert executor.closed == [engine.GRACE, 0.0]
    assert locked(store) == []
    assert list((store.root / "leases").iterdir()) == [] == list((store.root / "work").iterdir())


def test_a_step_that_cannot_start_releases_its_lock(home: Path, store: Store) -> None:
    class Full(Pretending):
        def start(self, request: StepRequest) -> Handle:
            raise TryAgain("no worker is free")

    built = engine.build(planned(home), store, executor=Full())
    [error] = built.errors.values()
    assert isinstance(error, TryAgain) and locked(store) == []
