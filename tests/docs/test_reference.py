"""The pages that people write agree with the code: layers, exit codes, environment variables, files of a store."""

from __future__ import annotations

import re
import tomllib

import pytest
from pages import DOCS, ROOT, blocks

from cpu_pipeline.core import errors

PACKAGE = ROOT / "cpu_pipeline"
CODE = "\n".join(path.read_text(encoding="utf-8") for path in sorted(PACKAGE.rglob("*.py")))
VARIABLES = sorted(
    {*re.findall(r"""(?:environ(?:\.get\(|\.pop\(|\[)|env\[|env\.pop\(|envvar=)\s*"([A-Z][A-Z0-9_]+)\"""", CODE)}
)
ERRORS = [
    value
    for value in vars(errors).values()
    if isinstance(value, type) and issubclass(value, errors.PipelineError) and value is not errors.PipelineError
]


def text(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def test_the_layers_are_those_that_are_checked() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    [layers] = [c["layers"] for c in settings["contracts"] if c.get("containers") == ["cpu_pipeline"]]
    assert "\n".join(layers) + "\n" in {block.text for block in blocks(DOCS / "architecture.md")}


def test_every_package_is_in_the_architecture() -> None:
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    page = text("architecture.md")
    assert {name for name in packages if f"| [`{name}/`](../cpu_pipeline/{name}) |" not in page} == set()


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
def test_every_exit_code_is_explained(error: type[errors.PipelineError]) -> None:
    assert f"| {error.exit_code} | `{error.__name__}` |" in text("reference/exit-codes.md")


@pytest.mark.parametrize("name", VARIABLES)
def test_every_variable_is_explained(name: str) -> None:
    assert f"`{name}`" in text("reference/environment-variables.md")


def test_variables_are_found() -> None:
    assert {"CPU_PIPELINE_STORE", "CPU_PIPELINE_STORE_REMOTE", "CPU_PIPELINE_ENVIRONMENTS", "CXX"} <= set(VARIABLES)


def test_every_directory_of_a_store_is_explained() -> None:
    from cpu_pipeline.store import local

    page = text("reference/store-layout.md")
    assert {name for name in local.DIRECTORIES if f"`{name}/" not in page} == set()
