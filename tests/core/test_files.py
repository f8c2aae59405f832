"""Tests for cpu_pipeline.core.files."""

from __future__ import annotations

import tempfile

import pytest

from cpu_pipeline.core.errors import TryAgain
from cpu_pipeline.core.files import temporary_folder


def test_a_temporary_folder_is_removed() -> None:
    with temporary_folder() as folder:
        (folder / "file").write_text("")
    assert not folder.exists()


def test_no_place_for_temporary_files_is_to_be_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", nowhere)
    with pytest.raises(TryAgain, match="TMPDIR"), temporary_folder():
        pytest.fail("there is none")
