"""Ask the Hub through huggingface_hub: bounded retries, our own error messages, a cache of the listings of commits.

No message of huggingface_hub or of the server is passed on: it may contain addresses with credentials.
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
"""Seconds before each retry after an error that may be temporary."""
PATIENCE = 9.0
"""Seconds after which there is no retry: a server that does not answer at all is asked once."""
SMALL = 1 << 20
"""Bytes of the largest file that `read_small` reads."""


@dataclass(frozen=True)
class RepoCommit:
    """One commit of one repository."""

    repo: str
    want: Want
    revision: str

    @property
    def kind(self) -> str:
        """Return the type of the repository as the Hub names it."""
        return "dataset" if self.want == "data" else "model"

    def __str__(self) -> str:
        """Name the commit for messages."""
        return f"{self.kind} {self.repo} at {self.revision}"


@dataclass(frozen=True)
class HubFile:
    """One file of a commit: its size and the digest of its content."""

    size: int
    """Bytes."""
    oid: str
    """sha256 of the bytes (64 hex digits), the git blob id (40), or empty when neither is known."""


Listing = Mapping[str, HubFile]
"""File name -> the file, of one commit."""


def endpoint() -> str:
    """Return the Hub's address, from HF_ENDPOINT, without credentials."""
    address = os.environ.get("HF_ENDPOINT", PUBLIC).rstrip("/")
    scheme, mark, rest = address.partition("://")
    host, slash, path = rest.partition("/")
    return scheme + mark + host.rpartition("@")[2] + slash + path


def ask(what: Callable[[], T], commit: RepoCommit, file: str | None = None, first: str | None = None) -> T:
    """Ask the Hub about a commit or a file of it; retry temporary errors, for a bounded time.

    Args:
        what: asks; called once for each try.
        commit: the commit, for messages.
        file: the file, for messages; None when the whole commit is meant.
        first: the file to report as missing when not even the listing of the commit is available.

    Raises:
        RecipeError: the Hub answers 401, 403 or 404.
        TryAgain: it answers anything else, or nothing.
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
                raise explain(answer, commit, file, first) from None
        except FileMetadataError as error:
            raise explain(error, commit, file) from None
        except OSError as error:
            if error.errno is not None:  # a full disk or a cache that cannot be written, not the Hub
                raise
            raise explain(error, commit, file) from None
        time.sleep(wait)
    raise AssertionError


def explain(
    error: BaseException, commit: RepoCommit, file: str | None = None, first: str | None = None
) -> PipelineError:
    """Write an error of huggingface_hub as one line: which file, what is wrong, what to do.

    Args:
        error: what huggingface_hub raised.
        commit: the commit that was asked for.
        file: the file that was asked for, if any.
        first: the file to report as missing when the listing was asked for.
    """
    from huggingface_hub import errors

    name = f"{commit}, file {file}" if file else str(commit)
    missing = f"{commit}, file {file or first}" if file or first else name
    if isinstance(error, errors.OfflineModeIsEnabled):
        return TryAgain(f"{missing}: not in the cache, and HF_HUB_OFFLINE is set; fetch it once with the network on")
    if not isinstance(error, errors.HfHubHTTPError):
        return TryAgain(
            f"{missing}: {endpoint()} did not answer ({type(error).__name__}), or the download broke off; try again"
        )
    status, site = (
        error.response.status_code,
        f"{endpoint()}/{'datasets/' if commit.want == 'data' else ''}{commit.repo}",
    )
    if status == 403 or isinstance(error, errors.GatedRepoError):
        return RecipeError(
            f"{name}: access refused ({status}); accept its terms at {site} and set HF_TOKEN to your token"
        )
    if status == 401:
        return RecipeError(
            f"{name}: not found, or private (401); check the name, and set HF_TOKEN to a token that may read it"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return RecipeError(f"{name}: the repository has no such commit (404); choose one of {site}/commits/main")
    if isinstance(error, errors.RepositoryNotFoundError):
        return RecipeError(f"{name}: no such {commit.kind} (404); check `hub: {commit.repo}`")
    if status == 404:
        return RecipeError(f"{name}: not found (404); check the name and the commit at {site}")
    return TryAgain(f"{missing}: {endpoint()} answered {status}; try again later")


def list_files(commit: RepoCommit, first: str | None = None) -> tuple[str, dict[str, HubFile]]:
    """Ask which files a commit has; return the full commit and the listing. `first`: see `ask`."""
    from huggingface_hub import HfApi, constants

    timeout = constants.HF_HUB_ETAG_TIMEOUT
    info = ask(
        lambda: HfApi().repo_info(
            commit.repo, repo_type=commit.kind, revision=commit.revision, files_metadata=True, timeout=timeout
        ),
        commit,
        first=first,
    )
    found = {}
    for file in info.siblings or []:
        oid = file.lfs.sha256 if file.lfs else file.blob_id
        found[file.rfilename] = HubFile(int(file.size or 0), str(oid or ""))
    return str(info.sha), found


def download(commit: RepoCommit, file: str, force: bool = False) -> Path:
    """Download one file into huggingface_hub's cache, unless it is cached; return its path.

    Args:
        commit: the commit.
        file: the name of the file.
        force: download it though it is cached.

    Raises:
        RecipeError: the file does not exist or may not be read.
        TryAgain: the Hub does not answer.
    """
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url

    if not force and (path := cached(commit, file)):
        return path
    url = hf_hub_url(commit.repo, file, repo_type=commit.kind, revision=commit.revision)
    # Asked first because huggingface_hub itself waits 23 s before it believes a server that answers 500.
    ask(lambda: get_hf_file_metadata(url, token=_token(), timeout=constants.HF_HUB_ETAG_TIMEOUT), commit, file)
    return Path(
        ask(
            lambda: hf_hub_download(
                commit.repo, file, repo_type=commit.kind, revision=commit.revision, force_download=force
            ),
            commit,
            file,
        )
    )


def _token() -> bool | None:
    from huggingface_hub import constants, get_token

    return True if get_token() and not constants.HF_HUB_DISABLE_IMPLICIT_TOKEN else None


def cached(commit: RepoCommit, file: str) -> Path | None:
    """Find a file in huggingface_hub's cache."""
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(commit.repo, file, repo_type=commit.kind, revision=commit.revision)
    return Path(path) if isinstance(path, str) else None


def has_cache(commit: RepoCommit) -> bool:
    """Say whether huggingface_hub's cache may hold files of a repository, without importing the library."""
    home = Path(os.environ.get("HF_HOME", "~/.cache/huggingface"))
    cache = Path(os.environ.get("HF_HUB_CACHE", home / "hub"))
    return (cache.expanduser() / f"{commit.kind}s--{commit.repo.replace('/', '--')}").is_dir()


def save_listing(commit: RepoCommit, listing: Listing) -> None:
    """Save a commit's listing beside huggingface_hub's cache: offline, it shows which files are missing."""
    path = _listing_path(commit)
    part = path.with_name(f"{path.name}.{os.getpid()}")
    text = json.dumps({name: [entry.size, entry.oid] for name, entry in listing.items()}, sort_keys=True)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError:  # a cache that cannot be written costs the next offline build, not this one
        return


def load_listing(commit: RepoCommit) -> dict[str, HubFile] | None:
    """Return the saved listing of a commit, of this package or of huggingface_hub; None when there is none."""
    from huggingface_hub import get_cached_repo_tree
    from huggingface_hub.errors import CachedRepoTreeNotFoundError

    try:
        saved: Any = json.loads(_listing_path(commit).read_text(encoding="utf-8"))
        return {str(name): HubFile(int(size), str(oid)) for name, (size, oid) in saved.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        pass
    try:
        tree = get_cached_repo_tree(commit.repo, repo_type=commit.kind, revision=commit.revision)
    except CachedRepoTreeNotFoundError:
        return None
    return {file.path: HubFile(int(file.size), "") for file in tree}


def _listing_path(commit: RepoCommit) -> Path:
    from huggingface_hub import cached_assets_path

    home = cached_assets_path(
        "cpu-pipeline", namespace=f"{commit.kind}s--{commit.repo.replace('/', '--')}", subfolder="files"
    )
    return Path(home) / f"{commit.revision}.json"


def resolve(repo: str, want: Want, revision: str = "main") -> str:
    """Ask for the full commit of a branch or tag.

    Args:
        repo: owner/name.
        want: what the repository has: `model`, `tokenizer` or `data`.
        revision: the branch, tag or commit.

    Raises:
        RecipeError: the repository or revision does not exist, or may not be read.
        TryAgain: the Hub does not answer.
    """
    return list_files(RepoCommit(repo, want, revision))[0]


def read_small(repo: str, want: Want, revision: str, file: str) -> str | None:
    """Read a text file of at most 1 MiB from the Hub; None when the repository does not have it.

    Args:
        repo: owner/name.
        want: what the repository has: `model`, `tokenizer` or `data`.
        revision: the branch, tag or commit.
        file: the name of the file.

    Raises:
        RecipeError: the repository or revision does not exist or may not be read, or the file is larger.
        TryAgain: the Hub does not answer.
    """
    asked = RepoCommit(repo, want, revision)
    sha, listing = list_files(asked)
    if file not in listing:
        return None
    if listing[file].size > SMALL:
        raise RecipeError(f"{asked}, file {file}: {listing[file].size} bytes; at most {SMALL} are read")
    return download(RepoCommit(repo, want, sha), file).read_text(encoding="utf-8", errors="replace")


def is_commit(text: str) -> bool:
    """Say whether a revision is a full commit."""
    return re.fullmatch(r"[0-9a-f]{40}", text) is not None


def endpoint_is_valid() -> bool:
    """Say whether HF_ENDPOINT is an http(s) address with a host."""
    address = urlsplit(endpoint())
    return address.scheme in ("http", "https") and bool(address.hostname)
