"""`verify` re-hashes a version, reads its provenance, and says whether this CPU may run it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import yaml
from cli.conftest import STEPS
from conftest import Cli
from project import ProjectFixture
from publishing import change_version


def latest(bench: ProjectFixture) -> Path:
    return bench.out / "small" / "latest"


def test_a_version_as_written(cli: Cli, whole: ProjectFixture) -> None:
    said = cli("verify", latest(whole))
    assert said.code == 0
    first, *rest = said.out.splitlines()
    assert (
        first.startswith(f"{latest(whole)}: version {latest(whole).resolve().name}: ") and " files as written" in first
    )
    assert rest == ["two: runs on this CPU"]
    found = cli("verify", latest(whole), "--json").json
    assert found["missing_instruction_sets"] == {"two": []}
    assert (found["name"], found["version"]) == ("small", latest(whole).resolve().name)
    assert found["files"] == len(json.loads((latest(whole) / "manifest.json").read_text())["files"])


def test_a_version_that_was_edited(cli: Cli, built: ProjectFixture) -> None:
    (latest(built) / "two" / "marker.txt").write_text("owt\n")
    said = cli("verify", latest(built))
    assert said.code == 7 and "differs from its manifest: two/marker.txt" in said.err


def test_a_statement_that_was_edited_with_its_digest(cli: Cli, built: ProjectFixture) -> None:
    statement = json.loads((latest(built) / "provenance.json").read_text())
    statement["subject"][0]["digest"]["sha256"] = "0" * 64
    change_version(latest(built), {"provenance.json": json.dumps(statement)})
    said = cli("verify", latest(built), "--json")
    assert said.code == 7 and said.json["exit_code"] == 7
    assert "provenance.json: its subject two/README.md has another digest than the file" in said.err
    assert len(said.err.splitlines()) == 1


def test_a_version_from_before_there_were_statements(cli: Cli, built: ProjectFixture) -> None:
    change_version(latest(built), {"provenance.json": None})
    said = cli("verify", latest(built))
    assert said.code == 7 and "no provenance.json: it was written before versions had one" in said.err


def test_the_base_install_is_enough(whole: ProjectFixture) -> None:
    """Whatever the extras bring cannot be imported."""
    extras = ("cyclonedx", "packageurl", "in_toto_attestation", "google", "numpy", "torch", "onnx", "huggingface_hub")
    block = f"import sys; sys.modules.update(dict.fromkeys({extras!r})); from cpu_pipeline.cli import main; "
    run = [sys.executable, "-c", f"{block}raise SystemExit(main(['verify', {str(latest(whole))!r}]))"]
    done = subprocess.run(run, capture_output=True, text=True, check=False, env=whole.environment())
    assert (done.returncode, done.stderr) == (0, "")


def test_a_version_for_another_cpu(cli: Cli, built: ProjectFixture) -> None:
    """B12: an artifact that needs an instruction set which is not here."""
    built.built(built.recipe({"id": "one", "needs": ["no_such_set"]}))
    said = cli("verify", latest(built))
    assert said.code == 4
    assert "one: this CPU lacks no_such_set" in said.out
    assert "one cannot run on this CPU; build for it with `target: {isa: ...}`" in said.err
    said = cli("verify", latest(built), "--json")
    assert said.code == 4 and said.json["missing_instruction_sets"] == {"one": ["no_such_set"]}
    assert said.err.startswith("error: ") and len(said.err.splitlines()) == 1


def test_a_folder_that_is_no_version(cli: Cli, tmp_path: Path) -> None:
    said = cli("verify", tmp_path)
    assert said.code == 2 and "no manifest.json; name a version's folder" in said.err


def test_the_recipe_to_rebuild_with_gives_the_same_steps_elsewhere(tmp_path: Path) -> None:
    """Also where a pipeline's file, `with:` and --set had a say: none of them is there."""
    home = ProjectFixture(tmp_path / "project" / "recipes")
    steps = yaml.safe_load(home.recipe(*STEPS).read_text())["stages"]
    steps[1] |= {"from": {"model": "one"}, "timeout": 60}
    pipelines = home.home.parent / "pipelines"
    pipelines.mkdir()
    (pipelines / "mine.yaml").write_text(yaml.safe_dump({"about": "Mine.", "stages": steps}))
    written = {"about": "A toy.", "pipeline": "mine", "with": {"two": {"text": "recipe's"}}, "outputs": ["one", "two"]}
    written["unchecked"] = dict.fromkeys(written["outputs"], "a test")
    recipe = home.home / "small.yaml"
    recipe.write_text(yaml.safe_dump({"model": {"folder": "model"}, "task": "text-classification", **written}))
    digests = home.built(recipe, "--set", "one.text=other", "--promote-anyway", "to rebuild it").digests
    version = latest(home)
    parameters = json.loads((version / "provenance.json").read_text())["predicate"]["buildDefinition"]
    resolved = parameters["externalParameters"]["resolved"]
    assert parameters["externalParameters"]["recipe"]["pipeline"] == "mine"
    assert resolved["stages"][1]["timeout"] == 60 and resolved["stages"][1]["with"]["text"] == "recipe's"
    elsewhere = ProjectFixture(tmp_path / "elsewhere")
    again = elsewhere.home / "small.yaml"
    again.write_text(json.dumps(resolved))
    assert elsewhere.built(again).digests == digests
    block = (version / "two" / "README.md").read_text().partition("```yaml\n")[2].partition("\n```")[0]
    assert yaml.safe_load(block) == resolved and next(iter(yaml.safe_load(block))) == "about"
