"""Find rows that are nearly those of another role: MinHash and locality-sensitive hashing find pairs to compare.

After Broder, On the resemblance and containment of documents (1997), and Leskovec et al., Mining of Massive Datasets,
chapter 3. A pair that is found is compared in full, so that chance decides only whether a pair is looked at: one that
is exactly as near as `NEAR` is missed about once in 70 times.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cpu_pipeline.stages.load import _same

if TYPE_CHECKING:
    from datasketch import MinHash

NEAR = 0.8
"""Share of runs of characters that two texts have in common (Jaccard) from which on they are nearly the same."""
RUN = 5
"""Characters of a run."""
BANDS, BAND = 8, 4
"""Permutations are compared in so many groups of so many: 1 - (1 - 0.8⁴)⁸ = 98.5 % of pairs at `NEAR` are found."""
MOST_ROWS = 10_000
"""Rows of a role that are compared; of more, so many spread over them."""
MOST_CHARACTERS = 2_000
"""Characters of a text that are compared."""

Contents = Sequence[tuple[str, Hashable]]
"""Of each row, its id and what `_same.essence` returned."""
Runs = tuple[frozenset[int], ...]
"""Of each text of a row, the hashes of its runs of characters."""


@dataclass(frozen=True)
class Sketched:
    """Rows of a role, ready to be compared."""

    names: list[str]
    contents: list[Any]
    hashes: list[MinHash]
    total: int
    """How many rows the role has."""


def sketch(contents: Contents) -> Sketched:
    """Take the MinHash of each row, of at most `MOST_ROWS`."""
    from datasketch import MinHash

    total = len(contents)
    count = min(total, MOST_ROWS)
    taken = [contents[number * total // count] for number in range(count)]
    new = MinHash(num_perm=BANDS * BAND, seed=1, hashfunc=int)
    hashes = []
    for _, content in taken:
        found = new.copy()
        found.update_batch(frozenset().union(*_runs(content)))
        hashes.append(found)
    return Sketched([name for name, _ in taken], [content for _, content in taken], hashes, total)


def nearly_same(one: Sketched, other: Sketched) -> list[tuple[str, str]]:
    """List rows of the second that are nearly one of the first in every input, each with that one's id."""
    from datasketch import MinHashLSH

    index = MinHashLSH(num_perm=BANDS * BAND, params=(BANDS, BAND))
    with index.insertion_session() as session:
        for number, minhash in enumerate(one.hashes):
            session.insert(number, minhash, check_duplication=False)
    found = []
    for name, content, minhash in zip(other.names, other.contents, other.hashes, strict=True):
        mine = _runs(content)
        for number in sorted(index.query(minhash)):
            if one.contents[number] != content and _are_near(_runs(one.contents[number]), mine):
                found.append((name, one.names[number]))
                break
    return found


def _are_near(one: Runs, other: Runs) -> bool:
    return len(one) == len(other) > 0 and all(
        len(mine & yours) >= NEAR * len(mine | yours) for mine, yours in zip(one, other, strict=True)
    )


def _runs(content: Any) -> Runs:
    """Hash every run of `RUN` characters of each text. A text that is shorter is one run."""
    return tuple(frozenset(_hashes(text)) for text in _same.texts(content))


def _hashes(text: str) -> list[int]:
    """Hash runs of characters by a polynomial of their codes, modulo 2³²: the same on every machine."""
    import numpy as np

    codes = np.frombuffer(text[:MOST_CHARACTERS].ljust(RUN).encode("utf-32-le", "surrogatepass"), dtype="<u4")
    hashes = np.zeros(len(codes) - RUN + 1, dtype=np.uint64)
    for offset in range(RUN):
        hashes = (hashes * np.uint64(0x9E3779B1) + codes[offset : offset + len(hashes)]) & np.uint64(0xFFFFFFFF)
    found: list[int] = hashes.tolist()
    return found
