"""The bill of materials is valid by the official schema, names every part, and is the same for the same store."""

from __future__ import annotations

import json
import uuid
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from publishing import MODEL, ROWS, PretendedProject

from cpu_pipeline.core.artifact import digest_file
from cpu_pipeline.core.errors import BackendMissing
from cpu_pipeline.engine import environments
from cpu_pipeline.release.documents import sbom
from cpu_pipeline.release.documents.sbom import FILE
from cpu_pipeline.release.manifest import read_manifest
from cpu_pipeline.release.verify import verify


@pytest.fixture
def made(tmp_path: Path) -> PretendedProject:
    return PretendedProject(tmp_path / "project")


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a version, not to be changed."""
    return PretendedProject(tmp_path_factory.mktemp("made") / "project").published()


def said(version: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((version / FILE).read_text())
    return read


def parts(bom: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Map every component below the root, nested ones too, by its reference."""
    found: dict[str, dict[str, Any]] = {}
    waiting = [bom["metadata"]["component"], *bom["components"]]
    while waiting:
        one = waiting.pop()
        assert one["bom-ref"] not in found
        found[one["bom-ref"]] = one
        waiting += one.get("components", [])
    return found


def valid(text: str) -> None:
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None


@pytest.mark.parametrize(
    "recipe",
    [
        {},
        {"tokenizer": {"hub": "acme/other", "revision": MODEL}},
        {"model": {"folder": "model"}},
        {"about": "<ü>\n\t|"},
    ],
)
def test_the_official_schema_accepts_it(recipe: dict[str, Any], made: PretendedProject) -> None:
    if "folder" in recipe.get("model", {}):
        (made.home / "model").mkdir()
        (made.home / "model" / "config.json").write_text("{}")
    text = (made.published(**recipe) / FILE).read_text()
    valid(text)
    with pytest.raises(AssertionError):
        valid(text.replace('"library"', '"librarian"'))


def test_the_model_is_a_component_and_so_is_what_it_came_from(version: Path) -> None:
    bom, manifest = said(version), read_manifest(version)
    root = bom["metadata"]["component"]
    assert (root["type"], root["name"], root["version"]) == ("machine-learning-model", "toy", version.name)
    found = parts(bom)
    for name in ("float", "int8"):
        assert found[name]["type"] == "machine-learning-model"
        files = {one["name"]: one["hashes"] for one in found[name]["components"]}
        assert files.keys() == {"README.md", "sub/file.txt"}
        for file, hashes in files.items():
            assert hashes == [{"alg": "SHA-256", "content": digest_file(version / name / file)}]
    base = found["model:files"]
    assert (base["type"], base["group"], base["name"]) == ("machine-learning-model", "acme", "small")
    assert base["purl"] == f"pkg:huggingface/acme/small@{MODEL}" and base["version"] == MODEL
    [weights] = found["model:files/model.safetensors"]["hashes"]
    assert weights in base["hashes"]
    assert not [one for one in found["model:files/config.json"]["hashes"] if one in base["hashes"]]
    data = found["data.calibration:files"]
    assert data["type"] == "data" and data["version"] == ROWS and "purl" not in data
    assert data["externalReferences"][0]["url"] == f"https://hub.example/datasets/acme/rows/tree/{ROWS}"
    assert found["data.validation:files"]["name"] == "rows.jsonl"
    onnx = f"pkg:pypi/onnx@{manifest['packages']['onnx']}"
    assert found[onnx]["purl"] == onnx and found[onnx]["type"] == "library"


def test_an_output_depends_on_what_it_was_made_of_and_the_version_on_everything(version: Path) -> None:
    bom = said(version)
    needs = {one["ref"]: set(one.get("dependsOn", [])) for one in bom["dependencies"]}
    onnx = f"pkg:pypi/onnx@{read_manifest(version)['packages']['onnx']}"
    assert needs["float"] == {"model:files", onnx}
    assert needs["int8"] == {"model:files", "data.calibration:files", onnx}
    assert needs[bom["metadata"]["component"]["bom-ref"]] >= {"float", "int8", "data.validation:files"}
    reached, waiting = set[str](), [bom["metadata"]["component"]["bom-ref"]]
    while waiting:
        if (here := waiting.pop()) not in reached:
            reached.add(here)
            waiting += needs.get(here, ())
    assert {one["bom-ref"] for one in bom["components"]} <= reached


def test_its_number_and_time_come_from_the_version(version: Path, made: PretendedProject) -> None:
    bom = said(version)
    assert bom["serialNumber"] == uuid.uuid5(uuid.NAMESPACE_URL, f"pkg:generic/toy@{version.name}").urn
    last = max(step["run"]["when"] for step in read_manifest(version)["steps"].values())
    assert datetime.fromisoformat(bom["metadata"]["timestamp"]).timestamp() == last
    other = said(made.published(content="other"))
    assert other["serialNumber"] != bom["serialNumber"]


def test_records_without_a_time_give_no_timestamp(made: PretendedProject) -> None:
    built, store = made.build()
    for name, record in built.records.items():
        built.records[name] = replace(record, run={})
    found = made.publish(built, store)
    text = (found / FILE).read_text()
    valid(text)
    assert "timestamp" not in json.loads(text)["metadata"]


def test_packages_of_environments(version: Path, made: PretendedProject) -> None:
    """A distribution that two environments have in one version is one component; in two versions, two."""
    built, _ = made.build()
    manifest = read_manifest(version)
    onnx = manifest["packages"]["onnx"]
    for name, pins in (("one", {"onnx": onnx, "torch": "2.8.0+cpu"}), ("two", {"onnx": "1.0"})):
        manifest["environments"][name] = {"pins": "0" * 64, "packages": pins, "warning": ""}
    text = sbom.render(built, manifest, [])
    valid(text)
    found = {
        one["bom-ref"]: one["properties"][0]["value"]
        for one in json.loads(text)["components"]
        if one["bom-ref"].startswith(("pkg:pypi/onnx@", "pkg:pypi/torch@"))
    }
    assert found == {
        f"pkg:pypi/onnx@{onnx}": "default one", "pkg:pypi/onnx@1.0": "two", "pkg:pypi/torch@2.8.0%2Bcpu": "one"
    }  # fmt: skip


def test_an_output_depends_on_the_environment_that_made_it(made: PretendedProject) -> None:
    version = made.published(environment="ipex")
    text = (version / FILE).read_text()
    valid(text)
    needs = {one["ref"]: set(one.get("dependsOn", [])) for one in json.loads(text)["dependencies"]}
    torch = f"pkg:pypi/torch@{environments.get('ipex').pins['torch']}".replace("+", "%2B")
    assert torch in needs["int8"] and torch not in needs["float"]
    statement = json.loads((version / "provenance.json").read_text())
    found = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert {"uri": torch, "annotations": {"environment": "ipex"}} in found
    verify(version)


def test_without_its_library_it_says_what_to_install(made: PretendedProject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sbom, "LIBRARY", "no-such-library")
    with pytest.raises(BackendMissing, match=r"no-such-library is not installed; pip install 'cpu-pipeline\[build\]'"):
        made.published()
    assert not list((made.home / "out" / "toy").glob("*/*"))
