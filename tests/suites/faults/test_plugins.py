"""B18: a plug-in whose code or version changed is run again, and named in the manifest."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from project import PLUGIN, ROOT, ProjectFixture


@pytest.fixture
def plugin(bench: ProjectFixture, tmp_path: Path) -> Path:
    """Give the project a copy of the plug-in, to be changed."""
    home = tmp_path / "plugin"
    shutil.copytree(PLUGIN, home, ignore=shutil.ignore_patterns("__pycache__"))
    bench.env["PYTHONPATH"] = os.pathsep.join([str(home), str(ROOT)])
    return home


def manifest(bench: ProjectFixture) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((bench.out / "small" / "latest" / "manifest.json").read_text())
    return found


def test_a_plug_in_that_changed_is_run_again(bench: ProjectFixture, plugin: Path) -> None:
    recipe = bench.recipe({"id": "one"}, {"id": "gate", "use": "faulty.gate"})
    first = bench.built(recipe)
    assert "one" in first.json["built"] and bench.built(recipe).json["built"] == []
    told = manifest(bench)
    assert told["plugins"]["faulty"]["version"] == "1" and told["packages"]["faulty"] == "1"

    helper = plugin / "faulty" / "_acts.py"
    helper.write_text(helper.read_text() + "\nN = 2\n")
    plan = bench.call("plan", recipe, "--store", bench.store).expect(0)
    assert "plugins.faulty.code" in plan.out
    assert bench.built(recipe).json["built"] == ["one", "gate"]
    # What it writes is the same, so the version of before stays in service.
    assert bench.built(recipe).json["built"] == []

    (plugin / "faulty" / "table.json").write_text("{}")
    assert bench.built(recipe).json["built"] == ["one", "gate"]

    metadata = plugin / "faulty-1.dist-info" / "METADATA"
    metadata.write_text(metadata.read_text().replace("Version: 1", "Version: 2.0"))
    copy = plugin / "faulty" / "copy.py"
    copy.write_text(copy.read_text().replace('f"{self.text}\\n"', 'f"{self.text} of version 2\\n"'))

    said = bench.run(recipe).expect(0)
    assert "plugins.faulty.version: 1 → 2.0" in said.err
    told = manifest(bench)
    assert told["plugins"]["faulty"]["version"] == "2.0" and told["packages"]["faulty"] == "2.0"
    bench.call("verify", bench.out / "small" / "latest").expect(0)
    statement = json.loads((bench.out / "small" / "latest" / "provenance.json").read_text())
    named = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    [mine] = [each for each in named if "faulty" in each.get("uri", "")]
    assert mine["digest"] == {"pluginCode": told["plugins"]["faulty"]["code"]}
