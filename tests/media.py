"""Make tiny real checkpoints of images and sound for tests, and rows with files: fixed seeds, no network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import models

SIDE, RATE = 32, 8000
ANIMALS = ("cat", "dog", "emu")


def vit(out: Path, seed: int = 0, **processor: Any) -> Path:
    """Write a ViT for image-classification with three labels; `processor` overrides preprocessor_config.json."""
    import transformers

    config = transformers.ViTConfig(
        image_size=SIDE, patch_size=8, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        id2label=dict(enumerate(ANIMALS)), label2id={name: i for i, name in enumerate(ANIMALS)},
    )  # fmt: skip
    said = {
        "image_processor_type": "ViTImageProcessor", "do_resize": True, "size": {"height": SIDE, "width": SIDE},
        "resample": 2, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True,
        "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4], **processor,
    }  # fmt: skip
    return _write(transformers.ViTForImageClassification(config), out, seed, said)


def wav2vec2(out: Path, mask: bool = False, seed: int = 0, **processor: Any) -> Path:
    """Write a Wav2Vec2 for audio-classification with three labels; with `mask` the kind that takes padding."""
    import transformers

    config = transformers.Wav2Vec2Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, classifier_proj_size=16,
        conv_dim=(16, 16, 16), conv_stride=(5, 4, 4), conv_kernel=(10, 4, 4), num_feat_extract_layers=3,
        num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4,
        feat_extract_norm="layer" if mask else "group", do_stable_layer_norm=mask,
        id2label=dict(enumerate(ANIMALS)), label2id={name: i for i, name in enumerate(ANIMALS)},
    )  # fmt: skip
    said = {
        "feature_extractor_type": "Wav2Vec2FeatureExtractor", "feature_size": 1, "sampling_rate": RATE,
        "padding_value": 0.0, "do_normalize": True, "return_attention_mask": mask, **processor,
    }  # fmt: skip
    return _write(transformers.Wav2Vec2ForSequenceClassification(config), out, seed, said)


def images(path: Path, count: int, seed: int = 0) -> Path:
    """Write rows of image-classification to the file `path`, and their images of several sizes and modes beside it."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(seed)
    rows = []
    for i in range(count):
        shape = (int(rng.integers(20, 80)), int(rng.integers(20, 80)), 3)
        # Few large spots: noise alone would look alike to a model once it is resized.
        spots = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        image = Image.fromarray(spots).resize(shape[1::-1], Image.Resampling.BILINEAR)
        name = f"images/{seed}-{i}.png"
        (path.parent / name).parent.mkdir(parents=True, exist_ok=True)
        (image.convert("L") if i % 5 == 4 else image).save(path.parent / name)
        rows.append({"id": f"{seed}-{i}", "image": name, "label": int(rng.integers(3))})
    return _rows(path, rows)


def sounds(path: Path, count: int, seed: int = 0) -> Path:
    """Write rows of audio-classification to the file `path`, and their recordings of several lengths beside it."""
    import numpy as np
    import soundfile

    rng = np.random.default_rng(seed)
    rows = []
    for i in range(count):
        time = np.arange(int(rng.integers(RATE // 4, RATE))) / RATE
        wave = sum(np.sin(2 * np.pi * float(pitch) * time) for pitch in rng.integers(100, 2000, 3))
        sound = 0.2 * wave + 0.05 * rng.standard_normal(len(time))
        name = f"sounds/{seed}-{i}.wav"
        (path.parent / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path.parent / name, sound if i % 4 else np.stack([sound, 0.5 * sound], axis=1), RATE)
        rows.append({"id": f"{seed}-{i}", "audio": name, "label": ANIMALS[int(rng.integers(3))]})
    return _rows(path, rows)


def _rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, sort_keys=True) + "\n" for row in rows), encoding="utf-8")
    return path


def _write(model: Any, out: Path, seed: int, processor: dict[str, Any]) -> Path:
    out.mkdir(parents=True, exist_ok=True)
    models.fill(model, seed)
    model.save_pretrained(out)
    (out / "preprocessor_config.json").write_text(json.dumps(processor, indent=2, sort_keys=True) + "\n")
    return out
