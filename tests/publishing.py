"""A version of a build that is pretended: objects in a real store, repositories that were never asked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cpu_pipeline import api
from cpu_pipeline.core.artifact import digest_file, digest_json
from cpu_pipeline.engine.result import BuildResult
from cpu_pipeline.release.manifest import MANIFEST, read_manifest
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
}
ACCURACY: dict[str, Any] = {
    "rows": 200, "metric": "f1", "confidence": 0.95,
    "metrics": {
        "f1": {"candidate": 0.8123456, "reference": 0.82, "difference": -0.0076544, "low": -0.009, "high": 0.001},
        "exact_match": {"candidate": None, "reference": 0.7, "difference": None, "low": None, "high": None},
    },
    "counts": {side: {"missing": 0, "unknown": 0, "nan": 0} for side in ("candidate", "reference")},
}  # fmt: skip


RECORDED: dict[str, list[dict[str, Any]]] = json.loads(
    (Path(__file__).parent / "stages" / "recorded_facts.json").read_text(encoding="utf-8")
)
"""Stage -> facts that it wrote of some tiny model."""


class Made:
    """Pretends builds below a folder."""

    def __init__(self, home: Path) -> None:
        self.home = home
        home.mkdir(exist_ok=True)

    def write(self, **recipe: Any) -> Path:
        """Write the recipe, with what is to be otherwise."""
        path = self.home / "toy.yaml"
        path.write_text(json.dumps({**RECIPE, **recipe}), encoding="utf-8")
        (self.home / "rows.jsonl").write_text('{"id": "1"}\n')
        return path

    def build(
        self,
        files: Mapping[str, str] | None = None,
        content: str = "weights",
        host: Any = None,
        place: str = "",
        **recipe: Any,
    ) -> tuple[BuildResult, Store]:
        """Put an object for each step of a recipe into a store.

        `files` join those of `int8`, which was made in the environment `place`; `host` is where the gate ran.
        """
        built, store = BuildResult(api.plan(api.load_recipe(self.write(**recipe)))), Store(self.home / "store")
        self.fill(built, store, files, content, host, place)
        return built, store

    def fill(
        self, built: BuildResult, store: Store, files: Mapping[str, str] | None = None, content: str = "weights",
        host: Any = None, place: str = "",
    ) -> None:  # fmt: skip
        """Put an object for each step of a plan into a store, and judge what the gates are said to have measured."""
        with leased(store) as lease:
            for number, node in enumerate(built.plan.nodes.values()):
                key = digest_json([node.id, content, dict(files or {}), host, place])
                work = lease.work(key)
                (work / "sub").mkdir()
                (work / "sub" / "file.txt").write_text(f"{node.id} {content}\n")
                if node.id == "model:files":
                    (work / "model.safetensors").write_text(content)
                    (work / "config.json").write_text("{}")
                if node.gives == "rows":
                    (work / "rows.jsonl").write_text(f'{{"id": "{content}"}}\n')
                for file, text in (files or {}).items() if node.id == "int8" else ():
                    (work / file).write_text(text)
                facts = ACCURACY if node.use == "validate.accuracy" else dict(RECORDED[node.use][0])
                facts |= {"rows": 200} if node.gives == "rows" else {}
                run = {"seconds": 1.5, "peak_memory": 3 << 20, "when": 1_700_000_000 + 100 * number}
                needed: dict[str, Any] = {"stage": node.use, "packages": {"onnx": "1.23"}, "backends": {}}
                needed |= {"host": host} if node.id == "accuracy" else {}
                if place and node.id == "int8":
                    needed["environment"] = {"name": place, "pins": "0" * 64}
                if node.id == "data.calibration:files":
                    needed["identity"] = {"what": {"endpoint": "https://joe:hush@hub.example/?token=hush"}}
                made = lease.commit(key, needed, node.gives, facts, run, work)
                built.artifacts[node.id] = made
                built.keys[node.id] = key
                built.records[node.id] = made.record
                if verdicts := node.stage.judge(node.stage.parse_facts(facts)):
                    built.verdicts[node.id] = verdicts

    def put(self, out: Path | None = None, **how: Any) -> Path:
        """Build, and put the outputs out; return the version's folder."""
        return self.publish(*self.build(**how), out)

    def publish(self, built: BuildResult, store: Store, out: Path | None = None) -> Path:
        """Put the outputs of a build out; return the version's folder."""
        found = publish(built, store, out or self.home / "out")
        assert found is not None
        return found[0]


def dressed(folder: Path, files: Mapping[str, str | None] | None = None, **manifest: Any) -> None:
    """Change files of a version (None removes one), and its manifest so that it lists them as they are."""
    said = read_manifest(folder)
    for name, text in (files or {}).items():
        path = folder / name
        if text is None:
            path.unlink()
            del said["files"][name]
        else:
            path.write_text(text, encoding="utf-8")
            said["files"][name] = [path.stat().st_size, digest_file(path)]
    (folder / MANIFEST).write_text(json.dumps({**said, **manifest}), encoding="utf-8")
