"""Looks that are planned in advance spend the whole error together, and see the rows in one fixed order."""

from __future__ import annotations

import pytest

from cpu_pipeline.runtime import looks


@pytest.mark.parametrize(
    ("count", "expected"),
    [(2, (2.538, 1.662)), (3, (3.200, 2.141, 1.695)), (4, (3.750, 2.540, 2.016, 1.720))],
)
def test_quantiles_are_those_of_lan_and_demets(count: int, expected: tuple[float, ...]) -> None:
    assert looks.quantiles(count, 0.05) == pytest.approx(expected, abs=6e-4)


def test_one_look_is_an_ordinary_test() -> None:
    assert looks.quantiles(1, 0.05) == pytest.approx((1.6449,), abs=1e-4)


def test_the_permutation_hangs_on_ids_alone_and_mixes_them() -> None:
    rows = [{"id": str(i), "text": "x" * i} for i in range(400)]
    found = looks.order(rows)
    assert sorted(found) == list(range(400)) and found != list(range(400))
    assert found == looks.order([{"id": row["id"]} for row in rows])
    assert found[:4] == [319, 281, 16, 61], "it is the same on every machine"
    assert 35 < sum(i < 200 for i in found[:100]) < 65


def test_clusters_stay_whole() -> None:
    rows = [{"id": str(i)} for i in range(40)]
    clusters = [str(i // 3) for i in range(40)]
    order = looks.order(rows, clusters)
    named = [clusters[i] for i in order]
    ends = looks.ends(40, 4, named)
    assert ends[-1] == 40 and all(end >= 10 * look for look, end in enumerate(ends, 1))
    for end in ends[:-1]:
        assert named[end - 1] != named[end]
    assert looks.ends(10, 4) == [3, 5, 8, 10]
