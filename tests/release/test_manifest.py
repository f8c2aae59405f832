"""A manifest is as it was written, or it is not read."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from publishing import PretendedProject

from cpu_pipeline.core.errors import Refused
from cpu_pipeline.release import versions
from cpu_pipeline.release.caveats import caveats
from cpu_pipeline.release.diff import RecipeError, diff
from cpu_pipeline.release.manifest import MANIFEST, dump, edited, read_manifest
from cpu_pipeline.release.standing import read_standing


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return PretendedProject(tmp_path_factory.mktemp("project") / "home").published()


def test_any_flipped_bit_is_seen(version: Path) -> None:
    path = version / MANIFEST
    whole = path.read_bytes()
    assert edited(version) == []
    draw = random.Random(0)
    at = [*range(40), *(draw.randrange(len(whole)) for _ in range(300))]
    for place in at:
        flipped = bytearray(whole)
        flipped[place] ^= 1 << draw.randrange(8)
        path.write_bytes(flipped)
        assert edited(version), f"byte {place}"
    path.write_bytes(whole)
    assert edited(version) == []


def test_a_damaged_manifest_goes_nowhere(version: Path) -> None:
    path, home = version / MANIFEST, version.parent
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'"passed": true', b'"passed": null', 1))
    try:
        assert path.read_bytes() != whole
        assert read_standing(home).edited == (MANIFEST,)
        with pytest.raises(Refused, match="is not what was written"):
            versions.rollback(home, version.name)
        with pytest.raises(RecipeError, match="can be read"):
            diff(version, version)
    finally:
        path.write_bytes(whole)


def test_a_version_from_before_manifests_had_a_digest_is_read(version: Path) -> None:
    path = version / MANIFEST
    whole = path.read_bytes()
    path.write_text(json.dumps({**read_manifest(version), "manifest": 1}, ensure_ascii=False))
    try:
        assert edited(version) == []
    finally:
        path.write_bytes(whole)


def test_a_newer_format_is_newer_and_not_damaged(version: Path) -> None:
    path = version / MANIFEST
    whole = path.read_bytes()
    path.write_text(dump({**read_manifest(version), "manifest": 9}))
    try:
        assert edited(version) == [f"{MANIFEST}, written by a newer cpu-pipeline"]
    finally:
        path.write_bytes(whole)


def test_what_a_reader_must_know() -> None:
    manifest = {
        "unchecked": {"int8": "a trial"},
        "checks": {"accuracy": [{"check": "f1", "passed": True, "waived": "until 2026-12-31: late"}]},
        "set": ["accuracy.max_drop=1"],
        "promoted_anyway": "asked for",
    }
    assert caveats(manifest) == [
        "Unchecked: no gate judged the answers of `int8` against the float model: a trial",
        "Waived: `accuracy` failed, and passes until 2026-12-31: late",
        "Promoted anyway, though --set changed the recipe (accuracy.max_drop=1): asked for",
    ]
    assert caveats({}) == []
