"""Tokens reach no offline child, no log, no record, nothing put out; accelerators are hidden from every child."""

from __future__ import annotations

import json
from pathlib import Path

from project import ProjectFixture

SECRETS = {
    name: f"hush-{number}-{name.lower()}"
    for number, name in enumerate(
        ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "GITHUB_TOKEN", "AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID",
         "OPENAI_API_KEY", "SMTP_PASSWORD", "DB_PASSWD", "MY_CREDENTIALS", "SSH_PRIVATE")
    )
}  # fmt: skip
ADDRESSES = {
    "https_proxy": "http://somebody:hush-proxy@proxy.example:8080",
    "HF_ENDPOINT": "https://somebody:hush-endpoint@hub.example",
    "PIP_INDEX_URL": "https://somebody:hush-index@packages.example/simple",
}
OUT = {"manifest.json", "provenance.json", "sbom.json", "report.md", "one/README.md"}
"""What is said about a version, all of which is looked at."""


def test_no_secret_gets_anywhere(bench: ProjectFixture, tmp_path: Path) -> None:
    """A stage that prints and writes its whole environment finds none; nor does anything that is kept."""
    to = tmp_path / "environment.json"
    recipe = bench.recipe({"id": "one", "act": "tell", "to": to})
    said = bench.built(recipe, **SECRETS, **ADDRESSES, HARMLESS="yes")
    seen = json.loads(to.read_text(encoding="utf-8"))
    assert seen["HARMLESS"] == "yes"
    assert not {name: value for name, value in seen.items() if "hush" in value}
    written = [p for room in (bench.store, bench.out) for p in room.rglob("*") if p.is_file()]
    assert [p for p in written if p.suffix == ".log" and b"HARMLESS" in p.read_bytes()], "the log is not looked at"
    home = (bench.out / "small" / "latest").resolve()
    assert {p.relative_to(home).as_posix() for p in written if p.is_relative_to(home)} >= OUT
    assert not [p for p in written if b"hush" in p.read_bytes()]
    assert "hush" not in said.out + said.err


def test_no_secret_is_remembered_of_a_run(bench: ProjectFixture) -> None:
    """What is told on the way may quote what was asked: a password in an address, or the value of a variable."""
    text = f"s3://u:hush-a@h/{SECRETS['HF_TOKEN']}"
    bench.built(bench.recipe({"id": "one", "text": "plain"}))
    said = bench.run(bench.recipe({"id": "one", "text": text, "act": "raise"}), **SECRETS, **ADDRESSES).expect(1)
    assert f"options.text: plain → {text}" in said.err, "it is not told any more"
    folder = max((bench.store / "runs").iterdir())
    told = [json.loads(line) for line in (folder / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    assert ["options.text: plain → s3://***@h/***"] in [line.get("why") for line in told]
    kept = [*folder.iterdir(), *bench.store.glob("runs.sqlite*")]
    assert {"run.json", "events.jsonl", "runs.sqlite"} <= {path.name for path in kept}
    assert not [path for path in kept if b"hush" in path.read_bytes()]


def test_children_are_offline_without_accelerators(bench: ProjectFixture, tmp_path: Path) -> None:
    """What a stage sees: no network for the Hub's libraries, no GPU, whatever the shell says."""
    to = tmp_path / "environment.json"
    recipe = bench.recipe({"id": "one", "act": "tell", "to": to})
    bench.built(recipe, CUDA_VISIBLE_DEVICES="0,1", HF_HUB_OFFLINE="0", PYTHONHASHSEED="7")
    seen = json.loads(to.read_text(encoding="utf-8"))
    assert [seen[n] for n in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")] == ["", "", ""]
    assert [seen[n] for n in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")] == ["1", "1", "1"]
    assert seen["PYTHONHASHSEED"] == "0"
