"""Talking to the Hub through huggingface_hub: bounded retries, errors in our words, the listing of a commit remembered.

Nothing that huggingface_hub or the server says is passed on: it may hold addresses with credentials.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from cpu_pipeline.core.errors import PipelineError, RecipeError, TryAgain
from cpu_pipeline.core.repo_files import Want

T = TypeVar("T")

PUBLIC = "https://huggingface.co"
WAITS = (1.0, 2.0)
"""Seconds before each new try after an error that may pass."""
PATIENCE = 9.0
"""Seconds after which nothing is tried again: a server that does not answer at all is asked once."""
SMALL = 1 << 20
"""Bytes of the largest file that `read_small` reads."""


@dataclass(frozen=True)
class Place:
    """One commit of one repository."""

    repo: str
    want: Want
    revision: str

    @property
    def kind(self) -> str:
        """Return the Hub's word for it."""
        return "dataset" if self.want == "data" else "model"

    def __str__(self) -> str:
        """Name it as people do."""
        return f"{self.kind} {self.repo} at {self.revision}"


@dataclass(frozen=True)
class Entry:
    """What the Hub says of one file: its size and the name of its content."""

    size: int
    oid: str
    """sha256 of the bytes (64 hex digits), git's name for them (40), or nothing when it is not known."""


Listing = Mapping[str, Entry]
"""File name -> what the Hub says of it."""


def endpoint() -> str:
    """Return the Hub's address as HF_ENDPOINT gives it, without credentials."""
    said = os.environ.get("HF_ENDPOINT", PUBLIC).rstrip("/")
    scheme, mark, rest = said.partition("://")
    host, slash, path = rest.partition("/")
    return scheme + mark + host.rpartition("@")[2] + slash + path


def ask(what: Callable[[], T], place: Place, file: str | None = None, first: str | None = None) -> T:
    """Ask the Hub about a commit or a file of it; try again, for a bounded time, what may pass.

    `first` is the file that is missing when not even the commit's listing can be had.

    Raises:
        RecipeError: the Hub says 401, 403 or 404.
        TryAgain: it says anything else, or nothing.
    """
    import httpx2
    from huggingface_hub.errors import FileMetadataError, HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    begun = time.monotonic()
    for wait in (*WAITS, None):
        try:
            return what()
        except (httpx2.HTTPError, httpx2.InvalidURL, OfflineModeIsEnabled, LocalEntryNotFoundError) as error:
            answer = error.__cause__ if isinstance(error, LocalEntryNotFoundError) and error.__cause__ else error
            status = answer.response.status_code if isinstance(answer, HfHubHTTPError) else None
            lasting = isinstance(answer, OfflineModeIsEnabled) or (status is not None and 400 <= status < 500)
            if wait is None or (lasting and status not in (408, 429)) or time.monotonic() - begun > PATIENCE:
                raise explain(answer, place, file, first) from None
        except FileMetadataError as error:
            raise explain(error, place, file) from None
        except OSError as error:
            if error.errno is not None:  # a full disk, a cache that cannot be written: not the Hub's fault
                raise
            raise explain(error, place, file) from None
        time.sleep(wait)
    raise AssertionError


def explain(error: BaseException, place: Place, file: str | None = None, first: str | None = None) -> PipelineError:
    """Turn what huggingface_hub raised into one line: where, what is wrong, what to do."""
    from huggingface_hub import errors

    where = f"{place}, file {file}" if file else str(place)
    missing = f"{place}, file {file or first}" if file or first else where
    if isinstance(error, errors.OfflineModeIsEnabled):
        return TryAgain(f"{missing}: not in the cache, and HF_HUB_OFFLINE is set; fetch it once with the network on")
    if not isinstance(error, errors.HfHubHTTPError):
        return TryAgain(
            f"{missing}: {endpoint()} did not answer ({type(error).__name__}), or the download broke off; try again"
        )
    status, site = error.response.status_code, f"{endpoint()}/{'datasets/' if place.want == 'data' else ''}{place.repo}"
    if status == 403 or isinstance(error, errors.GatedRepoError):
        return RecipeError(
            f"{where}: access refused ({status}); accept its terms at {site} and set HF_TOKEN to your token"
        )
    if status == 401:
        return RecipeError(
            f"{where}: not found, or private (401); check the name, and set HF_TOKEN to a token that may read it"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return RecipeError(f"{where}: the repository has no such commit (404); choose one of {site}/commits/main")
    if isinstance(error, errors.RepositoryNotFoundError):
        return RecipeError(f"{where}: no such {place.kind} (404); check `hub: {place.repo}`")
    if status == 404:
        return RecipeError(f"{where}: not found (404); check the name and the commit at {site}")
    return TryAgain(f"{missing}: {endpoint()} answered {status}; try again later")


def list_files(place: Place, first: str | None = None) -> tuple[str, dict[str, Entry]]:
    """Ask which files a commit has; return the full commit and the listing. `first` is one that is needed anyway."""
    from huggingface_hub import HfApi, constants

    timeout = constants.HF_HUB_ETAG_TIMEOUT
    info = ask(
        lambda: HfApi().repo_info(
            place.repo, repo_type=place.kind, revision=place.revision, files_metadata=True, timeout=timeout
        ),
        place,
        first=first,
    )
    found = {}
    for file in info.siblings or []:
        oid = file.lfs.sha256 if file.lfs else file.blob_id
        found[file.rfilename] = Entry(int(file.size or 0), str(oid or ""))
    return str(info.sha), found


def download(place: Place, file: str, force: bool = False) -> Path:
    """Bring one file into huggingface_hub's cache, unless it is there; `force` replaces what is there."""
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url

    if not force and (path := cached(place, file)):
        return path
    url = hf_hub_url(place.repo, file, repo_type=place.kind, revision=place.revision)
    # Asked first because huggingface_hub itself waits 23 s before it believes a server that answers 500.
    ask(lambda: get_hf_file_metadata(url, token=_token(), timeout=constants.HF_HUB_ETAG_TIMEOUT), place, file)
    return Path(
        ask(
            lambda: hf_hub_download(
                place.repo, file, repo_type=place.kind, revision=place.revision, force_download=force
            ),
            place,
            file,
        )
    )


def _token() -> bool | None:
    from huggingface_hub import constants, get_token

    return True if get_token() and not constants.HF_HUB_DISABLE_IMPLICIT_TOKEN else None


def cached(place: Place, file: str) -> Path | None:
    """Find a file in huggingface_hub's cache."""
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(place.repo, file, repo_type=place.kind, revision=place.revision)
    return Path(path) if isinstance(path, str) else None


def remember(place: Place, listing: Listing) -> None:
    """Keep a commit's listing beside huggingface_hub's cache, so that offline a half fetched commit is seen as such."""
    path = _memory(place)
    made = path.with_name(f"{path.name}.{os.getpid()}")
    text = json.dumps({name: [entry.size, entry.oid] for name, entry in listing.items()}, sort_keys=True)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        made.write_text(text, encoding="utf-8")
        made.replace(path)
    except OSError:  # a cache that cannot be written costs the next offline build, not this one
        return


def recall(place: Place) -> dict[str, Entry] | None:
    """Return the listing of a commit that was remembered, by us or by huggingface_hub; None when neither did."""
    from huggingface_hub import get_cached_repo_tree
    from huggingface_hub.errors import CachedRepoTreeNotFoundError

    try:
        said: Any = json.loads(_memory(place).read_text(encoding="utf-8"))
        return {str(name): Entry(int(size), str(oid)) for name, (size, oid) in said.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        pass
    try:
        tree = get_cached_repo_tree(place.repo, repo_type=place.kind, revision=place.revision)
    except CachedRepoTreeNotFoundError:
        return None
    return {file.path: Entry(int(file.size), "") for file in tree}


def _memory(place: Place) -> Path:
    from huggingface_hub import cached_assets_path

    home = cached_assets_path(
        "cpu-pipeline", namespace=f"{place.kind}s--{place.repo.replace('/', '--')}", subfolder="files"
    )
    return Path(home) / f"{place.revision}.json"


def resolve(repo: str, want: Want, revision: str = "main") -> str:
    """Ask which commit a branch or tag stands at.

    Raises:
        RecipeError: there is no such repository or revision, or it may not be read.
        TryAgain: the Hub does not answer.
    """
    return list_files(Place(repo, want, revision))[0]


def read_small(repo: str, want: Want, revision: str, file: str) -> str | None:
    """Read a text file of at most 1 MiB from the Hub; None when the repository has no such file.

    Raises:
        RecipeError: there is no such repository or revision, it may not be read, or the file is larger.
        TryAgain: the Hub does not answer.
    """
    place = Place(repo, want, revision)
    commit, listing = list_files(place)
    if file not in listing:
        return None
    if listing[file].size > SMALL:
        raise RecipeError(f"{place}, file {file}: {listing[file].size} bytes; at most {SMALL} are read")
    return download(Place(repo, want, commit), file).read_text(encoding="utf-8", errors="replace")


def is_commit(text: str) -> bool:
    """Say whether a revision is a full commit."""
    return re.fullmatch(r"[0-9a-f]{40}", text) is not None


def address_is_sane() -> bool:
    """Say whether HF_ENDPOINT is an address of the web."""
    said = urlsplit(endpoint())
    return said.scheme in ("http", "https") and bool(said.hostname)
