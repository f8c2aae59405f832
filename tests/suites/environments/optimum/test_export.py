"""export.optimum, through the real command: what direct exports cannot do, with the same proof, bit for bit again."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import models
import pytest
import transformers
from stages.conftest import job_for

from cpu_pipeline.core.artifact import Artifact
from cpu_pipeline.core.errors import StageFailed
from cpu_pipeline.stages.export.openvino import ExportOpenvino

ROOT = Path(__file__).parents[4]
TASK = "text-classification"


@pytest.fixture(scope="session")
def opt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a tiny OPT with a classification head: a decoder, which keeps a cache that OpenVINO cannot trace."""
    path = tmp_path_factory.mktemp("models") / "opt"
    models.make("bert", path, TASK)
    vocabulary = json.loads((path / "config.json").read_text())["vocab_size"]
    sizes = {"hidden_size": 32, "word_embed_proj_dim": 32, "ffn_dim": 64, "num_hidden_layers": 2}
    config = transformers.OPTConfig(
        vocab_size=vocabulary, num_attention_heads=4, max_position_embeddings=512, pad_token_id=0, num_labels=2, **sizes
    )
    model = transformers.OPTForSequenceClassification(config)
    models.fill(model, 0)
    model.save_pretrained(path)
    return path


def run(place: Path, model: Path, *stages: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    place.mkdir(exist_ok=True)
    shutil.copytree(model, place / "model")
    unchecked = {stage["id"]: "a test" for stage in stages if not stage["use"].startswith("validate.")}
    recipe = {"model": {"folder": "model"}, "task": TASK, "stages": list(stages), "unchecked": unchecked}
    (place / "exported.yaml").write_text(json.dumps(recipe))
    arguments = ["--store", str(place / "store"), "--out", str(place / "out"), "--json"]
    return subprocess.run(
        [sys.executable, "-m", "cpu_pipeline", "run", str(place / "exported.yaml"), *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def step(format: str) -> dict[str, Any]:
    return {"id": format, "use": "export.optimum", "from": {"model": "model"}, "with": {"format": format}}


def test_it_exports_what_the_direct_export_cannot(opt: Path, tmp_path: Path) -> None:
    (tmp_path / "direct").mkdir()
    with pytest.raises(
        StageFailed, match=r"OPTForSequenceClassification cannot be converted: .*DynamicCache"
    ) as failed:
        ExportOpenvino().run({"model": Artifact("hf", opt, "", {})}, tmp_path / "direct", job_for(TASK))
    assert "`export.optimum` with `format: openvino`" in str(failed.value)
    done = run(tmp_path, opt, step("openvino"))
    assert done.returncode == 0, done.stderr[-3000:]
    facts = json.loads(done.stdout)["steps"]["openvino"]["facts"]
    assert facts["inputs"] == ["input_ids", "attention_mask"] and facts["outputs"] == ["logits"]
    assert 0 < facts["parity"]["max_abs"] <= 1e-4 and facts["parity"]["nonfinite"] == 0


def test_what_it_writes_is_laid_out_as_ours_and_the_same_bytes_anywhere(
    checkpoint: Callable[..., Artifact], tmp_path: Path
) -> None:
    source = checkpoint("roberta", TASK).path
    digests = []
    for name in ("one", "two"):
        done = run(tmp_path / name, source, step("onnx"), step("openvino"))
        assert done.returncode == 0, done.stderr[-3000:]
        said = json.loads(done.stdout)
        digests.append([said["outputs"][format]["digest"] for format in ("onnx", "openvino")])
    assert digests[0] == digests[1]
    weights = {"onnx": {"model.onnx"}, "openvino": {"openvino_model.xml", "openvino_model.bin"}}
    carried = {"config.json", "tokenizer.json", "tokenizer_config.json"}
    for format, names in weights.items():
        made = Path(said["path"]) / format
        assert {path.name for path in made.iterdir()} == names | carried | {"cpu_pipeline.json", "README.md"}
        for name in carried:
            assert (made / name).read_bytes() == (source / name).read_bytes(), "not what transformers 4 saves again"
        assert job_for(TASK).load(Artifact(format, made, "", {})).inputs == ("input_ids", "attention_mask")
