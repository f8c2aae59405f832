"""Which files a split of a Hub's data set is; the chosen files are those that the datasets library reads, too.

But where a split lies in several folders without a README.md that says what they are: the library joins them, and
here the recipe must say which one.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.stages.load import _cards, _splits

SHARDS = [f"data/train-0000{i}-of-00002.parquet" for i in range(2)]


def choose(names: list[str], split: str, config: str | None = None, readme: Path = Path("none")) -> list[str]:
    return _splits.choose(names, readme, config, split, "d")


@pytest.mark.parametrize(
    ("names", "split", "config", "chosen"),
    [
        (["test.json", "train.json"], "train", None, ["train.json"]),
        ([*SHARDS, "data/train_sft-00000-of-00001.parquet"], "train", None, SHARDS),
        ([*SHARDS, "train_sft-00000-of-00001.parquet"], "train_sft", None, ["train_sft-00000-of-00001.parquet"]),
        (["m/validation_matched-0.parquet", "m/validation-0.parquet"], "validation", None, ["m/validation-0.parquet"]),
        (["default/train/0000.parquet", "default/train/0001.parquet", "default/test/0000.parquet"], "train", None,
         ["default/train/0000.parquet", "default/train/0001.parquet"]),
        (["en/train/0000.parquet", "en-US/train/0000.parquet"], "train", "en", ["en/train/0000.parquet"]),
        (["en/train.jsonl.gz", "de/train.jsonl.gz"], "train", "de", ["de/train.jsonl.gz"]),
        (["train.csv", "train.parquet"], "train", None, ["train.parquet"]),
        (["train-0.csv", "train-1.csv", "train.json"], "train", None, ["train-0.csv", "train-1.csv"]),
        (["dev.tsv"], "validation", None, ["dev.tsv"]),
        (["a.csv", "b.csv"], "train", None, ["a.csv", "b.csv"]),
        (["SQuAD/train-v1.1.json", "SQuAD/dev-v1.1.json"], "validation", None, ["SQuAD/dev-v1.1.json"]),
        (["train/a/x.csv", "train/b/y.csv"], "train", None, ["train/a/x.csv", "train/b/y.csv"]),
    ],
)  # fmt: skip
def test_names_tell_the_split(names: list[str], split: str, config: str | None, chosen: list[str]) -> None:
    assert choose(names, split, config) == chosen


@pytest.mark.parametrize(
    ("names", "split", "config", "says"),
    [
        (["en/train.csv", "de/train.csv"], "train", None, "several folders; say `config:` with one of de, en"),
        (["en/train/0.parquet", "de/train/0.parquet"], "train", "fr", "configuration 'fr'; there is de, en"),
        ([*SHARDS, "data/held-00000-of-00001.parquet"], "test", None, "no split 'test'; there is held, train"),
        (["rows.csv"], "train", "de", "configuration 'de'; leave `config:` out"),
    ],
)
def test_what_names_do_not_tell_is_asked_for(names: list[str], split: str, config: str | None, says: str) -> None:
    with pytest.raises(RecipeError) as caught:
        choose(names, split, config)
    assert says in str(caught.value), str(caught.value)


def header(home: Path, text: str) -> Path:
    (home / "README.md").write_text(f"---\n{text}---\nA data set.\n")
    return home / "README.md"


DATA_FILES = """\
configs:
- config_name: en
  data_files:
  - {split: train, path: [x/en_*.jsonl.gz, ./more.json]}
  - {split: held, path: "**/held*"}
- config_name: de
  data_files: x/de*
"""


def test_the_header_tells_files_of_any_kind(tmp_path: Path) -> None:
    readme = header(tmp_path, DATA_FILES)
    names = ["x/en_1.jsonl.gz", "more.json", "x/de.csv.gz", "y/held.tsv", "x/de.parquet"]
    assert choose(names, "train", "en", readme) == ["more.json", "x/en_1.jsonl.gz"]
    assert choose(names, "held", "en", readme) == ["y/held.tsv"]
    assert choose(names, "train", "de", readme) == ["x/de.csv.gz", "x/de.parquet"]
    with pytest.raises(RecipeError, match="several configurations; say `config:` with one of de, en"):
        choose(names, "train", None, readme)


def test_the_header_may_tell_folders(tmp_path: Path) -> None:
    readme = header(tmp_path, 'configs:\n- {config_name: one, data_dir: "a/[1]"}\n- {config_name: two, data_dir: b}\n')
    names = ["a/[1]/train.csv", "a/[1]/test.csv", "b/train-00000-of-00001.csv", "train.csv"]
    assert choose(names, "train", "one", readme) == ["a/[1]/train.csv"]
    assert choose(names, "test", "one", readme) == ["a/[1]/test.csv"]
    assert choose(names, "train", "two", readme) == ["b/train-00000-of-00001.csv"]
    with pytest.raises(RecipeError, match="no split 'test'; there is train"):
        choose(names, "test", "two", readme)


# What datasets 5.2 writes for columns of ClassLabel, plain and in lists.
INFO = """\
  features:
  - name: text
    dtype: string
  - name: label
    dtype:
      class_label:
        names:
          '0': neg
          '1': pos
          '10': ten
          '2': two
  - name: tags
    list:
      class_label:
        names: {'0': O, '1': B}
  - name: old
    sequence:
      class_label:
        names: [x, y]
  - name: multi
    large_list: {list: {class_label: {names: {'0': m}}}}
"""
NAMES = {"label": ["neg", "pos", "two", "ten"], "tags": ["O", "B"], "old": ["x", "y"], "multi": ["m"]}


def test_names_of_classes_in_the_header(tmp_path: Path) -> None:
    header(tmp_path, "dataset_info:\n" + INFO)
    assert _cards.class_names(tmp_path, None) == NAMES
    header(tmp_path, "dataset_info:\n- config_name: a\n" + INFO + "- config_name: b\n  features: []\n")
    assert _cards.class_names(tmp_path, "a") == NAMES
    assert _cards.class_names(tmp_path, "b") == _cards.class_names(tmp_path, None) == {}


def test_names_of_classes_in_the_older_file(tmp_path: Path) -> None:
    assert _cards.class_names(tmp_path, None) == {}
    infos = '{"plain": {"features": {"label": {"names": ["n", "p"], "_type": "ClassLabel"}, "x": {"_type": "Value"}}}}'
    (tmp_path / "dataset_infos.json").write_text(infos)
    assert _cards.class_names(tmp_path, None) == _cards.class_names(tmp_path, "plain") == {"label": ["n", "p"]}


@pytest.mark.parametrize(
    "text",
    ["3", "[]", "[1]", "{}", "{features: 3}", "{features: [1]}", "{features: [{name: a, dtype: {class_label: 3}}]}"],
)
def test_a_description_that_is_something_else_names_nothing(tmp_path: Path, text: str) -> None:
    header(tmp_path, f"dataset_info: {text}\n")
    assert _cards.class_names(tmp_path, None) == {}
    for older in ("", "[]", "{", '{"a": 3}', '{"a": {"features": [1]}}'):
        (tmp_path / "dataset_infos.json").write_text(older)
        assert _cards.class_names(tmp_path, None) == {}
