"""The command around a refresh: several recipes, what it prints, records and removes."""

from __future__ import annotations

import json
import shutil

from suites.refresh.refreshed import COMPARE, COPY, RefreshedProject, outcome


def test_a_dry_run_writes_nothing(project: RefreshedProject) -> None:
    """1. A dry run before the first build: stale. 2. Refresh. 3. A dry run after it: fresh. Neither writes a file."""
    # Arrange
    recipe = project.compared()
    # Act, assert: before
    stale = outcome(project.refresh(recipe, "--dry-run").expect(0, "stale  small: 4 steps would be built"))
    assert (stale["outcome"], stale["built"]) == ("stale", 4)
    assert sorted(p.name for p in project.home.iterdir()) == ["model", "small.yaml"]
    # Act, assert: after
    project.refresh(recipe).expect(0)
    before = sorted(project.store.rglob("*"))
    assert outcome(project.refresh(recipe, "--dry-run").expect(0))["outcome"] == "fresh"
    assert sorted(project.store.rglob("*")) == before


def test_an_output_directory_that_cannot_exist_is_refused(project: RefreshedProject) -> None:
    """1. `artifacts` is a link to nowhere. 2. The refresh ends with exit code 2."""
    recipe = project.compared()
    project.out.symlink_to(project.home / "not" / "mounted")
    project.refresh(recipe).expect(2, "artifacts can't be made")


def test_versions_beyond_keep_are_removed(project: RefreshedProject) -> None:
    """1. Promote three versions with `keep: 2`: the oldest goes. 2. Set `keep: 1`: a fresh refresh removes one more."""
    # Arrange
    recipe = project.recipe(COPY, COMPARE, refresh={"keep": 2})
    published = []
    for score in (1.0, 1.1, 1.2):
        project.change_model(score=score)
        # Act
        result = outcome(project.refresh(recipe).expect(0))
        published.append(result["version"])
    # Assert
    assert result["removed"] == [published[0]]
    left = sorted(p.name for p in (project.out / "small").iterdir() if p.is_dir() and not p.is_symlink())
    assert left == sorted(published[1:])
    # Act, assert: also where a refresh was killed before it removed them
    recipe = project.recipe(COPY, COMPARE, refresh={"keep": 1})
    result = outcome(project.refresh(recipe).expect(0))
    assert (result["outcome"], result["removed"]) == ("fresh", [published[1]])


def test_all_recipes_of_the_folder_are_refreshed(project: RefreshedProject) -> None:
    """Without a named recipe, those of `recipes/` are refreshed, in order.

    1. Recipe `a` fails, recipe `b` builds; without `--keep-going` the command stops at `a`.
    2. With `--keep-going --json`: exit code 6, a line of JSON each, errors alone on stderr, a summary page.
    3. Two recipes of one name, and no recipe at all, are usage errors.
    """
    # Arrange
    folder = project.home / "recipes"
    folder.mkdir()
    shutil.move(project.home / "model", folder / "model")
    for name, act in (("a", "raise"), ("b", "nothing")):
        project.recipe({**COPY, "act": act}, name=f"recipes/{name}")
    page = project.home / "summary.md"
    # Act, assert: it stops
    stopped = project.refresh().expect(1)
    assert [json.loads(line)["recipe"] for line in stopped.out.splitlines()] == ["a"]
    # Act, assert: it goes on
    result = project.refresh("--keep-going", "--json", GITHUB_STEP_SUMMARY=str(page)).expect(6)
    lines = [json.loads(line) for line in result.out.splitlines()]
    assert [(line["recipe"], line["outcome"], line["exit_code"]) for line in lines] == [
        ("a", "failed", 1),
        ("b", "promoted", 0),
    ]
    assert result.err.count("\n") < 30
    assert "building" not in result.err, "--json leaves stderr to errors"
    text = page.read_text()
    assert "| a | **failed** | nothing | 0 | 0 |" in text
    assert "because it was never locked" in text
    assert f"| b | promoted | `{project.in_service('b')}` | 1 | 2 |" in text
    assert "**error**" in text
    # Act, assert: usage errors
    for command in ("refresh", "run"):
        project.call(command, folder / "b.yaml", "b.yaml", "--store", project.store).expect(2, "has the same name")
    shutil.rmtree(folder)
    project.call("refresh", "--store", project.store).expect(2, "no recipe is named")


def test_a_summary_that_cannot_be_written_undoes_nothing(project: RefreshedProject) -> None:
    """1. The summary page can't be written. 2. A warning is printed, and the version is in service."""
    recipe = project.compared()
    page = project.home / "no" / "summary.md"
    result = project.refresh(recipe, GITHUB_STEP_SUMMARY=str(page)).expect(0, "warning   GITHUB")
    assert outcome(result)["version"] == project.in_service()


def test_each_refresh_is_recorded(project: RefreshedProject) -> None:
    """1. One refresh promotes, one is refused. 2. `history` has both, with version, error, manifest and events."""
    # Arrange
    recipe = project.compared()
    project.refresh(recipe).expect(0)
    project.change_model(score=0.2)
    # Act
    project.refresh(recipe).expect(3)
    # Assert
    runs = project.history()
    assert [(run["command"], run["exit_code"]) for run in runs] == [("refresh", 3), ("refresh", 0)]
    version = project.in_service()
    assert [run["version"] for run in runs] == [version, version]
    assert runs[0]["says"].startswith(f"small: {version} stays in service") and "a drop of 0.80" in runs[0]["says"]
    for run, compared in ((runs[0], ["gate@service"]), (runs[1], [])):
        folder = project.store / "runs" / run["id"]
        record = json.loads((folder / "run.json").read_text())
        assert record["manifest"]["steps"].keys() >= {"made", "gate"}, "`diff` can compare it"
        events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
        assert {event["node"] for event in events if event["what"] == "built"} >= {"made", "gate", *compared}
