"""The files of a fetched model and, where one is given, of another tokenizer, brought into one directory."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from cpu_pipeline.core.artifact import Artifact
from cpu_pipeline.core.repo_files import copy_file, is_tokenizer

CHECKED = ("*.safetensors", "*.safetensors.index.json")
"""Names of weights that `load.model` checks and other libraries then open."""
PICKLED = ("*.bin", "*.bin.index.json")


def collect(files: Artifact, tokenizer: Artifact | None, out: Path, weights: bool = True) -> None:
    """Copy the model's files and, where a tokenizer is given, its files instead of the model's own.

    Args:
        files: what was fetched of the model.
        tokenizer: what was fetched of the other tokenizer.
        out: the directory to fill.
        weights: whether checkpoints' weights go with them.
    """
    for name, path in _chosen(files, tokenizer):
        if weights or not (is_weights(name) or any(fnmatchcase(path.name, each) for each in PICKLED)):
            copy_file(path, out / name)


def link(files: Artifact, tokenizer: Artifact | None, out: Path) -> None:
    """Link what `collect` copies; configurations alone are copied, for they are screened in place."""
    for name, path in _chosen(files, tokenizer):
        if name.endswith(".json") and "config" in path.name:
            copy_file(path, out / name)
        else:
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (out / name).symlink_to(path.resolve())


def _chosen(files: Artifact, tokenizer: Artifact | None) -> Iterator[tuple[str, Path]]:
    for artifact in filter(None, (files, tokenizer)):
        for path in sorted(p for p in artifact.path.rglob("*") if p.is_file()):
            name = path.relative_to(artifact.path).as_posix()
            if tokenizer is None or is_tokenizer(name) == (artifact is tokenizer):
                yield name, path


def is_weights(name: str) -> bool:
    """Say whether a file holds checked weights of a checkpoint, or their index."""
    return any(fnmatchcase(name, each) for each in CHECKED)
