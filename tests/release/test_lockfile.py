"""A lock says what a recipe came to: it is the same wherever it is written, and whatever moved since is told."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Cli
from hypothesis import assume, given
from hypothesis import strategies as st
from project import InProcessProject
from publishing import MODEL, RECIPE, PretendedProject
from publishing import ROWS as ROW_COMMIT

from cpu_pipeline import api
from cpu_pipeline.core import hub_api, jsonl
from cpu_pipeline.core.errors import RecipeError, StageFailed, TryAgain
from cpu_pipeline.engine import build as engine
from cpu_pipeline.engine import environments
from cpu_pipeline.engine.packages import installed
from cpu_pipeline.engine.result import BuildResult
from cpu_pipeline.graph.plan import Plan
from cpu_pipeline.release import lockfile
from cpu_pipeline.store.local import Store

ROWS = [{"text": f"a {word} film", "label": label} for word, label in (("good", 1), ("bad", 0))] * 2
STEPS: tuple[dict[str, Any], ...] = (
    {"id": "one", "runs": "runs.txt"},
    {"id": "two", "text": "two", "runs": "runs.txt"},
    {"id": "gate", "use": "faulty.gate", "runs": "runs.txt"},
    {"id": "speed", "use": "faulty.measure", "runs": "runs.txt", "seconds": 0.1, "from": {"candidate": "two"}},
)


def write(bench: InProcessProject, *steps: dict[str, Any]) -> Path:
    (bench.home / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    return bench.recipe(*(steps or STEPS), data={"validation": {"file": "rows.jsonl"}})


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> InProcessProject:
    """Give a project with a recipe and its lock; not to be changed."""
    bench = InProcessProject(tmp_path_factory.mktemp("lock") / "project")
    recipe = write(bench)
    bench.call("lock", recipe, "--store", bench.store).expect(0)
    return bench


@pytest.fixture
def bench(whole: InProcessProject, tmp_path: Path) -> InProcessProject:
    """Give a copy of it, in another place, to be changed."""
    shutil.copytree(whole.home, tmp_path / "project", symlinks=True)
    return InProcessProject(tmp_path / "project")


def said(bench: InProcessProject) -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load((bench.home / "small.lock").read_text())
    return read


def test_holds_what_was_asked_what_it_was_made_of_and_what_came_out(whole: InProcessProject) -> None:
    held = said(whole)
    assert held["lock"] == 2 and held["recipe"]["name"] == "small"
    assert set(held["sources"]) == {"model:files", "data.validation:files"}
    files = held["sources"]["model:files"]["files"]
    size, sha = files["model.safetensors"].split()
    assert int(size) == (whole.home / "model" / "model.safetensors").stat().st_size and len(sha) == 64
    chosen = jsonl.read_jsonl(Store(whole.store).path_of(held["steps"]["data.validation"]["output"]) / jsonl.ROWS)
    ids = "\n".join(str(row["id"]) for row in chosen)
    digest = hashlib.sha256(ids.encode()).hexdigest()
    assert held["rows"]["data.validation"] == {"count": 4, "total": len(ROWS), "ids": digest}
    assert {"python", "system", "isa", "cpu-pipeline"} == set(held["made_with"])
    assert {"tokenizers", "safetensors"} <= set(held["packages"])
    assert {"key", "output", "use", "version"} == set(held["steps"]["two"])
    assert held["gates"]["gate"]["score"] == {"passed": True, "value": 1.0, "bound": 0.5}
    # What a machine measures is not for another run to repeat.
    assert {"use", "version"} == set(held["steps"]["speed"])


def test_is_one_fact_a_line(whole: InProcessProject) -> None:
    lines = (whole.home / "small.lock").read_text().splitlines()
    assert all(line.startswith("#") or line.lstrip().count(": ") + line.endswith(":") == 1 for line in lines)
    assert str(whole.home) not in "\n".join(lines)


def test_is_fresh_and_is_not_written_again(bench: InProcessProject) -> None:
    before = (bench.home / "small.lock").stat().st_ino
    assert "fresh" in bench.call("lock", "small.yaml", "--check").expect(0).out
    assert "unchanged" in bench.call("lock", "small.yaml", "--store", bench.store).expect(0).out
    assert (bench.home / "small.lock").stat().st_ino == before
    assert bench.built(bench.home / "small.yaml", "--locked").json["exit_code"] == 0


def test_is_the_same_of_a_cold_build_in_another_place(bench: InProcessProject, whole: InProcessProject) -> None:
    shutil.rmtree(bench.store)
    (bench.home / "small.lock").unlink()
    bench.call("lock", "small.yaml", "--store", bench.home / "another store").expect(0)
    assert (bench.home / "small.lock").read_bytes() == (whole.home / "small.lock").read_bytes()


def other_rows(bench: InProcessProject) -> None:
    (bench.home / "rows.jsonl").write_text(json.dumps({**ROWS[0], "id": "z"}) + "\n")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda b: write(b, STEPS[0], {**STEPS[1], "text": "x"}, *STEPS[2:]), ["recipe.digest: ", "steps.two.key: "]),
        (lambda b: write(b, *STEPS[:2], {**STEPS[2], "at_least": 0.6}, STEPS[3]), ["recipe.digest: "]),
        (lambda b: b.env.update(FAULTY_VERSION="2"), ["steps.one.version: 1 → 2", "steps.two.version: 1 → 2"]),
        (other_rows, ["data.validation: its files on this machine changed"]),
        (lambda b: (b.home / "model" / "config.json").open("a").write("\n"), ["model: its files on this machine "]),
        (lambda b: write(b, *STEPS[:3]), ["recipe.digest: ", "steps.speed: "]),
    ],
    ids=["option", "threshold", "stage", "rows", "model", "step"],
)  # fmt: skip
def test_what_moved_is_told_and_nothing_is_built(bench: InProcessProject, change: Any, says: list[str]) -> None:
    change(bench)
    bench.call("lock", "small.yaml", "--check").expect(5, "error: ", *says)
    before = bench.lines()
    bench.run(bench.home / "small.yaml", "--locked").expect(5, *says)
    assert bench.lines() == before and not bench.out.exists()
    # Only what moved is told, not everything that hangs on it.
    assert "steps.gate.key" not in bench.call("lock", "small.yaml", "--check").err


def test_another_package_is_told_by_its_name(bench: InProcessProject) -> None:
    path = bench.home / "small.lock"
    held = said(bench)
    path.write_text(path.read_text().replace(f"tokenizers: {held['packages']['tokenizers']}", "tokenizers: 0.0.1"))
    bench.call("lock", "small.yaml", "--check").expect(5, "\n  tokenizers 0.0.1 → ")


def test_what_comes_out_different_is_refused_after_building(bench: InProcessProject) -> None:
    """The output of the last model is not what another step's key rests on: only building shows it."""
    path, last = bench.home / "small.lock", said(bench)["steps"]["gate"]["output"]
    path.write_text(path.read_text().replace(last, "f" * 64))
    bench.call("lock", "small.yaml", "--check").expect(0)
    bench.run(bench.home / "small.yaml", "--locked").expect(
        5, f"step `gate` came out as {last[:12]}, the lock says {'f' * 12}"
    )
    assert not bench.out.exists()


def test_a_failed_gate_leaves_the_lock_as_it_was(bench: InProcessProject) -> None:
    before = (bench.home / "small.lock").read_bytes()
    write(bench, *STEPS[:2], {**STEPS[2], "score": 0.1}, STEPS[3])
    bench.call("lock", "small.yaml", "--store", bench.store).expect(3, "score 0.1, at least 0.5 asked")
    assert (bench.home / "small.lock").read_bytes() == before
    assert not [p for p in bench.home.iterdir() if p.name.startswith(".small.lock")]


def damage(bench: InProcessProject, pattern: str) -> None:
    found = list(bench.store.rglob(f"objects/**/{pattern}"))
    assert found
    for file in found:
        file.chmod(0o644)
        file.write_text(file.read_text()[:-1] + " ")  # the size stays


def test_what_was_fetched_is_read_again_for_the_lock_and_fetched_again(bench: InProcessProject) -> None:
    before = (bench.home / "small.lock").read_bytes()
    damage(bench, "config.json")
    damage(bench, "rows.jsonl")
    said = bench.call("lock", "small.yaml", "--store", bench.store).expect(0)
    for node in ("model:files", "data.validation:files", "data.validation"):
        assert f"warning   {node}  its object in the store was damaged; set aside, building it again" in said.err
    assert (bench.home / "small.lock").read_bytes() == before
    said = bench.call("lock", "small.yaml", "--store", bench.store).expect(0)
    assert "warning" not in said.err and "building" not in said.err


def test_what_comes_out_different_once_it_is_mended_is_refused(bench: InProcessProject) -> None:
    """What `--locked` promises holds of what was built anew in the place of a damaged object, too."""
    path, last = bench.home / "small.lock", said(bench)["steps"]["two"]["output"]
    write(bench, STEPS[0], {**STEPS[1], "act": "fill"})  # in no key
    bench.call("lock", "small.yaml", "--store", bench.home / "other").expect(0)
    path.write_text(path.read_text().replace(said(bench)["steps"]["two"]["output"], last))
    damage(bench, f"{last}/marker.txt")
    bench.run(bench.home / "small.yaml", "--locked").expect(5, "warning   two", "step `two` came out as ")
    assert not list(bench.out.glob("*/*"))


@pytest.mark.parametrize("text", [b"\xff\xfe", b"lock: 1\n\xe9"])
def test_a_lock_that_is_no_text_is_written_anew(bench: InProcessProject, text: bytes) -> None:
    path = bench.home / "small.lock"
    before = path.read_bytes()
    path.write_bytes(text)
    bench.call("lock", "small.yaml", "--check").expect(2, "small.lock")
    assert bench.call("lock", "small.yaml", "--store", bench.store).expect(0).out.startswith("wrote")
    assert path.read_bytes() == before


def test_a_record_that_is_lost_is_told_before_anything_is_built(bench: InProcessProject) -> None:
    shutil.rmtree(bench.store / "runs")
    (bench.store / "runs").write_text("in the way")
    says = "warning   history  this run is not recorded: "
    assert bench.call("lock", "small.yaml", "--store", bench.store).expect(0).err.startswith(says)
    write(bench, {**STEPS[0], "act": "raise", "text": "bad"})
    assert bench.call("lock", "small.yaml", "--store", bench.store).expect(1).err.startswith(says)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "there is no lock; write it with `cpu-pipeline lock`"),
        ("lock: 1\n        ("lock: 1\n=======\nrecipe: {}\n", ":2:1: a merge that was not settled (`=======`)"),
        ("lock: 1\nrecipe: {}\n>>>>>>> theirs\n", ":3:1: a merge that was not settled (`>>>>>>>`)"),
        ("||||||| base\nlock: 1\n", ":1:1: a merge that was not settled (`|||||||`)"),
        ("lock: 3\n", "written by a newer cpu-pipeline (its format is 3, this one reads 2)"),
        ("recipe: {}\n", ":1:1: not a lock"),
        ("lock: 1\nrecipe: {}\n", "not a whole lock: made_with: field required"),
        (
            "{lock: 1, recipe: {}, made_with: {}, packages: {}, environments: {}, steps: {one: {use: 3, version: 1}}, "
            "sources: {}, rows: {}, gates: {}}",
            "steps.one.use: input should be a valid string",
        ),
        ("lock: [\n", ":2:1"),
        ("", ":1:1: must hold keys and values"),
    ],
)
def test_what_is_no_lock_is_told(tmp_path: Path, text: str | None, says: str) -> None:
    path = tmp_path / "small.lock"
    if text is not None:
        path.write_text(text)
    with pytest.raises(RecipeError) as raised:
        lockfile.read_lock(path)
    assert says in str(raised.value) and len(str(raised.value).splitlines()) == 1


@given(st.dictionaries(st.text(min_size=1), st.one_of(st.text(), st.integers(), st.booleans(), st.none()), max_size=5))
def test_every_text_is_read_as_it_was_written(facts: dict[str, Any]) -> None:
    from cpu_pipeline.recipe import document

<<<<<<< HEAD
    text = lockfile.dump({"lock": 1, "facts": facts})
    assert document.parse(text, Path("x"), any_text=True).value["facts"] == facts


@pytest.mark.parametrize(
    "text", ["12e34", "1e5", "no", "010", "2026-11-22", "0x1f", ".inf", "~", "3.11", "a: b", "# c"]
)
def test_what_looks_like_a_number_stays_text(text: str) -> None:
    from cpu_pipeline.recipe import document

    assert document.parse(lockfile.dump({"fact": text}), Path("x")).value == {"fact": text}


def test_a_lock_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "small.lock"
    assert lockfile.write_lock({"lock": 1}, path) and not lockfile.write_lock({"lock": 1}, path)
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch, pytest.raises(TryAgain):
        patch.setattr(os, "fsync", full)
        lockfile.write_lock({"lock": 1, "steps": {}}, path)
    assert path.read_bytes() == before


def test_an_environment_is_locked_by_its_pins(tmp_path: Path) -> None:
    made = PretendedProject(tmp_path / "project")
    built, store = made.build(stages=[{"id": "float", "use": "export.optimum"}], outputs=["float"])
    held = lockfile.make_lock(built, store)
    assert held["environments"] == {"optimum": environments.get("optimum").digest}
    assert lockfile.drift(held, built.plan) == []
    [moved] = lockfile.drift({**held, "environments": {"optimum": "0" * 64}}, built.plan)
    assert moved.kind == "toolchain" and "optimum" in moved.says


def test_what_scores_the_task_is_locked_too(tmp_path: Path) -> None:
    built, store = PretendedProject(tmp_path / "project").build(task="token-classification")
    assert lockfile.make_lock(built, store)["packages"]["seqeval"] == installed("seqeval")


def test_what_was_fetched_says_from_where_and_whose_doing_it_is(tmp_path: Path) -> None:
    made = PretendedProject(tmp_path / "project")
    built, store = made.build()
    held = lockfile.make_lock(built, store)
    assert {name: said["from"] for name, said in held["sources"].items()} == {
        "model:files": f"acme/small at {MODEL}", "data.calibration:files": f"acme/rows at {ROW_COMMIT}",
        "data.validation:files": "local",
    }  # fmt: skip
    for name, kind in (("model:files", "model"), ("data.calibration:files", "data"), ("int8", "toolchain")):
        steps = {**held["steps"], name: {**held["steps"][name], "key": "0" * 64}}
        assert [one.kind for one in lockfile.drift({**held, "steps": steps}, built.plan)] == [kind], name
    options = {"mode": "static", "per_channel": False}
    stages = [RECIPE["stages"][0], {**RECIPE["stages"][1], "with": options}, RECIPE["stages"][2]]
    found = lockfile.drift(held, api.plan(api.load_recipe(made.write(stages=stages))))
    assert {one.kind for one in found} == {"recipe"} and len(found) > 1


def test_neither_words_nor_schedule_make_a_lock_stale(tmp_path: Path) -> None:
    made = PretendedProject(tmp_path / "project")
    built, store = made.build()
    held = lockfile.make_lock(built, store)
    for change in ({"about": "Other words."}, {"refresh": {"cron": "5 3 * * *", "keep": 3}}):
        assert lockfile.drift(held, api.plan(api.load_recipe(made.write(**change)))) == []


def test_only_what_a_recipe_means_makes_a_lock_stale(tmp_path: Path) -> None:
    made = PretendedProject(tmp_path / "project")
    built, store = made.build()
    held = lockfile.make_lock(built, store)
    path = made.write()
    value = json.loads(path.read_text())
    backwards = {key: value[key] for key in reversed(value)}
    plain = json.dumps(value)
    for text in (json.dumps(value, indent=3), json.dumps(backwards), f"# a comment\n{plain}", plain.replace('"', "'")):
        path.write_text(text)
        assert lockfile.drift(held, api.plan(api.load_recipe(path))) == [], text
    changed = made.write(unchecked={"float": "another reason"})
    assert [one.kind for one in lockfile.drift(held, api.plan(api.load_recipe(changed)))] == ["recipe"]


def test_upgrade_moves_the_recipe_with_its_lock(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And neither when it fails."""
    made, moved, errors = PretendedProject(tmp_path / "project"), "c" * 40, {"int8": StageFailed("no")}

    def build(plan: Plan, store: Store, *_: Any, **__: Any) -> BuildResult:
        built = BuildResult(plan)
        made.pretend_steps(built, store)
        built.errors |= errors
        return built

    monkeypatch.setattr(engine, "build", build)
    monkeypatch.setattr(hub_api, "resolve", lambda repo, want, branch: moved if want == "model" else ROW_COMMIT)
    recipe = made.write(refresh={"follow": "main"})
    text = recipe.read_text()
    command = ("lock", "--upgrade", recipe, "--store", tmp_path / "store")
    assert cli(*command).code == 1
    assert recipe.read_text() == text and not lockfile.lock_path(recipe).exists()
    errors.clear()
    said = cli(*command)
    assert said.code == 0 and f"advanced  model: main of acme/small advanced: {MODEL[:12]} → {moved[:12]}" in said.out
    assert recipe.read_text() == text.replace(MODEL, moved)
    assert lockfile.read_lock(lockfile.lock_path(recipe))["sources"]["model:files"]["from"] == f"acme/small at {moved}"


def test_upgrade_needs_a_branch_to_follow(bench: InProcessProject) -> None:
    recipe = bench.home / "small.yaml"
    bench.call("lock", "--upgrade", recipe, "--store", bench.store).expect(2, "it follows no branch", "follow: main")
    bench.call("lock", "--upgrade", "--check", recipe, "--store", bench.store).expect(2, "leave out --upgrade")
