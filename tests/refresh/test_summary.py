"""The summary tells what became of every recipe, and what of it comes from outside is text and nothing else."""

from __future__ import annotations

from typing import Any

from markdown_it import MarkdownIt

from cpu_pipeline.refresh.outcome import Refreshed
from cpu_pipeline.refresh.summary import summary

NASTY = "<script>x</script> **b** | `c` [l](http://evil)"


def one(recipe: str = "toy", outcome: str = "fresh", **more: Any) -> dict[str, Any]:
    return vars(Refreshed(recipe, outcome, **more))


def test_a_row_for_each_recipe() -> None:
    text = summary([
        one("a", "promoted", version_before="v1", version="v2", built=3, cached=4),
        one("b", version_before="v1", version="v1"),
        one("c", "promoted", version="v1"),
        one("d", "refused", exit_code=3, version_before="v1", version="v1"),
        one("e", "failed", exit_code=75, error="TryAgain", says="later"),
    ])  # fmt: skip
    assert [line for line in text.splitlines() if line.startswith("| ")][1:] == [
        "| a | promoted | `v1` → `v2` | 3 | 4 |",
        "| b | fresh | `v1` | 0 | 0 |",
        "| c | promoted | `v1` | 0 | 0 |",
        "| d | **refused** | `v1` | 0 | 0 |",
        "| e | **failed** | nothing | 0 | 0 |",
    ]
    assert text.partition("###")[2].split() == ["e", "-", "**error**:", "later"], (
        "of the others there is nothing to say"
    )


def test_everything_that_was_said_is_there_and_escaped() -> None:
    said: dict[str, Any] = {
        "causes": [f"model {NASTY}"], "ignored": [f"data {NASTY}"], "failed": [f"gate {NASTY}"],
        "changes": {f"g{NASTY}": [f"f1 {NASTY}"]}, "warnings": [f"careful {NASTY}"], "error": "TryAgain",
        "says": f"later {NASTY}",
    }  # fmt: skip
    text = summary([one(f"toy {NASTY}", "failed", **said)])
    markup = MarkdownIt("commonmark", {"html": True}).enable("table").render(text)
    for tag in ("<script", "<a "):
        assert tag not in markup
    assert markup.count("<strong>") == 2, "failed, and the name of the error"
    items = markup.partition("<ul>")[2].count("<li>")
    assert items == 6
    for words in ("because model", "not reacted to: data", "gate ", "f1 ", "warning: careful", "later "):
        assert words in markup
