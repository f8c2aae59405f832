"""Memory that runs out in a real stage: the step is named, nothing is published, and the next run succeeds."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from project import ROOT, ProjectFixture
from yaml import safe_dump

HOOKS = Path(__file__).parent / "hooks"
MIB = 1 << 20
GRAPH: dict[str, tuple[str, dict[str, str], dict[str, object]]] = {
    "onnx": ("export.onnx", {"model": "model"}, {}),
    "fused": ("fuse.onnx", {"model": "onnx"}, {}),
    "int8": ("quantize.onnx", {"model": "fused"}, {"mode": "static", "samples": 8}),
    "openvino": ("export.openvino", {"model": "model"}, {}),
    "openvino-int8": ("quantize.openvino", {"model": "openvino"}, {"subset": 8}),
    "script": ("export.torchscript", {"model": "model"}, {}),
    "fast": ("compile.fastpath", {"model": "model"}, {}),
    "accuracy": ("validate.accuracy", {"candidate": "onnx", "reference": "model"}, {"max_drop": 0.9, "min_rows": 1}),
    "speed": (
        "validate.latency", {"candidate": "onnx", "reference": "model"},
        {"max_slowdown": 1000, "calls": 2, "rounds": 2, "processes": 1},
    ),
}  # fmt: skip
# Stage -> what is imported before memory is short: what a stage cannot even import fails at another place.
# validate.accuracy compares the few predictions of this project without asking for any more memory.
LIBRARIES = {
    "export.onnx": "torch transformers onnx onnxscript onnxruntime",
    "fuse.onnx": "onnx onnxruntime",
    "quantize.onnx": "onnx onnxruntime onnxruntime.quantization",
    "export.openvino": "torch transformers openvino",
    "quantize.openvino": "openvino nncf",
    "export.torchscript": "torch transformers",
    "compile.fastpath": "torch transformers",
    "predict": "torch transformers",
    "validate.latency": "numpy",
}


KEYS: dict[str, tuple[str, str]] = {}
"""Stage -> the first step that uses it, and its key."""


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> ProjectFixture:
    """Give a project of which every step is built, and fill `KEYS`."""
    made = ProjectFixture(tmp_path_factory.mktemp("memory") / "project", model=False)
    shutil.copytree(ROOT / "recipes" / "quickstart", made.home / "quickstart")
    recipe = {
        "model": {"folder": "quickstart/model"},
        "task": {"use": "question-answering", "with": {"version": 1, "max_seq_length": 384, "doc_stride": 128}},
        "data": {
            "calibration": {"file": "quickstart/calibration.jsonl", "take": 8},
            "validation": {"file": "quickstart/validation.jsonl", "take": 8},
        },
        "stages": [{"id": name, "use": use, "from": take, "with": w} for name, (use, take, w) in GRAPH.items()],
        "unchecked": {n: "a test" for n, (use, *_) in GRAPH.items() if n != "onnx" and not use.startswith("validate")},
    }
    (made.home / "small.yaml").write_text(safe_dump(recipe, sort_keys=False))
    keys = {name: step["key"] for name, step in made.built(made.home / "small.yaml").json["steps"].items()}
    planned = made.call("plan", "small.yaml", "--json", "--store", made.store).expect(0).json["steps"]
    KEYS.update({step["use"]: (step["id"], keys[step["id"]]) for step in reversed(planned) if step["id"] in keys})
    return made


def forget(bench: ProjectFixture, stage: str) -> str:
    """Remove what the store knows of the first step of a stage; return its name."""
    step, key = KEYS[stage]
    [record] = [path for path in (bench.store / "actions").rglob("*") if path.is_file() and key in path.name]
    record.unlink()
    return step


def capped(stage: str, most: int, imports: str) -> dict[str, str]:
    return {
        "PYTHONPATH": os.pathsep.join([str(HOOKS), str(ROOT / "tests" / "plugin"), str(ROOT)]), "FAULT_HOOK": "memory",
        "FAULT_STAGE": stage, "FAULT_BYTES": str(most), "FAULT_IMPORTS": imports,
    }  # fmt: skip


@pytest.mark.parametrize("stage", LIBRARIES)
def test_memory_that_runs_out(bench: ProjectFixture, tmp_path: Path, stage: str) -> None:
    step = forget(bench, stage)
    out = tmp_path / "out"
    arguments = ["run", "small.yaml", "--store", bench.store, "--out", out]
    said = bench.call(*arguments, **capped(stage, MIB, LIBRARIES[stage]))
    said.expect(1, f"step `{step}`")
    assert not list(out.rglob("manifest.json")) and not (out / "small" / "latest").exists()
    assert any(word in said.err for word in ("out of memory", "in native code", "before it answered")), said.err
    done = bench.call(*arguments, "--json").expect(0).json
    assert step in done["built"] and (out / "small" / "latest").is_dir(), json.dumps(done)[:500]


def test_memory_that_runs_out_while_libraries_are_imported(bench: ProjectFixture, tmp_path: Path) -> None:
    step = forget(bench, "export.onnx")
    arguments = ["run", "small.yaml", "--store", bench.store, "--out", tmp_path / "out"]
    said = bench.call(*arguments, **capped("export.onnx", 64 * MIB, ""))
    said.expect(1, f"step `{step}`", "out of memory")
    bench.call(*arguments).expect(0)
