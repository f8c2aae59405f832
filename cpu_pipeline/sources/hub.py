"""Models, tokenizers and data sets from the Hugging Face Hub, at a full commit."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import StringConstraints

from cpu_pipeline.core import hub_api
from cpu_pipeline.core.artifact import digest_file
from cpu_pipeline.core.errors import RecipeError, TryAgain
from cpu_pipeline.core.hub_api import HubFile, RepoCommit, read_small, resolve
from cpu_pipeline.core.repo_files import (
    Format,
    Want,
    check_name,
    choose_data,
    choose_model,
    choose_tokenizer,
    copy_file,
    refuse_pickles,
)
from cpu_pipeline.sources._base import Source

__all__ = ["Hub", "read_small", "resolve"]

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9_][\w.-]{0,95}$")]
Commit = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")]


CHOICE = 2
"""Raised by one whenever other files of a data set are chosen; models are fetched as before."""
FIRST: dict[Want, str] = {"model": "config.json", "tokenizer": "tokenizer.json", "data": "README.md"}
"""The file to name when nothing of a commit is known."""


class Hub(Source):
    """A repository on the Hugging Face Hub; HF_HOME, HF_TOKEN, HF_ENDPOINT and HF_HUB_OFFLINE work as usual."""

    wants: ClassVar[Set[Want]] = frozenset({"model", "tokenizer", "data"})
    online: ClassVar[bool] = True
    packages: ClassVar[tuple[str, ...]] = ("huggingface_hub",)
    version: ClassVar[int] = 3

    hub: Name
    """The repository, as OWNER/NAME."""
    revision: Commit
    """The full commit, 40 hexadecimal digits: a branch moves, a commit stays."""
    split: str | None = None
    """Split of a data set."""
    config: str | None = None
    """Configuration of a data set, when it has several."""
    format: Format = "hf"
    """What a model in it is: `hf` (config.json, safetensors), `onnx` or `openvino`."""

    def identity(self, want: Want) -> object:
        """Return repository, commit and what is chosen of it; the endpoint too when it is not the public one."""
        identity: dict[str, object] = {"hub": self.hub, "revision": self.revision, "want": want}
        if want == "data":
            identity |= {"split": self.split or "", "config": self.config or "", "choice": CHOICE}
        if want == "model":
            identity |= {"format": self.format}
        return identity if hub_api.endpoint() == hub_api.PUBLIC else {**identity, "endpoint": hub_api.endpoint()}

    def fetch(self, want: Want, out: Path, allow: Set[str]) -> None:
        """Download what is missing in huggingface_hub's cache, and copy from there.

        Names are checked before anything is downloaded, sizes and digests after; a damaged entry is fetched again.
        """
        if not hub_api.endpoint_is_valid():
            raise RecipeError(f"HF_ENDPOINT: {hub_api.endpoint()!r} is no address; it looks like {hub_api.PUBLIC}")
        commit = RepoCommit(self.hub, want, self.revision)
        reachable = True
        try:
            _, listing = hub_api.list_files(commit, FIRST[want])
            hub_api.save_listing(commit, listing)
        except TryAgain:
            reachable = False
            known = hub_api.load_listing(commit)
            if known is None:
                raise
            listing = known
        for name in listing:
            check_name(name)
        for name in self._choose(want, listing, allow, str(commit)):
            _bring(commit, name, listing[name], out / name, reachable)

    def local_files(self, want: Want, allow: Set[str]) -> Mapping[str, Path]:
        """List the configuration of a model, where huggingface_hub's cache has it."""
        commit = RepoCommit(self.hub, want, self.revision)
        found = hub_api.cached(commit, FIRST["model"]) if want == "model" and hub_api.has_cache(commit) else None
        return {} if found is None else {FIRST["model"]: found}

    def _choose(self, want: Want, listing: hub_api.Listing, allow: Set[str], where: str) -> list[str]:
        if want == "data":
            if self.split is None:
                raise RecipeError(f"{where}: name the split: `split: validation`")
            return choose_data(listing, self.split, self.config, where)
        if want == "tokenizer":
            chosen = choose_tokenizer(listing)
            if not chosen:
                raise RecipeError(f"{where}: no tokenizer: neither tokenizer.json nor a vocabulary file")
            return chosen
        chosen = choose_model(listing, self.format, where)
        refuse_pickles(chosen, allow, where)
        return chosen


def _bring(commit: RepoCommit, name: str, entry: HubFile, target: Path, reachable: bool) -> None:
    """Copy one file to `target` and check the copy; what the cache holds damaged is downloaded once more."""
    for force in (False, True):
        if reachable:
            path = hub_api.download(commit, name, force)
        elif (there := hub_api.cached(commit, name)) and not force:
            path = there
        else:
            state = "damaged" if force else "not"
            raise TryAgain(
                f"{commit}, file {name}: {state} in the cache, and the Hub cannot be reached; try again online"
            )
        copy_file(path, target)
        if _is_whole(target, entry, path):
            return
        target.unlink()
    raise TryAgain(f"{commit}, file {name}: it arrived damaged twice; try again later")


def _is_whole(copy: Path, entry: HubFile, blob: Path) -> bool:
    """Compare size and digest with the listing's, or with the cache's own name for the content where that lacks it."""
    size = copy.stat().st_size
    oid = entry.oid or blob.resolve().name
    if size != entry.size:
        return False
    if len(oid) == 64:
        return digest_file(copy) == oid
    if entry.oid and len(oid) == 40:
        return _git_name(copy, size) == oid
    return True


def _git_name(path: Path, size: int) -> str:
    digest = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
