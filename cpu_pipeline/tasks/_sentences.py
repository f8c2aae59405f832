"""Everything that sentence-transformers reads of a model's folder, read the same way: one file for each question.

    modules.json                        what follows the transformer (`_modules`)
    sentence_bert_config.json           how texts are cut, and that they are lowered; under other names in old models
    config_sentence_transformers.json   prompts, how two vectors are compared, how many of their numbers count

A folder without modules.json is a plain transformer: its vectors are averaged, and the other two files are not read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.tasks import _modules, _tokens, _transformer
from cpu_pipeline.tasks._files import read_json
from cpu_pipeline.tasks._modules import HINT, MODULES, SENTENCE, TOKENS
from cpu_pipeline.tasks._pooling import Pooling
from cpu_pipeline.tasks._transformer import Transformer

if TYPE_CHECKING:
    from cpu_pipeline.tasks._modules import Array, Module

MAIN = "config_sentence_transformers.json"
KIND = "SentenceTransformer"
"""`model_type` of a model that gives one vector for a text."""
WITH_DECODER = frozenset(
    {"blenderbot", "blenderbot-small", "longt5", "m2m_100", "marian", "moonshine", "pegasus", "pegasus_x", "prophetnet"}
    | {"switch_transformers", "t5gemma", "t5gemma2", "t5gemma2_text", "udop", "whisper"}
)
"""`model_type`s whose encoder alone sentence-transformers runs, and which are not built here."""
SIMILARITIES = ("cosine", "dot", "euclidean", "manhattan")


@dataclass(frozen=True)
class Sentences:
    """How a model makes vectors of sentences, and how two of them are compared."""

    transformer: Transformer = field(default_factory=Transformer)
    modules: tuple[Module, ...] = (Pooling(),)
    """What follows the transformer, in order."""
    prompts: Mapping[str, str] = field(default_factory=lambda: {"query": "", "document": ""})
    """Name -> the text that goes before a sentence."""
    default_prompt: str = ""
    """The text that goes before a sentence when nobody chooses one."""
    similarity: str = "cosine"
    truncate_dim: int | None = None
    """How many numbers of a vector count, from the first; None for all."""

    @property
    def leaves_out_prompt(self) -> bool:
        """Say whether the prompt's tokens are read and then left out of the sentence's vector."""
        return any(isinstance(module, Pooling) and not module.include_prompt for module in self.modules)

    def embed(self, vectors: Array, prompt: int = 0) -> Array:
        """Make one float64 vector of token vectors of shape (tokens, size), the first `prompt` of them the prompt's.

        Raises:
            RecipeError: a module takes vectors of another size.
        """
        import numpy as np

        features = {TOKENS: vectors.astype(np.float64)}
        with np.errstate(all="ignore"):  # what is not finite is marked where it is used
            for module in self.modules:
                module(features, prompt)
        return features[SENTENCE][: self.truncate_dim]


def read(model: Path, *, whole: bool = True) -> Sentences:
    """Read the folder of a model.

    Args:
        model: The folder.
        whole: Whether every file must be there; otherwise modules without theirs are left out.

    Raises:
        RecipeError: it asks for something that is not supported, or a file is missing or broken; says what to do.
    """
    kind = _tokens.read_config(model).get("model_type")
    if kind in WITH_DECODER:
        raise RecipeError(
            f"config.json: the model is a {kind}, and the encoder of one cannot be built here; name another"
        )
    if not (model / MODULES).is_file():
        return _plain(model)
    main = read_json(model / MAIN, HINT) if (model / MAIN).is_file() else {}
    kind = main.get("model_type", KIND)
    if kind != KIND:
        raise RecipeError(f"{MAIN}: the model is a {kind}, which gives no single vector for a text; name a {KIND}")
    prompts = _prompts(main)
    name = main.get("default_prompt_name")
    if name and name not in prompts:
        raise RecipeError(
            f"{MAIN}: default_prompt_name is {name!r}, and the prompts are {', '.join(prompts)}; correct it"
        )
    similarity = main.get("similarity_fn_name") or "cosine"
    return Sentences(
        _transformer.read(model),
        _modules.read(model, whole=whole),
        prompts,
        prompts[name] if name else "",
        similarity if similarity in SIMILARITIES else "cosine",  # as sentence-transformers, which skips `maxsim`
        _dimension(main.get("truncate_dim")),
    )


def _prompts(main: Mapping[str, Any]) -> dict[str, str]:
    said = main.get("prompts") or {}
    if not isinstance(said, dict) or not all(text is None or isinstance(text, str) for text in said.values()):
        raise RecipeError(f"{MAIN}: prompts must map names to texts; {HINT}")
    return {"query": "", "document": "", **{name: text or "" for name, text in said.items()}}


def _dimension(value: Any) -> int | None:
    if value is not None and (type(value) is not int or value < 1):
        raise RecipeError(f"{MAIN}: truncate_dim is {value!r}, not a whole number from 1 on; {HINT}")
    return value


def _plain(model: Path) -> Sentences:
    """Read a transformer without modules: its mean, or the last token's vector of a model that was made to go on."""
    config = _tokens.read_config(model)
    if _has_chat_template(model):
        raise RecipeError(
            f"no {MODULES}, and the tokenizer has a chat template: sentence-transformers would read every text as a "
            f"message of a chat; take the template out of the model's folder, or {HINT}"
        )
    names = config.get("architectures") or [""]
    last = str(names[0]).endswith("ForCausalLM") and config.get("is_causal", True)
    return Sentences(Transformer(_transformer.by_default(model)), (Pooling(("lasttoken",) if last else ("mean",)),))


def _has_chat_template(model: Path) -> bool:
    file = model / "tokenizer_config.json"
    config = read_json(file, "save the tokenizer again") if file.is_file() else {}
    return bool(config.get("chat_template")) or (model / "chat_template.jinja").is_file()


def tokenizer(model: Path, limit: int, transformer: Transformer) -> Any:
    """Load the model's tokenizer, cut at `limit` tokens; lowering first where the folder says so.

    Raises:
        RecipeError: there is none, or the model takes fewer tokens.
    """
    found = _tokens.tokenizer(model, limit)
    return lowering(found) if transformer.lower else found


def lowering(tokenizer: Any) -> Any:
    """Copy a tokenizer, with a step before its others that lowers a text; special tokens in it are found before."""
    from tokenizers import Tokenizer, normalizers

    own = tokenizer.normalizer
    steps: list[Any] = [own] if own else []
    if isinstance(own, normalizers.Sequence):
        steps = list(tokenizer.normalizer)
    if any(isinstance(step, normalizers.Lowercase) for step in steps):
        return tokenizer
    copy = Tokenizer.from_str(tokenizer.to_str())
    copy.encode_special_tokens = tokenizer.encode_special_tokens
    copy.normalizer = normalizers.Sequence([normalizers.Lowercase(), *steps])
    return copy


def prompt_tokens(tokenizer: Any, prompt: str, sentences: Sentences) -> int:
    """Count the tokens of a prompt that are left out of a sentence's vector; 0 where pooling leaves none out.

    They are those of the prompt alone, but for a special token at its end, which ends any text.
    """
    if not prompt or not sentences.leaves_out_prompt:
        return 0
    ids = tokenizer.encode(prompt).ids
    token = tokenizer.get_added_tokens_decoder().get(ids[-1]) if ids else None
    return len(ids) - bool(token and token.special)


def compare(kind: str, first: Array, second: Array) -> float:
    """Compare two vectors: the cosine, the dot product, or the negative of a distance.

    The cosine with a vector of zeros is 0.
    """
    import numpy as np

    if kind == "dot":
        return float(first @ second)
    if kind == "cosine":
        lengths = float(np.linalg.norm(first)) * float(np.linalg.norm(second))
        return float(first @ second) / lengths if lengths else 0.0
    return -float(np.linalg.norm(first - second, ord=1 if kind == "manhattan" else 2))
