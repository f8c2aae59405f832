"""Cells mean the same in files with types and without."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpu_pipeline.core.cells import Kind, read

TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@given(TEXT)
def test_text_is_text(value: str) -> None:
    assert read("text", value, "text") == value


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("2", "2"), (2, "2"), (2.0, "2"), ("2.0", "2"), (0, "0"), ("007", "007"), (-1, -1), ("-1", -1), (-1.0, -1),
        ("NA", "NA"),
        ("true", "true"), (True, "true"), (False, "false"), ("True", "True"), ("3.5", "3.5"),
        (3.5, "3.5"),
        (10**20, str(10**20)), (str(10**20), str(10**20)), ("two", "two"), (" 2", " 2"), ("[PAD]", "[PAD]"),
        ('["a", "b"]', ["a", "b"]), (["a", "b"], ["a", "b"]), ("[1, 0]", [1, 0]), ([1, 0], [1, 0]), ("²", "²"),
    ],
)  # fmt: skip
def test_a_label_is_text_whatever_the_file_has(cell: Any, value: Any) -> None:
    found = read("label", cell, "label")
    assert found == value and type(found) is type(value)


@given(st.integers(0, 10**17))
def test_whole_numbers_are_equal_labels_in_every_file(number: int) -> None:
    assert read("label", number, "label") == read("label", str(number), "label") == str(number)
    assert read("label", number, "label", numbered=True) == read("label", str(number), "label", numbered=True) == number


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_decimals_are_equal_labels_in_every_file(number: float) -> None:
    assert read("label", number, "label") == read("label", str(number), "label")


def test_nan_is_no_label() -> None:
    assert math.isnan(read("label", math.nan, "label"))
    assert read("label", math.inf, "label") == math.inf


NAMES = ("bad", "good", "0")


@pytest.mark.parametrize(
    ("cell", "value"),
    [(0, "bad"), ("1", "good"), ("0", "0"), ("good", "good"), ("other", "other"), ([1, 2], ["good", "0"]), ([], [])],
)
def test_the_files_own_names_stand_for_its_numbers(cell: Any, value: Any) -> None:
    assert read("label", cell, "label", NAMES) == value


def test_the_files_own_names_stand_for_numbers_in_lists() -> None:
    assert read("tags", [0, 1, 1], "json", NAMES) == read("tags", "[0, 1, 1]", "json", NAMES) == ["bad", "good", "good"]


@pytest.mark.parametrize(
    ("cell", "says"),
    [
        (-1, "`label` is -1: this split has no labels"),
        ("-1", "`label` is -1: this split has no labels"),
        (3, "`label` is 3, and the file names 3 classes, from 0"),
        (-2, "`label` is -2, and the file names 3 classes, from 0"),
    ],
)
def test_a_number_without_a_name_is_refused(cell: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        read("label", cell, "label", NAMES)


@given(st.one_of(st.integers(-(10**300), 10**300), st.floats(allow_nan=False, allow_infinity=False)))
def test_numbers_are_equal_in_every_file(number: float) -> None:
    assert read("score", number, "number") == read("score", str(number), "number") == float(number)


@pytest.mark.parametrize("cell", ["+.5", " 0.5 ", "5e-1", "0.50", str(Decimal("0.5"))])
def test_numbers_may_be_written_in_many_ways(cell: str) -> None:
    assert read("score", cell, "number") == 0.5


@pytest.mark.parametrize(
    "cell",
    ["NA", "", "nan", "inf", "-Infinity", "1_000", "1,5", "0x10", "٣", "1e999", math.nan, math.inf, 10**400, True, [1]],
)  # fmt: skip
def test_what_is_no_finite_number_is_refused(cell: Any) -> None:
    with pytest.raises(ValueError, match=r"`score` is .*, not a (finite )?number"):
        read("score", cell, "number")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | TEXT, lambda inner: st.lists(inner), max_leaves=5
)


@given(st.lists(JSON) | st.dictionaries(TEXT, JSON))
def test_lists_and_objects_are_written_as_json(value: Any) -> None:
    import json

    assert read("tokens", json.dumps(value), "json") == read("tokens", value, "json") == value


@pytest.mark.parametrize("cell", ["one two", "['one', 'two']", "[1, NaN]", "[", "\\ud800"])
def test_a_list_that_is_no_json_is_refused_with_what_to_write(cell: str) -> None:
    with pytest.raises(
        ValueError, match=r"`tokens` is .*, not JSON .*; in a CSV write lists as JSON: \[\"one\", \"two\"\]"
    ):
        read("tokens", cell, "json")


def test_a_long_cell_is_cut_in_messages() -> None:
    with pytest.raises(ValueError, match="not JSON") as caught:
        read("tokens", "word " * 10_000, "json")
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("kind", ["text", "label", "number", "json"])
def test_nothing_is_nothing(kind: Kind) -> None:
    assert read("any", None, kind, ("a",)) is None
