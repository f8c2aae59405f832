#!/usr/bin/env python3
"""Print the tests of what changed since a commit, the nearest first.

Usage: .ci/changed.py [COMMIT]

Without COMMIT: since the branch left `main`; on `main` itself, since the last commit. Files that git does not track
yet count as changed. The order is: changed tests, tests named like a changed module, the fingerprints of stages, tests
that import a changed module.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "cpu_pipeline"
FINGERPRINTS = "tests/test_fingerprints.py"
"""Reads the code of the whole package, so no import shows that a change concerns it."""


def git(root: Path, *arguments: str) -> list[str]:
    """Run git and return the lines it printed; none where it fails."""
    done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False)
    return done.stdout.splitlines() if done.returncode == 0 else []


def base(root: Path) -> str:
    """Return the commit that the work is compared with."""
    for main in ("main", "origin/main"):
        if left := git(root, "merge-base", main, "HEAD"):
            return left[0]
    return "HEAD"


def changed(root: Path, since: str) -> list[str]:
    """List the files that differ from a commit or are new; deleted files are left out.

    Raises:
        SystemExit: git knows no such commit.
    """
    if not git(root, "rev-parse", "--verify", "--quiet", f"{since}^{{commit}}"):
        raise SystemExit(f"{since} is not a commit of this clone")
    differ = git(root, "diff", "--name-only", "--diff-filter=d", since)
    return sorted({*differ, *git(root, "ls-files", "--others", "--exclude-standard")})


def module(path: str) -> str:
    """Return the name by which tests import a file: `models` for tests/models.py."""
    parts = path.removesuffix(".py").removesuffix("/__init__").split("/")
    return ".".join(parts[1:] if parts[0] == "tests" else parts)


def imports(path: Path) -> Iterator[str]:
    """Name what a file imports, wherever in the file it does: modules, and names that may be modules."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def tests(root: Path, files: list[str]) -> list[str]:
    """Return the tests of these files, the nearest first; none of the suites, which take minutes."""
    known = {
        path.relative_to(root).as_posix(): path
        for path in sorted((root / "tests").rglob("test_*.py"))
        if "suites" not in path.parts
    }
    code = [name for name in files if name.endswith(".py") and name.startswith((f"{PACKAGE}/", "tests/"))]
    near = [name for name in code if name in known]
    for name in code:
        *folders, stem = name.removesuffix(".py").split("/")[1:]
        stem = f"test_{stem.lstrip('_')}.py"
        near += [test for test in ("/".join(["tests", *folders, stem]), f"tests/{stem}") if test in known]
    if FINGERPRINTS in known and any(name.startswith(f"{PACKAGE}/") for name in code):
        near.append(FINGERPRINTS)
    modules = {module(name) for name in code} - {PACKAGE}
    counts = {test: len(modules & set(imports(path))) for test, path in known.items()}
    importers = sorted((test for test in known if counts[test]), key=lambda test: -counts[test])
    return list(dict.fromkeys(near + importers))


if __name__ == "__main__":
    print(*tests(ROOT, changed(ROOT, sys.argv[1] if len(sys.argv) > 1 else base(ROOT))), sep="\n")
