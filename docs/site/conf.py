"""The site. Build it from the root of the repository, with warnings as errors.

sphinx-build --fail-on-warning --keep-going -c docs/site docs build/site

The pages are plain Markdown, so that a Git host shows them too; all that Sphinx needs besides is in this file.
"""

from __future__ import annotations

import os
import posixpath
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "cpu-pipeline"
html_title = "cpu-pipeline"
html_theme = "furo"
html_copy_source = False
html_show_copyright = False
extensions = ["myst_parser"]
exclude_patterns = ["site"]
myst_heading_anchors = 3
nitpicky = True

REPOSITORY = os.environ.get("REPOSITORY_URL", "").rstrip("/")
"""Links to what is no page lead into this repository; without an address they become plain text."""

NAVIGATION = {
    "Tutorial": ["tutorial/first-recipe", "tutorial/your-own-data"],
    "How to": [
        "how-to/start-from-your-model", "how-to/bring-rows", "how-to/compress",
        "how-to/quantize", "how-to/compare-backends", "how-to/fix-a-failed-gate", "how-to/lock-and-reproduce",
        "how-to/refresh-on-a-schedule", "how-to/share-a-store", "how-to/run-in-ci", "how-to/use-offline",
        "how-to/labels-and-tags", "how-to/sentence-embeddings", "how-to/images-and-sound", "how-to/publish-to-the-hub",
        "how-to/run-from-cpp",
        "cpp/README",
    ],
    "Concepts": ["concepts"],
    "Reference": [
        "reference/index", "reference/cli", "reference/recipe", "reference/stages", "reference/tasks",
        "reference/backends", "reference/python", "reference/json", "reference/exit-codes",
        "reference/environment-variables", "reference/store-layout", "reference/version-layout", "provenance",
        "reproducible", "gates",
    ],
    "Explanation": [
        "explanation/index", "explanation/recipes-and-graphs", "explanation/inputs", "explanation/reference",
        "explanation/caching",
        "explanation/gates-and-statistics", "explanation/reproducibility", "explanation/releases-and-refresh",
        "explanation/schedulers", "explanation/provenance", "explanation/security", "explanation/environments",
        "explanation/aoti", "explanation/padding", "explanation/documentation", "decisions",
    ],
    "Extending": [
        "extending/index", "extending/stage", "extending/task", "extending/backend", "extending/source",
        "extending/plugin-package",
    ],
    "Development": ["architecture", "development"],
}  # fmt: skip
"""Title of a group -> its pages, in order. A page that is missing here is a warning, and so an error."""

_LINK = re.compile(r"\[(?P<label>[^\[\]]*)\]\((?P<target>\.\.?/[^)\s#]*)(?P<anchor>#[^)\s]*)?\)")


def _add_navigation(_: Sphinx, page: str, source: list[str]) -> None:
    """Append the table of contents to the first page."""
    if page == "index":
        groups = (
            f"```{{toctree}}\n:hidden:\n:caption: {title}\n\n" + "\n".join(pages) + "\n```\n"
            for title, pages in NAVIGATION.items()
        )
        source[0] += "\n" + "\n".join(groups)


def _lead_out(_: Sphinx, page: str, source: list[str]) -> None:
    """Point links to what is no page at the repository."""

    def replace(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page), match["target"]))
        if path.startswith("docs/") and path.endswith(".md"):
            return match[0]
        if not REPOSITORY:
            return match["label"]
        return f"[{match['label']}]({REPOSITORY}/blob/main/{path}{match['anchor'] or ''})"

    source[0] = _LINK.sub(replace, source[0])


def setup(app: Sphinx) -> None:
    """Connect both."""
    app.connect("source-read", _lead_out)
    app.connect("source-read", _add_navigation)
