"""`store list`, `stat`, `verify` and `gc`, on a store that a build has filled."""

from __future__ import annotations

from pathlib import Path

from conftest import Cli
from faults.bench import Bench

STAGES = ["faulty.copy", "faulty.copy", "faulty.gate", "fetch", "load.model"]


def objects(bench: Bench) -> list[Path]:
    return sorted(p for p in (bench.store / "objects").glob("*/*"))


def test_list(cli: Cli, whole: Bench) -> None:
    said = cli("store", "list", "--store", whole.store, "--json").json
    assert sorted(entry["stage"] for entry in said) == STAGES
    lines = cli("store", "list", "--store", whole.store).out.splitlines()
    assert sorted(line.split()[1] for line in lines) == STAGES


def test_stat(cli: Cli, whole: Bench) -> None:
    said = cli("store", "stat", "--store", whole.store, "--json").json
    assert said["root"] == str(whole.store)
    assert said["records"] == 5 and said["objects"] == len(objects(whole))
    assert f"{whole.store}: 5 records, {said['objects']} objects" in cli("store", "stat", "--store", whole.store).out


def test_verify(cli: Cli, built: Bench) -> None:
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


def test_verify_names_what_this_cpu_cannot_run(cli: Cli, built: Bench) -> None:
    built.built(built.recipe({"id": "one", "needs": ["no_such_set"]}))
    said = cli("store", "verify", "--store", built.store)
    assert said.code == 0 and "this CPU lacks no_such_set" in said.out


def test_gc(cli: Cli, built: Bench) -> None:
    assert cli("store", "gc", "--store", built.store).out == "removed 0 things, 0 bytes\n"
    said = cli("store", "gc", "--keep-days", "0", "--dry-run", "--store", built.store)
    assert "would remove" in said.out and objects(built)
    gone = cli("store", "gc", "--keep-days", "0", "--json", "--store", built.store).json
    assert len(gone) >= 5 and not objects(built)
    assert cli("store", "list", "--store", built.store, "--json").json == []


def test_looking_at_no_store_writes_nothing(cli: Cli, tmp_path: Path) -> None:
    for command in ("list", "stat", "verify"):
        assert cli("store", command, "--store", tmp_path / "none").code == 0
    assert not (tmp_path / "none").exists()


def test_a_store_that_is_a_file_is_refused(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said = cli("store", "list", "--store", tmp_path / "file")
    assert said.code == 2 and "is not a directory" in said.err
