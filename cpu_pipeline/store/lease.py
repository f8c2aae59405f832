"""One running build in a store: `gc` leaves alone what it uses, and its unfinished work has a directory."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from cpu_pipeline.core.artifact import Artifact, Facts, digest_listing
from cpu_pipeline.core.errors import PipelineError, StageFailed, TryAgain
from cpu_pipeline.core.files import make_dir, remove_tree, seal, sync_dir, write_file, writing
from cpu_pipeline.store.local import RemoteStore, Store
from cpu_pipeline.store.record import Action, StoredArtifact, plain, record_text


@contextlib.contextmanager
def leased(store: Store) -> Iterator[Lease]:
    """Register a running build, so that `gc` leaves alone what it uses; sweep what dead builds left."""
    name = f"{os.getpid()}-{secrets.token_hex(6)}"
    lock = FileLock(store.root / "leases" / f"{name}.lock", timeout=0, thread_local=False)
    lease = Lease(store, name)
    try:
        with store.locked():
            lock.acquire()
            lease.list.touch()
            lease.folder.mkdir()
            lease.sweep()
        lease.swept = remove_tree(lease.trash)
        yield lease
    finally:
        remove_tree(lease.folder)
        # What can't be tidied on a disk that just failed is swept later, and must not hide the failure.
        with contextlib.suppress(OSError, PipelineError), store.locked():
            lease.list.unlink(missing_ok=True)
            lock.release()
            Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


class Lease:
    """One running build: `gc` leaves alone what it uses, and its unfinished work has a directory."""

    def __init__(self, store: Store, name: str) -> None:
        self.store = store
        self.name = name
        self.list = store.root / "leases" / f"{name}.uses"
        self.folder = store.root / "work" / name
        self.trash = self.folder / "trash"
        self.swept = 0
        """Bytes that dead builds had left."""
        self.brought = set[str]()
        """Keys whose objects came from the remote."""
        self._asked = set[str]()

    def hold(self, key: str) -> None:
        """Keep everything of `key` from `gc`."""
        with self.store.locked():
            self._note(key=key)

    def find(self, key: str) -> StoredArtifact | None:
        """Find the artifact of `key`, hold it, and note the use; what is missing is looked for in the remote, once."""
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

    def refuse(self, key: str, found: Artifact) -> None:
        """Set the record of `key` aside, unless another build has replaced it since it was found."""
        with self.store.locked():
            if self.store.find(key) == found:
                self.store.set_aside(self.store.record_of(key))

    def work(self, key: str) -> Path:
        """Make a new empty directory on the store's own file system, for what `key` will become."""
        self.hold(key)
        path = self.folder / f"{key[:12]}-{secrets.token_hex(4)}"
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
    ) -> StoredArtifact:
        """Seal `work` as an object, then record it under `key`. A crash anywhere in between loses only time.

        Args:
            key: the step's key.
            ingredients: what the key is the digest of.
            format: the artifact's format.
            facts: what the stage reported.
            run: seconds, peak_memory (bytes) and when (seconds since 1970) of the run.
            work: the directory that the stage wrote; it is moved away.

        Raises:
            StageFailed: `work` is empty, holds links, or the facts or the names of files are not JSON.
            TryAgain: The disk is full.
        """
        store = self.store
        with writing(store.root):
            files = seal(work)
        if not files:
            raise StageFailed("it wrote nothing")
        try:
            ingredients, facts, run, _ = map(plain, (dict(ingredients), dict(facts), dict(run), list(files)))
        except (TypeError, ValueError, RecursionError) as error:
            raise StageFailed(f"its facts, or the names of its files, are not plain JSON: {error}") from error
        action = Action(ingredients, format, digest_listing(files), files, facts, run)
        artifact = StoredArtifact.of(action, store.path_of(action.object))
        self._settle(key, artifact, work)
        self._record(key, action)
        return artifact

    def bring(self, key: str, remote: RemoteStore) -> StoredArtifact | None:
        """Copy what a remote has for `key` into the store, verified, and record it as a build would.

        Returns None when it has nothing, or nothing that holds; of a lenient one also when there is no room for it.

        Raises:
            TryAgain: The disk is full.
        """
        if (action := remote.action(key)) is None:
            return None
        store = self.store
        artifact = StoredArtifact.of(action, store.path_of(action.object))
        with store.locked():
            self._note(key=key, digest=artifact.digest)
        if not store.check(artifact, again=True):
            if remote.lenient and (free := shutil.disk_usage(store.root).free) < action.size:
                remote.warn(key, f"its object claims {action.size:,} bytes, and {free:,} are free here")
                return None
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
            except TryAgain as error:
                if not remote.lenient:
                    raise
                remote.warn(key, str(error))
                return None
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
            if self.store.check(artifact, again=True):  # the same content is there already
                remove_tree(work)
                break

    def _record(self, key: str, action: Action) -> None:
        """Write the record of `key`; its object is stored already."""
        store = self.store
        with writing(store.root):
            write_file(store.record_of(key), record_text(key, action), self.folder / f"{secrets.token_hex(8)}.json")

    def _place(self, key: str, artifact: Artifact, work: Path) -> bool:
        """Hold the object, then move it in; False when there is one already."""
        with self.store.locked():
            self._note(key=key, digest=artifact.digest)
            if os.path.lexists(artifact.path):
                return False
            make_dir(artifact.path.parent)
            work.rename(artifact.path)
            sync_dir(artifact.path.parent)
        self.store.trust(artifact.digest)
        return True

    def _note(self, **uses: str) -> None:
        with self.list.open("a", encoding="ascii") as file:
            file.write("".join(f"\n{kind} {name}" for kind, name in uses.items()))
