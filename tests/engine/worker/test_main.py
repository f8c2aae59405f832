"""The child's end: each request has a reply, and every error is one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cpu_pipeline import backends
from cpu_pipeline.core.artifact import Artifact
from cpu_pipeline.core.errors import StageFailed
from cpu_pipeline.engine.worker.main import Worker
from cpu_pipeline.engine.worker.protocol import (
    Answer,
    Answered,
    Failed,
    Open,
    Opened,
    Request,
    Time,
    Timed,
    write_request,
)


class Doubling:
    """A session that doubles its one input."""

    inputs = ("x",)

    def __call__(self, arrays: Any, /) -> Any:
        return {"y": arrays["x"] * 2}


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Worker:
    monkeypatch.setattr(backends.get("onnx"), "load", lambda path, task, threads: Doubling())
    return Worker()


OPEN = Open(Artifact("onnx", Path(), "0" * 64, {}), None, 1, None)


def ask(worker: Worker, request: Request) -> Any:
    return worker.reply(write_request(request))


def test_answers_with_the_artifact_that_was_opened(worker: Worker, tmp_path: Path) -> None:
    assert ask(worker, OPEN) == Opened(("x",))
    inputs, outputs = tmp_path / "inputs.npz", tmp_path / "outputs.npz"
    np.savez(inputs, x=np.arange(3))
    assert ask(worker, Answer(inputs, outputs)) == Answered()
    with np.load(outputs) as file:
        assert file["y"].tolist() == [0, 2, 4]


def test_times_every_batch_in_every_round(worker: Worker, tmp_path: Path) -> None:
    ask(worker, OPEN)
    batches = tmp_path / "batches.npz"
    np.savez(batches, **{"0.x": np.ones(2), "1.x": np.ones(3), "1.unused": np.ones(3)})  # type: ignore[arg-type]
    reply = ask(worker, Time(batches, 4))
    assert isinstance(reply, Timed) and len(reply.seconds) == 8 and reply.peak_memory > 1 << 20


@pytest.mark.parametrize("request_", [Answer(Path("a"), Path("b")), Time(Path("a"), 1)], ids=["answer", "time"])
def test_nothing_is_answered_before_an_artifact_is_open(request_: Request, worker: Worker) -> None:
    assert ask(worker, request_) == Failed("StageFailed", "the worker has opened no artifact")


@pytest.mark.parametrize("line", [b'{"do": "tune"}\n', b"{}\n", b'{"do": "open"}\n', b"[1]\n", b"no JSON\n"])
def test_what_is_no_request_is_a_failure(line: bytes, worker: Worker) -> None:
    reply = worker.reply(line)
    assert isinstance(reply, Failed) and reply.error == StageFailed.__name__


def test_an_error_of_a_library_is_one_line(worker: Worker, tmp_path: Path) -> None:
    ask(worker, OPEN)
    (tmp_path / "inputs.npz").write_bytes(b"no\narchive")
    reply = ask(worker, Answer(tmp_path / "inputs.npz", tmp_path / "outputs.npz"))
    assert isinstance(reply, Failed) and reply.error == "StageFailed"
    assert ": " in reply.message and "\n" not in reply.message


def test_a_panic_of_rust_code_is_an_error_of_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pattern that backtracks without end: PanicException derives from BaseException alone."""
    from tokenizers import Regex, Tokenizer, models, normalizers

    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Replace(Regex(r"(x+x+)+y"), "z")
    monkeypatch.setattr(backends.get("onnx"), "load", lambda path, task, threads: tokenizer.encode("x" * 60))
    reply = Worker().reply(write_request(OPEN))
    assert isinstance(reply, Failed) and isinstance(reply.exception(), StageFailed)
    assert "PanicException" in str(reply.exception())


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_ends_the_process_stays(monkeypatch: pytest.MonkeyPatch, error: type[BaseException]) -> None:
    def load(*_: object) -> None:
        raise error

    monkeypatch.setattr(backends.get("onnx"), "load", load)
    with pytest.raises(error):
        Worker().reply(write_request(OPEN))
