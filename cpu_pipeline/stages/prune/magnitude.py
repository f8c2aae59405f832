"""Set the smallest weights of a checkpoint to zero, in place, without loading the model.

Magnitude pruning: Han et al. 2015, arXiv:1506.02626. N:M sparsity: Zhou et al. 2021 (arXiv:2102.04010) and
Mishra et al. 2021 (arXiv:2104.08378).
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from shutil import copyfile
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from cpu_pipeline.core.errors import RecipeError, StageFailed
from cpu_pipeline.core.repo_files import carry
from cpu_pipeline.stages._base import Count, Facts, Figure, Inputs, Job, Stage

if TYPE_CHECKING:
    import numpy as np

    Magnitudes = np.ndarray[Any, np.dtype[np.floating[Any]]]
    Mask = np.ndarray[Any, np.dtype[np.bool_]]

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
BITS = {"F64": "u8", "F32": "u4", "F16": "u2", "BF16": "u2"}
"""Float types of safetensors -> numpy's unsigned integer of the same width."""


class TensorFacts(Facts):
    """How many weights of one tensor, or of all, are zero now."""

    zeros: Count
    """Weights that are zero."""
    weights: Count
    """Weights in all."""
    sparsity: Figure
    """Share of zeros, as a fraction."""


class PruneFacts(TensorFacts):
    """What was pruned; the first three are of all pruned tensors together."""

    pruned_tensors: Count
    """Number of tensors that were pruned."""
    tensors: dict[str, TensorFacts]
    """Name of a tensor -> its zeros."""


class PruneMagnitude(Stage):
    """Set the weights of smallest magnitude to zero, unstructured or N of every M."""

    facts_model: ClassVar = PruneFacts
    takes: ClassVar = {"model": {"hf"}}
    packages: ClassVar = ("numpy", "safetensors")
    remedies: ClassVar = ("sparsity", "pattern", "exclude", "scope")

    sparsity: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Share of the targeted weights that become zero (0-1); left out with an N:M pattern, which fixes it."""
    pattern: Annotated[str, Field(pattern=r"^(unstructured|[1-9][0-9]?:[1-9][0-9]?)$")] = "unstructured"
    """`unstructured`, or `N:M` such as `2:4`: of every M consecutive weights of one output, keep the N largest."""
    scope: Literal["layer", "global"] = "layer"
    """Reach the sparsity in each tensor (`layer`), or over all of them with one threshold (`global`)."""
    include: tuple[str, ...] = ("*.[0-9].*", "*.[0-9][0-9].*", "*.[0-9][0-9][0-9].*")
    """Globs of tensor names to prune, of matrices called `*.weight`; the default is the numbered layers."""
    exclude: tuple[str, ...] = ("*embed*", "*relative_attention_bias*", "classifier.*", "score.*", "lm_head.*")
    """Globs of tensor names to leave alone, even where `include` names them."""

    @model_validator(mode="after")
    def _options_fit(self) -> PruneMagnitude:
        kept = self._kept()
        if kept is None:
            if self.sparsity is None:
                raise ValueError("sparsity: say how much to prune (0-1), or set a pattern such as 2:4")
            return self
        if kept[0] >= kept[1]:
            raise ValueError(f"pattern: {self.pattern} keeps {kept[0]} of {kept[1]}: N must be less than M")
        if self.sparsity is not None:
            raise ValueError(f"sparsity: leave it out, {self.pattern} means {1 - kept[0] / kept[1]:g}")
        if self.scope == "global":
            raise ValueError(f"scope: global has no meaning with {self.pattern}, each group of {kept[1]} stands alone")
        return self

    def gives(self) -> str:
        """Name the format of the pruned checkpoint."""
        return "hf"

    def run(self, inputs: Inputs, out: Path, job: Job) -> PruneFacts:
        """Copy the checkpoint, then zero weights inside its copied files; names, types and all else stay as they are.

        Among equal magnitudes the one that comes first (tensors by name, elements in row-major order) goes first.

        Raises:
            StageFailed: the weights are not valid safetensors, hold NaN, match no option, or do not divide by M.
        """
        source = inputs["model"].path
        tensors = self._choose(list(_list_tensors(source)))
        carry(source, out)
        for file in [*_weight_files(source), source / INDEX]:
            if file.is_file():
                copyfile(file, out / file.name)
        tensors = [tensor.moved(out) for tensor in tensors]
        if (kept := self._kept()) is not None:
            zeros = [_zero(tensor, _smallest_of_groups(tensor, *kept)) for tensor in tensors]
        else:
            share = self.sparsity or 0.0
            groups = [tensors] if self.scope == "global" else [[tensor] for tensor in tensors]
            zeros = [zeroed for group in groups for zeroed in _prune_together(group, share)]
        sizes = [math.prod(tensor.shape) for tensor in tensors]
        return PruneFacts(
            sparsity=sum(zeros) / sum(sizes),
            zeros=sum(zeros),
            weights=sum(sizes),
            pruned_tensors=len(tensors),
            tensors={
                tensor.name: TensorFacts(zeros=zero, weights=size, sparsity=zero / size)
                for tensor, zero, size in zip(tensors, zeros, sizes, strict=True)
            },
        )

    def _kept(self) -> tuple[int, int] | None:
        """Return N and M, or None when unstructured."""
        if self.pattern == "unstructured":
            return None
        kept, _, of = self.pattern.partition(":")
        return int(kept), int(of)

    def _choose(self, tensors: list[_Tensor]) -> list[_Tensor]:
        """Pick the matrices that the globs name; a glob someone wrote must match something."""
        matrices = {t.name: t for t in tensors if len(t.shape) == 2 and t.name.endswith(".weight") and t.dtype in BITS}
        for option in ("include", "exclude"):
            globs: tuple[str, ...] = getattr(self, option) if option in self.model_fields_set else ()
            for glob in globs:
                if not any(fnmatchcase(name, glob) for name in matrices):
                    raise RecipeError(f"prune.magnitude: {option}: `{glob}` matches no weight{_near(glob, matrices)}")
        chosen = [
            tensor
            for name, tensor in sorted(matrices.items())
            if any(fnmatchcase(name, glob) for glob in self.include)
            and not any(fnmatchcase(name, glob) for glob in self.exclude)
        ]
        if not any(math.prod(tensor.shape) for tensor in chosen):
            raise StageFailed(
                "prune.magnitude: no weight is left to prune; `include` and `exclude` must leave some of "
                f"{', '.join(sorted(matrices)[:5]) or 'the matrices, and there is none'}"
            )
        return chosen


@dataclass(frozen=True)
class _Tensor:
    """Where one tensor's bytes are."""

    name: str
    file: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int
    """From the start of the file, in bytes."""

    def moved(self, folder: Path) -> _Tensor:
        return _Tensor(self.name, folder / self.file.name, self.dtype, self.shape, self.offset)

    def bits(self, mode: Literal["r", "r+"]) -> np.memmap[Any, Any]:
        import numpy as np

        return np.memmap(self.file, dtype="<" + BITS[self.dtype], mode=mode, offset=self.offset, shape=self.shape)

    def magnitudes(self) -> Magnitudes:
        """Read absolute values as float32 (float64 stays what it is); both hold every half exactly."""
        import numpy as np

        bits = self.bits("r")
        if self.dtype == "BF16":
            values = (bits.astype("<u4") << 16).view("<f4")
        else:
            values = np.asarray(bits.view("<" + BITS[self.dtype].replace("u", "f")))
        found: Magnitudes = np.abs(values.astype(np.float64 if self.dtype == "F64" else np.float32))
        if np.isnan(found).any():
            raise StageFailed(f"prune.magnitude: {self.name} holds NaN; the checkpoint is broken")
        return found


def _prune_together(tensors: list[_Tensor], share: float) -> list[int]:
    """Zero the smallest `share` of all these tensors' weights; return the zeros now in each."""
    import numpy as np

    everything = np.concatenate([tensor.magnitudes().ravel() for tensor in tensors])
    count = math.floor(share * everything.size + 0.5)
    if count == 0:
        return [_zero(tensor, None) for tensor in tensors]
    everything.partition(count - 1)
    threshold = everything[count - 1]
    ties = count - int((everything < threshold).sum())
    del everything
    zeros = []
    for tensor in tensors:
        found = tensor.magnitudes()
        mask = found < threshold
        equal = np.flatnonzero(found == threshold)[:ties]
        mask.flat[equal] = True
        ties -= len(equal)
        zeros.append(_zero(tensor, mask))
    return zeros


def _smallest_of_groups(tensor: _Tensor, kept: int, of: int) -> Mask:
    """Mark all but the `kept` largest of every `of` consecutive weights along the input dimension (the last)."""
    import numpy as np

    rows, columns = tensor.shape
    if columns % of:
        raise StageFailed(
            f"prune.magnitude: {tensor.name} has {columns} inputs, which {of} does not divide; "
            f"exclude it, or take another pattern than {kept}:{of}"
        )
    order = np.argsort(tensor.magnitudes().reshape(rows, columns // of, of), axis=-1, kind="stable")
    mask = np.zeros(order.shape, dtype=np.bool_)
    np.put_along_axis(mask, order[..., : of - kept], True, axis=-1)
    return mask.reshape(rows, columns)


def _zero(tensor: _Tensor, mask: Mask | None) -> int:
    """Zero what is marked, in the file; return how many of the tensor's weights are zero now."""
    bits = tensor.bits("r+" if mask is not None else "r")
    if mask is not None:
        bits[mask] = 0
        bits.flush()
    sign = 1 << (8 * bits.itemsize - 1)
    return int(bits.size - ((bits & (sign - 1)) != 0).sum())


def _list_tensors(source: Path) -> Iterator[_Tensor]:
    """List the tensors of a checkpoint, sharded or not, from the files' headers.

    Format: 8 bytes of little-endian header length, a JSON header, then the data that its offsets refer to
    (https://github.com/huggingface/safetensors#format).
    """
    from safetensors import SafetensorError, safe_open

    for file in _weight_files(source):
        try:
            # The library checks lengths, offsets and types; what it accepts, we may read ourselves.
            with safe_open(file, framework="numpy"):
                pass
        except (SafetensorError, OSError) as error:
            raise StageFailed(f"{file}: not a valid safetensors file: {error}") from error
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            header = json.loads(opened.read(length))
        for name, entry in header.items():
            if name != "__metadata__":
                start = 8 + length + entry["data_offsets"][0]
                yield _Tensor(name, file, entry["dtype"], tuple(entry["shape"]), start)


def _weight_files(source: Path) -> list[Path]:
    if (source / WEIGHTS).is_file():
        return [source / WEIGHTS]
    if not (source / INDEX).is_file():
        raise StageFailed(f"{source}: no {WEIGHTS} and no {INDEX}; only safetensors can be pruned")
    try:
        names = sorted(set(json.loads((source / INDEX).read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StageFailed(f"{source / INDEX}: not a valid index of shards: {error!r}") from error
    for name in names:
        if Path(name).name != name or not (source / name).is_file():
            raise StageFailed(f"{source / INDEX}: names the shard {name}, which is not beside it")
    return [source / name for name in names]


def _near(glob: str, names: Mapping[str, object]) -> str:
    plain = re.sub(r"[*?\[\]]", "", glob)
    near = difflib.get_close_matches(plain, list(names), n=3, cutoff=0.3)
    return f" (near it: {', '.join(near)})" if near else ""
