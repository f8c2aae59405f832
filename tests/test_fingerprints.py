"""A stage, task, backend or source whose code changed must say whether its output changed too.

When this fails: raise `version` (`VERSION` of a backend) if the output differs, otherwise leave it; then run
`pytest tests/test_fingerprints.py --accept`. Each fingerprint covers the module and everything it imports from this
package, followed through, for a helper's change is its users' change. The contracts and errors are left out: they say
what is handed over, and what they compute (batches, rows, artifacts) is followed.
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from conftest import ROOT

from cpu_pipeline import backends, sources, stages, tasks

GOLDEN = Path(__file__).with_name("fingerprints.json")
PACKAGE = "cpu_pipeline"
SHELVES = ("stages", "tasks", "backends", "sources")
CONTRACTS = {f"{PACKAGE}.core.errors", *(f"{PACKAGE}.{s}{n}" for s in SHELVES for n in ("", "._base"))}
"""Left out: abstract classes, types, registries and error texts."""


def path_of(module: str, root: Path = ROOT) -> Path | None:
    """Find a module's file; None for what is not in the package."""
    plain = root.joinpath(*module.split(".")).with_suffix(".py")
    whole = root.joinpath(*module.split("."), "__init__.py")
    return plain if plain.is_file() else whole if whole.is_file() else None


def bare(source: str) -> ast.Module:
    """Parse code and take out its docstrings; comments and layout are no part of the tree anyway."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [  # type: ignore[attr-defined]  # whatever has a body can be given another
                n
                for n in body
                if not (
                    isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant) and isinstance(n.value.value, str)
                )
            ]
    return tree


def imports(tree: ast.Module, root: Path = ROOT) -> Iterator[str]:
    """Name the modules of this package that code imports when it runs, wherever in the file it does."""
    for node in running(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.partition(".")[0] == PACKAGE)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == PACKAGE:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if path_of(inner, root) else str(node.module)


def running(node: ast.AST) -> Iterator[ast.AST]:
    """Walk code, but for what only a type checker reads."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING":
            continue
        yield child
        yield from running(child)


def reached(module: str, root: Path = ROOT) -> set[str]:
    """Name a module and everything it imports from this package, followed through."""
    found: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in found or name in CONTRACTS:
            continue
        found.add(name)
        if path := path_of(name, root):
            waiting.extend(imports(ast.parse(path.read_text(encoding="utf-8")), root))
    return found


@cache
def digest(module: str, root: Path = ROOT) -> str:
    path = path_of(module, root)
    code = None if path is None else shape(bare(path.read_text(encoding="utf-8")))
    return hashlib.sha256(json.dumps(code).encode()).hexdigest()


def shape(node: object) -> object:
    """Write a tree as JSON, without what is empty: what `ast.dump` writes differs between versions of Python."""
    if isinstance(node, ast.AST):
        fields = {name: shape(value) for name, value in ast.iter_fields(node) if value not in (None, [])}
        if isinstance(node, ast.JoinedStr):
            fields["values"] = [shape(part) for part in node.values if not is_empty(part)]
        return [type(node).__name__, fields]
    return [shape(item) for item in node] if isinstance(node, list) else repr(node)


def is_empty(node: ast.AST) -> bool:
    """Say whether it is an empty text, which some versions of Python put into f-strings."""
    return isinstance(node, ast.Constant) and node.value == ""


def fingerprint(module: str, root: Path = ROOT) -> str:
    """Digest the code that a module runs, its own and this package's, blind to comments, docstrings and layout."""
    whole = "".join(f"{name} {digest(name, root)}\n" for name in sorted(reached(module, root)))
    return hashlib.sha256(whole.encode()).hexdigest()[:16]


def present() -> dict[str, list[object]]:
    """Say for everything that has a version which it is, and what its code is."""
    found: dict[str, list[object]] = {}
    for name in stages.names(internal=True):
        cls = stages.get(name)
        found[f"stage {name}"] = [cls.version, fingerprint(cls.__module__)]
    for name in tasks.names():
        task = tasks.get(name)
        found[f"task {name}"] = [task.version, fingerprint(task.__module__)]
    for name in backends.names():
        found[f"backend {name}"] = [backends.get(name).VERSION, fingerprint(f"{PACKAGE}.backends.{name}")]
    for name in sources.names():
        source = sources.get(name)
        found[f"source {name}"] = [source.version, fingerprint(source.__module__)]
    return found


def test_changed_code_is_accounted_for(request: pytest.FixtureRequest) -> None:
    now = present()
    if request.config.getoption("--accept"):
        lines = ",\n".join(f' "{name}": {json.dumps(said)}' for name, said in sorted(now.items()))
        GOLDEN.write_text("{\n" + lines + "\n}\n", encoding="utf-8", newline="\n")
    accepted = json.loads(GOLDEN.read_text(encoding="utf-8"))
    changed = sorted(name for name in now.keys() | accepted.keys() if now.get(name) != accepted.get(name))
    says = "raise the version of what now writes or answers differently, then run with --accept"
    assert not changed, f"{', '.join(changed)}: {says}"


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """Write a package of three modules: one imports another at its top, and that a third inside a function."""
    home = tmp_path / PACKAGE
    home.mkdir()
    (home / "__init__.py").write_text("")
    (home / "one.py").write_text("from cpu_pipeline.two import add\n\ndef run() -> int:\n    return add(1)\n")
    (home / "two.py").write_text(
        "def add(n: int) -> int:\n    from cpu_pipeline import three\n    return n + three.N\n"
    )
    (home / "three.py").write_text("N = 3\n")
    return home


def again(package: Path, name: str, text: str) -> tuple[str, str]:
    """Fingerprint `one` before and after a file is changed."""
    before = fingerprint(f"{PACKAGE}.one", package.parent)
    (package / name).write_text(text)
    digest.cache_clear()
    return before, fingerprint(f"{PACKAGE}.one", package.parent)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("one.py", "from cpu_pipeline.two import add\n\ndef run() -> int:\n    return add(2)\n"),
        ("two.py", "def add(n: int) -> int:\n    from cpu_pipeline import three\n    return n - three.N\n"),
        ("three.py", "N = 4\n"),
        ("three.py", "N = '3'\n"),
    ],
)
def test_sees_every_change_that_can_matter(package: Path, name: str, text: str) -> None:
    before, after = again(package, name, text)
    assert before != after


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "one.py",
            '"""One."""\nfrom cpu_pipeline.two import add\n\n\ndef run() -> int:\n    """Run."""\n    return add(1)\n',
        ),
        (
            "two.py",
            "def add(n: int) -> int:\n    # why\n    from cpu_pipeline import three\n    return (n + three.N)\n",
        ),
        ("three.py", 'N = 3\n"""Three."""\n'),
        ("four.py", "N = 4\n"),
    ],
)
def test_is_blind_to_comments_docstrings_and_layout(package: Path, name: str, text: str) -> None:
    before, after = again(package, name, text)
    assert before == after


def test_does_not_follow_what_only_a_type_checker_reads(package: Path) -> None:
    text = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from cpu_pipeline import two\n"
    (package / "one.py").write_text(text)
    assert reached(f"{PACKAGE}.one", package.parent) == {f"{PACKAGE}.one"}


def test_follows_helpers_but_not_contracts() -> None:
    found = reached(f"{PACKAGE}.stages.validate.accuracy")
    helpers = ("runtime.paired", "core.jsonl", "core.figures", "stages.validate._gate")
    assert {f"{PACKAGE}.{name}" for name in helpers} <= found
    assert not CONTRACTS & found
    for name in stages.names(internal=True):
        machines = {f"{PACKAGE}.{n}" for n in ("engine", "graph", "store", "cli", "release")}
        assert not machines & reached(stages.get(name).__module__)
