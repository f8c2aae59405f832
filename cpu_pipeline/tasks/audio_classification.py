"""One label for a recording, prepared as the model's preprocessor_config.json says, with numpy and soundfile alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from cpu_pipeline.core.errors import BackendMissing, RecipeError
from cpu_pipeline.core.model_io import InputKind
from cpu_pipeline.tasks import _tokens
from cpu_pipeline.tasks._base import Feature, Row
from cpu_pipeline.tasks._files import read_json
from cpu_pipeline.tasks._labels import LabelTask

if TYPE_CHECKING:
    import numpy as np

    Samples = np.ndarray[Any, Any]

CONFIG = "preprocessor_config.json"
EXTRACTOR = "Wav2Vec2FeatureExtractor"
"""transformers' feature extractor of Wav2Vec2, HuBERT, WavLM, UniSpeech, SEW and Data2Vec: raw samples."""
USUAL = 8000
"""Samples of an example whose length is not given."""


class AudioClassification(LabelTask):
    """Choose one label for a recording."""

    max_seconds: float = Field(default=30.0, gt=0, allow_inf_nan=False)
    """Seconds to use of each recording, from its start."""

    version = 2
    packages = ("numpy", "soundfile")
    auto_class = "AutoModelForAudioClassification"
    columns: ClassVar = {"audio": True, "label": False}
    pipeline_tag = "audio-classification"
    files: ClassVar = frozenset({"audio"})
    unit = "samples"
    shapes: ClassVar = ((1, 4000), (2, 8000), (3, 12000), (1, 20000))
    rows_at_once = 64

    def row(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """Take audio, the name of a file, and label where there is one: a number from 0, or a name of the model's."""
        return {**_tokens.named(raw), "audio": _tokens.text(raw, "audio"), **self.label(raw)}

    def input_kinds(self, model: Path) -> Mapping[str, InputKind]:
        """List input_values, float32 of shape (samples,), and attention_mask where the model was trained with one.

        A model without it treats padding as silence and answers differently (its group norm averages over time, see
        the documentation of transformers' Wav2Vec2FeatureExtractor): its recordings are never padded.
        """
        processor = Processor.read(model)
        if not processor.mask:
            return {"input_values": InputKind("float32", fill=None)}
        return {"input_values": InputKind("float32", fill=processor.fill), "attention_mask": InputKind()}

    def encode(self, rows: Sequence[Row], model: Path) -> list[Feature]:
        """Read and prepare each row's recording; one feature each. Channels are averaged.

        Raises:
            RecipeError: a recording is not valid, too short, or of another sampling rate than the model's, a label is
                not one of the model's, or the model's sound is prepared in a way that is not built here.
            BackendMissing: soundfile is not installed.
        """
        self.check_rows(rows, model)
        processor, shortest = Processor.read(model), _shortest(model)
        features = []
        for number, row in enumerate(rows):
            samples = _read(Path(row["audio"]), str(row["id"]), processor.rate, self.max_seconds)
            if len(samples) < shortest:
                raise RecipeError(
                    f"row {row['id']}: {len(samples)} samples are too short; the model needs {shortest} at least"
                )
            features.append(Feature(number, processor(samples)))
        return features

    def examples(
        self, model: Path, shapes: Sequence[tuple[int, int | None]] | None = None, seed: int = 0
    ) -> list[list[Feature]]:
        """Draw batches of noise; lengths differ within a batch where the model takes padding."""
        import numpy as np

        processor, shortest = Processor.read(model), _shortest(model)
        rng = np.random.default_rng(seed)
        batches = []
        for size, length in self.shapes if shapes is None else shapes:
            top = max(length or USUAL, shortest)
            others = rng.integers(max(top // 2, shortest), top + 1, size - 1) if processor.mask else [top] * (size - 1)
            sounds = [rng.standard_normal(int(count), dtype=np.float32) for count in (top, *others)]
            batches.append([Feature(0, processor(sound)) for sound in sounds])
        return batches


@dataclass(frozen=True)
class Processor:
    """How a model's recordings are prepared; the same arrays as transformers' Wav2Vec2FeatureExtractor."""

    rate: int
    """Samples in a second."""
    normalize: bool
    """Bring each recording to mean 0 and variance 1."""
    mask: bool
    """Tell the model which samples are real."""
    fill: float
    """What recordings are padded with."""

    @classmethod
    def read(cls, model: Path) -> Processor:
        """Read preprocessor_config.json of a model's directory.

        Raises:
            RecipeError: it is missing, or names a feature extractor that prepares sound in another way.
        """
        config = read_json(model / CONFIG, "save the model's feature extractor beside it (`AutoFeatureExtractor`)")
        name = config.get("feature_extractor_type", EXTRACTOR)
        if name != EXTRACTOR or config.get("feature_size", 1) != 1:
            raise RecipeError(
                f"{CONFIG}: sound is prepared by {name}, feature_size {config.get('feature_size', 1)}; "
                f"audio-classification knows {EXTRACTOR} (Wav2Vec2, HuBERT, WavLM, ...), one number for each sample"
            )
        rate = config.get("sampling_rate", 16000)
        if type(rate) is not int or rate <= 0:
            raise RecipeError(f"{CONFIG}: sampling_rate is {rate!r}; it must be samples in a second")
        return cls(
            rate=rate,
            normalize=config.get("do_normalize", True) is not False,
            mask=bool(config.get("return_attention_mask", False)),
            fill=float(config.get("padding_value", 0.0)),
        )

    def __call__(self, samples: Samples) -> dict[str, Samples]:
        """Prepare float32 samples of shape (samples,): input_values of the same shape and, with `mask`, ones."""
        import numpy as np

        if self.normalize:
            samples = (samples - samples.mean()) / np.sqrt(samples.var() + 1e-7)
        inputs = {"input_values": samples.astype(np.float32)}
        return {**inputs, "attention_mask": np.ones(len(samples), dtype=np.int64)} if self.mask else inputs


def _shortest(model: Path) -> int:
    """Count the samples that the model's convolutions turn into one frame; 1 where config.json has none."""
    config = _tokens.read_config(model)
    count = 1
    for kernel, stride in zip(*(reversed(config.get(f"conv_{key}", [])) for key in ("kernel", "stride")), strict=True):
        count = (count - 1) * stride + kernel
    return count


def _read(file: Path, row: str, rate: int, seconds: float) -> Samples:
    """Read the start of a recording: float32 of shape (samples,), -1 to 1, the mean of its channels."""
    try:
        import soundfile
    except (ImportError, OSError) as error:
        raise BackendMissing(f"reading sound needs soundfile ({error}); install cpu-pipeline[runtime]") from error
    try:
        with soundfile.SoundFile(file) as sound:
            if sound.samplerate != rate:
                raise RecipeError(
                    f"row {row}: {file.name} has {sound.samplerate} samples in a second, and the model takes {rate}; "
                    f"convert it (`ffmpeg -i IN -ar {rate} OUT.wav`)"
                )
            samples: Samples = sound.read(int(seconds * rate), dtype="float32", always_2d=True)
            return samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1)
    except soundfile.SoundFileError as error:
        reason = " ".join(str(error).split()).replace(str(file), file.name)[:200]
        raise RecipeError(f"row {row}: {file.name} is not a valid recording: {reason}; replace it") from error
