"""The stages of the other environments give the same bytes, too; needs both environments."""

from __future__ import annotations

from collections.abc import Callable

from suites.reproducible.held import Twice, hold


def test_gives_the_bytes_it_claims(twice: Callable[[str], Twice]) -> None:
    hold(twice("environments"))
