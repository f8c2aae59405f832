"""What gates become in a trial on a few rows: quick, and never stricter than the data allow."""

from __future__ import annotations

from cpu_pipeline.stages.validate.accuracy import ValidateAccuracy
from cpu_pipeline.stages.validate.agreement import ValidateAgreement
from cpu_pipeline.stages.validate.latency import ValidateLatency


def test_a_measurement_is_short() -> None:
    tried = ValidateLatency(calls=64, rounds=20, processes=5, warmup=9, throughput=32, min_speedup=1.5).trial(50)
    assert (tried.calls, tried.rounds, tried.processes, tried.warmup, tried.throughput) == (4, 2, 1, 1, None)
    assert tried.min_speedup == 1.5, "it is judged all the same"
    sent = ValidateLatency(**tried.model_dump(mode="json", exclude_unset=True))
    assert sent == tried, "the worker gets what was changed"


def test_few_rows_are_enough() -> None:
    assert ValidateAccuracy(max_drop=0.01, min_rows=1000).trial(50).min_rows == 1
    assert ValidateAgreement(samples=200, cosine=0.9).trial(50).samples == 50
    assert ValidateAgreement(samples=8, cosine=0.9).trial(50).samples == 8
