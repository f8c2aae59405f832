"""A content-addressed store of artifacts. It knows digests and directories, and nothing of models.

actions/ab/<key>.json     a record: request -> digest of the object, with its facts
objects/ab/<digest>/      an output, read-only, named by its content
last/<label>              the key each step of each recipe had last time
logs/ab/<key>.log         what the run of a key printed
scratch/<key>/            half-done work of a key that the next try goes on from
work/<lease>/             half-done work of one running build; swept when the build is dead
leases/<lease>.lock       held by the system for as long as that build lives; .uses lists what it uses
locks/ab/<key>.lock       held while a key is being built, to save double work
damaged/                  objects and records set aside because they are not what they claim
runs/<id>/                the outcome and every event of each run (runs/recorder.py); runs.sqlite is an index
roots/<digest>            the path of a lock or of a folder of versions: what they name is never collected

Correctness comes from the order of writing and from verifying. Locks save double work, and keep `gc` off what is in
use: a lease is added to, and an object is removed, under `store.lock` alone.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from filelock import FileLock

from cpu_pipeline.core.artifact import DIGEST, Artifact, digest_json, digest_tree
from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.core.files import (
    at_home,
    disk_error,
    hold_lock,
    make_dir,
    remove_tree,
    sizes,
    user_folder,
    write_file,
    writing,
)
from cpu_pipeline.store.record import Action, StoredArtifact, parse_record

__all__ = ["Action", "RemoteStore", "Store", "default_root", "disk_error"]

DIRECTORIES = ("actions", "objects", "last", "logs", "scratch", "work", "leases", "locks", "damaged", "roots")
TAG = "CACHEDIR.TAG"
"""The first file of a store: it marks the directory as a store, and backups leave it out."""


def default_root() -> Path:
    """Name the store of this user: CPU_PIPELINE_STORE, or a directory of the user's cache.

    Raises:
        RecipeError: the home directory is unknown.
    """
    if named := os.environ.get("CPU_PIPELINE_STORE"):
        return Path(named)
    return user_folder("cache", "name a store by --store or CPU_PIPELINE_STORE") / "store"


class RemoteStore(Protocol):
    """Another store that is only read; everything it sends is verified before it is used."""

    lenient: bool
    """What it cannot give is built here."""
    down: bool
    """It did not answer, and is not asked any more."""

    def action(self, key: str) -> Action | None:
        """Return the record of `key`; None for one that is absent, damaged or out of reach."""

    def fetch(self, key: str, action: Action, into: Path) -> bool:
        """Write the object's files.

        Args:
            key: of the record.
            action: the record.
            into: the directory to write into.

        Returns:
            False when the files can't be had.
        """

    def warn(self, key: str, message: str) -> None:
        """Tell the user that something of `key` is not what it claims to be."""


class Store:
    """A content-addressed store in one directory, used by many processes at once. Opening it writes nothing.

    Args:
        root: the directory.
        remote: where a build looks for what this store lacks.
    """

    def __init__(self, root: Path, remote: RemoteStore | None = None) -> None:
        self.root, self.remote = at_home(root).absolute(), remote
        self._prepared = False
        self._checked: set[str] = set()
        if os.path.lexists(self.root) and not os.path.isdir(self.root):  # noqa: PTH112 - says False, never raises
            raise RecipeError(f"the store {self.root} is not a directory; name one with --store or CPU_PIPELINE_STORE")

    def path_of(self, digest: str) -> Path:
        """Say where the object with this digest is, or would be."""
        return self.root / "objects" / digest[:2] / digest

    def record_of(self, key: str) -> Path:
        """Say where the record of this key is, or would be."""
        return self.root / "actions" / key[:2] / f"{key}.json"

    def keys(self) -> list[str]:
        """List the keys that have a record, whole or not."""
        return sorted(p.stem for p in (self.root / "actions").glob("??/*.json") if DIGEST.fullmatch(p.stem))

    def action(self, key: str) -> Action | None:
        """Return the record of `key`; one that is damaged in any way counts as none."""
        try:
            text = self.record_of(key).read_bytes()
        except OSError:
            return None
        return parse_record(key, text)

    def find(self, key: str) -> StoredArtifact | None:
        """Return what was built for `key` if its object is there, file by file; only `check` reads the contents."""
        action = self.action(key)
        if action is None:
            return None
        path = self.path_of(action.object)
        if sizes(path) != {name: size for name, (size, _) in action.files.items()}:
            return None
        return StoredArtifact.of(action, path)

    def find_remote(self, key: str) -> StoredArtifact | None:
        """Return what a build would bring for `key`, as the remote's record describes it. Moves nothing."""
        if self.remote is None or (action := self.remote.action(key)) is None:
            return None
        return StoredArtifact.of(action, self.path_of(action.object))

    def check(self, artifact: Artifact, again: bool = False) -> bool:
        """Read an object whole, once per `Store`; if it does not have its digest, set it aside and return False.

        Args:
            artifact: the object.
            again: read it though it was whole earlier: it may be gone or damaged since.
        """
        if again:
            self._checked.discard(artifact.digest)
        if artifact.digest in self._checked:
            return True
        path = self.path_of(artifact.digest)
        try:
            seen = path.lstat().st_ino
        except FileNotFoundError:
            return False
        if intact(path, artifact.digest):
            self._checked.add(artifact.digest)
            return True
        with self.locked():
            # Another process may have set it aside and built it anew while this one was reading.
            if os.path.lexists(path) and path.lstat().st_ino == seen:
                self.set_aside(path)
        return False

    def trust(self, digest: str) -> None:
        """Take an object for whole without reading it: it was sealed and has just been put in its place."""
        self._checked.add(digest)

    def set_aside(self, path: Path) -> Path:
        """Move a damaged thing to `damaged/`; the caller holds `locked()`."""
        target = self.root / "damaged" / f"{path.name}.{secrets.token_hex(4)}"
        path.rename(target)
        return target

    def lock(self, key: str) -> FileLock:
        """Return the lock that is held while `key` is built."""
        self.prepare()
        path = self.root / "locks" / key[:2] / f"{key}.lock"
        with writing(self.root):
            path.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(path, thread_local=False)

    def scratch(self, key: str) -> Path:
        """Return the directory in which work on `key` survives a failure."""
        self.prepare()
        path = self.root / "scratch" / key
        with writing(self.root):
            path.mkdir(parents=True, exist_ok=True)
        return path

    def drop_scratch(self, key: str) -> None:
        """Remove the half-done work of `key`."""
        remove_tree(self.root / "scratch" / key)

    def log(self, key: str) -> Path:
        """Return the path of the log of `key`; its directory exists."""
        self.prepare()
        path = self.root / "logs" / key[:2] / f"{key}.log"
        with writing(self.root):
            path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def last(self, label: str) -> Action | None:
        """Return the record that `label` ended with last time."""
        try:
            key = self._label_path(label).read_text(encoding="ascii")
        except (OSError, ValueError):
            return None
        return self.action(key) if DIGEST.fullmatch(key) else None

    def remember(self, label: str, key: str) -> None:
        """Note that `label` now stands at `key`."""
        path = self._label_path(label)
        with contextlib.suppress(OSError, ValueError):
            if path.read_text(encoding="ascii") == key:
                return
        with self.locked():
            temporary = self.root / "work" / "last"  # one name: nobody else is inside the lock
            temporary.write_text(key, encoding="ascii")
            temporary.replace(path)

    def root_at(self, path: Path) -> None:
        """Register a lock, or an artifacts folder (out/NAME): `gc` keeps what it names as long as it exists."""
        absolute = str(path.absolute())
        note = self.root / "roots" / root_name(absolute)
        if not note.is_file() or note.read_bytes() != absolute.encode("utf-8", "surrogateescape"):
            with self.locked(), writing(self.root):
                # One name: nobody else is inside the lock. A path need not be UTF-8.
                write_file(note, absolute, self.root / "work" / "root", "surrogateescape")

    def _label_path(self, label: str) -> Path:
        name = urllib.parse.quote(label, safe="").replace(".", "%2E")
        if len(name) > 120:
            name = f"{name[:80]}~{digest_json(label)[:16]}"
        return self.root / "last" / name

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold `store.lock`, for moments only: adding to a lease, placing and removing objects."""
        self.prepare()
        with writing(self.root), hold_lock(self.root / "store.lock"):
            yield

    def living(self) -> set[str]:
        """Name the leases whose process lives; the caller holds `locked()`."""
        living = set()
        for path in (self.root / "leases").glob("*.lock"):
            probe = FileLock(path, timeout=0)
            try:
                probe.acquire()
            except OSError:  # held, or not ours to ask
                living.add(path.stem)
            else:
                probe.release()
        return living

    def held(self, living: set[str]) -> tuple[set[str], set[str]]:
        """Return the keys and the digests that these leases list; the caller holds `locked()`."""
        keys: set[str] = set()
        digests: set[str] = set()
        for name in living:
            for line in (self.root / "leases" / f"{name}.uses").read_text(encoding="ascii").splitlines():
                kind, _, what = line.partition(" ")
                (keys if kind == "key" else digests).add(what)
        return keys, digests

    def prepare(self) -> None:
        """Make the directories, before the first write."""
        if self._prepared:
            return
        with writing(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            names = {path.name for path in self.root.iterdir()} - {"lost+found"}
            if names and TAG not in names:
                message = f"{self.root} is not a store: it holds {min(names)!r} and no {TAG}"
                raise RecipeError(f"{message}; name an empty or absent directory with --store or CPU_PIPELINE_STORE")
            if TAG not in names:
                with contextlib.suppress(FileExistsError), (self.root / TAG).open("x", encoding="ascii") as file:
                    file.write(
                        "Signature: 8a477f597d28d172789f06886806bc55\n# Artifacts that cpu-pipeline has built.\n"
                    )
            for name in DIRECTORIES:
                make_dir(self.root / name)
        self._prepared = True


def root_name(path: str) -> str:
    """Name the file in `roots/` that holds a path."""
    return digest_json(["root", path])[:32]


def intact(path: Path, digest: str) -> bool:
    """Read an object whole and return whether it has this digest."""
    try:
        return sizes(path) is not None and digest_tree(path) == digest
    except OSError:
        return False
