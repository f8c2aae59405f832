"""Run fuse.ipex in one process of the ipex environment, which has no pytest: cases in, what they did out (JSON)."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from cpu_pipeline import backends, tasks
from cpu_pipeline.core import host
from cpu_pipeline.core.artifact import Artifact, digest_file
from cpu_pipeline.core.errors import StageFailed
from cpu_pipeline.runtime.batching import pad
from cpu_pipeline.stages._base import Job, stored_facts
from cpu_pipeline.stages.fuse.ipex import FuseIpex
from cpu_pipeline.tasks._synthetic import tokens


def fuse(case: dict[str, Any]) -> dict[str, Any]:
    """Do one case: its facts and digest, or the error of the stage."""
    out = Path(case["out"])
    task = tasks.get(case["task"])()

    def load(artifact: Artifact) -> Any:
        return backends.get(artifact.format).load(artifact.path, task, 1)

    job = Job(load=load, timer=None, task=task, threads=1, isa=host.isa())  # type: ignore[arg-type]
    try:
        facts = FuseIpex(**case["options"]).run({"model": Artifact("hf", Path(case["model"]), "", {})}, out, job)
    except StageFailed as error:
        return {"error": str(error)}
    session = load(Artifact("ipex", out, "", {}))
    [batch] = tokens(out, [(2, 20)])
    answers = [session(pad(batch, session.inputs, task.input_kinds(out))) for _ in range(3)]
    same = all((answers[0][name] == answer[name]).all() for answer in answers for name in answer)
    kinds = sorted({str(value.dtype) for value in answers[0].values()})
    recorded = stored_facts(facts)
    return {"facts": recorded, "model.pt": digest_file(out / "model.pt"), "first_as_later": bool(same), "dtypes": kinds}


def without_eager_attention(case: dict[str, Any]) -> dict[str, Any]:
    """Do a case where transformers does not change its attention, as if the option were gone."""
    import transformers

    kept = transformers.PreTrainedModel.set_attn_implementation
    transformers.PreTrainedModel.set_attn_implementation = lambda self, name: None
    try:
        return fuse(case)
    finally:
        transformers.PreTrainedModel.set_attn_implementation = kept


if __name__ == "__main__":
    given = json.loads(Path(sys.argv[1]).read_text())
    done = {name: (without_eager_attention if case["sdpa"] else fuse)(case) for name, case in given.items()}
    Path(sys.argv[2]).write_text(json.dumps(done))
