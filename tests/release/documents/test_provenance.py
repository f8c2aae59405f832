"""The statement about a version is what the standard asks, says what was done, and is not believed unread."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.resource_descriptor import ResourceDescriptor
from in_toto_attestation.v1.statement import Statement
from packageurl import PackageURL
from publishing import PretendedProject, change_version

from cpu_pipeline.core.artifact import digest_file, digest_json, digest_listing
from cpu_pipeline.core.errors import RecipeError, Refused
from cpu_pipeline.engine import environments
from cpu_pipeline.engine.packages import ABSENT
from cpu_pipeline.release.documents import provenance
from cpu_pipeline.release.documents.origins import pypi
from cpu_pipeline.release.manifest import DIGEST, MANIFEST, artifact_files, dump, read_manifest, version_of
from cpu_pipeline.release.verify import verify
from cpu_pipeline.release.versions import rollback


@pytest.fixture
def made(tmp_path: Path) -> PretendedProject:
    return PretendedProject(tmp_path / "project")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a version, not to be changed."""
    return PretendedProject(tmp_path_factory.mktemp("made") / "project").published()


@pytest.fixture
def version(whole: Path, tmp_path: Path) -> Path:
    """Give a copy of it, to be changed, in a folder that is not named after it."""
    return Path(shutil.copytree(whole, tmp_path / "copy"))


def said(version: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((version / provenance.FILE).read_text())
    return read


def test_the_library_of_the_standard_reads_every_field(version: Path) -> None:
    """Unknown fields, wrong types and wrong times are errors to the parser of the standard's own messages."""
    text = (version / provenance.FILE).read_text()
    message = json_format.Parse(text, statement_pb2.Statement())
    Statement.copy_from_pb(message).validate()
    predicate = json_format.ParseDict(said(version)["predicate"], provenance_pb2.Provenance())
    definition = predicate.build_definition
    assert message.predicate_type == "https://slsa.dev/provenance/v1"
    assert definition.build_type == provenance.BUILD_TYPE and predicate.run_details.builder.id == provenance.BUILDER
    assert json_format.MessageToDict(definition.external_parameters)["recipe"] == read_manifest(version)["recipe"]
    for one in (*definition.resolved_dependencies, *predicate.run_details.byproducts):
        ResourceDescriptor.copy_from_pb(one).validate()
    began, ended = predicate.run_details.metadata.started_on, predicate.run_details.metadata.finished_on
    assert ended.seconds - began.seconds == 2 + 100 * (len(read_manifest(version)["steps"]) - 1)


def test_its_subjects_are_the_files_of_the_outputs(version: Path) -> None:
    files = [p for name in ("float", "int8") for p in (version / name).rglob("*") if p.is_file()]
    expected = {p.relative_to(version).as_posix(): digest_file(p) for p in files}
    assert "int8/README.md" in expected
    assert {one["name"]: one["digest"]["sha256"] for one in said(version)["subject"]} == expected


def test_its_byproducts_are_what_else_was_written(version: Path) -> None:
    *files, last = said(version)["predicate"]["runDetails"]["byproducts"]
    found = {one["name"]: one["digest"]["sha256"] for one in files}
    evidence = {f"checks/accuracy{side}/sub/file.txt" for side in ("", "/candidate", "/reference")}
    assert found.keys() == {"report.md", "sbom.json", *evidence}
    assert all(digest_file(version / name) == sha for name, sha in found.items())
    manifest = read_manifest(version)
    del manifest["files"][provenance.FILE]
    assert last == {"name": MANIFEST, "digest": {"canonicalJson": digest_json(manifest)}}


def test_it_says_how(version: Path) -> None:
    parameters = said(version)["predicate"]["buildDefinition"]["internalParameters"]
    manifest = read_manifest(version)
    step = parameters["steps"]["int8"]
    assert step["use"] == "quantize.onnx" and step["inputs"]["model"] == "float"
    assert step["options"]["per_channel"] is True
    assert step["key"] == manifest["steps"]["int8"]["key"] and step["digest"] == manifest["outputs"]["int8"]["digest"]
    assert parameters["isa"] == []


def test_it_names_the_instruction_sets_that_a_step_hangs_on(made: PretendedProject) -> None:
    """Those are in the step's record, whoever puts the version out."""
    version = made.published(host={"cpu": "other", "cores": 4, "isa": ["one", "two"]})
    assert said(version)["predicate"]["buildDefinition"]["internalParameters"]["isa"] == ["one", "two"]
    verify(version)


def test_a_version_from_before_some_parameters_were_told(version: Path) -> None:
    manifest = read_manifest(version)
    del manifest["resolved"], manifest["isa"]
    (version / MANIFEST).write_text(dump(manifest))
    with pytest.raises(Refused, match="`externalParameters` is not what"):
        verify(version)
    statement = said(version)
    statement["predicate"]["runDetails"] = provenance.make_statement(manifest, [])["predicate"]["runDetails"]
    definition(statement)["internalParameters"]["isa"] = manifest["host"]["isa"]
    del definition(statement)["externalParameters"]["resolved"]
    (version / provenance.FILE).write_text(json.dumps(statement))
    manifest["files"][provenance.FILE] = [
        (version / provenance.FILE).stat().st_size, digest_file(version / provenance.FILE),
    ]  # fmt: skip
    (version / MANIFEST).write_text(dump(manifest))
    verify(version)


def test_it_says_in_which_environment(made: PretendedProject) -> None:
    statement = said(made.published(environment="ipex"))
    assert definition(statement)["internalParameters"]["environments"] == {"ipex": environments.get("ipex").digest}


def test_what_is_not_installed_is_no_dependency(version: Path) -> None:
    manifest = read_manifest(version)
    manifest["packages"]["nowhere"] = ABSENT
    found = definition(provenance.make_statement(manifest, []))["resolvedDependencies"]
    assert found and not [one for one in found if "nowhere" in one["uri"]]


def test_it_says_of_what(version: Path) -> None:
    found = said(version)["predicate"]["buildDefinition"]["resolvedDependencies"]
    named = {one["name"]: one for one in found if "name" in one}
    model = named["model:files"]
    assert model["uri"] == f"git+https://huggingface.co/acme/small@{'a' * 40}"
    assert model["digest"] == {"gitCommit": "a" * 40}
    assert named["data.calibration:files"]["uri"].startswith("git+https://hub.example/datasets/acme/rows@")
    weights = named["model:files/model.safetensors"]
    assert weights["uri"] == f"https://huggingface.co/acme/small/resolve/{'a' * 40}/model.safetensors"
    assert len(weights["digest"]["sha256"]) == 64
    local = named["data.validation:files/sub/file.txt"]
    assert local.keys() == {"name", "digest"}
    assert "data.validation:files" not in named
    packages = {one["uri"] for one in found if "name" not in one}
    assert pypi("onnx", read_manifest(version)["packages"]["onnx"]) in packages


@pytest.mark.parametrize(("name", "said"), [("onnx_ir", "1.0+cpu"), ("PyYAML", "6.0.1"), ("a.b-c", "1!2.0rc1")])
def test_package_urls_are_those_of_the_standard(name: str, said: str) -> None:
    assert pypi(name, said) == PackageURL("pypi", None, name, said).to_string()
    assert PackageURL.from_string(pypi(name, said)).version == said


def test_the_same_store_gives_the_same_bytes(made: PretendedProject, tmp_path: Path) -> None:
    one, two = made.published(tmp_path / "one"), made.published(tmp_path / "two")
    assert one.name == two.name
    names = sorted(p.relative_to(one) for p in one.rglob("*") if p.is_file())
    assert [(one / n).read_bytes() for n in names] == [(two / n).read_bytes() for n in names]


def test_no_credentials_of_the_hubs_address(version: Path) -> None:
    """The endpoint in the fetch's record has a user, a password and a query."""
    for path in version.rglob("*"):
        assert path.is_dir() or b"hush" not in path.read_bytes()


def test_a_version_as_written(version: Path, whole: Path) -> None:
    found = verify(version)
    assert found.version == whole.name and found.missing == {"float": [], "int8": []}


Change = Callable[[dict[str, Any]], object]


def definition(statement: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = statement["predicate"]["buildDefinition"]
    return found


def dependency(statement: dict[str, Any], name: str) -> dict[str, Any]:
    [found] = [one for one in definition(statement)["resolvedDependencies"] if one.get("name") == name]
    named: dict[str, Any] = found
    return named


WRONG: dict[str, tuple[Change, str]] = {
    "type": (lambda s: s.update(_type="https://in-toto.io/Statement/v0.1"), "_type"),
    "predicate": (lambda s: s.update(predicateType="https://slsa.dev/provenance/v0.2"), "predicateType"),
    "no subject": (lambda s: s.update(subject=[]), "subject"),
    "no predicate": (lambda s: s.pop("predicate"), "predicate"),
    "digest is no text": (lambda s: s["subject"][0].update(digest={"sha256": 1}), "subject.0.digest.sha256"),
    "time is none": (lambda s: s["predicate"]["runDetails"]["metadata"].update(startedOn="soon"), "startedOn"),
    "subject gone": (lambda s: s["subject"].pop(), "its subjects lack int8/sub/file.txt"),
    "subject more": (lambda s: s["subject"].append({"name": "x", "digest": {"sha256": "0"}}), "its subjects have x"),
    "subject that steers": (
        lambda s: s["subject"].append({"name": "x\n\x1b[2J", "digest": {}}), r"its subjects have 'x\n\x1b[2J'"
    ),
    "digest that steers": (
        lambda s: s["subject"].append({"name": "x", "digest": {"\n\x1b": 1}}), r"subject.4.digest.\n\x1b'"
    ),
    "subject twice": (lambda s: s["subject"].append(s["subject"][0]), "names a subject twice"),
    "subject other": (lambda s: s["subject"][0].update(digest={"sha256": "0" * 64}), "another digest than the file"),
    "build type": (lambda s: definition(s).update(buildType="https://example.com"), "`buildType` is not what"),
    "recipe": (lambda s: definition(s)["externalParameters"]["recipe"].update(about="x"), "`externalParameters` is"),
    "step": (
        lambda s: definition(s)["internalParameters"]["steps"]["int8"].update(use="x"), "`internalParameters` is not"
    ),
    "builder": (lambda s: s["predicate"]["runDetails"]["builder"].update(id="https://example.com"), "`builder` is not"),
    "time": (
        lambda s: s["predicate"]["runDetails"]["metadata"].update(startedOn="2020-01-01T00:00:00Z"), "`metadata` is not"
    ),
    "byproduct": (lambda s: s["predicate"]["runDetails"]["byproducts"].pop(), "`byproducts` is not"),
    "package": (lambda s: definition(s)["resolvedDependencies"].pop(), "its packages are not"),
    "commit": (
        lambda s: dependency(s, "model:files")["digest"].update(gitCommit="b" * 40), "dependencies lack acme/small at"
    ),
    "repository": (
        lambda s: definition(s)["resolvedDependencies"].append(
            {"uri": "git+https://x.example/evil/more@main", "digest": {"gitCommit": "c" * 40}}
        ),
        "which the recipe does not name",
    ),
    "address": (
        lambda s: dependency(s, "model:files/model.safetensors").update(uri="https://evil.example/model.safetensors"),
        "its dependency model:files/model.safetensors has another address",
    ),
    "file": (
        lambda s: dependency(s, "model:files/model.safetensors")["digest"].update(sha256="0" * 64),
        "the files of its dependency model:files are not those that were fetched",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_a_statement_that_says_something_else(what: str, version: Path) -> None:
    change, says = WRONG[what]
    statement = said(version)
    change(statement)
    change_version(version, {provenance.FILE: json.dumps(statement)})
    with pytest.raises(Refused, match=r"provenance.json: ") as caught:
        verify(version)
    assert says in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "{", '"x"', "null", "[" * 100_000, '{"_type": NaN}', "\x00"])
def test_a_statement_that_is_none(text: str, version: Path) -> None:
    change_version(version, {provenance.FILE: text})
    with pytest.raises(Refused, match=r"provenance.json: "):
        verify(version)


def test_a_version_from_before_there_were_statements(version: Path) -> None:
    change_version(version, {provenance.FILE: None})
    with pytest.raises(Refused, match=r"no provenance.json: it was written before versions had one"):
        verify(version)


def test_a_manifest_that_was_rewritten_whole(version: Path, whole: Path) -> None:
    """Every digest fits; the version is not what its recipe, steps and outputs make."""
    manifest = read_manifest(version)
    manifest["recipe"]["about"] = "Something else."
    (version / MANIFEST).write_text(dump(manifest))
    with pytest.raises(Refused, match=rf"says version {whole.name}, and its recipe, steps and outputs are "):
        verify(version)


def test_an_output_that_was_exchanged(version: Path) -> None:
    """The weights, their digest in the manifest and the statement's subject are another's."""
    (version / "int8/sub/file.txt").write_text("poison\n")
    statement = said(version)
    for one in statement["subject"]:
        if one["name"] == "int8/sub/file.txt":
            one["digest"]["sha256"] = digest_file(version / "int8/sub/file.txt")
    change_version(version, {"int8/sub/file.txt": "poison\n", provenance.FILE: json.dumps(statement)})
    with pytest.raises(Refused, match="the files of int8 are not the artifact"):
        verify(version)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"manifest": 1, "name": 5}', "[" * 100_000])
def test_a_manifest_that_is_none(text: str, version: Path) -> None:
    (version / MANIFEST).write_text(text)
    with pytest.raises(Refused, match=r"manifest.json: damaged"):
        verify(version)


@pytest.mark.parametrize("text", ["1e999", "-1e999", "Infinity"])
def test_a_number_that_is_not_finite(text: str, version: Path) -> None:
    """The reader of JSON takes it for infinite, which nothing that is digested can hold."""
    manifest = (version / MANIFEST).read_text()
    (version / MANIFEST).write_text(manifest.replace('"memory_gib": ', f'"more": [{text}], "memory_gib": '))
    assert text in (version / MANIFEST).read_text()
    with pytest.raises(Refused, match=r"manifest.json: damaged: it is no JSON object"):
        verify(version)


def test_a_folder_that_is_named_after_another_version(made: PretendedProject) -> None:
    one, two = made.published(), made.published(content="other")
    aside = one.rename(one.with_name("aside"))
    two.rename(one)
    aside.rename(two)
    with pytest.raises(
        Refused, match=rf"{one.name}: is called {one.name}, and its manifest.json is that of {two.name}"
    ):
        verify(one)
    with pytest.raises(Refused, match=rf"latest: is called {two.name}"):
        verify(one.with_name("latest"))
    with pytest.raises(Refused, match=rf"{one.name} is not what was written \(manifest.json of another version\)"):
        rollback(one.parent, one.name)
    with pytest.raises(Refused, match=r"was edited since it was written \(manifest.json of another version\)"):
        made.published()


def test_a_manifest_of_a_newer_format(version: Path) -> None:
    change_version(version, manifest=99)
    with pytest.raises(RecipeError, match="written by a newer cpu-pipeline"):
        verify(version)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": "onnx"}', '{"format": "onnx", "needs": 5, "runtime": {}}'])
def test_a_card_of_ours_that_is_damaged(text: str, made: PretendedProject) -> None:
    """Its digests fit: whoever wrote it knew how."""
    version = made.published(files={"cpu_pipeline.json": '{"format": "onnx", "needs": [], "runtime": {}}'})
    change_version(version, {"int8/cpu_pipeline.json": text})
    manifest = read_manifest(version)
    listing = {name: manifest["files"][f"int8/{name}"] for name in artifact_files(manifest, "int8")}
    manifest["outputs"]["int8"]["digest"] = digest_listing(listing)
    change_version(version, outputs=manifest["outputs"], version=version_of(manifest))
    with pytest.raises(Refused, match=r"its cpu_pipeline.json is damaged"):
        verify(version.rename(version.with_name("copy")))


def test_a_file_whose_name_steers(version: Path) -> None:
    (version / "x\n\x1b[2J").write_text("")
    with pytest.raises(Refused) as caught:
        verify(version)
    assert r"differs from its manifest: 'x\n\x1b[2J'" in str(caught.value)


@pytest.mark.parametrize("digest", ["0" * 64, digest_listing({})])
def test_an_output_of_no_files(version: Path, digest: str) -> None:
    manifest = read_manifest(version)
    manifest["outputs"]["../elsewhere"] = {"format": "onnx", "digest": digest}
    change_version(version, outputs=manifest["outputs"], version=version_of(manifest))
    with pytest.raises(Refused, match=r"the files of ../elsewhere are not the artifact"):
        verify(version)


def leaves(value: Any, *at: Any) -> Iterator[tuple[Any, ...]]:
    """Name places in a JSON value, down to the sixth level: every key of a mapping, the first items of a list."""
    if at:
        yield at
    below = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    for key, inner in below:
        yield from leaves(inner, *at, key) if len(at) < 6 else ()


def put(value: Any, at: tuple[Any, ...], what: Any) -> Any:
    copy = json.loads(json.dumps(value))
    inner = copy
    for key in at[:-1]:
        inner = inner[key]
    inner[at[-1]] = what
    return copy


def resealed(changed: dict[str, Any]) -> str:
    """Write a manifest with a digest that fits, where it can be encoded at all."""
    try:
        dump(changed).encode()
    except (TypeError, ValueError):
        return json.dumps(changed)
    return dump(changed)


STRANGE = (None, [], {}, "x\n\ud800", -1, 1e300, float("nan"), [{}], True)


@pytest.mark.parametrize("file", [MANIFEST, provenance.FILE])
def test_strange_values_are_refused_never_a_traceback(file: str, version: Path) -> None:
    """Whoever wrote them made the version fit again."""
    whole = json.loads((version / file).read_text())
    wrong, refused = 0, 0
    for number, at in enumerate(leaves(whole)):
        if at == (DIGEST,):  # it is made anew
            continue
        changed = put(whole, at, STRANGE[number % len(STRANGE)])
        if file == MANIFEST:
            with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
                changed["version"] = version_of(changed)
            (version / MANIFEST).write_text(resealed(changed))
        else:
            change_version(version, {file: json.dumps(changed)})
        wrong += json.dumps(changed) != json.dumps(whole)  # in Python, True is 1
        try:
            verify(version)
        except (Refused, RecipeError) as error:
            refused += 1
            assert "\n" not in str(error) and "\ud800" not in str(error)
    assert refused == wrong > 100


def test_the_files_of_an_artifact_are_those_of_its_digest(version: Path) -> None:
    manifest = read_manifest(version)
    assert artifact_files(manifest, "int8") == ["sub/file.txt"]
    assert artifact_files({**manifest, "cards": {}}, "int8") == ["README.md", "sub/file.txt"]


def test_an_artifact_keeps_a_readme_of_its_own(made: PretendedProject) -> None:
    version = made.published(files={"README.md": "mine\n"})
    assert (version / "int8/README.md").read_text() == "mine\n"
    assert artifact_files(read_manifest(version), "int8") == ["README.md", "sub/file.txt"]
    verify(version)
