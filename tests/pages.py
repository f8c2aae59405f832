"""Read the pages of README and docs/: their fenced blocks, with the comments that say how tests treat each one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
_MARK = re.compile(r"<!-- (not run|exit|file|output|test command)(?:: (.+?))? -->")
_FENCE = re.compile(r"(\s*)(```+)(\w*)\s*$")


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Marks are comments on the lines right above it:
    `<!-- not run: REASON -->`, `<!-- exit: CODE -->`, `<!-- file: PATH -->` (write it there), `<!-- output -->` (of the
    command above).
    """

    page: Path
    first: int
    """Index of its first line after the fence."""
    last: int
    """Index of the closing fence."""
    language: str
    text: str
    marks: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name it for people: page and line."""
        return f"{self.page.relative_to(ROOT)}:{self.first + 1}"


def pages(*folders: str) -> list[Path]:
    """List the pages below these folders of docs/, sorted; without any, README and every page."""
    if folders:
        return sorted(path for folder in folders for path in (DOCS / folder).rglob("*.md"))
    return [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]


def blocks(page: Path) -> Iterator[Block]:
    """Yield the fenced blocks of a page, in order."""
    lines = page.read_text(encoding="utf-8").splitlines()
    marks: dict[str, str] = {}
    number = 0
    while number < len(lines):
        if mark := _MARK.fullmatch(lines[number].strip()):
            marks[mark[1]] = mark[2] or ""
        elif fence := _FENCE.match(lines[number]):
            end = next(i for i in range(number + 1, len(lines)) if lines[i].strip() == fence[2])
            inside = [line.removeprefix(fence[1]) for line in lines[number + 1 : end]]
            yield Block(page, number + 1, end, fence[3], "".join(f"{line}\n" for line in inside), marks)
            marks, number = {}, end
        else:
            marks = {}
        number += 1


def prose(page: Path) -> str:
    """Return a page without fenced blocks, code spans, comments and addresses, each line where it was."""
    lines = page.read_text(encoding="utf-8").splitlines()
    for block in blocks(page):
        lines[block.first - 1 : block.last + 1] = [""] * (block.last + 2 - block.first)
    text = re.sub(r"<!--.*?-->", "", "\n".join(lines))
    text = re.sub(r"`[^`]*`", lambda m: "`" + "\n" * m[0].count("\n") + "`", text)
    return re.sub(r"\]\([^)\s]*\)", "]", text)
