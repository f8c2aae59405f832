"""The pages use the field's terms: words that the project gave up do not come back."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pages import ROOT, pages, prose

WORDS = {
    r"(put|puts|putting|let|lets) out": "publish, output",
    r"kept": "cached, retained",
    r"said|told|says|tells": "message, report, state, show",
    r"rooms?|shelf|shelves|wings?": "directory, package",
    r"(hold|holds|held) against": "compare with, check against",
    r"(this|another|the same|two|of|a) places?": "path, location, environment",
    r"(is|are|was|were|be|been) (made|asked)": "built, created, requested",
    r"branch(es)? (has |have )?moved|moved branch(es)?|has moved": "advanced",
    r"apart": "disjoint, separate",
    r"CPU has not": "this CPU lacks",
    r"is none of": "is not one of",
    r"taken? up": "loaded",
    r"anew": "again",
    r"came? (to|of it)": "result, become",
    r"hangs? on": "depends on",
    r"lies|lie in|lie beside": "is",
    r"whoever|whichever": "who, any",
    r"else's|nobody's": "another's",
    r"papers?": "file",
    r"what (has|was|is|were) (moved|built|kept|made)": "a noun",
    r"(stays|say|go|goes|is) there": "available, local, or the name of the location",
    r"from here|is here|are here|not here": "local, on this machine",
}
"""What is not written -> what to write."""


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_uses_no_word_that_was_given_up(page: Path) -> None:
    found = [
        f"{page}:{number}: {match[0]!r}: write {better}"
        for number, line in enumerate(prose(page).splitlines(), 1)
        for word, better in WORDS.items()
        for match in re.finditer(rf"\b(?:{word})\b", line, re.IGNORECASE)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("text", ["It is put out.", "every step is kept", "as the log says", "whoever asks"])
def test_such_a_word_is_found(text: str) -> None:
    assert any(re.search(rf"\b(?:{word})\b", text) for word in WORDS)


@pytest.mark.parametrize("text", ["Output goes to a file.", "It replaces the list.", "a CPU has 2 cores"])
def test_a_word_like_it_is_not(text: str) -> None:
    assert not any(re.search(rf"\b(?:{word})\b", text) for word in WORDS)
