"""Rows of data files: splits, samples, columns, ids."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from cpu_pipeline.core.artifact import Artifact, digest_tree
from cpu_pipeline.core.errors import PipelineError, RecipeError
from cpu_pipeline.core.jsonl import read_jsonl
from cpu_pipeline.stages._base import Job
from cpu_pipeline.stages.load._splits import _glob
from cpu_pipeline.stages.load.rows import LoadRows, sample
from cpu_pipeline.tasks.question_answering import QuestionAnswering
from cpu_pipeline.tasks.sentence_similarity import SentenceSimilarity
from cpu_pipeline.tasks.text_classification import TextClassification
from cpu_pipeline.tasks.token_classification import TokenClassification


def row(i: int) -> dict[str, Any]:
    return {"text": f"text {i}", "label": i % 2, "other": i}


def put(path: Path, rows: list[dict[str, Any]], metadata: dict[str, str] | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        table = pa.Table.from_pylist(rows)
        parquet.write_table(table.replace_schema_metadata(metadata), path, row_group_size=7)
    elif path.suffix == ".csv":
        lines = [",".join(rows[0]), *(",".join(f'"{value}"' for value in r.values()) for r in rows)]
        path.write_text("\n".join(lines) + "\n")
    else:
        path.write_text("".join(json.dumps(r) + "\n" for r in rows))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "data"
    put(home / "train-00000-of-00002.parquet", [row(i) for i in range(20)])
    put(home / "train-00001-of-00002.parquet", [row(i) for i in range(20, 50)])
    put(home / "validation.parquet", [row(i) for i in range(100, 110)])
    return home


def load(home: Path, task: Any = None, **options: Any) -> tuple[list[dict[str, Any]], Any]:
    out = home.parent / f"out{len(list(home.parent.glob('out*')))}"
    out.mkdir()
    job = Job(load=None, timer=None, task=task or TextClassification())  # type: ignore[arg-type]
    facts = LoadRows(**{"role": "validation", **options}).run({"files": Artifact("files", home, "", {})}, out, job)
    return read_jsonl(out / "rows.jsonl"), facts


def fails(error: type[PipelineError], says: str, home: Path, **options: Any) -> None:
    with pytest.raises(error) as caught:
        load(home, **options)
    assert says in str(caught.value) and "\n" not in str(caught.value), str(caught.value)
    assert str(home) not in str(caught.value)


def test_a_split_is_all_its_files_in_order(home: Path) -> None:
    rows, facts = load(home, split="train")
    assert rows == [{"id": f"train-{i}", "text": f"text {i}", "label": str(i % 2)} for i in range(50)]
    assert (facts.rows, facts.total) == (50, 50)
    assert facts.files == ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"]


def test_a_sample_is_part_of_the_whole_in_order(home: Path) -> None:
    whole, all_facts = load(home, split="train")
    some, facts = load(home, split="train", take=20)
    places = [whole.index(r) for r in some]
    assert len(set(places)) == 20 and places == sorted(places)
    assert (facts.rows, facts.total) == (20, 50) and facts.ids != all_facts.ids
    assert load(home, split="train", take=20)[0] == some
    assert load(home, split="train", take=20, seed=1)[0] != some
    assert load(home, split="train", take=50)[0] == whole
    fails(RecipeError, "data.validation: take: 51, but there are 50 rows", home, split="train", take=51)


@given(st.integers(1, 400), st.data(), st.integers(-5, 5))
def test_samples_spread_over_the_data(total: int, data: st.DataObject, seed: int) -> None:
    take = data.draw(st.integers(1, total))
    picked = sample(total, take, seed)
    assert picked == sorted(set(picked)) and len(picked) == take and picked[0] >= 0 and picked[-1] < total
    edges = [-1, *picked, total]
    assert max(b - a for a, b in pairwise(edges)) <= 2 * (total / take + 1)


def test_a_sample_is_the_same_everywhere() -> None:
    assert sample(1000, 5, 0) == [122, 380, 499, 789, 943]


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".parquet"])
def test_every_kind_of_file_gives_the_same_rows(tmp_path: Path, ending: str) -> None:
    put(tmp_path / "data" / f"my{ending}", [{"id": f"00{i}", **row(i)} for i in range(5)])
    rows, _ = load(tmp_path / "data")
    assert rows == [{"id": f"00{i}", "text": f"text {i}", "label": str(i % 2)} for i in range(5)]


rows_of_text = st.lists(
    st.fixed_dictionaries(
        {"text": st.text(st.characters(exclude_categories=["Cs"]), min_size=1), "label": st.integers(0, 9)}
    ),
    min_size=1,
    max_size=8,
)


@given(rows_of_text)
def test_any_text_survives(tmp_path_factory: pytest.TempPathFactory, written: list[dict[str, Any]]) -> None:
    for ending in (".jsonl", ".parquet"):
        home = tmp_path_factory.mktemp("any") / "data"
        put(home / f"x{ending}", written)
        usable = [r for r in written if r["text"].strip()]
        if len(usable) == len(written):
            assert [{"text": r["text"], "label": int(r["label"])} for r in load(home)[0]] == written


def test_a_csv_cell_may_hold_lines_and_quotes(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.csv").write_text('text,label\n"one\ntwo, ""three""",1\nfour,0\n')
    assert [r["text"] for r in load(tmp_path / "data")[0]] == ['one\ntwo, "three"', "four"]


def test_columns_are_renamed(tmp_path: Path) -> None:
    home = tmp_path / "data"
    put(home / "a.jsonl", [{"sentence": "good", "label": 1, "key": 7, "text": "not this"}])
    rows, _ = load(home, columns={"text": "sentence", "id": "key"})
    assert rows == [{"id": "7", "text": "good", "label": "1"}]
    assert not (tmp_path / "out0" / "origin.json").exists()


def test_a_missing_column_is_named_with_the_line_to_write(tmp_path: Path) -> None:
    home = tmp_path / "data"
    put(home / "a.parquet", [{"sentence": "good", "label": 1}])
    fails(
        RecipeError, "a.parquet: no column 'text'; it has sentence, label; say which one it is: `columns: {text: ", home
    )
    put(home / "a.parquet", [{"idx": 1, "texts": "good"}])
    fails(RecipeError, "`columns: {text: texts}`", home)
    fails(RecipeError, "no column 'lable'", home, columns={"text": "texts", "label": "lable"})
    fails(RecipeError, "the task has no column 'txt' (did you mean text?)", home, columns={"txt": "texts"})
    assert load(home, columns={"text": "texts"})[0] == [{"id": "a-0", "text": "good"}]


def test_ids_are_unique(tmp_path: Path) -> None:
    home = tmp_path / "data"
    put(home / "a.jsonl", [{"id": 1, **row(1)}, {"id": "2", **row(2)}, {"id": "1", **row(3)}])
    fails(RecipeError, "a.jsonl:3: the id '1' is also that of a.jsonl:1", home)
    put(home / "a.jsonl", [{"id": 1.5, **row(1)}])
    fails(RecipeError, "a.jsonl:1: the id 1.5 is neither a text nor a whole number", home)


def test_made_ids_name_split_or_file_and_place(home: Path, tmp_path: Path) -> None:
    assert load(home, split="validation")[0][3]["id"] == "validation-3"
    assert load(home, split="train")[0][25]["id"] == "train-25"
    rows, _ = load(home)
    assert [rows[20]["id"], rows[50]["id"]] == ["train-00001-of-00002-0", "validation-0"]
    assert (tmp_path / "out0" / "origin.json").is_file()


def test_a_row_the_task_refuses_is_named(tmp_path: Path) -> None:
    home = tmp_path / "data"
    put(home / "a.jsonl", [row(0), {"text": "x", "label": -1}])
    fails(RecipeError, "data.validation: a.jsonl:2: `label` is -1", home)
    put(home / "a.jsonl", [row(0), {"label": 1}])
    fails(RecipeError, "a.jsonl:2: ", home)
    (home / "a.jsonl").unlink()
    put(home / "b.parquet", [row(0), {**row(1), "label": -1}])
    fails(RecipeError, "b.parquet, row 2: `label` is -1", home)


def test_nothing_to_read_is_named(tmp_path: Path) -> None:
    home = tmp_path / "data"
    put(home / "a.jsonl", [])
    fails(RecipeError, "a.jsonl: no rows", home)
    put(home / "a.csv", [row(0)])
    (home / "a.jsonl").unlink()
    (home / "a.csv").write_text("text,label\n")
    fails(RecipeError, "a.csv: no rows", home)


@pytest.mark.parametrize("content", [b"", b"PAR1 not really PAR1", bytes(range(256))])
def test_files_that_are_not_what_they_say_fail(tmp_path: Path, content: bytes) -> None:
    home = tmp_path / "data"
    home.mkdir()
    (home / "a.parquet").write_bytes(content)
    fails(RecipeError, "a.parquet: not a valid .parquet file", home)


def test_cut_files_fail(home: Path) -> None:
    path = home / "validation.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    fails(RecipeError, "not a valid .parquet file", home, split="validation")
    (home / "bad.jsonl").write_bytes(b'{"text": "\xff"}\n')
    path.unlink()
    (home / "validation.jsonl").write_bytes(b'{"text": "\xff"}\n')
    fails(RecipeError, "validation.jsonl:1: not UTF-8 (byte 0xff); save the file as UTF-8", home, split="validation")
    (home / "validation.jsonl").write_text('{"text": "a"}\n\n{"text"\n')
    fails(RecipeError, "validation.jsonl:3: not a JSON line", home, split="validation")


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[20:200] = bytes(180)
    path.write_bytes(content)


def test_a_parquet_file_damaged_in_the_middle_fails(home: Path) -> None:
    damage(home / "validation.parquet")
    fails(RecipeError, "validation.parquet: not a valid .parquet file", home, split="validation")


README = """---
license: mit
configs:
- config_name: one
  default: true
  data_files:
  - {split: train, path: "train-*"}
  - {split: held, path: ["validation.*", nothing]}
- config_name: two
  data_files: {test: "validation.parquet"}
---
text
"""


def test_the_readme_says_which_files_are_a_split(home: Path) -> None:
    (home / "README.md").write_text(README)
    assert len(load(home, split="held")[0]) == 10
    assert len(load(home, split="train")[0]) == 50
    assert len(load(home, split="test", config="two")[0]) == 10
    fails(RecipeError, "no split 'validation'; there is held, train", home, split="validation")
    fails(RecipeError, "no split 'train'; there is test", home, split="train", config="two")
    fails(
        RecipeError, "no configuration 'three'; say `config:` with one of one, two", home, split="train", config="three"
    )
    (home / "README.md").write_text(README.replace("  default: true\n", ""))
    fails(RecipeError, "it has several configurations; say `config:`", home, split="train")
    (home / "validation.parquet").unlink()
    fails(RecipeError, "README.md says that split 'held' is validation.*, nothing", home, split="held", config="one")


@pytest.mark.parametrize(
    "header", ["---\nconfigs: [\n---\n", "---\na: !!python/object:x.Y {}\n---\n", "---\n" + "[" * 5000 + "\n---\n"]
)
def test_a_broken_header_is_named(home: Path, header: str) -> None:
    (home / "README.md").write_text(header)
    fails(RecipeError, "README.md: not a valid YAML header", home, split="train")


def test_a_header_runs_nothing(home: Path, tmp_path: Path) -> None:
    made = tmp_path / "executed"
    (home / "README.md").write_text(f"---\na: !!python/object/apply:builtins.open [{made}, w]\n---\n")
    fails(RecipeError, "README.md: not a valid YAML header", home, split="train")
    assert not made.exists()


def test_a_bomb_in_the_header_is_not_opened(home: Path) -> None:
    lines = ["a0: &a0 [x, x]", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12))]
    (home / "README.md").write_text("---\n" + "\n".join(lines) + "\n---\n")
    fails(RecipeError, "too many YAML anchors", home, split="train")


@pytest.mark.parametrize(
    "text", ["", "no header", "---\nlicense: mit\n---\n", "---\nconfigs: 3\n---\n", "---\n- a\n---\n"]
)
def test_without_a_header_names_decide(home: Path, text: str) -> None:
    (home / "README.md").write_text(text)
    assert len(load(home, split="train")[0]) == 50
    fails(RecipeError, "no split 'test'; there is train, validation", home, split="test")


def test_a_lone_file_is_the_train_split(tmp_path: Path) -> None:
    put(tmp_path / "data" / "rows.jsonl", [row(0)])
    assert len(load(tmp_path / "data", split="train")[0]) == 1
    fails(RecipeError, "no split 'validation'; there is train", tmp_path / "data", split="validation")


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("data/train-*", "data/train-0.parquet", "data/x/train-0.parquet"),
        ("**/train*", "a/b/train.csv", "a/b/test.csv"),
        ("**/train*", "train.csv", "train/a.csv"),
        ("**", "a/b.csv", ""),
        ("a?[0-9].csv", "ab1.csv", "abc.csv"),
        ("a[!0-9].csv", "ab.csv", "a1.csv"),
        ("a.csv", "a.csv", "abcsv"),
        ("a[z-b].csv", "a[z-b].csv", "a.csv"),
    ],
)
def test_patterns_of_the_hub(pattern: str, yes: str, no: str) -> None:
    assert _glob(pattern).fullmatch(yes)
    assert not no or not _glob(pattern).fullmatch(no)


def test_names_of_classes_are_kept_as_facts(tmp_path: Path) -> None:
    features = {
        "label": {"names": ["bad", "good"], "_type": "ClassLabel"},
        "text": {"dtype": "string", "_type": "Value"},
    }
    put(tmp_path / "data" / "a.parquet", [row(0)], {"huggingface": json.dumps({"info": {"features": features}})})
    assert load(tmp_path / "data")[1].labels == {"label": ["bad", "good"]}


def test_nested_columns_come_as_the_task_wants_them(tmp_path: Path) -> None:
    answers = {"text": ["one"], "answer_start": [0]}
    put(tmp_path / "data" / "a.parquet", [{"id": "q", "question": "what?", "context": "one two", "answers": answers}])
    rows, _ = load(tmp_path / "data", QuestionAnswering())
    assert rows[0]["answers"] == answers


def test_equal_data_gives_equal_bytes(home: Path) -> None:
    load(home, split="train", take=10)
    load(home, split="train", take=10, role="calibration")
    assert digest_tree(home.parent / "out0") == digest_tree(home.parent / "out1")


def features(names: list[str]) -> dict[str, str]:
    label = {"names": names, "_type": "ClassLabel"}
    return {"huggingface": json.dumps({"info": {"features": {"label": label, "ner_tags": {"feature": label}}}})}


def test_numbers_of_classes_become_the_names_that_the_file_has(tmp_path: Path) -> None:
    home = tmp_path / "data"
    put(home / "a.parquet", [{"id": str(i), "text": "x", "label": i} for i in (1, 0)], features(["bad", "good"]))
    assert [r["label"] for r in load(home)[0]] == ["good", "bad"]
    named = [r["label"] for r in load(home, TextClassification(labels=("NEG", "POS")))[0]]
    assert named == ["POS", "NEG"], "what the recipe says of numbers counts"
    put(home / "a.parquet", [{"id": "a", "tokens": ["x", "y"], "ner_tags": [0, 1]}], features(["O", "B-PER"]))
    assert load(home, TokenClassification(), columns={"tags": "ner_tags"})[0][0]["tags"] == ["O", "B-PER"]
    put(home / "a.parquet", [{"text": "x", "label": 2}], features(["bad", "good"]))
    fails(RecipeError, "a.parquet, row 1: `label` is 2, and the file names 2 classes", home)


def test_a_hub_data_set_may_name_its_classes_in_the_readme(tmp_path: Path) -> None:
    home = tmp_path / "data"
    put(home / "train.jsonl", [row(0), row(1)])
    entry = "{name: label, dtype: {class_label: {names: {'0': bad, '1': good}}}}"
    (home / "README.md").write_text(f"---\ndataset_info:\n  features:\n  - {entry}\n---\n")
    rows, facts = load(home, split="train")
    assert [r["label"] for r in rows] == ["bad", "good"] and facts.labels == {"label": ["bad", "good"]}


def test_a_split_without_labels_has_rows_to_calibrate_with_and_none_to_judge_by(tmp_path: Path) -> None:
    home = tmp_path / "data"
    put(home / "test.parquet", [{"text": "x", "label": -1}], features(["bad", "good"]))
    fails(RecipeError, "test.parquet, row 1: `label` is -1: this split has no labels; choose one that has", home)
    assert load(home, role="calibration")[0] == [{"id": "test-0", "text": "x"}]
    put(home / "test.parquet", [{"text": "x", "label": -1}])
    fails(RecipeError, "test.parquet, row 1: `label` is -1: this split is not labelled", home)


def test_an_empty_cell_of_an_optional_column_says_nothing(tmp_path: Path) -> None:
    home = tmp_path / "data"
    home.mkdir()
    (home / "a.csv").write_text("id,text,text_pair,label\n1,,,\n2,a,b,0\n,c,,NA\n")
    assert load(home)[0] == [
        {"id": "1", "text": ""},
        {"id": "2", "text": "a", "text_pair": "b", "label": "0"},
        {"id": "a-2", "text": "c", "label": "NA"},
    ]


def test_lists_in_a_csv_are_json(tmp_path: Path) -> None:
    home = tmp_path / "data"
    home.mkdir()
    (home / "a.csv").write_text('id,tokens,tags\n1,"[""a"", ""b""]","[""O"", ""B-X""]"\n')
    assert load(home, TokenClassification())[0] == [{"id": "1", "tokens": ["a", "b"], "tags": ["O", "B-X"]}]
    (home / "a.csv").write_text("id,tokens,tags\n1,a b,O O\n")
    fails(RecipeError, "a.csv:2: `tokens` is 'a b', not JSON", home, task=TokenClassification())


def test_a_number_in_a_csv_is_a_number_or_refused(tmp_path: Path) -> None:
    home = tmp_path / "data"
    home.mkdir()
    (home / "a.csv").write_text("id,sentence1,sentence2,score\n1,a,b,4.5\n2,a,b,\n")
    assert [r.get("score") for r in load(home, SentenceSimilarity())[0]] == [4.5, None]
    (home / "a.csv").write_text("id,sentence1,sentence2,score\n1,a,b,4.5\n2,a,b,NA\n")
    fails(RecipeError, "a.csv:3: `score` is 'NA', not a number; correct it", home, task=SentenceSimilarity())


def test_a_csv_without_a_head_is_told_so(tmp_path: Path) -> None:
    home = tmp_path / "data"
    home.mkdir()
    (home / "a.csv").write_text("a film,1\nanother,0\n")
    fails(RecipeError, "no column 'text'; it has a film, 1 in its first line; say which one", home)


def test_an_empty_file_beside_others_does_no_harm(tmp_path: Path) -> None:
    home = tmp_path / "data"
    put(home / "b.jsonl", [{"id": "1", **row(0)}])
    (home / "a.jsonl").write_text("")
    assert len(load(home)[0]) == 1 and not (tmp_path / "out0" / "origin.json").exists()


def test_squads_own_file_is_read(tmp_path: Path) -> None:
    home = tmp_path / "data"
    home.mkdir()
    asked = {"id": "q", "question": "what?", "answers": [{"text": "one", "answer_start": 0}]}
    (home / "dev.json").write_text(json.dumps({"data": [{"paragraphs": [{"context": "one two", "qas": [asked]}]}]}))
    assert load(home, QuestionAnswering())[0] == [
        {"id": "q", "question": "what?", "context": "one two", "answers": {"text": ["one"], "answer_start": [0]}}
    ]


def test_columns_that_gates_divide_by_lie_beside_the_rows(tmp_path: Path) -> None:
    rows = [{**row(i), "language": "de" if i % 2 else None, "number": i} for i in range(20)]
    for name in ("rows.jsonl", "rows.csv", "rows.parquet"):
        files, out = tmp_path / name / "files", tmp_path / name / "out"
        out.mkdir(parents=True)
        put(
            files / name, [{k: "" if v is None and name.endswith("csv") else v for k, v in one.items()} for one in rows]
        )
        job = Job(load=None, timer=None, task=TextClassification())  # type: ignore[arg-type]
        inputs = {"files": Artifact("files", files, "", {})}
        LoadRows(take=10, beside=("language", "number")).run(inputs, out, job)
        kept, beside = read_jsonl(out / "rows.jsonl"), read_jsonl(out / "columns.jsonl")
        assert [one["id"] for one in beside] == [one["id"] for one in kept]
        assert all("language" not in one for one in kept), "the task's rows stay as they are"
        assert {one["language"] or None for one in beside} <= {"de", None}
        assert [str(one["number"]) for one in beside] == [one["text"].removeprefix("text ") for one in kept]
        with pytest.raises(RecipeError, match=r"no column 'langage', by which a gate divides the rows .*did you mean"):
            LoadRows(beside=("langage",)).run(inputs, out, job)
