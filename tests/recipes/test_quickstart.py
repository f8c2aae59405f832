"""The quickstart's model and rows are what make.py makes, share nothing, and really answer."""

from __future__ import annotations

import importlib.util
import json
import re
import string
import sys
from collections import Counter
from itertools import combinations
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from cpu_pipeline.graph import planner
from cpu_pipeline.recipe.reader import load_recipe
from cpu_pipeline.release import lockfile

QUICKSTART = Path(__file__).resolve().parents[2] / "recipes" / "quickstart"
SPLITS = ("train", "calibration", "validation")
Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def make() -> ModuleType:
    spec = importlib.util.spec_from_file_location("quickstart_make", QUICKSTART / "make.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def files() -> dict[str, Rows]:
    return {
        split: [json.loads(line) for line in (QUICKSTART / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()]
        for split in SPLITS
    }


@pytest.mark.parametrize("split", SPLITS)
def test_rows_are_what_the_script_generates(make: ModuleType, split: str) -> None:
    assert (QUICKSTART / f"{split}.jsonl").read_bytes() == make.data(split).encode()


def test_rows_are_squad_rows(files: dict[str, Rows]) -> None:
    for rows in files.values():
        for row in rows:
            assert set(row) == {"id", "title", "context", "question", "answers"}
            for text, start in zip(row["answers"]["text"], row["answers"]["answer_start"], strict=True):
                assert text and row["context"][start : start + len(text)] == text
            assert row["question"].endswith("?") and not re.search(r"[{}|\x00-\x1f]", row["context"] + row["question"])


def test_files_share_neither_ids_nor_passages(files: dict[str, Rows]) -> None:
    ids = [row["id"] for rows in files.values() for row in rows]
    assert len(ids) == len(set(ids))
    for one, other in combinations(SPLITS, 2):
        assert not {row["context"] for row in files[one]} & {row["context"] for row in files[other]}
    assert len({row["context"] for row in files["validation"]}) >= 200


def test_no_template_is_on_both_sides(make: ModuleType) -> None:
    trained, held = make.templates("train"), make.templates("validation")
    assert trained.relations.keys() == held.relations.keys()

    def lines(texts: Any) -> set[str]:
        relations = [relation for some in texts.relations.values() for relation in some]
        said = {line for relation in relations for line in (*relation.sentences, *relation.questions)}
        return said | set(texts.filler) | set(texts.opening)

    def forms(texts: Any) -> set[str]:
        """Give every line with every choice of its (x|y), nothing filled in."""
        every = set()
        for line in lines(texts):
            parts = [part.split("|") for part in re.split(r"[()]", line)]
            made = [""]
            for choices in parts:
                made = [text + choice for text in made for choice in choices]
            every |= {text.replace("{who", "{name").lower() for text in made}
        return every

    assert not forms(trained) & forms(held)


def test_names_of_validation_are_unseen_in_training(make: ModuleType, files: dict[str, Rows]) -> None:
    """Words that only names have: capitalised inside a sentence, and in no template or list of common words."""
    common = {
        word.lower()
        for file in ("templates.txt", "names.txt")
        for word in re.findall(r"[A-Za-z]+", (QUICKSTART / file).read_text(encoding="utf-8"))
    } - {name.lower() for key in ("first", "last") for name in make.LISTS[key]}

    def names(rows: Rows) -> set[str]:
        found = (re.findall(r"(?<=[a-z,] )[A-Z][a-z]+", f"{row['context']} {row['question']}") for row in rows)
        return {word for words in found for word in words if word.lower() not in common}

    held = names(files["validation"])
    assert len(held) > 400
    assert not held & (names(files["train"]) | names(files["calibration"]))


def test_model_is_small_and_complete() -> None:
    files = {path.name: path.stat().st_size for path in (QUICKSTART / "model").iterdir()}
    assert files.keys() == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
    }
    assert sum(files.values()) <= 8_000_000
    assert (QUICKSTART / "train.jsonl").stat().st_size <= 1_500_000


def test_both_tokenizers_agree(files: dict[str, Rows]) -> None:
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer

    plain = Tokenizer.from_file(str(QUICKSTART / "model" / "tokenizer.json"))
    assert plain.truncation is None and plain.padding is None
    auto = AutoTokenizer.from_pretrained(QUICKSTART / "model")
    assert [auto.bos_token_id, auto.pad_token_id, auto.eos_token_id, auto.unk_token_id, auto.mask_token_id] == [
        *range(5)
    ]
    for row in files["validation"][:50]:
        one = plain.encode(row["question"], row["context"])
        other = auto(row["question"], row["context"], return_offsets_mapping=True)
        assert one.ids == other["input_ids"]
        assert one.offsets == other["offset_mapping"]
        assert one.ids.count(2) == 3 and one.ids[0] == 0 and 3 not in one.ids


def words(text: str) -> list[str]:
    kept = "".join(
        " " if char in string.whitespace else char for char in text.lower() if char not in string.punctuation
    )
    return [word for word in kept.split(" ") if word not in ("", "a", "an", "the")]


def f1(rows: Rows, answers: list[str]) -> float:
    """SQuAD's token F1, written apart from the script's."""
    total = 0.0
    for row, answer in zip(rows, answers, strict=True):
        gold, said = words(row["answers"]["text"][0]), words(answer)
        same = sum(min(count, Counter(said)[word]) for word, count in Counter(gold).items())
        if same:
            precision, recall = same / len(said), same / len(gold)
            total += 2 * precision * recall / (precision + recall)
    return total / len(rows)


def test_model_answers_and_baselines_do_not(make: ModuleType, files: dict[str, Rows]) -> None:
    rows = files["validation"][::4][:100]
    answers = make.predict(rows)
    assert f1(rows, answers) >= 0.85
    assert f1(rows, answers) == pytest.approx(make.score(rows, answers)[1])
    for answers in make.baselines(files["validation"]).values():
        assert f1(files["validation"], answers) < 0.40
    other = [{**row, "question": rows[n - 1]["question"]} for n, row in enumerate(rows)]
    assert f1(rows, make.predict(other)) < 0.40, "it answers without reading the question"


def test_the_lock_is_of_this_recipe_and_these_stages() -> None:
    """Packages and machine may be others; what was asked, of which files, through which versions of stages, not."""
    recipe = QUICKSTART.with_suffix(".yaml")
    held = lockfile.read_lock(lockfile.lock_path(recipe))
    planned = planner.make_plan(load_recipe(recipe))
    drift = lockfile.drift(held, planned)
    moved = [one.says for one in drift if one.kind != "toolchain" or ".version: " in one.says]
    assert moved == [], "write it anew with `cpu-pipeline lock recipes/quickstart.yaml`"
    assert held["steps"].keys() == planned.nodes.keys()
