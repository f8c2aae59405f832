"""Models and data sets of the Hub, each at the commit that its main branch stands at."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from cpu_pipeline.core import hub_api as hub
from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.core.repo_files import SPLITS, choose_data, names_split
from cpu_pipeline.core.tables import Table, open_table

ABOUT = "a commit of the Hub, which never changes"


def commit(repo: str, want: str, revision: str) -> str:
    """Ask the Hub for the full commit of a branch or tag.

    Args:
        repo: owner/name.
        want: `data` for a data set, anything else for a model.
        revision: the branch or tag.
    """
    return hub.resolve(repo, "data" if want == "data" else "model", revision)


def read_config(repo: str, revision: str) -> dict[str, Any]:
    """Read a model's config.json; nothing where it has none."""
    return dict(json.loads(hub.read_small(repo, "model", revision, "config.json") or "{}"))


def read_card(repo: str, revision: str) -> Mapping[str, Any]:
    """Read the head of a model's card."""
    return card_head(hub.read_small(repo, "model", revision, "README.md"))


def has_modules(repo: str, revision: str) -> bool:
    """Say whether sentence-transformers wrote the model."""
    return hub.read_small(repo, "model", revision, "modules.json") is not None


def card_head(text: str | None) -> Mapping[str, Any]:
    """Read the YAML head of a README; one that cannot be read counts as empty."""
    if not text or not text.startswith("---"):
        return {}
    try:
        head = yaml.safe_load(text[3:].partition("\n---")[0])
    except yaml.YAMLError:
        return {}
    return head if isinstance(head, dict) else {}


def named_data(card: Mapping[str, Any], model: str) -> str:
    """Name the first data set that a card names.

    Raises:
        RecipeError: it names none.
    """
    for name in card.get("datasets") or ():
        if isinstance(name, str) and name.count("/") == 1:
            return name
    raise RecipeError(
        f"{model}: its card names no data set as owner/name; say which rows to score: `--data FILE`, or owner/name"
    )


def splits(repo: str, revision: str) -> tuple[str, bool]:
    """Name the split to validate on, and say whether there is one to calibrate on (`train`).

    Raises:
        RecipeError: there is no split to validate on.
    """
    _, files = hub.list_files(hub.RepoCommit(repo, "data", revision))
    found = [split for split in SPLITS if any(names_split(name, split) for name in files)]
    scored = next((split for split in found if split != "train"), None)
    if scored is None:
        raise RecipeError(f"{repo}: no split to validate on; it has {', '.join(found) or 'none that its files name'}")
    return scored, "train" in found


def open_split(repo: str, revision: str, split: str) -> Table:
    """Fetch and open the first file of a split."""
    repository = hub.RepoCommit(repo, "data", revision)
    _, files = hub.list_files(repository)
    name = next(n for n in choose_data(files, split, None, repo) if not n.endswith(("README.md", "infos.json")))
    return open_table(Path(hub.download(repository, name)), name)
