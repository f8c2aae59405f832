"""What of a tokenizer.json shapes an encoding."""

from __future__ import annotations

import json
from typing import Any

PARTS = ("added_tokens", "normalizer", "pre_tokenizer", "model", "post_processor")
"""The parts of tokenizer.json that shape an encoding."""


def essence(tokenizer: Any) -> dict[str, Any]:
    """Take what shapes an encoding of a tokenizer; what has one effect gets one form."""
    found = json.loads(tokenizer.to_str())
    model, post = found["model"], found["post_processor"]
    for key in ("continuing_subword_prefix", "end_of_word_suffix"):
        if key in model:
            model[key] = model[key] or None
    if model.get("unk_token") not in model.get("vocab", ()):
        model.pop("unk_token", None)
    if isinstance(post, dict) and post.get("type") == "BertProcessing":
        found["post_processor"] = _template(*post["cls"], *post["sep"])
    elif isinstance(post, dict) and post.get("type") == "TemplateProcessing":
        found["post_processor"] = {key: value for key, value in post.items() if key != "special_tokens"}
        used = {part["SpecialToken"]["id"] for part in (*post["single"], *post["pair"]) if "SpecialToken" in part}
        found["post_processor"]["ids"] = {name: post["special_tokens"][name]["ids"] for name in sorted(used)}
    return {key: found[key] for key in PARTS}


def _template(cls: str, cls_id: int, sep: str, sep_id: int) -> dict[str, Any]:
    """Write BertProcessing as the template that does the same."""

    def special(name: str, kind: int) -> dict[str, Any]:
        return {"SpecialToken": {"id": name, "type_id": kind}}

    single = [special(cls, 0), {"Sequence": {"id": "A", "type_id": 0}}, special(sep, 0)]
    pair = [*single, {"Sequence": {"id": "B", "type_id": 1}}, special(sep, 1)]
    return {"type": "TemplateProcessing", "single": single, "pair": pair, "ids": {cls: [cls_id], sep: [sep_id]}}
