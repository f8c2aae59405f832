"""A bar chart as SVG: names at the left, bars of one colour, the value behind each."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape

LINE, LEFT, BARS, RIGHT, TOP = 20, 420, 400, 110, 40
"""Height of a bar's line; widths of names, bars and values; height of the title. Pixels."""
LETTERS = 62
"""Characters of a name that fit."""


def bars(title: str, values: Sequence[tuple[str, float | None]], unit: str) -> str:
    """Draw a bar for each value; the longest fills the width, and an undefined one has none.

    Args:
        title: stands above.
        values: name and value, from top to bottom; no value is negative.
        unit: what the values are.
    """
    most = max((value for _, value in values if value is not None), default=0.0)
    width, height = LEFT + BARS + RIGHT, TOP + LINE * len(values) + LINE
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="11">',
        f"<title>{_text(title)}</title>",
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="10" y="20" font-size="14">{_text(title)}</text>',
    ]
    for number, (name, value) in enumerate(values):
        lines += _bar(name, value, TOP + LINE * number, most)
    lines += [f'<text x="{LEFT}" y="{height - 6}" fill="#555">{_text(unit)}</text>', "</svg>"]
    return "\n".join(lines) + "\n"


def _bar(name: str, value: float | None, top: int, most: float) -> list[str]:
    length = BARS * value / most if value is not None and most > 0 else 0.0
    shown = name if len(name) <= LETTERS else "…" + name[1 - LETTERS :]
    middle = top + 14
    return [
        f'<text x="{LEFT - 6}" y="{middle}" text-anchor="end">{_text(shown)}</text>',
        f'<rect x="{LEFT}" y="{top + 4}" width="{length:.1f}" height="{LINE - 7}" fill="#3b6ea5"/>',
        f'<text x="{LEFT + length + 5:.1f}" y="{middle}">{"undefined" if value is None else f"{value:.3g}"}</text>',
    ]


def _text(text: str) -> str:
    """Escape text; what XML cannot hold is left out."""
    return escape("".join(letter for letter in text if letter.isprintable()))
