"""Schemes of tags are found out and named; entities are those of seqeval, whichever scheme marks them."""

from __future__ import annotations

import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models import make
from seqeval import metrics as seqeval
from seqeval.scheme import BILOU, IOB2, IOBES, IOE2
from sklearn.metrics import precision_recall_fscore_support

from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.tasks import _tags
from cpu_pipeline.tasks.token_classification import TokenClassification

TASK = TokenClassification()
TYPES = ("PER", "LOC")

ENTITIES = [("PER", 0, 0), ("PER", 1, 2), ("LOC", 4, 6), ("LOC", 7, 7), ("PER", 8, 9)]
"""Of eleven words: of one word, next to one of its own type, of three words, next to one of another type."""
WRITTEN = {
    "IOB1": "I-PER B-PER I-PER O I-LOC I-LOC I-LOC B-LOC I-PER I-PER O",
    "IOB2": "B-PER B-PER I-PER O B-LOC I-LOC I-LOC B-LOC B-PER I-PER O",
    "IOE1": "E-PER I-PER I-PER O I-LOC I-LOC E-LOC I-LOC I-PER I-PER O",
    "IOE2": "E-PER I-PER E-PER O I-LOC I-LOC E-LOC E-LOC I-PER E-PER O",
    "IOBES": "S-PER B-PER E-PER O B-LOC I-LOC E-LOC S-LOC B-PER E-PER O",
    "BILOU": "U-PER B-PER L-PER O B-LOC I-LOC L-LOC U-LOC B-PER L-PER O",
}


def _score(gold: list[list[str]], predicted: list[list[str]], **options: Any) -> Any:
    rows = [{"id": str(i), "tokens": ["x"] * len(tags), "tags": tags} for i, tags in enumerate(gold)]
    said = {str(i): {"id": str(i), "tags": tags} for i, tags in enumerate(predicted)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # seqeval warns of tags that are none to it
        return TokenClassification(**options).score(rows, said)


@pytest.mark.parametrize("scheme", WRITTEN)
def test_each_scheme_is_found_out_and_its_entities_too(scheme: _tags.Scheme) -> None:
    tags = WRITTEN[scheme].split()
    assert _tags.detect([tags]) == scheme
    assert _tags.entities(tags, scheme) == set(ENTITIES)
    assert f"Tags are {scheme}:" in _score([tags], [tags]).about
    missed = [*tags[:3], "O", "O", "O", "O", *tags[7:]]
    found = _score([tags], [missed]).metrics
    # In IOB1 and IOE1 the neighbour's tag says that the one that is missed was there; it is itself still found.
    assert found["precision"] == 1 and found["recall"] == pytest.approx(4 / 5)


@pytest.mark.parametrize(
    ("written", "scheme"),
    [
        ("B_PER I_PER O B_LOC", "IOB2"),
        ("b-per i-per o b-loc", "IOB2"),
        ("B I O B", "IOB2"),
        ("I O I I", "IOB1"),
        ("B-PER M-PER E-PER S-LOC O", "IOBES"),  # BMES
        ("U-PER O O", "BILOU"),
        ("S-PER O O", "IOBES"),
        ("NN VBZ DT JJ", "none"),
        ("ORG O PER O", "none"),
        ("O O", "none"),
    ],
)
def test_other_spellings_are_found_out(written: str, scheme: str) -> None:
    assert _tags.detect([written.split()]) == scheme


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("B-PER I-PER ORG O", r"some tags have a prefix \(B-PER\) and some have none \(ORG\)"),
        ("B-PER L-PER E-LOC", "no scheme of tags has the prefixes B, E, L"),
    ],
)
def test_what_is_of_no_scheme_is_an_error_that_names_the_option(written: str, says: str) -> None:
    with pytest.raises(RecipeError, match=f"{says}.*`scheme`, one of IOB1, IOB2, .*, none"):
        _score([written.split()], [written.split()])


def _random(letters: str, seed: int, right: float) -> tuple[list[list[str]], list[list[str]]]:
    """Draw right tags of a scheme, and answers of which a share is right and the others are any tags."""
    rng = random.Random(seed)
    known = ["O", *(f"{letter}-{kind}" for letter in letters for kind in TYPES)]
    gold = [_entities(rng, letters) for _ in range(40)]
    predicted = [[tag if rng.random() < right else rng.choice(known) for tag in tags] for tags in gold]
    return gold, predicted


def _entities(rng: random.Random, letters: str) -> list[str]:
    first, inside, last, only = {"BI": "BIIB", "IE": "IIEE", "BIES": "BIES", "BILU": "BILU"}[letters]
    tags: list[str] = []
    for _ in range(rng.randint(1, 5)):
        kind, length = rng.choice(TYPES), rng.randint(1, 4)
        body = only if length == 1 else first + inside * (length - 2) + last
        tags += [f"{letter}-{kind}" for letter in body] + ["O"] * rng.randint(0, 2)
    return tags


@pytest.mark.parametrize(
    ("letters", "strict"),
    [("BI", None), ("IE", IOE2), ("BIES", IOBES), ("BILU", BILOU)],
    ids=["IOB2", "IOE2", "IOBES", "BILOU"],
)
def test_figures_equal_seqeval_s(letters: str, strict: Any) -> None:
    gold, predicted = _random(letters, 1, 0.8)
    how = {"mode": "strict", "scheme": strict} if strict else {}
    found = _score(gold, predicted).metrics
    assert found["f1"] == pytest.approx(seqeval.f1_score(gold, predicted, **how))
    assert found["precision"] == pytest.approx(seqeval.precision_score(gold, predicted, **how))
    assert found["recall"] == pytest.approx(seqeval.recall_score(gold, predicted, **how))
    assert found["accuracy"] == pytest.approx(seqeval.accuracy_score(gold, predicted))


def test_the_usual_iob2_keeps_conlleval_s_figures_also_where_the_option_names_it() -> None:
    gold, predicted = _random("BI", 2, 0.7)
    lenient = seqeval.f1_score(gold, predicted)
    assert lenient != pytest.approx(seqeval.f1_score(gold, predicted, mode="strict", scheme=IOB2))
    for options in ({}, {"scheme": "IOB2"}, {"scheme": "IOB1"}):
        assert _score(gold, predicted, **options).metrics["f1"] == pytest.approx(lenient)


def test_tags_without_a_scheme_are_scored_word_by_word() -> None:
    gold = [["ORG", "O", "ORG", "PER"], ["O", "PER", "O", "O"]]
    predicted = [["ORG", "O", "O", "ORG"], ["O", "PER", "PER", "O"]]
    found = _score(gold, predicted)
    flat = [tag for tags in gold for tag in tags], [tag for tags in predicted for tag in tags]
    precision, recall, f1, _ = precision_recall_fscore_support(*flat, labels=["ORG", "PER"], average="micro")
    assert found.metrics == pytest.approx({"f1": f1, "precision": precision, "recall": recall, "accuracy": 5 / 8})
    assert "no scheme" in found.about
    pos = [["DT", "NN", "VBZ"], ["NN", "NN", "DT"]], [["DT", "NN", "NN"], ["NN", "VBZ", "DT"]]
    assert set(_score(*pos).metrics.values()) == {4 / 6}  # every word has a tag: all four are the share of right ones


def test_the_option_says_how_tags_are_read() -> None:
    gold, predicted = [["B-PER", "I-PER", "O"]], [["B-PER", "O", "O"]]
    assert _score(gold, predicted).metrics["f1"] == 0
    assert _score(gold, predicted, scheme="none").metrics["f1"] == pytest.approx(2 / 3)
    mixed = [["B-PER", "ORG", "O"]]
    assert _score(mixed, mixed, scheme="none").metrics["f1"] == 1
    with pytest.raises(RecipeError, match="scheme: BILOU has no tag 'E-PER'"):
        _score([["U-PER", "O"]], [["E-PER", "O"]], scheme="BILOU")


def _model(out: Path, *tags: str) -> Path:
    names = {"id2label": dict(enumerate(tags)), "label2id": {tag: i for i, tag in enumerate(tags)}}
    return make("bert", out, "token-classification", **names)


def _answered(model: Path, tags: list[Any], best: list[int], **options: Any) -> Any:
    """Score one row with these tags, answered with the outputs of these numbers."""
    task = TokenClassification(**options)
    rows = [{"id": "a", **task.row({"tokens": ["anna"] * len(tags), "tags": tags})}]
    features = task.encode(rows, model)
    count = len(features[0].inputs["input_ids"])
    logits = np.zeros((count, 5), np.float32)
    logits[features[0].extra, best] = 1
    [prediction] = task.decode(rows, features, [{"logits": logits}], model)
    return task.score(rows, {"a": prediction})


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _model(tmp_path_factory.mktemp("model") / "bert", "O", "B-PER", "I-PER", "B-LOC", "I-LOC")


@pytest.mark.parametrize(
    "tags",
    [
        ["B-PER", "I-PER", "O", "B-LOC"],
        ["b-per", "i-per", "o", "b-loc"],
        ["B_PER", "I_PER", "O", "B_LOC"],
        [1, 2, 0, 3],
    ],
)
def test_every_spelling_of_a_tag_scores_the_same(model: Path, tags: list[Any]) -> None:
    assert _answered(model, tags, [1, 2, 0, 3]).metrics == {"f1": 1, "precision": 1, "recall": 1, "accuracy": 1}
    found = _answered(model, tags, [1, 0, 0, 3])
    assert found.metrics == {"f1": 0.5, "precision": 0.5, "recall": 0.5, "accuracy": 0.75}
    assert found.rows[0]["gold"] == ["B-PER", "I-PER", "O", "B-LOC"]


def test_tags_that_differ_are_mapped_by_the_option(model: Path) -> None:
    said = {"B-person": "B-PER", "I-person": "I-PER", "B-place": 3}
    found = _answered(model, ["B-person", "I-person", "O", "B-place"], [1, 2, 0, 3], labels=said)
    assert found.metrics["f1"] == 1
    found = _answered(model, [0, 2, 1], [1, 0, 3], labels=("b-per", "b-loc", "o"))
    assert found.metrics["f1"] == 1


@pytest.mark.parametrize(
    ("tags", "says"),
    [
        (
            ["PER", "O"],
            r"the rows' tags \(PER\) and the model's \(O, B-PER, I-PER, B-LOC, I-LOC\) share nothing; .*`labels",
        ),
        (["U-PER", "B-PER"], r"the rows' tags are BILOU \(B-PER, U-PER\), and the model's are IOB2 or IOB1"),
        (["B-PER", "ORG"], r"the rows' tags: some tags have a prefix"),
        ([1, 9], "row a: tag 9, but the model has 5 labels"),
    ],
)
def test_rows_that_do_not_fit_are_refused_before_anything_runs(model: Path, tags: list[Any], says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        TASK.encode([{"id": "a", "tokens": ["anna"] * len(tags), "tags": tags}], model)


def test_a_model_s_own_tags_are_checked(tmp_path: Path) -> None:
    mixed = _model(tmp_path / "mixed", "O", "B-PER", "ORG")
    with pytest.raises(RecipeError, match="the model's outputs: some tags have a prefix"):
        TASK.check_model(mixed)
    TokenClassification(scheme="none").check_model(mixed)
    with pytest.raises(RecipeError, match="scheme: BILOU has no tag 'E-PER', which the model's outputs have"):
        TokenClassification(scheme="BILOU").check_model(_model(tmp_path / "other", "O", "B-PER", "E-PER"))
    bilou = _model(tmp_path / "bilou", "O", "B-PER", "I-PER", "L-PER", "U-PER")
    with pytest.raises(RecipeError, match=r"the rows' tags are IOB2 or IOB1 .*, and the model's are BILOU"):
        TASK.check_rows([{"id": "a", "tokens": ["a"], "tags": ["B-PER"]}], bilou)
    TASK.check_rows([{"id": "a", "tokens": ["a"], "tags": ["U-PER"]}], bilou)


def test_outputs_without_names_are_named_by_the_option(tmp_path: Path) -> None:
    model = _model(tmp_path / "model", *(f"LABEL_{i}" for i in range(5)))
    rows = [{"id": "a", "tokens": ["anna"], "tags": ["B-PER"]}]
    with pytest.raises(RecipeError, match=r"outputs have no names .*: name the 5 tags, .*`labels: \[O, ...\]`"):
        TASK.encode(rows, model)
    found = _answered(model, ["B-PER", "O"], [1, 0], labels=("O", "B-PER", "I-PER", "B-LOC", "I-LOC"))
    assert found.metrics["f1"] == 1


def test_what_never_varies_is_named() -> None:
    assert _score([["O", "O"], ["O"]], [["O", "B-PER"], ["O"]]).constant == {"rows": "tag O"}
    assert _score([["O", "B-PER"]], [["O", "O"]]).constant == {"answers": "tag O"}
