"""A hook of MkDocs: links from a page to a file outside docs/ lead into the repository."""

from __future__ import annotations

import posixpath
import re
from typing import Any

_LABELLED = re.compile(r"\[(?P<label>[^\[\]]*)\]\((?P<target>\.\./[^)\s#]*)(?P<anchor>#[^)\s]*)?\)")


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """Point `[label](../../file)` at the repository, or leave the label alone where its address is unknown.

    Args:
        markdown: the page's text.
        page: MkDocs' page; `page.file.src_uri` is its path below docs/.
        config: MkDocs' configuration; `repo_url` may be empty.
    """
    folder = posixpath.dirname(page.file.src_uri)

    def replace(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join("docs", folder, match["target"]))
        if path.startswith("docs/"):
            return match[0]
        if not config.repo_url:
            return match["label"]
        return f"[{match['label']}]({config.repo_url.rstrip('/')}/blob/main/{path}{match['anchor'] or ''})"

    return _LABELLED.sub(replace, markdown)
