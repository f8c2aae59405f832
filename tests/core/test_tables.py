"""Data files as people and programs write them: each is read, or refused by name, line and remedy."""

from __future__ import annotations

import csv
import gzip
import io
import json
import time
import tracemalloc
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from cpu_pipeline.core import tables, text_files
from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.core.tables import open_table

ROWS = [{"id": "1", "text": "one"}, {"id": "2", "text": "two"}]
LINES = b'{"id": "1", "text": "one"}\n{"id": "2", "text": "two"}\n'
TABLE = b"id,text\n1,one\n2,two\n"


def read(path: Path) -> list[dict[str, Any]]:
    table = open_table(path, path.name)
    return [row for _, row in table.read(range(table.count), table.columns)]


def write(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", LINES),
        ("a.ndjson", LINES),
        ("a.json", LINES),
        ("a.jsonl", b"\xef\xbb\xbf" + LINES),
        ("a.jsonl", LINES.replace(b"\n", b"\r\n")),
        ("a.jsonl", b"\n" + LINES.replace(b"\n", b"\n\n  \n")),
        ("a.jsonl", LINES.rstrip()),
        ("a.jsonl.gz", gzip.compress(LINES)),
        ("a.jsonl", gzip.compress(LINES)),
        ("a.jsonl.gz", LINES),
        ("a.jsonl.gz", gzip.compress(LINES[:27]) + gzip.compress(LINES[27:])),
        ("a.json", json.dumps(ROWS).encode()),
        ("a.json", json.dumps(ROWS, indent=2).encode()),
        ("a.json.gz", gzip.compress(json.dumps(ROWS).encode())),
        ("a.json", b"\xef\xbb\xbf" + json.dumps(ROWS, indent=1).encode()),
        ("a.json", json.dumps({"version": 1.1, "x": [{"a": None}], "data": ROWS, "more": {"y": 2}, "z": -3}).encode()),
        ("a.json", json.dumps({"data": ROWS}, indent=2).encode()),
        ("a.csv", TABLE),
        ("a.csv", b"\xef\xbb\xbf" + TABLE),
        ("a.csv", TABLE.replace(b"\n", b"\r\n")),
        ("a.csv", TABLE.replace(b"\n", b"\r")),
        ("a.csv", TABLE.replace(b"\n", b"\n\n \n")),
        ("a.csv", TABLE.rstrip()),
        ("a.csv", b'"id","text"\n"1","one"\n"2","two"\n'),
        ("a.csv", b"id, text \n1,one\n2,two\n"),
        ("a.CSV.GZ", gzip.compress(TABLE)),
        ("a.tsv", TABLE.replace(b",", b"\t")),
        ("a.tsv.gz", gzip.compress(TABLE.replace(b",", b"\t"))),
    ],
)
def test_is_read(tmp_path: Path, name: str, content: bytes) -> None:
    assert read(write(tmp_path, name, content)) == ROWS


SQUAD = {
    "version": "v2.0",
    "data": [
        {"title": "A", "paragraphs": [
            {"context": "one two", "qas": [
                {"id": "q1", "question": "1?", "answers": [{"text": "one", "answer_start": 0}], "is_impossible": False},
                {"id": "q2", "question": "2?", "answers": [], "plausible_answers": [], "is_impossible": True}]}]},
        {"title": "B", "paragraphs": [{"context": "three", "qas": [{"id": "q3", "question": "3?", "answers": []}]}]},
    ],
}  # fmt: skip


@pytest.mark.parametrize("indent", [None, 1])
def test_squads_own_files_are_read_question_by_question(tmp_path: Path, indent: int | None) -> None:
    rows = read(write(tmp_path, "dev-v2.0.json", json.dumps(SQUAD, indent=indent).encode()))
    assert [row["id"] for row in rows] == ["q1", "q2", "q3"]
    assert rows[0]["context"] == "one two" and rows[0]["answers"] == [{"text": "one", "answer_start": 0}]
    assert rows[2]["title"] == "B"


def test_cells_of_a_csv_are_text_as_they_stand(tmp_path: Path) -> None:
    cells = ["007", "12:30", "NA", "null", "true", "1.50", "", " a ", "2020-01-01", 'say "yes"', "two\r\nlines", "1e5"]
    path = write(tmp_path, "a.csv", b"")
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["text", "n"], *([cell, str(i)] for i, cell in enumerate(cells))])
    assert [row["text"] for row in read(path)] == cells


def test_places_are_lines_of_the_file(tmp_path: Path) -> None:
    table = open_table(write(tmp_path, "a.csv", b'text,label\n\n"one\ntwo",1\nthree,0\n'), "a.csv")
    assert [place for place, _ in table.read([0, 1], ["text"])] == ["a.csv:3", "a.csv:5"]
    table = open_table(write(tmp_path, "a.jsonl", b"\n" + LINES), "a.jsonl")
    assert list(table.read([1], ["text"])) == [("a.jsonl:3", {"text": "two"})]
    table = open_table(write(tmp_path, "a.json", json.dumps(ROWS).encode()), "a.json")
    assert list(table.read([1], ["text"])) == [("a.json, row 2", {"text": "two"})]


LONG = "word " * 300_000


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.json", "b.json", "a.parquet"])
def test_rows_may_be_long(tmp_path: Path, name: str) -> None:
    rows = [{"text": LONG, "id": "1"}, {"text": "b", "id": "2"}, {"text": LONG + "!", "id": "3"}]
    path = tmp_path / name
    if name == "a.parquet":
        parquet.write_table(pa.Table.from_pylist(rows), path)
    elif name in ("a.csv", "a.tsv"):
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["text", "id"], delimiter="\t" if name == "a.tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    elif name == "a.jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        path.write_text(json.dumps(rows if name == "a.json" else {"data": rows}))
    assert read(path) == rows


DEEP = b"[" * 100_000 + b"]" * 100_000


def zipped() -> bytes:
    import zipfile

    with zipfile.ZipFile(buffer := io.BytesIO(), "w") as archive:
        archive.writestr("xl/workbook.xml", "<workbook/>")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.csv", "text,label\ncafé,1\n".encode("latin-1"), "a.csv:2: not UTF-8 (byte 0xe9); save the file as UTF-8"),
        ("a.jsonl", LINES + '{"text": "é"}\n'.encode("latin-1"), "a.jsonl:3: not UTF-8 (byte 0xe9)"),
        ("a.json", '[{"text": "x"},\n{"text": "é"}]'.encode("latin-1"), "a.json:2: not UTF-8 (byte 0xe9)"),
        ("a.csv", TABLE.decode().encode("utf-16"), "a.csv: it is UTF-16; save it as UTF-8"),
        ("a.csv", TABLE.decode().encode("utf-16-le"), "a.csv:1: a NUL character; it is UTF-16 or no text"),
        ("a.jsonl", LINES.decode().encode("utf-16"), "a.jsonl: it is UTF-16; save it as UTF-8"),
        ("a.json", b"[" + LINES.decode().encode("utf-32-le"), "a.json:1: a NUL character"),
        ("a.csv", TABLE.decode().encode("utf-32"), "a.csv: it is UTF-32; save it as UTF-8"),
        ("a.csv", TABLE + b"3,a\0b\n", "a.csv:4: a NUL character"),
        ("a.csv", zipped(), "a.csv: it is a spreadsheet or a zip archive; export it as CSV"),
        ("a.jsonl", b"PAR1....", "a.jsonl: it is a Parquet file; end its name in .parquet"),
        ("a.csv", TABLE.replace(b",", b";"), "a.csv: its cells are separated by `;`, not by commas; write commas"),
        ("a.csv", TABLE.replace(b",", b"\t"), "are separated by tabs, not by commas; end its name in .tsv"),
        ("a.tsv", TABLE, "are separated by commas, not by tabs; end its name in .csv"),
        ("a.csv", b"id;text, clean;label\n1;a;0\n", "a.csv: its cells are separated by `;`"),
        ("a.csv", b"id,text,text\n1,a,b\n", "a.csv:1: the column 'text' is there twice; rename one"),
        ("a.csv", b"id,text, text\n1,a,b\n", "a.csv:1: the column 'text' is there twice; rename one"),
        ("a.csv", b"", "a.csv: it is empty; its first line must name the columns"),
        ("a.csv", b"\n\n", "a.csv: it is empty; its first line must name the columns"),
        ("a.csv", TABLE + b"3,a,b\n", "a.csv:4: 3 cells, and the first line names 2 columns; put a text with commas,"),
        ("a.csv", TABLE + b"3\n", "a.csv:4: 1 cells, and the first line names 2 columns"),
        ("a.csv", TABLE + b'3,"a\nb\n', "a.csv:4: a quote opens in this row and never closes; close it"),
        ("a.csv", b'text,n\n"a" b,1\n', "a.csv:2: text follows a closing quote; write a quote inside of quotes twice"),
        ("a.csv", b'text,n\n"say \\"yes\\"",1\n', "a.csv:2: text follows a closing quote"),
        ("a.jsonl", LINES + b'{"text": "a', "a.jsonl:3: not a JSON line: Unterminated string starting at column 10"),
        ("a.jsonl", LINES + b"nonsense\n", "a.jsonl:3: not a JSON line: Expecting value at column 1"),
        ("a.jsonl", b"[1, 2]\n", "a.jsonl:1: a line must be a JSON object; a list of rows belongs into a .json file"),
        ("a.jsonl", b'{"a": NaN}\n', "a.jsonl:1: not a JSON line: NaN is not JSON; write null, or a number"),
        ("a.json", b'{"a": -Infinity}\n', "a.json:1: not a JSON line: -Infinity is not JSON"),
        ("a.json", b'[{"a": Infinity}]', "a.json:1: not JSON: Infinity is not JSON; write null, or a number"),
        ("a.jsonl", b'{"a": {"b": 1, "b": 2}}\n', "a.jsonl:1: not a JSON line: 'b' is there twice in one object"),
        ("a.json", b'[{"a": 1, "a": 2}]\n', "a.json:1: not JSON: 'a' is there twice in one object"),
        ("a.jsonl", b'{"a": "x \\ud83d y"}\n', "a.jsonl:1: not a JSON line: \\ud83d is half of a character; correct"),
        ("a.jsonl", b'{"a": {"\\uDC00": 1}}\n', "a.jsonl:1: not a JSON line: \\udc00 is half of a character"),
        ("a.json", b'[{"a": 1},\n{"a": "\\ud83d"}]\n', "a.json:2: not JSON: \\ud83d is half of a character"),
        ("a.jsonl", b'{"a": "\xed\xa0\xbd"}\n', "a.jsonl:1: not UTF-8 (byte 0xed)"),
        ("a.jsonl", b'{"a": ' + DEEP + b"}\n", "a.jsonl:1: not a JSON line: nested too deeply"),
        ("a.json", DEEP, "a.json:1: not JSON: nested too deeply"),
        ("a.jsonl", b'{"a": ' + b"9" * 5000 + b"}\n", "a.jsonl:1: not a JSON line: a number of too many digits"),
        ("a.json", b'[{"a": 1}, 2]', "a.json:1: not JSON: neither an object, a list nor a text"),
        ("a.json", b'[{"a": 1}, "b"]', "a.json, row 2: it is str, not an object with columns"),
        ("a.json", b'[{"a": 1},\n {"a": 2}', "a.json:2: not JSON: the file ends too soon: it is cut"),
        ("a.json", b'[{"a": 1}\n {"a": 2}]', "a.json:2: not JSON: `,` or `]` is missing"),
        ("a.json", b'[{"a": 1}] x', "a.json:1: not JSON: something follows the rows"),
        ("a.json", b'{\n"a": {"0": 1},\n"b": 2}', "a.json: one object without a list called `data`; write"),
        ("a.json", b'{"a": [{"b": 1}],\n "c":', "a.json:2: not JSON: the file ends too soon"),
        ("a.jsonl.gz", gzip.compress(LINES)[:-9], "a.jsonl.gz: its gzip stream is damaged or cut"),
        ("a.csv.gz", gzip.compress(TABLE)[:12] + b"xxxxxxxxxxxx", "a.csv.gz: its gzip stream is damaged or cut"),
        ("a.parquet", b"", "a.parquet: not a valid .parquet file"),
        ("a.txt", b"x", "a.txt: rows are read from .parquet, .jsonl, .ndjson, .csv, .tsv, .json files; convert it"),
    ],
)  # fmt: skip
def test_is_refused_by_name_line_and_remedy(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    with pytest.raises(RecipeError) as caught:
        read(write(tmp_path, name, content))
    message = str(caught.value)
    assert message.startswith(says) or says in message, message
    assert "\n" not in message and str(tmp_path) not in message and len(message) < 300


def labelled(count: int) -> list[str]:
    return [f"{i},film number {i},{('bad', 'good')[i % 2]}" for i in range(count)]


@pytest.mark.parametrize(
    ("first", "last"), [(0, 1), (5, 6), (5, 9), (0, 419), (418, 419)], ids=lambda place: str(place)
)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_quote_left_open_loses_no_row_in_silence(tmp_path: Path, first: int, last: int, end: str) -> None:
    lines = labelled(420)
    lines[first] = lines[first].replace(",film", ',"film')
    lines[last] = lines[last].replace(f"number {last},", f'number {last}",')
    path = write(tmp_path, "a.csv", end.join(["id,text,label", *lines, ""]).encode())
    with pytest.raises(RecipeError, match=rf"^a\.csv:{first + 2}: a quote opens .* closes in line {last + 2},"):
        open_table(path, path.name)


def test_a_quote_around_a_whole_file_of_pairs_is_found(tmp_path: Path) -> None:
    lines = [f"left {i}\tright {i}" for i in range(50)]
    lines[0], lines[-1] = '"' + lines[0], lines[-1].replace("\tright", '"\tright')
    path = write(tmp_path, "a.tsv", "\n".join(["sentence1\tsentence2", *lines, ""]).encode())
    with pytest.raises(RecipeError, match=r"a\.tsv:2: a quote opens in this row and closes in line 51"):
        open_table(path, path.name)


@pytest.mark.parametrize(
    "text",
    [
        "Dear sir,\nthank you, bye",
        "one,\ntwo, three,\nfour",
        "roses are red, violets blue\nsugar is sweet, so are you, too\nand, so",
        "a line\nanother",
        "1,film,\n2,film,good\n3,film",
        "\n,,\n",
    ],
)
def test_a_text_of_several_lines_is_one_cell(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.csv"
    for place in range(3):
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "text", "label"])
            rows = [line.split(",") for line in labelled(30)]
            rows[7][place] = text
            writer.writerows(rows)
        assert read(path)[7][("id", "text", "label")[place]] == text


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.csv", b"text,label\n"), ("a.jsonl", b""), ("a.json", b" \n"), ("a.json", b"[]"), ("a.json", b'{"data": []}')],
)
def test_nothing_is_no_row(tmp_path: Path, name: str, content: bytes) -> None:
    assert open_table(write(tmp_path, name, content), name).count == 0


def test_a_parquet_file_with_two_columns_of_one_name_is_refused(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])
    parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(RecipeError, match=r"a\.parquet: the column 'text' is there twice; rename one"):
        open_table(tmp_path / "a.parquet", "a.parquet")


def test_some_rows_of_a_parquet_file_are_read_from_their_groups(tmp_path: Path) -> None:
    rows = [{"text": str(i), "other": i} for i in range(5000)]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet", row_group_size=1500)
    picked = [0, 1, 1023, 1024, 1499, 1500, 2999, 4500, 4999]
    found = list(open_table(tmp_path / "a.parquet", "a.parquet").read(picked, ["text"]))
    assert found == [(f"a.parquet, row {i + 1}", {"text": str(i)}) for i in picked]


CLASSES = {"names": ["O", "B-PER"], "_type": "ClassLabel"}


@pytest.mark.parametrize(
    "feature",
    [
        CLASSES,
        {"feature": CLASSES, "length": -1, "_type": "Sequence"},
        {"feature": CLASSES, "_type": "List"},
        {"feature": {"feature": CLASSES, "_type": "LargeList"}, "_type": "List"},
        [CLASSES],
    ],
)
def test_names_of_classes_are_found_in_lists_too(tmp_path: Path, feature: Any) -> None:
    features = {"tags": feature, "tokens": {"feature": {"dtype": "string", "_type": "Value"}, "_type": "Sequence"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    table = pa.Table.from_pylist([{"tokens": ["a"], "tags": [1]}]).replace_schema_metadata(metadata)
    parquet.write_table(table, tmp_path / "a.parquet")
    assert open_table(tmp_path / "a.parquet", "a.parquet").labels == {"tags": ["O", "B-PER"]}


@pytest.mark.parametrize(
    "metadata", ["", "{", "[]", '{"info": 3}', '{"info": {"features": []}}', '{"info": {"features": {"a": 1}}}']
)
def test_strange_metadata_names_nothing(tmp_path: Path, metadata: str) -> None:
    table = pa.Table.from_pylist([{"a": 1}]).replace_schema_metadata({"huggingface": metadata})
    parquet.write_table(table, tmp_path / "a.parquet")
    assert open_table(tmp_path / "a.parquet", "a.parquet").labels == {}


def big(name: str, path: Path) -> None:
    text = "word " * 40
    lines = chain.from_iterable((json.dumps({"id": i, "text": text}), "\n") for i in range(12_000))
    if name.startswith("rows.json"):
        path.write_text("".join(lines))
    elif name == "list.json":
        path.write_text(json.dumps([{"id": i, "text": text} for i in range(12_000)]))
    elif name == "rows.csv":
        path.write_text("id,text\n" + "".join(f"{i},{text}\n" for i in range(12_000)))
    else:
        table = pa.Table.from_pylist([{"id": i, "text": text + str(i)} for i in range(12_000)])
        parquet.write_table(table, path, row_group_size=2000)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "list.json", "rows.csv", "rows.parquet"])
def test_a_sample_of_a_large_file_takes_little_memory(tmp_path: Path, name: str) -> None:
    big(name, tmp_path / name)
    tracemalloc.start()
    try:
        table = open_table(tmp_path / name, name)
        found = [row for _, row in table.read(range(100, 12_000, 400), table.columns)]
        held = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert table.count == 12_000 and [int(row["id"]) for row in found] == list(range(100, 12_000, 400))
    assert held < 2 << 20, f"{held >> 10} KiB held of a file of {(tmp_path / name).stat().st_size >> 10} KiB"


def test_a_row_that_never_ends_is_refused_before_memory_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_files, "LONGEST", 1 << 20)
    endless = b'"' + b"x" * (5 << 20)
    for name, content, says in (
        ("a.jsonl", b'{"a": ' + endless, "a.jsonl:1: a line of more than 1 Mi characters"),
        ("a.csv", b"text\n" + endless, "a.csv:2: a line of more than 1 Mi characters"),
        ("a.csv", b"text\n" + endless.replace(b"x" * 99, b"x" * 98 + b"\n"), "a.csv:2: a cell of more than 1 Mi"),
        ("a.json", b'[{"a": ' + endless, "a.json:1: not JSON: a row of more than 1 Mi characters"),
    ):
        with pytest.raises(RecipeError, match=says):
            read(write(tmp_path, name, content))


def test_long_lists_are_read_in_linear_time(tmp_path: Path) -> None:
    path = write(tmp_path, "a.json", b"[" + b",".join(b'{"a":%d}' % i for i in range(200_000)) + b"]")
    begun = time.monotonic()
    assert open_table(path, "a.json").count == 200_000
    assert time.monotonic() - begun < 20


SEEDS = {
    "a.csv": b'id,text,label\r\n1,"one, ""two""",0\r\n2,\xc3\xa9t\xc3\xa9,1\r\n',
    "a.tsv": b"id\ttext\n1\tone\n",
    "a.jsonl": '{"id": 1, "text": "é \\ud83d\\ude00", "n": [1.5, null, true]}\n{"id": 2, "text": "b"}\n'.encode(),
    "a.json": json.dumps([{"id": 1, "text": "a", "deep": {"b": [1, 2]}}, {"id": 2}], indent=1).encode(),
    "b.json": json.dumps(SQUAD).encode(),
    "a.jsonl.gz": gzip.compress(LINES),
}


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """Flip bytes, cut, repeat or put in a piece."""
    found = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        at, end = sorted((draw(st.integers(0, len(found))), draw(st.integers(0, len(found)))))
        match draw(st.sampled_from(("flip", "cut", "repeat", "put", "end"))):
            case "flip" if at < len(found):
                found[at] = draw(st.integers(0, 255))
            case "cut":
                del found[at:end]
            case "repeat":
                found[end:end] = found[at:end]
            case "put":
                found[at:at] = draw(
                    st.sampled_from((b'"', b"\0", b"\r", b"\n", b",", b"[", b"}", b"\xff\xfe", b"NaN", b"\\ud800"))
                )
            case _:
                found += content
    return bytes(found)


@settings(max_examples=150, suppress_health_check=list(HealthCheck), deadline=None)
@given(st.sampled_from(sorted(SEEDS)).flatmap(lambda name: st.tuples(st.just(name), damaged(SEEDS[name]))))
@example(("a.json", b'[{"a": 1}, {"b": [1, 2}]'))
def test_a_damaged_file_gives_rows_or_a_message(
    tmp_path_factory: pytest.TempPathFactory, file: tuple[str, bytes]
) -> None:
    name, content = file
    path = write(tmp_path_factory.mktemp("damaged"), name, content)
    try:
        rows = read(path)
    except RecipeError as error:
        assert str(error).startswith(name) and "\n" not in str(error)
    else:
        json.dumps(rows, allow_nan=True).encode()


@settings(max_examples=60, suppress_health_check=list(HealthCheck), deadline=None)
@given(st.data())
def test_a_damaged_parquet_file_gives_rows_or_a_message(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    rows = [{"text": f"text {i}", "label": i % 2, "tags": ["a"] * (i % 3), "x": {"y": i / 7}} for i in range(50)]
    parquet.write_table(pa.Table.from_pylist(rows), folder / "good.parquet", row_group_size=20)
    path = write(folder, "a.parquet", data.draw(damaged((folder / "good.parquet").read_bytes())))
    try:
        read(path)
    except RecipeError as error:
        assert str(error).startswith("a.parquet") and "\n" not in str(error)


@given(
    st.lists(
        st.dictionaries(
            st.text(st.characters(exclude_categories=["Cs"])), st.text(st.characters(exclude_categories=["Cs"]))
        ),
        max_size=5,
    )
)
@settings(suppress_health_check=list(HealthCheck), deadline=None)
def test_one_document_is_the_same_as_its_lines(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, str]]
) -> None:
    folder = tmp_path_factory.mktemp("same")
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    lines = write(folder, "a.jsonl", text.encode())
    for indent in (None, 2):
        for value in (rows, {"data": rows}):
            whole = json.dumps(value, ensure_ascii=False, indent=indent)
            if rows and all("paragraphs" not in row for row in rows):
                assert read(write(folder, "a.json", whole.encode())) == read(lines)


def test_the_names_of_classes_of_a_feature() -> None:
    assert tables.class_names(CLASSES) == ["O", "B-PER"]
    assert tables.class_names({"_type": "ClassLabel"}) == tables.class_names([CLASSES, CLASSES]) == []


def test_a_parquet_file_of_few_large_texts_stays_small_in_memory(tmp_path: Path) -> None:
    """300 rows of 4 MiB are 1.2 GiB, and two different texts."""
    texts = pa.DictionaryArray.from_arrays(pa.array([0, 1] * 150), pa.array(["x" * (4 << 20), "y" * (4 << 20)]))
    parquet.write_table(pa.table({"text": texts}), tmp_path / "a.parquet", compression="zstd")
    table = open_table(tmp_path / "a.parquet", "a.parquet")
    pool = pa.default_memory_pool()
    before = pool.bytes_allocated()
    tracemalloc.start()
    held = [pool.bytes_allocated() for _, row in table.read(range(300), ["text"]) if row["text"]]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(held) == 300 and max(held) - before < 100 << 20 and peak < 100 << 20


def test_a_parquet_cell_or_column_that_is_a_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.parquet"
    monkeypatch.setattr(text_files, "LONGEST", 1 << 20)
    parquet.write_table(pa.table({"text": ["a", "x" * (2 << 20)]}), path)
    assert len(next(iter(open_table(path, path.name).read([0], ["text"])))) == 2
    with pytest.raises(RecipeError, match=r"a\.parquet, row 2: more than 1 MiB"):
        list(open_table(path, path.name).read([0, 1], ["text"]))
    parquet.write_table(pa.table({"n": [[0] * (1 << 20)], "text": ["a"]}), path)
    assert list(open_table(path, path.name).read([0], ["text"])) == [("a.parquet, row 1", {"text": "a"})]
    with pytest.raises(RecipeError, match=r"a\.parquet: the column 'n\.[\w.]+' unpacks from"):
        list(open_table(path, path.name).read([0], ["n"]))


@pytest.mark.parametrize("name", ["a.csv.gz", "a.jsonl.gz", "a.json.gz", "a.tsv.gz"])
@pytest.mark.parametrize("unit", [b"\n", b" ", b"a", b'{"a": 1}\n'], ids=["lines", "spaces", "text", "rows"])
def test_a_gzip_bomb_is_refused(name: str, unit: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some kB that give far more: the file is named before much of it is read."""
    monkeypatch.setattr("cpu_pipeline.core.text_files.UNPACKED", 1 << 20)
    packed = gzip.compress(b"a\n" * name.endswith("sv.gz") + unit * ((4 << 20) // len(unit)))
    (tmp_path / name).write_bytes(packed)
    assert len(packed) < 20_000
    with pytest.raises(RecipeError, match=rf"^{name}:.*") as caught:
        open_table(tmp_path / name, name)
    assert "that is no data set" in str(caught.value) or (name == "a.json.gz" and unit == b"a")


def test_what_packs_well_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cpu_pipeline.core.text_files.UNPACKED", 1 << 10)
    text = "".join(f'{{"text": "a row of a few words, the number {i}"}}\n' for i in range(2000))
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    (tmp_path / "a.jsonl").write_text(text)
    assert open_table(tmp_path / "a.jsonl.gz", "a.jsonl.gz").count == open_table(tmp_path / "a.jsonl", "a.jsonl").count
