"""The loader reads YAML 1.2 strictly, knows where everything stands, and fails only by saying so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.core.text import did_you_mean
from cpu_pipeline.recipe import document
from cpu_pipeline.recipe.document import Document, Problem, parse, read_document, scalar

HERE = Path("toy.yaml")

CORE = {
    # YAML 1.2.2, chapter 10.3.2: null, booleans, integers in three bases, floats; everything else is text
    "": None, "~": None, "null": None, "Null": None, "NULL": None, "nUll": "nUll", "none": "none", "nil": "nil",
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False, "tRue": "tRue",
    "yes": "yes", "no": "no", "on": "on", "off": "off", "y": "y", "n": "n", "No": "No", "NO": "NO",
    "0": 0, "-0": 0, "+7": 7, "-19": -19, "010": 10, "0o10": 8, "0x1F": 31, "0X1F": "0X1F", "0O7": "0O7",
    "0b101": "0b101", "-0x1F": "-0x1F", "1_000": "1_000", "0o8": "0o8", "12e": "12e", "1 2": "1 2",
    "1.5": 1.5, "-1.5": -1.5, "+.5": 0.5, "5.": 5.0, ".5": 0.5, "1e3": 1000.0, "1e-3": 0.001, "1E+2": 100.0,
    "-1.5e-2": -0.015, "1e": "1e", "e3": "e3", ".": ".", "1.2.3": "1.2.3", "--1": "--1", "1,5": "1,5",
    "2024-01-31": "2024-01-31", "12:30:00": "12:30:00", "190:20:30": "190:20:30", "2024-01-31T12:00:00Z":
    "2024-01-31T12:00:00Z", "<<": "<<", "=": "=", "1234567890123456789012345678901234567890":
    1234567890123456789012345678901234567890, "12e4": 120000.0, "٣": "٣", "inf": "inf", "nan": "nan",
}  # fmt: skip


@pytest.mark.parametrize("text", CORE)
def test_reads_plain_scalars_as_yaml_1_2(text: str) -> None:
    found = scalar(text)
    assert found == CORE[text] and type(found) is type(CORE[text])


@pytest.mark.parametrize(
    "text", [".inf", "-.inf", "+.Inf", ".INF", ".nan", ".NaN", ".NAN", "1e999", "-1e400", "9" * 65, "0x" + "f" * 63]
)
def test_refuses_what_is_no_number_to_compare_with(text: str) -> None:
    with pytest.raises(ValueError, match=r"number"):
        scalar(text)
    with pytest.raises(RecipeError, match=r"^toy.yaml:1:4: a: .*number"):
        parse(f"a: {text}", HERE)


def test_quoted_and_block_scalars_are_text() -> None:
    text = "a: '010'\nb: \"no\"\nc: |\n  1e-3\nd: >-\n  .nan\ne: ! 12\nf: '.inf'\n"
    assert parse(text, HERE).value == {"a": "010", "b": "no", "c": "1e-3\n", "d": ".nan", "e": "12", "f": ".inf"}


def test_knows_where_everything_stands() -> None:
    text = "# a comment\nmodel:\n  hub: owner/name\nstages:\n- id: one\n  with: {a: 1,\n         b: [x, y]}\n- two\n"
    marks = parse(text, HERE).marks
    assert marks == {
        ("model",): (2, 1), ("model", "hub"): (3, 3), ("stages",): (4, 1), ("stages", 0): (5, 3),
        ("stages", 0, "id"): (5, 3), ("stages", 0, "with"): (6, 3), ("stages", 0, "with", "a"): (6, 10),
        ("stages", 0, "with", "b"): (7, 10), ("stages", 0, "with", "b", 0): (7, 14),
        ("stages", 0, "with", "b", 1): (7, 17), ("stages", 1): (8, 3),
    }  # fmt: skip


def test_names_the_deepest_part_that_is_there() -> None:
    document = parse("model:\n  folder: here\n", HERE)
    assert document.where(("model", "folder")) == "toy.yaml:2:3"
    assert document.where(("model", "revision", 3)) == "toy.yaml:1:1"
    assert document.where(("data",)) == "toy.yaml:1:1"


def test_tells_every_problem_once_in_the_order_of_the_file() -> None:
    document = parse("a: 1\nb: 2\n" + "x: 0\n" * 0 + "c: {d: 3}\n", HERE)
    problems = [
        Problem(("c", "d"), "third"),
        Problem(("a",), "first"),
        Problem(("b",), "second"),
        Problem(("a",), "first"),
    ]
    assert str(document.error(problems)).splitlines() == [
        "toy.yaml:1:1: a: first", "toy.yaml:2:1: b: second", "toy.yaml:3:5: c.d: third"
    ]  # fmt: skip
    numbered = parse("\n".join(f"k{i}: {i}" for i in range(12)), HERE)
    lines = str(numbered.error(Problem((f"k{i}",), "x") for i in reversed(range(12)))).splitlines()
    assert [line.split(":")[1] for line in lines] == [str(i) for i in range(1, 13)]


def test_a_duplicate_keeps_the_place_of_the_first() -> None:
    with pytest.raises(RecipeError, match=r"^toy.yaml:3:1: a: duplicate key; the first is on line 1$"):
        parse("a: 1\nb: 2\na: 3\n", HERE)
    with pytest.raises(RecipeError) as caught:
        parse("a: {x: 1, x: 2}\nb: .nan\na: 3\n", HERE)
    assert [line.split(": ")[0] for line in str(caught.value).splitlines()] == [
        "toy.yaml:1:11",
        "toy.yaml:2:4",
        "toy.yaml:3:1",
    ]


def test_aliases_stand_for_what_they_name() -> None:
    assert parse("a: &x [1, {b: 2}]\nc: *x\n", HERE).value == {"a": [1, {"b": 2}], "c": [1, {"b": 2}]}


def test_a_merge_key_is_a_key_like_any_other() -> None:
    assert parse("a: &x {b: 1}\nc: {<<: *x}\n", HERE).value["c"] == {"<<": {"b": 1}}


def test_aliases_count_in_full_before_they_are_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document, "MAX_NODES", 40)
    row = "a: &a [1, 2, 3, 4]\n"  # the mapping, its key, the list, four numbers: 7
    fits = row + "b: [" + ", ".join(["*a"] * 5) + "]\n"  # a key, a list, and 1 + 5 for each alias: 32
    assert len(parse(fits, HERE).value["b"]) == 5
    with pytest.raises(RecipeError, match="more than 40 values"):
        parse(fits.replace("]\n", "]\n").replace("b: [", "b: [*a, "), HERE)


def test_depth_is_capped_where_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    deep = "[" * 64 + "]" * 64
    assert parse(f"a: {deep}"[:-1] + "]", HERE).value
    with pytest.raises(RecipeError, match=r"^toy.yaml:1:68: nested deeper than 64$"):
        parse(f"a: [{deep}]", HERE)


@pytest.mark.parametrize("before", ["", "[1], " * 500])
def test_the_limit_is_ours_where_libyaml_meets_its_own_first(before: str) -> None:
    column = len(f"a: [{before}") + 64
    with pytest.raises(RecipeError, match=rf"^toy.yaml:1:{column}: nested deeper than 64$"):
        parse(f"a: [{before}" + "[" * 5000, HERE)


def test_says_when_there_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="No such file"):
        read_document(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("word", "says"),
    [("per_chanel", " (did you mean `per_channel`?)"), ("zzz", ""), ("Opset", " (did you mean `opset`?)"), ("", "")],
)
def test_did_you_mean(word: str, says: str) -> None:
    assert did_you_mean(word, ["per_channel", "opset"]) == says


SEEN = st.characters(
    exclude_categories=["Cc", "Cs"], exclude_characters="\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(SEEN),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(SEEN, max_size=20), inner, max_size=5),
    max_leaves=30,
)
YAMLISH = st.text(st.sampled_from("ab01 \n\t-:,?*&!|>'\"[]{}#%@`~.<=e\\\r\0é\ufeff\u2028"), max_size=80)
PIECES = (
    "a: 1", "- a", "  b: [1, 2", "? x", ": y", "&a {b: *a}", "*a", "!!int 3", "---", "...", "%YAML 1.1", "a: |",
    "  text", "\tb: 1", "a: .nan", "a: {b: c, b: d}", "[[[[", "'", '"\\x', "- - - -", "? ? ? a",
)  # fmt: skip
LINES = st.lists(st.sampled_from(PIECES), max_size=12).map("\n".join)


def load(text: str) -> Document | None:
    try:
        return parse(text, HERE)
    except RecipeError as error:
        lines = str(error).splitlines()
        assert lines and all(line.startswith("toy.yaml:") for line in lines), lines
        return None


@given(st.text() | YAMLISH | LINES)
@example("? [a]\n: b")
@example("*a: 1")
@example("&a [*a]")
@example("- " * 500)
@example("{" * 500)
@example("? " * 500)
@example("a: " + "9" * 5000)
@example("a: 0x" + "f" * 5000)
@example("a: 1e" + "9" * 5000)
@example("\ud800")
@example("a: \x85b")
@example("!<tag:yaml.org,2002:python/name:os.system> x")
def test_any_text_is_read_or_refused_with_its_place(text: str) -> None:
    document = load(text)
    if document is not None:
        json.dumps(document.value, allow_nan=False)


@given(st.binary(max_size=200) | YAMLISH.map(lambda text: text.encode("utf-16")) | LINES.map(str.encode))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "toy.yaml"
        path.write_bytes(data)
        try:
            assert isinstance(read_document(path).value, dict)
        except RecipeError as error:
            assert str(error).startswith(f"{path}:")


@settings(max_examples=50)
@given(JSON, st.booleans())
def test_what_yaml_writes_comes_back(value: Any, flow: bool) -> None:
    text = yaml.dump({"value": value}, allow_unicode=True, default_flow_style=flow, Dumper=Quoting)
    assert parse(text, HERE).value == {"value": value}


@settings(max_examples=50)
@given(JSON)
def test_json_is_yaml(value: Any) -> None:
    text = json.dumps({"value": value})
    assume("\\ud" not in text)
    assert parse(text, HERE).value == {"value": value}


class Quoting(yaml.SafeDumper):
    """Dumps text in quotes: PyYAML knows YAML 1.1 alone, where other words than in 1.2 need them."""


Quoting.add_representer(str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"'))
Quoting.add_representer(float, lambda dumper, value: dumper.represent_scalar("tag:yaml.org,2002:float", _float(value)))


def _float(value: float) -> str:
    text = repr(value)
    return text if "." in text else text.replace("e", ".0e")  # YAML 1.1, which PyYAML writes, wants the point


@given(st.integers(0, 6), st.integers(1, 5), st.data())
def test_reading_takes_steps_in_proportion_to_the_text(levels: int, width: int, data: st.DataObject) -> None:
    """However aliases nest, no more nodes are made than the text has: what they stand for is counted, not copied."""
    rows = [f"a0: &a0 [{', '.join(['x'] * width)}]"]
    rows += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * width)}]" for i in range(1, levels + 1)]
    text = "\n".join(rows)
    calls = 0

    class Counting(document._Builder):
        def _node(self, *given: Any) -> Any:
            nonlocal calls
            calls += 1
            return super()._node(*given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(document, "_Builder", Counting)
        load(text)
    assert calls <= 3 + (levels + 1) * (2 + width)


@pytest.mark.parametrize("escape", ["\\0", "\\x1b", "\\x07", "\\u202e", "\\u2066", "\\x9b"])
@pytest.mark.parametrize("text", ['a: "x{}y"', '"x{}y": 1', 'a: ["x{}y"]'])
def test_refuses_what_would_not_be_seen_or_end_a_path(text: str, escape: str) -> None:
    with pytest.raises(RecipeError, match=r"^toy.yaml:1:\d+: (.*: )?holds U\+[0-9A-F]{4}, which no name or text"):
        parse(text.format(escape), HERE)


def test_line_ends_tabs_and_every_letter_are_text() -> None:
    assert parse('a: "x\\ty\\nz\\u05d0\\u200f\\U0001F600"', HERE).value == {"a": "x\ty\nz\u05d0\u200f\U0001f600"}
