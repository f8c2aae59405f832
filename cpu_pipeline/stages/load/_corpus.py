"""Texts on which tokenizers differ: what languages, editors and people put into a text."""

from __future__ import annotations

from collections.abc import Iterable

ODD = (
    "",
    " ",
    "a",
    "A plain sentence, with UPPER and lower case.",
    "  leading, trailing   and    repeated spaces  ",
    "tabs\tand\nnew\r\nlines\u2028of\u00a0every\u3000kind",
    "caf\u00e9 na\u00efve \u00c5ngstr\u00f6m stra\u00dfe \u0130stanbul",
    "cafe\u0301 nai\u0308ve A\u030angstro\u0308m I\u0307stanbul",
    "\ufb01ne \u2460 \uff26\uff55\uff4c\uff4c \u00bd \u2122 \u1d2c",
    "\u65e5\u672c\u8a9e\u306e\u6587\u7ae0 \u4e2d\u6587\u53e5\u5b50\u3002",
    "\ud55c\uad6d\uc5b4 \u1112\u1161\u11ab\u1100\u1173\u11af",
    "\u0645\u0631\u062d\u0628\u0627 \u05e9\u05c1\u05b8\u05dc\u05d5\u05b9\u05dd \u202bright to left\u202c",
    "\u0939\u093f\u0928\u094d\u0926\u0940 \u0e44\u0e17\u0e22 \u1780\u17d2\u1798\u17c2\u179a",
    "\U0001f600 \U0001f44d\U0001f3fd \U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 \U0001f1eb\U0001f1f7",
    "zero\u200bwidth\u200djoined\ufeffmarked\u00adsoft",
    "control \x01\x08\x0b\x1b\x7f\x85 characters \x00",
    "replaced \ufffd private \ue000 high \U000e0041",
    "don't can't it's we'll I'm they've n't 's",
    "3.14159 1,000,000 12:30 2026-11-30 0x1F \u0663\u0664",
    "user@example.org https://example.org/a?b=c#d #tag @name $5 50% a/b a_b a-b",
    "!?.,;:'\"()[]{}<>|\\/~`^*&%$#@+=-_",
    "...!!!???---___   \u2026\u2014\u2018\u2019\u201c\u201d",
    "CamelCaseWordsAndsnake_case_words",
    "\u2581already \u2581marked \u0120like \u010apieces ##ing </w>",
    "a" * 150,
    "A long text. " * 400,
)
"""Each once by itself, beside another one, and cut."""
WORDS = ("Anna", "isn't", "caf\u00e9", "3.5", "\u65e5\u672c", "\U0001f600", "a b", " lead", "UPPER", "...")
"""A sentence split into words, some of them badly."""


def texts(special: Iterable[str]) -> list[str]:
    """List the texts for a tokenizer with these special and added tokens, which people write literally, too."""
    tokens = sorted(special)[:24]
    return [*ODD, *tokens, *(f"before{token} and {token}after" for token in tokens), " ".join(tokens[:8])]
