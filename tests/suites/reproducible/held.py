"""Two builds of one recipe, held against what its stages say of themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cpu_pipeline import stages


@dataclass(frozen=True)
class Twice:
    """One recipe, built in two places."""

    here: Mapping[str, Any]
    there: Mapping[str, Any]
    """Step -> what `run --json` says of it."""
    uses: Mapping[str, str]
    """Step -> its stage."""


def hold(twice: Twice) -> None:
    """Fail unless both builds have the same steps, and exactly those differ whose stages say that they do."""
    assert set(twice.here) == set(twice.there) == set(twice.uses)
    # The first of a chain is the one to mend: what comes after it has other inputs, and with them another key.
    broken, same, moved = [], set(), []
    for step, use in twice.uses.items():
        here, there = twice.here[step], twice.there[step]
        if here["key"] != there["key"]:
            moved.append(step)
        elif here["digest"] != there["digest"]:
            if not stages.get(use).reproducible:
                broken.append(f"{step} ({use}): {here['digest']} here, {there['digest']} there")
        else:
            same.add(use)
    assert not broken, "other bytes, though the stage promises the same:\n" + "\n".join(broken)
    differs = any(stages.get(use).reproducible for use in twice.uses.values())
    assert differs or not moved, f"other keys, though everything that they are made of is the same: {', '.join(moved)}"
    modest = sorted(use for use in same if stages.get(use).reproducible)
    assert not modest, f"the same bytes, though the stage says that it cannot: {', '.join(modest)}"
