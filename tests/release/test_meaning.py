"""A lock is stale when the meaning of its recipe changed, and not when only its text did."""

from __future__ import annotations

from pathlib import Path

import pytest
from project import write_model

from cpu_pipeline import api
from cpu_pipeline.release.lockfile import LOCK_FORMAT, expect

RECIPE = """\
model: {folder: model}
task: text-classification
data: {calibration: {file: c.jsonl}, validation: {file: v.jsonl, take: 9}}
stages:
  - {id: float, use: export.onnx}
  - {id: int8, use: quantize.onnx, with: {per_channel: true}}
  - {id: right, use: validate.accuracy, from: {reference: model}, with: {max_drop: 0.01}}
"""
SAME = {
    "comments and format": ("task: text-classification\n", "# A comment.\ntask:   text-classification   # more\n"),
    "order of keys": ("{calibration: {file: c.jsonl}, validation: {file: v.jsonl, take: 9}}",
                      "{validation: {take: 9, file: v.jsonl}, calibration: {file: c.jsonl}}"),
    "a default": ("{per_channel: true}", "{per_channel: true, mode: dynamic}"),
    "the task's long form": ("task: text-classification", "task: {use: text-classification, with: {}}"),
    "the order of steps": ("  - {id: float, use: export.onnx}\n"
                           "  - {id: int8, use: quantize.onnx, with: {per_channel: true}}\n",
                           "  - {id: int8, use: quantize.onnx, from: {model: float}, with: {per_channel: true}}\n"
                           "  - {id: float, use: export.onnx, from: {model: model}}\n"),
    "about": ("task:", "about: Other words.\ntask:"),
}  # fmt: skip
OTHER = {
    "an option": ("per_channel: true", "per_channel: false"),
    "a bound": ("max_drop: 0.01", "max_drop: 0.02"),
    "rows": ("take: 9", "take: 8"),
    "another file": ("v.jsonl", "w.jsonl"),
    "a task's option": ("task: text-classification", "task: {use: text-classification, with: {average: binary}}"),
    "a waiver": ("max_drop: 0.01", "max_drop: 0.01, waive: {until: 2099-01-01, reason: known}"),
    "outputs": ("stages:", "outputs: [float, int8]\nunchecked: {float: why}\nstages:"),
}


def digest(home: Path, text: str, format: int = LOCK_FORMAT) -> str:
    if not (home / "model").exists():
        write_model(home / "model")
        for name in "cvw":
            (home / f"{name}.jsonl").write_text('{"text": "good", "label": "a"}\n')
    (home / "toy.yaml").write_text(text)
    found: str = expect(api.plan(api.load_recipe(home / "toy.yaml")), {}, format)["recipe"]["digest"]
    return found


@pytest.mark.parametrize("change", SAME.values(), ids=SAME.keys())
def test_the_same_meaning_has_one_digest(tmp_path: Path, change: tuple[str, str]) -> None:
    other = RECIPE.replace(*change)
    if change[1].startswith("  - {id: int8"):
        other = other.replace("from: {reference: model}", "from: {candidate: int8, reference: model}")
    assert other != RECIPE and digest(tmp_path, other) == digest(tmp_path, RECIPE)


@pytest.mark.parametrize("change", OTHER.values(), ids=OTHER.keys())
def test_another_meaning_has_another_digest(tmp_path: Path, change: tuple[str, str]) -> None:
    other = RECIPE.replace(*change)
    assert other != RECIPE and digest(tmp_path, other) != digest(tmp_path, RECIPE)


def test_a_lock_of_the_format_before_is_compared_as_it_was_written(tmp_path: Path) -> None:
    spelled = RECIPE.replace("{per_channel: true}", "{per_channel: true, mode: dynamic}")
    assert digest(tmp_path, RECIPE, 1) != digest(tmp_path, spelled, 1)
    assert digest(tmp_path, RECIPE, 1) == digest(tmp_path, "# A comment.\n" + RECIPE, 1)
