"""question-answering as transformers' run_qa does it: overlapping windows, and the best span of all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cpu_pipeline.stages.load._autotokenizer import load_official
from cpu_pipeline.stages.load._official._base import TOLERANCE, Asked
from cpu_pipeline.tasks import _tokens

if TYPE_CHECKING:
    from cpu_pipeline.core.model_io import Arrays
    from cpu_pipeline.tasks._base import Prediction, Row


class Span(NamedTuple):
    """A candidate answer."""

    score: float
    """Sum of the logits of its first and last token."""
    first: int
    """Its first character."""
    last: int
    """The character after its last."""


def encode(task: Any, rows: Sequence[Row], original: Path, built: Path) -> list[Asked]:
    """Tokenise question and passage; `extra` has the characters of each token of the passage, None for all others.

    The question is cut to a quarter of the length, as the task documents; rows where that happens are left out.
    """
    tokenizer = load_official(original)
    right = tokenizer.padding_side == "right"
    length, asked = _tokens.longest(task, built), []
    for number, row in enumerate(rows):
        question = row["question"].strip()
        if len(tokenizer(question, add_special_tokens=False)["input_ids"]) > length // 4:
            continue
        sides = [[question], [row["context"]]] if right else [[row["context"]], [question]]
        encoded = tokenizer(
            *sides,
            truncation="only_second" if right else "only_first",
            max_length=length,
            stride=min(task.doc_stride, length // 2),
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        for window, spans in enumerate(encoded.pop("offset_mapping")):
            inputs = {n: value[window] for n, value in encoded.items() if n != "overflow_to_sample_mapping"}
            passage = [side == int(right) for side in encoded.sequence_ids(window)]
            asked.append(Asked(number, inputs, [s if own else None for s, own in zip(spans, passage, strict=True)]))
    return asked


def judge(
    task: Any, row: Row, asked: Sequence[Asked], outputs: Sequence[Arrays], answer: Prediction, config: Any
) -> str | None:
    """Compare the text of the answer; another one that scores as high is as good."""
    spans = [span for one, out in zip(asked, outputs, strict=True) for span in _spans(task, one.extra, out)]
    if not spans or answer.get("nan"):
        return None
    best = max(spans, key=lambda span: span.score)
    null = min(float(out["start_logits"][0]) + float(out["end_logits"][0]) for out in outputs)
    margin = null - best.score - task.null_score_diff_threshold
    expected = "" if task.squad_version == 2 and margin > 0 else row["context"][best.first : best.last]
    ours = answer["prediction_text"]
    if ours == expected or (task.squad_version == 2 and abs(margin) < TOLERANCE):
        return None
    near = [span for span in spans if best.score - span.score < TOLERANCE]
    if expected and any(ours == row["context"][span.first : span.last] for span in near):
        return None
    return f"the answer is {ours!r}, and {expected!r} with transformers"


def _spans(task: Any, characters: Sequence[Any], output: Arrays) -> Iterator[Span]:
    """List the answers of one window: starts and ends among its best, in order, in the passage, not too long."""
    starts, ends = ([float(x) for x in output[name]] for name in ("start_logits", "end_logits"))
    best = [sorted(range(len(s)), key=lambda i: -s[i])[: task.n_best] for s in (starts, ends)]
    for i in best[0]:
        for j in best[1]:
            if characters[i] is None or characters[j] is None or not i <= j < i + task.max_answer_length:
                continue
            first, last = characters[i][0], characters[j][1]
            if last > first:
                yield Span(starts[i] + ends[j], first, last)
