"""Propose a first recipe: the task from the model's head, the columns from the rows, a pipeline that fits both."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cpu_pipeline import tasks
from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.core.files import temporary_folder
from cpu_pipeline.core.tables import Table
from cpu_pipeline.core.text import did_you_mean
from cpu_pipeline.recipe import package_data, pipelines
from cpu_pipeline.recipe.document import parse
from cpu_pipeline.recipe.reader import recipe_of
from cpu_pipeline.recipe.scaffold import columns as matching
from cpu_pipeline.recipe.scaffold import hub, local
from cpu_pipeline.recipe.scaffold.draft import Draft, Entry, Request
from cpu_pipeline.recipe.scaffold.text import flow, plain, render
from cpu_pipeline.tasks import _head, _tokens

CALIBRATE = 300
"""Rows to calibrate on."""
FEWEST = 100
"""Rows below which validate.accuracy decides only when told so."""
MEDIA = frozenset({"image-classification", "audio-classification"})
GATE = {"id": "accuracy", "use": "validate.accuracy", "from": {"reference": "model"},
        "with": {"max_drop": 0.01, "drop": "relative"}}  # fmt: skip
GATE_ABOUT = "its metric may fall by 1 % of the original's"
SPEED = {"id": "speed", "use": "validate.latency", "from": {"reference": "model"}, "with": {"min_speedup": 1}}
SCHEMA = "schema.json"


@dataclass(frozen=True)
class Proposal:
    """A recipe that was proposed."""

    text: str
    notes: tuple[str, ...]
    """What the user should look at."""
    outside: tuple[Path, ...]
    """Paths that lead out of the recipe's directory, to be allowed when it is run."""
    schema: Path | None
    """The file that the schema is to be written to; None where there is nothing to write."""


def propose(request: Request) -> Proposal:
    """Write a first recipe for a model.

    Raises:
        RecipeError: task, data or columns are unknown; the message names the option that sets them.
    """
    if request.task is not None and tasks.canonical(request.task) not in tasks.names():
        names = tasks.names()
        raise RecipeError(f"no task is called `{request.task}`{did_you_mean(request.task, names)}; "
                          f"there are: {', '.join(names)}")  # fmt: skip
    draft = _local_draft(request) if local.is_local(request.model) else _hub_draft(request)
    steps = _steps(draft, request)
    if draft.data:
        _allow_few_rows(draft, steps)
    schema, to_write = _schema(request.path)
    text = render(schema, [*_head_lines(draft, steps), *_step_lines(draft, steps)])
    recipe_of(parse(text, request.path))
    return Proposal(text, tuple(draft.notes), tuple(dict.fromkeys(draft.outside)), to_write)


# --- models


def _local_draft(request: Request) -> Draft:
    model = local.read_model(request.model)
    outside: list[Path] = []
    entry = local.model_entry(model, request.path, outside)
    rows = _local_rows(request)
    found = rows[0] if rows else None
    task = _task(request, model.config, "modules.json" in model.names, _card(model), found)
    draft = Draft(model.name, task, entry, model.format, outside=outside)
    draft.options = _limits(task, model.path)
    draft.metric = _usual_metric(task, model.config)
    if model.pickled:
        draft.allow = ["pickle"]
        draft.notes.append("its only weights are pickled, and a pickle can run code: `allow` in the recipe says so")
    _add_data(draft, request, model.config, rows)
    return draft


def _usual_metric(task: str, config: Mapping[str, Any]) -> str:
    """Name the metric that gates judge with a head like this; one that does not fit is for `check` to refuse."""
    kind = tasks.get(task)
    with temporary_folder() as folder:
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        try:
            return kind().metrics_of(folder)[0]
        except RecipeError:
            return kind.metrics[0]


def _card(model: local.ModelFolder) -> Mapping[str, Any]:
    readme = model.path / "README.md"
    return hub.card_head(readme.read_text(encoding="utf-8", errors="replace")) if readme.is_file() else {}


def _hub_draft(request: Request) -> Draft:
    repo = request.model
    revision = hub.commit(repo, "model", "main")
    config, card = hub.read_config(repo, revision), hub.read_card(repo, revision)
    rows = _local_rows(request)
    task = _task(request, config, hub.has_modules(repo, revision), card, rows[0] if rows else None)
    draft = Draft(repo, task, Entry({"hub": repo, "revision": revision}, hub.ABOUT))
    draft.metric = _usual_metric(task, config)
    if rows:
        _add_data(draft, request, config, rows)
    else:
        _add_hub_data(draft, request, config, request.data or hub.named_data(card, repo))
    return draft


def _task(
    request: Request, config: Mapping[str, Any], similar: bool, card: Mapping[str, Any], rows: local.RowsFile | None
) -> str:
    """Find the task: as told, by the head, by sentence-transformers' files, by the card, by the rows."""
    if request.task is not None:
        return tasks.canonical(request.task)
    tag = card.get("pipeline_tag")
    named = tasks.canonical(tag) if isinstance(tag, str) else ""
    found = (
        _head.task_of(config)
        or ("sentence-similarity" if similar else None)
        or (named if named in tasks.names() else None)
        or (matching.task_of(rows.table.columns, rows.rows) if rows is not None else None)
    )
    if found is None:
        raise RecipeError(
            f"{request.model}: neither config.json nor the card nor the rows tell the task; set it with --task: "
            f"{', '.join(tasks.names())}"
        )
    return found


def _limits(task: str, model: Path) -> dict[str, Any]:
    """Set the length of windows, where the model takes less than the task's usual one."""
    fields = tasks.get(task).model_fields
    limit = _tokens.positions(model) if "doc_stride" in fields else None
    if limit is None or limit >= fields["max_seq_length"].default:
        return {}
    return {"max_seq_length": limit, "doc_stride": limit // 3}


# --- rows


def _local_rows(request: Request) -> list[local.RowsFile]:
    """Open the rows of this machine: those to score, then those to calibrate on, where there are two files."""
    names = [request.data, request.calibration]
    if request.data is None or not (local.is_local(request.data) or Path(request.data).suffix):
        return []
    if (chosen := local.split_folder(request.data)) is not None:
        names = [str(chosen[0]), request.calibration or (str(chosen[1]) if chosen[1] is not None else None)]
    return [local.read_rows(name) for name in names if name is not None]


def _add_data(draft: Draft, request: Request, config: Mapping[str, Any], rows: Sequence[local.RowsFile]) -> None:
    if not rows:
        raise RecipeError(f"{request.model}: say which rows to score: `--data FILE` (.csv, .jsonl, .json, .parquet)")
    found = [_columns(draft.task, request, config, each.table, each.rows, str(each.path)) for each in rows]
    scored = rows[0].table.count
    needed = _calibrates(draft, request)
    more: dict[str, Any] = {}
    if needed and len(rows) == 1:
        take = max(1, min(CALIBRATE, scored // 4))
        sample = {"take": take, "seed": 0}
        draft.data["calibration"] = local.data_entry(
            rows[0], found[0], draft, request.path, f"{take} rows, spread over the file, that quantization may see",
            **sample,
        )  # fmt: skip
        more, scored = {"without": take, "seed": 0}, scored - take
    elif len(rows) > 1:
        take = min(CALIBRATE, rows[1].table.count)
        about = f"{take} of {rows[1].table.count} rows that quantization may see"
        sample = {"take": take, "seed": 0} if take < rows[1].table.count else {}
        draft.data["calibration"] = local.data_entry(rows[1], found[1], draft, request.path, about, **sample)
    about = f"{'the other ' if more else ''}{scored} rows that only the checks see"
    draft.data["validation"] = local.data_entry(rows[0], found[0], draft, request.path, about, **more)
    _note_version(draft, rows[0].rows, found[0])
    if 0 < scored < FEWEST:
        draft.changes["few"] = Entry({"min_rows": scored}, f"{scored} rows are few for a decision; bring more")


def _columns(
    task: str, request: Request, config: Mapping[str, Any], table: Table, rows: matching.Rows, where: str
) -> dict[str, str]:
    labels = list(map(str, (config.get("id2label") or {}).values()))
    if wrong := [name for name in request.columns.values() if name not in table.columns]:
        raise RecipeError(f"--column: {where} has no column `{wrong[0]}`{did_you_mean(wrong[0], table.columns)}")
    if wrong := [column for column in request.columns if column not in tasks.get(task).columns]:
        known = tasks.get(task).columns
        raise RecipeError(f"--column: {task} has no column `{wrong[0]}`{did_you_mean(wrong[0], known)}; "
                          f"it has {', '.join(known)}")  # fmt: skip
    found = matching.match(task, table.columns, rows, labels, request.columns)
    matching.require(task, found, table.columns, where)
    return found


def _note_version(draft: Draft, rows: matching.Rows, found: Mapping[str, str]) -> None:
    """Say which version of SQuAD the rows are of: in the second, some have no answer."""
    if draft.task != "question-answering":
        return
    answers = [row.get(found["answers"]) for row in rows]
    empty = any(not (a.get("text") if isinstance(a, Mapping) else a) for a in answers)
    draft.options["version"] = 2 if empty else 1


def _add_hub_data(draft: Draft, request: Request, config: Mapping[str, Any], repo: str) -> None:
    revision = hub.commit(repo, "data", "main")
    scored, train = hub.splits(repo, revision)
    table = hub.open_split(repo, revision, scored)
    found = _columns(draft.task, request, config, table, local.peek(table), repo)
    renamed = {column: name for column, name in found.items() if column != name}
    source = {"hub": repo, "revision": revision}
    more = {"columns": renamed} if renamed else {}
    if train and _calibrates(draft, request):
        sample = {"take": CALIBRATE, "seed": 0}
        about = f"{CALIBRATE} rows that quantization may see"
        draft.data["calibration"] = Entry({**source, "split": "train", **sample, **more}, about)
    draft.data["validation"] = Entry({**source, "split": scored, **more}, "rows that only the checks see")
    if draft.task == "question-answering":
        draft.options["version"] = 2 if "v2" in repo or "2" in repo.rpartition("/")[2] else 1
        draft.notes.append(f"SQuAD version {draft.options['version']} is assumed; version 2 has questions without an "
                           "answer")  # fmt: skip


# --- steps


@dataclass(frozen=True)
class _Steps:
    """A pipeline by its name, or steps of the recipe's own."""

    pipeline: str | None
    own: tuple[Entry, ...] = ()
    gates: tuple[str, ...] = ()
    """Steps that decide on a metric."""
    result: str = "int8"


def _pipeline(draft: Draft, request: Request) -> str | None:
    """Choose a pipeline; None for a model that the package's pipelines do not take."""
    if request.pipeline is not None:
        return request.pipeline
    return None if draft.format != "hf" or draft.task in MEDIA else "onnx-int8"


def _calibrates(draft: Draft, request: Request) -> bool:
    name = _pipeline(draft, request)
    if name is None:
        return draft.format == "openvino" or draft.task in MEDIA
    return "data.calibration" in _known(name, request).needs


def _known(name: str, request: Request) -> pipelines.PipelineInfo:
    return pipelines.one(pipelines.find(request.path.parent), name)


def _steps(draft: Draft, request: Request) -> _Steps:
    name = _pipeline(draft, request)
    if name is not None:
        gates = [step.id for step in _known(name, request).steps if step.use == "validate.accuracy"]
        return _Steps(name, gates=tuple(gates))
    quantize: dict[str, Any] = {"id": "int8", "use": "quantize.onnx", "with": {"per_channel": True}}
    steps = [Entry(quantize, "weights in 8 bits, activations as the model runs")]
    if draft.format == "openvino":
        steps = [Entry({"id": "int8", "use": "quantize.openvino"}, "weights and activations in 8 bits, calibrated")]
    elif draft.task in MEDIA:
        quantize["with"] = {"mode": "static"}
        steps = [Entry(quantize, "weights and activations in 8 bits, calibrated")]
    if draft.format == "hf":
        steps = [Entry({"id": "float", "use": "export.onnx"}, "PyTorch to ONNX, compared with the original"), *steps]
    steps.append(Entry(GATE, GATE_ABOUT))
    if draft.format == "hf":
        steps.append(Entry(SPEED, "at least as fast as the original"))
    else:
        draft.notes.append("no step asks for a speed-up; add validate.latency to ask for one")
    return _Steps(None, tuple(steps), ("accuracy",))


def _allow_few_rows(draft: Draft, steps: _Steps) -> None:
    """Let the gates decide on as few rows as there are, in a line that the reader sees."""
    few = draft.changes.pop("few", None)
    if few is not None:
        draft.changes = {gate: few for gate in steps.gates}
        draft.notes.append(f"only {few.about}; the recipe's `min_rows` lets them decide")


# --- lines


def _head_lines(draft: Draft, steps: _Steps) -> list[tuple[str, str]]:
    task: Any = {"use": draft.task, "with": draft.options} if draft.options else draft.task
    how = f"through {steps.pipeline}" if steps.pipeline else "as int8"
    lines = [
        (f"about: {plain(f'{draft.name} for {draft.task} {how}.')}", "for people"),
        (f"model: {flow(draft.model.value)}", draft.model.about),
        (f"task: {flow(task)}", f"gates judge {draft.metric}; options: cpu-pipeline tasks {draft.task}"),
    ]
    if draft.allow:
        lines.append((f"# allow: {flow(draft.allow)}", "remove the first # if you trust its pickled weights"))
    lines.append(("data:", "no two roles may share a row"))
    return lines + [(f"  {role}: {flow(entry.value)}", entry.about) for role, entry in draft.data.items()]


def _step_lines(draft: Draft, steps: _Steps) -> list[tuple[str, str]]:
    if steps.pipeline is not None:
        lines = [(f"pipeline: {steps.pipeline}", f"its steps: cpu-pipeline pipelines {steps.pipeline}")]
    else:
        lines = [("stages:", "each takes the model of the step before it")]
        lines += [(f"  - {flow(entry.value)}", entry.about) for entry in steps.own]
    if draft.changes:
        lines.append(("with:", "options that differ"))
        lines += [(f"  {step}: {flow(entry.value)}", entry.about) for step, entry in draft.changes.items()]
    return lines


# --- schema


def _schema(path: Path) -> tuple[str | None, Path | None]:
    """Say what the recipe's editor reads the schema from, and where to write that first.

    In a clone it is the clone's own; elsewhere a copy beside the recipe, which goes with it to other machines. A file
    of somebody else with this name stays, and the recipe names no schema.
    """
    own = package_data.file(SCHEMA)
    home = local.absolute(path.parent)
    if package_data.file("pyproject.toml").is_file() and home.resolve().is_relative_to(own.parent.resolve()):
        return os.path.relpath(own, home.resolve()), None
    beside = home / SCHEMA
    if not beside.exists():
        return SCHEMA, beside
    return (SCHEMA if re.search(rb'"title": "cpu-pipeline"', beside.read_bytes()[:400]) else None), None
