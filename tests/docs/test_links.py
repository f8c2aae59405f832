"""Every relative link of README and docs/ leads to a file, and every anchor to a heading."""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path

import pytest
from pages import DOCS, ROOT, blocks, pages

_LINK = re.compile(r"\[[^\[\]]*\]\(([^)\s]+)\)")
TOP = [path for path in (ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", ROOT / "SECURITY.md") if path.exists()]


def text_of(page: Path) -> str:
    """Return the page without its fenced blocks."""
    lines = page.read_text(encoding="utf-8").splitlines()
    for block in blocks(page):
        lines[block.first - 1 : block.last + 1] = [""] * (block.last + 2 - block.first)
    return "\n".join(lines)


@cache
def headings(page: Path) -> tuple[tuple[int, str], ...]:
    """List a page's headings: level, and the anchor as GitHub and MyST write it."""
    found: list[tuple[int, str]] = []
    for marks, title in re.findall(r"^(#{1,6}) (.+)$", text_of(page), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).strip().lower()
        slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        before = sum(anchor == slug for _, anchor in found)
        found.append((len(marks), f"{slug}-{before}" if before else slug))
    return tuple(found)


def anchors(page: Path) -> frozenset[str]:
    """Name the anchors of a page."""
    return frozenset(anchor for _, anchor in headings(page))


def problem(page: Path, link: str) -> str:
    """Say what is wrong with a link of a page; empty if nothing is."""
    if re.match(r"[a-z]+:", link):
        return ""
    target, _, anchor = link.partition("#")
    path = Path(os.path.normpath(page.parent / target)) if target else page
    if not path.exists():
        return "no such file"
    if anchor and path.suffix == ".md" and anchor not in anchors(path):
        return f"no such heading; there are: {', '.join(sorted(anchors(path)))}"
    return ""


@pytest.mark.parametrize("page", [*pages(), *TOP], ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    wrong = [f"{link}: {why}" for link in _LINK.findall(text_of(page)) if (why := problem(page, link))]
    assert not wrong, "\n".join(wrong)


def test_every_page_is_in_the_navigation() -> None:
    listed = set(re.findall(r'"([\w/.-]+)"', (DOCS / "site" / "conf.py").read_text(encoding="utf-8")))
    assert {str(p.relative_to(DOCS).with_suffix("")) for p in pages() if DOCS in p.parents} - {"index"} <= listed


def test_every_decision_is_in_the_index() -> None:
    """A page that the index names has all headings of one level there: those of its decisions."""
    index = DOCS / "decisions.md"
    listed = [link.split("#") for link in _LINK.findall(text_of(index))]
    assert len(listed) > 70
    for page in {DOCS / name for name, _ in listed}:
        linked = {anchor for name, anchor in listed if DOCS / name == page}
        [level] = {level for level, anchor in headings(page) if anchor in linked}
        assert {anchor for number, anchor in headings(page) if number == level} == linked, page


@pytest.mark.parametrize("link", ["concepts.md#no-such-heading", "no-such-file.md", "../no/such"])
def test_a_broken_link_is_found(link: str) -> None:
    assert problem(DOCS / "index.md", link)
