"""Schemes of tags: how the tags of words mark where entities begin and end, and how that is found out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Literal

from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.tasks._names import listed

Scheme = Literal["IOB1", "IOB2", "IOE1", "IOE2", "IOBES", "BILOU", "none"]
Entity = tuple[str, int, int]
"""Type, number of the first word, number of the last."""
OUTSIDE = "O"
LETTERS = {
    "IOB1": "BI", "IOB2": "BI", "IOE1": "IE", "IOE2": "IE", "IOBES": "BIES", "BILOU": "BILU",
}  # fmt: skip
"""Scheme -> letters of its prefixes, besides O."""
STRICT = ("IOE2", "IOBES", "BILOU")
"""Schemes by whose own rules seqeval finds entities. The others follow conlleval's rule, seqeval's default mode, which
reads IOB1 and IOB2 alike: an entity begins with B, and with an I that follows no word of its type. seqeval's own IOE1
misses entities of one word, and says so."""
_TAG = re.compile(r"([BIOESLUM])(?:[-_](.+))?|([bioeslum])[-_](.+)|(o)", re.DOTALL)
SAY = "say how to read them with the task's option `scheme`, one of " + ", ".join((*LETTERS, "none"))


def split(tag: str) -> tuple[str, str] | None:
    """Split a tag into the letter of its prefix and its type; M, of BMES, is I; None where it has no prefix."""
    if (found := _TAG.fullmatch(tag)) is None:
        return None
    letter = (found[1] or found[3] or found[5]).upper()
    return "I" if letter == "M" else letter, found[2] or found[4] or "_"


def is_outside(tag: str) -> bool:
    """Say whether a tag is that of words outside entities."""
    return tag.upper() == OUTSIDE


def letters(tags: Iterable[str]) -> str | None:
    """List the letters of the prefixes of tags, in order, without O; None where tags have no prefix.

    Raises:
        RecipeError: some tags have one, and others none.
    """
    inside = sorted({tag for tag in tags if not is_outside(tag)})
    parts = [split(tag) for tag in inside]
    bare = [tag for tag, part in zip(inside, parts, strict=True) if part is None or part[0] == OUTSIDE]
    if len(bare) == len(inside):
        return None if inside else ""
    if bare:
        prefixed = next(tag for tag in inside if tag not in bare)
        raise RecipeError(f"some tags have a prefix ({prefixed}) and some have none ({listed(bare)}): {SAY}")
    return "".join(sorted({part[0] for part in parts if part is not None}))


def family(tags: Iterable[str]) -> tuple[Scheme, ...]:
    """List the schemes that the prefixes of tags leave open; none where no tag is inside an entity.

    Raises:
        RecipeError: no scheme has these prefixes.
    """
    known = list(tags)
    found = letters(known)
    if found is None:
        return ("none",)
    if found == "":
        return ()
    for schemes in (("IOB2", "IOB1"), ("IOE2", "IOE1"), ("IOBES",), ("BILOU",)):
        if set(found) <= set(LETTERS[schemes[0]]):
            return schemes
    raise RecipeError(f"no scheme of tags has the prefixes {', '.join(found)} ({listed(sorted(set(known)))}): {SAY}")


def detect(sequences: Sequence[Sequence[str]]) -> Scheme:
    """Name the scheme of the right tags of rows: by their prefixes, and by which letter begins or ends entities.

    Raises:
        RecipeError: their prefixes are of no scheme.
    """
    schemes = family({tag for tags in sequences for tag in tags})
    if len(schemes) < 2:
        return schemes[0] if schemes else "none"
    pairs = [
        pair[::-1] if schemes[0] == "IOE2" else pair
        for tags in sequences
        for pair in pairwise([split(tag) for tag in (OUTSIDE, *tags, OUTSIDE)])
    ]
    # At an edge of an entity with a word that is not of its type, the second of each two schemes writes I.
    edges = [here[0] for other, here in pairs if here and here[0] != OUTSIDE and not _continues(other, here)]
    return schemes[int(edges.count("I") > len(edges) / 2)]


def _continues(other: tuple[str, str] | None, here: tuple[str, str]) -> bool:
    return other is not None and other[0] != OUTSIDE and other[1] == here[1]


def check(tags: Iterable[str], scheme: Scheme, whose: str) -> None:
    """Check that tags are of a scheme.

    Args:
        tags: the tags.
        scheme: the scheme, as the task's option says it.
        whose: whose tags they are, for the message.

    Raises:
        RecipeError: one is not.
    """
    if scheme == "none":
        return
    for tag in sorted(set(tags)):
        part = split(tag)
        if part is None or part[0] not in OUTSIDE + LETTERS[scheme]:
            raise RecipeError(f"scheme: {scheme} has no tag {tag!r}, which {whose} have; {SAY}")


def words(tags: Sequence[str]) -> set[Entity]:
    """List every word with a tag, as an entity of its own."""
    return {(tag, number, number) for number, tag in enumerate(tags) if not is_outside(tag)}


def entities(tags: Sequence[str], scheme: Scheme) -> set[Entity]:
    """Find the entities of one row, by seqeval.

    Raises:
        RecipeError: a tag is not of the scheme.
    """
    check(tags, scheme, "predictions")
    parts = [split(tag) for tag in tags]
    written = [OUTSIDE if part is None or part[0] == OUTSIDE else f"{part[0]}-{part[1]}" for part in parts]
    if scheme not in STRICT:
        from seqeval.metrics.sequence_labeling import get_entities

        return {(kind, int(first), int(last)) for kind, first, last in get_entities(written)}
    from seqeval import scheme as schemes

    found = schemes.Tokens(written, getattr(schemes, scheme)).entities
    return {(entity.tag, int(entity.start), int(entity.end) - 1) for entity in found}
