"""`store list`, `stat`, `verify` and `gc`, on a store that a build has filled."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import ROOT, Cli
from project import ProjectFixture

from cpu_pipeline.store.lease import leased
from cpu_pipeline.store.local import Store

STAGES = ["faulty.copy", "faulty.copy", "faulty.gate", "fetch", "load.model"]


def objects(bench: ProjectFixture) -> list[Path]:
    return sorted(p for p in (bench.store / "objects").glob("*/*"))


def test_list(cli: Cli, whole: ProjectFixture) -> None:
    said = cli("store", "list", "--store", whole.store, "--json").json
    assert sorted(entry["stage"] for entry in said) == STAGES
    lines = cli("store", "list", "--store", whole.store).out.splitlines()
    assert sorted(line.split()[1] for line in lines) == STAGES


def test_stat(cli: Cli, whole: ProjectFixture) -> None:
    said = cli("store", "stat", "--store", whole.store, "--json").json
    assert said["root"] == str(whole.store)
    assert said["records"] == 5 and said["objects"] == len(objects(whole))
    assert f"{whole.store}: 5 records, {said['objects']} objects" in cli("store", "stat", "--store", whole.store).out


def test_verify(cli: Cli, built: ProjectFixture) -> None:
    assert cli("store", "verify", "--store", built.store).code == 0
    [marker] = [p for p in built.store.glob("objects/*/*/marker.txt") if p.read_text() == "two\n"]
    marker.parent.chmod(0o755)
    marker.chmod(0o644)
    marker.write_text("twp\n")
    said = cli("store", "verify", "--store", built.store, "--json")
    assert said.code == 7 and len(said.json["problems"]) == 1
    assert said.json["not_for_this_cpu"] == []
    assert cli("store", "verify", "--store", built.store, "--repair").code == 0
    assert cli("store", "verify", "--store", built.store).code == 0
    assert len(cli("store", "list", "--store", built.store).out.splitlines()) == 4


def test_verify_names_what_this_cpu_cannot_run(cli: Cli, built: ProjectFixture) -> None:
    built.built(built.recipe({"id": "one", "needs": ["no_such_set"]}))
    said = cli("store", "verify", "--store", built.store)
    assert said.code == 0 and "this CPU lacks no_such_set" in said.out


def test_verify_of_a_damaged_card(cli: Cli, built: ProjectFixture) -> None:
    """Its card says what a CPU must have: of what is damaged it is not asked, and what can't be read is a problem."""
    built.built(built.recipe({"id": "one", "needs": ["no_such_set"]}))
    [card] = built.store.glob("objects/*/*/cpu_pipeline.json")
    card.chmod(0o644)
    card.write_bytes(b"[" + card.read_bytes()[1:])
    said = cli("store", "verify", "--store", built.store, "--json")
    assert said.code == 7 and [p["kind"] for p in said.json["problems"]] == ["damaged"]
    assert cli("store", "verify", "--store", built.store).code == 7
    assert cli("store", "verify", "--store", built.store, "--repair").code == 0
    assert cli("store", "verify", "--store", built.store).code == 0


def test_verify_of_a_card_that_was_nonsense_from_the_start(cli: Cli, built: ProjectFixture) -> None:
    with leased(Store(built.store)) as lease:
        for number in "12":
            work = lease.work(number * 64)
            (work / "cpu_pipeline.json").write_text("[]")
            lease.commit(number * 64, {"stage": "faulty.copy"}, "hf", {}, {}, work)
    said = cli("store", "verify", "--store", built.store)
    assert said.code == 7 and said.out.count("its cpu_pipeline.json is damaged") == 1 and "1 problems" in said.out


def test_gc(cli: Cli, built: ProjectFixture) -> None:
    for note in (built.store / "roots").iterdir():
        note.unlink()
    assert cli("store", "gc", "--store", built.store).out == "removed 0 things, 0 bytes\n"
    said = cli("store", "gc", "--keep-days", "0", "--dry-run", "--store", built.store)
    assert "would remove" in said.out and objects(built)
    gone = cli("store", "gc", "--keep-days", "0", "--json", "--store", built.store).json
    assert len(gone["removed"]) >= 5 and gone["roots"] == 0 and not objects(built)
    assert cli("store", "list", "--store", built.store, "--json").json == []


def test_gc_keeps_what_is_published(cli: Cli, whole: ProjectFixture) -> None:
    """The session's project, where it was built: its artifacts are a root."""
    before = objects(whole)
    said = cli("store", "gc", "--keep-days", "0", "--store", whole.store)
    assert said.code == 0 and "kept what 1 locks and artifacts name" in said.out
    assert cli("store", "gc", "--keep-days", "0", "--dry-run", "--json", "--store", whole.store).json["roots"] == 1
    assert objects(whole) == before


def test_gc_keeps_what_a_lock_names(cli: Cli, built: ProjectFixture) -> None:
    """The artifacts are elsewhere; the lock beside the recipe is enough, until it is gone, or can't be read."""
    for note in (built.store / "roots").iterdir():
        note.unlink()
    built.call("lock", built.home / "small.yaml", "--store", built.store).expect(0)
    before = objects(built)
    assert "kept what 1 locks" in cli("store", "gc", "--keep-days", "0", "--store", built.store).out
    assert objects(built) == before
    lock = built.home / "small.lock"
    lock.write_text("<<<<<<< ours\n")
    said = cli("store", "gc", "--keep-days", "0", "--store", built.store)
    assert said.code == 2 and "small.lock:1:1" in said.err and "nothing was collected" in said.err
    assert objects(built) == before
    lock.unlink()
    assert cli("store", "gc", "--keep-days", "0", "--store", built.store).code == 0
    assert not objects(built)


def test_push_and_pull(cli: Cli, built: ProjectFixture, tmp_path: Path) -> None:
    far, other = tmp_path / "far", tmp_path / "other"
    recipe = built.home / "small.yaml"
    assert cli("store", "pull", far, "--store", other).out == f"nothing to be pulled: {far}\n"
    said = built.call("store", "push", far, "--recipe", recipe, "--store", built.store).expect(0)
    assert "pushed 5 steps" in said.out
    assert [line.split()[1] for line in said.err.splitlines()] == [
        "small/model:files", "small/model", "small/one", "small/two", "small/gate",
    ]  # fmt: skip
    again = cli("store", "push", far, "--store", built.store, "--json").json
    assert (again["remote"], again["bytes"], again["moved"], len(again["present"])) == (str(far), 0, [], 5)
    pulled = built.call("store", "pull", far, "--recipe", recipe, "--store", other).expect(0)
    assert "pulled 5 steps" in pulled.out
    assert cli("store", "verify", "--store", other).code == 0
    assert len(cli("store", "list", "--store", other).out.splitlines()) == 5


def test_what_is_lacking_is_named(cli: Cli, built: ProjectFixture, tmp_path: Path) -> None:
    """A lock beside the recipe counts, too: it says what is in service, whatever would be built now."""
    far = tmp_path / "far"
    key = "ab" * 32
    parts = "".join(f"{part}: {{}}\n" for part in ("recipe", "made_with", "packages", "environments", "sources"))
    step = f"steps: {{one: {{use: faulty.copy, version: 1, key: {key}}}}}\n"
    (built.home / "small.lock").write_text(f"lock: 1\n{parts}{step}rows: {{}}\ngates: {{}}\n")
    said = built.call("store", "push", far, "--recipe", built.home / "small.yaml", "--store", built.store).expect(0)
    assert "pushed 5 steps" in said.out and f"missing   small/one  {key[:12]}" in said.out
    (built.home / "small.lock").write_text("<<<<<<< ours\n")
    built.call("store", "pull", far, "--recipe", built.home / "small.yaml", "--store", built.store).expect(
        2, "small.lock:1"
    )


def test_plan_sees_what_the_remote_has(built: ProjectFixture, tmp_path: Path) -> None:
    recipe, other = built.home / "small.yaml", tmp_path / "other"
    said = built.call("plan", recipe, "--store", other, CPU_PIPELINE_STORE_REMOTE=str(built.store)).expect(0)
    assert "5 cached, 0 to build" in said.out and "in the remote store" in said.out
    assert not other.exists()
    said = built.call("plan", recipe, "--store", other, "--store-remote", tmp_path / "none").expect(0)
    assert said.err == "" and "0 cached, 5 to build" in said.out


def test_a_remote_that_cannot_be_reached(cli: Cli, built: ProjectFixture, tmp_path: Path) -> None:
    url = "http://user:geheim@127.0.0.1:9/store"
    for command in (("push", url, "--store", built.store), ("pull", url, "--store", tmp_path / "other", "--json")):
        said = cli("store", *command)
        assert said.code == 75 and "127.0.0.1:9/store" in said.err and "geheim" not in said.err + said.out
    recipe = built.home / "small.yaml"
    plan = built.call("plan", recipe, "--store", tmp_path / "other", "--store-remote", url).expect(0)
    assert plan.err.count("warning") == 1 and "geheim" not in plan.err


@pytest.mark.parametrize(
    "url",
    ["~nosuchuser/x", "file://~nosuchuser/x", "file://host/x", "zip://a::http://u:geheim@127.0.0.1:9/q",
     "s3://AKIA:abc/geheim@bucket/x", "https://bob:ge#heim@127.0.0.1:9/x"],
)  # fmt: skip
def test_a_remote_whose_address_is_wrong(url: str, cli: Cli, built: ProjectFixture, tmp_path: Path) -> None:
    said = cli("store", "push", url, "--store", built.store)
    assert said.code == 2 and "heim" not in said.err and said.err.count("\n") == 1
    plan = ("plan", ROOT / "recipes" / "quickstart.yaml", "--store", tmp_path / "other")
    said = cli(*plan, "--store-remote", url)
    assert "heim" not in said.err and said.err.count("\n") == 1
    assert said.code == 2 or "going on without it" in said.err


def test_a_store_of_nobody(cli: Cli) -> None:
    for command in (["store", "list", "--store", "~nosuchuser/x"], ["schedule", "--for", "cron"]):
        said = cli(*command, "--store", "~nosuchuser/x")
        assert said.code == 2 and "~nosuchuser/x" in said.err


def test_a_store_is_not_pushed_into_itself(cli: Cli, built: ProjectFixture) -> None:
    for where in (built.store, built.store / "work"):
        for command in (["push", where], ["push", where, "--force"], ["pull", where]):
            said = cli("store", *command, "--store", built.store)
            assert said.code == 2 and "name a folder apart from it" in said.err
    assert cli("store", "verify", "--store", built.store).code == 0


def test_looking_at_no_store_writes_nothing(cli: Cli, tmp_path: Path) -> None:
    for command in ("list", "stat", "verify"):
        assert cli("store", command, "--store", tmp_path / "none").code == 0
    assert not (tmp_path / "none").exists()


def test_a_store_that_is_a_file_is_refused(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said = cli("store", "list", "--store", tmp_path / "file")
    assert said.code == 2 and "is not a directory" in said.err
