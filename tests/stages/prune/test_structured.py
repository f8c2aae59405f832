"""A pruned checkpoint is smaller, answers as one does that was cut by hand, and goes through every exporter."""

from __future__ import annotations

import copy
import importlib
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
import torch
import transformers
from pydantic import ValidationError
from safetensors.torch import load_file

from cpu_pipeline.backends import _structure, fastpath, hf
from cpu_pipeline.core.artifact import Artifact, digest_tree
from cpu_pipeline.core.errors import RecipeError, StageFailed
from cpu_pipeline.core.figures import Note, Table
from cpu_pipeline.runtime import parity
from cpu_pipeline.stages._base import Job, stored_facts
from cpu_pipeline.stages._checkpoint import save
from cpu_pipeline.stages.prune import _choice, _repair
from cpu_pipeline.stages.prune.importance import PruneImportance
from cpu_pipeline.stages.prune.structured import PruneStructured, StructuredFacts

Jobs = Callable[..., Job]
Built = Callable[..., Artifact]
Pruned = Callable[..., tuple[Artifact, StructuredFacts]]
TASK = "text-classification"
TASKS = ["question-answering", TASK, "token-classification", "sentence-similarity"]


@pytest.fixture(scope="session")
def pruned(job: Jobs, checkpoint: Built, tmp_path_factory: pytest.TempPathFactory) -> Pruned:
    """Give a checkpoint of a kind and task with half of its multiply-adds, made once for equal options."""

    @cache
    def give(kind: str, task: str, share: float = 0.5, **options: Any) -> tuple[Artifact, StructuredFacts]:
        folder = tmp_path_factory.mktemp("pruned")
        (folder / "importance").mkdir()
        (folder / "out").mkdir()
        made = job(task, data={"training": models.write_rows(folder / "rows.jsonl", task, 24 if task != TASK else 150)})
        model = checkpoint(kind, task)
        PruneImportance().run({"model": model}, folder / "importance", made)
        target = options.pop("of", "macs")
        given = {"tile": 16, "target": {target: share}, "length": 16, **options}
        inputs = {"model": model, "importance": Artifact("report", folder / "importance", "", {})}
        facts = PruneStructured(**given).run(inputs, folder / "out", made)
        return Artifact("hf", folder / "out", "", stored_facts(facts)), facts

    return give


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert"])
def test_what_is_written_is_what_is_loaded(pruned: Pruned, job: Jobs, kind: str, task: str) -> None:
    artifact, facts = pruned(kind, task)
    assert 0.35 < facts.kept <= 0.5 and facts.macs == facts.kept
    model = hf.checkpoint(artifact.path, job(task).task)
    widths = _structure.widths_of(model)
    assert [(w.heads, w.neurons) for w in widths] == [(layer.heads, layer.neurons) for layer in facts.layers]
    assert all(layer.neurons % 16 == 0 for layer in facts.layers)
    stored = load_file(artifact.path / "model.safetensors")
    own = {n: v for n, v in model.state_dict().items() if n in stored}
    assert own.keys() == stored.keys() and all(torch.equal(own[n], stored[n]) for n in own)
    assert facts.structure == (artifact.path / "structure.json").is_file()


@pytest.mark.parametrize("kind", ["bert", "distilbert"])
def test_repair_brings_answers_back(pruned: Pruned, checkpoint: Built, job: Jobs, kind: str) -> None:
    task: Any = job(TASK).task
    whole = hf.load(checkpoint(kind, TASK).path, task, 1)
    rows = models.rows(TASK, 64, 7)
    features = task.encode(rows, checkpoint(kind, TASK).path)
    gaps = []
    for tokens in (0, 4000):
        artifact, facts = pruned(kind, TASK, 0.6, repair_tokens=tokens)
        session = hf.load(artifact.path, task, 1)
        kinds = task.input_kinds(artifact.path)
        found = parity.compare(session, whole, [[feature] for feature in features], kinds, False)
        gaps.append(found["mean_abs"] if "mean_abs" in found else found["max_abs"])
        assert len(facts.repaired) == (2 if tokens else 0)
        assert all(0 <= value < 1 for value in facts.repaired)
    assert gaps[1] < 0.9 * gaps[0]


def test_repair_of_what_was_not_cut_changes_nothing(checkpoint: Built, job: Jobs) -> None:
    task: Any = job(TASK).task
    model = hf.checkpoint(checkpoint("bert", TASK).path, task)
    same = copy.deepcopy(model)
    ids = torch.arange(40).reshape(4, 10)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}
    _repair.repair(model, same, [batch], lambda *_: None)
    for (name, old), new in zip(model.state_dict().items(), same.state_dict().values(), strict=True):
        torch.testing.assert_close(old, new, rtol=0, atol=1e-4, msg=name)


def test_repair_is_least_squares() -> None:
    """With little ridge beside many tokens, what is missing of a linear map is found again."""
    generator = torch.Generator().manual_seed(0)
    linear = torch.nn.Linear(6, 4)
    wanted = torch.nn.Linear(6, 4)
    inputs = torch.randn(4000, 6, generator=generator)
    equations = _repair._Equations(linear)
    with torch.no_grad():
        equations.add(inputs, wanted(inputs))
        before, after = equations.solve()
    assert after < 0.01 * before
    torch.testing.assert_close(linear.weight, wanted.weight, rtol=0, atol=0.02)


def _built(folder: Path, stage: str, artifact: Artifact, made: Job, **options: Any) -> Artifact:
    group, _, name = stage.partition(".")
    module = importlib.import_module(f"cpu_pipeline.stages.{group}.{name}")
    cls = getattr(module, group.title() + name.title())(**options)
    out = folder / f"{group}-{name}"
    out.mkdir(parents=True)
    facts = cls.run({"model": artifact}, out, made)
    return Artifact(cls.gives(), out, "", stored_facts(facts))


@pytest.mark.parametrize(
    ("kind", "task"), [("bert", "question-answering"), ("distilbert", TASK), ("roberta", "sentence-similarity")]
)
def test_every_backend_takes_it(pruned: Pruned, job: Jobs, tmp_path: Path, kind: str, task: str) -> None:
    """Each stage compares its answers with eager torch itself, padded and at several lengths, and fails otherwise."""
    artifact, facts = pruned(kind, task)
    assert facts.structure
    made = job(task)
    onnx = _built(tmp_path, "export.onnx", artifact, made)
    fused = _built(tmp_path, "fuse.onnx", onnx, made)
    assert fused.facts["Attention"] == fused.facts["attention_expected"] == 2
    _built(tmp_path, "quantize.onnx", fused, made, per_channel=True)
    _built(tmp_path, "export.openvino", artifact, made)
    _built(tmp_path, "export.torchscript", artifact, made)
    packed = _built(tmp_path, "compile.fastpath", artifact, made)
    assert fastpath.load(packed.path, made.task, 1)


def test_a_layer_of_one_head_is_no_attention_to_fuse(checkpoint: Built, job: Jobs, tmp_path: Path) -> None:
    made, source = job(TASK), checkpoint("bert", TASK).path
    task: Any = made.task
    model = hf.checkpoint(source, task)
    _structure.cut(model, [range(1), range(3)], [range(32), range(64)])
    cut = tmp_path / "cut"
    cut.mkdir()
    save(model, task, source, cut)
    _structure.write(cut, _structure.widths_of(model))
    onnx = _built(tmp_path, "export.onnx", Artifact("hf", cut, "", {}), made)
    fused = _built(tmp_path, "fuse.onnx", onnx, made)
    assert fused.facts["attention_expected"] == fused.facts["Attention"] == 1


def test_the_nested_fast_path_says_that_it_cannot(pruned: Pruned, job: Jobs, tmp_path: Path) -> None:
    artifact, _ = pruned("bert", TASK)
    with pytest.raises(StageFailed, match="use `packed`"):
        _built(tmp_path, "compile.fastpath", artifact, job(TASK), implementation="nested")


def test_equal_widths_are_a_plain_checkpoint(pruned: Pruned, job: Jobs, tmp_path: Path) -> None:
    """Where config.json can say the widths, transformers alone loads the checkpoint."""
    artifact, _ = pruned("bert", TASK)
    out = tmp_path / "equal"
    out.mkdir()
    model = hf.checkpoint(artifact.path, job(TASK).task)
    before = [_structure.Width(4, 64)] * 2
    (out / "config.json").write_bytes((artifact.path / "config.json").read_bytes())
    from cpu_pipeline.stages.prune.structured import _says_config

    assert not _says_config(out, before, [_structure.Width(3, 32)] * 2)
    assert not _says_config(out, before, [_structure.Width(4, 32), _structure.Width(4, 48)])
    assert _says_config(out, before, [_structure.Width(4, 32)] * 2)
    config = transformers.AutoConfig.from_pretrained(out)
    assert config.intermediate_size == 32 and model.config.intermediate_size == 64


def test_another_head_reads_the_same_encoder(pruned: Pruned) -> None:
    artifact, _ = pruned("bert", TASK)
    bare = hf.checkpoint(artifact.path, None)
    headed = hf.checkpoint(
        artifact.path, importlib.import_module("cpu_pipeline.tasks.text_classification").TextClassification()
    )
    ids = torch.arange(12)[None]
    with torch.no_grad():
        ours = bare(input_ids=ids).last_hidden_state
        theirs = headed.base_model(input_ids=ids).last_hidden_state
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not valid"),
        ('{"layers": []}', "needs a head"),
        ('{"layers": [{"heads": 1, "neurons": 0}]}', "needs a head"),
        ('{"layers": [{"heads": 1, "neurons": 16}]}', "does not fit config.json"),
        ('{"layers": [{"heads": 9, "neurons": 16}, {"heads": 1, "neurons": 16}]}', "does not fit config.json"),
        ('{"layers": [{"heads": 1, "neurons": 16}, {"heads": 1, "neurons": 16}]}', "the shape of"),
    ],
)
def test_a_wrong_structure_is_refused(pruned: Pruned, tmp_path: Path, text: str, says: str) -> None:
    artifact, _ = pruned("bert", TASK)
    for file in artifact.path.iterdir():
        if file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "structure.json").write_text(text, encoding="utf-8")
    task = importlib.import_module("cpu_pipeline.tasks.text_classification").TextClassification()
    with pytest.raises(StageFailed, match=says):
        hf.checkpoint(tmp_path, task)


def test_equal_inputs_give_equal_bytes(pruned: Pruned) -> None:
    first, _ = pruned("bert", TASK)
    again, _ = pruned("bert", TASK, 0.5, seed=1)
    assert digest_tree(first.path) == digest_tree(again.path)


def test_the_choice_is_the_best_within_the_budget() -> None:
    """Compared with every combination."""
    random = np.random.default_rng(0)
    groups = []
    for _ in range(4):
        losses = np.sort(random.random(4))[::-1].copy()
        losses[-1] = 0
        groups.append(_choice.Group([1, 2, 3, 4], [1.0, 2.0, 3.0, 4.0], losses.tolist()))
    for budget in (4.0, 7.0, 10.0, 16.0):
        chosen = _choice.choose(groups, budget)
        assert chosen is not None and sum(chosen) <= budget
        lost = sum(group.losses[count - 1] for group, count in zip(groups, chosen, strict=True))
        best = min(
            sum(g.losses[c - 1] for g, c in zip(groups, counts, strict=True))
            for counts in np.ndindex(4, 4, 4, 4)
            if sum(c + 1 for c in counts) <= budget
            for counts in [[c + 1 for c in counts]]
        )
        assert lost == pytest.approx(best)
    assert _choice.choose(groups, 3.9) is None


def test_a_target_out_of_reach_says_what_can_be_had(pruned: Pruned) -> None:
    with pytest.raises(RecipeError, match=r"out of reach: 2 heads and one tile .* are 0\."):
        pruned("bert", TASK, 0.05)


def test_weights_can_be_the_budget(pruned: Pruned) -> None:
    _, facts = pruned("bert", TASK, 0.6, of="parameters")
    assert facts.target == "parameters" and 0.45 < facts.kept == facts.parameters <= 0.6


@pytest.mark.parametrize("target", [{"macs": 0}, {"macs": 1.5}, {}, {"macs": 0.5, "parameters": 0.5}, {"speed": 1}])
def test_targets_are_one_share(target: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        PruneStructured(target=target)


def test_the_report_shows_what_is_left(pruned: Pruned) -> None:
    _, facts = pruned("bert", TASK)
    note, table = PruneStructured().details(facts)
    assert isinstance(note, Note) and "of multiply-adds" in note.text and json.dumps(stored_facts(facts))
    assert isinstance(table, Table) and list(table.rows) == ["layer 0", "layer 1"]
