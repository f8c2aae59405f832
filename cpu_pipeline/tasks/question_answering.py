"""Extractive question answering, as SQuAD 1.1 and 2.0 define it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.core.jsonl import read_jsonl
from cpu_pipeline.tasks import _losses, _squad, _tokens
from cpu_pipeline.tasks._base import Feature, Prediction, Row, Score, Target, Task
from cpu_pipeline.tasks._constant import constants

if TYPE_CHECKING:
    from cpu_pipeline.core.model_io import Arrays


class QuestionAnswering(Task):
    """Find the answer to a question in a passage."""

    model_config = ConfigDict(serialize_by_alias=True)

    squad_version: Literal[1, 2] = Field(default=1, alias="version")
    """SQuAD's version: 1 when every question has an answer in its passage, 2 when some have none."""
    max_seq_length: int = Field(default=384, ge=32)
    """Tokens of question and passage together; a longer passage is read in several windows."""
    doc_stride: int = Field(default=128, ge=0)
    """Tokens of the passage that neighbouring windows share; at most half of max_seq_length."""
    n_best: int = Field(default=20, ge=1)
    """Starts and ends of each window that are combined into candidate answers."""
    max_answer_length: int = Field(default=30, ge=1)
    """Tokens an answer may have."""
    null_score_diff_threshold: float = Field(default=0.0, allow_inf_nan=False)
    """Version 2: how much higher than the best answer's score that of no answer must be to win."""

    version = 2
    packages = ("tokenizers", "numpy")
    auto_class = "AutoModelForQuestionAnswering"
    outputs = ("start_logits", "end_logits")
    per_token = True
    columns: ClassVar = {"question": True, "context": True, "answers": False}
    kinds: ClassVar = {"answers": "json"}
    metrics = ("f1", "exact_match", "HasAns_f1", "HasAns_exact", "NoAns_f1", "NoAns_exact")
    percent = True
    gold = "answers"
    row_means: ClassVar = frozenset(metrics)
    cluster = "context"
    pipeline_tag = "question-answering"

    @model_validator(mode="after")
    def _stride_leaves_room(self) -> Self:
        if self.doc_stride > self.max_seq_length // 2:
            raise ValueError(f"doc_stride {self.doc_stride} is more than half of max_seq_length {self.max_seq_length}")
        return self

    def metrics_of(self, model: Path | None = None) -> tuple[str, ...]:
        """List the metrics; those of questions with and without an answer are of version 2."""
        return self.metrics if self.squad_version == 2 else self.metrics[:2]

    def part_of(self, row: Row) -> str | None:
        """Tell questions with and without an answer apart, as the evaluation of SQuAD 2.0 does."""
        if self.squad_version == 1 or "answers" not in row:
            return None
        return "HasAns" if row["answers"]["text"] else "NoAns"

    def row(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """Take question, context and, where there are any, answers."""
        row = {**_tokens.named(raw), "question": _tokens.text(raw, "question"), "context": _tokens.text(raw, "context")}
        if raw.get("answers") is not None:
            row["answers"] = _squad.answers(raw["answers"])
            if self.squad_version == 1 and not row["answers"]["text"]:
                raise ValueError("a question without an answer needs the task's option `version: 2` (SQuAD 2)")
        return row

    def encode(self, rows: Sequence[Row], model: Path) -> list[Feature]:
        """Tokenise question and passage in overlapping windows.

        Questions are stripped, and cut to a quarter of the length. Where the tokenizer pads on the left, the passage
        comes first, as in transformers' run_qa. `extra` is an int32 array of shape (tokens, 2): first and last+1
        character of each token of the passage, -1 for every other token.

        Raises:
            RecipeError: the model takes fewer tokens than max_seq_length.
        """
        import numpy as np

        length = _tokens.longest(self, model)
        first = _tokens.settings(model).padding_side == "left"
        cut: _tokens.Cut = "only_first" if first else "only_second"
        questions = _cut(_tokens.tokenizer(model, length), [row["question"].strip() for row in rows], length // 4)
        tokenizer = _tokens.tokenizer(model, length, cut, min(self.doc_stride, length // 2))
        features = []
        for start in range(0, len(rows), _tokens.CHUNK):
            chunk = range(start, min(start + _tokens.CHUNK, len(rows)))
            pairs = [(questions[i], rows[i]["context"]) for i in chunk]
            encoded = tokenizer.encode_batch([pair[::-1] for pair in pairs] if first else pairs)
            for number, whole in zip(chunk, encoded, strict=True):
                for window in (whole, *whole.overflowing):
                    passage = np.array([sequence == (0 if first else 1) for sequence in window.sequence_ids], bool)
                    spans = np.array(window.offsets, dtype=np.int32).reshape(-1, 2)
                    extra = np.where(passage[:, None], spans, np.int32(-1))
                    features.append(Feature(number, _tokens.inputs(window, model), extra))
        _tokens.check_filled(rows, features)
        return features

    def decode(
        self, rows: Sequence[Row], features: Sequence[Feature], outputs: Sequence[Arrays], model: Path
    ) -> list[Prediction]:
        """Choose each row's answer from the n_best starts and ends of all its windows, as transformers' run_qa does.

        The score of a span is the sum of its two logits; that of no answer is the least, over the windows, of the first
        token's two. Of equal scores the earliest window, start and end wins.
        """
        predictions: list[Prediction] = []
        for row, numbers in zip(rows, _tokens.by_row(features, len(rows)), strict=True):
            windows = [(features[i].extra, outputs[i]["start_logits"], outputs[i]["end_logits"]) for i in numbers]
            predictions.append({"id": row["id"], **self._answer(row["context"], windows)})
        return predictions

    def _answer(self, context: str, windows: Sequence[tuple[Any, Any, Any]]) -> dict[str, Any]:
        import numpy as np

        if not all(np.isfinite(start).all() and np.isfinite(end).all() for _, start, end in windows):
            return {"prediction_text": "", "nan": True}
        best: tuple[float, int, int] | None = None
        for spans, start, end in windows:
            found = self._best_span(spans, start.astype(np.float64), end.astype(np.float64))
            if found and (best is None or found[0] > best[0]):
                best = found
        null = min(float(start[0]) + float(end[0]) for _, start, end in windows)
        prediction: dict[str, Any] = {"prediction_text": ""}
        if best is not None:
            prediction = {"prediction_text": context[best[1] : best[2]], "start": best[1], "score": round(best[0], 4)}
        if self.squad_version == 2 and best is not None:
            prediction["null_score_diff"] = round(null - best[0], 4)
            if null - best[0] > self.null_score_diff_threshold:
                prediction = {"prediction_text": "", "null_score_diff": prediction["null_score_diff"]}
        return prediction

    def _best_span(self, spans: Any, start: Any, end: Any) -> tuple[float, int, int] | None:
        """Return score, first character and last+1 of one window's best answer; None when no span is allowed."""
        import numpy as np

        starts = np.sort(np.argsort(-start, kind="stable")[: self.n_best])
        ends = np.sort(np.argsort(-end, kind="stable")[: self.n_best])
        starts, ends = starts[spans[starts, 0] >= 0], ends[spans[ends, 0] >= 0]
        if not (len(starts) and len(ends)):
            return None
        length = ends[None, :] - starts[:, None] + 1
        written = spans[ends, 1][None, :] > spans[starts, 0][:, None]
        allowed = (length >= 1) & (length <= self.max_answer_length) & written
        if not allowed.any():
            return None
        scores = np.where(allowed, start[starts][:, None] + end[ends][None, :], -np.inf)
        i, j = np.unravel_index(int(np.argmax(scores)), scores.shape)
        return float(scores[i, j]), int(spans[starts[i], 0]), int(spans[ends[j], 1])

    def targets(self, rows: Sequence[Row], features: Sequence[Feature], model: Path) -> list[Target]:
        """Give each window the first and last token of the row's first answer; 0 and 0 where it does not hold it."""
        found = []
        for number, feature in enumerate(features):
            if "answers" in (row := rows[feature.row]):
                start, end = _span(row["answers"], feature.extra)
                found.append(Target((number,), {"start": start, "end": end}))
        return found

    def loss(
        self, outputs: Mapping[str, Any], mask: Any, features: Sequence[Feature], targets: Sequence[Target], model: Path
    ) -> Any:
        """Average the cross-entropy of the first and of the last token."""
        both = []
        for side in ("start", "end"):
            logits = _losses.real(outputs[f"{side}_logits"], mask)
            both.append(_losses.classification(logits, _losses.values(targets, side, logits)))
        return sum(both) / len(both)

    def distance(
        self,
        outputs: Mapping[str, Any],
        teacher: Mapping[str, Any],
        mask: Any,
        features: Sequence[Feature],
        temperature: float,
        model: Path,
    ) -> Any:
        """Compute how far the shares of first and last tokens are from the teacher's."""
        both = [
            _losses.divergence(_losses.real(outputs[name], mask), _losses.real(teacher[name], mask), temperature)
            for name in self.outputs
        ]
        return sum(both) / len(both)

    def score(self, rows: Sequence[Row], predictions: Mapping[str, Prediction]) -> Score:
        """Score as SQuAD's official evaluation of this version does.

        A row without a prediction counts 0 in every metric, as in the 1.1 evaluation; that of 2.0 leaves it out of the
        sums, which would reward silence, so here it counts 0 there too. Both times `counts` has it under `missing`.
        """
        scored, said = [], []
        for row in rows:
            if "answers" not in row:
                raise _tokens.unlabelled(row, "answers")
            prediction = predictions.get(row["id"], {})
            text = None if prediction.get("nan") else prediction.get("prediction_text", prediction.get("answer"))
            said.append(None if text is None else _squad.normalize(text))
            scored.append({"id": row["id"], **_squad.score_one(text, row["answers"]["text"], self.squad_version)})
        reported = [name for name in self.metrics if any(name in entry for entry in scored)] or ["f1", "exact_match"]
        counts = {**_tokens.counts(rows, predictions), "no_answer": sum(not r["answers"]["text"] for r in rows)}
        golds = [sorted({_squad.normalize(text) for text in row["answers"]["text"]}) for row in rows]
        metrics = {name: self.aggregate(scored, name) for name in reported}
        return Score(metrics, scored, counts, constants("the answer", golds, said))

    def aggregate(self, rows: Sequence[Mapping[str, Any]], metric: str) -> float:
        """Average over the rows that have the metric; NaN when none has."""
        values = [row[metric] for row in rows if metric in row]
        return sum(values) / len(values) if values else float("nan")

    def for_references(self, path: Path) -> Self:
        """Take SQuAD's version from a file of references, unless it was given."""
        if "squad_version" in self.model_fields_set:
            return self
        official = _squad.read_version(path)
        found = official or (2 if any(_is_impossible(row) for row in read_jsonl(path)) else 1)
        return self.model_copy(update={"squad_version": found})

    def read_references(self, path: Path) -> list[Row]:
        """Read SQuAD's official JSON of either version, or JSON lines of rows."""
        official = _squad.read_references(path)
        return self.checked(read_jsonl(path) if official is None else official, path)

    def read_predictions(self, path: Path) -> dict[str, Prediction]:
        """Read the official id -> text JSON, or JSON lines of `id` and `prediction_text` (or `answer`)."""
        official = _squad.read_predictions(path)
        if official is not None:
            return {name: {"id": name, "prediction_text": text} for name, text in official.items()}
        found = super().read_predictions(path)
        for name, line in found.items():
            if not isinstance(line.get("prediction_text", line.get("answer")), str):
                raise RecipeError(f"{path}: {name}: no `prediction_text` (or `answer`) that is text")
        return found


def _span(answers: Mapping[str, Any], spans: Any) -> tuple[int, int]:
    """Return the first and last token of the first answer in a window; 0 and 0 where the window does not hold it.

    Args:
        answers: `text` and `answer_start` of a row.
        spans: first and last+1 character of each token, -1 outside of the passage: (tokens, 2).
    """
    import numpy as np

    if not answers["text"]:
        return 0, 0
    start = int(answers["answer_start"][0])
    end = start + len(answers["text"][0])
    passage = np.flatnonzero(spans[:, 0] >= 0)
    if not len(passage) or spans[passage[0], 0] > start or spans[passage[-1], 1] < end:
        return 0, 0
    first = passage[spans[passage, 0] <= start][-1]
    last = passage[spans[passage, 1] >= end][0]
    return int(first), int(max(first, last))


def _is_impossible(raw: Mapping[str, Any]) -> bool:
    """Say whether a raw row is a question without an answer; one whose answers are wrong is for `row` to refuse."""
    try:
        return raw.get("answers") is not None and not _squad.answers(raw["answers"])["text"]
    except ValueError:
        return False


def _cut(tokenizer: Any, questions: list[str], limit: int) -> list[str]:
    """Cut questions to `limit` tokens, at the end of a token."""
    tokenizer.no_truncation()
    fitting = []
    for question, whole in zip(questions, tokenizer.encode_batch(questions, add_special_tokens=False), strict=True):
        if len(whole.ids) > limit:
            # A word that is cut may fall into more tokens than it had in the whole: cut until it fits.
            shorter = (question[: whole.offsets[last][1]] for last in reversed(range(limit)))
            question = next((s for s in shorter if len(tokenizer.encode(s, add_special_tokens=False).ids) <= limit), "")
        fitting.append(question)
    return fitting
