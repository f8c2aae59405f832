"""Rows are the same when what a model is given agrees, however it is written."""

from __future__ import annotations

import pytest

from cpu_pipeline.stages.load._same import essence, folded


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("A film", " a  FILM\n"),
        ("a film", "a\u200b f\ufeffilm"),
        ("a film", "a\u00a0ﬁlm"),
        ("straße", "STRASSE"),
        ("é", "e\u0301"),
        ("a film", "a fi\u00adlm\ufe0f"),
        ("a film", "\u202ea film\x00"),
    ],
)
def test_texts_that_are_the_same(one: str, other: str) -> None:
    assert folded(one) == folded(other)


def test_texts_that_differ() -> None:
    assert len({folded(text) for text in ("a film", "afilm", "a film.", "e", "é")}) == 5


def test_only_inputs_count_and_files_by_their_content() -> None:
    one = essence({"text": "A", "label": 1}, ("text", "text_pair"), frozenset())
    assert one == essence({"text": "a ", "label": 0, "text_pair": None}, ("text", "text_pair"), frozenset())
    assert one != essence({"text": "a", "text_pair": "b"}, ("text", "text_pair"), frozenset())
    files = frozenset({"image"})
    png, jpg = ({"image": f"files/12ab.{ending}"} for ending in ("png", "jpg"))
    assert essence(png, ("image",), files) == essence(jpg, ("image",), files)
    assert essence({"tokens": ["A", "b"]}, ("tokens",), files) == essence({"tokens": ["a", "B "]}, ("tokens",), files)
