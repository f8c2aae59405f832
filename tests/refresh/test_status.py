"""A dead man's switch: too old, failing, or nothing in service is told, and nothing else is."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from project import ProjectFixture

from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.refresh import status
from cpu_pipeline.refresh.status import RecipeStatus, ago, duration, recipes
from cpu_pipeline.release import lockfile
from cpu_pipeline.store.local import Store
from cpu_pipeline.store.runs.recorder import recording

DAY = 86_400.0
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
NUMBERS = itertools.count()
RECIPE = "model: {folder: model}\ntask: text-classification\nstages: [{id: one, use: export.onnx}]\n"
EMPTY = {key: {} for key in ("recipe", "made_with", "packages", "environments", "steps", "sources", "rows", "gates")}
Look = Callable[..., RecipeStatus]


@pytest.fixture
def bench(tmp_path: Path) -> ProjectFixture:
    """A recipe whose version `v1` came into service nine days ago."""
    bench = ProjectFixture(tmp_path)
    (bench.home / "small.yaml").write_text(RECIPE)
    home = bench.out / "small"
    (home / "v1").mkdir(parents=True)
    (home / "v1" / "manifest.json").write_text('{"files": {}, "outputs": {}}')
    (home / "latest").symlink_to("v1")
    promoted(bench, "run", NOW - timedelta(days=9))
    return bench


def promoted(bench: ProjectFixture, by: str, when: datetime) -> None:
    said = {"version": "v1", "when": when.isoformat(), "by": by, "instead_of": None}
    with (bench.out / "small" / "promotions.jsonl").open("a") as file:
        file.write(json.dumps(said) + "\n")


def ran(bench: ProjectFixture, when: datetime, command: str = "refresh", name: str = "small", **facts: Any) -> None:
    """Leave the record of a run that ended then."""
    store = Store(bench.store)
    with recording(store, command, name, None) as run:
        run.note(**{"exit_code": 0, **facts})
    path = run.folder / "run.json"
    said = json.loads(path.read_text())
    path.write_text(json.dumps({**said, "finished": when.isoformat()}))
    run.folder.rename(run.folder.with_name(f"{when:%Y%m%dT%H%M%S.%f}-{next(NUMBERS):06x}"))


@pytest.fixture
def look(bench: ProjectFixture) -> Look:
    def look(most: float = 8 * DAY, now: datetime = NOW) -> RecipeStatus:
        [found] = status.status([bench.home / "small.yaml"], Store(bench.store), bench.out, most, now)
        return found

    return look


def test_too_old(look: Look) -> None:
    found = look()
    assert (found.version, found.age, found.last, found.lock) == ("v1", 9 * DAY, None, "missing")
    assert found.problems == ["it was last fresh 9 days ago, 8 days at most"]
    assert look(10 * DAY).problems == []


def test_a_run_that_found_everything_fresh_counts(bench: ProjectFixture, look: Look) -> None:
    ran(bench, NOW - timedelta(hours=3))
    found = look(DAY)
    assert found.age == 3 * 3600 and found.last == "done" and found.fresh == "2026-11-22T09:00:00+00:00"
    assert found.problems == []


@pytest.mark.parametrize(
    ("command", "facts"),
    [
        ("lock", {}),
        ("rollback", {"version": "v1"}),
        ("run", {"puts_out": []}),
        ("refresh", {"exit_code": 3, "says": "no"}),
        ("refresh", {"name": "other"}),
    ],
)
def test_what_leaves_nothing_fresh_does_not_count(
    bench: ProjectFixture, look: Look, command: str, facts: dict[str, Any]
) -> None:
    ran(bench, NOW, command, **facts)
    assert look().age == 9 * DAY


def test_a_promotion_counts_where_its_history_is_not_known_but_no_rollback(bench: ProjectFixture, look: Look) -> None:
    promoted(bench, "rollback", NOW)
    assert look().age == 9 * DAY and look().rolled_back
    promoted(bench, "refresh", NOW - timedelta(days=1))
    assert look().age == DAY and not look().rolled_back


def test_the_last_run_failed(bench: ProjectFixture, look: Look) -> None:
    ran(bench, NOW)
    ran(bench, NOW, exit_code=3, says="small: v1 stays in service:\nmore")
    assert look().problems == ["the last refresh failed (3): small: v1 stays in service:"]
    ran(bench, NOW, "run", exit_code=1, puts_out=[], says="an experiment that puts nothing out")
    assert len(look().problems) == 1
    ran(bench, NOW, "run", puts_out=["one"], version="v1")
    assert look().problems == [] and look().last == "done"


def placed(when: datetime, bench: ProjectFixture, **facts: Any) -> None:
    ran(bench, when, **{"place": str(bench.home / "small.yaml"), "out": str(bench.out), **facts})


@pytest.mark.parametrize("other", ["place", "out"])
def test_runs_of_another_project_say_nothing(bench: ProjectFixture, look: Look, tmp_path: Path, other: str) -> None:
    there = tmp_path / "other"
    there.mkdir()
    placed(NOW - timedelta(days=2), bench, exit_code=3, error={"name": "GateFailed", "says": "no"})
    assert look().last == "failed"
    placed(NOW - timedelta(days=1), bench, **{other: str(there)})
    assert (look().last, look().age) == ("failed", 9 * DAY)
    there.rmdir()
    assert (look().last, look().age) == ("done", DAY), "a project that was moved is the same one"


def test_a_refresh_that_was_not_to_look_at_all_says_nothing(bench: ProjectFixture, look: Look) -> None:
    placed(NOW - timedelta(days=2), bench, exit_code=3, error={"name": "GateFailed", "says": "no"})
    placed(NOW - timedelta(days=1), bench, refresh={"ignored": ["model: main moved"]})
    assert (look().last, look().age) == ("failed", 9 * DAY)
    placed(NOW - timedelta(hours=12), bench, refresh={"ignored": []})
    assert (look().last, look().age) == ("done", DAY / 2)


@pytest.mark.parametrize("code", [130, 143])
def test_the_last_run_was_stopped(bench: ProjectFixture, look: Look, code: int) -> None:
    ran(bench, NOW)
    ran(bench, NOW, exit_code=code, error={"name": "Interrupted", "says": "stopped"})
    assert look().problems == [f"the last refresh interrupted ({code}): stopped"]


def test_the_last_run_died_and_one_that_lives_is_no_failure(bench: ProjectFixture, look: Look) -> None:
    now = datetime.now(UTC)
    ran(bench, now)
    with recording(Store(bench.store), "refresh", "small", None) as run:
        found = look(now=now)
        assert found.running and found.last == "done" and found.problems == []
    (run.folder / "run.json").unlink()
    found = look(now=now)
    assert not found.running and found.last == "died"
    assert found.problems == ["the last refresh died: killed, or the machine went down"]


def test_nothing_is_in_service(bench: ProjectFixture, look: Look) -> None:
    ran(bench, NOW)
    (bench.out / "small" / "latest").unlink()
    found = look()
    assert found.version is None and found.age is None
    assert found.problems == [f"nothing is in service in {bench.out / 'small'}"]
    (bench.out / "small" / "latest").symlink_to("gone")
    assert look().version is None


def test_nobody_knows_when(bench: ProjectFixture, look: Look) -> None:
    promoted(bench, "hand", NOW)
    for text in ("", '{"version": "v1", "when": "yesterday", "by": "run", "instead_of": null}\n'):
        (bench.out / "small" / "promotions.jsonl").write_text(text + '{"version": "v0", "when": "", "by": "run"}\n')
        if text:
            assert look().problems == ["nobody knows when it was last fresh"]
        else:  # the link's own time is what is known
            assert look(now=datetime.now(UTC)).age < 3600  # type: ignore[operator]


def test_what_a_clock_that_was_ahead_wrote_does_not_count(bench: ProjectFixture, look: Look) -> None:
    """It hides nothing that is old, and no later success either."""
    ran(bench, NOW + timedelta(days=300), exit_code=3)
    ran(bench, NOW + timedelta(days=200))
    promoted(bench, "refresh", NOW + timedelta(days=100))
    found = look()
    assert found.age == 9 * DAY and found.problems == ["it was last fresh 9 days ago, 8 days at most"]
    [says] = found.warnings
    assert says.startswith("the refresh 2") and "(and 2 more) is 300 days ahead of this machine's clock" in says
    ran(bench, NOW - timedelta(hours=1))
    found = look()
    assert found.age == 3600 and found.last == "done" and found.problems == [] and len(found.warnings) == 1
    # Once its time has come, and where another machine's clock is a little ahead, it counts as what it says.
    assert look(now=NOW + timedelta(days=200, minutes=-3)).age == 0


def test_a_run_whose_id_is_ahead_is_not_the_last_one(bench: ProjectFixture, look: Look) -> None:
    now = datetime.now(UTC)
    ran(bench, now - timedelta(hours=2), exit_code=1, says="no")
    [folder] = (bench.store / "runs").iterdir()
    folder.rename(folder.with_name(f"9031{folder.name[4:]}"))
    assert look(now=now).last is None
    ran(bench, now - timedelta(hours=1))
    found = look(now=now)
    assert (found.last, found.age, found.problems) == ("done", 3600, [])
    said = bench.call("status", "small.yaml", "--store", bench.store, "--out", bench.out).expect(0)
    assert said.err.startswith("warning   small: the refresh 9031")


def test_how_the_lock_stands(bench: ProjectFixture, look: Look) -> None:
    assert look().lock == "missing" and look(10 * DAY).problems == []
    place = lockfile.lock_path(bench.home / "small.yaml")
    place.write_text("lock: 9\n")
    assert look().lock == "unknown" and "newer cpu-pipeline" in look().problems[0]
    place.write_text(json.dumps({"lock": 1, **EMPTY}))
    assert look().lock == "stale" and look(10 * DAY).problems == []
    (bench.home / "small.yaml").write_text(RECIPE.replace("export.onnx", "export.onx"))
    found = look(10 * DAY)
    assert found.lock == "unknown" and found.version == "v1" and found.problems[0].startswith(f"{found.recipe}:3:")


def test_which_recipes_are_meant(bench: ProjectFixture, tmp_path: Path) -> None:
    folder = tmp_path / "recipes"
    with pytest.raises(RecipeError, match="no recipe is named, and none in"):
        recipes(bench.out, folder)
    folder.mkdir()
    for name in ("small", "locked", "new", "due"):
        (folder / f"{name}.yaml").write_text(RECIPE + ("refresh: {follow: main}\n" if name == "due" else ""))
    (folder / "locked.lock").touch()
    assert [path.stem for path in recipes(bench.out, folder)] == ["due", "locked", "small"]


def test_a_recipe_that_is_not_there_is_an_error(bench: ProjectFixture) -> None:
    with pytest.raises(RecipeError, match=r"smal\.yaml: no such file"):
        status.status([bench.home / "smal.yaml"], Store(bench.store), bench.out, DAY)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90m", 5400), ("36h", 36 * 3600), ("8d", 8 * DAY), ("1.5w", 10.5 * DAY)]
)
def test_durations(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "8", "d", "-8d", "0d", "8 d d", "1e3d", "8D", "nan", "infd", "8,5d"])
def test_what_is_no_duration_is_told(text: str) -> None:
    with pytest.raises(RecipeError, match="is no duration; write a number and m, h, d or w"):
        duration(text)


def test_durations_for_people() -> None:
    assert [ago(s) for s in (1, 119, 120, 3 * 3600, 47 * 3600, 8 * DAY)] == [
        "1 seconds", "119 seconds", "2 minutes", "3 hours", "47 hours", "8 days",
    ]  # fmt: skip
