"""Messages survive the way to the other end, and nothing else is accepted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cpu_pipeline.core.artifact import Artifact
from cpu_pipeline.core.errors import PipelineError, StageFailed, TryAgain
from cpu_pipeline.engine.environments import Interpreter
from cpu_pipeline.engine.worker.protocol import (
    Answer,
    Answered,
    Failed,
    Open,
    Opened,
    Ran,
    Reply,
    Request,
    Reset,
    ResetDone,
    Run,
    TaskSpec,
    Time,
    Timed,
    read_reply,
    read_request,
    write_reply,
    write_request,
)
from cpu_pipeline.store.record import Action, StoredArtifact

MODEL = Artifact("onnx", Path("/store/objects/ab"), "ab" * 32, {"score": 0.5})
TASK = TaskSpec("question-answering", {"version": 2})
RUN = Run(
    use="quantize.onnx",
    options={"mode": "static", "exclude": ["a", "b"]},
    inputs={"model": MODEL},
    data={"calibration": Path("/rows.jsonl")},
    out=Path("/out"),
    scratch=Path("/scratch"),
    log=Path("/log"),
    task=TASK,
    threads=2,
    isa=("x86_64", "avx2"),
    allow=("pickle",),
    environment="default",
    interpreters={"default": Interpreter("/bin/python", ("/clone",)), "ipex": Interpreter("/ipex/python")},
)
REQUESTS = [
    RUN,
    Run(**{**vars(RUN), "task": None}),
    Open(MODEL, TASK, 2, Path("/log")),
    Open(MODEL, None, 1, None),
    Answer(Path("/inputs.npz"), Path("/outputs.npz")),
    Time(Path("/batches.npz"), 3),
    Reset(),
]
REPLIES = [
    Ran({"rows": 3}, 1 << 20),
    Opened(("input_ids", "attention_mask"), stateful=True),
    Answered(),
    Timed([0.1, 0.2], 5),
    ResetDone(),
]


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: type(request).__name__)
def test_a_request_is_read_as_it_was_written(request_: Request) -> None:
    line = write_request(request_)
    assert read_request(line) == request_
    assert line.endswith(b"\n") and line.count(b"\n") == 1


@pytest.mark.parametrize("reply", REPLIES, ids=lambda reply: type(reply).__name__)
def test_a_reply_is_read_as_it_was_written(reply: Reply) -> None:
    assert read_reply(write_reply(reply), type(reply)) == reply


def test_an_artifact_of_a_store_crosses_without_its_record() -> None:
    record = Action({"stage": "export.onnx"}, "onnx", MODEL.digest, {}, MODEL.facts, {})
    stored = StoredArtifact.of(record, MODEL.path)
    assert read_request(write_request(Open(stored, None, 1, None))) == Open(MODEL, None, 1, None)


@pytest.mark.parametrize("error", [TryAgain("the disk is full"), StageFailed("two\nlines")], ids=str)
def test_a_failure_is_raised_as_the_error_that_it_was(error: PipelineError) -> None:
    with pytest.raises(type(error)) as caught:
        read_reply(write_reply(Failed.of(error)), Ran)
    assert type(caught.value) is type(error) and str(caught.value) == str(error)


def test_an_unknown_error_is_a_failed_stage() -> None:
    with pytest.raises(StageFailed, match="it broke"):
        read_reply(write_reply(Failed("KeyError", "it broke")), Answered)


@pytest.mark.parametrize("verb", ["tune", None, "Run"])
def test_an_unknown_verb_is_refused(verb: str | None) -> None:
    with pytest.raises(
        StageFailed, match=f"does not know the request `{verb}`; it knows run, open, reset, answer, time"
    ):
        read_request(json.dumps({**RUN.to_json(), "do": verb}).encode())


@pytest.mark.parametrize("field", ["options", "inputs", "task", "threads", "interpreters"])
def test_a_request_that_lacks_a_field_is_refused(field: str) -> None:
    fields = RUN.to_json()
    del fields[field]
    with pytest.raises(StageFailed, match=f"request `run` .*{field}"):
        read_request(json.dumps(fields).encode())


def test_what_is_no_number_is_not_written() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_reply(Ran({"score": float("nan")}, 1))
