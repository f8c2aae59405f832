"""Images are prepared and answered as transformers does it; what is not built here is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import media
import numpy as np
import pytest

from cpu_pipeline.backends import hf
from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.core.jsonl import read_jsonl
from cpu_pipeline.runtime.batching import answer, pad
from cpu_pipeline.tasks.image_classification import ImageClassification, Processor

TASK = ImageClassification()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return media.vit(tmp_path_factory.mktemp("vit"))


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return list(TASK.read_rows(media.images(tmp_path_factory.mktemp("rows") / "rows.jsonl", 10)))


def theirs(model: Path, rows: list[dict[str, Any]]) -> tuple[np.ndarray, list[int]]:
    """Ask transformers alone: pixels of each image, and logits of all images in one batch."""
    import torch
    from transformers import AutoImageProcessor, AutoModelForImageClassification
    from transformers.image_utils import load_image

    processor = AutoImageProcessor.from_pretrained(model, backend="pil")
    pixels = processor([load_image(row["image"]) for row in rows], return_tensors="pt")
    with torch.inference_mode():
        logits = AutoModelForImageClassification.from_pretrained(model)(**pixels).logits
    return pixels["pixel_values"].numpy(), logits.numpy()


def test_it_answers_as_transformers_does(model: Path, rows: list[dict[str, Any]]) -> None:
    pixels, logits = theirs(model, rows)
    features = TASK.encode(rows, model)
    for feature, expected in zip(features, pixels, strict=True):
        np.testing.assert_array_equal(feature.inputs["pixel_values"], expected)
    answers = answer(hf.load(model, TASK, 1), features, TASK, TASK.input_kinds(model), 4)
    for ours, expected in zip(answers, logits, strict=True):
        np.testing.assert_allclose(ours["logits"], expected, atol=1e-4)
    labels = [prediction["label"] for prediction in TASK.decode(rows, features, answers, model)]
    assert labels == logits.argmax(axis=1).tolist() and len(set(labels)) > 1, "one label tells nothing"


@pytest.mark.parametrize(
    "processor",
    [
        {"size": 24},
        {"image_processor_type": None, "feature_extractor_type": "ViTFeatureExtractor", "do_rescale": False},
        {"do_normalize": False, "resample": 3},
        {"image_processor_type": "DeiTImageProcessor", "size": {"height": 40, "width": 44}, "crop_size": 32},
        {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 36}, "crop_size": 32},
        {"image_processor_type": "BitImageProcessor", "do_resize": False, "crop_size": {"height": 51, "width": 47}},
        {"image_processor_type": "SiglipImageProcessorFast", "size": {"height": 20, "width": 28}},
        {"image_processor_type": "PvtImageProcessor"},
    ],
)  # fmt: skip
def test_every_processor_gives_what_transformers_gives(
    tmp_path: Path, rows: list[dict[str, Any]], processor: dict[str, Any]
) -> None:
    from transformers import AutoImageProcessor
    from transformers.image_utils import load_image

    model = media.vit(tmp_path, **processor)
    expected = AutoImageProcessor.from_pretrained(model, backend="pil")
    for row, feature in zip(rows, TASK.encode(rows, model), strict=True):
        pixels = expected(load_image(row["image"]), return_tensors="np")["pixel_values"][0]
        np.testing.assert_array_equal(feature.inputs["pixel_values"], pixels)
    height, width = Processor.read(model).size()
    assert TASK.examples(model)[0][0].inputs["pixel_values"].shape == (3, height, width)


@pytest.mark.parametrize(
    ("processor", "says"),
    [
        ({"image_processor_type": "DetrImageProcessor"}, "by DetrImageProcessor; .* knows the processors of ViT"),
        ({"do_pad": True}, "ViTImageProcessor with do_pad"),
        ({"size": {"longest_edge": 32}}, "`size` is {'longest_edge': 32}; it must have height and width"),
    ],
)  # fmt: skip
def test_other_ways_to_prepare_images_are_refused(tmp_path: Path, processor: dict[str, Any], says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        Processor.read(media.vit(tmp_path, **processor))


def test_images_of_many_sizes_have_no_examples(tmp_path: Path) -> None:
    model = media.vit(tmp_path, size={"shortest_edge": 32})
    with pytest.raises(RecipeError, match="images keep sizes of their own"):
        TASK.examples(model)
    (model / "preprocessor_config.json").unlink()
    with pytest.raises(RecipeError, match=r"preprocessor_config\.json is not there: save the model's image processor"):
        TASK.examples(model)


def test_what_is_no_image_is_named(tmp_path: Path, model: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    with pytest.raises(RecipeError, match=r"row 7: a\.png is not a valid image: .*; replace it") as caught:
        TASK.encode([{"id": "7", "image": str(tmp_path / "a.png")}], model)
    assert str(tmp_path) not in str(caught.value)


def test_rows_and_labels_are_checked(model: Path, rows: list[dict[str, Any]]) -> None:
    assert TASK.row({"id": 1, "image": "a.png", "label": 2}) == {"id": "1", "image": "a.png", "label": 2}
    with pytest.raises(ValueError, match="`image` is missing"):
        TASK.row({"label": 2})
    with pytest.raises(RecipeError, match="label 'cow' is not one of the model's: cat, dog, emu"):
        TASK.encode([{**rows[0], "label": "cow"}], model)


def test_an_image_is_turned_as_its_exif_data_says(tmp_path: Path, model: Path) -> None:
    from PIL import Image

    image = Image.fromarray(np.arange(40 * 20 * 3, dtype=np.uint8).reshape(40, 20, 3))
    exif = image.getexif()
    exif[0x0112] = 6  # turned by a quarter
    image.save(tmp_path / "turned.png", exif=exif)
    row = {"id": "1", "image": str(tmp_path / "turned.png")}
    [feature] = TASK.encode([row], model)
    np.testing.assert_array_equal(feature.inputs["pixel_values"], theirs(model, [row])[0][0])


def test_rows_name_files_beside_them(tmp_path: Path) -> None:
    path = media.images(tmp_path / "rows.jsonl", 2)
    assert [row["image"] for row in read_jsonl(path)] == ["images/0-0.png", "images/0-1.png"]
    assert all(Path(row["image"]).is_file() for row in TASK.read_rows(path))


def test_images_share_one_shape_in_a_batch(model: Path) -> None:
    batches = TASK.examples(model)
    assert [len(batch) for batch in batches] == [1, 2, 3]
    arrays = pad(batches[2], ("pixel_values",), TASK.input_kinds(model))
    assert arrays["pixel_values"].shape == (3, 3, media.SIDE, media.SIDE) and arrays["pixel_values"].dtype == np.float32
    again = TASK.examples(model, [(1, None)], seed=0)[0][0].inputs["pixel_values"]
    np.testing.assert_array_equal(again, batches[0][0].inputs["pixel_values"])
    assert json.loads((model / "config.json").read_text())["num_channels"] == 3
