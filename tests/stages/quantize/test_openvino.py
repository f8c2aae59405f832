"""Integers where integers were asked for, the same ones every time, close to the float model, and refused where not."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import models
import pytest
from pydantic import ValidationError

from cpu_pipeline.backends import openvino
from cpu_pipeline.core import host
from cpu_pipeline.core.artifact import Artifact, Card, digest_tree
from cpu_pipeline.core.errors import BackendMissing, RecipeError, StageFailed
from cpu_pipeline.core.model_io import TOKENS
from cpu_pipeline.runtime import parity
from cpu_pipeline.stages._base import Job, stored_facts
from cpu_pipeline.stages.export.openvino import ExportOpenvino
from cpu_pipeline.stages.quantize import openvino as quantize
from cpu_pipeline.stages.quantize.openvino import QuantizeOpenvino
from cpu_pipeline.tasks._synthetic import tokens
from cpu_pipeline.tasks.question_answering import QuestionAnswering

TASK = QuestionAnswering(max_seq_length=64, doc_stride=16)
VNNI = ("x86_64", "avx2", "avx512f", "avx512_vnni")
NO_VNNI = ("x86_64", "avx2")


def job(folder: Path) -> Job:
    return Job(
        load=lambda artifact: openvino.load(artifact.path, TASK, 1),
        timer=lambda _: pytest.fail("nothing is timed here"),
        task=TASK,
        data={"calibration": folder / "rows.jsonl"},
        threads=1,
        isa=VNNI,
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Hold a float model in `float`, made from a tiny BERT, and calibration rows beside it."""
    folder = tmp_path_factory.mktemp("made")
    models.make("bert", folder / "hf", hidden_size=64, intermediate_size=128, num_hidden_layers=1)
    models.write_rows(folder / "rows.jsonl", "question-answering", 12)
    (folder / "float").mkdir()
    ExportOpenvino().run({"model": Artifact("hf", folder / "hf", "", {})}, folder / "float", job(folder))
    return folder


@pytest.fixture(autouse=True)
def _capable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the machine have VNNI, whatever runs the tests: a few sums do not overflow."""
    monkeypatch.setattr(host, "isa", lambda: VNNI)


def run(made: Path, out: Path, job_: Job | None = None, **options: Any) -> Any:
    out.mkdir(parents=True)
    given = {"model": Artifact("openvino", made / "float", "", {})}
    return QuantizeOpenvino(**options).run(given, out, job_ or job(made))


def distance(made: Path, out: Path) -> Any:
    """Compare with the float model."""
    candidate, reference = (openvino.load(folder, TASK, 1) for folder in (out, made / "float"))
    return parity.compare(candidate, reference, tokens(made / "hf"), TOKENS, True)


def test_the_whole_model_becomes_integer(made: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    facts = run(made, tmp_path / "out", subset=8)
    assert capfd.readouterr().out == ""
    features = TASK.encode(models.rows("question-answering", 12), made / "hf")
    chosen = [features[i * len(features) // 8] for i in range(8)]
    assert stored_facts(facts.calibration) == {
        "rows": 12,
        "rows_used": len({feature.row for feature in chosen}),
        "samples": 8,
        "tokens": sum(len(feature.inputs["input_ids"]) for feature in chosen),
    }
    assert len({feature.row for feature in chosen}) > 5
    # The layer's six linear layers and the head.
    assert facts.int8_constants_by_operation["MatMul"] == 7
    assert facts.int8_constants == sum(facts.int8_constants_by_operation.values())
    assert facts.fake_quantize > 4
    assert facts.bytes < 0.8 * facts.bytes_before
    assert facts.bytes == sum((tmp_path / "out" / name).stat().st_size for name in (openvino.XML, openvino.BIN))
    assert {"config.json", "tokenizer.json", "cpu_pipeline.json"} <= {
        path.name for path in (tmp_path / "out").iterdir()
    }
    seen = distance(made, tmp_path / "out")
    assert seen["nonfinite"] == 0
    assert seen["max_abs"] > 1e-4
    assert seen["cosine_mean"] > 0.95


def test_weights_alone_need_no_data(made: Path, tmp_path: Path) -> None:
    facts = run(made, tmp_path / "out", replace(job(made), data={}, task=None), mode="weights")
    assert "calibration" not in stored_facts(facts)
    assert facts.fake_quantize == 0
    assert facts.int8_constants_by_operation["MatMul"] == 7
    assert Card.read(tmp_path / "out", "openvino").needs == ()
    assert QuantizeOpenvino(mode="weights").host() == "none"
    assert distance(made, tmp_path / "out")["cosine_min"] > 0.99


@pytest.mark.parametrize(
    ("isa", "option", "fix", "needs"),
    [
        (VNNI, "auto", "disable", (host.VNNI,)),
        (NO_VNNI, "auto", "enable", ()),
        (NO_VNNI, "disable", "disable", (host.VNNI,)),
        (VNNI, "enable", "enable", ()),
    ],
)
def test_the_target_decides_about_overflow(
    made: Path, tmp_path: Path, isa: tuple[str, ...], option: str, fix: str, needs: tuple[str, ...]
) -> None:
    facts = run(made, tmp_path / "out", replace(job(made), isa=isa), subset=2, overflow_fix=option)
    assert facts.overflow_fix == fix
    card = Card.read(tmp_path / "out", "openvino")
    assert card.needs == needs
    assert card.runtime == {"INFERENCE_PRECISION_HINT": "f32"}
    # Weights of half the range take values up to 64, others up to 127.
    assert (largest_weight(tmp_path / "out") > 70) == (fix == "disable")


def largest_weight(folder: Path) -> int:
    model = openvino.runtime().Core().read_model(folder / openvino.XML)
    found = [
        int(abs(node.get_data().astype("int32")).max())
        for node in model.get_ordered_ops()
        if node.get_type_name() == "Constant"
        and node.get_element_type().get_type_name() == "i8"
        and quantize._users(node) == {"MatMul"}
    ]
    return max(found)


def test_a_machine_that_overflows_does_not_calibrate(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "isa", lambda: NO_VNNI)
    with pytest.raises(BackendMissing, match="no VNNI"):
        run(made, tmp_path / "one", subset=2)
    facts = run(made, tmp_path / "two", replace(job(made), isa=NO_VNNI), subset=2)
    assert facts.overflow_fix == "enable"


def test_what_is_ignored_stays_float(made: Path, tmp_path: Path) -> None:
    name = "__module.qa_outputs/aten::linear/MatMul"
    facts = run(
        made,
        tmp_path / "out",
        subset=2,
        ignored_names=[name],
        ignored_types=["Gather"],
        ignored_patterns=[r"__module\.bert\.encoder\.layer\.0\.attention\."],
    )
    assert facts.int8_constants_by_operation == {"MatMul": 2}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            {"ignored_names": ["__module.qa_output/aten::linear/MatMul"]},
            "near it: __module.qa_outputs/aten::linear/MatMul",
        ),
        ({"ignored_types": ["Matmul"]}, "ignored_types: no operation is called 'Matmul'; near it: MatMul"),
        ({"ignored_patterns": [".*layer.9.*"]}, "ignored_patterns: no operation is called"),
    ],
)
def test_an_ignored_scope_that_names_nothing_is_refused(
    made: Path, tmp_path: Path, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(RecipeError, match=says):
        run(made, tmp_path / "out", **options)


def test_a_scope_that_ignores_everything_fails(made: Path, tmp_path: Path) -> None:
    for mode in ({"subset": 2}, {"mode": "weights"}):
        with pytest.raises(StageFailed, match="nothing was quantized"):
            run(made, tmp_path / str(mode), ignored_patterns=[".*"], **mode)


def test_no_rows_and_no_data_are_named(made: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"needs `data\.calibration`"):
        run(made, tmp_path / "one", replace(job(made), data={}))
    empty = tmp_path / "rows.jsonl"
    empty.touch()
    with pytest.raises(RecipeError, match="has no rows"):
        run(made, tmp_path / "two", replace(job(made), data={"calibration": empty}))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"smooth_quant_alpha": -0.5}, "0 to 1, or -1"),
        ({"ignored_patterns": ["("]}, "not a regular expression"),
        ({"mode": "weights", "subset": 3, "preset": "mixed"}, "preset, subset: no use"),
        ({"subset": 0}, "greater than or equal to 1"),
        ({"preset": "fast"}, "preset"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        QuantizeOpenvino(**options)


def test_options_reach_nncf(made: Path, tmp_path: Path) -> None:
    """Each option changes the weights or the ranges; the same options do not."""
    variants: dict[str, dict[str, Any]] = {
        "plain": {},
        "symmetric": {"preset": "performance"},
        "slow bias": {"fast_bias_correction": False},
        "no smoothing": {"smooth_quant_alpha": -1},
        "more rows": {"subset": 5},
        "percentiles": {"percentile": 95},
    }
    for name, options in variants.items():
        run(made, tmp_path / name, **{"subset": 3, **options})
    assert len({digest_tree(tmp_path / name) for name in variants}) == len(variants)


SCRIPT = """
import importlib.util, sys
from pathlib import Path
test, made, *outs = map(Path, sys.argv[1:])
sys.path[:0] = [str(test.parents[3]), str(test.parents[2])]
spec = importlib.util.spec_from_file_location("here", test)
here = importlib.util.module_from_spec(spec)
spec.loader.exec_module(here)
here.host.isa = lambda: here.VNNI
for out in outs:
    here.run(made, out, subset=3, fast_bias_correction=False)
"""


def test_two_processes_in_two_places_write_the_same_bytes(made: Path, tmp_path: Path) -> None:
    test = str(Path(__file__).resolve())
    (tmp_path / "a place").mkdir()
    for where, outs in ((tmp_path, ["one"]), (tmp_path / "a place", ["first", "two"])):
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, test, str(made), *outs],
            cwd=where,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout == ""
    assert digest_tree(tmp_path / "one") == digest_tree(tmp_path / "a place" / "two")
    assert "rt_info" not in (tmp_path / "one" / openvino.XML).read_text(encoding="utf-8")
    assert json.loads((tmp_path / "one" / "cpu_pipeline.json").read_text(encoding="utf-8"))["needs"] == [host.VNNI]
