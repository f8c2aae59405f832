"""The example files of docs/extending: the pages show them, and a recipe with all four builds a tiny model."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import models
import pytest
from pages import DOCS, ROOT, Block, blocks, pages

EXAMPLES = DOCS / "extending" / "examples"
SHOWN = [block for page in pages("extending") for block in blocks(page) if "file" in block.marks]


@pytest.mark.parametrize("block", SHOWN, ids=lambda block: Path(block.marks["file"]).name)
def test_a_page_shows_the_file(block: Block) -> None:
    assert block.text == (ROOT / block.marks["file"]).read_text(encoding="utf-8")


def test_every_file_is_shown() -> None:
    files = {path for path in EXAMPLES.rglob("*.*") if "__pycache__" not in path.parts and path.name != "__init__.py"}
    assert {ROOT / block.marks["file"] for block in SHOWN} == files


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a package with a tiny encoder, rows, the recipe, and what installing the plug-in would add."""
    folder = tmp_path_factory.mktemp("plugin")
    project = folder / "recipes"
    shutil.copytree(EXAMPLES / "static_embeddings", folder / "site" / "static_embeddings")
    _install(folder / "site")
    models.make("bert", folder / "site" / "tiny_model", "sentence-similarity")
    (folder / "site" / "tiny_model" / "__init__.py").write_text("raise RuntimeError('imported')\n", encoding="utf-8")
    project.mkdir()
    rows = models.rows("sentence-similarity", 40)
    lines = [{"first": r["sentence1"], "second": r["sentence2"], "duplicate": r["score"] > 2.5} for r in rows]
    (project / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    shutil.copy(EXAMPLES / "recipe.yaml", project / "static.yaml")
    return folder


def _install(site: Path) -> None:
    """Write the entry points of the package's pyproject.toml as an installed distribution has them."""
    declared = tomllib.loads((EXAMPLES / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    info = site / f"static_embeddings-{declared['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {declared['name']}\nVersion: {declared['version']}\n", encoding="utf-8"
    )
    groups = declared["entry-points"].items()
    text = [line for group, names in groups for line in (f"[{group}]", *(f"{n} = {m}" for n, m in names.items()))]
    (info / "entry_points.txt").write_text("\n".join(text) + "\n", encoding="utf-8")


def call(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command where the package is installed."""
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(project / "site"), str(ROOT)]),
        "CPU_PIPELINE_STORE": str(project / "store"),
    }
    return subprocess.run(
        [sys.executable, "-m", "cpu_pipeline", *arguments],
        cwd=project, env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_a_recipe_uses_all_four(project: Path) -> None:
    done = call(project, "run", "recipes/static.yaml", "--json")
    assert done.returncode == 0, done.stderr
    version = project / "artifacts" / "static" / "latest"
    assert {path.name for path in (version / "table").iterdir()} >= {"embeddings.npy", "tokenizer.json", "config.json"}
    verdicts = json.loads((version / "manifest.json").read_text(encoding="utf-8"))["checks"]
    assert set(verdicts) >= {"table", "accuracy"}


def test_the_report_loads_what_was_built(project: Path) -> None:
    report = (project / "artifacts" / "static" / "latest" / "report.md").read_text(encoding="utf-8")
    code = report.partition("```python\n")[2].partition("```")[0]
    program = f"{code}\nassert vector.shape == ({models.HIDDEN},)"
    subprocess.run([sys.executable, "-c", program], cwd=project / "artifacts" / "static" / "latest", check=True)


def test_options_are_documented(project: Path) -> None:
    done = call(project, "stages", "export.static")
    assert "scale (number, default 1.0)" in done.stdout
    assert "Factor for every value of the table." in done.stdout


def test_a_failed_verdict_publishes_nothing(project: Path) -> None:
    done = call(project, "run", "recipes/static.yaml", "--set", "table.min_tokens=1000000", "--out", "elsewhere")
    assert done.returncode == 3
    assert [path.name for path in (project / "elsewhere" / "static").iterdir()] == ["failed"]


@pytest.mark.parametrize("path", sorted((EXAMPLES / "static_embeddings").glob("*.py")), ids=lambda path: path.name)
def test_an_example_imports_nothing_heavy(path: Path) -> None:
    heavy = {"numpy", "torch", "transformers", "safetensors", "tokenizers"}
    tree = ast.parse(path.read_text(encoding="utf-8"))
    top = {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
    top |= {node.module or "" for node in tree.body if isinstance(node, ast.ImportFrom)}
    assert not {name.partition(".")[0] for name in top} & heavy
