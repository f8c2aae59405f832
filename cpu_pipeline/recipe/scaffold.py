"""Propose a first recipe for a model: its task, metric, data and commits, read from the Hub and pinned."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from cpu_pipeline import stages, tasks
from cpu_pipeline.core import hub_api as hub
from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.core.repo_files import SPLITS, choose_data, names_split
from cpu_pipeline.core.tables import open_table
from cpu_pipeline.core.text import did_you_mean
from cpu_pipeline.recipe import package_data
from cpu_pipeline.recipe.document import Document
from cpu_pipeline.recipe.reader import load_pipeline

HEADS = {
    "ForQuestionAnswering": "question-answering",
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForImageClassification": "image-classification",
    "ForAudioClassification": "audio-classification",
}
"""Ending of a checkpoint's architecture -> task."""
COLUMNS: Mapping[str, Mapping[str, Sequence[str]]] = {
    "question-answering": {},
    "text-classification": {
        "text": ("text", "sentence", "content", "review", "sentence1", "premise", "question1", "question"),
        "text_pair": ("text_pair", "sentence2", "hypothesis", "question2"),
        "label": ("label", "labels", "target"),
    },
    "token-classification": {"tokens": ("tokens", "words"), "tags": ("tags", "ner_tags", "labels")},
    "image-classification": {
        "image": ("image", "img", "picture", "pixel_values"),
        "label": ("label", "labels", "fine_label", "target"),
    },
    "audio-classification": {"audio": ("audio", "speech", "file"), "label": ("label", "labels", "target")},
    "sentence-similarity": {
        "sentence1": ("sentence1", "text1", "sentence_A"),
        "sentence2": ("sentence2", "text2", "sentence_B"),
        "score": ("score", "similarity_score", "label"),
    },
}
"""Task -> column -> its usual names in data sets."""


def commit(repo: str, want: str, revision: str) -> str:
    """Ask the Hub for the full commit of a branch or tag.

    Args:
        repo: owner/name.
        want: `data` for a data set, anything else for a model.
        revision: the branch or tag.
    """
    return hub.resolve(repo, "data" if want == "data" else "model", revision)


def recipe(model: str, task: str | None, data: str | None, pipeline: str, path: Path) -> tuple[str, list[str]]:
    """Write a first recipe for a model.

    Args:
        model: owner/name of a repository of the Hub.
        task: the task; None to read it from the model's config.json or card.
        data: owner/name of a data set; None for the first one that the card names.
        pipeline: the pipeline, by name.
        path: the file that the recipe will be written to.

    Returns:
        The text of the recipe, and notes on what the user should check.

    Raises:
        RecipeError: the task or the data is unknown; the message names the option that sets it.
    """
    revision = commit(model, "model", "main")
    config = json.loads(hub.read_small(model, "model", revision, "config.json") or "{}")
    card = _card(hub.read_small(model, "model", revision, "README.md"))
    similar = hub.read_small(model, "model", revision, "modules.json") is not None
    chosen = task or _task(config, card, similar, model)
    if chosen not in tasks.names():
        raise RecipeError(f"no task is called `{chosen}`{did_you_mean(chosen, tasks.names())}")
    notes: list[str] = []
    repo = data or _data(card, model)
    written = _write(model, revision, chosen, repo, pipeline, path, notes)
    return written, notes


def _task(config: Mapping[str, Any], card: Mapping[str, Any], similar: bool, model: str) -> str:
    for architecture in config.get("architectures") or ():
        for ending, task in HEADS.items():
            if str(architecture).endswith(ending):
                # Wav2Vec2 and its kin classify sequences of sound under the name of those of text.
                return "audio-classification" if task == "text-classification" and "conv_kernel" in config else task
    if similar:
        return "sentence-similarity"
    tag = card.get("pipeline_tag")
    if isinstance(tag, str) and tag in tasks.names():
        return tag
    raise RecipeError(f"{model}: config.json and card do not name the task; set it with --task")


def _data(card: Mapping[str, Any], model: str) -> str:
    for name in card.get("datasets") or ():
        if isinstance(name, str) and name.count("/") == 1:
            return name
    raise RecipeError(f"{model}: its card names no data set as owner/name; set one with --data")


def _card(text: str | None) -> Mapping[str, Any]:
    """Read the YAML head of a README; one that cannot be read counts as empty."""
    if not text or not text.startswith("---"):
        return {}
    try:
        head = yaml.safe_load(text[3:].partition("\n---")[0])
    except yaml.YAMLError:
        return {}
    return head if isinstance(head, dict) else {}


def _write(model: str, revision: str, task: str, repo: str, pipeline: str, path: Path, notes: list[str]) -> str:
    data_revision = commit(repo, "data", "main")
    splits = _splits(repo, data_revision)
    scored = next((s for s in splits if s != "train"), None)
    if scored is None:
        raise RecipeError(f"{repo}: no split to validate on; it has {', '.join(splits) or 'none that its files name'}")
    columns = _columns(task, repo, data_revision, scored)
    source = {"hub": repo, "revision": data_revision}
    rows: dict[str, dict[str, Any]] = {}
    if "train" in splits and _calibrates(pipeline, path):
        rows["calibration"] = {**source, "split": "train", "take": 300, "seed": 0, **columns}
    rows["validation"] = {**source, "split": scored, **columns}
    options = ""
    if task == "question-answering":
        version = 2 if "v2" in repo or "2" in repo.rpartition("/")[2] else 1
        notes.append(f"SQuAD version {version} is assumed; version 2 has questions without an answer")
        options = f"  with: {{version: {version}}}\n"
    metric = tasks.get(task).metrics[0]
    notes.append(f"gates judge `{metric}`; see `cpu-pipeline tasks {task}` for the others")
    schema = os.path.relpath(package_data.file("schema.json"), path.parent) if _in_clone(path) else _schema_beside()
    lines = [
        f"# yaml-language-server: $schema={schema}",
        f"about: {model} for {task}, through {pipeline}.",
        f'model: {{hub: {model}, revision: "{revision}"}}',
        "task:",
        f"  use: {task}",
    ]
    text = "\n".join(lines) + "\n" + options + "data:\n"
    for role, fields in rows.items():
        text += f"  {role}: {_flow(fields)}\n"
    return text + f"pipeline: {pipeline}\n"


def _splits(repo: str, revision: str) -> list[str]:
    """Name the splits that the names of a data set's files contain."""
    _, files = hub.list_files(hub.RepoCommit(repo, "data", revision))
    return [split for split in SPLITS if any(names_split(name, split) for name in files)]


def _calibrates(pipeline: str, path: Path) -> bool:
    """Say whether a stage of the pipeline requires calibration rows."""
    steps = load_pipeline(pipeline, Document(path)).value.stages
    return any("data.calibration" in stages.get(step.use)(**step.options).asks() for step in steps)


def _in_clone(path: Path) -> bool:
    return package_data.file("pyproject.toml").is_file() and path.resolve().is_relative_to(
        package_data.file(".").resolve()
    )


def _schema_beside() -> str:
    return package_data.file("schema.json").as_uri()


def _columns(task: str, repo: str, revision: str, split: str) -> dict[str, dict[str, str]]:
    """Match the task's columns with those of the data, by their usual names."""
    repository = hub.RepoCommit(repo, "data", revision)
    _, files = hub.list_files(repository)
    name = next(n for n in choose_data(files, split, None, repo) if n != "README.md")
    columns = open_table(hub.download(repository, name), name).columns
    found = {}
    for column, names in COLUMNS[task].items():
        called = next((n for n in names if n in columns), None)
        if called is not None and called != column:
            found[column] = called
    return {"columns": found} if found else {}


def _flow(value: Mapping[str, Any]) -> str:
    parts = []
    for key, item in value.items():
        if isinstance(item, Mapping):
            parts.append(f"{key}: {_flow(item)}")
        else:
            parts.append(f'{key}: "{item}"' if key == "revision" else f"{key}: {item}")
    return "{" + ", ".join(parts) + "}"
