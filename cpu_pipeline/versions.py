"""The versions of one artifact: which is in service, in what order they were, and moving between them.

artifacts/NAME/latest            names the version in service; it alone decides
artifacts/NAME/promotions.jsonl  a line each time `latest` moved: memory, never needed to serve
artifacts/NAME/.promoting        what is about to be moved, so that a kill loses no line
artifacts/.NAME.lock             held for the moment in which `latest` moves
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from cpu_pipeline.core.artifact import digest_file
from cpu_pipeline.core.errors import RecipeError, Refused, TryAgain
from cpu_pipeline.core.files import remove_tree, sync_dir, write_file, writing
from cpu_pipeline.core.text import did_you_mean

MANIFEST = "manifest.json"
PROMOTIONS = "promotions.jsonl"
VERSION = re.compile(r"[0-9a-f]{12}")
"""What a version is called."""
PATIENCE = 120.0
"""Seconds to wait for the lock of a home, held for a few renames, or a copy where an edited version is replaced."""


@dataclass(frozen=True)
class Promotion:
    """One move of `latest`."""

    version: str
    when: str
    """UTC, as ISO 8601 has it."""
    by: str
    """run, refresh or rollback; `hand` when somebody moved `latest` without this tool."""
    instead_of: str | None
    """The version that was in service until then."""


def in_service(home: Path) -> Path | None:
    """Return the folder that `latest` names; None when there is none, or it names nothing."""
    name = latest(home)
    path = home / name if name else None
    return path if path is not None and path.is_dir() else None


def promoted(home: Path) -> list[Promotion]:
    """List the promotions, oldest first, as they were: the last one is what `latest` names now."""
    found = _lines(home)
    missing = _missing(home, found)
    return [*found, missing] if missing else found


def rejected(home: Path) -> set[str]:
    """Name the versions that a rollback took out of service and nobody promoted by hand since.

    Going back to an earlier version rejects the later one; going forward again rejects nothing. Which is the later one
    is said by when each was last promoted, but by a rollback.
    """
    found = set[str]()
    last: dict[str, int] = {}
    for number, one in enumerate(promoted(home)):
        if one.by != "rollback":
            last[one.version] = number
        if one.by != "refresh":
            found.discard(one.version)
        out = one.instead_of
        if one.by == "rollback" and out is not None and last.get(out, -1) > last.get(one.version, -1):
            found.add(out)
    return found


def puts_out(version: Path) -> dict[str, str] | None:
    """Map the outputs of a version to their digests; None when it is gone, or its manifest can't be read."""
    try:
        return {name: said["digest"] for name, said in read_manifest(version)["outputs"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def keep(home: Path, count: int) -> list[str]:
    """Remove the versions longest out of service beyond `count`, but what is in service; return their names.

    A version that was edited by hand stays, and so does one that was never promoted.
    """
    removed = []
    with moving(home):
        order = list(dict.fromkeys(one.version for one in reversed(promoted(home))))
        there = [name for name in order if (home / name).is_dir() and not (home / name).is_symlink()]
        for name in there[max(count, 1) :]:  # the first is in service
            if not edited(home / name):
                aside = home / f".{name}.{os.getpid()}.{secrets.token_hex(4)}.old"
                (home / name).rename(aside)
                remove_tree(aside)
                removed.append(name)
    sweep(home)  # what an earlier call had set aside when it was killed
    return removed


def sweep(home: Path) -> None:
    """Remove what builds that died left half-done, and versions that were overwritten; not what `latest` names."""
    import psutil

    named = latest(home)
    for path in home.glob(".*.*.*"):
        pid = path.name.split(".")[2]
        done = path.suffix == ".old" or not (pid.isdigit() and psutil.pid_exists(int(pid)))
        if pid.isdigit() and done and path.name != named:
            remove_tree(path)


def rollback(home: Path, version: str | None = None) -> tuple[str | None, str]:
    """Put another version into service: the one before, unless it is named; return what was and what is in service.

    Raises:
        RecipeError: there is no such version, or none before.
        Refused: it is not whole any more, or `latest` is a folder.
    """
    _require_name(home)
    order = promoted(home)
    now = label(latest(home))
    there = versions(home)
    known = f"; there are: {', '.join(there)}" if there else "; there is none"
    if version is None:
        before = [one.instead_of for one in order if one.version == now and one.by != "rollback" and one.instead_of]
        if not before:
            raise RecipeError(f"{home}: no version was in service before {now or 'any'}; name one{known}")
        version = before[-1]
    if version not in there:
        raise RecipeError(f"{home}: there is no version {version}{did_you_mean(version, there)}{known}")
    if changed := edited(home / version):
        raise Refused(
            f"{home / version} is not what was written ({', '.join(changed[:5])}); it is not put into service"
        )
    with moving(home):
        before_it = label(latest(home))
        promote(home, version, "rollback")
    sweep(home)
    return before_it, version


def versions(home: Path) -> list[str]:
    """Name the versions that are there, in the order in which they were last put into service; others come first."""
    there = {path.parent.name for path in home.glob(f"*/{MANIFEST}") if not path.parent.is_symlink()}
    there = {name for name in there if not name.startswith(".")} - {"latest"}  # a copy may have made it a folder
    order = [name for name in dict.fromkeys(one.version for one in reversed(promoted(home))) if name in there]
    return [*sorted(there - set(order)), *reversed(order)]


@contextlib.contextmanager
def moving(home: Path) -> Iterator[None]:
    """Hold the lock under which `latest` of a home moves, and write down what a move that was killed left unsaid.

    Raises:
        Refused: `latest` is a folder.
        TryAgain: somebody else holds the lock for long.
    """
    from filelock import FileLock, Timeout

    with writing(home.parent):
        lock = FileLock(home.parent / f".{home.name}.lock", timeout=PATIENCE, poll_interval=0.02)
        try:
            lock.acquire()
        except Timeout:
            says = f"{lock.lock_file} is held for {PATIENCE:.0f} s; end the process that holds it"
            raise TryAgain(says) from None
        try:
            _require_name(home)
            if missing := _missing(home, _lines(home)):
                _append(home, missing)
            for name in (".promoting", ".promoting.new"):
                (home / name).unlink(missing_ok=True)
            yield
        finally:
            lock.release()


def announce(home: Path, version: str, by: str) -> Promotion | None:
    """Write down that `latest` is about to move; None when it names that version already. The caller holds `moving`."""
    before = label(latest(home))
    if before == version:
        return None
    when = datetime.now(UTC).isoformat(timespec="seconds")
    intent = Promotion(version, when, by, before)
    write_file(home / ".promoting", json.dumps(asdict(intent)), home / ".promoting.new")
    return intent


def promote(home: Path, version: str, by: str, announced: Promotion | None = None) -> None:
    """Let `latest` name a version that is whole. The caller holds `moving`."""
    if not (home / version).is_dir():
        raise TryAgain(f"{home / version} was removed meanwhile; run the same command again")
    said = announced or announce(home, version, by)
    point(home, version)
    if said is not None:
        _append(home, said)
        (home / ".promoting").unlink(missing_ok=True)


def latest(home: Path) -> str | None:
    """Read which folder `latest` names."""
    try:
        path = home / "latest"
        return os.readlink(path) if path.is_symlink() else path.read_text(encoding="utf-8").strip()  # noqa: PTH115  # the name itself is wanted, not a Path
    except (OSError, ValueError):
        return None


def _require_name(home: Path) -> None:
    """Refuse a `latest` that is a folder, as a copy that followed links leaves it: it names no version."""
    path = home / "latest"
    if path.is_dir() and not path.is_symlink():
        raise Refused(
            f"{path} is a folder, and should name one (a copy that followed links?); remove it, or move it away"
        )


def label(name: str | None) -> str | None:
    """Give the version that a folder holds: a stand-in for one that is being replaced is called `.<version>.…`."""
    return name.split(".")[1] if name and name.startswith(".") and name.count(".") > 1 else name


def point(home: Path, version: str) -> None:
    """Swap `latest` to this folder by rename: a symlink, or a file that names it where links can't be."""
    if latest(home) == version:
        return
    fresh = home / f".latest.{os.getpid()}.{secrets.token_hex(4)}"
    try:
        fresh.symlink_to(version, target_is_directory=True)
    except OSError:
        fresh.write_text(version + "\n", encoding="utf-8")
    fresh.replace(home / "latest")
    sync_dir(home)


def edited(version: Path) -> list[str]:
    """Name what a version has that its manifest does not say, or lacks; one without a readable manifest was edited.

    A folder named after a version must hold that one.
    """
    if (version / MANIFEST).is_symlink() or not (version / MANIFEST).is_file():
        return [MANIFEST]
    try:
        said = read_manifest(version)
        files = dict(said["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return [MANIFEST]
    if VERSION.fullmatch(version.name) and said.get("version", version.name) != version.name:
        return [f"{MANIFEST} of another version"]
    paths = {p.relative_to(version).as_posix(): p for p in version.rglob("*")}
    there = {name: p for name, p in paths.items() if p.is_symlink() or not p.is_dir()}
    # Folders are not listed: they are there for their files.
    used = {parent.as_posix() for name in (*there, *files) for parent in PurePosixPath(name).parents}
    changed = [*(there.keys() ^ {*files, MANIFEST}), *(paths.keys() - there.keys() - used)]
    for name, (size, sha) in files.items():
        path = there.get(name)
        if path and (
            path.is_symlink() or not path.is_file() or path.stat().st_size != size or digest_file(path) != sha
        ):
            changed.append(name)
    return sorted(changed)


def read_manifest(version: Path) -> dict[str, Any]:
    """Read a version's manifest.json."""
    read: dict[str, Any] = json.loads((version / MANIFEST).read_text(encoding="utf-8"))
    return read


def _lines(home: Path) -> list[Promotion]:
    """Read promotions.jsonl; a line that was cut or is none of ours counts for nothing."""
    try:
        text = (home / PROMOTIONS).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return [said for line in text.splitlines() if (said := _parse(line)) is not None]


def _parse(line: str) -> Promotion | None:
    try:
        said = json.loads(line)
        one = Promotion(said["version"], said["when"], said["by"], said["instead_of"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    texts = (one.version, one.when, one.by, one.instead_of or "")
    return one if all(isinstance(text, str) for text in texts) else None


def _missing(home: Path, lines: Sequence[Promotion]) -> Promotion | None:
    """Say which promotion the lines do not tell of, though `latest` shows that it happened."""
    now = label(latest(home))
    before = lines[-1].version if lines else None
    if now is None or now == before or in_service(home) is None:
        return None
    with contextlib.suppress(OSError):
        intent = _parse((home / ".promoting").read_text(encoding="utf-8", errors="replace"))
        if intent is not None and intent.version == now:
            return intent
    with contextlib.suppress(OSError):
        when = datetime.fromtimestamp((home / "latest").lstat().st_mtime, UTC).isoformat(timespec="seconds")
        # Versions that came out before promotions were written down came from `run`.
        return Promotion(now, when, "hand" if lines else "run", before)
    return None


def _append(home: Path, said: Promotion) -> None:
    """Add a line; the file is replaced, so that no fault of a disk costs the lines before."""
    try:
        text = (home / PROMOTIONS).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        text = ""
    whole = "" if not text or text.endswith("\n") else "\n"  # a line that was cut
    write_file(home / PROMOTIONS, f"{text}{whole}{json.dumps(asdict(said))}\n", home / ".promoting.new")
