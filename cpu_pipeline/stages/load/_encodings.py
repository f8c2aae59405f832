"""Our encoding of odd texts against transformers' AutoTokenizer: ids, types, mask and offsets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.stages.load import _corpus
from cpu_pipeline.stages.load._autotokenizer import FAST, takes_types
from cpu_pipeline.stages.load._essence import PARTS, essence
from cpu_pipeline.tasks import _tokens
from cpu_pipeline.tasks._settings import TYPES

LONGEST = 512
"""Tokens that texts are cut at, where the model takes as many."""
SHORT, STRIDE = 12, 3
"""Tokens of texts that are cut short, and what neighbouring windows of one share."""
ADVICE = (
    "save the tokenizer again with transformers (`AutoTokenizer.from_pretrained(...).save_pretrained(...)`), and "
    "report this if it stays"
)


class Encoded(NamedTuple):
    """What a text became on one side."""

    inputs: Mapping[str, Sequence[int]]
    """The model's inputs."""
    offsets: Sequence[tuple[int, int]] | None = None
    """First and last+1 character of each token; None where that side has none."""


class Case(NamedTuple):
    """One text, encoded both ways."""

    about: str
    """What was encoded, for messages."""
    ours: Encoded
    official: Encoded


def check(folder: Path, official: Any, words: Any) -> int:
    """Check that a model's directory encodes the odd texts as its official tokenizer does.

    Args:
        folder: the directory.
        official: AutoTokenizer's tokenizer of the files as they were fetched.
        words: the same for texts that are split into words.

    Returns:
        The number of encodings that were compared.

    Raises:
        RecipeError: one differs; names the text, what differs, and the setting.
    """
    count = 0
    for case in cases(folder, official, words):
        count += 1
        if (found := difference(case, folder)) is not None:
            raise RecipeError(
                f"the tokenizer does not encode as transformers' AutoTokenizer does: {case.about}: {found}"
                f"{blame(folder, official, found)}; {ADVICE}"
            )
    return count


def cases(folder: Path, official: Any, words: Any) -> Iterator[Case]:
    """Encode every odd text both ways: alone, cut, in pairs, in windows, and as words."""
    texts = _corpus.texts(official.get_added_vocab())
    longest = min(_tokens.positions(folder) or LONGEST, LONGEST)
    pairs = list(zip(texts, texts[3:] + texts[:3], strict=True))
    for length in (longest, min(SHORT, longest)):
        yield from _plain(folder, official, [(text,) for text in texts], length)
        yield from _plain(folder, official, pairs, length)
    yield from _windows(folder, official, longest)
    yield from _words(folder, words, longest)


def _plain(folder: Path, official: Any, texts: Sequence[tuple[str, ...]], length: int) -> Iterator[Case]:
    ours = _tokens.tokenizer(folder, length)
    encoded = ours.encode_batch([each if len(each) > 1 else each[0] for each in texts])
    sides = [list(side) for side in zip(*texts, strict=True)]
    theirs = official(*sides, truncation=True, max_length=length, return_offsets_mapping=official.is_fast)
    for number, each in enumerate(texts):
        about = f"{' and '.join(map(shown, each))}, cut at {length}"
        yield Case(about, _taken(encoded[number], folder), _given(theirs, number))


def _windows(folder: Path, official: Any, longest: int) -> Iterator[Case]:
    if not official.is_fast:
        return
    text, length = _corpus.ODD[-1], min(longest, 64)
    sides = ("a", text) if official.padding_side == "right" else (text, "a")
    cut: _tokens.Cut = "only_second" if official.padding_side == "right" else "only_first"
    first = _tokens.tokenizer(folder, length, cut, STRIDE).encode(*sides)
    theirs = official(
        *([side] for side in sides),
        truncation=cut,
        max_length=length,
        stride=STRIDE,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    for number, window in enumerate((first, *first.overflowing)):
        yield Case(f"window {number} of {shown(text)}", _taken(window, folder), _given(theirs, number))


def _words(folder: Path, official: Any, longest: int) -> Iterator[Case]:
    ours = _tokens.tokenizer(folder, longest, prefix_space=True).encode(_corpus.WORDS, is_pretokenized=True)
    theirs = official([list(_corpus.WORDS)], is_split_into_words=True, truncation=True, max_length=longest)
    yield Case(f"the words {list(_corpus.WORDS)}", Encoded(_tokens.inputs(ours, folder)), _given(theirs, 0))


def _taken(encoding: Any, folder: Path) -> Encoded:
    return Encoded(_tokens.inputs(encoding, folder), encoding.offsets)


def _given(batch: Any, number: int) -> Encoded:
    names = [name for name in ("input_ids", "attention_mask", "token_type_ids") if name in batch]
    offsets = batch["offset_mapping"][number] if "offset_mapping" in batch else None
    return Encoded({name: batch[name][number] for name in names}, offsets)


def difference(case: Case, folder: Path) -> str | None:
    """Say how the two encodings of a text differ; None where they do not.

    What the official tokenizer leaves out, the model sets itself: a mask of ones, types of 0. Types count only where
    the model in `folder` takes them.
    """
    ours, official = case.ours.inputs, case.official.inputs
    count = len(official["input_ids"])
    default = {"attention_mask": [1] * count, "token_type_ids": [0] * count}
    for name in ("input_ids", "attention_mask", "token_type_ids"):
        expected = official.get(name, default.get(name))
        got = ours.get(name, [0] * count if name not in official else None)
        if name == "token_type_ids" and got != expected and not takes_types(folder):  # asked last: it imports torch
            continue
        if got is None:
            return f"AutoTokenizer gives {name}, and we leave it out"
        if list(got) != list(expected or ()):
            return _apart(name, got, expected or ())
    if case.ours.offsets is not None and case.official.offsets is not None:
        theirs = [tuple(span) for span in case.official.offsets]
        if list(case.ours.offsets) != theirs:
            return _apart("offsets", case.ours.offsets, theirs)
    return None


def _apart(name: str, ours: Sequence[Any], theirs: Sequence[Any]) -> str:
    """Show two lists around the first place where they differ."""
    place = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs)))
    near = slice(max(0, place - 2), place + 4)
    return (
        f"{name} are {list(ours[near])} from token {near.start} of {len(ours)}, and {list(theirs[near])} of "
        f"{len(theirs)} with AutoTokenizer"
    )


def blame(folder: Path, official: Any, found: str) -> str:
    """Name the settings that differ and may have made a difference, for the end of a sentence; "" where none may."""
    said = _tokens.settings(folder)
    names = [name for name in ("truncation_side", "padding_side") if getattr(said, name) != getattr(official, name)]
    if TYPES in found and set(said.model_input_names) != set(official.model_input_names):
        names.append("model_input_names")
    if official.is_fast:
        from tokenizers import Tokenizer

        ours, theirs = (essence(each) for each in (Tokenizer.from_file(str(folder / FAST)), official.backend_tokenizer))
        names += [part for part in PARTS if ours[part] != theirs[part]]
    return f" (they differ in {', '.join(names)})" if names else ""


def shown(text: str) -> str:
    """Show a text in a message: escaped, and not too long."""
    return ascii(text if len(text) <= 60 else f"{text[:57]}...")
