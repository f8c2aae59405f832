"""compile.fastpath: a checkpoint in its dtype, compared with eager torch, the same bytes every time."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import models
import pytest
import torch
import transformers
from safetensors.torch import load_file

from cpu_pipeline.backends import _packed, fastpath, hf
from cpu_pipeline.core.artifact import Artifact, Card, digest_tree
from cpu_pipeline.core.errors import RecipeError, StageFailed
from cpu_pipeline.stages._base import Job
from cpu_pipeline.stages.compile.fastpath import CompileFastpath

Built = Callable[..., Artifact]
QA = "question-answering"
CASES = [
    ("bert", QA),
    ("bert", "text-classification"),
    ("roberta", "text-classification"),
    ("roberta", QA),
    ("distilbert", "token-classification"),
    ("minilm", "sentence-similarity"),
]


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The PyTorch API of nested tensors")
        yield


def family(out: Path, kind: str, **settings: Any) -> Artifact:
    """Make a tiny checkpoint of another architecture, for question answering, with BERT's tokenizer."""
    models.make("bert", out)
    said = {"vocab_size": 200, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4} | settings
    config = getattr(transformers, f"{kind}Config")(**said, intermediate_size=64)
    model = getattr(transformers, f"{kind}ForQuestionAnswering")(config)
    models.fill(model, 0)
    model.save_pretrained(out)
    return Artifact("hf", out, "", {})


@pytest.mark.parametrize("options", [{}, {"implementation": "nested"}])
@pytest.mark.parametrize(("kind", "task"), CASES)
def test_answers_as_eager_torch_does(
    checkpoint: Built, job: Callable[..., Job], out: Path, kind: str, task: str, options: dict[str, str]
) -> None:
    facts = CompileFastpath(**options).run({"model": checkpoint(kind, task)}, out, job(task))
    parity = facts.parity
    assert parity.max_abs < 1e-5 and parity.nonfinite == 0 and parity.same_top == 1.0
    assert {(4, 64), (1, 6)} <= set(parity.shapes)
    way = {"implementation": options.get("implementation", "packed"), "dtype": "float32"}
    assert Card.read(out, "fastpath") == Card("fastpath", runtime=way)
    assert facts.bytes == (out / fastpath.MODEL).stat().st_size
    assert {name: getattr(facts, name) for name in way} == way


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("Electra", {"embedding_size": 16}),
        ("Camembert", {"pad_token_id": 1, "type_vocab_size": 1}),
        ("XLMRoberta", {"pad_token_id": 1, "type_vocab_size": 1}),
    ],
)
def test_other_architectures_are_built(
    tmp_path: Path, job: Callable[..., Job], out: Path, kind: str, settings: dict[str, int]
) -> None:
    facts = CompileFastpath().run({"model": family(tmp_path / "model", kind, **settings)}, out, job(QA))
    assert facts.parity.max_abs < 1e-5


@pytest.mark.parametrize("task", models.HEADS)
def test_mpnet_is_built(tmp_path: Path, job: Callable[..., Job], out: Path, task: str) -> None:
    models.make("bert", tmp_path / "model", task)
    config = transformers.MPNetConfig(
        vocab_size=200, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, pad_token_id=1
    )
    model = getattr(transformers, f"MPNet{models.HEADS[task]}")(config)
    models.fill(model, 0)
    model.save_pretrained(tmp_path / "model")
    facts = CompileFastpath().run({"model": Artifact("hf", tmp_path / "model", "", {})}, out, job(task))
    assert facts.parity.max_abs < 1e-5


def test_bfloat16_is_stored_and_half_as_large(checkpoint: Built, job: Callable[..., Job], out: Path) -> None:
    source = checkpoint("roberta", QA)
    facts = CompileFastpath(dtype="bfloat16").run({"model": source}, out, job(QA))
    assert {value.dtype for value in load_file(out / fastpath.MODEL).values()} == {torch.bfloat16}
    assert facts.bytes < 0.6 * (source.path / "model.safetensors").stat().st_size
    assert 1e-3 < facts.parity.max_abs < 0.2
    assert Card.read(out, "fastpath").needs == (), "torch computes bfloat16 anywhere"


def test_the_artifact_is_a_whole_checkpoint(checkpoint: Built, job: Callable[..., Job], out: Path) -> None:
    source = checkpoint("minilm", "sentence-similarity")
    CompileFastpath().run({"model": source}, out, job("sentence-similarity"))
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "modules.json", "1_Pooling/config.json"):
        assert (out / name).read_bytes() == (source.path / name).read_bytes()
    assert not any(name.startswith("pooler.") for name in load_file(out / fastpath.MODEL))
    weights = hf.checkpoint(out, job("sentence-similarity").task).state_dict()
    original = hf.checkpoint(source.path, job("sentence-similarity").task).state_dict()
    assert all(weights[name].equal(value) for name, value in original.items() if not name.startswith("pooler."))


def test_equal_inputs_give_equal_bytes(checkpoint: Built, job: Callable[..., Job], tmp_path: Path) -> None:
    source = checkpoint("bert", QA)
    before = digest_tree(source.path)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        CompileFastpath().run({"model": source}, tmp_path / name, job(QA))
    assert digest_tree(tmp_path / "one") == digest_tree(tmp_path / "two")
    assert digest_tree(source.path) == before


def test_a_difference_fails_the_stage(
    checkpoint: Built, job: Callable[..., Job], out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = _packed.Layout.of
    # The tokens of two sequences change places: what packing gets wrong when it gets something wrong.
    monkeypatch.setattr(
        _packed.Layout, "of", lambda lengths, width: of([*lengths[:-1], max(1, lengths[-1] - 1)], width)
    )
    with pytest.raises(StageFailed, match=r"compile\.fastpath: answers differ from the original by up to"):
        CompileFastpath().run({"model": checkpoint("bert", QA)}, out, job(QA))


def test_tolerance_is_kept(checkpoint: Built, job: Callable[..., Job], out: Path) -> None:
    with pytest.raises(StageFailed, match="1e-05 is allowed"):
        CompileFastpath(dtype="bfloat16", tolerance=1e-5).run({"model": checkpoint("bert", QA)}, out, job(QA))


def test_a_recipe_without_a_task_is_wrong(checkpoint: Built, job: Callable[..., Job], out: Path) -> None:
    with pytest.raises(RecipeError, match="names no task"):
        CompileFastpath().run({"model": checkpoint("bert", QA)}, out, job(QA, task=None))


@pytest.mark.parametrize(
    ("kind", "settings", "options", "says"),
    [
        (
            "XLMRobertaXL",
            {"pad_token_id": 1},
            {},
            "a xlm-roberta-xl; encoders .* are bert, camembert, .*xlm-roberta$",
        ),
        ("Bert", {"is_decoder": True}, {}, "config.json sets is_decoder"),
        ("Bert", {"position_embedding_type": "relative_key"}, {}, "relative_key; only absolute"),
        ("Bert", {"hidden_act": "gelu_new"}, {"implementation": "nested"}, "uses gelu_new; use `packed`"),
    ],
)
def test_models_that_do_not_fit_are_refused(
    tmp_path: Path,
    job: Callable[..., Job],
    out: Path,
    kind: str,
    settings: dict[str, Any],
    options: dict[str, str],
    says: str,
) -> None:
    with pytest.raises(StageFailed, match=says):
        CompileFastpath(**options).run({"model": family(tmp_path / "model", kind, **settings)}, out, job(QA))
    assert not list(out.iterdir()), "nothing is written of what is refused"


def test_promises_to_the_engine() -> None:
    stage = CompileFastpath()
    assert stage.gives() == "fastpath" and stage.backends({"model": "hf"}) == {"hf", "fastpath"}
    assert json.loads(stage.model_dump_json()) == {"implementation": "packed", "dtype": "float32", "tolerance": None}
