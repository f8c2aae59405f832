"""Write a torch module as a checkpoint: the weights that the task reads, under transformers' names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpu_pipeline.core import repo_files

if TYPE_CHECKING:
    from cpu_pipeline.tasks._base import Task

WEIGHTS = "model.safetensors"


def save(model: Any, task: Task, source: Path, out: Path) -> int:
    """Write a checkpoint: everything of `source` but its weights, and the module's own; return their bytes.

    The bytes depend on the weights alone. A pooler above a bare encoder is left out: no output is made with it.

    Args:
        model: what `hf.checkpoint` returned, changed since.
        task: says whether the pooler is read.
        source: the directory that the module was loaded from.
        out: an empty directory.
    """
    from safetensors.torch import save_file

    repo_files.carry(source, out)
    weights = {
        name: value.detach().cpu().contiguous()
        for name, value in model.state_dict().items()
        if task.auto_class != "AutoModel" or not name.startswith("pooler.")
    }
    save_file(weights, out / WEIGHTS, metadata={"format": "pt"})
    return (out / WEIGHTS).stat().st_size
