"""A plug-in is known by its distribution, its version and everything that its code is made of."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cpu_pipeline import backends, sources, stages, tasks
from cpu_pipeline.core import registry
from cpu_pipeline.core.artifact import digest_json
from cpu_pipeline.core.errors import StageFailed
from cpu_pipeline.engine import build, keys, plugins
from cpu_pipeline.engine.keys import differences, ingredients
from cpu_pipeline.graph.plan import Context
from cpu_pipeline.stages._base import Stage
from cpu_pipeline.stages.fetch import Fetch

FILES = {
    "keyed_plug/__init__.py": "",
    "keyed_plug/step.py": """\
from typing import ClassVar
from cpu_pipeline.stages import Stage
from keyed_plug.inner.helper import TEXT
import keyed_beside

class Step(Stage):
    takes: ClassVar = {"model": {"keyed"}}
    def gives(self):
        return "keyed"
    def backends(self, formats):
        return frozenset(formats.values())
    def run(self, inputs, out, job):
        (out / "text").write_text(TEXT)
        return {}
""",
    "keyed_plug/inner/helper.py": "from pathlib import Path\nTEXT = Path(__file__).with_name('text.txt').read_text()\n",
    "keyed_plug/inner/text.txt": "one",
    "keyed_plug/keyed.py": "PACKAGES = ()\nVERSION = 1\nENVIRONMENT = 'default'\n",
    "keyed_plug/shelf.py": """\
from typing import ClassVar
from cpu_pipeline.sources import Source

class Shelf(Source):
    wants: ClassVar = frozenset({"model"})
    online: ClassVar = False
    shelf: str
    def identity(self, want):
        return self.shelf
    def fetch(self, want, out, allow):
        pass
""",
    "keyed_beside.py": "import keyed_further\nimport yaml\n",
    "keyed_further.py": "N = 1\n",
    "keyed_apart.py": "N = 1\n",
    "keyed-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: keyed\nVersion: 1.0\n",
    "keyed-1.0.dist-info/entry_points.txt": (
        "[cpu_pipeline.stages]\nkeyed.step = keyed_plug.step\n"
        "[cpu_pipeline.backends]\nkeyed = keyed_plug.keyed\n"
        "[cpu_pipeline.sources]\nshelf = keyed_plug.shelf\n"
    ),
}


def forget() -> None:
    registry.added_entry_points.cache_clear()
    for kind in (backends, sources, stages, tasks):
        kind.registry._modules = None


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Install a distribution that brings a stage, a backend and a source."""
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    forget()
    yield tmp_path
    monkeypatch.undo()
    forget()
    for name in [name for name in sys.modules if name.startswith("keyed_")]:
        del sys.modules[name]


def asked(use: str = "keyed.step", stage: Stage | None = None) -> dict[str, Any]:
    made = stage or stages.get(use)()
    return ingredients(use, made, {"model": "keyed"}, {"model": "a" * 64}, {}, Context(None, None, (), 1))


def test_the_key_of_a_step_names_its_plug_in(home: Path) -> None:
    found = asked()["plugins"]
    assert list(found) == ["keyed"]
    assert found["keyed"]["version"] == "1.0" and len(found["keyed"]["code"]) == 64
    assert list(found["keyed"]["imports"]) == ["PyYAML"]
    assert asked() == asked()


@pytest.mark.parametrize(
    "name",
    [
        "keyed_plug/step.py",
        "keyed_plug/inner/helper.py",
        "keyed_plug/inner/text.txt",
        "keyed_plug/new.json",
        "keyed_beside.py",
        "keyed_further.py",
    ],
)
def test_every_file_of_its_code_counts(home: Path, name: str) -> None:
    before = asked()
    with (home / name).open("a", encoding="utf-8") as file:
        file.write("\n")
    after = asked()
    assert digest_json(before) != digest_json(after)
    [said] = differences(before, after)
    assert said.startswith("plugins.keyed.code: ")


def test_its_version_counts(home: Path) -> None:
    before = asked()
    (home / "keyed-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: keyed\nVersion: 2.0\n")
    forget()
    assert differences(before, asked()) == ["plugins.keyed.version: 1.0 → 2.0"]


def test_the_version_of_what_it_imports_counts(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = asked()
    real = plugins.installed
    monkeypatch.setattr(plugins, "installed", lambda name: "9.9" if name == "PyYAML" else real(name))
    [said] = differences(before, asked())
    assert said.startswith("plugins.keyed.imports.PyYAML: ") and said.endswith(" → 9.9")


@pytest.mark.parametrize(
    "change",
    [
        lambda home: (home / "keyed_apart.py").write_text("N = 2\n"),
        lambda home: (home / "keyed_plug" / "__pycache__").mkdir() or (home / "keyed_plug/__pycache__/x.pyc").touch(),
        lambda home: (home / "keyed_plug" / ".cache").mkdir() or (home / "keyed_plug/.cache/x").touch(),
    ],
    ids=["what it does not import", "compiled files", "hidden files"],
)
def test_what_is_no_part_of_it_does_not_count(home: Path, change: Callable[[Path], Any]) -> None:
    before = asked()
    change(home)
    assert asked() == before


def test_where_it_is_installed_does_not_count(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = plugins.describe("keyed")
    moved = home.parent / "elsewhere"
    home.rename(moved)
    monkeypatch.syspath_prepend(str(moved))
    forget()
    assert plugins.describe("keyed") == before


def test_backends_and_sources_count_as_stages_do(home: Path) -> None:
    fetch = Fetch(source="shelf", fields={"shelf": "top"}, want="model")
    assert list(asked("fetch", fetch)["plugins"]) == ["keyed"]
    assert "plugins" not in asked("load.model", stages.get("load.model")()), "what is ours is known by its version"


def test_what_was_installed_with_it_counts_though_nothing_imports_it(home: Path) -> None:
    record = "keyed_apart.py,,\nkeyed-1.0.dist-info/METADATA,,\n../../bin/keyed,,\n"
    (home / "keyed-1.0.dist-info" / "RECORD").write_text(record)
    forget()
    before = asked()
    (home / "keyed_apart.py").write_text("N = 2\n")
    [said] = differences(before, asked())
    assert said.startswith("plugins.keyed.code: ")


def test_code_that_changes_during_the_build_is_not_kept(home: Path) -> None:
    keyed = keys.Keyed("key", asked())
    assert plugins.changed(keyed.ingredients["plugins"]) == []
    (home / "keyed_further.py").write_text("N = 2\n")
    assert plugins.changed(keyed.ingredients["plugins"]) == ["keyed"]
    with pytest.raises(StageFailed, match="the code of keyed changed during the build"):
        build.require_same(stages.get("keyed.step")(), keyed.ingredients)
