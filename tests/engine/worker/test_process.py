"""What a child process is told by its environment: nothing that would make its output another."""

from __future__ import annotations

import pytest

from cpu_pipeline.engine.worker.sandbox import variables


def test_the_user_does_not_steer_the_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TORCHINDUCTOR_CPP_MIN_CHUNK_SIZE", "AOT_INDUCTOR_DEBUG_COMPILE", "TORCHDYNAMO_VERBOSE"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("TORCH_LOGS", "inductor")
    said = variables([])
    assert not [name for name in said if name.startswith(("TORCHI", "AOT", "TORCHD"))]
    assert said["TORCH_LOGS"] == "inductor"


def test_hashes_and_encodings_are_the_same_for_everybody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONHASHSEED", "7")
    monkeypatch.setenv("PYTHONUTF8", "0")
    said = variables([])
    assert (said["PYTHONHASHSEED"], said["PYTHONUTF8"]) == ("0", "1")


@pytest.mark.parametrize("online", [True, False])
def test_the_address_of_a_remote_store_stays_here(online: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CPU_PIPELINE_STORE_REMOTE", "https://host/store?token=geheim")
    assert "geheim" not in str(variables([], online))
