"""docs/reference/python.md: the public functions, classes and errors, from their source and docstrings."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator

from cpu_pipeline.cli._reference._fields import fields
from cpu_pipeline.cli._reference._markdown import code, doc, document, prose, table

INTRO = """The package is typed. Import the first names from `cpu_pipeline`, the other functions from \
`cpu_pipeline.api`. The functions do what the commands of the same name do; errors are exceptions instead of exit \
codes."""
EXAMPLE = """```python
from cpu_pipeline import PipelineError, build, load_recipe, plan

try:
    outcome = build(plan(load_recipe("recipes/quickstart.yaml")))
except PipelineError as error:
    raise SystemExit(error.exit_code) from error
```"""
ERRORS = """All are in `cpu_pipeline.core.errors`. `PipelineError` is their base; its `exit_code` is what the command \
returns. See [Exit codes](exit-codes.md)."""
SECTION = "Args:", "Returns:", "Raises:", "Yields:"
WORDS = {"Args:": "Arguments", "Returns:": "Returns", "Raises:": "Raises", "Yields:": "Yields"}


def page() -> str:
    """Return the page."""
    import cpu_pipeline

    functions = public_functions()
    first = [name for name in cpu_pipeline.__all__ if name in functions]
    others = [name for name in functions if name not in first]
    lines = [EXAMPLE, "", "## Functions", ""]
    for name in (*first, *others):
        lines += _function(functions[name], "cpu_pipeline" if name in first else "cpu_pipeline.api")
    lines += ["## Classes", ""]
    for cls in public_classes():
        lines += _class(cls)
    return document("Python", INTRO, [*lines, "## Errors", "", ERRORS, "", *_errors()])


def public_functions() -> dict[str, Callable[..., object]]:
    """Return the public functions of cpu_pipeline.api, in the order of its source."""
    from cpu_pipeline import api

    return {
        name: value
        for name, value in vars(api).items()
        if inspect.isfunction(value) and value.__module__ == api.__name__ and not name.startswith("_")
    }


def public_classes() -> list[type]:
    """Return the classes that the public functions take and return."""
    from cpu_pipeline import api
    from cpu_pipeline.core.artifact import Artifact
    from cpu_pipeline.core.events import Event
    from cpu_pipeline.engine.rebuild import Compared
    from cpu_pipeline.engine.result import BuildResult
    from cpu_pipeline.graph.plan import Node, Plan
    from cpu_pipeline.recipe.reader import RecipeFile
    from cpu_pipeline.stages._base import Verdict

    return [api.Outcome, BuildResult, Artifact, Verdict, Compared, api.Upgrade, RecipeFile, Plan, Node, Event]


def _function(function: Callable[..., object], module: str) -> list[str]:
    signature = _signature(function)
    return [f"### {function.__name__}", "", "```python", f"from {module} import {function.__name__}", "", *signature,
            "```", "", *docstring(doc(function))]  # fmt: skip


def _class(cls: type) -> list[str]:
    rows = [(code(name), code(field.type), prose(field.doc)) for name, field in fields(cls).items()]
    methods = list(_methods(cls))
    lines = [f"### {cls.__name__}", "", f"Module: {code(cls.__module__)}.", "", *docstring(doc(cls))]
    lines += table(("attribute", "type", "meaning"), rows)
    return lines + table(("method or property", "meaning"), methods)


def _methods(cls: type) -> Iterator[tuple[str, str]]:
    for name, value in vars(cls).items():
        inner = getattr(value, "fget", None) or getattr(value, "__func__", value)
        if inspect.isfunction(inner) and not name.startswith("_") and inner.__doc__:
            yield code(name if isinstance(value, property) else f"{name}()"), prose(doc(inner).split("\n\n")[0])


def _errors() -> list[str]:
    from cpu_pipeline.core import errors

    rows = [
        (code(name), str(value.exit_code), code(value.__mro__[1].__name__), prose(doc(value).split("\n\n")[0]))
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.PipelineError)
    ]
    return table(("error", "exit code", "base", "meaning"), rows)


def _signature(function: Callable[..., object]) -> list[str]:
    """Return the lines of a function's signature as its source has them: the same in every version of Python."""
    source = textwrap.dedent(inspect.getsource(function))
    [node] = ast.parse(source).body
    assert isinstance(node, ast.FunctionDef)
    return source.splitlines()[node.lineno - 1 : node.body[0].lineno - 1]


def docstring(text: str) -> list[str]:
    """Return the Markdown of a docstring: paragraphs, and a list for each of its sections."""
    lines: list[str] = []
    for paragraph in text.split("\n\n"):
        title, _, rest = paragraph.partition("\n")
        if title in SECTION:
            lines += [f"{WORDS[title]}:", "", *_entries(textwrap.dedent(rest), named=title in ("Args:", "Raises:")), ""]
        else:
            lines += [prose(paragraph), ""]
    return lines


def _entries(text: str, *, named: bool) -> Iterator[str]:
    entries: list[str] = []
    for line in text.splitlines():
        if line.startswith(" ") and entries:
            entries[-1] += f" {line.strip()}"
        else:
            entries.append(line)
    if not named:
        yield f"- {prose(' '.join(entries))}"
        return
    for entry in entries:
        name, colon, about = entry.partition(": ")
        names = ", ".join(code(part.strip()) for part in name.split(","))
        yield f"- {names}: {prose(about)}" if colon else f"- {prose(entry)}"
