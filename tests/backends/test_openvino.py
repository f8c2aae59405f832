"""OpenVINO IR: what loads, what is refused, what is written, and that nobody is told."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cpu_pipeline.backends import openvino
from cpu_pipeline.core import host
from cpu_pipeline.core.artifact import Card, digest_tree
from cpu_pipeline.core.errors import BackendMissing, StageFailed

TASK: Any = SimpleNamespace(outputs=("start_logits", "end_logits"), per_token=True)
BATCH = {
    "input_ids": np.array([[1, 2, 3], [4, 5, 0]], dtype=np.int64),
    "attention_mask": np.array([[1, 1, 1], [1, 1, 0]], dtype=np.int64),
}


def build(scale: float = 1.0) -> Any:
    """Make a model by hand: two projections of masked embeddings."""
    ov = openvino.runtime()
    op = ov.opset13
    rng = np.random.default_rng(0)
    ids = op.parameter([-1, -1], np.int64, name="input_ids")
    mask = op.parameter([-1, -1], np.int64, name="attention_mask")
    for given in (ids, mask):
        given.output(0).get_tensor().set_names({given.get_friendly_name()})
    table = op.constant(rng.standard_normal((50, 64)).astype(np.float32))
    seen = op.multiply(op.gather(table, ids, op.constant(0)), op.unsqueeze(op.convert(mask, "f32"), op.constant(2)))
    results = []
    for name in TASK.outputs:
        weight = op.constant((scale * rng.standard_normal((64, 1))).astype(np.float32))
        answer = op.squeeze(op.matmul(seen, weight, False, False), op.constant(2))
        answer.output(0).get_tensor().set_names({name})
        results.append(op.result(answer))
    return ov.Model(results, [ids, mask])


@pytest.fixture
def model(tmp_path: Path) -> Path:
    openvino.write(build(), tmp_path)
    return tmp_path


def test_answers_are_float32_by_the_tasks_names_and_stay_what_they_were(model: Path) -> None:
    session = openvino.load(model, TASK, 1)
    assert session.inputs == ("input_ids", "attention_mask")
    first = session(BATCH)
    kept = {name: value.copy() for name, value in first.items()}
    session({name: value[:, ::-1] for name, value in BATCH.items()})  # another call must not write into old answers
    assert list(first) == ["start_logits", "end_logits"]
    for name, value in first.items():
        assert value.dtype == np.float32
        assert value.shape == (2, 3)
        np.testing.assert_array_equal(value, kept[name])
    assert first["start_logits"][1, 2] == 0.0


def test_outputs_go_by_place_only_when_no_name_fits(model: Path) -> None:
    by_place = openvino.load(model, SimpleNamespace(outputs=("a", "b")), 1)(BATCH)  # type: ignore[arg-type]
    np.testing.assert_array_equal(by_place["b"], openvino.load(model, TASK, 1)(BATCH)["end_logits"])
    with pytest.raises(StageFailed, match="needs the outputs start_logits, logits"):
        openvino.load(model, SimpleNamespace(outputs=("start_logits", "logits")), 1)  # type: ignore[arg-type]
    assert set(openvino.load(model, None, 1)(BATCH)) == {"start_logits", "end_logits"}


def test_floats_are_float32_unless_the_card_says_otherwise(model: Path) -> None:
    def setting(name: str) -> object:
        return openvino.load(model, TASK, 1).compiled.get_property(name)

    ov = openvino.runtime()
    assert setting("INFERENCE_PRECISION_HINT") == ov.Type.f32
    assert setting("INFERENCE_NUM_THREADS") == 1
    assert setting("NUM_STREAMS") == 1
    Card("openvino", runtime={"INFERENCE_PRECISION_HINT": "bf16"}).write(model)
    if "avx512f" in host.isa():
        assert setting("INFERENCE_PRECISION_HINT") == ov.Type.bf16
    Card("openvino", runtime={"NO_SUCH_SETTING": 1}).write(model)
    with pytest.raises(StageFailed, match="does not compile"):
        openvino.load(model, TASK, 1)


def test_two_loads_answer_the_same_bits(model: Path) -> None:
    one, two = (openvino.load(model, TASK, 2)(BATCH) for _ in range(2))
    for name in one:
        np.testing.assert_array_equal(one[name], two[name])


def test_an_instruction_set_that_is_not_here_is_named(model: Path) -> None:
    Card("openvino", needs=(host.VNNI, "sse4_2|asimd")).write(model)
    if host.has_vnni():
        openvino.load(model, TASK, 1)
    Card("openvino", needs=("avx9000",)).write(model)
    with pytest.raises(BackendMissing, match="built for avx9000"):
        openvino.load(model, TASK, 1)


@pytest.mark.parametrize("name", [openvino.XML, openvino.BIN])
def test_a_missing_file_is_named(model: Path, name: str) -> None:
    (model / name).unlink()
    with pytest.raises(StageFailed, match=f"not a valid OpenVINO model: {name} is missing"):
        openvino.load(model, TASK, 1)


@pytest.mark.parametrize("name", [openvino.XML, openvino.BIN])
def test_a_file_cut_anywhere_is_refused(model: Path, name: str) -> None:
    whole = (model / name).read_bytes()
    for length in (0, 1, len(whole) // 3, len(whole) // 2, len(whole) - 8):
        (model / name).write_bytes(whole[:length])
        with pytest.raises(StageFailed, match="not a valid OpenVINO model"):
            openvino.load(model, TASK, 1)


def test_random_bytes_are_refused(model: Path) -> None:
    (model / openvino.XML).write_bytes(random.Random(0).randbytes(4096))
    with pytest.raises(StageFailed, match="not a valid OpenVINO model"):
        openvino.load(model, TASK, 1)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('<?xml version="1.0"?>', '<?xml version="1.0"?><!DOCTYPE net [<!ENTITY a "b">]>', "DOCTYPE"),
        ('<?xml version="1.0"?>', '<?xml version="1.0"?><!DOCTYPE net SYSTEM "file:///etc/passwd">', "DOCTYPE"),
        ('offset="0"', 'offset="-64"', "offset -64"),
        ('offset="0"', 'offset="99999999999"', "it was cut"),
        ('offset="0"', 'offset="zero"', "invalid literal"),
        ('type="MatMul"', 'type="Backdoor"', "not a valid"),
        ("50, 64", "50, 63", "not a valid"),
        ('from-layer="0"', 'from-layer="999"', "not a valid"),
        ("<net ", "<nut ", "root is nut"),
    ],
)
def test_xml_that_lies_is_refused(model: Path, old: str, new: str, says: str) -> None:
    text = (model / openvino.XML).read_text(encoding="utf-8")
    assert old in text
    (model / openvino.XML).write_text(text.replace(old, new).replace("</nut", "</net"), encoding="utf-8")
    with pytest.raises(StageFailed, match=says) as caught:
        openvino.load(model, TASK, 1)
    assert "not a valid OpenVINO model" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_xml_of_absurd_size_is_not_even_read(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino, "MAX_XML", 1000)
    with pytest.raises(StageFailed, match="more than 1000"):
        openvino.load(model, TASK, 1)


def test_what_was_converted_before_does_not_show(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        openvino.write(build(), tmp_path / name)
        build(), build()
    assert digest_tree(tmp_path / "one") == digest_tree(tmp_path / "two")
    text = (tmp_path / "one" / openvino.XML).read_text(encoding="utf-8")
    assert "rt_info" not in text
    assert openvino.runtime().get_version() not in text


def test_half_weights_are_half_the_size(tmp_path: Path) -> None:
    for name in ("whole", "half"):
        (tmp_path / name).mkdir()
        openvino.write(build(), tmp_path / name, half=name == "half")
    whole, half = ((tmp_path / name / openvino.BIN).stat().st_size for name in ("whole", "half"))
    assert half < 0.52 * whole
    answers = [openvino.load(tmp_path / name, TASK, 1)(BATCH)["end_logits"] for name in ("whole", "half")]
    np.testing.assert_allclose(*answers, atol=0.05)


def test_importing_openvino_tells_nobody(tmp_path: Path) -> None:
    """Without the guard, the import makes an identity for this machine under the home directory and sends it off."""
    script = """
        import socket, sys, threading
        def refuse(*args, **kwargs):
            print("NETWORK", args, flush=True)
            raise OSError("no network")
        socket.socket.connect = socket.getaddrinfo = socket.create_connection = refuse
        from cpu_pipeline.backends import openvino
        ov = openvino.runtime()
        import nncf
        from openvino.tools.ovc import telemetry
        telemetry.send_event("a", "b", "c")
        assert not [name for name, module in sys.modules.items() if "openvino_telemetry" in name and module]
    """
    env = {key: value for key, value in os.environ.items() if key not in {"CI", "NNCF_CI", "TF_BUILD", "JENKINS_URL"}}
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env={**env, "HOME": str(tmp_path), "PYTHONPATH": str(Path(openvino.__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert "NETWORK" not in ran.stdout
    assert not (tmp_path / "intel").exists()
