"""What a refresh does with a candidate: a table of cases, decided without files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cpu_pipeline import api
from cpu_pipeline.graph.plan import Plan
from cpu_pipeline.refresh.decide import Decision, decide, failed, fails_by_cached_measurement, measured
from cpu_pipeline.release import lockfile, manifest
from cpu_pipeline.release.promotions import Promotion
from cpu_pipeline.release.standing import Standing
from cpu_pipeline.stages._base import Verdict

PASSED, FAILED = Verdict("f1", True, "no drop"), Verdict("f1", False, "a drop of 0.80")


def described(int8: str = "new", speed: str = "fast", outputs: tuple[str, ...] = ("int8",)) -> dict[str, Any]:
    """Return the part of a manifest that names a version; `speed` is what the gate `latency` measured."""
    steps = {
        name: {"use": "any", "inputs": {}, "options": {}, "digest": digest}
        for name, digest in (("int8", int8), ("latency", speed))
    }
    said = {"recipe": {}, "steps": steps, "outputs": {name: {"format": "onnx", "digest": int8} for name in outputs}}
    return {**said, "version": manifest.version_of(said)}


def standing(
    in_service: dict[str, Any] | None = None,
    edited: tuple[str, ...] = (),
    rejected: dict[str, dict[str, str] | None] | None = None,
) -> Standing:
    """Return a snapshot of a version with this manifest in service; of nothing when None."""
    home = Path("artifacts/toy")
    version = in_service["version"] if in_service else None
    return Standing(
        home,
        home / version if version else None,
        version,
        in_service,
        {name: said["digest"] for name, said in in_service["outputs"].items()} if in_service else None,
        edited,
        (),
        rejected or {},
    )


CASES: dict[str, tuple[dict[str, list[Verdict]], Standing, dict[str, Any], Decision]] = {
    "nothing is in service": ({}, standing(), described(), Decision("promote")),
    "another version is in service": ({}, standing(described("old")), described(), Decision("promote")),
    "every gate passed": ({"gate": [PASSED]}, standing(described("old")), described(), Decision("promote")),
    "a gate failed": (
        {"gate": [PASSED, FAILED], "gate@service": [PASSED]},
        standing(described("old")),
        described(),
        Decision("refuse", ("gate: a drop of 0.80",)),
    ),
    "two gates failed": (
        {"gate": [FAILED], "gate@service": [FAILED]},
        standing(described("old")),
        described(),
        Decision("refuse", ("gate: a drop of 0.80", "gate@service: a drop of 0.80")),
    ),
    "it failed, and was rolled back too": (
        {"gate": [FAILED]},
        standing(described("old"), rejected={"a" * 12: {"int8": "new"}}),
        described(),
        Decision("refuse", ("gate: a drop of 0.80",)),
    ),
    "it is in service": ({}, standing(described()), described(), Decision("unchanged")),
    "only the latency was measured anew": (
        {},
        standing(described(speed="fast")),
        described(speed="slow"),
        Decision("unchanged"),
    ),
    "it is in service, and was edited": (
        {},
        standing(described(), edited=("int8/model.onnx",)),
        described(),
        Decision("promote"),
    ),
    "a rollback took its bytes out of service": (
        {},
        standing(described("old"), rejected={"a" * 12: {"int8": "other"}, "b" * 12: {"int8": "new"}}),
        described(),
        Decision("hold", ("b" * 12,)),
    ),
    "a rollback took its version out of service, whose manifest is damaged": (
        {},
        standing(described("old"), rejected={described()["version"]: None}),
        described(),
        Decision("hold", (described()["version"],)),
    ),
    "a rollback took something else out of service": (
        {},
        standing(described("old"), rejected={"a" * 12: {"int8": "other"}, "b" * 12: None}),
        described(),
        Decision("promote"),
    ),
    "its bytes were rejected as one version, and are in service as another": (
        {},
        standing(described(), rejected={"a" * 12: {"int8": "new"}}),
        described(),
        Decision("unchanged"),
    ),
    "the recipe publishes nothing": ({}, standing(), described(outputs=()), Decision("unchanged")),
}


@pytest.mark.parametrize("case", CASES)
def test_a_candidate_is_decided_on(case: str) -> None:
    verdicts, now, candidate, expected = CASES[case]
    assert decide(verdicts, now, candidate, measured={"latency"}) == expected


def test_what_is_no_measurement_makes_another_version() -> None:
    assert decide({}, standing(described(speed="1")), described(speed="2"), measured=()) == Decision("promote")


def test_failures_name_their_gates() -> None:
    assert failed({"a": [PASSED], "b": [FAILED, PASSED], "c": []}) == ["b: a drop of 0.80"]


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    path = tmp_path / "toy.yaml"
    path.write_text(
        "{model: {folder: m}, task: text-classification, data: {validation: {file: r.jsonl}}, stages: ["
        "{id: float, use: export.onnx},"
        "{id: agreement, use: validate.agreement, from: {reference: model}, with: {cosine: 0.9}},"
        "{id: latency, use: validate.latency, from: {reference: model}, with: {min_speedup: 1.5}}]}"
    )
    return api.plan(api.load_recipe(path))


@pytest.mark.parametrize(
    ("gate", "verdicts", "ran", "expected"),
    [
        ("latency", [FAILED], (), True),
        ("latency@service", [FAILED], (), True),
        ("latency", [FAILED], ("latency",), False),
        ("latency", [PASSED], (), False),
        ("agreement", [FAILED], (), False),
    ],
)
def test_only_a_cached_measurement_is_repeated(
    plan: Plan, gate: str, verdicts: list[Verdict], ran: tuple[str, ...], expected: bool
) -> None:
    """A busy machine may have spoilt it; what this refresh measured itself is not measured again."""
    assert measured(plan) == {"latency"}
    assert fails_by_cached_measurement(plan, {gate: verdicts}, ran) is expected


@pytest.mark.parametrize(
    ("now", "lock", "differs", "rejects"),
    [
        ({"int8": "old"}, {"int8": "old"}, False, False),
        ({"int8": "new"}, {"int8": "new"}, False, True),
        ({"int8": "old"}, {"int8": "new"}, True, True),
        ({"int8": "old"}, {"int8": "other"}, True, False),
        ({"int8": "old"}, {}, True, False),
    ],
)
def test_a_lock_is_compared_with_what_is_in_service(
    now: dict[str, str], lock: dict[str, str], differs: bool, rejects: bool
) -> None:
    snapshot = standing(described(now["int8"]), rejected={"a" * 12: {"int8": "new"}})
    held: lockfile.Lock = {"steps": {name: {"output": digest} for name, digest in lock.items()}}
    assert (snapshot.differs(held, ["int8"]) is not None) is differs
    assert snapshot.rejects(held) is rejects


def test_a_promotion_by_a_rollback_is_known() -> None:
    snapshot = standing(described())
    assert not snapshot.rolled_back
    move = Promotion(str(snapshot.version), "2026-01-01T00:00:00+00:00", "rollback", None)
    assert Standing(*(vars(snapshot) | {"promotions": (move,)}).values()).rolled_back
