"""The Hub as a source, as far as it needs no Hub; tests/suites/loopback/ has the rest."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pydantic import ValidationError

from cpu_pipeline.core import hub_api
from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.core.hub_api import HubFile, RepoCommit
from cpu_pipeline.sources.hub import Hub, _is_whole

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def test_identity_is_repository_commit_and_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    hub = Hub(hub="own/name", revision=COMMIT, split="train", config="de")
    assert hub.identity("model") == {"hub": "own/name", "revision": COMMIT, "want": "model", "format": "hf"}
    data = {"hub": "own/name", "revision": COMMIT, "want": "data", "split": "train", "config": "de"}
    data["choice"] = 2
    assert hub.identity("data") == data
    monkeypatch.setenv("HF_ENDPOINT", "https://huggingface.co/")
    assert hub.identity("data") == data
    monkeypatch.setenv("HF_ENDPOINT", "https://user:secret@mirror.example/hub/")
    assert hub.identity("data") == {**data, "endpoint": "https://mirror.example/hub"}


@pytest.mark.parametrize("revision", ["main", "0123456", COMMIT + "0", COMMIT.upper(), COMMIT + "\n"])
def test_only_a_full_commit_is_a_revision(revision: str) -> None:
    with pytest.raises(ValidationError):
        Hub(hub="own/name", revision=revision)


@pytest.mark.parametrize(
    "name", ["name", "own/", "../name", "own/../name", "own/name/more", "https://x/y", "own\\name"]
)
def test_a_repository_has_an_owner_and_a_name(name: str) -> None:
    with pytest.raises(ValidationError):
        Hub(hub=name, revision=COMMIT)


def test_data_needs_a_split() -> None:
    with pytest.raises(RecipeError, match="name the split"):
        Hub(hub="own/name", revision=COMMIT)._choose("data", {}, set(), "d")


def test_a_copy_is_compared_with_the_listing(tmp_path: Path) -> None:
    good = b"weights"
    path = tmp_path / "x"
    path.write_bytes(good)
    sha256 = hashlib.sha256(good).hexdigest()
    sha1 = hashlib.sha1(b"blob 7\0" + good).hexdigest()
    assert all(_is_whole(path, HubFile(7, oid), path) for oid in (sha256, sha1, ""))
    assert not _is_whole(path, HubFile(8, ""), path)
    path.write_bytes(b"weighty")
    assert not any(_is_whole(path, HubFile(7, oid), path) for oid in (sha256, sha1))
    blob = tmp_path / sha256
    blob.write_bytes(b"weighty")
    assert not _is_whole(path, HubFile(7, ""), blob)


def test_a_listing_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_ASSETS_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    place = RepoCommit("own/name", "model", COMMIT)
    assert hub_api.load_listing(place) is None
    listing = {"config.json": HubFile(3, "a" * 40)}
    hub_api.save_listing(place, listing)
    assert hub_api.load_listing(place) == listing
    assert hub_api.load_listing(RepoCommit("own/name", "data", COMMIT)) is None
    [file] = tmp_path.rglob("*.json")
    for cut in ("", "{", "[]", '{"a": 1}'):
        file.write_text(cut)
        assert hub_api.load_listing(place) is None


@pytest.mark.parametrize("offline", ["0", "1"])
def test_a_dead_hub_is_told_soon_and_by_name(tmp_path: Path, offline: str) -> None:
    code = (
        "from cpu_pipeline.sources.hub import Hub\nfrom cpu_pipeline.core.errors import TryAgain\n"
        "from pathlib import Path\n"
        f"try: Hub(hub='own/name', revision='{COMMIT}').fetch('model', Path('{tmp_path}'), set())\n"
        "except TryAgain as error: print(error)"
    )
    env = {**os.environ, "HF_HOME": str(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": offline}
    begun = time.monotonic()
    run = subprocess.run(
        [sys.executable, "-c", code], env={**env, "HF_TOKEN": "hf_secret"}, capture_output=True, text=True
    )
    assert f"model own/name at {COMMIT}, file config.json: " in run.stdout, run.stderr
    assert "hf_secret" not in run.stdout + run.stderr
    assert time.monotonic() - begun < 120, "it went on asking"


@pytest.mark.parametrize("address", ["nonsense", "ftp://x", "http://"])
def test_an_address_that_is_none_is_a_mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("HF_ENDPOINT", address)
    with pytest.raises(RecipeError, match="is no address"):
        Hub(hub="own/name", revision=COMMIT).fetch("model", tmp_path, set())
