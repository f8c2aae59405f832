"""schema.json is what the classes say, is a schema, and tells an editor the same as the command tells."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator, ValidationError

from cpu_pipeline import stages, tasks
from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.recipe import json_schema, reader
from cpu_pipeline.recipe.document import Document, Keys, parse, read_document

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "tests" / "examples"
FOLDERS = ("recipes", "pipelines", "tests/suites/loopback")
SHIPPED = sorted(path for folder in FOLDERS for path in ROOT.glob(f"{folder}/*.yaml"))
VALID = sorted([*EXAMPLES.glob("valid/*.yaml"), *EXAMPLES.glob("pipelines/*.yaml")])
WRITTEN = json_schema.schema()

GRAPHIC = {
    # what a schema can't say: the graph, the loader or the file system refuse these
    "calibration-missing", "cycle", "cycle-through-check", "data-missing", "feeds-itself", "formats",
    "formats-of-model", "formats-of-onnx-model", "formats-of-report", "gate-without-bound", "gates-without-bound",
    "long-cycle", "many-misfits",
    "output-that-is-none", "no-teacher", "pipeline-unknown-step", "reference-missing", "report-as-output",
    "reserved-name", "tune", "two-steps-of-one-name", "unknown-input", "unknown-option-of-recipe", "unknown-output",
    "unknown-pipeline", "unknown-step", "with-for-unknown-step", "parent-folder",
    "absolute-folder", "absolute-file", "absolute-in-list", "bound-and-max-drop", "more-looks-with-at-least",
    "slices-of-two-properties", "source-of-nothing",
}  # fmt: skip


def leaves(error: ValidationError) -> Iterator[ValidationError]:
    """Give the errors an editor underlines: those at the ends of `anyOf` and its kin."""
    for inner in error.context or ():
        yield from leaves(inner)
    if not error.context:
        yield error


def test_is_up_to_date() -> None:
    assert (ROOT / "schema.json").read_text(encoding="utf-8") == json_schema.text(), "run `cpu-pipeline schema --write`"


def test_is_draft_07() -> None:
    assert WRITTEN["$schema"] == "http://json-schema.org/draft-07/schema#"
    Draft7Validator.check_schema(WRITTEN)
    newer = {"$defs", "prefixItems", "dependentRequired", "dependentSchemas"}
    assert not newer & {key for node in nodes(WRITTEN) for key in node}


def test_refers_only_to_itself() -> None:
    """A reference to elsewhere would be fetched by editors."""
    for node in nodes(WRITTEN):
        if isinstance(node.get("$ref"), str):
            assert node["$ref"].startswith("#/definitions/")
            assert node["$ref"].removeprefix("#/definitions/") in WRITTEN["definitions"]


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from nodes(inner)


def test_has_one_branch_for_each_stage_and_task() -> None:
    definitions = WRITTEN["definitions"]
    branches = definitions["Step"]["allOf"]
    assert [b["if"]["properties"]["use"]["const"] for b in branches] == stages.names()
    assert definitions["Step"]["properties"]["use"]["enum"] == stages.names()
    branches = [b["if"]["properties"]["use"]["enum"] for b in definitions["Use"]["else"]["allOf"]]
    assert [names[0] for names in branches] == tasks.names()
    assert {alias: names[0] for names in branches for alias in names[1:]} == tasks.ALIASES


def test_describes_every_key() -> None:
    for name, definition in WRITTEN["definitions"].items():
        for key, value in definition.get("properties", {}).items():
            assert value.get("description") or "$ref" in value, f"{name}.{key}"


@pytest.mark.parametrize("path", [*SHIPPED, *VALID], ids=lambda p: p.name)
def test_accepts_every_shipped_file_and_valid_example(path: Path) -> None:
    assert [error.message for error in Draft7Validator(WRITTEN).iter_errors(read_document(path).value)] == []
    first = path.read_text(encoding="utf-8").splitlines()[0]
    key, _, place = first.partition("$schema=")
    assert key == "# yaml-language-server: "
    assert (path.parent / place).resolve() == (ROOT / "schema.json").resolve()


def test_there_are_shipped_files() -> None:
    assert SHIPPED and VALID


def yaml_alone() -> Iterator[Path]:
    """Give the invalid examples that are good YAML, which is all an editor's schema sees."""
    for path in sorted(EXAMPLES.glob("invalid/*.yaml")):
        with contextlib.suppress(RecipeError):
            read_document(path)
            yield path


@pytest.mark.parametrize("path", yaml_alone(), ids=lambda p: p.stem)
def test_refuses_invalid_examples_where_the_command_does(path: Path) -> None:
    """An editor that knows the schema alone underlines the lines that the command names."""
    document = read_document(path)
    errors = list(Draft7Validator(WRITTEN).iter_errors(document.value))
    if path.stem in GRAPHIC:
        assert errors == []
        return
    kind = "Recipe" if {"model", "task", "data", "pipeline"} & document.value.keys() else "Pipeline"
    with pytest.raises(RecipeError) as caught:
        reader.check_schema(document, kind)
    told = {line.removeprefix(f"{path}:").partition(":")[0] for line in str(caught.value).splitlines()}
    ends = [keys for error in errors for leaf in leaves(error) for keys in places(leaf)]
    assert {document.where(keys).split(":")[-2] for keys in ends} == told


def places(error: ValidationError) -> list[Keys]:
    """Name what an error is about: for unknown keys each of them, otherwise the value."""
    here = tuple(error.absolute_path)
    if error.validator == "additionalProperties":
        return [(*here, key) for key in error.instance.keys() - error.schema["properties"].keys()]
    return [here]


RECIPE = "model: {{folder: m}}\ntask: {task}\nstages:\n  - {{id: one, use: {use}, with: {options}}}\n"


@pytest.mark.parametrize("name", stages.names())
def test_an_unknown_option_is_blamed_on_its_stage(name: str) -> None:
    document = parse(RECIPE.format(task="question-answering", use=name, options="{nonsense: 1}"), Path("toy.yaml"))
    [error] = Draft7Validator(WRITTEN).iter_errors(document.value)
    assert list(error.absolute_path) == ["stages", 0, "with"] and "nonsense" in error.message
    known = set(stages.get(name).model_fields)
    assert set(error.schema["properties"]) == known
    with pytest.raises(RecipeError, match=r"^toy.yaml:4:\d+: stages\.0\.with\.nonsense: unknown key `nonsense`"):
        reader.check_schema(document, "Recipe")


@pytest.mark.parametrize("name", tasks.names())
def test_an_unknown_option_is_blamed_on_its_task(name: str) -> None:
    text = RECIPE.format(task=f"{{use: {name}, with: {{nonsense: 1}}}}", use="export.onnx", options="{}")
    [error] = Draft7Validator(WRITTEN).iter_errors(parse(text, Path("toy.yaml")).value)
    assert list(error.absolute_path) == ["task", "with"] and "nonsense" in error.message


ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 3) | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["id", "use", "with", "from", "hub", "revision", "x"]), inner, max_size=4)
    ),
    max_leaves=8,
)
KEYS = [*WRITTEN["definitions"]["Recipe"]["properties"], "x"]


@settings(max_examples=150)
@given(st.dictionaries(st.sampled_from(KEYS), ANY, max_size=6))
def test_any_recipe_is_right_or_told_what_is_wrong(value: dict[str, Any]) -> None:
    """The command, which looks up each stage's branch by itself, agrees with the whole schema as an editor uses it."""
    document = Document(Path("toy.yaml"), json.loads(json.dumps(value)))
    wrong = not Draft7Validator({**WRITTEN, "if": True}).is_valid(document.value)
    try:
        reader.check_schema(document, "Recipe")
    except RecipeError as error:
        assert wrong
        assert all(line.startswith("toy.yaml:1:1: ") and len(line) > 20 for line in str(error).splitlines())
    else:
        assert not wrong
