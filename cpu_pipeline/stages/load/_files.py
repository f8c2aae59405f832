"""The files of a fetched model and, where one is given, of another tokenizer, brought into one directory."""

from __future__ import annotations

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
    for artifact in filter(None, (files, tokenizer)):
        for path in sorted(p for p in artifact.path.rglob("*") if p.is_file()):
            name = path.relative_to(artifact.path).as_posix()
            wanted = weights or not (is_weights(name) or any(fnmatchcase(path.name, each) for each in PICKLED))
            if wanted and (tokenizer is None or is_tokenizer(name) == (artifact is tokenizer)):
                copy_file(path, out / name)


def is_weights(name: str) -> bool:
    """Say whether a file holds checked weights of a checkpoint, or their index."""
    return any(fnmatchcase(name, each) for each in CHECKED)
