"""Make the quickstart's model and its rows from templates.txt and invented names alone; `--check` proves what is here.

python recipes/quickstart/make.py           writes the three .jsonl files and trains model/ (same machine -> same bytes)
python recipes/quickstart/make.py --check   compares the rows byte by byte and scores the model on validation.jsonl
"""

from __future__ import annotations

import argparse
import collections
import itertools
import json
import math
import random
import re
import string
import sys
import time
import zlib
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
MODEL = HERE / "model"
SEED = 2024
THREADS = 1
ROWS = {"train": 1500, "calibration": 160, "validation": 420}
"""Rows in each file. train.jsonl is the beginning of what the model is trained on, which the same code continues."""
TRAINING_ROWS = 96_000
BATCH = 32
LEARNING_RATE = 1e-3
VOCABULARY, POSITIONS, HIDDEN, LAYERS, HEADS = 2000, 514, 128, 4, 4
FACTS = (1, 2, 3, 3, 4, 4, 5, 5, 5, 6, 6, 7, 8, 12)
"""Facts in a passage; one of these, so that most have 40 to 120 tokens."""
HINTS = {"mentions": 2, "alike": 2, "about": 3}
"""What training tells besides the answer (fields of `Asked`), each to the layer that should know it."""
QUESTIONS = {"train": 4, "calibration": 2, "validation": 2}
"""Questions asked of a passage, at most."""
MAX_ANSWER_TOKENS = 30
MIN_F1, MAX_BASELINE = 0.85, 0.40

Row = dict[str, Any]
Span = tuple[int, int]
"""The first character or token of something, and the one after its last."""


class Random:
    """Choices built on `random.random` alone, the only sequence that Python promises to keep between versions."""

    def __init__(self, seed: str) -> None:
        self.random = random.Random(seed).random

    def below(self, n: int) -> int:
        return int(self.random() * n)

    def pick(self, items: Sequence[Any]) -> Any:
        return items[self.below(len(items))]

    def shuffled(self, items: Iterable[Any]) -> list[Any]:
        return [item for _, item in sorted(((self.random(), n), item) for n, item in enumerate(items))]


# Names and values ---------------------------------------------------------------------------------------------------


def lists() -> dict[str, list[str]]:
    """Read names.txt: name of a list -> its words ("_" is a space)."""
    text = re.sub(r"(?m)^#.*$", "", (HERE / "names.txt").read_text(encoding="utf-8"))
    parts = re.split(r"(?m)^(\w+):$", text)[1:]
    return {
        name: [" ".join(word.split()).replace("_", " ") for word in words.split(",")]
        for name, words in zip(parts[::2], parts[1::2], strict=True)
    }


LISTS = lists()


def side(name: str) -> str:
    """Say to which side a name belongs: one name in five is kept for validation and never seen in training."""
    return "validation" if zlib.crc32(name.encode()) % 5 == 0 else "train"


class Names:
    """Invents names of one side; values that are no names (dates, goods, ...) are common to both."""

    def __init__(self, rng: Random, of: str) -> None:
        self.rng, self.of = rng, of

    def only(self, make: Callable[[], str]) -> str:
        return next(name for name in iter(make, None) if side(name) == self.of)

    def word(self) -> str:
        def make() -> str:
            ends = [self.rng.pick(LISTS["end"]) for _ in range(1 + (self.rng.random() < 0.2))]
            return self.rng.pick(LISTS["start"]) + "".join(ends)

        return self.only(make)

    def pair(self, first: str, second: str) -> str:
        return self.only(lambda: f"{self.rng.pick(LISTS[first])} {self.rng.pick(LISTS[second])}")

    def person(self) -> str:
        first = self.only(lambda: self.rng.pick(LISTS["first"])) if self.rng.random() < 0.5 else self.word()
        last = self.only(lambda: self.rng.pick(LISTS["last"])) if self.rng.random() < 0.3 else self.word()
        return f"{first} {last}"

    def town(self) -> str:
        end = self.rng.pick(LISTS["town_end"]) if self.rng.random() < 0.7 else ""
        return self.word() + end

    def company(self) -> str:
        return f"{self.word()} {self.rng.pick(LISTS['company_end'])}"

    def number(self) -> str:
        magnitude = 10 ** (1 + self.rng.below(5))
        return f"{magnitude + self.rng.below(9 * magnitude):,}"

    def make(self, kind: str) -> str:
        rng = self.rng
        if kind in ("job", "hobby", "goods", "material"):
            return str(rng.pick(LISTS[kind]))
        makers: dict[str, Callable[[], str]] = {
            "person": self.person,
            "town": self.town,
            "company": self.company,
            "number": self.number,
            "count": lambda: str(20 + rng.below(900)),
            "word": self.word,
            "river": self.word,
            "ship": lambda: f"the {self.word()}",
            "event": lambda: f"the {self.word()} {rng.pick(LISTS['festival'])}",
            "object": lambda: f"the {self.pair('adjective', 'thing')}",
            "book": lambda: f"The {self.pair('title_adjective', 'title_noun')}",
            "year": lambda: str(1500 + rng.below(520)),
            "date": lambda: (
                f"{1 + rng.below(28)} {rng.pick(LISTS['month'])}" + rng.pick(["", f" {1850 + rng.below(170)}"])
            ),
            "amount": lambda: rng.pick(["${}", "{} dollars", "{} crowns", "{} pounds"]).format(
                f"{2 + rng.below(9998):,}"
            ),
            "duration": lambda: f"{rng.pick(LISTS['few'])} {rng.pick(['hours', 'days', 'weeks'])}",
        }
        return makers[kind]()


# Passages -----------------------------------------------------------------------------------------------------------


class Relation(NamedTuple):
    """One thing that can be said of an entity, in the templates of one side."""

    kind: str
    sentences: list[str]
    questions: list[str]


class Templates(NamedTuple):
    """All templates of one side: entity -> its relations, and what stands between facts."""

    relations: dict[str, list[Relation]]
    filler: list[str]
    opening: list[str]


def choices(template: str) -> set[str]:
    """Write a template with every choice of its (x|y), whoever it calls {who} or {name}."""
    made = [""]
    for part in re.split(r"[()]", template):
        made = [text + choice for text in made for choice in part.split("|")]
    return {text.replace("{who", "{name").lower() for text in made}


def templates(of: str) -> Templates:
    """Read templates.txt and nouns.txt: held-out pairs of form and noun for validation, all else for training."""
    relations: dict[str, list[Relation]] = collections.defaultdict(list)
    known: dict[str, Relation] = {}
    plain: set[str] = set()  # what templates.txt says: trained on, so never held out, though nouns.txt may say it too
    other: dict[str, list[str]] = {"filler": [], "opening": []}
    sentences, questions = other["filler"], other["filler"]
    for line in (HERE / "templates.txt").read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        if head := re.fullmatch(r"\[((\w+)\.\w+)\] (\w+)", line):
            sentences, questions = [], []
            known[head[1]] = Relation(head[3], sentences, questions)
            relations[head[2]].append(known[head[1]])
        elif line in ("[filler]", "[opening]"):
            sentences = questions = other[line[1:-1]]
        elif sentences is other["filler"] or sentences is other["opening"]:
            if line.startswith("* ") == (of == "validation"):
                sentences.append(line.removeprefix("* "))
        else:
            plain |= choices(line)
            if of == "train":
                (questions if line.endswith("?") else sentences).append(line)
    forms: list[str] = []
    nouns: dict[str, list[str]] = {}
    for line in (HERE / "nouns.txt").read_text(encoding="utf-8").splitlines():
        if head := re.fullmatch(r"\[([\w.]+)\] (.+)", line):
            nouns[head[1]] = head[2].split(", ")
        elif line.startswith("{") or (line and line[0] not in "#["):
            forms.append(line)
    for name, called in nouns.items():
        for noun in called:
            for form in forms:
                text = form.replace("{noun}", noun)
                if side(f"{form} {noun}") == of and not (of == "validation" and choices(text) & plain):
                    (known[name].questions if form.endswith("?") else known[name].sentences).append(text)
    return Templates(dict(relations), other["filler"], other["opening"])


def fill(rng: Random, template: str, slots: dict[str, str]) -> str:
    """Choose one of each (x|y) and fill the {slots}."""
    text = re.sub(r"\(([^()]*\|[^()]*)\)", lambda match: rng.pick(match[1].split("|")), template)
    return re.sub(r"\{([\w']+)\}", lambda match: slots[match[1]], text)


def possessive(name: str) -> str:
    return name + "'s"


class Entity:
    """Somebody or something with a name, of which a passage tells several facts."""

    def __init__(self, names: Names, kind: str) -> None:
        self.kind, self.name = kind, names.make(kind)
        first = self.name.split()[0]
        she = first in LISTS["she"] or (first not in LISTS["first"] and first[-1] in "aeiy")
        self.pronouns = ("it", "its") if kind != "person" else ("she", "her") if she else ("he", "his")
        self.told = False

    def mention(self, rng: Random, pronoun: bool, mark: str) -> dict[str, str]:
        """Name it in full the first time; later by a pronoun where that is clear, or a person by one name."""
        name = self.name
        if self.told and self.kind == "person" and rng.random() < 0.5:
            name = rng.pick(name.split())
        slots = {"who": name, "who's": possessive(name), "name": name, "name's": possessive(name)}
        if self.told and pronoun and rng.random() < 0.5:
            slots["who"], slots["who's"] = self.pronouns
        self.told = True
        return {slot: f"{mark}{text}{END}" for slot, text in slots.items()}


VALUE, END, FACT, MENTION = "\x01", "\x02", "\x03", "\x10"
"""Marks in unfinished text: a value begins, the innermost marked part ends, a fact begins, the first entity's mention
begins (+1: the second's)."""


def capital(text: str) -> str:
    return re.sub(r"^[\x01-\x1f]*.", lambda match: match[0].upper(), text)


def spans(text: str) -> tuple[str, dict[str, list[Span]]]:
    """Take the marks out of a text; give it, and for each mark the first character and end of every part."""
    plain, begun, found = "", [], collections.defaultdict(list)
    for part in re.split(r"([\x01-\x1f])", text):
        if part == END:
            mark, start = begun.pop()
            found[mark].append((start, len(plain)))
        elif re.match(r"[\x01-\x1f]", part):
            begun.append((part, len(plain)))
        else:
            plain += part
    return plain, found


class Asked(NamedTuple):
    """A question, its answer and where that begins; and parts of the passage that lead to it."""

    question: str
    answer: str
    start: int
    mentions: list[Span]
    """Where the passage mentions the one asked about."""
    alike: list[Span]
    """What it tells of anyone in the respect asked for."""
    about: list[Span]
    """All that it tells of the one asked about."""


class Passage(NamedTuple):
    """A text about a few entities, and a question for each fact in it."""

    title: str
    text: str
    asked: list[Asked]


def passage(rng: Random, names: Names, texts: Templates) -> Passage:
    """Tell several facts of one to four entities, so that only the question says which of them is the answer."""
    taken: set[str] = set()

    def fresh(make: Callable[[], Any], name_of: Callable[[Any], str], kind: str) -> Any:
        while True:
            made = make()
            words = set(name_of(made).split() if kind == "person" else [name_of(made)])
            if not words & taken:
                taken.update(words)
                return made

    def entity(kind: str) -> Entity:
        return fresh(lambda: Entity(names, kind), lambda made: made.name, kind)

    kinds = sorted(texts.relations)
    kind = rng.pick(kinds)
    entities = [entity(kind) for _ in range(rng.pick([1, 1, 2, 2, 2, 3]))]
    if rng.random() < 0.35:
        entities.append(entity(rng.pick(kinds)))
    facts = [(about, relation) for about in entities for relation in texts.relations[about.kind]]
    facts = rng.shuffled(facts)[: rng.pick(FACTS)]
    if rng.random() < 0.7:
        facts.sort(key=lambda fact: entities.index(fact[0]))

    text, questions, before = "", [], None
    for about, relation in facts:
        value = fresh(lambda kind=relation.kind: names.make(kind), str, relation.kind)
        slots = about.mention(rng, pronoun=about is before, mark=chr(ord(MENTION) + entities.index(about)))
        slots |= {"v": f"{VALUE}{value}{END}", "a": "an" if value[0] in "aeiou" else "a"}
        sentence = fill(rng, rng.pick(relation.sentences), slots)
        if rng.random() < 0.1:
            sentence = f"{rng.pick(texts.opening)} {sentence}"
        sentence = f"{FACT}{sentence[:-1]}{END}."
        if text and rng.random() < 0.12:
            text = text[:-1] + rng.pick([", and ", "; "]) + sentence
        else:
            text += " " * bool(text) + capital(sentence)
        if rng.random() < 0.12:
            text += " " + capital(fill(rng, rng.pick(texts.filler), {}))
        name = {"name": about.name, "name's": possessive(about.name)}
        questions.append(capital(fill(rng, rng.pick(relation.questions), name)))
        before = about
    text, found = spans(text)
    asked = []
    for n, (about, relation) in enumerate(facts):
        start, end = found[VALUE][n]
        mentions = found[chr(ord(MENTION) + entities.index(about))]
        alike = [part for part, other in zip(found[FACT], facts, strict=True) if other[1] is relation]
        of_it = [part for part, other in zip(found[FACT], facts, strict=True) if other[0] is about]
        asked.append(Asked(questions[n], text[start:end], start, mentions, alike, of_it))
    return Passage(capital(entities[0].name), text, asked)


def examples(split: str) -> Iterator[tuple[Row, Asked]]:
    """Make the rows of a split, in order and without end."""
    of = "validation" if split == "validation" else "train"
    rng = Random(f"{SEED} {split}")
    names, texts = Names(rng, of), templates(of)
    for number in itertools.count():
        made = passage(rng, names, texts)
        for n, asked in enumerate(rng.shuffled(made.asked)[: QUESTIONS[split]]):
            row = {
                "id": f"{split}-{number}-{n}",
                "title": made.title,
                "context": made.text,
                "question": asked.question,
                "answers": {"text": [asked.answer], "answer_start": [asked.start]},
            }
            yield row, asked


def rows(split: str) -> Iterator[Row]:
    return (row for row, _ in examples(split))


def data(split: str) -> str:
    """Give the text of a split's file: one JSON object per line."""
    lines = (json.dumps(row, ensure_ascii=False) for row in itertools.islice(rows(split), ROWS[split]))
    return "".join(line + "\n" for line in lines)


# Training -----------------------------------------------------------------------------------------------------------


def train_tokenizer(texts: Iterable[str]) -> None:
    """Train RoBERTa's kind of tokenizer (byte-level BPE) and save it as `tokenizers` and transformers read it."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True)])
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=True)
    tokenizer.save(str(MODEL / "tokenizer.json"))
    names = dict(zip(["bos", "pad", "eos", "unk", "mask"], special, strict=True)) | {"cls": "<s>", "sep": "</s>"}
    tokens = {f"{name}_token": token for name, token in sorted(names.items())}
    config = {
        "tokenizer_class": "RobertaTokenizer",
        "add_prefix_space": True,
        "trim_offsets": True,
        "model_max_length": POSITIONS - 2,
        **tokens,
    }
    for file, content in {"special_tokens_map.json": tokens, "tokenizer_config.json": config}.items():
        (MODEL / file).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


class Encoded(NamedTuple):
    """Tokens of a question and its passage, and where the characters of each begin and end."""

    ids: array[int]
    passage: range
    """Which tokens are the passage's."""
    offsets: list[tuple[int, int]]

    def tokens(self, start: int, end: int) -> Span:
        """Give the tokens that hold these characters of the passage."""
        held = [n for n in self.passage if self.offsets[n][0] < end and self.offsets[n][1] > start]
        return held[0], held[-1] + 1


def encode(batch: Iterable[Row]) -> Iterator[Encoded]:
    """Tokenise rows as <s> question </s></s> passage </s>."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    for row in batch:
        made = tokenizer.encode(row["question"], row["context"])
        inside = [n for n, sequence in enumerate(made.sequence_ids) if sequence == 1]
        yield Encoded(array("H", made.ids), range(inside[0], inside[-1] + 1), made.offsets)


def pad(batch: Sequence[array[int]]) -> dict[str, Any]:
    """Make a batch's tensors, padded to its longest sequence."""
    import torch

    width = max(map(len, batch))
    ids = torch.tensor([[*one, *[1] * (width - len(one))] for one in batch])
    return {"input_ids": ids, "attention_mask": (ids != 1).long()}


class Lesson(NamedTuple):
    """What training needs of a row: its tokens, the answer's first and last, and those of each hint in HINTS."""

    ids: array[int]
    answer: tuple[int, int]
    hints: list[list[Span]]


def lessons() -> Iterator[Lesson]:
    """Encode the training rows."""
    some, again = itertools.tee(itertools.islice(examples("train"), TRAINING_ROWS))
    for (_, asked), one in zip(some, encode(row for row, _ in again), strict=True):
        start, end = one.tokens(asked.start, asked.start + len(asked.answer))
        hints = [[one.tokens(*part) for part in getattr(asked, hint)] for hint in HINTS]
        yield Lesson(one.ids, (start, end - 1), hints)


def batches(rng: Random, all_lessons: Iterable[Lesson]) -> list[list[Lesson]]:
    """Batch examples of like lengths, which wastes little on padding; most of the short ones come first.

    To find a name again is learned soonest, and cheapest, where there is little else to look at.
    """

    def shuffled(some: Sequence[Lesson]) -> list[list[Lesson]]:
        ready = []
        mixed = rng.shuffled(some)
        for first in range(0, len(mixed), BATCH * 50):
            alike = sorted(mixed[first : first + BATCH * 50], key=lambda one: len(one.ids))
            ready += [alike[n : n + BATCH] for n in range(0, len(alike), BATCH)]
        return rng.shuffled(ready)

    ordered = sorted(all_lessons, key=lambda one: len(one.ids))
    third = len(ordered) // 3
    kept = ordered[:third:5]
    del ordered[:third:5]
    return shuffled(ordered[: third - len(kept)]) + shuffled(kept + ordered[third - len(kept) :])


def waves() -> Any:
    """Give sines and cosines of each position (Vaswani et al. 2017), from which a distance is soon learned."""
    import torch

    frequencies = torch.exp(torch.arange(0, HIDDEN, 2) * (-math.log(10_000) / HIDDEN))
    angles = torch.arange(POSITIONS)[:, None] * frequencies
    return math.sqrt(2) * torch.cat([angles.sin(), angles.cos()], dim=1)


def train() -> None:
    """Train tokenizer and model on the rows of train.jsonl and those that follow them; write model/.

    Heads that are thrown away afterwards learn to see half way up what leads to the answer (HINTS): a small model needs
    long to discover that by itself.
    """
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits
    from transformers import RobertaConfig, RobertaForQuestionAnswering

    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(THREADS)
    torch.manual_seed(SEED)
    MODEL.mkdir(exist_ok=True)
    first = itertools.islice(rows("train"), 20_000)
    train_tokenizer(text for row in first for text in (row["question"], row["context"]))
    config = RobertaConfig(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=4 * HIDDEN,
        max_position_embeddings=POSITIONS,
        type_vocab_size=1,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=0.06,  # for a narrow model; the usual 0.02 makes all attention alike and learns late
        bos_token_id=0,
        pad_token_id=1,
        eos_token_id=2,
    )
    model = RobertaForQuestionAnswering(config).train()
    with torch.no_grad():
        for layer in model.roberta.encoder.layer:  # equal, they make each word look for itself elsewhere
            layer.attention.self.key.weight.copy_(layer.attention.self.query.weight)
        model.roberta.embeddings.position_embeddings.weight.copy_(config.initializer_range * waves())
    heads = torch.nn.ModuleList([torch.nn.Linear(HIDDEN, 1) for _ in HINTS])
    weights = [*model.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = batches(Random(f"{SEED} order"), lessons())
    began, mean = time.monotonic(), torch.zeros(1 + len(HINTS))
    for step, batch in enumerate(schedule, 1):
        rate = min(step / 200, 0.5 * (1 + math.cos(math.pi * step / len(schedule))) + 0.01)
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * rate
        inputs = pad([one.ids for one in batch])
        starts, ends = torch.tensor([one.answer for one in batch]).unbind(1)
        output = model(**inputs, start_positions=starts, end_positions=ends, output_hidden_states=True)
        losses = [output.loss]
        for which, layer in enumerate(HINTS.values()):
            said = heads[which](output.hidden_states[layer]).squeeze(-1)
            true = torch.zeros(said.shape)
            for n, one in enumerate(batch):
                for start, end in one.hints[which]:
                    true[n, start:end] = 1.0
            losses.append(binary_cross_entropy_with_logits(said, true, weight=inputs["attention_mask"].float()))
        optimizer.zero_grad()
        sum(losses).backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        now = torch.stack(losses).detach()
        mean = now if step == 1 else 0.98 * mean + 0.02 * now
        if step % 50 == 0:
            shown = "  ".join(f"{loss:.3f}" for loss in mean.tolist())
            print(f"step {step}/{len(schedule)}  loss {shown}  {time.monotonic() - began:.0f} s", flush=True)
    model.save_pretrained(MODEL)


# Checking -----------------------------------------------------------------------------------------------------------


def predict(batch: Sequence[Row]) -> list[str]:
    """Answer rows with the model in model/, in float32."""
    import torch
    from transformers import RobertaForQuestionAnswering

    model = RobertaForQuestionAnswering.from_pretrained(MODEL, dtype=torch.float32).eval()
    answers = []
    encoded = list(encode(batch))
    for first in range(0, len(batch), BATCH):
        some = encoded[first : first + BATCH]
        with torch.inference_mode():
            output = model(**pad([one.ids for one in some]))
        for n, one in enumerate(some):
            inside = slice(one.passage.start, one.passage.stop)
            score = output.start_logits[n, inside, None] + output.end_logits[n, None, inside]
            allowed = torch.ones_like(score).triu().tril(MAX_ANSWER_TOKENS - 1)
            best = int(score.masked_fill(allowed == 0, -math.inf).argmax())
            start, end = (one.passage.start + place for place in divmod(best, len(one.passage)))
            answers.append(batch[first + n]["context"][one.offsets[start][0] : one.offsets[end][1]])
    return answers


def normalise(text: str) -> list[str]:
    """Give the words that count: lower case, without punctuation and articles (SQuAD 1.1's evaluation)."""
    plain = "".join(char for char in text.lower() if char not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", plain).split()


def score(batch: Sequence[Row], answers: Sequence[str]) -> tuple[float, float]:
    """Give the mean exact match and token F1, as fractions."""
    exact = f1 = 0.0
    for row, answer in zip(batch, answers, strict=True):
        gold, said = normalise(row["answers"]["text"][0]), normalise(answer)
        common = (collections.Counter(gold) & collections.Counter(said)).total()
        exact += gold == said
        f1 += 2 * common / (len(gold) + len(said)) if common else 0.0
    return exact / len(batch), f1 / len(batch)


def baselines(batch: Sequence[Row]) -> dict[str, list[str]]:
    """Answer without reading the question: the commonest answer, the first or last name, the first number."""

    def match(pattern: str, which: int) -> list[str]:
        return [(re.findall(pattern, row["context"]) or [""])[which] for row in batch]

    name = r"(?<!^)(?<!\. )\b[A-Z]\w+(?: [A-Z]\w+)*"
    commonest = collections.Counter(row["answers"]["text"][0] for row in batch).most_common(1)[0][0]
    return {
        "most frequent answer": [commonest] * len(batch),
        "first name in the passage": match(name, 0),
        "last name in the passage": match(name, -1),
        "first number in the passage": match(r"\d[\d,]*", 0),
    }


def check() -> list[str]:
    """Compare the rows with what the templates give, score the model and the baselines; say what is wrong."""
    wrong = [
        f"{split}.jsonl differs from what make.py generates"
        for split in ROWS
        if (HERE / f"{split}.jsonl").read_bytes() != data(split).encode()
    ]
    batch = [json.loads(line) for line in (HERE / "validation.jsonl").read_text(encoding="utf-8").splitlines()]
    exact, f1 = score(batch, predict(batch))
    print(f"{len(batch)} questions on {len({row['context'] for row in batch})} passages")
    print(f"{'model':30}  exact match {100 * exact:5.1f}  F1 {100 * f1:5.1f}")
    if f1 < MIN_F1:
        wrong.append(f"F1 {f1:.3f} is under {MIN_F1}")
    for name, answers in baselines(batch).items():
        exact, f1 = score(batch, answers)
        print(f"{name:30}  exact match {100 * exact:5.1f}  F1 {100 * f1:5.1f}")
        if f1 >= MAX_BASELINE:
            wrong.append(f"{name}: F1 {f1:.3f} is not under {MAX_BASELINE}")
    return wrong


def main() -> int:
    """Write rows and model, or check them; the exit code says whether the model answers well enough."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="train nothing; compare the rows and score the model")
    if not parser.parse_args().check:
        for split in ROWS:
            (HERE / f"{split}.jsonl").write_bytes(data(split).encode())
        train()
    wrong = check()
    for line in wrong:
        print(f"error: {line}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
