"""Recordings are prepared and answered as transformers does it; what is not built here is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import media
import numpy as np
import pytest
import soundfile

from cpu_pipeline.backends import hf
from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.runtime.batching import answer, batches, pad
from cpu_pipeline.tasks.audio_classification import AudioClassification, Processor

TASK = AudioClassification()


@pytest.fixture(scope="module", params=[False, True], ids=["group", "mask"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return media.wav2vec2(tmp_path_factory.mktemp("wav2vec2"), mask=request.param)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return list(TASK.read_rows(media.sounds(tmp_path_factory.mktemp("rows") / "rows.jsonl", 10)))


def heard(row: dict[str, Any]) -> np.ndarray:
    samples, _ = soundfile.read(row["audio"], dtype="float32", always_2d=True)
    return samples.mean(axis=1)


def theirs(model: Path, rows: list[dict[str, Any]]) -> list[tuple[dict[str, np.ndarray], np.ndarray]]:
    """Ask transformers alone, one recording at a time: its inputs and its logits."""
    import torch
    from transformers import AutoFeatureExtractor, AutoModelForAudioClassification

    extractor = AutoFeatureExtractor.from_pretrained(model)
    module = AutoModelForAudioClassification.from_pretrained(model)
    found = []
    for row in rows:
        inputs = extractor(heard(row), sampling_rate=media.RATE, return_tensors="pt")
        with torch.inference_mode():
            logits = module(**inputs).logits
        found.append(({name: value[0].numpy() for name, value in inputs.items()}, logits[0].numpy()))
    return found


def test_it_answers_as_transformers_does(model: Path, rows: list[dict[str, Any]]) -> None:
    """In batches, too: padded where the model was trained with a mask, and of equal lengths where it was not."""
    expected = theirs(model, rows)
    features = TASK.encode(rows, model)
    for feature, (inputs, _) in zip(features, expected, strict=True):
        assert feature.inputs.keys() == inputs.keys()
        for name, values in inputs.items():
            np.testing.assert_array_equal(feature.inputs[name], values)
    answers = answer(hf.load(model, TASK, 1), features, TASK, TASK.input_kinds(model), 4)
    for ours, (_, logits) in zip(answers, expected, strict=True):
        np.testing.assert_allclose(ours["logits"], logits, atol=1e-4)
    labels = [prediction["label"] for prediction in TASK.decode(rows, features, answers, model)]
    assert labels == [int(logits.argmax()) for _, logits in expected]


def test_padding_is_what_the_extractor_pads(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    from transformers import AutoFeatureExtractor

    model = media.wav2vec2(tmp_path, mask=True)
    extractor = AutoFeatureExtractor.from_pretrained(model)
    inputs = extractor([heard(row) for row in rows], sampling_rate=media.RATE, padding=True, return_tensors="np")
    arrays = pad(TASK.encode(rows, model), ("input_values", "attention_mask"), TASK.input_kinds(model))
    np.testing.assert_allclose(arrays["input_values"], inputs["input_values"], atol=1e-6)
    np.testing.assert_array_equal(arrays["attention_mask"], inputs["attention_mask"])


def test_a_model_without_a_mask_never_hears_padding(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    model = media.wav2vec2(tmp_path)
    features, kinds = TASK.encode(rows, model), TASK.input_kinds(model)
    assert [len(numbers) for numbers in batches(features, 4, kinds)] == [1] * 10
    assert [len(numbers) for numbers in batches([features[0]] * 6, 4, kinds)] == [4, 2]
    with pytest.raises(Exception, match="do not fit into one batch"):
        pad(features[:2], ("input_values",), kinds)


def test_examples_are_padded_where_the_model_takes_it(model: Path) -> None:
    masked = Processor.read(model).mask
    found = [[feature.length for feature in batch] for batch in TASK.examples(model)]
    assert [(len(batch), max(batch)) for batch in found] == [(1, 4000), (2, 8000), (3, 12000), (1, 20000)]
    assert any(len(set(batch)) > 1 for batch in found) == masked


def test_recordings_that_do_not_fit_are_named(tmp_path: Path, model: Path) -> None:
    def encode(samples: Any, rate: int = media.RATE) -> Any:
        soundfile.write(tmp_path / "a.wav", samples, rate)
        return TASK.encode([{"id": "7", "audio": str(tmp_path / "a.wav")}], model)

    assert encode(np.zeros(4000))[0].length == 4000
    with pytest.raises(RecipeError, match=r"row 7: a\.wav has 44100 samples in a second, and the model takes 8000"):
        encode(np.zeros(4000), 44100)
    with pytest.raises(RecipeError, match="row 7: 20 samples are too short; the model needs 85 at least"):
        encode(np.zeros(20))
    (tmp_path / "a.wav").write_text("no sound")
    with pytest.raises(RecipeError, match=r"row 7: a\.wav is not a valid recording") as caught:
        TASK.encode([{"id": "7", "audio": str(tmp_path / "a.wav")}], model)
    assert str(tmp_path) not in str(caught.value)


def test_the_shortest_recording_is_one_frame(tmp_path: Path) -> None:
    """The number in the message above is the model's own: one sample less, and it has no frame."""
    model = media.wav2vec2(tmp_path)
    session = hf.load(model, TASK, 1)
    assert np.isfinite(session({"input_values": np.zeros((1, 85), dtype=np.float32)})["logits"]).all()
    with pytest.raises(RuntimeError):
        session({"input_values": np.zeros((1, 84), dtype=np.float32)})


def test_long_recordings_are_cut(tmp_path: Path, model: Path) -> None:
    soundfile.write(tmp_path / "a.flac", np.zeros(9000), media.RATE)
    rows = [{"id": "1", "audio": str(tmp_path / "a.flac")}]
    assert AudioClassification(max_seconds=0.5).encode(rows, model)[0].length == 4000


@pytest.mark.parametrize(
    ("processor", "says"),
    [
        ({"feature_extractor_type": "ASTFeatureExtractor"}, "prepared by ASTFeatureExtractor, feature_size 1"),
        ({"feature_size": 80}, "feature_size 80; audio-classification knows Wav2Vec2FeatureExtractor"),
        ({"sampling_rate": "fast"}, "sampling_rate is 'fast'"),
    ],
)
def test_other_ways_to_prepare_sound_are_refused(tmp_path: Path, processor: dict[str, Any], says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        Processor.read(media.wav2vec2(tmp_path, **processor))
