"""Near duplicates are found, counted and told, and stop nothing."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from cpu_pipeline.stages._base import Job
from cpu_pipeline.stages.load import _near
from cpu_pipeline.stages.load.apart import ApartFacts, LoadApart
from tests.stages.load.test_apart import numbers, rows

LONG = "A film about two brothers who meet again after many years and cannot agree about the house of their father."


def facts(home: Path, **roles: Any) -> ApartFacts:
    out = home / str(next(numbers))
    out.mkdir()
    return LoadApart().run(roles, out, Job(load=None, timer=None))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("other", "is_near"),
    [
        (LONG[:-1], True),
        (LONG.replace("brothers", "sisters"), True),
        (f"{LONG} Good.", True),
        (LONG[: len(LONG) // 2], False),
        (LONG[::-1], False),
        (" ".join(sorted(LONG.split())), False),
    ],
)
def test_texts_that_are_nearly_the_same(other: str, *, is_near: bool, tmp_path: Path) -> None:
    found = facts(tmp_path, calibration=rows(tmp_path, {"a": LONG}), validation=rows(tmp_path, {"b": other, "c": "x"}))
    assert [(near.of, near.to, near.rows, near.example) for near in found.near] == (
        [("validation", "calibration", 1, ("b", "a"))] if is_near else []
    )


def test_languages_without_spaces_and_short_texts(tmp_path: Path) -> None:
    text = "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。"
    one = rows(tmp_path, {"a": text, "b": "ok"})
    found = facts(tmp_path, training=one, validation=rows(tmp_path, {"c": text[:-1], "d": "no"}))
    assert [near.example for near in found.near] == [("c", "a")]


def test_every_input_has_to_be_near() -> None:
    one = _near.sketch([("a", (("question", "who?"), ("context", LONG)))])
    far = (("question", "how many rooms has the house?"), ("context", LONG))
    near = (("question", "who?"), ("context", LONG[:-1]))
    assert _near.nearly_same(one, _near.sketch([("b", far), ("c", near)])) == [("c", "a")]


def test_it_is_told_with_its_share(tmp_path: Path) -> None:
    validation = {"b": LONG[:-1], "c": "x", "d": "y", "e": "z"}
    roles = {"calibration": rows(tmp_path, {"a": LONG}), "validation": rows(tmp_path, validation)}
    says = [
        "1 of 4 rows of data.validation (25.0%) are nearly rows of data.calibration, such as 'b' of 'a': "
        "what is measured on them may be too good"
    ]
    found = facts(tmp_path, **roles)
    assert LoadApart().notices(LoadApart.parse_facts(found.model_dump(mode="json"))) == says
    assert [note.text for note in LoadApart().details(found)] == [f"{says[0]}."]
    (out := tmp_path / "out").mkdir()
    job = Job(load=None, timer=None, advises=True)  # type: ignore[arg-type]
    assert list(LoadApart().precheck(roles, out, job)) == says


def test_many_rows_are_sampled_and_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_near, "MOST_ROWS", 3)
    one = rows(tmp_path, {str(n): f"{LONG} {n}" for n in range(9)})
    found = facts(tmp_path, training=one, validation=rows(tmp_path, {"b": LONG}))
    (near,) = found.near
    assert (near.compared, near.totals) == ((1, 3), (1, 9))
    assert str(near).endswith("; only 1 of 1 rows were compared with 3 of 9")


def test_chance_misses_few() -> None:
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghij", k=6)) for _ in range(500)]
    texts = [draw.choices(words, k=40) for _ in range(200)]
    changed = [[*words[:20], "other", *words[21:]] for words in texts]  # 11 of 276 runs differ
    one, other = (
        _near.sketch([(str(n), (("text", " ".join(text)),)) for n, text in enumerate(side)])
        for side in (texts, changed)
    )
    assert _near.nearly_same(one, other) == [(str(n), str(n)) for n in range(200)]
