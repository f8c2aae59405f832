"""A teacher's outputs on disk: half precision, one file for each, read by memory map.

index.json says what is there: the features they belong to, by digest, and the shape of each output.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpu_pipeline.core.errors import RecipeError

if TYPE_CHECKING:
    import numpy as np

    from cpu_pipeline.tasks._base import Feature

FORMAT = "teacher-outputs"
INDEX = "index.json"
LARGEST = 65504.0
"""The largest number of half precision."""


def digest(features: Sequence[Feature]) -> str:
    """Digest the inputs of features, in order: outputs are of no use to other ones."""
    import numpy as np

    found = hashlib.sha256()
    for feature in features:
        for name, value in sorted(feature.inputs.items()):
            if name != "token_type_ids":  # a student may know no segments
                found.update(f"{name} {np.shape(value)} ".encode())
                found.update(np.ascontiguousarray(value).astype(np.float32).tobytes())
    return found.hexdigest()


class Writer:
    """Writes outputs feature by feature, in order."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self._files: dict[str, Any] = {}
        self._shapes: dict[str, tuple[list[int], bool]] = {}

    def add(self, length: int, outputs: Mapping[str, np.ndarray[Any, Any]], per_token: set[str]) -> None:
        """Append the outputs of one feature; those of `per_token` have `length` rows."""
        import numpy as np

        for name, value in outputs.items():
            if name not in self._files:
                self._files[name] = (self._out / f"{name}.f16").open("wb")
                self._shapes[name] = (list(value.shape[1:] if name in per_token else value.shape), name in per_token)
            half = np.clip(value[:length] if name in per_token else value, -LARGEST, LARGEST).astype("<f2")
            self._files[name].write(np.ascontiguousarray(half).tobytes())

    def close(self, features: Sequence[Feature], layers: int) -> int:
        """Write the index; return the bytes of all outputs."""
        for file in self._files.values():
            file.close()
        index = {
            "features": digest(features),
            "lengths": [feature.length for feature in features],
            "layers": layers,
            "outputs": {name: {"shape": s, "per_token": t} for name, (s, t) in sorted(self._shapes.items())},
        }
        (self._out / INDEX).write_text(json.dumps(index, sort_keys=True) + "\n", encoding="utf-8")
        return sum(file.stat().st_size for file in self._out.glob("*.f16"))


class Reader:
    """Gives the outputs of some features, as padded tensors."""

    def __init__(self, path: Path, features: Sequence[Feature]) -> None:
        """Open what a teacher gave for these features.

        Raises:
            RecipeError: it was for others: other rows, or another tokenizer.
        """
        import numpy as np

        index = json.loads((path / INDEX).read_text(encoding="utf-8"))
        if index["features"] != digest(features):
            raise RecipeError(
                "the teacher's outputs are of other tokens than the student's: both need the same tokenizer, and the "
                "step `distill.teacher` the same training rows"
            )
        self.layers: int = index["layers"]
        """Layers of the teacher."""
        self._lengths = index["lengths"]
        starts = np.concatenate([[0], np.cumsum(self._lengths)])
        self._starts = [int(start) for start in starts]
        self._files = {}
        self._per_token = {name: bool(about["per_token"]) for name, about in index["outputs"].items()}
        for name, about in index["outputs"].items():
            rows = self._starts[-1] if about["per_token"] else len(self._lengths)
            shape = (rows, *about["shape"])
            self._files[name] = np.memmap(path / f"{name}.f16", dtype="<f2", mode="r", shape=shape)

    @property
    def names(self) -> list[str]:
        """Name what there is."""
        return list(self._files)

    def tensor(self, name: str, numbers: Sequence[int]) -> Any:
        """Return one output of these features: float32, (features, tokens, ...) or (features, ...)."""
        import numpy as np
        import torch

        file = self._files[name]
        if not self._per_token[name]:
            return torch.from_numpy(np.asarray(file[list(numbers)], dtype=np.float32))
        longest = max(self._lengths[i] for i in numbers)
        found = np.zeros((len(numbers), longest, *file.shape[1:]), dtype=np.float32)
        for row, i in enumerate(numbers):
            found[row, : self._lengths[i]] = file[self._starts[i] : self._starts[i + 1]]
        return torch.from_numpy(found)
