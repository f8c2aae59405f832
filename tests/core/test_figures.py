"""Figures write themselves the same way in every report."""

from __future__ import annotations

import pytest

from cpu_pipeline.core.figures import BYTES, Cell, Quantity, Table


@pytest.mark.parametrize(
    ("quantity", "text"),
    [
        (Quantity(10.0, "ms"), "10.00"),
        (Quantity(0.81234, digits=4), "0.8123"),
        (Quantity(2.0, low=1.5, high=2.5), "2.00 (1.50 to 2.50)"),
        (Quantity(2.0, low=None, high=2.5), "2.00 (NaN to 2.50)"),
        (Quantity(None), "NaN"),
        (Quantity(400 << 20, BYTES), "400.0 MiB"),
        (Quantity(None, BYTES), "NaN"),
    ],
)
def test_a_quantity_writes_itself(quantity: Quantity, text: str) -> None:
    assert str(quantity) == text


@pytest.mark.parametrize(
    ("cell", "heading"),
    [
        (Cell("median", Quantity(1.0, "ms"), "batch 1"), "median ms, batch 1"),
        (Cell("p99", Quantity(1.0, "ms")), "p99 ms"),
        (Cell("peak memory", Quantity(1, BYTES)), "peak memory"),
        (Cell("f1", Quantity(1.0), interval_of="its difference"), "f1 (interval of its difference)"),
    ],
)
def test_a_heading_names_unit_and_condition(cell: Cell, heading: str) -> None:
    assert cell.heading == heading


def test_a_table_lists_each_heading_once() -> None:
    cells = [Cell("median", Quantity(1.0, "ms"))]
    assert Table("side", {"a": cells, "b": cells}).headings == ["side", "median ms"]
