"""What is told before anything is built: rows, labels, heads, metrics, files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import models
import pytest
from conftest import Cli
from project import write_model

from cpu_pipeline import api
from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.graph import precheck as module
from cpu_pipeline.stages.load import _tokenizer

GATE = "{id: accuracy, use: validate.accuracy, from: {candidate: float, reference: model}, with: {max_drop: 0.01%s}}"
RECIPE = """\
model: {folder: model}
task: TASK
data:
  calibration: {file: calibration.csv}
  validation: {file: validation.csv}
stages:
  - {id: float, use: export.onnx}
  - GATE
"""
Write = Callable[..., Path]


def write_csv(path: Path, rows: list[tuple[str, str]], header: str = "text,label") -> None:
    path.write_text("\n".join([header, *map(",".join, rows)]) + "\n")


def edit_config(home: Path, **changes: Any) -> None:
    path = home / "model" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    write_model(tmp_path / "model")
    write_csv(tmp_path / "calibration.csv", [(f"a film {n}", "good") for n in range(12)])
    write_csv(tmp_path / "validation.csv", [(f"a day {n}", ("bad", "good")[n % 2]) for n in range(12)])
    return tmp_path


def recipe(home: Path, *, task: str = "text-classification", gate: str = ", min_rows: 10", name: str = "toy") -> Path:
    path = home / f"{name}.yaml"
    path.write_text(RECIPE.replace("TASK", task).replace("GATE", GATE % gate))
    return path


def test_what_is_right_is_ok(home: Path, cli: Cli) -> None:
    said = cli("check", recipe(home))
    first, *rest = said.out.splitlines()
    assert (said.code, first, said.err) == (0, f"ok  {home / 'toy.yaml'}", "")
    assert [line.strip().partition("(")[0] for line in rest] == ["warning  step `accuracy` "]


def wrong_column(home: Path) -> Path:
    write_csv(home / "validation.csv", [("a day", "bad")] * 12, "sentence,label")
    return recipe(home)


def wrong_label(home: Path) -> Path:
    write_csv(home / "validation.csv", [("a day", "awful")] * 12)
    return recipe(home)


def overlap(home: Path) -> Path:
    write_csv(home / "validation.csv", [("a film 3", "good"), *[(f"a day {n}", "bad") for n in range(12)]])
    return recipe(home)


def no_labels(home: Path) -> Path:
    write_csv(home / "validation.csv", [(f"a day {n}", "x") for n in range(12)], "text,other")
    return recipe(home)


def no_rows_file(home: Path) -> Path:
    (home / "validation.csv").unlink()
    return recipe(home)


def no_model(home: Path) -> Path:
    path = recipe(home)
    path.write_text(path.read_text().replace("folder: model", "folder: nowhere"))
    return path


def no_weights(home: Path) -> Path:
    (home / "model" / "model.safetensors").unlink()
    return recipe(home)


def no_tokenizer(home: Path) -> Path:
    (home / "model" / "tokenizer.json").unlink()
    return recipe(home)


def broken_weights(home: Path) -> Path:
    (home / "model" / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0nonsense")
    return recipe(home)


def code_in_config(home: Path) -> Path:
    edit_config(home, auto_map={"AutoModel": "modeling.Mine"})
    return recipe(home)


def other_head(home: Path) -> Path:
    edit_config(home, architectures=["BertForTokenClassification"])
    return recipe(home)


def few_positions(home: Path) -> Path:
    edit_config(home, max_position_embeddings=64)
    return recipe(home, task="{use: text-classification, with: {max_seq_length: 100}}")


def one_label(home: Path) -> Path:
    write_csv(home / "validation.csv", [(f"a day {n}", "bad") for n in range(12)])
    return recipe(home)


def gap(home: Path) -> Path:
    edit_config(home, id2label={"0": "bad", "2": "good"}, label2id={})
    return recipe(home)


def other_kind(home: Path) -> Path:
    return recipe(home, gate=", min_rows: 10, metric: mse")


WRONG: dict[Callable[[Path], Path], tuple[int, str, str]] = {
    wrong_column: (2, ":5:3: ", "data.validation: validation.csv: no column 'text'; it has sentence, label"),
    wrong_label: (2, ":5:3: ", "label 'awful' is not one of the model's: bad, good"),
    overlap: (2, ":3:1: ", "data.calibration and data.validation share 1 of 13 rows"),
    no_labels: (2, ":8:6: ", "step `accuracy` (validate.accuracy): row validation-0: no `label` to score against"),
    no_rows_file: (2, ":5:3: ", "validation.csv: no such file"),
    no_model: (2, ":1:1: ", "nowhere: no such folder"),
    no_weights: (2, ":1:1: ", "no weights: neither model.safetensors nor its shards"),
    no_tokenizer: (2, ":1:1: ", "the model has no tokenizer; say where one is"),
    broken_weights: (1, ":1:1: ", "model.safetensors: not a valid"),
    code_in_config: (7, ":1:1: ", "`auto_map` makes libraries run code"),
    other_head: (2, ":1:1: ", "BertForTokenClassification, and this task needs one `...ForSequenceClassification`"),
    few_positions: (2, ":1:1: ", "max_seq_length is 100, but the model has 64 positions; lower it"),
    one_label: (2, ":8:6: ", "data.validation: all 12 rows have label bad: no metric tells a good model from one that"),
    gap: (2, ":1:1: ", "id2label names the outputs 0, 2; 2 outputs are 0 to 1"),
    other_kind: (2, ":8:6: ", "the task has no metric `mse`; it has: accuracy, f1, matthews"),
}


@pytest.mark.parametrize("make", WRONG, ids=lambda make: make.__name__)
def test_what_is_wrong_is_told_with_place_and_exit_code(home: Path, cli: Cli, make: Callable[[Path], Path]) -> None:
    code, place, text = WRONG[make]
    path = make(home)
    before = sorted(path.name for path in home.rglob("*"))
    said = cli("check", path)
    assert said.code == code, said.err
    [line] = [line for line in said.err.splitlines() if text in line]
    assert f"toy.yaml{place}" in line
    assert sorted(path.name for path in home.rglob("*")) == before


@pytest.mark.parametrize(
    ("gate", "code", "text"),
    [
        (", min_rows: 10, metric: f2", 2, "the task has no metric `f2`"),
        ("", 3, "step `accuracy` (validate.accuracy): 12 rows, at least 100 asked"),
    ],
)
def test_a_gate_that_cannot_pass_is_told(home: Path, cli: Cli, gate: str, code: int, text: str) -> None:
    said = cli("check", recipe(home, gate=gate))
    assert said.code == code and text in said.err


def test_everything_is_told_at_once(home: Path, cli: Cli) -> None:
    other_head(home)
    wrong_column(home)
    (home / "model" / "tokenizer.json").unlink()
    said = cli("check", recipe(home))
    assert said.code == 2
    for text in ("BertForTokenClassification", "no column 'text'", "the model has no tokenizer"):
        assert text in said.err


def test_a_model_is_never_written_to(home: Path, cli: Cli) -> None:
    edit_config(home, _name_or_path="/somewhere")
    before = (home / "model" / "config.json").read_bytes()
    assert cli("check", recipe(home)).code == 0
    assert (home / "model" / "config.json").read_bytes() == before


def test_run_checks_every_recipe_before_it_builds_one(home: Path, cli: Cli, tmp_path: Path) -> None:
    good, bad = recipe(home), recipe(home, gate=", min_rows: 10, metric: f2", name="last")
    said = cli("run", good, bad, "--store", tmp_path / "store", "--out", tmp_path / "out")
    assert said.code == 2 and "last.yaml" in said.err and "no metric `f2`" in said.err
    assert not (tmp_path / "store").exists() or not list((tmp_path / "store").glob("actions/*/*"))


def test_what_is_cached_is_not_looked_at_again(home: Path) -> None:
    plan = api.plan(api.load_recipe(wrong_column(home)))
    with pytest.raises(RecipeError, match="no column"):
        module.precheck(plan).require()
    assert module.precheck(plan, plan.nodes.keys()).findings == ()
    assert module.precheck(plan, {"data.validation"}).findings == ()


def test_many_rows_are_left_to_the_build(home: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_ROWS", 10)
    said = cli("check", wrong_column(home))
    assert said.code == 0 and "(not read: data.calibration has more than 0 MiB; data.validation has" in said.out


def hub_recipe(home: Path) -> Path:
    """Write a recipe whose model is on the Hub."""
    path = recipe(home)
    path.write_text(path.read_text().replace("{folder: model}", f'{{hub: someone/model, revision: "{"0" * 40}"}}'))
    return path


def test_a_model_of_the_hub_is_not_fetched(home: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(home / "none"))
    said = cli("check", hub_recipe(home))
    assert said.code == 0 and "(not read: model is not on this machine)" in said.out


def test_the_cached_configuration_of_a_model_of_the_hub_is_read(
    home: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setenv("HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    folder = home / "hub" / "models--someone--model" / "snapshots" / ("0" * 40)
    folder.mkdir(parents=True)
    edit_config(home, architectures=["BertForQuestionAnswering"])
    (home / "model" / "config.json").rename(folder / "config.json")
    said = cli("check", hub_recipe(home))
    assert said.code == 2 and "BertForQuestionAnswering" in said.err


def test_thorough_compares_tokenization_with_that_of_transformers(
    home: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    models.make("bert", home / "model", "text-classification")
    edit_config(home, id2label={"0": "bad", "1": "good"}, label2id={"bad": 0, "good": 1})
    assert cli("check", "--thorough", recipe(home)).code == 0
    # A build would make tokenizer.json agree; without that, the difference is told.
    monkeypatch.setattr(_tokenizer, "_agree", lambda *_: None)
    (home / "model" / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "BertTokenizer", "do_lower_case": False})
    )
    said = cli("check", "--thorough", recipe(home))
    assert said.code == 2 and "tokenizer" in said.err
    assert cli("check", recipe(home)).code == 0
