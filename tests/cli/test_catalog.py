"""`stages`, `tasks`, `backends` and `schema` tell what the classes say."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import ROOT, Cli
from project import write_model

from cpu_pipeline import backends, stages, tasks
from cpu_pipeline.engine import packages
from cpu_pipeline.recipe import field_docs


def test_stages_are_listed_with_one_line_each(cli: Cli) -> None:
    lines = cli("stages").out.splitlines()
    assert [line.split()[0] for line in lines] == stages.names()
    assert all(line.endswith(".") for line in lines)


@pytest.mark.parametrize("name", stages.names())
def test_a_stage_is_told_with_its_options(name: str, cli: Cli) -> None:
    cls = stages.get(name)
    out = cli("stages", name).out
    assert out.startswith(f"{name}: {cls.__doc__}\n")
    for field, about in field_docs.fields(cls).items():
        assert f"\n  {field} (" in out and about in out


def test_a_default_and_its_choices_are_told(cli: Cli) -> None:
    out = cli("stages", "quantize.onnx").out
    assert "  per_channel (boolean, default False)\n" in out
    assert "  mode (dynamic | static, default dynamic)\n" in out


def test_stages_as_json(cli: Cli) -> None:
    [said] = cli("stages", "prune.magnitude", "--json").json
    assert said["name"] == "prune.magnitude" and said["about"] == stages.get("prune.magnitude").__doc__
    assert {o["option"] for o in said["options"]} == set(stages.get("prune.magnitude").model_fields)
    assert all(o["about"] for o in said["options"])
    assert [s["name"] for s in cli("stages", "--json").json] == stages.names()


@pytest.mark.parametrize("name", tasks.names())
def test_a_task_is_told_with_its_options(name: str, cli: Cli) -> None:
    cls = tasks.get(name)
    out = cli("tasks", name).out
    for field, about in field_docs.fields(cls).items():
        assert f"\n  {cls.model_fields[field].alias or field} (" in out and about in out


def test_tasks(cli: Cli) -> None:
    assert [line.split()[0] for line in cli("tasks").out.splitlines()] == tasks.names()
    assert "  doc_stride (integer, default 128)\n" in cli("tasks", "question-answering").out
    assert [t["name"] for t in cli("tasks", "--json").json] == tasks.names()


def test_backends(cli: Cli) -> None:
    said = {b["format"]: b for b in cli("backends", "--json").json}
    assert list(said) == backends.names()
    assert said["onnx"]["works"] is True and set(said["onnx"]["packages"]) == set(backends.get("onnx").PACKAGES)
    lines = cli("backends").out.splitlines()
    assert [line.partition(":")[0] for line in lines if not line.startswith(" ")] == backends.names()
    assert "  made by        export.onnx, export.optimum, fuse.onnx, quantize.onnx" in lines


def test_backends_say_whether_they_take_a_model(cli: Cli) -> None:
    said = {b["format"]: b for b in cli("backends", "--model", ROOT / "recipes" / "quickstart.yaml", "--json").json}
    assert {b["takes"] for b in said.values()} == {"yes"}
    said = cli("backends", "--model", ROOT / "recipes" / "quickstart.yaml").out.splitlines()
    assert said[0].split()[:3] == ["format", "roberta", "works"]
    assert [line.split()[:2] for line in said[1 : len(backends.names()) + 1]] == [[n, "yes"] for n in backends.names()]
    assert len(said) <= 24 and max(map(len, said)) <= 80


def test_a_backend_whose_package_is_missing_does_not_work(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = packages.installed
    monkeypatch.setattr(
        packages, "installed", lambda name, *where: packages.ABSENT if name == "openvino" else installed(name, *where)
    )
    said = {b["format"]: b["works"] for b in cli("backends", "--json").json}
    assert said["openvino"] is False and said["onnx"] is True


@pytest.mark.parametrize("kind", ["stages", "tasks"])
def test_unknown_names_are_usage_errors(kind: str, cli: Cli) -> None:
    said = cli(kind, "nonsense")
    assert said.code == 2 and "; there are: " in said.err


def test_schema_is_the_file(cli: Cli) -> None:
    assert cli("schema").out == (ROOT / "schema.json").read_text(encoding="utf-8")


def test_backends_take_a_folder(cli: Cli, tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    assert cli("backends", "--model", tmp_path / "model").out.startswith("format       bert ")
    (tmp_path / "model" / "model.safetensors").rename(tmp_path / "model" / "model.onnx")
    said = {b["format"]: b["takes"] for b in cli("backends", "--model", tmp_path / "model", "--json").json}
    assert said["onnx"] == "yes" and said["openvino"] == "no"


def test_pipelines_are_told_with_what_they_need(cli: Cli) -> None:
    said = {p["name"]: p for p in cli("pipelines", "--json").json}
    assert sorted(said) == sorted(path.stem for path in (ROOT / "pipelines").glob("*.yaml"))
    assert said["onnx-int8"]["needs"] == ["data.validation"]
    assert said["openvino-int8"]["needs"] == ["data.calibration", "data.validation"]
    assert "  needs   data.validation\n  stages  export.onnx, fuse.onnx, quantize.onnx" in cli("pipelines").out
    assert "\n  int8: quantize.onnx per_channel=True\n" in cli("pipelines", "onnx-int8").out
    assert "did you mean `onnx-int8`?" in cli("pipelines", "onnx-int").err


def test_a_task_is_told_with_columns_metrics_and_their_direction(cli: Cli) -> None:
    lines = [line.split("  ") for line in cli("tasks", "question-answering").out.splitlines()]
    assert ["", "question", "needed"] in lines
    said = cli("tasks", "sentence-similarity", "--json").json[0]
    assert said["columns"] == {"sentence1": True, "sentence2": True, "score": False}
    assert said["metrics"]["spearman"] == "higher" and "feature-extraction" in said["aliases"]
