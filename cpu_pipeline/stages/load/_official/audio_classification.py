"""audio-classification as transformers does it: AutoFeatureExtractor, softmax, the largest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpu_pipeline.stages.load._autotokenizer import quiet
from cpu_pipeline.stages.load._official._base import Asked
from cpu_pipeline.stages.load._official.text_classification import judge as judge

if TYPE_CHECKING:
    from cpu_pipeline.tasks._base import Row


def encode(task: Any, rows: Sequence[Row], original: Path, built: Path) -> list[Asked]:
    """Prepare each recording; channels are averaged."""
    import soundfile
    from transformers import AutoFeatureExtractor

    with quiet():
        extractor = AutoFeatureExtractor.from_pretrained(str(original), local_files_only=True, trust_remote_code=False)
    asked = []
    for number, row in enumerate(rows):
        sound, rate = soundfile.read(row["audio"], dtype="float32", always_2d=True)
        samples = sound[: int(task.max_seconds * rate)].mean(axis=1)
        prepared = extractor(samples, sampling_rate=rate, return_tensors="np")
        asked.append(Asked(number, {name: value[0] for name, value in prepared.items()}))
    return asked
