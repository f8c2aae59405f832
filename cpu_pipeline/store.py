"""Keeps what has been built. Knows digests and directories; nothing about models.

actions/ab/<key>.json     what was asked -> which object came out, with its facts
objects/ab/<digest>/      what came out, read-only, named by its own content
last/<label>              the key each step of each recipe had last time
logs/ab/<key>.log         what the run of a key printed
scratch/<key>/            half-done work of a key that the next try goes on from
work/<lease>/             half-done work of one running build; swept when the build is dead
leases/<lease>.lock       held by the system for as long as that build lives; .uses lists what it uses
locks/ab/<key>.lock       held while a key is being built, to save double work
damaged/                  objects and records set aside because they are not what they claim
runs/<id>/                what each run came to, and every event on the way (history.py); runs.sqlite is an index
roots/<digest>            the path of a lock or of a folder of versions: what they name is never collected

Correctness comes from the order of writing and from verifying. Locks save double work, and keep `gc` off what is in
use: whoever adds to a lease, and whoever removes an object, does so under `store.lock`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import platformdirs
from filelock import FileLock, Timeout

from cpu_pipeline.artifact import Artifact, Facts, canonical, digest_json, digest_listing, digest_tree
from cpu_pipeline.disk import disk_error, make_dir, remove_tree, seal, sizes, sync_dir, write_file, writing
from cpu_pipeline.errors import PipelineError, RecipeError, StageFailed, TryAgain
from cpu_pipeline.record import Action, parse_record, record_text

__all__ = ["Action", "Lease", "Remote", "Store", "default_root", "disk_error"]

ROOMS = ("actions", "objects", "last", "logs", "scratch", "work", "leases", "locks", "damaged", "roots")
TAG = "CACHEDIR.TAG"
"""The first file of a store: it tells a store from any other directory, and backups to leave it out."""
PATIENCE = 120.0
"""Seconds to wait for `store.lock`, which nobody holds for longer than a few renames."""
_DIGEST = re.compile(r"[0-9a-f]{64}")


def default_root() -> Path:
    """Name the store of this user: CPU_PIPELINE_STORE, or a directory of the user's cache."""
    if said := os.environ.get("CPU_PIPELINE_STORE"):
        return Path(said)
    return Path(platformdirs.user_cache_dir("cpu-pipeline")) / "store"


class Remote(Protocol):
    """Another store, far away, that is only read; nothing it says is believed before it was verified here."""

    def action(self, key: str) -> Action | None:
        """Return the record of `key`; None for one that is absent, damaged or out of reach."""

    def fetch(self, key: str, action: Action, into: Path) -> bool:
        """Write the object's files below `into`; False when they can't be had."""

    def warn(self, key: str, says: str) -> None:
        """Tell the user that something of `key` is not what it claims to be."""


class Store:
    """A content-addressed store in one directory, used by many processes at once. Opening it writes nothing.

    Args:
        root: the directory.
        remote: where a build looks for what is not here.
    """

    def __init__(self, root: Path, remote: Remote | None = None) -> None:
        self.root, self.remote = root.expanduser().absolute(), remote
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
        return sorted(p.stem for p in (self.root / "actions").glob("??/*.json") if _DIGEST.fullmatch(p.stem))

    def action(self, key: str) -> Action | None:
        """Return the record of `key`; one that is damaged in any way counts as none."""
        try:
            text = self.record_of(key).read_bytes()
        except OSError:
            return None
        return parse_record(key, text)

    def find(self, key: str) -> Artifact | None:
        """Return what was built for `key` if its object is there, file by file; only `check` reads the contents."""
        action = self.action(key)
        if action is None:
            return None
        path = self.path_of(action.object)
        if sizes(path) != {name: size for name, (size, _) in action.files.items()}:
            return None
        return Artifact(action.format, path, action.object, action.facts)

    def foresee(self, key: str) -> Artifact | None:
        """Return what a build would find for `key`: here, or by its record in the remote. Moves nothing."""
        if (found := self.find(key)) is not None or self.remote is None:
            return found
        if (action := self.remote.action(key)) is None:
            return None
        return Artifact(action.format, self.path_of(action.object), action.object, action.facts)

    def check(self, artifact: Artifact) -> bool:
        """Read an object whole, once per `Store`; if it is not what its digest says, set it aside and say False."""
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

    def set_aside(self, path: Path) -> Path:
        """Move a damaged thing to `damaged/`; the caller holds `locked()`."""
        place = self.root / "damaged" / f"{path.name}.{secrets.token_hex(4)}"
        path.rename(place)
        return place

    @contextlib.contextmanager
    def lease(self) -> Iterator[Lease]:
        """Register a running build, so that `gc` leaves alone what it uses; sweep what dead builds left."""
        name = f"{os.getpid()}-{secrets.token_hex(6)}"
        lock = FileLock(self.root / "leases" / f"{name}.lock", timeout=0, thread_local=False)
        lease = Lease(self, name)
        try:
            with self.locked():
                lock.acquire()
                lease.list.touch()
                lease.room.mkdir()
                lease.sweep()
            lease.swept = remove_tree(lease.trash)
            yield lease
        finally:
            remove_tree(lease.room)
            # What can't be tidied on a disk that just failed is swept later, and must not hide the failure.
            with contextlib.suppress(OSError, PipelineError), self.locked():
                lease.list.unlink(missing_ok=True)
                lock.release()
                Path(lock.lock_file).unlink(missing_ok=True)
            lock.release()

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
        """Say where the log of `key` goes; its directory is there."""
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
        return self.action(key) if _DIGEST.fullmatch(key) else None

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
        """Register a lock, or an artifacts folder (out/NAME): `gc` keeps what it names for as long as it is there."""
        here = str(path.absolute())
        place = self.root / "roots" / root_name(here)
        if not place.is_file() or place.read_bytes() != here.encode():
            with self.locked(), writing(self.root):
                write_file(place, here, self.root / "work" / "root")  # one name: nobody else is inside the lock

    def _label_path(self, label: str) -> Path:
        name = urllib.parse.quote(label, safe="").replace(".", "%2E")
        if len(name) > 120:
            name = f"{name[:80]}~{digest_json(label)[:16]}"
        return self.root / "last" / name

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold `store.lock`, for moments only: adding to a lease, placing and removing objects."""
        self.prepare()
        lock = FileLock(self.root / "store.lock", timeout=PATIENCE, poll_interval=0.01)
        with writing(self.root):
            try:
                lock.acquire()
            except Timeout:
                raise TryAgain(
                    f"{lock.lock_file} is held for {PATIENCE:.0f} s; end the process that holds it"
                ) from None
            try:
                yield
            finally:
                lock.release()

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
                says = f"{self.root} is not a store: it holds {min(names)!r} and no {TAG}"
                raise RecipeError(f"{says}; name an empty or absent directory with --store or CPU_PIPELINE_STORE")
            if TAG not in names:
                with contextlib.suppress(FileExistsError), (self.root / TAG).open("x", encoding="ascii") as file:
                    file.write(
                        "Signature: 8a477f597d28d172789f06886806bc55\n# Artifacts that cpu-pipeline has built.\n"
                    )
            for name in ROOMS:
                make_dir(self.root / name)
        self._prepared = True


class Lease:
    """One running build: what it uses stays, and its half-done work has a place."""

    def __init__(self, store: Store, name: str) -> None:
        self.store = store
        self.name = name
        self.list = store.root / "leases" / f"{name}.uses"
        self.room = store.root / "work" / name
        self.trash = self.room / "trash"
        self.swept = 0
        """Bytes that dead builds had left."""
        self.brought = set[str]()
        """Keys whose objects came from the remote."""
        self._asked = set[str]()

    def hold(self, key: str) -> None:
        """Keep everything of `key` from `gc`."""
        with self.store.locked():
            self._note(key=key)

    def find(self, key: str) -> Artifact | None:
        """Find and hold in one, and note the use; the remote is asked once for what is not here."""
        with self.store.locked():
            found = self.store.find(key)
            if found is not None:
                self._note(key=key, digest=found.digest)
        if found is None and self.store.remote is not None and key not in self._asked:
            self._asked.add(key)
            return self.bring(key, self.store.remote)
        if found is not None:
            with contextlib.suppress(OSError):
                os.utime(self.store.record_of(key))
        return found

    def work(self, key: str) -> Path:
        """Make a new empty directory on the store's own file system, for what `key` will become."""
        self.hold(key)
        path = self.room / f"{key[:12]}-{secrets.token_hex(4)}"
        with writing(self.store.root):
            path.mkdir()
        return path

    def commit(
        self,
        key: str,
        ingredients: Mapping[str, Any],
        format: str,
        facts: Facts,
        run: Mapping[str, Any],
        work: Path,
    ) -> Artifact:
        """Seal `work` as an object, then record it under `key`. A crash anywhere in between loses only time.

        Raises:
            StageFailed: `work` is empty, holds links, or the facts are not JSON.
            TryAgain: The disk is full.
        """
        store = self.store
        with writing(store.root):
            files = seal(work)
        if not files:
            raise StageFailed("it wrote nothing")
        try:
            ingredients, facts, run = (json.loads(canonical(dict(part))) for part in (ingredients, facts, run))
        except (TypeError, ValueError, RecursionError) as error:
            raise StageFailed(f"its facts are not plain JSON: {error}") from error
        action = Action(ingredients, format, digest_listing(files), files, facts, run)
        artifact = Artifact(format, store.path_of(action.object), action.object, facts)
        self._settle(key, artifact, work)
        self._record(key, action)
        return artifact

    def bring(self, key: str, remote: Remote) -> Artifact | None:
        """Take what a remote has for `key` into the store, verified and recorded as what is built here.

        Returns None when it has nothing, or nothing that holds.

        Raises:
            TryAgain: The disk is full.
        """
        if (action := remote.action(key)) is None:
            return None
        store = self.store
        artifact = Artifact(action.format, store.path_of(action.object), action.object, action.facts)
        with store.locked():
            self._note(key=key, digest=artifact.digest)
        store._checked.discard(artifact.digest)  # it may be gone since it was read
        if not store.check(artifact):
            work = self.work(key)
            try:
                with writing(store.root):
                    if not remote.fetch(key, action, work):
                        return None
                    files = seal(work)
                if files != action.files:
                    remote.warn(key, f"the files of its object {action.object[:12]} are not what its record says")
                    return None
                self._settle(key, artifact, work)
            finally:
                remove_tree(work)
        self._record(key, action)
        self.brought.add(key)
        return artifact

    def sweep(self) -> None:
        """Discard what dead builds left in `work/`, and the scratch of what is done; the caller holds `locked()`."""
        living = self.store.living()
        for path in (self.store.root / "leases").iterdir():
            if path.stem not in living:
                path.unlink(missing_ok=True)
        for path in (self.store.root / "work").iterdir():
            if path.name not in living:
                self.discard(path)
        if scratch := list((self.store.root / "scratch").iterdir()):
            held, _ = self.store.held(living)
            for path in scratch:
                if path.name not in held and self.store.record_of(path.name).exists():
                    self.discard(path)

    def discard(self, path: Path) -> Path | None:
        """Move a file or tree to the trash, None if it won't; the caller holds `locked()`, and removes it later."""
        self.trash.mkdir(exist_ok=True)
        try:
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o700)  # a directory that moves is itself written to
            return path.rename(self.trash / secrets.token_hex(8))
        except OSError:
            return None

    def _settle(self, key: str, artifact: Artifact, work: Path) -> None:
        """Make a sealed directory an object of the store."""
        while not self._place(key, artifact, work):
            self.store._checked.discard(artifact.digest)  # what was whole earlier may have been damaged since
            if self.store.check(artifact):  # the same content is there already
                remove_tree(work)
                break

    def _record(self, key: str, action: Action) -> None:
        """Say that `key` came to an object, which is in its place by now."""
        store = self.store
        with writing(store.root):
            write_file(store.record_of(key), record_text(key, action), self.room / f"{secrets.token_hex(8)}.json")

    def _place(self, key: str, artifact: Artifact, work: Path) -> bool:
        """Hold the object, then move it in; False when there is one already."""
        with self.store.locked():
            self._note(key=key, digest=artifact.digest)
            if os.path.lexists(artifact.path):
                return False
            make_dir(artifact.path.parent)
            work.rename(artifact.path)
            sync_dir(artifact.path.parent)
        self.store._checked.add(artifact.digest)
        return True

    def _note(self, **uses: str) -> None:
        with self.list.open("a", encoding="ascii") as file:
            file.write("".join(f"\n{kind} {name}" for kind, name in uses.items()))


def root_name(path: str) -> str:
    """Name the file in `roots/` that holds a path."""
    return digest_json(["root", path])[:32]


def intact(path: Path, digest: str) -> bool:
    """Read an object whole and say whether it is what its digest says."""
    try:
        return sizes(path) is not None and digest_tree(path) == digest
    except OSError:
        return False
