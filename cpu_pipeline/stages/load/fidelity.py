"""The reference itself is checked: a sample of the rows, read and answered by us and by transformers' own code."""

from __future__ import annotations

import inspect
import json
import tempfile
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from cpu_pipeline.backends import hf
from cpu_pipeline.core.artifact import Artifact
from cpu_pipeline.core.errors import RecipeError, StageFailed
from cpu_pipeline.core.text import one_line
from cpu_pipeline.runtime.batching import answer
from cpu_pipeline.stages._base import Count, Facts, Inputs, Job, Role, Stage
from cpu_pipeline.stages.load import _configs, _encodings, _files, _official
from cpu_pipeline.stages.load._autotokenizer import FAST, load_official, quiet
from cpu_pipeline.stages.load._official._base import Asked, close, furthest

if TYPE_CHECKING:
    from cpu_pipeline.core.model_io import Arrays
    from cpu_pipeline.tasks._base import Feature, Row, Task

REPORT = "fidelity.json"
ROWS = 32
"""Rows of the sample."""
FROM: tuple[Role, ...] = ("validation", "calibration")
"""The roles that the sample is taken from."""
BATCH = 8
GOLD = frozenset({"answers", "label", "labels", "score", "tags"})
"""Columns that are no part of what a model reads."""
FAILURES = (RuntimeError, ValueError, IndexError, KeyError, TypeError, AttributeError)
"""What a model of transformers raises on inputs that it cannot take."""


class FidelityFacts(Facts):
    """What was compared, and found equal."""

    rows: dict[Role, Count]
    """Role -> rows of the sample."""
    inputs: Count
    """Inputs that were compared with those of transformers' tokenizer or processor; 0 where it has none here."""
    answers: Count
    """Inputs whose outputs were compared with those of transformers' model; 0 for exported models."""


@dataclass(frozen=True)
class _Sample:
    """Rows without what they are scored by, and where each is from."""

    rows: list[Row]
    roles: list[Role]

    def name(self, number: int) -> str:
        return f"row {self.rows[number]['id']!r} of data.{self.roles[number]}"


class LoadFidelity(Stage):
    """Compare our inputs and answers for a sample of the rows with those of transformers itself, one row at a time."""

    takes: ClassVar[Mapping[str, Set[str]]] = {
        "model": frozenset({"hf", "onnx", "openvino"}), "files": {"files"}, "tokenizer": {"files"},
    }  # fmt: skip
    optional: ClassVar[Set[str]] = frozenset({"tokenizer"})
    reads: ClassVar[Set[str]] = frozenset({"task", "allow", *(f"data.{role}?" for role in FROM)})
    packages: ClassVar[tuple[str, ...]] = ("tokenizers", "torch", "transformers")
    internal: ClassVar[bool] = True
    facts_model: ClassVar = FidelityFacts

    def gives(self) -> str:
        """Return `report`."""
        return "report"

    def backends(self, formats: Mapping[str, str]) -> Set[str]:
        """Name that of a checkpoint; exported models are not run, for transformers cannot."""
        return {"hf"} & {formats["model"]}

    def run(self, inputs: Inputs, out: Path, job: Job) -> FidelityFacts:
        """Write fidelity.json: what was compared, and found equal.

        Raises:
            RecipeError: inputs or answers differ; names the row, what differs, and the setting.
        """
        if job.task is None:
            raise StageFailed("comparing answers needs the recipe's task")
        sample, model = _sample(job.task, job.data), inputs["model"]
        features = job.task.encode(sample.rows, model.path)
        with tempfile.TemporaryDirectory() as folder:
            original = _original(inputs, Path(folder), job.allow)
            asked = _ask(job.task, sample, original, model.path)
            compared = 0 if asked is None else _compare_inputs(sample, features, asked, original, model.path)
            asked = [Asked(feature.row, feature.inputs) for feature in features] if asked is None else asked
            answers = 0
            if model.format == "hf":
                answers = _compare_answers(job, model, sample, features, asked, original)
        counts = {role: sample.roles.count(role) for role in FROM if role in sample.roles}
        facts = FidelityFacts(rows=counts, inputs=compared, answers=answers)
        (out / REPORT).write_text(json.dumps(facts.model_dump(), indent=1, sort_keys=True) + "\n", encoding="utf-8")
        return facts


def _sample(task: Task, data: Mapping[str, Path]) -> _Sample:
    """Take rows at even distances, as many of each role."""
    roles = [role for role in FROM if role in data]
    sample = _Sample([], [])
    for role in roles:
        rows = task.read_rows(data[role])
        wanted = min(ROWS // len(roles), len(rows))
        for row in (rows[i * len(rows) // wanted] for i in range(wanted)):
            sample.rows.append({key: value for key, value in row.items() if key not in GOLD})
            sample.roles.append(role)
    return sample


def _original(inputs: Inputs, folder: Path, allow: Set[str]) -> Path:
    """Lay out the model as it was fetched: its configurations screened, its weights those that `load.model` checked."""
    _files.collect(inputs["files"], inputs.get("tokenizer"), folder, weights=False)
    _configs.screen(folder, allow)
    built = inputs["model"].path
    for path in built.rglob("*"):
        name = path.relative_to(built)
        if _files.is_weights(path.name) and path.is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).symlink_to(path)
    return folder


def _ask(task: Task, sample: _Sample, original: Path, built: Path) -> list[Asked] | None:
    """Make the official inputs; None where transformers has no way of its own here."""
    official = _official.of(task)
    if official is None:
        return None
    try:
        return official.encode(task, sample.rows, original, built)
    except ImportError:  # a processor that needs torchvision or torchaudio
        return None


def _compare_inputs(
    sample: _Sample, features: Sequence[Feature], asked: Sequence[Asked], original: Path, built: Path
) -> int:
    for number, theirs in _by_row(asked).items():
        ours = [feature for feature in features if feature.row == number]
        found = f"{len(ours)} inputs, and {len(theirs)} with transformers" if len(ours) != len(theirs) else None
        for mine, other in zip(ours, theirs, strict=False):
            found = found or _apart(mine.inputs, other.inputs, built)
        if found is not None:
            tokenizer = load_official(original) if (built / FAST).is_file() else None
            why = _encodings.blame(built, tokenizer, found) if tokenizer is not None else ""
            raise RecipeError(
                f"{sample.name(number)} is not read as transformers reads it: {found}{why}; {_encodings.ADVICE}"
            )
    return len(asked)


def _apart(ours: Mapping[str, Any], official: Mapping[str, Any], built: Path) -> str | None:
    """Say how two inputs differ; None where they do not."""
    if "input_ids" in official:
        case = _encodings.Case("", _encodings.Encoded(ours), _encodings.Encoded(official))
        return _encodings.difference(case, built)
    for name, value in official.items():
        if name not in ours:
            return f"transformers gives {name}, and we leave it out"
        if not close(ours[name], value):
            return f"{name} is {furthest(ours[name], value)}"
    return None


def _compare_answers(
    job: Job, model: Artifact, sample: _Sample, features: Sequence[Feature], asked: Sequence[Asked], original: Path
) -> int:
    task = job.task
    assert task is not None  # `run` has seen to it
    ours = answer(job.load(model), features, task, task.input_kinds(model.path), BATCH)
    predictions = task.decode(sample.rows, features, ours, model.path)
    module = _load(task, original)
    official = _official.of(task)
    count = 0
    for number, theirs in _by_row(asked).items():
        outputs = [_run(module, one.inputs, task, sample.name(number)) for one in theirs]
        mine = [out for feature, out in zip(features, ours, strict=True) if feature.row == number]
        found = next(filter(None, map(_outputs_apart, mine, outputs)), None)
        if found is None and official is not None:
            found = official.judge(task, sample.rows[number], theirs, outputs, predictions[number], module.config)
        if found is not None:
            raise RecipeError(
                f"{sample.name(number)} is not answered as transformers answers it, by itself and without padding: "
                f"{found}; report this with the model's config.json"
            )
        count += len(theirs)
    return count


def _load(task: Task, original: Path) -> Any:
    """Load the model as its documentation has it."""
    import torch
    import transformers

    try:
        with quiet():
            model = getattr(transformers, hf.class_for(original, task)).from_pretrained(
                str(original),
                dtype=torch.float32,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
            )
    except FAILURES as error:
        raise StageFailed(f"transformers cannot load the model as it was fetched: {one_line(error)}") from error
    return model.eval()


def _run(module: Any, inputs: Mapping[str, Any], task: Task, name: str) -> Arrays:
    """Run the official model on one input alone."""
    import numpy as np
    import torch

    known = inspect.signature(module.forward).parameters
    tensors = {key: torch.from_numpy(np.asarray(value))[None] for key, value in inputs.items() if key in known}
    try:
        with torch.inference_mode():
            answered = hf.outputs_of(module(**tensors), task.outputs)
    except FAILURES as error:
        raise RecipeError(f"{name}: transformers itself cannot answer it: {one_line(error)}; remove the row") from error
    return {key: value[0].float().numpy() for key, value in answered.items()}


def _outputs_apart(ours: Arrays, official: Arrays) -> str | None:
    return next(
        (f"{key} is {furthest(ours[key], value)}" for key, value in official.items() if not close(ours[key], value)),
        None,
    )


def _by_row(asked: Sequence[Asked]) -> dict[int, list[Asked]]:
    found: dict[int, list[Asked]] = {}
    for one in asked:
        found.setdefault(one.row, []).append(one)
    return found
