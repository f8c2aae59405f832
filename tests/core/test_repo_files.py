"""Choosing and copying files by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from cpu_pipeline.core.errors import RecipeError, Refused
from cpu_pipeline.core.repo_files import (
    check_name,
    choose_data,
    choose_model,
    choose_tokenizer,
    copy_file,
    data_kind,
    refuse_pickles,
)

TOKENIZER = ["tokenizer.json", "tokenizer_config.json", "vocab.txt"]
COMMON = ["config.json", *TOKENIZER]


@pytest.mark.parametrize(
    "name",
    [
        "",
        "..",
        "../config.json",
        "a/../../config.json",
        "/etc/passwd",
        "a//b",
        "./a",
        "a\\b",
        "..\\a",
        "C:/a",
        "c:a",
        "a\0b",
        "a\nb",
    ],
)
def test_names_that_lead_outside_are_refused(name: str) -> None:
    with pytest.raises(Refused, match="outside its folder"):
        check_name(name)


@pytest.mark.parametrize("name", ["config.json", "1_Pooling/config.json", "..a/b..", "a b/ü.json", "v1.0:x"])
def test_plain_names_pass(name: str) -> None:
    assert check_name(name) == name


def test_safetensors_come_before_everything_else() -> None:
    extra = [
        "pytorch_model.bin",
        "tf_model.h5",
        "onnx/model.onnx",
        "openvino/openvino_model.xml",
        "modeling.py",
        "x.pkl",
    ]
    chosen = choose_model(
        [*COMMON, "model.safetensors", "model.fp16.safetensors", "trainer_state.json", *extra], "hf", "m"
    )
    assert chosen == sorted([*COMMON, "model.safetensors"])


def test_shards_come_with_their_index() -> None:
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"]
    assert choose_model([*COMMON, *shards, "other-00001-of-00002.safetensors"], "hf", "m") == sorted([*COMMON, *shards])


def test_sentence_transformers_modules_are_chosen() -> None:
    names = [*COMMON, "model.safetensors", "modules.json", "1_Pooling/config.json", "1_Pooling/evil.py", "eval/x.json"]
    assert set(choose_model(names, "hf", "m")) == {
        *COMMON,
        "model.safetensors",
        "modules.json",
        "1_Pooling/config.json",
    }


def test_every_file_that_sentence_transformers_reads_is_chosen() -> None:
    read = ["modules.json", "config_sentence_transformers.json", "sentence_xlm-roberta_config.json"]
    read += ["1_Pooling/config.json", "2_Dense/config.json", "2_Dense/model.safetensors", "3_LayerNorm/config.json"]
    read += ["3_LayerNorm/pytorch_model.bin", "4_Normalize/config.json", "10_Dense_2/config.json"]
    names = [
        *COMMON,
        "model.safetensors",
        *read,
        "2_Dense/pytorch_model.bin",
        "3_LayerNorm/readme.txt",
        "x/config.json",
    ]
    for format, weights in (("hf", "model.safetensors"), ("onnx", "onnx/model.onnx")):
        assert set(choose_model([*names, weights], format, "m")) == {*COMMON, *read, weights}  # type: ignore[arg-type]
    with pytest.raises(Refused, match=r"the only weights of 3_LayerNorm are pickled \(3_LayerNorm/pytorch_model.bin\)"):
        refuse_pickles(read, set(), "m")


def test_files_that_nothing_reads_are_in_no_key() -> None:
    """What training and people leave beside a model does not build it again."""
    extra = [
        "notes.json",
        "all_results.json",
        "data_config.json",
        "trainer_state.json",
        "README.md",
        "loss.png",
        "runs/x",
    ]
    read = ["generation_config.json", "preprocessor_config.json", "structure.json", "cpu_pipeline.json", "modules.json"]
    names = [*COMMON, "model.safetensors", *read]
    assert choose_model([*names, *extra], "hf", "m") == choose_model(names, "hf", "m") == sorted(names)


def test_pickles_are_chosen_last_and_refused_unless_allowed() -> None:
    chosen = choose_model([*COMMON, "pytorch_model.bin"], "hf", "m")
    assert "pytorch_model.bin" in chosen
    with pytest.raises(Refused, match=r"allow: \[pickle\]"):
        refuse_pickles(chosen, {"auto_map"}, "m")
    refuse_pickles(chosen, {"pickle"}, "m")


def test_onnx_and_openvino_bring_their_companions() -> None:
    names = [*COMMON, "model.safetensors", "onnx/model.onnx", "onnx/model.onnx_data", "onnx/model_int8.onnx"]
    assert choose_model(names, "onnx", "m") == sorted([*COMMON, "onnx/model.onnx", "onnx/model.onnx_data"])
    names = [*COMMON, "openvino_model.xml", "openvino_model.bin", "openvino_tokenizer.bin"]
    assert choose_model(names, "openvino", "m") == sorted([*COMMON, "openvino_model.bin", "openvino_model.xml"])


@pytest.mark.parametrize(
    ("names", "format", "says"),
    [
        (["model.safetensors"], "hf", "no config.json"),
        (COMMON, "hf", "no weights"),
        ([*COMMON, "adapter_model.safetensors"], "hf", "no weights"),
        ([*COMMON, "a.onnx", "b.onnx"], "onnx", "2 files end in .onnx"),
        (COMMON, "onnx", "no model.onnx"),
        ([*COMMON, "openvino_model.xml"], "openvino", "no openvino_model.bin"),
    ],
)
def test_what_is_missing_is_named(names: list[str], format: str, says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        choose_model(names, format, "m")  # type: ignore[arg-type]


def test_a_tokenizer_is_its_files_alone() -> None:
    assert choose_tokenizer([*COMMON, "model.safetensors", "spiece.model", "sub/vocab.txt"]) == [
        "spiece.model",
        *TOKENIZER,
    ]


@pytest.mark.parametrize(
    ("names", "split", "config", "chosen"),
    [
        (["data/train-0.parquet", "data/validation-0.parquet"], "validation", None, ["data/validation-0.parquet"]),
        (["train.csv", "dev.csv"], "validation", None, ["dev.csv"]),
        (["a/train.jsonl", "b/train.jsonl"], "train", "b", ["b/train.jsonl"]),
        (["train.csv", "heldout.csv"], "validation", None, ["heldout.csv"]),
        (["rows.jsonl"], "train", None, ["rows.jsonl"]),
        (["train.csv", "test.csv"], "other", None, ["test.csv", "train.csv"]),
        (["constraints.csv", "train.csv"], "train", None, ["train.csv"]),
        (["a.py", "dataset_infos.json", "train.json.gz"], "train", None, ["dataset_infos.json", "train.json.gz"]),
        (
            ["validation_matched-0.parquet", "train-0.parquet"],
            "validation_matched",
            None,
            ["validation_matched-0.parquet"],
        ),
    ],
)
def test_data_files_of_a_split(names: list[str], split: str, config: str | None, chosen: list[str]) -> None:
    assert choose_data([*names, "README.md", "script.py"], split, config, "d") == sorted(["README.md", *chosen])


def test_a_data_set_without_data_files_is_named() -> None:
    with pytest.raises(RecipeError, match=r"d: no file of rows \(\.parquet, "):
        choose_data(["README.md", "rows.arrow", "dataset_infos.json", "sub/squad.py"], "train", None, "d")


def test_a_data_set_of_a_script_is_refused_with_the_way_out() -> None:
    with pytest.raises(RecipeError, match=r"a script, squad\.py, .* `cpu-pipeline pin --data .* refs/convert/parquet`"):
        choose_data(["README.md", "squad.py", "dataset_infos.json"], "train", None, "d")


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.CSV", ".csv"), ("a.jsonl.gz", ".jsonl"), ("a.json", ".json"), ("a.tsv.gz", ".tsv"), ("a.parquet", ".parquet")],
)
def test_kinds_of_data_files(name: str, kind: str) -> None:
    assert data_kind(name) == kind


@pytest.mark.parametrize("name", ["a.parquet.gz", "a.txt", "a.gz", "a.csv.zip", "csv", "a.jsonl.zst"])
def test_other_files_hold_no_rows(name: str) -> None:
    assert data_kind(name) is None


def test_a_copy_is_no_link(tmp_path: Path) -> None:
    source, target = tmp_path / "a", tmp_path / "deep" / "b"
    source.write_bytes(b"x" * 3_000_000)
    copy_file(source, target)
    assert target.read_bytes() == source.read_bytes()
    assert target.stat().st_nlink == 1 and not target.is_symlink()


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("a" * 256, RecipeError),
        ("sub/" + "é" * 128 + ".json", RecipeError),
        ("a\ud83d.json", RecipeError),
        ("a\u202egpj.json", Refused),
        ("a\x9b.json", Refused),
        ("a\0.json", Refused),
        ("a\u2066.json", Refused),
    ],
)
def test_names_that_no_file_system_takes_or_that_deceive_are_refused(name: str, error: type[Exception]) -> None:
    with pytest.raises(error, match="file name"):
        check_name(name)
    assert check_name("naïve/日本.json") == "naïve/日本.json"
