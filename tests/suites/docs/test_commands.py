"""Every command of README, tutorial and how-to runs as it is written, and prints what the page shows.

Each page runs from top to bottom in a copy of the clone of its own, with a copy of one store in which the quickstart is
built. Numbers and digests may differ from those of the page; words may not. `--accept` writes what was printed into the
pages.
"""

from __future__ import annotations

import difflib
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from pages import ROOT, Block, blocks, pages

PAGES = [ROOT / "README.md", ROOT / "docs" / "index.md", *pages("tutorial", "how-to")]
TRIES = 3
"""How often the quickstart's latency may be measured: a busy machine is no fault of a page."""
GATE_FAILED = 3
LEFT_OUT = "..."
"""A line of a shown output that stands for any number of lines."""
_COPIED = ("recipes", "pipelines", "docs", "schema.json", ".pre-commit-hooks.yaml", "pyproject.toml", "LICENSE")


@dataclass(frozen=True)
class Clone:
    """A copy of the project in which a page's commands run."""

    root: Path
    store: Path

    def run(self, script: str) -> subprocess.CompletedProcess[str]:
        """Run a script with bash; it stops at its first error. Standard error is part of the output."""
        home = self.root.parent / "home"
        path = [str(_bin(self.root.parent)), str(Path(sys.executable).parent), os.environ["PATH"]]
        home.mkdir(exist_ok=True)
        hidden = {"CPU_PIPELINE_STORE_REMOTE", "GITHUB_STEP_SUMMARY", "HF_TOKEN"}
        env = {key: value for key, value in os.environ.items() if key not in hidden} | {
            "PATH": os.pathsep.join(path),
            "CPU_PIPELINE_STORE": str(self.store),
            "PYTHONPATH": str(ROOT),
            "HOME": str(home),
            "XDG_CACHE_HOME": str(home / ".cache"),
            "HF_HUB_OFFLINE": "1",
            "COLUMNS": "100",
        }
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=self.root, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
            timeout=600,
        )  # fmt: skip


def _bin(folder: Path) -> Path:
    """Make a directory with the command, for an interpreter that has it in no environment of its own."""
    found = folder / "bin"
    if not found.exists():
        found.mkdir()
        command = found / "cpu-pipeline"
        python = shlex.quote(sys.executable)
        command.write_text(f'#!/bin/sh\nexec {python} -m cpu_pipeline "$@"\n', encoding="utf-8")
        command.chmod(0o755)
    return found


def copy_project(into: Path) -> Path:
    """Copy what a clone has besides code and tests."""
    into.mkdir(parents=True)
    for name in _COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, into / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, into / name)
    return into


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """Build the quickstart once."""
    folder = tmp_path_factory.mktemp("quickstart")
    clone = Clone(copy_project(folder / "cpu-pipeline"), folder / "store")
    for number in range(TRIES):
        done = clone.run(f"cpu-pipeline run recipes/quickstart.yaml {'--remeasure' if number else ''}")
        if done.returncode != GATE_FAILED:
            break
    assert done.returncode == 0, done.stdout
    return clone


@pytest.fixture
def clone(built: Clone, tmp_path: Path) -> Clone:
    """Return a fresh copy of the project, with a copy of the store."""
    shutil.copytree(built.store, tmp_path / "store", symlinks=True)
    return Clone(copy_project(tmp_path / "cpu-pipeline"), tmp_path / "store")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_does_what_it_shows(page: Path, clone: Clone, request: pytest.FixtureRequest) -> None:
    printed = ""
    accepted: list[tuple[Block, str]] = []
    for block in blocks(page):
        if "file" in block.marks:
            path = clone.root / block.marks["file"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, encoding="utf-8")
            if path.parent.name == "recipes":
                done = clone.run(f"cpu-pipeline check --recipe-only {block.marks['file']}")
                assert done.returncode == 0, f"{block.name}: {done.stdout}"
        elif "output" in block.marks:
            if request.config.getoption("--accept"):
                accepted.append((block, nearest(block.text, printed)))
            else:
                compare(block, printed)
        elif block.language == "bash" and not {"not run", "test command"} & block.marks.keys():
            done = clone.run(block.text)
            printed = plain(done.stdout, clone)
            assert done.returncode == int(block.marks.get("exit", 0)), f"{block.name}: {printed}"
    if accepted:
        write(page, accepted)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_command_that_is_not_run_has_a_reason(page: Path) -> None:
    for block in blocks(page):
        if "not run" in block.marks:
            assert block.language in ("bash", "python") and len(block.marks["not run"].split()) > 2, block.name
        assert block.language, f"{block.name}: name the language of the block; text if it is none"


def plain(text: str, clone: Clone) -> str:
    """Take the paths of this run out of what was printed, and lines about other builds on the machine."""
    text = re.sub(r"^waiting .*\n", "", text, flags=re.MULTILINE)
    return text.replace(str(clone.root) + "/", "").replace(str(clone.store), "STORE").replace(str(clone.root), ".")


def masked(line: str) -> str:
    """Replace digests and numbers, and let columns be of any width."""
    line = re.sub(r"\b\d{8}T\d{6}\.\d+-[0-9a-f]+\b", "RUN", line)
    line = re.sub(r"\b(?=[0-9a-f]*\d)[0-9a-f]{7,64}\b", "DIGEST", line)
    line = re.sub(r"[-+]?\d+(?:[.,:]\d+)*(?:e[-+]?\d+)?", "N", line)
    line = re.sub(r"\bN (?:[KMG]iB|B|bytes)\b", "N SIZE", line)
    line = re.sub(r"\bN (?:second|minute|hour)s? ago\b", "N AGO", line)
    return re.sub(r"\s+|-{3,}", " ", line).strip()


def compare(block: Block, printed: str) -> None:
    """Check that the lines of a block were printed: these and no others, but where it leaves lines out."""
    shown = [masked(line) for line in block.text.splitlines()]
    lines = [masked(line) for line in printed.splitlines()]
    differences = difflib.unified_diff(shown, lines, "page", "printed", lineterm="")
    assert matches(shown, lines), "\n".join([f"{block.name}: the page shows another output", *differences])


def matches(shown: Sequence[str], lines: Sequence[str]) -> bool:
    """Say whether lines are those shown; `...` stands for any of them."""
    pattern = "".join(r"(?:.*\n)*?" if line == LEFT_OUT else re.escape(line) + "\n" for line in shown)
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in lines)) is not None


def nearest(shown: str, printed: str) -> str:
    """Choose what was printed; where the page leaves lines out, those that are most like the page's."""
    lines = printed.splitlines()
    if matches([masked(line) for line in shown.splitlines()], [masked(line) for line in lines]):
        return shown
    if LEFT_OUT not in shown.splitlines():
        return printed
    return "".join(f"{line}\n" for line in _chosen(shown.splitlines(), lines))


def _chosen(shown: Sequence[str], lines: Sequence[str]) -> Iterator[str]:
    first = 0
    for line in shown:
        if line == LEFT_OUT:
            yield line
            continue
        likeness = [difflib.SequenceMatcher(None, line, other).ratio() for other in lines[first:]]
        if likeness:
            first += likeness.index(max(likeness)) + 1
            yield lines[first - 1]


def write(page: Path, accepted: Sequence[tuple[Block, str]]) -> None:
    """Write outputs into a page, last block first."""
    lines = page.read_text(encoding="utf-8").splitlines()
    for block, text in reversed(accepted):
        lines[block.first : block.last] = text.splitlines()
    page.write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("built  int8  1.8 s", "built     int8  12 s", True),
        ("wrote artifacts/a/dd193ebed863", "wrote artifacts/a/0a193ebed86f", True),
        ("20261130T104213.629406-8a8dd9  run", "20261201T000000.1-abcdef  run", True),
        ("fresh 1 seconds ago", "fresh 2 minutes ago", True),
        ("a\n...\nd", "a\nb\nc\nd", True),
        ("a\n...\nd", "a\nd", True),
        ("a\nd", "a\nb\nd", False),
        ("built int8", "cached int8", False),
        ("a", "a\nb", False),
    ],
)
def test_what_is_the_same_output(shown: str, printed: str, same: bool) -> None:
    lines = ([masked(line) for line in text.splitlines()] for text in (shown, printed))
    assert matches(*lines) is same
