"""One broken model for every test of what quantization breaks."""

from __future__ import annotations

from pathlib import Path

import pytest
import quantizing

from cpu_pipeline.core import host


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return quantizing.make(tmp_path_factory.mktemp("made"))


@pytest.fixture
def capable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Quantize as for a CPU with VNNI, wherever the test runs."""
    monkeypatch.setattr(host, "isa", lambda: quantizing.VNNI)
