"""`latest` alone decides what is in service; what was promoted, when and by whom is told whatever died on the way."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cpu_pipeline.core import files
from cpu_pipeline.core.artifact import digest_file
from cpu_pipeline.core.errors import RecipeError, Refused, TryAgain
from cpu_pipeline.release import latest, versions
from cpu_pipeline.release.latest import in_service
from cpu_pipeline.release.promotions import PROMOTIONS, Promotion, promoted, rejected
from cpu_pipeline.release.versions import keep, moving, promote, rollback

A, B, C = "a" * 12, "b" * 12, "c" * 12


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Three whole versions, none in service."""
    home = tmp_path / "artifacts" / "toy"
    for name in (A, B, C):
        (home / name).mkdir(parents=True)
        (home / name / "model.bin").write_text(name)
        files = {"model.bin": [12, digest_file(home / name / "model.bin")]}
        (home / name / "manifest.json").write_text(json.dumps({"files": files}))
    return home


def put(home: Path, *names: str, by: str = "run") -> None:
    for name in names:
        with moving(home):
            promote(home, name, by)


def order(home: Path) -> list[tuple[str, str, str | None]]:
    return [(one.version, one.by, one.instead_of) for one in promoted(home)]


def left(home: Path) -> list[str]:
    return sorted(path.name for path in home.iterdir() if path.name not in (A, B, C))


def test_every_move_is_a_line(home: Path) -> None:
    assert in_service(home) is None and promoted(home) == []
    put(home, A, B)
    put(home, B)  # it is there already: nothing moves
    put(home, C, by="refresh")
    assert order(home) == [(A, "run", None), (B, "run", A), (C, "refresh", B)]
    assert in_service(home) == home / C and os.readlink(home / "latest") == C  # noqa: PTH115 - the name itself
    lines = [json.loads(line) for line in (home / "promotions.jsonl").read_text().splitlines()]
    assert [set(line) for line in lines] == [{"version", "when", "by", "instead_of"}] * 3
    assert left(home) == ["latest", "promotions.jsonl"]


Death = type("Death", (BaseException,), {})


def die(*_: object) -> None:
    raise Death


@pytest.mark.parametrize("where", ["point", "append"])
def test_a_kill_while_latest_moves_loses_no_line(home: Path, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    put(home, A)
    put(home, B)
    with monkeypatch.context() as patch, pytest.raises(Death):
        patch.setattr(versions, where, die)
        rollback(home, A)
    moved = where == "append"
    assert in_service(home) == home / (A if moved else B)
    wanted = [(A, "run", None), (B, "run", A)] + ([(A, "rollback", B)] if moved else [])
    assert order(home) == wanted and rejected(home) == ({B} if moved else set())
    put(home, C)
    assert order(home) == [*wanted, (C, "run", A if moved else B)]
    assert left(home) == ["latest", "promotions.jsonl"]


def test_versions_from_before_promotions_were_written_down(home: Path) -> None:
    (home / "latest").symlink_to(A)
    [first] = promoted(home)
    assert (first.version, first.by, first.instead_of) == (A, "run", None)
    assert not (home / "promotions.jsonl").exists(), "looking writes nothing"
    put(home, B, by="refresh")
    assert order(home) == [(A, "run", None), (B, "refresh", A)]


def test_a_move_by_hand_is_told_and_rejects_nothing(home: Path) -> None:
    put(home, A, B)
    rollback(home)
    (home / "latest").unlink()
    (home / "latest").symlink_to(B)
    assert order(home)[-1] == (B, "hand", A)
    assert rejected(home) == set()


def test_a_file_names_the_version_where_links_cannot_be(home: Path) -> None:
    put(home, A)
    (home / "latest").unlink()
    (home / "latest").write_text(B + "\n")
    assert in_service(home) == home / B and order(home)[-1] == (B, "hand", A)


@pytest.mark.parametrize(
    "damage", ["", "{", "[1]\n", "\xff\x00\n", '{"version": 3, "when": 1, "by": [], "instead_of": 0}\n']
)
def test_a_line_that_is_none_counts_for_nothing(home: Path, damage: str) -> None:
    put(home, A, B)
    with (home / "promotions.jsonl").open("a") as file:
        file.write(damage)
    (home / ".promoting").write_text(damage)
    assert order(home) == [(A, "run", None), (B, "run", A)]
    put(home, C)
    assert order(home) == [(A, "run", None), (B, "run", A), (C, "run", B)]


def test_what_a_rollback_took_out_is_rejected_until_somebody_puts_it_back(home: Path) -> None:
    put(home, A, B)
    assert rollback(home) == (B, A)
    assert rejected(home) == {B}
    put(home, C, by="refresh")
    assert rejected(home) == {B}
    assert rollback(home, B) == (C, B), "C came later than B: this goes back, too"
    assert rejected(home) == {C}
    assert rollback(home, C) == (B, C)
    assert rejected(home) == set(), "going forward again rejects nothing"
    rollback(home)
    put(home, C, by="refresh")
    assert rejected(home) == {C}, "a refresh puts nothing back by hand"
    rollback(home)
    put(home, C)
    assert rejected(home) == set()


def test_rolling_back_to_what_is_in_service_changes_nothing(home: Path) -> None:
    put(home, A, B)
    rollback(home, A)
    before = (home / "promotions.jsonl").read_bytes()
    assert rollback(home, A) == (A, A)
    assert (home / "promotions.jsonl").read_bytes() == before and rejected(home) == {B}


def test_rolling_back_goes_one_step_further_each_time(home: Path) -> None:
    put(home, A, B, C)
    assert rollback(home) == (C, B)
    assert rollback(home) == (B, A)
    with pytest.raises(RecipeError, match=f"no version was in service before {A}; name one; there are: "):
        rollback(home)
    assert rejected(home) == {B, C}


def test_a_version_that_is_not_there_is_told_with_those_that_are(home: Path) -> None:
    put(home, A)
    with pytest.raises(RecipeError, match=rf"no version {'a' * 11} \(did you mean `{A}`\?\); there are: {B}, {C}, {A}"):
        rollback(home, "a" * 11)
    for name in ("..", ".", "latest", "", "promotions.jsonl"):
        with pytest.raises(RecipeError, match="there is no version"):
            rollback(home, name)


def test_only_a_whole_version_comes_into_service(home: Path) -> None:
    put(home, A, B)
    (home / A / "model.bin").write_text("x" * 12)
    with pytest.raises(Refused, match=r"is not what was written \(model.bin\); it is not put into service"):
        rollback(home)
    assert in_service(home) == home / B and rejected(home) == set()
    with pytest.raises(TryAgain, match="was removed meanwhile"), moving(home):
        promote(home, "d" * 12, "run")
    assert in_service(home) == home / B


def test_keeps_so_many_and_always_what_is_in_service(home: Path) -> None:
    put(home, A, B, C)
    assert keep(home, 2) == [A] and not (home / A).exists()
    rollback(home)
    assert keep(home, 1) == [C], "what was in service last is kept, not what is newest"
    assert in_service(home) == home / B
    assert keep(home, 1) == [] == keep(home, 0)
    assert left(home) == ["latest", "promotions.jsonl"]
    assert [one.version for one in promoted(home)] == [A, B, C, B]


def test_keeps_what_somebody_edited_and_what_was_never_promoted(home: Path) -> None:
    put(home, A, B)
    (home / A / "notes.txt").write_text("mine")
    assert keep(home, 1) == []
    (home / A / "notes.txt").unlink()
    assert keep(home, 1) == [A] and (home / C).is_dir()


def test_a_latest_that_names_nothing_puts_nothing_into_service(home: Path) -> None:
    (home / "latest").symlink_to("d" * 12)
    assert in_service(home) is None and promoted(home) == []
    put(home, A)
    assert in_service(home) == home / A


def test_a_latest_that_is_a_folder_is_refused_and_kept(home: Path) -> None:
    """As `cp -rL` leaves it."""
    put(home, A, B)
    (home / "latest").unlink()
    shutil.copytree(home / B, home / "latest")
    before = (home / "promotions.jsonl").read_bytes()
    for move in (lambda: put(home, C), lambda: rollback(home), lambda: rollback(home, A), lambda: keep(home, 1)):
        with pytest.raises(Refused, match=r"latest is a folder, and should name one .*; remove it"):
            move()
    assert versions.versions(home) == [C, A, B] and in_service(home) is None
    assert (home / "promotions.jsonl").read_bytes() == before and (home / "latest" / "model.bin").read_text() == B
    shutil.rmtree(home / "latest")
    put(home, B)
    assert left(home) == ["latest", "promotions.jsonl"]


def test_a_stand_in_stands_for_its_version(home: Path) -> None:
    put(home, A)
    (home / A).rename(home / f".{A}.1.ab.copy")
    (home / "latest").unlink()
    (home / "latest").symlink_to(f".{A}.1.ab.copy")
    assert order(home) == [(A, "run", None)]


def test_one_moves_at_a_time(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [A, B, C] * 4

    def go(name: str) -> None:
        put(home, name)

    many = [threading.Thread(target=go, args=(name,)) for name in names]
    for one in many:
        one.start()
    for one in many:
        one.join()
    found = promoted(home)
    assert all(later.instead_of == earlier.version for earlier, later in itertools.pairwise(found))
    assert home / found[-1].version == in_service(home)
    monkeypatch.setattr(files, "LOCK_PATIENCE", 0.05)
    with moving(home), pytest.raises(TryAgain, match="is held for"):
        put(home, A)


def test_a_promotion_says_when_by_the_clock_of_everywhere(home: Path) -> None:
    put(home, A)
    assert promoted(home)[0].when.endswith("+00:00")
    assert isinstance(promoted(home)[0], Promotion)


def test_latest_names_a_version_at_every_moment(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(home, A)
    seen = list[str | None]()

    def watched(real: Callable[..., None]) -> Callable[..., None]:
        def call(*arguments: Any, **more: Any) -> None:
            real(*arguments, **more)
            seen.append(latest.latest(home))

        return call

    for name in ("unlink", "remove", "rename", "replace", "symlink"):
        monkeypatch.setattr(os, name, watched(getattr(os, name)))
    latest.point(home, B)
    assert seen == [A, B], "a link beside it, and then one rename"


def test_latest_is_on_the_disk_before_it_is_told(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a power cut `latest` is what promotions.jsonl says it is."""
    synced: list[tuple[Path, str | None, bool]] = []
    monkeypatch.setattr(
        latest, "sync_dir", lambda path: synced.append((path, latest.latest(home), (home / PROMOTIONS).exists()))
    )
    put(home, A)
    assert synced == [(home, A, False)]


def test_a_kill_while_an_old_version_goes_leaves_no_half_of_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(home, A, B)

    def half(path: Path) -> None:
        (path / "model.bin").unlink()
        raise Death

    with monkeypatch.context() as patch, pytest.raises(Death):
        patch.setattr(versions, "remove_tree", half)
        keep(home, 1)
    assert versions.versions(home) == [C, B]
    assert keep(home, 1) == []
    assert left(home) == ["latest", "promotions.jsonl"], "what was half removed is removed by the next"


def test_sweeping_leaves_what_others_write_and_what_is_in_service(home: Path) -> None:
    nobody = (1 << 22) + 7  # more than any system numbers its processes
    for name in (f".{A}.{os.getpid()}.ab", f".{A}.{nobody}.ab", f".{B}.{nobody}.ab.copy", f".{C}.{os.getpid()}.ab.old"):
        (home / name).mkdir()
    (home / "latest").symlink_to(f".{B}.{nobody}.ab.copy")
    versions.sweep(home)
    assert left(home) == [f".{A}.{os.getpid()}.ab", f".{B}.{nobody}.ab.copy", "latest"]
