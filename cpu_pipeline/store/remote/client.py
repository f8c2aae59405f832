"""A remote store that many machines use: records and objects are pushed to it and pulled from it, verified.

It mirrors the store: objects/ab/<digest>/<files> and actions/ab/<key>.json. A record is written after every file of its
object, so that it is only there when its object is whole. Nothing that is read is believed: a record has to be what
was written for its key, and the store that takes files in compares them with it. What no digest can tell is who wrote
it all: everybody who may write to a remote is trusted like one who may write to the store.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from cpu_pipeline.core.artifact import DIGEST, digest_json
from cpu_pipeline.store.record import Action, parse_record, record_text
from cpu_pipeline.store.remote.transport_folder import Transport
from cpu_pipeline.store.remote.transport_fsspec import open_transport
from cpu_pipeline.store.remote.urls import Denied, Unreachable, shown

RECORD_LIMIT = 16 << 20
"""Bytes of a record; a longer one was not written by a store."""
NAME_LIMIT = 1000
"""Bytes of a file's name within an object."""
DEPTH = 100
"""The deepest nesting of facts; writing them again recurses once for each level."""


class Remote:
    """One remote store.

    Args:
        url: a folder, or any address that fsspec can open.
        warn: called with each thing that is not what it claims to be.
        lenient: warn once of a remote that can't be reached, and then treat it as empty.
    """

    def __init__(self, url: str, warn: Callable[[str], None], lenient: bool = False) -> None:
        self.url, self.shown = url, shown(url)
        self.lenient, self.down = lenient, False
        self._warn = warn
        self._warned: set[tuple[str, str]] = set()
        self._transport: Transport | None = None

    @property
    def transport(self) -> Transport:
        """Open the connection, at the first question."""
        if self._transport is None:
            self._transport = open_transport(self.url)
        return self._transport

    def action(self, key: str) -> Action | None:
        """Return the record of `key`; None, with a warning, for one that is not exactly what was written for it.

        Raises:
            Unreachable, Denied: unless lenient.
            BackendMissing, RecipeError: its address can't be opened.
        """
        if self.down:
            return None
        with self._asking():
            if (text := self._record(key)) is None:
                return None
            if (action := read_record(key, text)) is None:
                self.warn(key, "its record is damaged, or was written for something else")
            return action
        return None

    def fetch(self, key: str, action: Action, into: Path) -> bool:
        """Write the object's files below `into`, each of the recorded length; False, with a warning, if one is not.

        Raises:
            Unreachable, Denied: unless lenient.
            OSError: `into` can't be written.
        """
        with self._asking():
            for name, (size, _) in action.files.items():
                path = into / name
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("wb") as file:
                    got = self.transport.read(f"{folder_of(action)}/{name}", size, file.write)
                if got != size:
                    what = "is not there" if got is None else f"is not the {size:,} bytes that its record says"
                    self.warn(key, f"{name} of its object {action.object[:12]} {what}")
                    return False
            return True
        return False

    def warn(self, key: str, message: str) -> None:
        """Tell once that something of `key` is not what it claims to be; the plan and the build ask alike."""
        if (key, message) in self._warned:
            return
        self._warned.add((key, message))
        self._warn(f"{self.shown}: {key[:12]}: {message}; passed over (`store push --force` puts it there anew)")

    def keys(self) -> list[str]:
        """List the keys that have a record.

        Raises:
            Unreachable, Denied: it can't be listed.
        """
        found = []
        for path in self.transport.buckets("actions"):
            bucket, _, name = path.partition("/")
            key = name.removesuffix(".json")
            if name.endswith(".json") and DIGEST.fullmatch(key) and bucket == key[:2]:
                found.append(key)
        return sorted(set(found))

    def lacks(self, key: str, action: Action, force: bool = False) -> dict[str, int] | None:
        """List what has to be sent of a record's object. What the remote has stays, unless forced.

        Args:
            key: of the record.
            action: the record.
            force: send all files, also where the remote has a record with another object.

        Returns:
            File -> bytes; None when the remote has files and record.

        Raises:
            Unreachable, Denied: it can't be read.
        """
        if force:
            return {name: size for name, (size, _) in action.files.items()}
        text = self._record(key)
        existing = None if text is None else read_record(key, text)
        if existing is not None and existing.object != action.object:
            self._warn(
                f"{self.shown}: {key[:12]}: came out as {existing.object[:12]} elsewhere, here as "
                f"{action.object[:12]}; "
                f"left as it is (`store push --force` replaces it)"
            )
            return None
        has = self.transport.sizes(folder_of(action), action.files)
        absent = {name: size for name, (size, _) in action.files.items() if has.get(name) != size}
        return None if existing is not None and not absent else absent

    def put(self, key: str, action: Action, path: Path, names: Iterable[str]) -> None:
        """Send files of an object, then its record.

        Args:
            key: of the record.
            action: the record.
            path: directory of the object.
            names: the files to send.

        Raises:
            Unreachable, Denied: it can't be written.
            TryAgain: its disk is full.
        """
        for name in names:
            self.transport.send(path / name, f"{folder_of(action)}/{name}")
        self.transport.send(record_text(key, action).encode(), f"actions/{key[:2]}/{key}.json")

    def _record(self, key: str) -> bytes | None:
        """Read the record of `key`, whatever it holds; one that is too long is cut, and so no record."""
        found = bytearray()
        content = self.transport.read(f"actions/{key[:2]}/{key}.json", RECORD_LIMIT, found.extend)
        return None if content is None else bytes(found if content <= RECORD_LIMIT else b"")

    @contextlib.contextmanager
    def _asking(self) -> Iterator[None]:
        """Let a lenient remote that can't be reached have nothing from now on."""
        try:
            yield
        except (Unreachable, Denied) as error:
            if not self.lenient:
                raise
            self.down = True
            self._warn(f"{error}; going on without it")


def folder_of(action: Action) -> str:
    """Name the folder of an object, in a store as in a remote."""
    return f"objects/{action.object[:2]}/{action.object}"


def read_record(key: str, text: bytes) -> Action | None:
    """Read a record that came from elsewhere; None when it is not what a store writes for `key`, in every part."""
    action = parse_record(key, text)
    return action if action is not None and _sound(key, action) else None


def _sound(key: str, action: Action) -> bool:
    """Compare a record with what a store writes: its depth, names that stay inside, ingredients that make the key."""
    decoded: Any = vars(action)
    if (
        not action.files
        or digest_json(decoded["ingredients"]) != key
        or not _shallow([decoded["facts"], decoded["run"]])
    ):
        return False
    for name, (size, sha) in decoded["files"].items():
        if type(size) is not int or size < 0 or not isinstance(sha, str) or not DIGEST.fullmatch(sha):
            return False
        if not _stays_inside(name) or any(str(above) in decoded["files"] for above in PurePosixPath(name).parents):
            return False
    return True


def _shallow(value: Any, left: int = DEPTH) -> bool:
    """Say whether a JSON value is no deeper than what can be written down wherever it goes."""
    if not isinstance(value, dict | list):
        return True
    return left > 0 and all(_shallow(part, left - 1) for part in (value.values() if isinstance(value, dict) else value))


def _stays_inside(name: str) -> bool:
    """Say whether a relative POSIX name leads to a file below its folder, on every system."""
    try:
        long = len(name.encode()) > NAME_LIMIT or any(len(part.encode()) > 255 for part in name.split("/"))
    except UnicodeEncodeError:
        return False
    parts = name.split("/")
    return not long and not {"", ".", ".."} & set(parts) and not re.search(r"[\\:\x00-\x1f]", name)
