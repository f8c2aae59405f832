"""`init` for models and rows of this machine: a recipe that checks, whatever lies where."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, Cli
from project import write_model

from cpu_pipeline.recipe.document import read_document


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_model(tmp_path / "model")
    write_csv(tmp_path / "rows.csv")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    return tmp_path


def write_csv(path: Path, count: int = 120, header: str = "review,sentiment") -> None:
    lines = [f"a {'film' if n % 2 else 'day'} {n},{'good' if n % 2 else 'bad'}" for n in range(count)]
    path.write_text("\n".join([header, *lines]) + "\n")


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def value(path: Path) -> dict[str, Any]:
    return dict(read_document(path).value)


def test_a_model_and_string_labels_become_a_recipe_that_checks(home: Path, cli: Cli) -> None:
    said = cli("init", "./model", "--data", "rows.csv")
    assert said.code == 0, said.err
    assert said.out.splitlines() == [
        "wrote  model.yaml", "next   cpu-pipeline check model.yaml", "       cpu-pipeline run model.yaml",
    ]  # fmt: skip
    written = value(home / "model.yaml")
    assert written["model"] == {"folder": "model"} and written["task"] == "text-classification"
    assert written["data"] == {"validation": {"file": "rows.csv", "columns": {"text": "review", "label": "sentiment"}}}
    assert written["pipeline"] == "onnx-int8"
    said = cli("check", "model.yaml")
    assert (said.code, said.out.splitlines()[0]) == (0, "ok  model.yaml"), said.err


def test_every_line_has_a_comment_and_the_schema_lies_beside_it(home: Path, cli: Cli) -> None:
    assert cli("init", "model", "--data", "rows.csv").code == 0
    first, *lines = (home / "model.yaml").read_text().splitlines()
    assert first == "# yaml-language-server: $schema=schema.json"
    commented = [line for line, before in zip(lines, ["", *lines], strict=False) if "#" in line or "# " in before]
    assert commented == lines
    assert (home / "schema.json").read_text() == (ROOT / "schema.json").read_text()
    assert str(home) not in (home / "model.yaml").read_text()


def test_in_a_clone_the_schema_is_the_clones(home: Path, cli: Cli) -> None:
    path = ROOT / "recipes" / "made-by-a-test.yaml"
    try:
        assert cli("init", "model", "--data", "rows.csv", "--out", path).code == 0
        assert path.read_text().startswith("# yaml-language-server: $schema=../schema.json\n")
        assert not (path.parent / "schema.json").exists()
    finally:
        path.unlink(missing_ok=True)


def test_a_schema_of_somebody_else_stays(home: Path, cli: Cli) -> None:
    (home / "schema.json").write_text("{}")
    assert cli("init", "model", "--data", "rows.csv").code == 0
    assert (home / "schema.json").read_text() == "{}"
    assert "$schema" not in (home / "model.yaml").read_text()


@pytest.mark.parametrize("how", ["model", "./model", "{home}/model", "sub/../model", "~/model", "link", "model/", "."])
def test_any_spelling_of_a_folder_will_do(home: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    monkeypatch.setenv("HOME", str(home))
    (home / "sub").mkdir()
    (home / "link").symlink_to(home / "model")
    if how == ".":
        monkeypatch.chdir(home / "model")
    data = "../rows.csv" if how == "." else "rows.csv"
    said = cli("init", how.format(home=home), "--data", data, "--out", home / "new.yaml")
    assert said.code == 0, said.err
    assert cli("check", home / "new.yaml").code == 0
    assert value(home / "new.yaml")["model"]["folder"] in ("model", "link")


def test_what_lies_elsewhere_is_marked_and_the_next_commands_allow_it(home: Path, cli: Cli, tmp_path: Path) -> None:
    (home / "work").mkdir()
    said = cli("init", "model", "--data", "rows.csv", "--out", "work/new.yaml")
    assert said.code == 0, said.err
    written = value(home / "work" / "new.yaml")
    assert written["model"] == {"folder": "../model", "outside": True}
    assert written["data"]["validation"]["outside"] is True
    [check] = re.findall(r"cpu-pipeline (check .*)", said.out)
    assert cli(*check.split()).code == 0
    shown = cli("check", "work/new.yaml")
    assert shown.code == 0 and shown.out.count("outside") > 1


def test_nothing_is_overwritten_unasked(home: Path, cli: Cli) -> None:
    (home / "model.yaml").write_text("mine")
    said = cli("init", "model", "--data", "rows.csv")
    assert said.code == 2 and "--force" in said.err and (home / "model.yaml").read_text() == "mine"
    assert cli("init", "model", "--data", "rows.csv", "--force").code == 0
    assert "folder: model" in (home / "model.yaml").read_text()


def test_few_rows_are_allowed_in_a_line_that_says_so(home: Path, cli: Cli) -> None:
    write_csv(home / "rows.csv", 40)
    said = cli("init", "model", "--data", "rows.csv")
    assert said.code == 0 and "only 40 rows are few" in said.err
    assert value(home / "model.yaml")["with"] == {"accuracy": {"min_rows": 40}}
    assert cli("check", "model.yaml").code == 0


def test_one_file_is_split_where_the_pipeline_calibrates(home: Path, cli: Cli) -> None:
    lines = (home / "rows.csv").read_text().splitlines()
    (home / "rows.csv").write_text("\n".join([*lines, *lines[1:9]]) + "\n")  # rows that say the same
    assert cli("init", "model", "--data", "rows.csv", "--pipeline", "openvino-int8").code == 0
    data = value(home / "model.yaml")["data"]
    assert (data["calibration"]["take"], data["validation"]["without"]) == (32, 32)
    said = cli("check", "model.yaml", "--json").json
    assert said[0]["exit_code"] in (0, 3), said  # 96 rows and fewer than 100 may be left


def test_two_files_have_their_roles(home: Path, cli: Cli) -> None:
    (home / "data").mkdir()
    write_csv(home / "data" / "validation.csv")
    (home / "data" / "train.jsonl").write_text(
        "".join(json.dumps({"text": f"good {n}", "label": "good"}) + "\n" for n in range(20))
    )
    said = cli("init", "model", "--data", "data")
    assert said.code == 0, said.err
    data = value(home / "model.yaml")["data"]
    assert data["validation"]["file"] == "data/validation.csv"
    assert data["calibration"] == {"file": "data/train.jsonl"}
    assert cli("check", "model.yaml").code == 0


def exported(home: Path, format: str) -> Path:
    folder = home / format
    write_model(folder)
    (folder / "model.safetensors").unlink()
    for name in {"onnx": ("model.onnx",), "openvino": ("openvino_model.xml", "openvino_model.bin")}[format]:
        (folder / name).write_bytes(b"x")
    return folder


@pytest.mark.parametrize(("format", "stage"), [("onnx", "quantize.onnx"), ("openvino", "quantize.openvino")])
def test_an_exported_model_gets_steps_that_take_it(home: Path, cli: Cli, format: str, stage: str) -> None:
    exported(home, format)
    write_csv(home / "rows.csv", 400)
    said = cli("init", format, "--data", "rows.csv")
    assert said.code == 0, said.err
    written = value(home / f"{format}.yaml")
    assert written["model"] == {"folder": format, "format": format}
    assert written["stages"][0]["use"] == stage and written["task"] == "text-classification"
    assert cli("check", f"{format}.yaml").code == 0, cli("check", f"{format}.yaml").err


def test_windows_are_as_long_as_the_model_takes(home: Path, cli: Cli) -> None:
    edit_config(home / "model", max_position_embeddings=64, architectures=["BertForQuestionAnswering"])
    row = {"question": "who?", "context": "it is I", "answers": {"text": ["I"], "answer_start": [6]}}
    (home / "squad.jsonl").write_text((json.dumps(row) + "\n") * 3)
    assert cli("init", "model", "--data", "squad.jsonl").code == 0
    written = value(home / "model.yaml")["task"]
    assert written["with"] == {"max_seq_length": 64, "doc_stride": 21, "version": 1}


def test_pickled_weights_are_named_and_not_allowed(home: Path, cli: Cli) -> None:
    (home / "model" / "model.safetensors").rename(home / "model" / "pytorch_model.bin")
    said = cli("init", "model", "--data", "rows.csv")
    assert said.code == 0 and "pickle" in said.err
    assert "\n# allow: [pickle]" in (home / "model.yaml").read_text()
    assert cli("check", "model.yaml").code == 7


def test_a_snapshot_of_the_hubs_cache_is_a_folder(home: Path, cli: Cli) -> None:
    repository = home / "cache" / "models--someone--Tiny.Model"
    folder = repository / "snapshots" / ("0" * 40)
    folder.mkdir(parents=True)
    (home / "model").rename(repository / "blobs")
    for path in (repository / "blobs").iterdir():
        (folder / path.name).symlink_to(os.path.relpath(path, folder))
    said = cli("init", folder, "--data", "rows.csv")
    assert said.code == 0, said.err
    assert "wrote  tiny.model.yaml" in said.out
    assert cli("check", "tiny.model.yaml").code == 0


WRONG = {
    "no folder": (["nowhere/at/all", "--data", "rows.csv"], "nowhere/at/all: no such folder"),
    "a file": (["rows.csv", "--data", "rows.csv"], "rows.csv: this is a file; name the folder"),
    "no rows": (["model"], "say which rows to score: `--data FILE`"),
    "no such rows": (["model", "--data", "none.csv"], "none.csv: no such file"),
    "unknown kind": (["model", "--data", "rows.xlsx"], "rows are read from"),
    "unknown task": (["model", "--data", "rows.csv", "--task", "text-clasification"], "did you mean `text-classifi"),
    "unknown pipeline": (["model", "--data", "rows.csv", "--pipeline", "onnx-int"], "did you mean `onnx-int8`?"),
    "no such column": (["model", "--data", "rows.csv", "--column", "text=revue"], "did you mean `review`?"),
    "strange column": (["model", "--data", "rows.csv", "--column", "txt=review"], "did you mean `text`?"),
    "no column": (["model", "--data", "odd.csv"], "say it with `--column label="),
    "odd option": (["model", "--data", "rows.csv", "--column", "text"], "write it as COLUMN=NAME"),
    "an empty folder": (["empty", "--data", "rows.csv"], "no config.json"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_is_told_with_what_to_do(home: Path, cli: Cli, name: str) -> None:
    arguments, text = WRONG[name]
    (home / "rows.xlsx").write_text("x")
    (home / "odd.csv").write_text("a,b\nx,y\n")
    (home / "empty").mkdir()
    said = cli("init", *arguments)
    assert said.code == 2 and text in said.err, said.err
    assert not list(home.glob("*.yaml"))


def heads() -> Iterator[tuple[dict[str, Any], str]]:
    yield {"architectures": ["BertForTokenClassification"]}, "token-classification"
    yield {"architectures": ["BertModel"], "problem_type": "regression"}, "text-classification"
    yield {"architectures": None}, "text-classification"


@pytest.mark.parametrize(("config", "task"), heads())
def test_the_task_comes_of_the_head_then_of_the_rows(home: Path, cli: Cli, config: dict[str, Any], task: str) -> None:
    edit_config(home / "model", **config)
    if task == "token-classification":
        rows = [{"tokens": ["a"], "tags": ["bad"]}] * 120
        (home / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert cli("init", "model", "--data", "rows.jsonl" if task.startswith("token") else "rows.csv").code == 0
    written = value(home / "model.yaml")["task"]
    assert (written["use"] if isinstance(written, dict) else written) == task


def test_sentence_transformers_are_known_by_their_files(home: Path, cli: Cli) -> None:
    edit_config(home / "model", architectures=["BertModel"])
    (home / "model" / "modules.json").write_text("[]")
    (home / "pairs.csv").write_text("a,b,c\n" + "one text,another text,0.5\n" * 3)
    said = cli("init", "model", "--data", "pairs.csv")
    assert said.code == 0, said.err
    columns = value(home / "model.yaml")["data"]["validation"]["columns"]
    assert columns == {"sentence1": "a", "sentence2": "b", "score": "c"}


def test_the_version_of_squad_comes_of_the_answers(home: Path, cli: Cli) -> None:
    edit_config(home / "model", architectures=["BertForQuestionAnswering"])
    row = {"question": "who?", "context": "it is I", "answers": {"text": [], "answer_start": []}}
    (home / "squad.jsonl").write_text((json.dumps(row) + "\n") * 3)
    assert cli("init", "model", "--data", "squad.jsonl").code == 0
    assert value(home / "model.yaml")["task"]["with"]["version"] == 2


@pytest.mark.parametrize(
    ("config", "label", "metric"),
    [
        ({}, "{0}", "accuracy"),
        ({"id2label": {"0": "LABEL_0"}, "label2id": {}, "problem_type": "regression"}, "{1}.5", "r2"),
        ({"problem_type": "multi_label_classification"}, '"[""{0}""]"', "f1_micro"),
    ],
)
def test_the_metric_is_that_of_the_model_s_head(home: Path, cli: Cli, config: Any, label: str, metric: str) -> None:
    edit_config(home / "model", **config)
    rows = [f"a day {n}," + label.format(("bad", "good")[n % 2], n) for n in range(120)]
    (home / "rows.csv").write_text("\n".join(["text,score", *rows]) + "\n")
    said = cli("init", "model", "--data", "rows.csv")
    assert said.code == 0, said.err
    assert f"gates judge {metric};" in (home / "model.yaml").read_text()
    assert value(home / "model.yaml")["data"]["validation"]["columns"] == {"label": "score"}
    said = cli("check", "model.yaml")
    assert (said.code, said.out.splitlines()[0]) == (0, "ok  model.yaml"), said.err
