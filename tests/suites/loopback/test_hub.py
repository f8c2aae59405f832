"""The Hub as a source, against a Hub on this machine that misbehaves on demand."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from suites.loopback.serving import HUB

pytestmark = pytest.mark.loopback

COMMITS = {
    "sentence-transformers/all-MiniLM-L6-v2": "c9745ed1d9f207416be6d2e6f8de32d1f16199bf",
    "cpu-pipeline/minilm-squad": "33909e613f06417b627488ea9f9555b3ed9398eb",
    "deepset/roberta-base-squad2": "adc3b06f79f797d1c575d5479d6f5efe54a9e3b4",
    "distilbert/distilbert-base-uncased-finetuned-sst-2-english": "714eb0fa89d2f80546fda750413ed43d93601a13",
    "rajpurkar/squad": "7b6d24c440a36b6815f21b70d25016731768db1f",
    "rajpurkar/squad_v2": "3ffb306f725f7d2ce8394bc1873b24868140c412",
    "stanfordnlp/sst2": "8d51e7e4887a4caaa95b3fbebbf53c0490b58bbb",
    "mteb/stsbenchmark-sts": "b0fddb56ed78048fa8b90373c8a3cfc37b684831",
}
MODEL = "cpu-pipeline/minilm-squad"
FETCH = """
import json, sys
from pathlib import Path
from cpu_pipeline.core.errors import PipelineError
from cpu_pipeline.sources.hub import Hub
said = json.loads(sys.argv[1])
source, want, out = Hub(**said["fields"]), said["want"], Path(said["out"])
try:
    source.fetch(want, out, set(said["allow"]))
except PipelineError as error:
    print(json.dumps({"code": error.exit_code, "says": str(error)}))
else:
    found = [p for p in out.rglob("*") if p.is_file() and not p.is_symlink()]
    files = {p.relative_to(out).as_posix(): p.stat().st_size for p in found}
    print(json.dumps({"code": 0, "files": files, "identity": source.identity(want)}))
"""


@dataclass
class Shelf:
    """A directory with a cache of its own, and fetching into it."""

    home: Path

    def fetch(
        self,
        *faults: str,
        repo: str = MODEL,
        want: str = "model",
        allow: tuple[str, ...] = (),
        hub: bool = True,
        env: Mapping[str, str] | None = None,
        **fields: Any,
    ) -> dict[str, Any]:
        """Fetch through a Hub with these faults (or with the network off); return what came of it."""
        out = self.home / f"out{len(list(self.home.glob('out*')))}"
        out.mkdir()
        said = {"hub": repo, "revision": COMMITS.get(repo, "0" * 40), **fields}
        order = json.dumps({"fields": said, "want": want, "out": str(out), "allow": allow})
        command = [sys.executable, "-c", FETCH, order]
        if hub:
            command = [sys.executable, str(HUB / "serve.py"), *faults, "--", *command]
        dead = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(self.home / "hf"), "HF_TOKEN": "hf_verysecret"}
        run = subprocess.run(
            command,
            env={**os.environ, **dead, "HUB_HOME": str(self.home), **(env or {})},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert "hf_verysecret" not in run.stdout + run.stderr
        assert "Traceback" not in run.stderr, run.stderr
        return {**json.loads(run.stdout.splitlines()[-1]), "stderr": run.stderr}

    def snapshot(self, repo: str = MODEL) -> Path:
        return self.home / "hf" / "hub" / f"models--{repo.replace('/', '--')}" / "snapshots" / COMMITS[repo]


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


@pytest.mark.parametrize("repo", [name for name in COMMITS if (HUB / "repos" / "models" / name).is_dir()])
def test_models_come_whole(shelf: Shelf, repo: str) -> None:
    filed = HUB / "repos" / "models" / repo / COMMITS[repo]
    there = {p.relative_to(filed).as_posix(): p.stat().st_size for p in filed.rglob("*") if p.is_file()}
    assert shelf.fetch(repo=repo)["files"] == there


@pytest.mark.parametrize("repo", [name for name in COMMITS if (HUB / "repos" / "datasets" / name).is_dir()])
def test_data_sets_come_by_split(shelf: Shelf, repo: str) -> None:
    names = list(shelf.fetch(repo=repo, want="data", split="validation")["files"])
    assert len(names) == 2 and "README.md" in names
    assert sum("validation-00000" in name for name in names) == 1


def test_a_tokenizer_comes_without_the_model(shelf: Shelf) -> None:
    files = shelf.fetch(want="tokenizer")["files"]
    assert set(files) == {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"}


@pytest.mark.parametrize(
    ("faults", "code", "says"),
    [
        (("--fail", "api/=401"), 2, "private (401); check the name, and set HF_TOKEN"),
        (("--fail", "api/=403"), 2, "access refused (403); accept its terms at "),
        (("--fail", "api/=404"), 2, "not found (404)"),
        (("--fail", "api/=500"), 75, "answered 500; try again later"),
        (("--fail", "api/=429"), 75, "answered 429"),
        (("--fail", "resolve=401"), 2, "file config.json: not found, or private (401)"),
        (("--fail", "model.safetensors=403"), 2, "file model.safetensors: access refused (403)"),
        (("--fail", "model.safetensors=404"), 2, "file model.safetensors: not found (404)"),
        (("--fail", "model.safetensors=503"), 75, "file model.safetensors: "),
    ],
)
def test_each_answer_has_its_own_message(shelf: Shelf, faults: tuple[str, ...], code: int, says: str) -> None:
    begun = time.monotonic()
    came = shelf.fetch(*faults)
    assert (came["code"], says in came["says"]) == (code, True), came
    assert f"model {MODEL} at {COMMITS[MODEL]}" in came["says"] and "\n" not in came["says"]
    assert time.monotonic() - begun < 120, "it went on asking"


def test_no_such_repository_and_no_such_commit_differ(shelf: Shelf) -> None:
    came = shelf.fetch(repo="no/such")
    assert (came["code"], "no such model (404); check `hub: no/such`" in came["says"]) == (2, True), came
    came = shelf.fetch(revision="1" * 40)
    assert (came["code"], "has no such commit (404)" in came["says"]) == (2, True), came


def test_a_hub_that_never_answers_is_given_up(shelf: Shelf) -> None:
    begun = time.monotonic()
    came = shelf.fetch("--delay", "60", env={"HF_HUB_ETAG_TIMEOUT": "3"})
    assert came["code"] == 75 and "did not answer" in came["says"], came
    assert time.monotonic() - begun < 55, "it waited for the server"


def test_a_download_that_breaks_off_goes_on_where_it_stopped(shelf: Shelf) -> None:
    came = shelf.fetch("--cut", "model.safetensors=20000000")
    assert came["code"] == 0 and came["files"]["model.safetensors"] == 45144116
    assert "Trying to resume download" in came["stderr"]


def test_a_download_that_never_gets_on_is_tried_again_later(shelf: Shelf) -> None:
    came = shelf.fetch("--cut", "model.safetensors=0")
    assert came["code"] == 75 and "file model.safetensors: " in came["says"] and "broke off" in came["says"], came
    assert not (shelf.snapshot() / "model.safetensors").exists()
    assert shelf.fetch()["code"] == 0


def test_network_off_and_everything_in_the_cache(shelf: Shelf) -> None:
    online = shelf.fetch()
    assert shelf.fetch(hub=False)["files"] == online["files"]
    assert shelf.fetch(hub=False, env={"HF_HUB_OFFLINE": "1"})["files"] == online["files"]
    assert shelf.fetch("--fail", "=500")["files"] == online["files"]


@pytest.mark.parametrize("offline", ["0", "1"])
def test_network_off_and_something_missing(shelf: Shelf, offline: str) -> None:
    came = shelf.fetch(hub=False, env={"HF_HUB_OFFLINE": offline})
    assert came["code"] == 75 and f"{MODEL} at {COMMITS[MODEL]}, file config.json" in came["says"], came
    shelf.fetch()
    (shelf.snapshot() / "tokenizer_config.json").unlink()
    came = shelf.fetch(hub=False, env={"HF_HUB_OFFLINE": offline})
    assert came["code"] == 75 and f"{MODEL} at {COMMITS[MODEL]}, file tokenizer_config.json" in came["says"], came


def test_a_half_downloaded_snapshot_is_completed(shelf: Shelf) -> None:
    shelf.fetch()
    (shelf.snapshot() / "model.safetensors").resolve().unlink()
    (shelf.snapshot() / "tokenizer.json").unlink()
    came = shelf.fetch()
    assert came["code"] == 0 and came["files"]["model.safetensors"] == 45144116
    assert len(came["files"]) == 5


def test_what_other_tools_downloaded_is_not_downloaded_again(shelf: Shelf) -> None:
    code = f"import huggingface_hub as h; h.snapshot_download({MODEL!r}, revision={COMMITS[MODEL]!r})"
    env = {**os.environ, "HUB_HOME": str(shelf.home)}
    subprocess.run([sys.executable, str(HUB / "serve.py"), "--", sys.executable, "-c", code], env=env, check=True)
    assert shelf.fetch(hub=False)["code"] == 0
    assert shelf.fetch("--fail", "resolve=500")["code"] == 0


@pytest.mark.parametrize("damage", ["cut", "flip"])
@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_a_damaged_cache_is_never_served(shelf: Shelf, damage: str, file: str) -> None:
    shelf.fetch()
    blob = (shelf.snapshot() / file).resolve()
    good = blob.read_bytes()
    bad = good[:100] if damage == "cut" else good[:-5] + bytes([good[-5] ^ 1]) + good[-4:]
    blob.chmod(0o644)
    blob.write_bytes(bad)
    came = shelf.fetch(hub=False)
    assert came["code"] == 75 and f"file {file}: damaged in the cache" in came["says"], came
    assert shelf.fetch()["code"] == 0
    assert (shelf.snapshot() / file).read_bytes() == good


def test_another_endpoint_is_another_identity(shelf: Shelf) -> None:
    first, second = shelf.fetch(want="tokenizer")["identity"], shelf.fetch(want="tokenizer")["identity"]
    assert first.pop("endpoint") != second.pop("endpoint")
    assert first == second


def overlay(home: Path, repo: str, *drop: str, **add: bytes) -> tuple[str, str]:
    """File a poisoned commit of a repository in front of the real one."""
    there = home / "overlay" / "models" / repo / COMMITS[repo]
    shutil.copytree(HUB / "repos" / "models" / repo / COMMITS[repo], there)
    there.chmod(0o755)
    for name in drop:
        (there / name).unlink()
    for name, content in add.items():
        (there / name).write_bytes(content)
    return "--repos", str(home / "overlay")


def test_file_names_that_lead_outside_are_refused_before_any_download(shelf: Shelf) -> None:
    faults = overlay(shelf.home, MODEL, **{"..\\evil.json": b"{}"})
    came = shelf.fetch(*faults)
    assert came["code"] == 7 and "leads outside" in came["says"], came
    assert not shelf.snapshot().exists()


def test_pickles_alone_are_refused_before_any_download(shelf: Shelf) -> None:
    faults = overlay(shelf.home, MODEL, "model.safetensors", **{"pytorch_model.bin": b"pickle"})
    came = shelf.fetch(*faults)
    assert came["code"] == 7 and "allow: [pickle]" in came["says"], came
    assert not shelf.snapshot().exists()
    assert "pytorch_model.bin" in shelf.fetch(*faults, allow=("pickle",))["files"]


def test_branches_are_resolved_and_small_files_read(shelf: Shelf) -> None:
    code = (
        "from cpu_pipeline.sources.hub import resolve, read_small\n"
        f"print(resolve({MODEL!r}, 'model'), resolve('rajpurkar/squad', 'data'))\n"
        f"def read(name): return read_small({MODEL!r}, 'model', 'main', name)\n"
        "print(read('config.json')[:1], read('no'))"
    )
    command = [sys.executable, str(HUB / "serve.py"), "--", sys.executable, "-c", code]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stdout.split() == [COMMITS[MODEL], COMMITS["rajpurkar/squad"], "{", "None"]
