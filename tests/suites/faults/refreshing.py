"""A refresh that is killed at one write after another, and what must be true after each kill."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from forks import Forks
from project import ProjectFixture

from cpu_pipeline.release import manifest, references
from cpu_pipeline.store import contents
from cpu_pipeline.store.local import Store

KILLED = -9
SCORED = ({"id": "made"}, {"id": "gate", "use": "faulty.versus", "from": {"reference": "model"}})


def upstream(bench: ProjectFixture, **config: Any) -> None:
    """Change the model that recipes of the bench are made of."""
    path = bench.home / "model" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config, indent=2), encoding="utf-8")


def arguments(bench: ProjectFixture, recipe: Path) -> list[object]:
    """Return the command, without its name."""
    return ["refresh", recipe, "--store", bench.store, "--out", bench.out]


def in_service(bench: ProjectFixture) -> str:
    """Return the version in service, which is whole."""
    latest = bench.out / "small" / "latest"
    assert latest.is_dir(), f"latest names {latest.readlink()}, which is not there"
    assert manifest.edited(latest) == []
    return latest.resolve().name


def killing(bench: ProjectFixture, forks: Forks) -> Callable[[int], bool]:
    """Return what kills a refresh before its n-th write, checks what is left, and says whether it was alive till then.

    It is a refresh that builds, promotes, writes the lock, and removes a version beyond `keep`.
    """
    upstream(bench, score=1.0)
    recipe = bench.recipe(*SCORED, refresh={"keep": 1})
    place = recipe.with_suffix(".lock")
    assert forks.call(*arguments(bench, recipe))["code"] == 0
    old = in_service(bench)
    before = bench.home / "before"
    for path in (bench.store, bench.out):
        shutil.copytree(path, before / path.name, symlinks=True)
    shutil.copy2(place, before / place.name)
    upstream(bench, score=1.5)
    assert forks.call(*arguments(bench, recipe))["code"] == 0
    new, locked = in_service(bench), place.read_bytes()
    assert new != old

    def kill(at: int) -> bool:
        for path in (bench.store, bench.out):
            shutil.rmtree(path)
            shutil.copytree(before / path.name, path, symlinks=True)
        shutil.copy2(before / place.name, place)
        said = forks.call(*arguments(bench, recipe), kill_at=at)
        where = f"killed before write {at}"
        assert said["code"] in (0, KILLED), said["err"]
        assert in_service(bench) in (old, new), where
        assert [p.says for p in contents.verify(Store(bench.store))] == [], where
        if said["code"] == KILLED:
            after = forks.call(*arguments(bench, recipe))
            assert after["code"] == 0, f"{where}: {after['err']}"
        assert in_service(bench) == new, where
        assert place.read_bytes() == locked, where
        assert bench.leftovers() == [], where
        assert set(references.read_roots(Store(bench.store)).places) == {place, bench.out / "small"}, where
        assert json.loads(forks.call(*arguments(bench, recipe), "--dry-run")["out"])["outcome"] == "fresh", where
        return bool(said["code"] == KILLED)

    return kill
