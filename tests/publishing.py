"""Versions of pretended builds: real objects in a real store, from repositories that are never asked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from cpu_pipeline import api
from cpu_pipeline.core.artifact import digest_file, digest_json
from cpu_pipeline.engine.result import BuildResult
from cpu_pipeline.graph.plan import Node
from cpu_pipeline.release.manifest import MANIFEST, dump, read_manifest
from cpu_pipeline.release.publish import publish
from cpu_pipeline.store.lease import leased
from cpu_pipeline.store.local import Store

MODEL, ROWS = "a" * 40, "12" * 19 + "e5"
RECIPE: dict[str, Any] = {
    "about": "A toy.",
    "model": {"hub": "acme/small", "revision": MODEL},
    "task": "question-answering",
    "data": {
        "calibration": {"hub": "acme/rows", "revision": ROWS, "split": "train"},
        "validation": {"file": "rows.jsonl"},
    },
    "stages": [
        {"id": "float", "use": "export.onnx"},
        {"id": "int8", "use": "quantize.onnx", "with": {"mode": "static", "per_channel": True}},
        {"id": "accuracy", "use": "validate.accuracy", "from": {"reference": "model"}, "with": {"max_drop": 0.01}},
    ],
    "outputs": ["float", "int8"],
    "unchecked": {"float": "int8 is what is served"},
}
ACCURACY: dict[str, Any] = {
    "rows": 200, "metric": "f1", "confidence": 0.95,
    "metrics": {
        "f1": {
            "candidate": 0.8123456, "reference": 0.82, "difference": -0.0076544, "low": -0.009, "high": 0.001,
            "lower": -0.0085, "upper": 0.0005, "method": "bca", "deviation": 0.05, "gained": 3, "lost": 5,
        },
        "exact_match": {"candidate": None, "reference": 0.7, "difference": None, "low": None, "high": None},
    },
    "counts": {side: {"missing": 0, "unknown": 0, "nan": 0} for side in ("candidate", "reference")},
}  # fmt: skip


RECORDED: dict[str, list[dict[str, Any]]] = json.loads(
    (Path(__file__).parent / "stages" / "recorded_facts.json").read_text(encoding="utf-8")
)
"""Stage -> facts that it wrote of some tiny model."""


class PretendedProject:
    """A recipe, a store and versions of it, whose steps are pretended instead of run."""

    def __init__(self, home: Path) -> None:
        self.home = home
        home.mkdir(exist_ok=True)

    def write(self, **recipe: Any) -> Path:
        """Write the recipe; the arguments replace its keys."""
        path = self.home / "toy.yaml"
        written = {**RECIPE, **recipe}
        steps = {step["id"] for step in written["stages"]}
        written["unchecked"] = {name: why for name, why in written["unchecked"].items() if name in steps}
        path.write_text(json.dumps(written), encoding="utf-8")
        (self.home / "rows.jsonl").write_text('{"id": "1"}\n')
        return path

    def build(
        self,
        *,
        files: Mapping[str, str] | None = None,
        content: str = "weights",
        host: Any = None,
        environment: str = "",
        **recipe: Any,
    ) -> tuple[BuildResult, Store]:
        """Pretend a build of the recipe; the arguments are those of `pretend_steps`, and keys of the recipe."""
        plan = api.plan(api.load_recipe(self.write(**recipe)))
        built, store = BuildResult(replace(plan, withheld=None, unchecked={})), Store(self.home / "store")
        self.pretend_steps(built, store, files=files, content=content, host=host, environment=environment)
        return built, store

    def pretend_steps(
        self,
        built: BuildResult,
        store: Store,
        *,
        files: Mapping[str, str] | None = None,
        content: str = "weights",
        host: Any = None,
        environment: str = "",
    ) -> None:
        """Put an object for each step of a plan into a store, and judge it.

        Args:
            built: filled with artifacts, keys, records and verdicts.
            store: takes the objects.
            files: written into the object of `int8`, beside what every step writes.
            content: what every step writes.
            host: the machine on which the gate `accuracy` ran.
            environment: the environment in which `int8` was built; the default one when empty.
        """
        files = dict(files or {})
        with leased(store) as lease:
            for number, node in enumerate(built.plan.nodes.values()):
                key = digest_json([node.id, content, files, host, environment])
                work = lease.work(key)
                _write_object(node, work, content, files if node.id == "int8" else {})
                ingredients = _ingredients(node, host, environment)
                run = {"seconds": 1.5, "peak_memory": 3 << 20, "when": 1_700_000_000 + 100 * number}
                facts = _facts(node)
                artifact = lease.commit(key, ingredients, node.gives, facts, run, work)
                built.artifacts[node.id] = artifact
                built.keys[node.id] = key
                built.records[node.id] = artifact.record
                if verdicts := node.stage.judge(node.stage.parse_facts(facts)):
                    built.verdicts[node.id] = verdicts

    def published(self, out: Path | None = None, **how: Any) -> Path:
        """Build and publish; return the version's directory."""
        return self.publish(*self.build(**how), out)

    def publish(self, built: BuildResult, store: Store, out: Path | None = None) -> Path:
        """Publish the outputs of a build; return the version's directory."""
        found = publish(built, store, out or self.home / "out")
        assert found is not None
        return found[0]


def _write_object(node: Node, work: Path, content: str, files: Mapping[str, str]) -> None:
    (work / "sub").mkdir()
    (work / "sub" / "file.txt").write_text(f"{node.id} {content}\n")
    if node.id == "model:files":
        (work / "model.safetensors").write_text(content)
        (work / "config.json").write_text("{}")
    if node.gives == "rows":
        (work / "rows.jsonl").write_text(f'{{"id": "{content}"}}\n')
    for file, text in files.items():
        (work / file).write_text(text)


def _facts(node: Node) -> dict[str, Any]:
    """Return facts as the node's stage writes them."""
    facts = ACCURACY if node.use == "validate.accuracy" else RECORDED[node.use][0]
    return {**facts, **({"rows": 200} if node.gives == "rows" else {})}


def _ingredients(node: Node, host: Any, environment: str) -> dict[str, Any]:
    found: dict[str, Any] = {"stage": node.use, "packages": {"onnx": "1.23"}, "backends": {}}
    if node.id == "accuracy":
        found["host"] = host
    if environment and node.id == "int8":
        found["environment"] = {"name": environment, "pins": "0" * 64}
    if node.id == "data.calibration:files":
        found["identity"] = {"what": {"endpoint": "https://joe:hush@hub.example/?token=hush"}}
    return found


def change_version(folder: Path, files: Mapping[str, str | None] | None = None, **manifest: Any) -> None:
    """Change files of a version (None removes one), and list them in its manifest as they are then.

    Args:
        folder: the version's directory.
        files: name -> its new text.
        manifest: replaces keys of the manifest.
    """
    said = read_manifest(folder)
    for name, text in (files or {}).items():
        path = folder / name
        if text is None:
            path.unlink()
            del said["files"][name]
        else:
            path.write_text(text, encoding="utf-8")
            said["files"][name] = [path.stat().st_size, digest_file(path)]
    (folder / MANIFEST).write_text(dump({**said, **manifest}), encoding="utf-8")
