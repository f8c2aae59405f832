"""One label for an image, prepared as the model's preprocessor_config.json says, with numpy and Pillow alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from cpu_pipeline.core.errors import BackendMissing, RecipeError
from cpu_pipeline.core.model_io import InputKind
from cpu_pipeline.tasks import _tokens
from cpu_pipeline.tasks._base import Feature, Row
from cpu_pipeline.tasks._files import read_json
from cpu_pipeline.tasks._labels import LabelTask

if TYPE_CHECKING:
    import numpy as np

    Pixels = np.ndarray[Any, Any]

BILINEAR, BICUBIC = 2, 3
"""Pillow's numbers of its filters, as preprocessor_config.json has them."""
PROCESSORS = {
    "ViT": (BILINEAR, False),
    "DeiT": (BICUBIC, True),
    "Bit": (BICUBIC, True),
    "Siglip": (BICUBIC, False),
    "Pvt": (BILINEAR, False),
}
"""transformers' image processors that resize, crop, rescale and normalize, in this order and no other way -> filter and
whether they crop, where the file does not tell."""
CONFIG = "preprocessor_config.json"


class ImageClassification(LabelTask):
    """Choose one label for an image."""

    version = 2
    packages = ("numpy", "pillow")
    auto_class = "AutoModelForImageClassification"
    columns: ClassVar = {"image": True, "label": False}
    pipeline_tag = "image-classification"
    files: ClassVar = frozenset({"image"})
    unit = "image"
    shapes: ClassVar = ((1, None), (2, None), (3, None))
    rows_at_once = 256

    def row(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """Take image, the name of a file, and label where there is one: a number from 0, or a name of the model's."""
        return {**_tokens.named(raw), "image": _tokens.text(raw, "image"), **self.label(raw)}

    def input_kinds(self, model: Path) -> Mapping[str, InputKind]:
        """List pixel_values: float32 of shape (channels, height, width), the same for all images."""
        return {"pixel_values": InputKind("float32", axis=None)}

    def encode(self, rows: Sequence[Row], model: Path) -> list[Feature]:
        """Read and prepare each row's image; one feature each.

        Raises:
            RecipeError: an image is not valid, a label is not one of the model's, or the model's images are prepared in
                a way that is not built here.
            BackendMissing: Pillow is not installed.
        """
        self.check_rows(rows, model)
        processor = Processor.read(model)
        return [
            Feature(number, {"pixel_values": processor(_open(Path(row["image"]), str(row["id"])))})
            for number, row in enumerate(rows)
        ]

    def examples(
        self, model: Path, shapes: Sequence[tuple[int, int | None]] | None = None, seed: int = 0
    ) -> list[list[Feature]]:
        """Draw batches of random pixels, normalized; all images have the model's one size, whatever `shapes` says."""
        import numpy as np

        shape = (3, *Processor.read(model).size())
        rng = np.random.default_rng(seed)
        sizes = [size for size, _ in (self.shapes if shapes is None else shapes)]
        return [
            [Feature(0, {"pixel_values": rng.standard_normal(shape, dtype=np.float32)}) for _ in range(size)]
            for size in sizes
        ]


@dataclass(frozen=True)
class Processor:
    """How a model's images are prepared; the same arrays as transformers' processors without torchvision."""

    resize: Mapping[str, int] | None
    """`height` and `width`, or `shortest_edge`; None to leave images as they are."""
    resample: int
    crop: tuple[int, int] | None
    """Height and width of what is kept of the middle."""
    factor: float | None
    """What pixels, 0 to 255, are multiplied by."""
    mean: Sequence[float] | None
    """Subtracted from each channel, before it is divided by `std`; None for neither."""
    std: Sequence[float]

    @classmethod
    def read(cls, model: Path) -> Processor:
        """Read preprocessor_config.json of a model's directory.

        Raises:
            RecipeError: it is missing, or names a processor that prepares images in another way.
        """
        config = read_json(model / CONFIG, "save the model's image processor beside it (`AutoImageProcessor`)")
        name = str(config.get("image_processor_type") or config.get("feature_extractor_type"))
        family = name
        for ending in ("Fast", "Pil", "ImageProcessor", "FeatureExtractor"):
            family = family.removesuffix(ending)
        if family not in PROCESSORS or config.get("do_pad"):
            raise RecipeError(
                f"{CONFIG}: images are prepared by {name}{' with do_pad' if config.get('do_pad') else ''}; "
                f"image-classification knows the processors of {', '.join(PROCESSORS)}, without padding"
            )
        filter_, crops = PROCESSORS[family]
        on = {key: config.get(f"do_{key}", True) is not False for key in ("resize", "rescale", "normalize")}
        crop = _size(config, "crop_size") if config.get("do_center_crop", crops) else None
        if crop is not None and "shortest_edge" in crop:
            crop = {"height": crop["shortest_edge"], "width": crop["shortest_edge"]}
        return cls(
            resize=_size(config, "size") if on["resize"] else None,
            resample=int(config.get("resample", filter_)),
            crop=(crop["height"], crop["width"]) if crop else None,
            factor=float(config.get("rescale_factor", 1 / 255)) if on["rescale"] else None,
            mean=config.get("image_mean", [0.5] * 3) if on["normalize"] else None,
            std=config.get("image_std", [0.5] * 3),
        )

    def size(self) -> tuple[int, int]:
        """Return height and width of every prepared image.

        Raises:
            RecipeError: they differ from image to image.
        """
        if self.crop is not None:
            return self.crop
        if self.resize is None or "height" not in self.resize:
            raise RecipeError(f"{CONFIG}: images keep sizes of their own; name one `size` (height and width) for all")
        return self.resize["height"], self.resize["width"]

    def __call__(self, image: Any) -> Pixels:
        """Prepare a Pillow image: float32 of shape (3, height, width)."""
        import numpy as np

        if self.resize is not None:
            image = image.resize(_target(image.size, self.resize), resample=self.resample)
        pixels = np.moveaxis(np.asarray(image), -1, 0)
        if self.crop is not None:
            pixels = _crop(pixels, self.crop)
        if self.factor is not None:
            pixels = (pixels.astype(np.float64) * self.factor).astype(np.float32)
        pixels = pixels.astype(np.float32)
        if self.mean is not None:
            mean, std = (np.asarray(values, dtype=np.float32).reshape(-1, 1, 1) for values in (self.mean, self.std))
            pixels = (pixels - mean) / std
        return np.ascontiguousarray(pixels)


def _size(config: Mapping[str, Any], key: str) -> dict[str, int]:
    """Read `size` or `crop_size`: {height, width}, {shortest_edge}, or one number for both sides."""
    size = config.get(key)
    if isinstance(size, int):
        size = {"height": size, "width": size}
    if isinstance(size, Mapping):
        for names in (("height", "width"), ("shortest_edge",)):
            if all(isinstance(size.get(name), int) and size[name] > 0 for name in names):
                return {name: size[name] for name in names}
    raise RecipeError(f"{CONFIG}: `{key}` is {size!r}; it must have height and width, or shortest_edge")


def _target(size: tuple[int, int], wanted: Mapping[str, int]) -> tuple[int, int]:
    """Return width and height, as Pillow counts them, of the resized image."""
    if "height" in wanted:
        return wanted["width"], wanted["height"]
    width, height = size
    short = wanted["shortest_edge"]
    return (short, int(short * height / width)) if width <= height else (int(short * width / height), short)


def _crop(pixels: Pixels, wanted: tuple[int, int]) -> Pixels:
    """Cut the middle out of (channels, height, width); what is smaller gets a black border first."""
    import numpy as np

    height, width = pixels.shape[1:]
    rows, columns = max(height, wanted[0]), max(width, wanted[1])
    if (rows, columns) != (height, width):
        top, left = ceil((rows - height) / 2), ceil((columns - width) / 2)
        framed = np.zeros((pixels.shape[0], rows, columns), pixels.dtype)
        framed[:, top : top + height, left : left + width] = pixels
        pixels = framed
    top, left = (rows - wanted[0]) // 2, (columns - wanted[1]) // 2
    return pixels[:, top : top + wanted[0], left : left + wanted[1]]


def _open(file: Path, row: str) -> Any:
    """Read an image as RGB, turned as its EXIF data says (so does transformers' `load_image`)."""
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise BackendMissing(f"reading images needs Pillow ({error}); install cpu-pipeline[runtime]") from error
    try:
        with Image.open(file) as image:
            return ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split()).replace(str(file), file.name)[:200]
        raise RecipeError(f"row {row}: {file.name} is not a valid image: {reason}; replace it") from error
