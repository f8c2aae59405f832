"""Rows are the same when what a model is given agrees, however it is written."""

from __future__ import annotations

import unicodedata

import pytest

from cpu_pipeline.stages.load._same import IGNORABLE, essence, folded


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


def test_a_word_is_folded_as_it_is_within_its_text() -> None:
    hidden = "\x00\x1b\u00ad\u200b\u202e\u3164\ufe0f\U000e0100"
    for char in ("\u00a0", "\u2028", "\x85", "\x1f", "\u00a8", "\ufdfa", "\u0301", "ς", "İ", "ﬁ", "한", *hidden):
        for text in (char, f"a{char}B {char}é", f"x {char} y", f"{char}\u0301é\tz"):
            assert folded(text) == _folded_whole(text), ascii(text)


def _folded_whole(text: str) -> str:
    def shown(text: str) -> str:
        hidden = (
            char in IGNORABLE or (unicodedata.category(char) in ("Cf", "Cc") and not char.isspace()) for char in text
        )
        return "".join(char for char, is_hidden in zip(text, hidden, strict=True) if not is_hidden)

    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", shown(text)).casefold())
    return " ".join(shown(text).split())
