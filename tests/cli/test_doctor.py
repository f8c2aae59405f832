"""`doctor` tells what this machine is and what works on it."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Cli

from cpu_pipeline import backends, stages
from cpu_pipeline.core import host
from cpu_pipeline.engine import packages


def test_tells_machine_versions_and_what_works(cli: Cli, tmp_path: Path) -> None:
    said = cli("doctor", "--json", "--store", tmp_path / "store").json
    assert said["isa"] == list(host.isa()) and said["cpu"] == host.cpu_model() and said["cores"] == host.cores()
    assert said["store"] == str(tmp_path / "store")
    assert said["packages"]["onnxruntime"] == packages.installed("onnxruntime")
    assert set(said["stages"]) == set(stages.names(internal=True))
    assert set(said["backends"]) == set(backends.names())
    assert said["stages"]["export.onnx"] == []
    assert not (tmp_path / "store").exists()


def test_tells_people_line_by_line(cli: Cli, tmp_path: Path) -> None:
    out = cli("doctor", "--store", tmp_path / "store").out
    for word in ("python", "isa", "packages", "stages", "backends", "  export.onnx", "works"):
        assert word in out


def test_tells_what_is_missing_and_how_to_get_it(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = packages.installed
    monkeypatch.setattr(
        packages, "installed", lambda name, *where: packages.ABSENT if name == "nncf" else installed(name, *where)
    )
    assert cli("doctor", "--json", "--store", tmp_path).json["stages"]["quantize.openvino"] == ["nncf"]
    out = cli("doctor", "--store", tmp_path).out
    assert "missing nncf; pip install 'cpu-pipeline[build]'" in out


def test_tells_which_environment_is_not_made(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CPU_PIPELINE_ENVIRONMENTS", str(tmp_path))
    said = cli("doctor", "--json", "--store", tmp_path).json
    assert said["environments"] == {"ipex": "not made", "optimum": "not made"}
    assert said["stages"]["fuse.ipex"] == said["backends"]["ipex"] == ["environment ipex"]
    out = cli("doctor", "--store", tmp_path).out
    assert "missing environment ipex; cpu-pipeline env create ipex" in out
