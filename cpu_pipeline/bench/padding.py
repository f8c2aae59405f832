"""Measure what padding costs: one model run in several ways on batches with ever fewer real tokens."""

from __future__ import annotations

import copy
import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cpu_pipeline.backends import hf
from cpu_pipeline.backends.fastpath import PaddingFree
from cpu_pipeline.core import host
from cpu_pipeline.core.artifact import Facts
from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.core.model_io import InputKind
from cpu_pipeline.runtime.batching import pad
from cpu_pipeline.tasks._base import Feature
from cpu_pipeline.tasks.question_answering import QuestionAnswering

if TYPE_CHECKING:
    from cpu_pipeline.backends._base import Session
    from cpu_pipeline.core.model_io import Arrays

REFERENCE = "sdpa"
"""The way all others are compared with: transformers' own model with scaled_dot_product_attention."""
WAYS = {REFERENCE: None, "nested": ("nested", "float32"), "packed": ("packed", "float32")}
BFLOAT16 = {"packed bf16": ("packed", "bfloat16")}
SHORTEST = 3
"""Tokens of the shortest sequence drawn: a word between its two special tokens."""
VOCABULARY = 50_265
PADDING = 1


@dataclass(frozen=True)
class PaddingBenchmark:
    """What to measure; the model is RoBERTa with a head for question answering and random weights."""

    layers: int = 12
    hidden: int = 768
    heads: int = 12
    batch: int = 8
    length: int = 256
    """Tokens that every batch is padded to; its longest sequence has as many."""
    rounds: int = 5
    shares: tuple[int, ...] = (100, 70, 50, 40, 30, 15)
    """Real tokens of all tokens, in percent."""
    threads: int = 0
    """0 takes a thread for each core."""
    bfloat16: bool = False
    seed: int = 0

    def run(self, tell: Callable[[str], None] = lambda _: None) -> Facts:
        """Time every way at every share, in turns, in this process.

        A round calls each way once on each batch, and each round begins with another way. Returns for each share and
        way all seconds, their median, how many times faster than `sdpa` the median is, and the largest difference of
        an answer from its answers, on real tokens.

        Raises:
            RecipeError: a share can't be had, or the sizes do not fit each other.
        """
        import torch

        if self.hidden % self.heads or self.heads % 2:
            raise RecipeError(f"--hidden {self.hidden} and --heads {self.heads}: an even number that divides the size")
        drawn = {share: draw_lengths(self.batch, self.length, share, self.seed) for share in self.shares}
        before, threads = torch.get_num_threads(), self.threads or host.cores()
        torch.set_num_threads(threads)
        try:
            sessions = self._sessions()
            batches = {share: self._batch(lengths) for share, lengths in drawn.items()}
            loads = [os.getloadavg()[0]]
            differences = _differences(sessions, batches)
            seconds = self._time(sessions, batches, tell)
            loads.append(os.getloadavg()[0])
        finally:
            torch.set_num_threads(before)
        return {
            "machine": host.machine(),
            "threads": threads,
            "load": loads,
            "torch": str(torch.__version__),
            "model": {"layers": self.layers, "hidden": self.hidden, "heads": self.heads},
            "batch": self.batch,
            "length": self.length,
            "rounds": self.rounds,
            "shares": [
                {
                    "share": share,
                    "lengths": lengths,
                    "real": sum(lengths) / (self.batch * self.length),
                    "ways": _ways(seconds[share], differences[share]),
                }
                for share, lengths in drawn.items()
            ],
        }

    def _sessions(self) -> dict[str, Session]:
        import torch
        import transformers

        config = transformers.RobertaConfig(
            vocab_size=VOCABULARY, hidden_size=self.hidden, num_hidden_layers=self.layers,
            num_attention_heads=self.heads, intermediate_size=4 * self.hidden, pad_token_id=PADDING,
            max_position_embeddings=self.length + PADDING + 1, type_vocab_size=1,
        )  # fmt: skip
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            model = transformers.AutoModelForQuestionAnswering.from_config(
                config, attn_implementation="sdpa", dtype=torch.float32
            )
        model = model.eval().requires_grad_(False)
        task = QuestionAnswering()
        sessions: dict[str, Session] = {}
        for name, way in (WAYS | (BFLOAT16 if self.bfloat16 else {})).items():
            sessions[name] = hf.Eager(model, task.outputs)
            if way is not None:
                sessions[name] = PaddingFree(copy.deepcopy(model), task, *way)
        return sessions

    def _batch(self, lengths: Sequence[int]) -> Arrays:
        rng = random.Random(self.seed)
        features = []
        for row, length in enumerate(lengths):
            ids = [rng.randrange(PADDING + 1, VOCABULARY) for _ in range(length)]
            features.append(Feature(row, {"input_ids": ids, "attention_mask": [1] * length}))
        kinds = {"input_ids": InputKind(fill=PADDING), "attention_mask": InputKind()}
        return pad(features, list(kinds), kinds, self.length)

    def _time(
        self, sessions: Mapping[str, Session], batches: Mapping[int, Arrays], tell: Callable[[str], None]
    ) -> dict[int, dict[str, list[float]]]:
        seconds: dict[int, dict[str, list[float]]] = {share: {name: [] for name in sessions} for share in batches}
        names = list(sessions)
        for turn in range(self.rounds):
            tell(f"round {turn + 1} of {self.rounds}")
            order = names[turn % len(names) :] + names[: turn % len(names)]
            for share, arrays in batches.items():
                for name in order:
                    start = time.perf_counter()
                    sessions[name](arrays)
                    seconds[share][name].append(time.perf_counter() - start)
        return seconds


def draw_lengths(batch: int, length: int, share: int, seed: int = 0) -> list[int]:
    """Draw the lengths of a batch's sequences so that `share` percent of batch x length tokens are real.

    One sequence is `length` long, so that padding to the longest gives `length`. The others are drawn uniformly from
    half to one and a half times the length that makes up the rest, then lengthened or shortened, one token at a time in
    turn, until the sum is right. Equal arguments give equal lengths.

    Args:
        batch: sequences in the batch.
        length: tokens of the longest one.
        share: percent of batch x length that is no padding.
        seed: of the random lengths.

    Raises:
        RecipeError: so few tokens, or so many, can't be.
    """
    total = round(batch * length * share / 100)
    least = length + (batch - 1) * SHORTEST
    if not least <= total <= batch * length:
        least_share = -(-100 * least // (batch * length))
        raise RecipeError(
            f"a share of {share} %: {batch} sequences, one of {length} tokens, have {least_share} to 100 %"
        )
    rng = random.Random(f"{seed} {share}")
    others = batch - 1
    mean = (total - length) / max(1, others)
    lengths = [min(length, max(SHORTEST, round(rng.uniform(0.5, 1.5) * mean))) for _ in range(others)]
    index = 0
    while (missing := total - length - sum(lengths)) != 0:
        step = 1 if missing > 0 else -1
        if SHORTEST <= lengths[index % others] + step <= length:
            lengths[index % others] += step
        index += 1
    lengths.append(length)
    rng.shuffle(lengths)
    return lengths


def _differences(sessions: Mapping[str, Session], batches: Mapping[int, Arrays]) -> dict[int, dict[str, float]]:
    """Say how far each way's answers are from the reference's on real tokens; this warms all of them up as well."""
    import numpy as np

    found: dict[int, dict[str, float]] = {}
    for share, arrays in batches.items():
        real = arrays["attention_mask"].astype(bool)
        expected = sessions[REFERENCE](arrays)
        found[share] = {}
        for name, session in sessions.items():
            answers = session(arrays)
            gaps = [np.abs(answers[output][real] - value[real]).max() for output, value in expected.items()]
            found[share][name] = float(max(gaps))
    return found


def _ways(seconds: Mapping[str, Sequence[float]], differences: Mapping[str, float]) -> dict[str, Any]:
    from statistics import median

    base = median(seconds[REFERENCE])
    return {
        name: {
            "median": median(times),
            "times_faster": base / median(times),
            "max_abs": differences[name],
            "seconds": list(times),
        }
        for name, times in seconds.items()
    }
