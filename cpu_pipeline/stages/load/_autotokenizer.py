"""The official side: a folder's tokenizer as transformers' AutoTokenizer loads it, and what the model takes of it."""

from __future__ import annotations

import importlib.util
import inspect
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cpu_pipeline.core.errors import BackendMissing, StageFailed
from cpu_pipeline.core.repo_files import VOCABULARY
from cpu_pipeline.core.text import one_line
from cpu_pipeline.stages.load._configs import read_json
from cpu_pipeline.tasks._settings import TYPES

FAST = "tokenizer.json"
CONFIG = "tokenizer_config.json"
KIND = re.compile(r"\w*(Tokenizer|TokenizerFast|Backend)")
"""What `tokenizer_class` may name: transformers looks it up among all its classes."""


def load_official(folder: Path, **options: Any) -> Any:
    """Load the tokenizer of a folder as transformers' AutoTokenizer does.

    Args:
        folder: the directory with its files and config.json.
        options: settings that replace those of the files.

    Raises:
        StageFailed: transformers cannot.
        BackendMissing: it needs a package for it that is not installed.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    config = read_json(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    if not KIND.fullmatch(str(config.get("tokenizer_class") or "Tokenizer")):
        raise StageFailed(f"{CONFIG}: tokenizer_class {config['tokenizer_class']!r} is none; correct it in the model")
    classes = [AutoTokenizer] if known(folder) else [AutoTokenizer, PreTrainedTokenizerFast]
    for kind in classes:
        try:
            with quiet():
                return kind.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True, **options)
        except Exception as error:  # tokenizers raises nothing narrower
            reason = one_line(error)
    pieces = sorted(path.name for path in folder.iterdir() if path.name.endswith(VOCABULARY))
    if pieces and importlib.util.find_spec("sentencepiece") is None:
        raise BackendMissing(f"{pieces[0]}: reading it needs the package `sentencepiece`; install it")
    what = "cannot be loaded" if (folder / FAST).is_file() else "no tokenizer.json can be made of it"
    raise StageFailed(
        f"{FAST if (folder / FAST).is_file() else 'the tokenizer'}: {what}: {reason}; save it again with transformers"
    )


def load_for_words(folder: Path, official: Any) -> Any:
    """Load the official tokenizer for texts that are split into words.

    A byte-level one has to see a space before each word: transformers' scripts for token classification load it with
    `add_prefix_space`. Classes that take no notice of it are set by hand.
    """
    from tokenizers import pre_tokenizers

    if not official.is_fast or not isinstance(official.backend_tokenizer.pre_tokenizer, pre_tokenizers.ByteLevel):
        return official
    words = load_official(folder, add_prefix_space=True)
    words.backend_tokenizer.pre_tokenizer.add_prefix_space = True
    return words


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' warnings and progress bars from the log of a step."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def known(folder: Path) -> bool:
    """Say whether transformers knows the kind of model; of any other, the tokenizer's files alone count."""
    from transformers import CONFIG_MAPPING

    config = folder / "config.json"
    return config.is_file() and read_json(config).get("model_type") in CONFIG_MAPPING


def takes_types(folder: Path) -> bool:
    """Say whether the model of a folder takes token types; True where transformers does not know it."""
    from transformers import CONFIG_MAPPING, MODEL_MAPPING

    config = read_json(folder / "config.json")
    counted, kind = config.get("type_vocab_size"), config.get("model_type")
    if isinstance(counted, int) and counted < 2:
        return False
    model = MODEL_MAPPING.get(CONFIG_MAPPING[kind], None) if kind in CONFIG_MAPPING else None
    first = model[0] if isinstance(model, tuple) else model
    return first is None or TYPES in inspect.signature(first.forward).parameters
