"""Open artifacts as the Hugging Face CPU inference page does, and write what they answer (a script, run there)."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from optimum.intel import (
    OVModelForFeatureExtraction,
    OVModelForQuestionAnswering,
    OVModelForSequenceClassification,
    OVModelForTokenClassification,
)
from optimum.onnxruntime import (
    ORTModelForFeatureExtraction,
    ORTModelForQuestionAnswering,
    ORTModelForSequenceClassification,
    ORTModelForTokenClassification,
)
from transformers import AutoTokenizer, pipeline

CLASSES: dict[tuple[str, str], Any] = {
    ("onnx", "question-answering"): ORTModelForQuestionAnswering,
    ("onnx", "text-classification"): ORTModelForSequenceClassification,
    ("onnx", "token-classification"): ORTModelForTokenClassification,
    ("onnx", "sentence-similarity"): ORTModelForFeatureExtraction,
    ("openvino", "question-answering"): OVModelForQuestionAnswering,
    ("openvino", "text-classification"): OVModelForSequenceClassification,
    ("openvino", "token-classification"): OVModelForTokenClassification,
    ("openvino", "sentence-similarity"): OVModelForFeatureExtraction,
}


def ask(pipe: Any, task: str, row: dict[str, Any]) -> Any:
    if task == "question-answering":
        # As SQuAD is scored: up to 30 tokens, cut where the tokens are cut.
        return pipe(question=row["question"], context=row["context"], max_answer_len=30, align_to_words=False)
    if task == "token-classification":
        return [{"index": int(e["index"]), "entity": e["entity"]} for e in pipe(" ".join(row["tokens"]))]
    return pipe(row.get("text") or row["sentence1"])


def main(place: Path) -> None:
    for order in json.loads((place / "orders.json").read_text()):
        task, path = order["task"], order["path"]
        # By itself OpenVINO computes in bf16 where the processor has it; our backend asks for what the card says.
        asked = {"ov_config": {"INFERENCE_PRECISION_HINT": "f32"}} if order["format"] == "openvino" else {}
        model = CLASSES[order["format"], task].from_pretrained(path, **asked)
        with np.load(place / f"{order['name']}.given.npz") as held:
            outputs = model(**{name: torch.from_numpy(held[name]) for name in held.files})
        arrays = {name: np.asarray(value) for name, value in outputs.items() if value is not None}
        np.savez(place / f"{order['name']}.answers.npz", **arrays)
        tokenizer = AutoTokenizer.from_pretrained(path)
        kind = "feature-extraction" if task == "sentence-similarity" else task
        pipe = pipeline(kind, model=model, tokenizer=tokenizer)
        said = [ask(pipe, task, row) for row in order["rows"]]
        (place / f"{order['name']}.json").write_text(json.dumps(said, default=float))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
