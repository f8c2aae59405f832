"""The quick check of a schema agrees with jsonschema on everything that it lets pass, and passes what is right."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator

from cpu_pipeline.recipe import json_schema
from cpu_pipeline.recipe.document import read_document
from cpu_pipeline.recipe.fits import RULES, SILENT, fits

ROOT = Path(__file__).parents[2]
WRITTEN = json_schema.schema()
KNOWN = WRITTEN["definitions"]
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-1, 2)
    | st.sampled_from([0.5, 1.0, "a", "a/b", "0" * 40, "onnx", "static"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=4,
)
RIGHT = sorted(
    [*ROOT.glob("recipes/*.yaml"), *ROOT.glob("pipelines/*.yaml"), *ROOT.glob("tests/examples/valid/*.yaml")]
)


def keywords(schema: Any) -> set[str]:
    """Name every keyword below a schema."""
    if isinstance(schema, list):
        return {keyword for each in schema for keyword in keywords(each)}
    if not isinstance(schema, dict):
        return set()
    found = set(schema)
    for key, value in schema.items():
        named = key in ("properties", "definitions") and isinstance(value, dict)
        found |= {k for v in value.values() for k in keywords(v)} if named else keywords(value)
    return found


def test_every_keyword_of_ours_is_known() -> None:
    defaults = {"isa", "threads", "macs"}  # keys of a default's value
    assert keywords(WRITTEN) - defaults <= SILENT | RULES.keys()


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_it_agrees_with_jsonschema(name: str) -> None:
    properties = sorted(KNOWN[name].get("properties", {"a": 1}))
    checker = Draft7Validator({**KNOWN[name], "definitions": KNOWN})

    @settings(max_examples=60)
    @given(st.dictionaries(st.sampled_from([*properties, "x"]), VALUES, max_size=4) | VALUES)
    def agree(value: Any) -> None:
        assert fits(KNOWN[name], value, KNOWN) == checker.is_valid(value)

    agree()


def test_an_unknown_keyword_is_left_to_jsonschema() -> None:
    assert not fits({"multipleOf": 2}, 4, {})
    assert not fits({"not": {"multipleOf": 2}}, 3, {})


def test_what_is_right_does_not_load_jsonschema() -> None:
    code = (
        "import sys; from cpu_pipeline.cli import main; code = main(sys.argv[1:]); print('jsonschema' in sys.modules)"
    )
    files = [str(path) for path in RIGHT if "everything" not in path.name]
    done = subprocess.run(
        [sys.executable, "-c", code, "check", "--recipe-only", *files], capture_output=True, text=True, cwd=ROOT
    )
    assert done.stdout.splitlines()[-1] == "False", done.stdout + done.stderr
    assert all(isinstance(read_document(path).value, dict) for path in RIGHT)
