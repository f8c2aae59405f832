"""Text from outside is shown as it is: it makes no links, no images, no HTML and no table cells."""

from __future__ import annotations

import html
import re
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from cpu_pipeline.core.markdown import code, escape, table
from cpu_pipeline.core.text import size

RENDER: Any = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
NASTY = st.text(st.sampled_from("ab1 .)(!\\`*_{}[]<>#|~&$+-=:/'\"\n\t;%@^?\u00e9"), max_size=30) | st.text(max_size=20)


def shown(text: object) -> str:
    """Collapse white space, as Markdown and HTML do."""
    return " ".join(str(text).split())


def visible(markup: str) -> str:
    """Take the tags that Markdown makes out of HTML, and read its entities."""
    return html.unescape(re.sub(r"</?(p|table|thead|tbody|tr|th|td|code)>", "", markup)).strip("\n")


def printable(text: str) -> bool:
    return all(c.isprintable() or c in "\n\t " for c in text)


@given(NASTY.filter(printable))
@example("<script>alert(1)</script>")
@example("![x](http://evil/x.png) [y](javascript:alert(1))")
@example("a | b | c")
@example("# heading")
@example("- item")
@example("+ item")
@example("1. first")
@example("2) second")
@example("===")
@example("---")
@example("    code")
@example("&lt;b&gt; &amp; &#x41;")
@example("`` ` ``")
@example("back\\slash \\<b>")
@example("$x$ ~~gone~~ **bold** _it_")
@example("<http://evil>")
@example("[a]: http://evil")
def test_escaped_text_is_shown_as_it_is(text: str) -> None:
    wanted = shown(text)
    for markup, cell in ((RENDER.render(escape(text)), False), (RENDER.render("\n".join(rows(escape(text)))), True)):
        assert re.findall(r"<(?!/?(?:p|table|thead|tbody|tr|th|td)>)", markup) == [], markup
        found = visible(markup)
        assert (shown(found) == shown(f"head {wanted}")) if cell else (found == wanted), markup


def rows(cell: str) -> list[str]:
    return table(("head",), [(cell,)])


@given(NASTY.filter(printable))
@example("` <b>")
@example("a|b")
@example("")
def test_code_is_shown_as_it_is_but_for_backticks_and_bars(text: str) -> None:
    wanted = shown(text).replace("`", "'").replace("|", "¦")
    markup = RENDER.render("x " + code(text))
    assert re.findall(r"<(?!/?(?:p|code)>)", markup) == []
    if wanted:
        assert visible(markup) == f"x {wanted}"
    assert RENDER.render("\n".join(rows(code(text)))).count("<td>") == 1


def test_a_table_has_a_head_a_line_and_rows() -> None:
    assert table(("a", "b"), [("1", "2"), ("3", "4")]) == [
        "", "| a | b |", "|---|---|", "| 1 | 2 |", "| 3 | 4 |", ""
    ]  # fmt: skip
    assert RENDER.render("\n".join(table(("a", "b"), [("1", "2")]))).count("<td>") == 2


SIZES = {0: "0 bytes", 1023: "1023 bytes", 1024: "1.0 KiB", 1536: "1.5 KiB", 5 << 20: "5.0 MiB", 3 << 30: "3.00 GiB"}


@pytest.mark.parametrize("count", SIZES)
def test_sizes(count: int) -> None:
    assert size(count) == SIZES[count]
