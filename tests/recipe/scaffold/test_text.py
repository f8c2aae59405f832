"""The text of a recipe says what the draft says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpu_pipeline.recipe.document import parse
from cpu_pipeline.recipe.scaffold.text import flow, render

WORDS = st.text(
    alphabet=st.characters(blacklist_categories=["Cs", "Cc"], blacklist_characters="\u2028\u2029\x85\ufeff")
)


@given(st.dictionaries(WORDS.filter(bool), WORDS | st.integers(0, 9) | st.booleans() | st.lists(WORDS), max_size=4))
def test_what_is_written_is_read_again(value: dict[str, Any]) -> None:
    assert parse(f"value: {flow(value)}\n", Path("x.yaml")).value == {"value": value}


@pytest.mark.parametrize("text", ["null", "1e3", "0x1f", "a: b", "a, b", "{a}", "#a", "- a", "~", "", " a", "a #b"])
def test_text_that_would_mean_something_else_is_quoted(text: str) -> None:
    assert flow(text).startswith('"')


def test_comments_stand_beside_short_lines_and_above_long_ones() -> None:
    long = "  b: " + "x" * 90
    assert render("schema.json", [("a: 1", "one"), (long, "two"), ("c: 3", "")]).splitlines() == [
        "# yaml-language-server: $schema=schema.json", "a: 1  # one", "  # two", long, "c: 3",
    ]  # fmt: skip
