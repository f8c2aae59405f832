"""Load and run a checkpoint with transformers and eager torch: the reference of everything that is built from it."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpu_pipeline.backends import _usage
from cpu_pipeline.backends._base import MEDIA, TESTED
from cpu_pipeline.core.errors import BackendMissing, StageFailed
from cpu_pipeline.core.model_io import TOKENS, shapes
from cpu_pipeline.core.text import one_line

if TYPE_CHECKING:
    from cpu_pipeline.core.model_io import Arrays, Head, Session

PACKAGES = ("torch", "transformers", "safetensors")
VERSION = 1
ENVIRONMENT = "default"
PRECISIONS = ("float32",)
ARCHITECTURES = TESTED | MEDIA
ONLY = False
ENCODERS = frozenset({"mt5", "t5", "umt5"})
"""`model_type`s of an encoder with a decoder, whose encoder embeds a text, as sentence-transformers loads them."""
STATUS = "torch and transformers, pinned and current; what everything else is compared with"


def load(path: Path, head: Head | None, threads: int) -> Session:
    """Open a checkpoint in float32; 0 threads leaves torch's own choice.

    Raises:
        StageFailed: it is not a valid checkpoint, or not one for this task.
        BackendMissing: torch or transformers is not installed.
    """
    model = checkpoint(path, head)
    import torch

    if threads > 0:
        torch.set_num_threads(threads)
    return Eager(model, head.outputs if head else (), head.input_kinds(path) if head else TOKENS)


def checkpoint(path: Path, head: Head | None) -> Any:
    """Load a checkpoint with the task's head as a torch module: float32, eval, safetensors only, offline.

    Attention is scaled_dot_product_attention where the architecture has it, and its own code elsewhere (MPNet).

    Raises:
        StageFailed: the files are broken, or lack weights that the task's head needs.
        BackendMissing: torch or transformers is not installed.
    """
    try:
        import torch
        import transformers
        from huggingface_hub.errors import StrictDataclassError
        from safetensors import SafetensorError
    except ImportError as error:
        raise BackendMissing(f"{path}: loading a checkpoint needs torch and transformers: {error}") from error

    transformers.utils.logging.disable_progress_bar()
    before = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.set_verbosity_error()

    from cpu_pipeline.backends import _structure

    def load(attention: str) -> Any:
        if (path / _structure.FILE).is_file():
            return _structure.load(path, auto_class, attention)
        return getattr(transformers, auto_class).from_pretrained(
            path,
            dtype=torch.float32,
            attn_implementation=attention,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )

    auto_class = head.auto_class if head else "AutoModel"
    try:
        auto_class = class_for(path, head)
        try:
            model, report = load("sdpa")
        except ValueError:  # an architecture without it; any other trouble shows again
            model, report = load("eager")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, ImportError) as error:
        raise StageFailed(f"{path}: not a valid checkpoint for {auto_class}: {one_line(error)}") from error
    except (SafetensorError, StrictDataclassError) as error:
        raise StageFailed(f"{path}: not a valid checkpoint: {one_line(error)}") from error
    finally:
        transformers.utils.logging.set_verbosity(before)
    _check_complete(path, auto_class, head, report)
    return model.eval().requires_grad_(False)


def class_for(path: Path, head: Head | None) -> str:
    """Name transformers' class: of a model in ENCODERS the encoder alone, where only its last layer is read."""
    name = head.auto_class if head else "AutoModel"
    if name != "AutoModel" or head is None or set(head.outputs) != {"last_hidden_state"}:
        return name
    from transformers import PreTrainedConfig

    config, _ = PreTrainedConfig.get_config_dict(path, local_files_only=True)
    return "AutoModelForTextEncoding" if config.get("model_type") in ENCODERS else name


def inputs_of(model: Any, names: Iterable[str] = TOKENS) -> tuple[str, ...]:
    """Name what the model takes of `names`, which a task gives (see `Task.input_kinds`); by default tokens.

    It takes what its `forward` names; token types only where its configuration does not say that there is but one.

    Raises:
        StageFailed: its main input is not among them.
    """
    takes = inspect.signature(model.forward).parameters
    segments = getattr(model.config, "type_vocab_size", None)
    found = tuple(n for n in names if n in takes and (n != "token_type_ids" or segments is None or segments > 1))
    main = getattr(model, "main_input_name", "input_ids")
    if main not in found:
        raise StageFailed(f"{type(model).__name__} takes {main}, and only {', '.join(names)} can be given to it here")
    return found


def outputs_of(answer: Any, names: tuple[str, ...]) -> dict[str, Any]:
    """Pick the named outputs of a transformers answer; a name it does not have stands for a position."""
    if not names:
        return {name: value for name, value in answer.items() if hasattr(value, "shape")}
    return {name: answer[name] if name in answer else answer[index] for index, name in enumerate(names)}


class Eager:
    """A torch module called with named numpy arrays.

    Args:
        model: what `checkpoint` gave.
        outputs: what to pick of its answer.
        names: what can be given to it, as `inputs_of` has it.
    """

    def __init__(self, model: Any, outputs: tuple[str, ...], names: Iterable[str] = TOKENS) -> None:
        self.model = model
        self.inputs = inputs_of(model, names)
        self._outputs = outputs

    def __call__(self, arrays: Arrays, /) -> Arrays:
        """Run one batch without gradients.

        Args:
            arrays: int64 tokens of shape (batch, sequence), or what else the model takes; floats are cast to the type
                of its weights.

        Returns:
            float32 arrays, the batch first.

        Raises:
            StageFailed: the model does not take this batch.
        """
        import torch

        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        try:
            with torch.inference_mode():
                answer = self.model(**{name: _cast(value, self.model) for name, value in tensors.items()})
        except (ValueError, IndexError) as error:
            raise StageFailed(
                f"{type(self.model).__name__} does not run on a batch with {shapes(arrays)}: {one_line(error)}"
            ) from error
        return {name: value.float().numpy() for name, value in outputs_of(answer, self._outputs).items()}


def _cast(value: Any, model: Any) -> Any:
    """Bring floats to the type of the model's weights."""
    return value.to(model.dtype) if value.is_floating_point() else value


def _check_complete(path: Path, auto_class: str, head: Head | None, report: dict[str, Any]) -> None:
    missing = sorted(report["missing_keys"])
    if auto_class == "AutoModel" and "pooler_output" not in (head.outputs if head else ()):
        missing = [key for key in missing if not key.startswith("pooler.")]
    if missing:
        names = ", ".join(missing[:4]) + (" ..." if missing[4:] else "")
        hint = sorted(report["unexpected_keys"])
        present = f" (it has {', '.join(hint[:4])})" if hint else ""
        raise StageFailed(
            f"{path}: the checkpoint has no weights for {names}{present}: {auto_class} does not fit it, name the task "
            "that it was trained for"
        )
    if report["mismatched_keys"]:
        key = min(str(mismatch[0]) for mismatch in report["mismatched_keys"])
        raise StageFailed(f"{path}: not a valid checkpoint: the shape of {key} is not the one config.json asks for")


def usage(folder: str, head: Head | None) -> str:
    """Write how to load the checkpoint with transformers."""
    name = head.auto_class if head is not None else "AutoModel"
    if hasattr(head, "embed"):
        return _usage.sentence_transformers(folder, head)
    if getattr(head, "files", ()):
        return f"""
import torch
from transformers import {name}
{_usage.inputs(folder, head)}

model = {name}.from_pretrained("{folder}", dtype=torch.float32)
outputs = model(**{{name: torch.from_numpy(value[None]) for name, value in inputs.items()}})
"""
    return f"""
import torch
from transformers import {name}, AutoTokenizer

model = {name}.from_pretrained("{folder}", dtype=torch.float32)
tokenizer = AutoTokenizer.from_pretrained("{folder}")
outputs = model(**tokenizer("A text, and for tasks on pairs", "its second text", return_tensors="pt"))
"""
