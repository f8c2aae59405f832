"""A pushed folder behind Python's own HTTP server, a process of its own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from store.remote.test_client import commit, holds

from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.store import sync
from cpu_pipeline.store.lease import leased
from cpu_pipeline.store.local import Store
from cpu_pipeline.store.remote.client import Remote


def test_there_and_back(tmp_path: Path) -> None:
    store, said = Store(tmp_path / "store"), list[str]()
    with leased(store) as lease:
        commit(lease, 0)
        commit(lease, 1)
    sync.push(store, Remote(str(tmp_path / "public" / "far"), said.append))
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", "public"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        try:
            assert server.stdout is not None
            found = re.search(r"http://[\d.]+:\d+/", server.stdout.readline())
            assert found is not None
            other = Store(tmp_path / "other")
            assert len(sync.pull(other, Remote(f"{found[0]}far", said.append)).moved) == 2
            holds(other, store, 0, 1)
            assert sync.pull(other, Remote(f"{found[0]}none", said.append)).moved == said == []
            with pytest.raises(RecipeError, match=r"does not let itself be written: .*501"):
                sync.push(store, Remote(f"{found[0]}fresh", said.append))
        finally:
            server.terminate()
