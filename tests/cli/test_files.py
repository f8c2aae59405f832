"""`verify` re-hashes a version and says whether this CPU may run it."""

from __future__ import annotations

import json
from pathlib import Path

from conftest import Cli
from faults.bench import Bench


def latest(bench: Bench) -> Path:
    return bench.out / "small" / "latest"


def test_a_version_as_written(cli: Cli, whole: Bench) -> None:
    said = cli("verify", latest(whole))
    assert said.code == 0
    assert said.out.splitlines()[1:] == ["two: runs on this CPU"]
    found = cli("verify", latest(whole), "--json").json
    assert found["missing_instruction_sets"] == {"two": []}
    assert found["files"] == len(json.loads((latest(whole) / "manifest.json").read_text())["files"])


def test_a_version_that_was_edited(cli: Cli, built: Bench) -> None:
    (latest(built) / "two" / "marker.txt").write_text("owt\n")
    said = cli("verify", latest(built))
    assert said.code == 7 and "differs from its manifest: two/marker.txt" in said.err


def test_a_version_for_another_cpu(cli: Cli, built: Bench) -> None:
    """B12: an artifact that needs an instruction set which is not here."""
    built.built(built.recipe({"id": "one", "needs": ["no_such_set"]}))
    said = cli("verify", latest(built))
    assert said.code == 4
    assert "one: this CPU lacks no_such_set" in said.out
    assert "one cannot run on this CPU; build for it with `target: {isa: ...}`" in said.err


def test_a_folder_that_is_no_version(cli: Cli, tmp_path: Path) -> None:
    said = cli("verify", tmp_path)
    assert said.code == 2 and "no manifest.json; name a version's folder" in said.err
