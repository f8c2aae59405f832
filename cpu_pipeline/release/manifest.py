"""manifest.json of a version: recipe, steps, outputs and files. Written, read, checked."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from cpu_pipeline.core import host
from cpu_pipeline.core.artifact import digest_file, digest_json
from cpu_pipeline.engine import environments
from cpu_pipeline.engine.packages import installed, made_with
from cpu_pipeline.engine.result import BuildResult
from cpu_pipeline.recipe.spec import Recipe

MANIFEST_FORMAT = 2
"""Raised when a reader of the format before would misread a manifest, or take it for damaged. 2: has its own digest."""
DIGEST = "sha256"
"""Key of a manifest with the digest of the rest of it."""


def describe(built: BuildResult) -> dict[str, Any]:
    """Return the manifest of a version without its files: recipe, steps, outputs, checks, packages and this machine.

    `run` of a step holds the time of its run; nothing else names a time, and nothing names a path of this machine.
    """
    plan = built.plan
    steps: dict[str, Any] = {}
    distributions: set[str] = set()
    environments_used: set[str] = set()
    plugins: dict[str, Any] = {}
    isa: dict[str, None] = {}
    for node in plan.nodes.values():
        artifact = built.artifacts[node.id]
        record = built.records[node.id]
        ingredients = record.ingredients
        packages, elsewhere = made_with(ingredients)
        distributions |= packages.keys()
        environments_used |= elsewhere
        plugins |= ingredients.get("plugins", {})
        isa |= dict.fromkeys([*(ingredients.get("host") or {}).get("isa", ()), *(ingredients.get("target") or ())])
        steps[node.id] = {
            "use": node.use,
            "inputs": {**node.inputs, **{f"data.{role}": source for role, source in node.data.items()}},
            "options": node.stage.model_dump(mode="json", exclude={"fields"}),
            "key": built.keys[node.id],
            "digest": artifact.digest,
            "format": artifact.format,
            "facts": artifact.facts,
            "run": dict(record.run),
        }
    outputs = {n: {"format": built.artifacts[n].format, "digest": built.artifacts[n].digest} for n in plan.outputs}
    fields = ("check", "passed", "outcome", "value", "bound", "says")
    checks = {
        node: [
            {name: getattr(verdict, name) for name in fields} | ({"waived": verdict.waived} if verdict.waived else {})
            for verdict in found
        ]
        for node, found in built.verdicts.items()
    }
    described = {
        "manifest": MANIFEST_FORMAT,
        "name": plan.name,
        "recipe": _written(plan.recipe),
        "resolved": _written(plan.resolved),
        "outputs": outputs,
        "checks": checks,
        "steps": steps,
        "packages": {name: installed(name) for name in sorted({*distributions, "cpu-pipeline"})},
        "environments": {name: _environment(name) for name in sorted(environments_used)},
        "isa": list(isa),
        "host": host.machine(),
    }
    if plugins:
        described["plugins"] = dict(sorted(plugins.items()))
    if plan.withheld is not None:
        described["withheld"] = list(plan.withheld.reasons)
    if plan.unchecked:
        described["unchecked"] = dict(plan.unchecked)
    if plan.sets:
        described["set"] = list(plan.sets)
    if plan.promoted_anyway is not None:
        described["promoted_anyway"] = plan.promoted_anyway
    return described | {"version": version_of(described)}


def _written(recipe: Recipe) -> dict[str, Any]:
    return recipe.model_dump(mode="json", by_alias=True, exclude_defaults=True)


def version_of(manifest: Mapping[str, Any]) -> str:
    """Return the version of a manifest: a digest of recipe, steps and outputs, and of nothing else."""
    parts = ("use", "inputs", "options", "digest")
    meant = {name: {part: step[part] for part in parts} for name, step in manifest["steps"].items()}
    return digest_json({"recipe": manifest["recipe"], "steps": meant, "outputs": manifest["outputs"]})[:12]


def _environment(name: str) -> dict[str, Any]:
    environment = environments.get(name)
    return {"pins": environment.digest, "packages": dict(environment.pins), "warning": environment.warning}


def artifact_files(manifest: Mapping[str, Any], output: str) -> list[str]:
    """List the files of an output that are the artifact, relative to its directory: all but the card beside them.

    The manifest's digest of the output is the digest of these.
    """
    own = [name.removeprefix(f"{output}/") for name in manifest["files"] if name.startswith(f"{output}/")]
    return sorted(name for name in own if name != manifest.get("cards", {}).get(output))


MANIFEST = "manifest.json"
ASIDE = frozenset({"bisect", "failed", "sensitivity", "set", "trial", "unchecked", "until"})
"""Directories of `artifacts/NAME/` that hold no version: what was built there is never put into service."""


VERSION = re.compile(r"[0-9a-f]{12}")
"""The name of a version."""


def output_digests(version: Path) -> dict[str, str] | None:
    """Map the outputs of a version to their digests; None when it is gone, or its manifest can't be read."""
    try:
        return {name: output["digest"] for name, output in read_manifest(version)["outputs"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def edited(version: Path) -> list[str]:
    """List the files that a version's manifest does not list as they are; hashes every file.

    A version without a readable manifest counts as edited, and so does one whose manifest is that of another version.
    """
    if (version / MANIFEST).is_symlink() or not (version / MANIFEST).is_file():
        return [MANIFEST]
    try:
        manifest = read_manifest(version)
        files = dict(manifest["files"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return [MANIFEST]
    if is_newer(manifest):
        return [f"{MANIFEST}, written by a newer cpu-pipeline"]
    if VERSION.fullmatch(version.name) and manifest.get("version", version.name) != version.name:
        return [f"{MANIFEST} of another version"]
    paths = {p.relative_to(version).as_posix(): p for p in version.rglob("*")}
    found = {name: p for name, p in paths.items() if p.is_symlink() or not p.is_dir()}
    # Folders are not listed: they are there for their files.
    used = {parent.as_posix() for name in (*found, *files) for parent in PurePosixPath(name).parents}
    changed = [*(found.keys() ^ {*files, MANIFEST}), *(paths.keys() - found.keys() - used)]
    for name, (size, sha) in files.items():
        path = found.get(name)
        if path and (
            path.is_symlink() or not path.is_file() or path.stat().st_size != size or digest_file(path) != sha
        ):
            changed.append(name)
    return sorted(changed)


def read_manifest(version: Path) -> dict[str, Any]:
    """Read a version's manifest.json, and check it.

    Raises:
        OSError: it can't be read.
        ValueError: it is not as it was written.
    """
    read: dict[str, Any] = parse((version / MANIFEST).read_bytes())
    return read


def dump(manifest: Mapping[str, Any]) -> str:
    """Write a manifest with its digest, in the one way in which it is read again."""
    rest = {key: value for key, value in manifest.items() if key != DIGEST}
    digest = hashlib.sha256(_text(rest).encode()).hexdigest()
    return _text({**rest, DIGEST: digest})


def _text(manifest: Mapping[str, Any]) -> str:
    return json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def parse(content: bytes) -> Any:
    """Read the bytes of a manifest, and check them against its own digest, byte by byte.

    A manifest of format 1 has none: its files, and what provenance.json says of it, are all that can be checked. One
    of a later format is read as far as it can be; `is_newer` tells.

    Raises:
        ValueError: a byte is not as it was written.
    """
    read = json.loads(content.decode("utf-8"))
    if not isinstance(read, dict) or is_newer(read) or (DIGEST not in read and read.get("manifest", 1) == 1):
        return read
    if dump(read).encode() != content:
        raise ValueError(f"its {DIGEST} is not that of its content")
    return {key: value for key, value in read.items() if key != DIGEST}


def is_newer(manifest: Mapping[str, Any]) -> bool:
    """Say whether a manifest is of a format that only a later version of this tool reads."""
    number = manifest.get("manifest")
    return isinstance(number, int) and number > MANIFEST_FORMAT
