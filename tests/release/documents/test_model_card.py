"""A model card is one that the Hub reads, says what is known and no more, and obeys no text from outside."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import EvalResult, ModelCard
from markdown_it import MarkdownIt
from publishing import ACCURACY, MODEL, RECIPE, PretendedProject

from cpu_pipeline import backends, stages
from cpu_pipeline.core.markdown import escape
from cpu_pipeline.engine import environments
from cpu_pipeline.recipe.document import scalar
from cpu_pipeline.release.documents.model_card import FILE, LIBRARIES, _fenced, _yaml


@pytest.fixture
def made(tmp_path: Path) -> PretendedProject:
    return PretendedProject(tmp_path / "project")


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a version, not to be changed."""
    return PretendedProject(tmp_path_factory.mktemp("made") / "project").published()


def card(version: Path, output: str = "int8") -> ModelCard:
    return ModelCard.load(version / output / FILE)


def test_the_hub_reads_it(version: Path) -> None:
    data = card(version).data
    assert data.base_model == "acme/small" and data["base_model_relation"] == "quantized"
    assert data.library_name == "onnx" and data.pipeline_tag == "question-answering"
    assert {"cpu-pipeline", "onnx"} <= set(data.tags)
    assert data.license is None and data.language is None
    assert data.datasets == ["acme/rows"]
    assert data.model_name == "toy-int8"
    [result] = data.eval_results
    assert isinstance(result, EvalResult)
    assert (result.task_type, result.dataset_type, result.metric_type) == ("question-answering", "rows", "f1")
    assert result.metric_value == round(100 * ACCURACY["metrics"]["f1"]["candidate"], 4)


def test_what_was_only_converted_is_no_relation_of_the_hubs(version: Path) -> None:
    """Nor does it say what nothing measured, nor name data that it did not learn from."""
    data = card(version, "float").data
    assert data.base_model == "acme/small"
    assert "base_model_relation" not in data and "quantized" not in data.tags
    assert data.eval_results is None and data.datasets is None


def test_a_checkpoint_is_of_the_library_that_loads_it(made: PretendedProject) -> None:
    stages = [{"id": "sparse", "use": "prune.magnitude", "with": {"sparsity": 0.5}}]
    data = card(made.published(stages=stages, outputs=["sparse"], data={}), "sparse").data
    assert data.library_name == "transformers"


def test_a_local_model_has_no_base_on_the_hub(made: PretendedProject) -> None:
    (made.home / "model").mkdir()
    (made.home / "model" / "config.json").write_text("{}")
    found = card(made.published(model={"folder": "model"}))
    assert found.data.base_model is None and "base_model_relation" not in found.data
    assert "| `model` | `model` | content `" in found.text
    assert str(made.home) not in found.content


def test_rows_of_the_hub_are_named_with_split_and_commit(made: PretendedProject) -> None:
    rows = {"hub": "acme/rows", "revision": "0" * 40, "split": "validation"}
    [result] = card(made.published(data={"calibration": {"file": "rows.jsonl"}, "validation": rows})).data.eval_results
    assert (result.dataset_type, result.dataset_split) == ("acme/rows", "validation")
    assert result.dataset_revision == "0" * 40


def test_it_says_what_it_is_how_good_and_how_to_go_on(version: Path) -> None:
    text = card(version).text
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == [
        "Made of",
        "How good it is",
        "How to load",
        "How to rebuild",
    ]
    for use in ("export.onnx", "quantize.onnx"):
        said = str(stages.get(use).__doc__).partition("\n")[0]
        assert f"(`{use}`): {said}" in text
    assert "`mode: static`, `per_channel: True`" in text
    assert f"| `model` | `acme/small` | `{MODEL}` |" in text
    assert "data.validation" not in text.partition("## How good it is")[0]
    assert "### `accuracy` (`validate.accuracy`), against `model`" in text
    assert "| f1 | 0.8123 | 0.8200 | -0.0077 (-0.0090 to 0.0010) |" in text
    assert "It asks for no instruction set" in text
    assert version.name in text
    python = text.partition("```python\n")[2].partition("```")[0]
    compile(python, "card", "exec")


def test_an_output_that_nothing_checked_says_so(version: Path) -> None:
    text = card(version, "float").text
    assert "No check of the recipe looked at this output: nothing here is proved." in text
    assert "0.8123" not in text


def test_it_warns_of_the_environment_that_made_it(made: PretendedProject) -> None:
    version = made.published(environment="ipex")
    says = f"**Warning:** {escape(environments.get('ipex').warning)}"
    assert says in card(version).text and "Warning" not in card(version, "float").text


def test_a_check_on_the_way_is_told_after_its_own(made: PretendedProject) -> None:
    """What it measured is not this output's, and does not get into the header."""
    gate = {"id": "early", "use": "validate.accuracy", "from": {"candidate": "float", "reference": "model"}}
    stages = [*RECIPE["stages"][:2], {**gate, "with": {"at_least": 0.1}}, RECIPE["stages"][2]]
    found = card(made.published(stages=stages))
    headings = re.findall(r"^### (.*)$", found.text, re.MULTILINE)
    assert headings == [
        "`accuracy` (`validate.accuracy`), against `model`",
        "`early` (`validate.accuracy`), of `float`, against `model`",
    ]
    assert len(found.data.eval_results) == 1


def test_its_recipe_is_the_recipe(made: PretendedProject) -> None:
    built, store = made.build()
    text = card(made.publish(built, store)).text
    block = text.partition("```yaml\n")[2].partition("\n```")[0]
    path = made.home / "again.yaml"
    path.write_text(block)
    from cpu_pipeline import api

    assert api.load_recipe(path).value == built.plan.recipe


def test_what_it_needs_of_a_cpu(made: PretendedProject) -> None:
    said = '{"format": "onnx", "needs": ["avx512_vnni|avx_vnni"], "runtime": {}}'
    text = card(made.published(files={"cpu_pipeline.json": said})).text
    assert "It needs a CPU with `avx512_vnni or avx_vnni`; without, it answers wrongly or not at all." in text


def test_it_says_on_which_machine_something_was_timed(made: PretendedProject, version: Path) -> None:
    host = {"cpu": "A *fast* CPU", "cores": 4, "threads": 2, "isa": [], "memory_gib": 1}
    assert "Measured on A \\*fast\\* CPU, 2 of 4 cores." in card(made.published(host=host)).text
    assert "Measured on" not in card(version).text


NASTY = "<script>alert(1)</script> ![x](http://evil/x.png) [y](javascript:alert(1)) ``` | `code` **b** # h\n---\nx: y"


def test_it_escapes_what_came_from_outside(made: PretendedProject) -> None:
    found = card(made.published(about=NASTY))
    markup = MarkdownIt("commonmark", {"html": True}).enable("table").render(found.text)
    outside = re.sub(r"<pre>.*?</pre>", "", markup, flags=re.DOTALL)
    for tag in ("<script", "<img", "<a ", "<strong", "<hr"):
        assert tag not in markup
    assert outside.count("<h1>") == 1 and "&lt;script&gt;alert(1)&lt;/script&gt;" in outside
    assert markup.count("<pre>") == 3
    assert found.data.base_model == "acme/small"


@pytest.mark.parametrize(
    "value",
    ["no", "y", "NULL", "12e3", "1e5", "0x1f", "1_000", "2024-01-01", "12:30", "1.5", "- a", "a: b", "a #b", "", " a",
     "~", "true", "é", "a\nb", "a`b", "@x", "acme/rows", "rows.jsonl", "5" * 40, ".inf", "infinity", "a\u2028b"],
)  # fmt: skip
def test_text_stays_text_whatever_reads_it(value: str) -> None:
    """YAML 1.1, YAML 1.2, and the reader of our own recipes."""
    [(key, text)] = [_yaml({"key": value}).split(": ", 1)]
    assert yaml.safe_load(f"{key}: {text}") == {"key": value}
    if not text.startswith(('"', "'")):
        assert scalar(text) == value


@pytest.mark.parametrize("text", ["plain", "```", "a ````` b", "`"])
def test_a_fence_holds(text: str) -> None:
    [token] = MarkdownIt("commonmark").parse("\n".join(_fenced(text, "yaml")))
    assert token.type == "fence" and token.content == text + "\n"


def test_libraries_are_of_formats_that_there_are() -> None:
    assert LIBRARIES.keys() <= set(backends.names())


def test_scores_are_those_that_are_numbers() -> None:
    stage: Any = stages.get("validate.accuracy").model_construct(max_drop=0.1)
    assert stage.scores(stage.parse_facts(ACCURACY)) == {"f1": ACCURACY["metrics"]["f1"]["candidate"]}


def test_a_metric_is_in_percent_only_where_its_field_prints_it_so(made: PretendedProject) -> None:
    [result] = card(made.published(task="text-classification")).data.eval_results
    assert (result.metric_type, result.metric_value) == ("f1", round(ACCURACY["metrics"]["f1"]["candidate"], 6))
