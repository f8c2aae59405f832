"""A refresh in this process, with pretended builds: what it promotes, refuses, writes and leaves alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from publishing import ACCURACY, MODEL, RECIPE, ROWS, PretendedProject
from suites.refresh.refreshed import RefreshedProject
from suites.refresh.refreshed import outcome as result_of

from cpu_pipeline.core import hub_api
from cpu_pipeline.core.artifact import digest_file
from cpu_pipeline.core.errors import StageFailed, TryAgain
from cpu_pipeline.engine import build, environments, preview
from cpu_pipeline.engine.result import BuildResult
from cpu_pipeline.graph.plan import Plan
from cpu_pipeline.recipe.reader import load_recipe
from cpu_pipeline.recipe.spec import Trigger
from cpu_pipeline.refresh import drift, reconcile, upstream
from cpu_pipeline.refresh.outcome import Refreshed
from cpu_pipeline.release import latest, lockfile, manifest, promotions, references, tree, versions
from cpu_pipeline.stages._base import Verdict
from cpu_pipeline.store.local import Store


@pytest.fixture
def project(tmp_path: Path) -> RefreshedProject:
    return RefreshedProject(tmp_path / "project")


def test_the_command_builds_promotes_locks_and_then_rests(project: RefreshedProject) -> None:
    """The one run of the real command here; tests/suites/refresh has the others."""
    recipe = project.compared()
    # The first refresh
    first = result_of(project.refresh(recipe).expect(0, "promoted  small: nothing → ", "because it was never locked"))
    assert (first["outcome"], first["version_before"], first["version"]) == ("promoted", None, project.in_service())
    assert first["built"] == 4
    assert lockfile.read_lock(recipe.with_suffix(".lock"))["steps"]["made"]["output"]
    assert promotions.promoted(project.out / "small")[-1].by == "refresh"
    roots = {path.name for path in references.read_roots(Store(project.store)).paths}
    assert roots == {"small.lock", "small"}, "gc leaves alone what lock and versions name"
    # The second one
    before = {path: path.stat().st_mtime_ns for path in [*project.out.rglob("*"), recipe.with_suffix(".lock")]}
    second = result_of(project.refresh(recipe).expect(0, "fresh  small: nothing has moved"))
    assert (second["outcome"], second["causes"], second["built"]) == ("fresh", [], 0)
    assert second["version"] == first["version"]
    assert {path: path.stat().st_mtime_ns for path in before} == before


COMMITS = ["1" * 40, "2" * 40]


def test_a_followed_branch_that_moved_is_seen_and_nothing_is_written(
    project: RefreshedProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Hub is played by folders; the real one, on loopback, by tests/suites/loopback/test_refresh.py."""
    recipe = project.recipe({"id": "made", "use": "export.onnx"}, refresh={"follow": "main"})
    text = recipe.read_text().replace("folder: model", f"hub: own/model\n  revision: '{COMMITS[0]}'")
    recipe.write_text(text)
    monkeypatch.setattr(hub_api, "resolve", lambda *_: COMMITS[1])
    seen = drift.find_drift(recipe, project.out)
    assert [(move.old, move.new) for move in seen.moves] == [tuple(COMMITS)]
    assert upstream.moved(load_recipe(recipe), seen.moves)[1] == text.replace(*COMMITS)
    assert seen.plan.recipe.model["revision"] == COMMITS[1]
    assert seen.causes[0] == f"model: main of own/model advanced: {COMMITS[0][:12]} → {COMMITS[1][:12]}"
    assert recipe.read_text() == text
    assert drift.find_drift(recipe, project.out, ["toolchain"]).moves == []
    assert upstream.moves(seen.recipe, {"model"}) == []


class PretendedRefresh:
    """Refreshes a recipe in this process; its builds are pretended."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.project = PretendedProject(home)
        self.recipe = home / "toy.yaml"
        self.store, self.out = Store(home / "store"), home / "out"
        self.content = "weights"
        """What every step writes from now on."""
        self.heads = {"model": MODEL, "data": ROWS}
        """Newest commits of the followed branches."""
        self.drops: list[str] = []
        """What the failing gate against the version in service says."""
        self.errors: dict[str, Exception] = {}
        """Steps that fail."""
        monkeypatch.setattr(build, "build", self.build)
        monkeypatch.setattr(hub_api, "resolve", lambda repo, want, branch: self.heads[want])

    def build(self, plan: Plan, store: Store, **_: Any) -> BuildResult:
        built = BuildResult(plan)
        self.project.pretend_steps(built, store, content=self.content)
        for name in [name for name in plan.nodes if name in self.errors]:
            built.errors[name] = self.errors[name]  # type: ignore[assignment]
            del built.artifacts[name], built.verdicts[name]
        if "accuracy@service" in built.verdicts and self.drops:
            built.verdicts["accuracy@service"] = [Verdict("f1", False, says) for says in self.drops]
        return built

    def refresh(self, *only: Trigger, **recipe: Any) -> Refreshed:
        """Refresh; `recipe` rewrites it first."""
        if recipe:
            self.project.write(**recipe)
        return reconcile.refresh(self.recipe, self.store, self.out, only=only)

    def in_service(self) -> Path:
        version = latest.in_service(self.out / "toy")
        assert version is not None
        return version


@pytest.fixture
def pretended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PretendedRefresh:
    return PretendedRefresh(tmp_path / "project", monkeypatch)


def test_a_promotion_moves_recipe_and_lock_and_a_refusal_neither(pretended: PretendedRefresh) -> None:
    assert pretended.refresh(refresh={"follow": "main"}).outcome == "promoted"
    recipe, lock = pretended.recipe, lockfile.lock_path(pretended.recipe)
    text, held = recipe.read_text(), lock.read_bytes()
    assert lockfile.read_lock(lock)["sources"]["model:files"]["from"] == f"acme/small at {MODEL}"
    pretended.heads["model"], pretended.content, pretended.drops = "b" * 40, "poison", ["a drop"]
    done = pretended.refresh()
    assert (done.outcome, done.failed) == ("refused", ["accuracy@service: a drop"])
    assert (recipe.read_text(), lock.read_bytes()) == (text, held)
    pretended.heads["model"], pretended.content, pretended.drops = "c" * 40, "better", []
    done = pretended.refresh("model")
    assert (done.outcome, [move["to"] for move in done.moved]) == ("promoted", ["c" * 40])
    assert recipe.read_text() == text.replace(MODEL, "c" * 40)
    assert lockfile.read_lock(lock)["sources"]["model:files"]["from"] == f"acme/small at {'c' * 40}"
    assert pretended.refresh().outcome == "fresh"


def test_a_dry_run_reacts_as_a_refresh_would(pretended: PretendedRefresh) -> None:
    pretended.refresh(refresh={"follow": "main"})
    recipe = pretended.recipe
    text, pretended.heads["model"] = recipe.read_text(), "b" * 40
    wanted: list[tuple[list[Trigger], str]] = [([], "stale"), (["model"], "stale"), (["data", "recipe"], "fresh")]
    for only, expected in wanted:
        done = reconcile.refresh(recipe, pretended.store, pretended.out, only=only, dry_run=True)
        assert (done.outcome, bool(done.moved)) == (expected, expected == "stale"), only
    assert recipe.read_text() == text


def test_a_rollback_of_long_ago_holds_nothing(pretended: PretendedRefresh) -> None:
    """What somebody ran by hand since is replaced by what the lock says."""
    pretended.refresh(refresh={"follow": "main"})
    for commit, content in (("b" * 40, "two"), ("c" * 40, "three")):
        pretended.heads["model"], pretended.content = commit, content
        wanted = pretended.refresh().version
        if content == "two":
            versions.rollback(pretended.out / "toy")
    recipe = pretended.recipe
    text = recipe.read_text()
    pretended.project.published(pretended.out, content="four")
    recipe.write_text(text)
    done = pretended.refresh()
    assert (done.outcome, done.version) == ("promoted", wanted)
    [why] = done.causes
    assert why.endswith("is in service, and is not what the lock says")


def test_what_was_not_in_service_is_told(pretended: PretendedRefresh) -> None:
    pretended.refresh(outputs=["float"])
    done = pretended.refresh(outputs=["float", "int8"])
    assert done.warnings == ["`int8` is not in service yet: nothing to compare it with"]


@pytest.mark.parametrize("error", [TryAgain("the disk is full"), StageFailed("it can't be run")])
def test_what_may_succeed_later_does_not_pass_for_compared(pretended: PretendedRefresh, error: Exception) -> None:
    """One gate told its figures, the other found the disk full: nothing is promoted on half a comparison."""
    second = {**RECIPE["stages"][2], "id": "second"}
    first = pretended.refresh(stages=[*RECIPE["stages"], second]).version
    pretended.content, pretended.errors = "other", {"second@service": error}
    (pretended.project.home / "rows.jsonl").write_text('{"id": "2"}\n')
    done = pretended.refresh()
    if isinstance(error, TryAgain):
        assert (done.outcome, done.exit_code, done.error, done.version) == ("failed", 75, "TryAgain", first)
    else:
        assert done.warnings == ["`second@service` could not be compared with what is in service: it can't be run"]
    assert (pretended.in_service().name == first) == isinstance(error, TryAgain)


@pytest.mark.parametrize("wanted", [True, False])
def test_environments_are_made_only_when_asked(
    pretended: PretendedRefresh, monkeypatch: pytest.MonkeyPatch, wanted: bool
) -> None:
    made = []
    monkeypatch.setattr(preview, "lacking", lambda plan, store: ["ipex"])
    monkeypatch.setattr(environments, "create", lambda name, tell: made.append(name))
    path = pretended.project.write()
    assert reconcile.refresh(path, pretended.store, pretended.out, create_envs=wanted).outcome == "promoted"
    assert made == (["ipex"] if wanted else [])


@pytest.mark.parametrize(("content", "outcome"), [("better", "promoted"), ("weights", "unchanged")])
def test_the_version_in_service_is_hashed_once(
    pretended: PretendedRefresh, monkeypatch: pytest.MonkeyPatch, content: str, outcome: str
) -> None:
    """Its files may be many gigabytes: drift, baseline, decision and promotion share one look at them."""
    pretended.refresh(refresh={"follow": "main"})
    version = pretended.in_service()
    files = {version / name for name in manifest.read_manifest(version)["files"]}
    hashed: list[Path] = []

    def count(path: Path) -> str:
        hashed.append(path)
        return digest_file(path)

    for module in (manifest, tree):
        monkeypatch.setattr(module, "digest_file", count)
    pretended.heads["data"], pretended.content = "d" * 40, content
    if outcome == "unchanged":
        pretended.heads["data"] = ROWS
        lockfile.lock_path(pretended.recipe).unlink()
    assert pretended.refresh().outcome == outcome
    of_version = [path for path in hashed if version in path.parents]
    assert sorted(of_version) == sorted(files)


def test_refreshes_within_max_drop_cannot_walk_down(
    pretended: PretendedRefresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each loses 0.4 points of F1, less than the point that the gate allows; together they may not lose more than it.

    `keep: 1` removes what was in service before, but not the best version, whose predictions the gate needs.
    """
    f1 = ACCURACY["metrics"]["f1"]

    def judged(plan: Plan, store: Store, **_: Any) -> BuildResult:
        built = BuildResult(plan)
        pretended.project.pretend_steps(built, store, files={"f1.txt": str(f1["candidate"])})
        if (node := plan.nodes.get("predict:int8@best")) is not None:
            kept = Path(node.stage.model_dump()["folder"])
            [version] = [parent for parent in kept.parents if (parent / "manifest.json").is_file()]
            best = manifest.read_manifest(version)["steps"]["accuracy"]["facts"]["metrics"]["f1"]["candidate"]
            lost = best - f1["candidate"]
            built.verdicts["accuracy@best"] = [Verdict("f1", lost <= 0.01, f"{lost:.3f} below the best")]
        return built

    monkeypatch.setattr(build, "build", judged)
    found, versions_seen = [], []
    for number in range(5):
        monkeypatch.setitem(f1, "candidate", 0.898 - 0.004 * number)
        pretended.heads["model"] = f"{number:x}" * 40
        done = pretended.refresh() if number else pretended.refresh(refresh={"follow": "main", "keep": 1})
        found.append((done.outcome, done.failed))
        versions_seen.append(done.version)
    assert found == [
        ("promoted", []),
        ("promoted", []),
        ("promoted", []),
        ("refused", ["accuracy@best: 0.012 below the best"]),
        ("refused", ["accuracy@best: 0.016 below the best"]),
    ]
    there = {path.parent.name for path in (pretended.out / "toy").glob("*/manifest.json")} - {"latest"}
    assert there == {versions_seen[0], versions_seen[2]}, "the best one and the one in service"
