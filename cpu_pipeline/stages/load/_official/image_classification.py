"""image-classification as transformers does it: AutoImageProcessor without torchvision, softmax, the largest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cpu_pipeline.stages.load._autotokenizer import quiet
from cpu_pipeline.stages.load._official._base import Asked
from cpu_pipeline.stages.load._official.text_classification import judge as judge

if TYPE_CHECKING:
    from cpu_pipeline.tasks._base import Row, Task


def encode(task: Task, rows: Sequence[Row], original: Path, built: Path) -> list[Asked]:
    """Prepare each image."""
    from transformers import AutoImageProcessor
    from transformers.image_utils import load_image

    with quiet():
        processor = AutoImageProcessor.from_pretrained(
            str(original), backend="pil", local_files_only=True, trust_remote_code=False
        )
    pixels = (processor(load_image(str(row["image"])), return_tensors="np") for row in rows)
    return [Asked(number, {name: value[0] for name, value in each.items()}) for number, each in enumerate(pixels)]
