"""Write texts as the numbers that the C++ programs read: python tokens.py ARTIFACT TEXT [SECOND TEXT] [-- TEXT ...]."""

from __future__ import annotations

import json
import sys
from pathlib import Path


def lines(artifact: Path, texts: list[list[str]]) -> list[str]:
    """Tokenize each text, or pair of texts, with an artifact's tokenizer.json, padded to the longest."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(artifact / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.enable_padding(pad_id=json.loads((artifact / "config.json").read_text()).get("pad_token_id") or 0)
    rows = tokenizer.encode_batch([tuple(text) if len(text) > 1 else text[0] for text in texts])
    parts = [[row.ids for row in rows], [row.attention_mask for row in rows], [row.type_ids for row in rows]]
    return [f"{len(rows)} {len(rows[0].ids)}", *(" ".join(map(str, row)) for part in parts for row in part)]


if __name__ == "__main__":
    given: list[list[str]] = [[]]
    for argument in sys.argv[2:]:
        if argument == "--":
            given.append([])
        else:
            given[-1].append(argument)
    print("\n".join(lines(Path(sys.argv[1]), given)))
