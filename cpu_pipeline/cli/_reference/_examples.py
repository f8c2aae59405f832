"""An example of every key of recipes and pipelines, as YAML; tests check each against the schema."""

from __future__ import annotations

_COMMIT = "0123456789abcdef0123456789abcdef01234567"
_STEP = "[{id: onnx, use: export.onnx}]"

EXAMPLES = {
    "Recipe": {
        "about": "Sentiment of film reviews, int8.",
        "model": f"{{hub: owner/name, revision: {_COMMIT}}}",
        "tokenizer": "{folder: tokenizer}",
        "teacher": "{folder: large-model}",
        "task": "text-classification",
        "data": "{validation: {file: rows.jsonl}}",
        "pipeline": "onnx-int8",
        "stages": _STEP,
        "with": "{int8: {per_channel: true}}",
        "outputs": "[onnx]",
        "unchecked": "{onnx: it is for one demonstration}",
        "target": "{isa: avx2}",
        "allow": "[pickle]",
        "refresh": "{follow: main}",
        "tune": "{}",
    },
    "Use": {"use": "question-answering", "with": "{max_seq_length: 384}"},
    "Target": {"isa": "avx512_vnni", "threads": "4"},
    "Refresh": {"follow": "main", "cron": '"0 4 * * 1"', "on": "[model, data]", "keep": "3"},
    "Pipeline": {"about": "int8 for ONNX Runtime.", "stages": _STEP},
    "Step": {
        "id": "int8",
        "use": "quantize.onnx",
        "from": "{model: onnx}",
        "with": "{per_channel: true}",
        "waive": "{until: 2026-12-31, reason: the next runtime mends it}",
        "timeout": "3600",
    },
    "hub": {
        "hub": "owner/name",
        "revision": _COMMIT,
        "format": "onnx",
        "split": "validation",
        "config": "default",
        "take": "500",
        "without": "300",
        "seed": "1",
        "columns": "{sentence: text}",
    },
    "folder": {"folder": "models/mine", "format": "hf", "outside": "true"},
    "file": {
        "file": "[rows.jsonl, more.csv]",
        "media": "images",
        "outside": "true",
        "split": "test",
        "config": "default",
        "take": "500",
        "without": "300",
        "seed": "1",
        "columns": "{sentence: text}",
    },
}
"""Class, or source -> key -> its value."""
