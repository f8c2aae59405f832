"""Refresh makes things fresh from wherever they stand, and lets nothing take the place of what is better."""

from __future__ import annotations

import json
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
from project import CommandResult, ProjectFixture, ended, pids_in, put_down
from publishing import MODEL, RECIPE, ROWS, Made

from cpu_pipeline.core import hub_api
from cpu_pipeline.core.artifact import digest_file
from cpu_pipeline.core.errors import StageFailed, TryAgain
from cpu_pipeline.engine import build, environments, preview
from cpu_pipeline.engine.result import BuildResult
from cpu_pipeline.graph.plan import Plan
from cpu_pipeline.recipe.reader import load_recipe
from cpu_pipeline.recipe.spec import Trigger
from cpu_pipeline.refresh import drift, outcome, upstream
from cpu_pipeline.refresh import reconcile as refreshing
from cpu_pipeline.release import latest, lockfile, manifest, promotions, publish, references, versions
from cpu_pipeline.stages._base import Verdict
from cpu_pipeline.store.local import Store

SCORED = ({"id": "made"}, {"id": "gate", "use": "faulty.versus", "from": {"reference": "model"}})


@pytest.fixture
def bench(tmp_path: Path) -> ProjectFixture:
    return ProjectFixture(tmp_path / "project")


def call(bench: ProjectFixture, *arguments: object, **env: str) -> CommandResult:
    return bench.call("refresh", *arguments, "--store", bench.store, "--out", bench.out, **env)


def said(ended: CommandResult) -> dict[str, Any]:
    """Read the one line of JSON."""
    [line] = ended.out.splitlines()
    read: dict[str, Any] = json.loads(line)
    return read


def roll_back(bench: ProjectFixture) -> None:
    """Put the version before back into service, by hand."""
    bench.call("rollback", "small", "--out", bench.out, "--store", bench.store).expect(0)


def in_service(bench: ProjectFixture, name: str = "small") -> str:
    version = latest.in_service(bench.out / name)
    assert version is not None
    assert manifest.edited(version) == []
    return version.name


def new_upstream(bench: ProjectFixture, **config: Any) -> None:
    """Change the model that recipes of the bench are made of."""
    path = bench.home / "model" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config, indent=2), encoding="utf-8")


def test_the_first_refresh_builds_promotes_and_locks(bench: ProjectFixture) -> None:
    recipe = bench.recipe(*SCORED)
    ended = call(bench, recipe).expect(0, "promoted  small: nothing → ", "because it was never locked")
    done = said(ended)
    assert (done["outcome"], done["version_before"], done["version"]) == ("promoted", None, in_service(bench))
    assert done["built"] == 4
    held = lockfile.read(recipe.with_suffix(".lock"))
    assert held["steps"]["made"]["output"]
    assert promotions.promoted(bench.out / "small")[-1].by == "refresh"
    kept = {place.name for place in references.read(Store(bench.store)).paths}
    assert kept == {"small.lock", "small"}, "gc leaves alone what lock and versions name"


def test_what_is_fresh_stays_as_it_is(bench: ProjectFixture) -> None:
    recipe = bench.recipe(*SCORED)
    first = said(call(bench, recipe).expect(0))
    before = {path: path.stat().st_mtime_ns for path in bench.out.rglob("*")}
    text = recipe.with_suffix(".lock").read_bytes()
    second = said(call(bench, recipe).expect(0, "fresh  small: nothing has moved"))
    assert (second["outcome"], second["causes"], second["built"]) == ("fresh", [], 0)
    assert second["version"] == first["version"]
    assert {path: path.stat().st_mtime_ns for path in bench.out.rglob("*")} == before
    assert recipe.with_suffix(".lock").read_bytes() == text


def test_a_model_that_moved_is_rebuilt_compared_and_promoted(bench: ProjectFixture) -> None:
    recipe = bench.recipe(*SCORED)
    first = said(call(bench, recipe).expect(0))
    new_upstream(bench, score=1.5)
    done = said(call(bench, recipe).expect(0, "gate@service: score: 1.0 → 1.5"))
    assert done["outcome"] == "promoted"
    assert done["version_before"] == first["version"]
    assert done["version"] == in_service(bench) != first["version"]
    assert "model: its files on this machine changed" in done["causes"]
    assert done["changes"] == {"gate@service": ["score: 1.0 → 1.5"]}
    assert (bench.out / "small" / first["version"]).is_dir(), "the earlier version is kept"
    assert said(call(bench, recipe).expect(0))["outcome"] == "fresh"


def test_a_poisoned_upstream_is_refused_and_the_old_stays(bench: ProjectFixture) -> None:
    """The rebuilt artifact is as good as its own float model, which answers wrongly: only what is in service tells."""
    new_upstream(bench, score=1.0)
    recipe = bench.recipe(*SCORED)
    first = said(call(bench, recipe).expect(0))
    text = recipe.with_suffix(".lock").read_bytes()
    new_upstream(bench, score=0.2)
    ended = call(bench, recipe).expect(
        3, f"{first['version']} stays in service", "a drop of 0.80", "because model: its files on this machine changed",
        "score: 1.0 → 0.2",
    )  # fmt: skip
    done = said(ended)
    assert (done["outcome"], done["exit_code"], done["version"]) == ("refused", 3, first["version"])
    assert done["failed"] == ["gate@service: a drop of 0.80"]
    assert in_service(bench) == first["version"]
    assert recipe.with_suffix(".lock").read_bytes() == text
    assert said(call(bench, recipe))["exit_code"] == 3, "it is refused as often as it is asked"
    new_upstream(bench, score=1.0)
    assert said(call(bench, recipe).expect(0))["outcome"] == "fresh"


def test_what_a_busy_machine_refused_is_measured_anew(bench: ProjectFixture) -> None:
    noise = bench.home / "noise.txt"
    noise.write_text("0")
    new_upstream(bench, score=1.0)
    recipe = bench.recipe({"id": "made"}, {**SCORED[1], "noise": noise})
    call(bench, recipe).expect(0)
    new_upstream(bench, score=1.05)
    noise.write_text("0.5")
    ran = len(bench.lines("compared"))
    assert len(said(call(bench, recipe).expect(3))["failed"]) == 2
    assert len(bench.lines("compared")) == ran + 2, "what was measured just now is not measured again"
    ran += 2
    assert said(call(bench, recipe).expect(3))["built"] == 1
    assert len(bench.lines("compared")) == ran + 2, "each was measured once more, and once is enough"
    noise.write_text("0")
    done = said(call(bench, recipe).expect(0, "building  gate@service  because asked to measure again"))
    assert (done["outcome"], done["built"]) == ("promoted", 1)


def test_a_gate_against_the_float_model_refuses_too(bench: ProjectFixture) -> None:
    gates = ({"id": "made"}, {"id": "gate", "use": "faulty.gate", "score": 0.9})
    recipe = bench.recipe(*gates)
    first = said(call(bench, recipe).expect(0))
    bench.recipe({"id": "made", "text": "new"}, {"id": "gate", "use": "faulty.gate", "score": 0.1})
    done = said(call(bench, recipe).expect(3, "score 0.1, at least 0.5 asked"))
    assert done["failed"] == ["gate: score 0.1, at least 0.5 asked"]
    assert in_service(bench) == first["version"]


def test_without_a_gate_that_compares_it_says_so(bench: ProjectFixture) -> None:
    recipe = bench.recipe({"id": "made"}, {"id": "gate", "use": "faulty.gate"})
    call(bench, recipe).expect(0)
    bench.recipe({"id": "made", "text": "new"}, {"id": "gate", "use": "faulty.gate"})
    done = said(call(bench, recipe).expect(0, "no gate of this recipe compares `made`"))
    assert done["warnings"] == ["no gate of this recipe compares `made` with what is in service"]


def test_what_is_in_service_and_cannot_run_any_more_blocks(bench: ProjectFixture) -> None:
    gate = {"id": "gate", "use": "faulty.versus", "from": {"reference": "model"}, "afraid_of": 7.0}
    new_upstream(bench, score=6.0)
    recipe = bench.recipe({"id": "made"}, gate)
    call(bench, recipe).expect(0)
    gate["afraid_of"] = 6.0
    bench.recipe({"id": "made", "text": "new"}, gate)
    new_upstream(bench, score=6.5)
    call(bench, recipe).expect(1, "`gate@service`", "this reference can't be run any more")
    gate["afraid_of"] = 0.0
    second = {**gate, "id": "second", "afraid_of": 6.0}
    bench.recipe({"id": "made", "text": "new"}, gate, second)
    done = said(call(bench, recipe).expect(0, "`second@service` could not be compared"))
    assert list(done["changes"]) == ["gate@service"], "one that could is enough, and the other is told"


def test_each_output_that_changes_takes_a_gate_that_ran(bench: ProjectFixture) -> None:
    def gate(name: str, of: str, **options: Any) -> dict[str, Any]:
        return {"id": name, "use": "faulty.versus", "from": {"candidate": of, "reference": "model"}, **options}

    new_upstream(bench, score=6.0)
    steps = [{"id": "a", "from": {"model": "model"}}, {"id": "b", "text": "b", "from": {"model": "model"}}]
    recipe = bench.recipe(*steps, gate("ga", "a"), gate("gb", "b"))
    first = said(call(bench, recipe).expect(0))["version"]
    bench.recipe(*steps, gate("ga", "a"), gate("gb", "b", afraid_of=6.0))
    new_upstream(bench, score=6.05)
    done = said(call(bench, recipe).expect(1, "`gb@service`", "this reference can't be run any more"))
    assert done["outcome"] == "failed", "the gate of `a` says nothing of `b`"
    assert (done["version_before"], done["version"], in_service(bench)) == (first, first, first)


def test_the_gate_of_what_is_made_of_an_output_does_not_speak_for_it(bench: ProjectFixture) -> None:
    def recipe(**options: Any) -> Path:
        gates = [
            {"id": f"gate-{of}", "use": "faulty.versus", "from": {"candidate": of, "reference": "model"}, **more}
            for of, more in (("a", options), ("b", {}))
        ]
        return bench.recipe({"id": "a"}, {"id": "b", "text": "b"}, *gates, outputs=["a", "b"])

    new_upstream(bench, score=6.0)
    call(bench, recipe()).expect(0)
    new_upstream(bench, score=6.05)
    call(bench, recipe(afraid_of=6.0)).expect(1, "`gate-a@service`", "this reference can't be run any more")


def test_a_damaged_manifest_of_what_was_rolled_back_holds(bench: ProjectFixture) -> None:
    recipe = bench.recipe(*SCORED)
    call(bench, recipe).expect(0)
    new_upstream(bench, score=1.5)
    second = said(call(bench, recipe).expect(0))["version"]
    roll_back(bench)
    (bench.out / "small" / second / "manifest.json").write_text("[")
    assert said(call(bench, recipe).expect(0))["outcome"] == "held"


def test_what_was_refused_and_cannot_be_measured_anew_stays_refused(bench: ProjectFixture) -> None:
    noise = bench.home / "noise.txt"
    noise.write_text("0")
    new_upstream(bench, score=1.0)
    recipe = bench.recipe({"id": "made"}, {**SCORED[1], "noise": noise})
    first = said(call(bench, recipe).expect(0))["version"]
    new_upstream(bench, score=0.8)
    call(bench, recipe).expect(3, "a drop of 0.20")
    noise.write_text("0 1.0")
    call(bench, recipe).expect(1, "this reference can't be run any more")
    assert in_service(bench) == first


def test_a_version_put_into_service_meanwhile_is_compared_with(bench: ProjectFixture) -> None:
    """What is rebuilt while somebody rolls back is little worse than what was in service, much worse than what is."""
    hold = bench.home / "hold"
    new_upstream(bench, score=1.0)
    recipe = bench.recipe(*SCORED)
    first = said(call(bench, recipe).expect(0))["version"]
    new_upstream(bench, score=0.95)
    call(bench, recipe).expect(0)
    new_upstream(bench, score=0.86)
    bench.recipe({"id": "made", "act": "wait", "to": hold}, SCORED[1])
    running = bench.start("refresh", recipe, "--store", bench.store, "--out", bench.out)
    with put_down(running):
        pids_in(hold)
        roll_back(bench)
        hold.unlink()
        done = said(ended(running).expect(3, "a drop of 0.14", f"{first} stays in service"))
    assert done["version_before"] == done["version"] == first == in_service(bench)


def test_only_what_it_reacts_to(bench: ProjectFixture) -> None:
    recipe = bench.recipe(*SCORED)
    call(bench, recipe).expect(0)
    new_upstream(bench, score=1.2)
    done = said(call(bench, recipe, "--only", "data,recipe").expect(0, "not reacted to: model: "))
    assert done["outcome"] == "fresh"
    assert done["ignored"]
    call(bench, recipe, "--only", "data").expect(0)
    runs = bench.call("history", "--json", "--store", bench.store).expect(0).said["runs"]
    assert [one["partial"] for one in runs] == [True, True, False]
    assert {(one["place"], one["out"]) for one in runs} == {(str(recipe), str(bench.out))}
    assert said(call(bench, recipe, "--only", "model").expect(0))["outcome"] == "promoted"
    call(bench, recipe, "--only", "modle").expect(2, "did you mean `model`?")


def test_what_comes_along_is_said(bench: ProjectFixture) -> None:
    recipe = bench.recipe(*SCORED)
    call(bench, recipe).expect(0)
    new_upstream(bench, score=1.2)
    bench.recipe({"id": "made", "text": "new"}, SCORED[1])
    done = said(call(bench, recipe, "--only", "model").expect(0))
    assert done["outcome"] == "promoted"
    assert any(says.startswith("recipe: ") and says.endswith("(no reason by itself)") for says in done["causes"])
    assert done["ignored"] == []


def test_another_name_of_an_output_is_the_recipes_doing(bench: ProjectFixture) -> None:
    recipe = bench.recipe(*SCORED)
    call(bench, recipe).expect(0)
    bench.recipe({"id": "renamed"}, SCORED[1])
    assert said(call(bench, recipe, "--only", "data").expect(0))["outcome"] == "fresh"
    done = said(call(bench, recipe).expect(0, "`renamed` is not in service yet"))
    assert done["outcome"] == "promoted"


def test_the_recipe_says_what_it_reacts_to(bench: ProjectFixture) -> None:
    recipe = bench.recipe(*SCORED, refresh={"on": ["recipe"]})
    call(bench, recipe).expect(0)
    new_upstream(bench, score=1.2)
    assert said(call(bench, recipe).expect(0))["outcome"] == "fresh"
    assert said(call(bench, recipe, "--only", "model").expect(0))["outcome"] == "promoted"


def test_a_stage_that_writes_something_else_now_is_toolchain(bench: ProjectFixture) -> None:
    recipe = bench.recipe(*SCORED)
    call(bench, recipe).expect(0)
    done = said(call(bench, recipe, FAULTY_VERSION="2").expect(0))
    assert "toolchain: steps.made.version: 1 → 2" in done["causes"]
    assert done["outcome"] == "unchanged", "the same bytes came out"
    assert lockfile.read(recipe.with_suffix(".lock"))["steps"]["made"]["version"] == 2
    assert said(call(bench, recipe, FAULTY_VERSION="2").expect(0))["outcome"] == "fresh"


def test_a_dry_run_writes_nothing(bench: ProjectFixture) -> None:
    recipe = bench.recipe(*SCORED)
    done = said(call(bench, recipe, "--dry-run").expect(0, "stale  small: 4 steps would be built"))
    assert (done["outcome"], done["built"]) == ("stale", 4)
    assert sorted(p.name for p in bench.home.iterdir()) == ["model", "small.yaml"]
    call(bench, recipe).expect(0)
    before = sorted(bench.store.rglob("*"))
    assert said(call(bench, recipe, "--dry-run").expect(0))["outcome"] == "fresh"
    assert sorted(bench.store.rglob("*")) == before


def test_artifacts_that_are_lost_are_put_back(bench: ProjectFixture) -> None:
    recipe = bench.recipe(*SCORED)
    first = said(call(bench, recipe).expect(0))
    shutil.rmtree(bench.out)
    done = said(call(bench, recipe).expect(0, "nothing is in service in "))
    assert (done["version"], done["built"]) == (first["version"], 0)
    assert in_service(bench) == first["version"]


def test_another_version_than_the_lock_says_is_replaced(bench: ProjectFixture) -> None:
    """As after a kill between the promotion and the writing of the lock, or a `run` of something else."""
    recipe = bench.recipe(*SCORED)
    first = said(call(bench, recipe).expect(0))
    text = recipe.read_text()
    bench.recipe({"id": "made", "text": "else"}, SCORED[1])
    bench.built(recipe)
    recipe.write_text(text)
    done = said(call(bench, recipe).expect(0, "is not what the lock says"))
    assert done["version"] == first["version"] == in_service(bench)


def test_a_machine_without_artifacts_compares_with_what_lock_and_store_tell(bench: ProjectFixture) -> None:
    recipe = bench.recipe(*SCORED)
    call(bench, recipe).expect(0)
    shutil.rmtree(bench.out)
    new_upstream(bench, score=0.2)
    done = said(call(bench, recipe).expect(3))
    assert done["failed"] == ["gate@service: a drop of 0.80"]
    assert not (bench.out / "small").exists()
    shutil.rmtree(bench.store)
    done = said(call(bench, recipe).expect(0, "neither here nor in the store"))
    assert done["outcome"] == "promoted"


def test_a_throwaway_machine_compares_with_what_the_remote_has(bench: ProjectFixture) -> None:
    far = bench.home / "far"
    recipe = bench.recipe(*SCORED)
    call(bench, recipe).expect(0)
    bench.call("store", "push", far, "--store", bench.store).expect(0)
    new_upstream(bench, score=0.2)

    def elsewhere(remote: object) -> CommandResult:
        for path in (bench.out, bench.store):
            shutil.rmtree(path, ignore_errors=True)
        return call(bench, recipe, "--store-remote", remote)

    assert said(elsewhere(far).expect(3))["failed"] == ["gate@service: a drop of 0.80"]
    with socket.socket() as nobody:  # bound, and not listening
        nobody.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        done = said(elsewhere(address).expect(75, "what is in service (made) is not here"))
    assert (done["outcome"], (bench.out / "small").exists()) == ("failed", False)


def test_what_the_lock_names_is_taken_up_in_its_own_format(bench: ProjectFixture) -> None:
    recipe = bench.recipe(*SCORED)
    call(bench, recipe).expect(0)
    shutil.rmtree(bench.out)
    bench.recipe({"id": "made", "form": "onnx"}, SCORED[1])
    new_upstream(bench, score=1.05)
    call(bench, recipe).expect(0, "gate@service: score: 1.0 → 1.05")
    kept = bench.call("store", "list", "--json", "--store", bench.store).expect(0).said
    assert [one["format"] for one in kept if one["stage"] == "load.kept"] == ["hf"]


def test_what_was_rolled_back_is_not_promoted_again(bench: ProjectFixture) -> None:
    recipe = bench.recipe(*SCORED)
    first = said(call(bench, recipe).expect(0))["version"]
    new_upstream(bench, score=1.5)
    second = said(call(bench, recipe).expect(0))["version"]
    roll_back(bench)
    assert in_service(bench) == first
    done = said(call(bench, recipe).expect(0, f"held  small: {first} was put back by hand and stays"))
    assert (done["outcome"], done["version"]) == ("held", first)
    recipe.with_suffix(".lock").unlink()
    done = said(call(bench, recipe).expect(0, f"{second} was taken out of service by hand"))
    assert (done["outcome"], in_service(bench)) == ("held", first)
    new_upstream(bench, score=1.6)
    done = said(call(bench, recipe).expect(0))
    assert done["outcome"] == "promoted", "what comes after is another thing"
    assert in_service(bench) not in (first, second)


def test_what_comes_after_a_rollback_is_promoted_though_somebody_locked_it(bench: ProjectFixture) -> None:
    recipe = bench.recipe(*SCORED)
    call(bench, recipe).expect(0)
    new_upstream(bench, score=1.5)
    call(bench, recipe).expect(0)
    roll_back(bench)
    new_upstream(bench, score=1.6)
    bench.call("lock", recipe, "--store", bench.store).expect(0)
    done = said(call(bench, recipe).expect(0, "is in service, and is not what the lock says"))
    assert (done["outcome"], done["changes"]) == ("promoted", {"gate@service": ["score: 1.0 → 1.6"]})


def test_what_was_rolled_back_is_known_by_its_bytes(bench: ProjectFixture) -> None:
    """Another store, another toolchain, another measurement: another version, of the same artifact."""
    noise = bench.home / "noise.txt"
    noise.write_text("0")
    recipe = bench.recipe({"id": "made"}, {**SCORED[1], "noise": noise})
    first = said(call(bench, recipe).expect(0))["version"]
    new_upstream(bench, score=1.05)
    second = said(call(bench, recipe).expect(0))["version"]
    roll_back(bench)
    shutil.rmtree(bench.store)
    noise.write_text("0.01")
    done = said(call(bench, recipe, FAULTY_VERSION="2").expect(0, f"{second} was taken out of service by hand"))
    assert (done["outcome"], in_service(bench)) == ("held", first)


def test_what_only_was_measured_anew_is_no_other_version(bench: ProjectFixture) -> None:
    noise = bench.home / "noise.txt"
    noise.write_text("0")
    recipe = bench.recipe({"id": "made"}, {**SCORED[1], "noise": noise}, refresh={"keep": 2})
    first = said(call(bench, recipe).expect(0))["version"]
    shutil.rmtree(bench.store)
    noise.write_text("0.01")
    done = said(call(bench, recipe, FAULTY_VERSION="2").expect(0, "unchanged  small: the same came out"))
    assert (done["version"], versions.versions(bench.out / "small")) == (first, [first])
    assert said(call(bench, recipe, FAULTY_VERSION="2").expect(0))["outcome"] == "fresh"


def test_a_rollback_holds_nothing_but_what_it_took_out(bench: ProjectFixture) -> None:
    recipe = bench.recipe(*SCORED)
    first = said(call(bench, recipe).expect(0))["version"]
    new_upstream(bench, score=1.5)
    call(bench, recipe).expect(0)
    roll_back(bench)
    marker = bench.out / "small" / first / "made" / "marker.txt"
    marker.write_text("mine\n")
    call(bench, recipe).expect(7, "was edited (made/marker.txt)")
    shutil.rmtree(bench.out / "small" / first)
    done = said(call(bench, recipe).expect(5, "was taken out of service by hand"))
    assert (done["outcome"], done["version"]) == ("held", None)


def test_run_says_what_it_takes_out_of_service(bench: ProjectFixture) -> None:
    recipe = bench.recipe(*SCORED)
    first = said(call(bench, recipe).expect(0))["version"]
    new_upstream(bench, score=1.5)
    second = said(call(bench, recipe).expect(0))["version"]
    roll_back(bench)
    assert f"promoted  {bench.out / 'small' / second} (instead of {first})\n" in bench.run(recipe).expect(0).out
    assert f"unchanged  {bench.out / 'small' / second}\n" in bench.run(recipe).expect(0).out


def test_a_place_that_cannot_be_is_refused(bench: ProjectFixture) -> None:
    recipe = bench.recipe(*SCORED)
    bench.out.symlink_to(bench.home / "not" / "mounted")
    call(bench, recipe).expect(2, "artifacts can't be made")


def test_versions_beyond_keep_go(bench: ProjectFixture) -> None:
    recipe = bench.recipe(*SCORED, refresh={"keep": 2})
    made = []
    for score in (1.0, 1.1, 1.2):
        new_upstream(bench, score=score)
        done = said(call(bench, recipe).expect(0))
        made.append(done["version"])
    assert done["removed"] == [made[0]]
    there = sorted(p.name for p in (bench.out / "small").iterdir() if p.is_dir() and not p.is_symlink())
    assert there == sorted(made[1:])
    recipe = bench.recipe(*SCORED, refresh={"keep": 1})
    done = said(call(bench, recipe).expect(0))
    assert (done["outcome"], done["removed"]) == ("fresh", [made[1]]), "as after a kill before it came to this"


def test_an_edited_version_in_service_is_not_compared_with(bench: ProjectFixture) -> None:
    new_upstream(bench, score=1.0)
    recipe = bench.recipe(*SCORED)
    version = said(call(bench, recipe).expect(0))["version"]
    (bench.out / "small" / version / "made" / "marker.txt").write_text("mine\n")
    for score in (1.0, 1.5):
        new_upstream(bench, score=score)
        done = said(call(bench, recipe).expect(7, "was edited (made/marker.txt)"))
        assert (done["outcome"], done["error"]) == ("failed", "Refused")
    assert (bench.out / "small" / version / "made" / "marker.txt").read_text() == "mine\n"


def test_all_recipes_of_the_folder_and_going_on(bench: ProjectFixture) -> None:
    folder = bench.home / "recipes"
    folder.mkdir()
    shutil.move(bench.home / "model", folder / "model")
    for name, act in (("a", "raise"), ("b", "nothing")):
        bench.recipe({"id": "made", "act": act}, name=f"recipes/{name}")
    stopped = bench.call("refresh", "--store", bench.store, "--out", bench.out).expect(1)
    assert [json.loads(line)["recipe"] for line in stopped.out.splitlines()] == ["a"]
    summary = bench.home / "summary.md"
    ended = bench.call(
        "refresh", "--keep-going", "--json", "--store", bench.store, "--out", bench.out,
        GITHUB_STEP_SUMMARY=str(summary),
    ).expect(6)  # fmt: skip
    done = [json.loads(line) for line in ended.out.splitlines()]
    assert [(one["recipe"], one["outcome"], one["exit_code"]) for one in done] == [
        ("a", "failed", 1),
        ("b", "promoted", 0),
    ]
    assert ended.err.count("\n") < 30
    assert "building" not in ended.err, "--json leaves stderr to errors"
    text = summary.read_text()
    assert "| a | **failed** | nothing | 0 | 0 |" in text
    assert "because it was never locked" in text
    assert f"| b | promoted | `{in_service(bench, 'b')}` | 1 | 2 |" in text
    assert "**StageFailed**" in text
    bench.call("refresh", folder / "b.yaml", "b.yaml", "--store", bench.store).expect(2, "b.yaml has the same name")
    bench.call("run", folder / "b.yaml", "b.yaml", "--store", bench.store).expect(2, "b.yaml has the same name")
    shutil.rmtree(folder)
    bench.call("refresh", "--store", bench.store).expect(2, "no recipe is named")


def test_a_summary_that_cannot_be_written_undoes_nothing(bench: ProjectFixture) -> None:
    recipe = bench.recipe(*SCORED)
    done = said(
        call(bench, recipe, GITHUB_STEP_SUMMARY=str(bench.home / "no" / "summary.md")).expect(0, "warning   GITHUB")
    )
    assert done["version"] == in_service(bench)


def test_each_refresh_is_remembered(bench: ProjectFixture) -> None:
    recipe = bench.recipe(*SCORED)
    call(bench, recipe).expect(0)
    new_upstream(bench, score=0.2)
    call(bench, recipe).expect(3)
    runs = bench.call("history", "--json", "--store", bench.store).expect(0).said["runs"]
    assert [(one["command"], one["exit_code"]) for one in runs] == [("refresh", 3), ("refresh", 0)]
    version = in_service(bench)
    assert [one["version"] for one in runs] == [version, version]
    assert runs[0]["says"].startswith(f"small: {version} stays in service") and "a drop of 0.80" in runs[0]["says"]
    for one, events in ((runs[0], ["gate@service"]), (runs[1], [])):
        folder = bench.store / "runs" / one["id"]
        record = json.loads((folder / "run.json").read_text())
        assert record["manifest"]["steps"].keys() >= {"made", "gate"}, "`diff` can compare it"
        told = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
        assert {line["node"] for line in told if line["what"] == "built"} >= {"made", "gate", *events}


COMMITS = ["1" * 40, "2" * 40]


def test_a_followed_branch_that_moved_is_seen_and_nothing_is_written(
    bench: ProjectFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Hub is played by folders; the real one, on loopback, by tests/suites/loopback/test_refresh.py."""
    recipe = bench.recipe({"id": "made", "use": "export.onnx"}, refresh={"follow": "main"})
    text = recipe.read_text().replace("folder: model", f"hub: own/model\n  revision: '{COMMITS[0]}'")
    recipe.write_text(text)
    monkeypatch.setattr(hub_api, "resolve", lambda *_: COMMITS[1])
    seen = drift.find_drift(recipe, bench.out)
    assert [(move.old, move.new) for move in seen.moves] == [tuple(COMMITS)]
    assert upstream.moved(load_recipe(recipe), seen.moves)[1] == text.replace(*COMMITS)
    assert seen.plan.recipe.model["revision"] == COMMITS[1]
    assert seen.causes[0] == f"model: main of own/model moved: {COMMITS[0][:12]} → {COMMITS[1][:12]}"
    assert recipe.read_text() == text
    assert drift.find_drift(recipe, bench.out, ["toolchain"]).moves == []
    assert upstream.moves(seen.recipe, {"model"}) == []


class Pretended:
    """Refreshes of a recipe in this process, whose steps are pretended: what they come to is told in `content`."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made = Made(home)
        self.store, self.out, self.content = Store(home / "store"), home / "out", "weights"
        self.heads = {"model": MODEL, "data": ROWS}
        self.drops: list[str] = []
        """What the gates against the service say."""
        self.errors: dict[str, Exception] = {}
        monkeypatch.setattr(build, "build", self.build)
        monkeypatch.setattr(hub_api, "resolve", lambda repo, want, branch: self.heads[want])

    def build(self, plan: Plan, store: Store, **_: Any) -> BuildResult:
        built = BuildResult(plan)
        self.made.fill(built, store, content=self.content)
        for name in [name for name in plan.nodes if name in self.errors]:
            built.errors[name] = self.errors[name]  # type: ignore[assignment]
            del built.artifacts[name], built.verdicts[name]
        if "accuracy@service" in built.verdicts and self.drops:
            built.verdicts["accuracy@service"] = [Verdict("f1", False, says) for says in self.drops]
        return built

    def refresh(self, *only: Trigger, **recipe: Any) -> outcome.Refreshed:
        path = self.made.write(**recipe) if recipe else self.made.home / "toy.yaml"
        return refreshing.refresh(path, self.store, self.out, only=only)


@pytest.fixture
def pretended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pretended:
    return Pretended(tmp_path / "project", monkeypatch)


def test_a_promotion_moves_recipe_and_lock_and_a_refusal_neither(pretended: Pretended) -> None:
    assert pretended.refresh(refresh={"follow": "main"}).outcome == "promoted"
    recipe = pretended.made.home / "toy.yaml"
    place = lockfile.lock_path(recipe)
    text, held = recipe.read_text(), place.read_bytes()
    assert lockfile.read(place)["sources"]["model:files"]["from"] == f"acme/small at {MODEL}"
    pretended.heads["model"], pretended.content, pretended.drops = "b" * 40, "poison", ["a drop"]
    done = pretended.refresh()
    assert (done.outcome, done.failed) == ("refused", ["accuracy@service: a drop"])
    assert (recipe.read_text(), place.read_bytes()) == (text, held)
    pretended.heads["model"], pretended.content, pretended.drops = "c" * 40, "better", []
    done = pretended.refresh("model")
    assert (done.outcome, [move["to"] for move in done.moved]) == ("promoted", ["c" * 40])
    assert recipe.read_text() == text.replace(MODEL, "c" * 40)
    assert lockfile.read(place)["sources"]["model:files"]["from"] == f"acme/small at {'c' * 40}"
    assert pretended.refresh().outcome == "fresh"


def test_a_dry_run_reacts_as_a_refresh_would(pretended: Pretended) -> None:
    pretended.refresh(refresh={"follow": "main"})
    recipe = pretended.made.home / "toy.yaml"
    text, pretended.heads["model"] = recipe.read_text(), "b" * 40
    wanted: list[tuple[list[Trigger], str]] = [([], "stale"), (["model"], "stale"), (["data", "recipe"], "fresh")]
    for only, expected in wanted:
        done = refreshing.refresh(recipe, pretended.store, pretended.out, only=only, dry_run=True)
        assert (done.outcome, bool(done.moved)) == (expected, expected == "stale"), only
    assert recipe.read_text() == text


def test_a_rollback_of_long_ago_holds_nothing(pretended: Pretended) -> None:
    """What somebody ran by hand since is replaced by what the lock says."""
    pretended.refresh(refresh={"follow": "main"})
    for commit, content in (("b" * 40, "two"), ("c" * 40, "three")):
        pretended.heads["model"], pretended.content = commit, content
        wanted = pretended.refresh().version
        if content == "two":
            versions.rollback(pretended.out / "toy")
    recipe = pretended.made.home / "toy.yaml"
    text = recipe.read_text()
    pretended.made.put(pretended.out, content="four")
    recipe.write_text(text)
    done = pretended.refresh()
    assert (done.outcome, done.version) == ("promoted", wanted)
    [why] = done.causes
    assert why.endswith("is in service, and is not what the lock says")


def test_what_was_not_in_service_is_told(pretended: Pretended) -> None:
    pretended.refresh(outputs=["float"])
    done = pretended.refresh(outputs=["float", "int8"])
    assert done.warnings == ["`int8` is not in service yet: nothing to compare it with"]


@pytest.mark.parametrize("error", [TryAgain("the disk is full"), StageFailed("it can't be run")])
def test_what_may_succeed_later_does_not_pass_for_compared(pretended: Pretended, error: Exception) -> None:
    """One gate told its figures, the other found the disk full: nothing is promoted on half a comparison."""
    second = {**RECIPE["stages"][2], "id": "second"}
    first = pretended.refresh(stages=[*RECIPE["stages"], second]).version
    pretended.content, pretended.errors = "other", {"second@service": error}
    (pretended.made.home / "rows.jsonl").write_text('{"id": "2"}\n')
    done = pretended.refresh()
    if isinstance(error, TryAgain):
        assert (done.outcome, done.exit_code, done.error, done.version) == ("failed", 75, "TryAgain", first)
    else:
        assert done.warnings == ["`second@service` could not be compared with what is in service: it can't be run"]
    service = latest.in_service(pretended.out / "toy")
    assert service is not None and (service.name == first) == isinstance(error, TryAgain)


@pytest.mark.parametrize("wanted", [True, False])
def test_environments_are_made_only_when_asked(
    pretended: Pretended, monkeypatch: pytest.MonkeyPatch, wanted: bool
) -> None:
    made = []
    monkeypatch.setattr(preview, "lacking", lambda plan, store: ["ipex"])
    monkeypatch.setattr(environments, "create", lambda name, tell: made.append(name))
    path = pretended.made.write()
    assert refreshing.refresh(path, pretended.store, pretended.out, create_envs=wanted).outcome == "promoted"
    assert made == (["ipex"] if wanted else [])


@pytest.mark.parametrize(("content", "outcome"), [("better", "promoted"), ("weights", "unchanged")])
def test_the_version_in_service_is_hashed_once(
    pretended: Pretended, monkeypatch: pytest.MonkeyPatch, content: str, outcome: str
) -> None:
    """Its files may be many gigabytes: drift, baseline, decision and promotion share one look at them."""
    version = latest.in_service(pretended.out / "toy") if pretended.refresh(refresh={"follow": "main"}) else None
    assert version is not None
    files = {version / name for name in manifest.read_manifest(version)["files"]}
    hashed: list[Path] = []

    def count(path: Path) -> str:
        hashed.append(path)
        return digest_file(path)

    for module in (manifest, publish):
        monkeypatch.setattr(module, "digest_file", count)
    pretended.heads["data"], pretended.content = "d" * 40, content
    if outcome == "unchanged":
        pretended.heads["data"] = ROWS
        lockfile.lock_path(pretended.made.home / "toy.yaml").unlink()
    assert pretended.refresh().outcome == outcome
    of_version = [path for path in hashed if version in path.parents]
    assert sorted(of_version) == sorted(files)
