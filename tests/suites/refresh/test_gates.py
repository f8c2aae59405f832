"""What the gates let pass: against the float model, and against what is in service."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from project import ended, pids_in, put_down
from suites.refresh.refreshed import COMPARE, COPY, RefreshedProject, outcome


def test_a_better_model_is_promoted(project: RefreshedProject) -> None:
    """A new upstream version is rebuilt, compared and promoted.

    1. Refresh once, so that a version is in service.
    2. Change the model for the better, and refresh again.
    3. The new version is in service, the report has both scores, the old version still exists.
    4. The next refresh finds nothing to do.
    """
    # Arrange
    recipe = project.compared()
    first = outcome(project.refresh(recipe).expect(0))
    project.change_model(score=1.5)
    # Act
    second = outcome(project.refresh(recipe).expect(0, "gate@service: score: 1.0 → 1.5"))
    # Assert
    assert second["outcome"] == "promoted"
    assert second["version_before"] == first["version"]
    assert second["version"] == project.in_service() != first["version"]
    assert "model: its files on this machine changed" in second["causes"]
    assert second["changes"] == {"gate@service": ["score: 1.0 → 1.5"]}
    assert (project.out / "small" / first["version"]).is_dir(), "the earlier version still exists"
    assert outcome(project.refresh(recipe).expect(0))["outcome"] == "fresh"


def test_a_poisoned_model_is_refused(project: RefreshedProject) -> None:
    """The rebuilt artifact is as good as its own float model, which is bad: only the version in service shows it.

    1. Put a model of score 1.0 into service.
    2. Change the model to score 0.2, and refresh: exit code 3, version and lock stay.
    3. Refresh again: refused again.
    4. Change the model back: fresh.
    """
    # Arrange
    project.change_model(score=1.0)
    recipe = project.compared()
    first = outcome(project.refresh(recipe).expect(0))
    lock = recipe.with_suffix(".lock").read_bytes()
    project.change_model(score=0.2)
    # Act
    result = project.refresh(recipe)
    # Assert
    result.expect(
        3, f"{first['version']} stays in service", "a drop of 0.80", "because model: its files on this machine changed",
        "score: 1.0 → 0.2",
    )  # fmt: skip
    refused = outcome(result)
    assert (refused["outcome"], refused["exit_code"], refused["version"]) == ("refused", 3, first["version"])
    assert refused["failed"] == ["gate@service: a drop of 0.80"]
    assert project.in_service() == first["version"]
    assert recipe.with_suffix(".lock").read_bytes() == lock
    assert outcome(project.refresh(recipe))["exit_code"] == 3
    project.change_model(score=1.0)
    assert outcome(project.refresh(recipe).expect(0))["outcome"] == "fresh"


def test_a_measurement_of_a_busy_machine_is_repeated(project: RefreshedProject) -> None:
    """A cached measurement that refuses is measured again; one of this refresh is not.

    `noise.txt` is added to what the gates measure, as a busy machine would.

    1. Put a version into service without noise.
    2. Change the model, add noise, refresh: both gates run once and refuse.
    3. Refresh again: both gates run once more, and refuse.
    4. Take the noise away, refresh: the gate is measured again and the version promoted.
    """
    # Arrange
    noise = project.home / "noise.txt"
    noise.write_text("0")
    project.change_model(score=1.0)
    recipe = project.compared(noise=noise)
    project.refresh(recipe).expect(0)
    project.change_model(score=1.05)
    noise.write_text("0.5")
    measured = len(project.lines("compared"))
    # Act, assert: measured once, refused
    assert len(outcome(project.refresh(recipe).expect(3))["failed"]) == 2
    assert len(project.lines("compared")) == measured + 2
    # Act, assert: measured once more, refused
    assert outcome(project.refresh(recipe).expect(3))["built"] == 1
    assert len(project.lines("compared")) == measured + 4
    # Act, assert: promoted without noise
    noise.write_text("0")
    result = outcome(project.refresh(recipe).expect(0, "building  gate@service  because asked to measure again"))
    assert (result["outcome"], result["built"]) == ("promoted", 1)


def test_a_refusal_that_cannot_be_measured_again_stays(project: RefreshedProject) -> None:
    """A gate that refused, and that can't run any more, is an error and no promotion.

    1. Put a version into service, change the model for the worse, refresh: refused.
    2. Let the reference fail to run, refresh: exit code 1, the first version stays.
    """
    # Arrange
    noise = project.home / "noise.txt"
    noise.write_text("0")
    project.change_model(score=1.0)
    recipe = project.compared(noise=noise)
    first = outcome(project.refresh(recipe).expect(0))["version"]
    project.change_model(score=0.8)
    project.refresh(recipe).expect(3, "a drop of 0.20")
    noise.write_text("0 1.0")
    # Act
    result = project.refresh(recipe)
    # Assert
    result.expect(1, "this reference can't be run any more")
    assert project.in_service() == first


def test_a_gate_against_the_float_model_refuses(project: RefreshedProject) -> None:
    """1. Promote a copy whose gate passes. 2. Change it so that its gate fails. 3. It is refused."""
    # Arrange
    recipe = project.recipe(COPY, {"id": "gate", "use": "faulty.gate", "score": 0.9})
    first = outcome(project.refresh(recipe).expect(0))
    project.recipe({**COPY, "text": "new"}, {"id": "gate", "use": "faulty.gate", "score": 0.1})
    # Act
    result = project.refresh(recipe).expect(3, "score 0.1, at least 0.5 asked")
    # Assert
    assert outcome(result)["failed"] == ["gate: score 0.1, at least 0.5 asked"]
    assert project.in_service() == first["version"]


def test_an_output_without_a_comparing_gate_is_warned_of(project: RefreshedProject) -> None:
    """1. Promote. 2. Change the copy; the recipe's gate compares nothing. 3. It is promoted with a warning."""
    # Arrange
    recipe = project.recipe(COPY, {"id": "gate", "use": "faulty.gate"})
    project.refresh(recipe).expect(0)
    project.recipe({**COPY, "text": "new"}, {"id": "gate", "use": "faulty.gate"})
    # Act
    result = project.refresh(recipe).expect(0, "no gate of this recipe compares `made`")
    # Assert
    assert outcome(result)["warnings"] == ["no gate of this recipe compares `made` with what is in service"]


def test_a_baseline_that_cannot_run_blocks(project: RefreshedProject) -> None:
    """What can't be compared is not promoted, unless another gate compares it.

    1. Promote a model of score 6.0.
    2. Let the gate fail with a reference of that score, change the model, refresh: exit code 1.
    3. Mend that gate, add a second one that fails so, refresh: promoted; the second gate is a warning.
    """
    # Arrange
    project.change_model(score=6.0)
    recipe = project.compared(afraid_of=7.0)
    project.refresh(recipe).expect(0)
    project.recipe({**COPY, "text": "new"}, {**COMPARE, "afraid_of": 6.0})
    project.change_model(score=6.5)
    # Act, assert: no gate could compare
    project.refresh(recipe).expect(1, "`gate@service`", "this reference can't be run any more")
    # Act, assert: one of two could
    gate = {**COMPARE, "afraid_of": 0.0}
    project.recipe({**COPY, "text": "new"}, gate, {**gate, "id": "second", "afraid_of": 6.0})
    result = outcome(project.refresh(recipe).expect(0, "`second@service` could not be compared"))
    assert list(result["changes"]) == ["gate@service"]


def test_each_output_needs_a_gate_that_ran(project: RefreshedProject) -> None:
    """1. Promote two outputs, each with a gate. 2. One gate can't run. 3. Nothing is promoted."""

    def gate(name: str, of: str, **options: Any) -> dict[str, Any]:
        return {"id": name, "use": "faulty.versus", "from": {"candidate": of, "reference": "model"}, **options}

    # Arrange
    project.change_model(score=6.0)
    steps = [{"id": "a", "from": {"model": "model"}}, {"id": "b", "text": "b", "from": {"model": "model"}}]
    recipe = project.recipe(*steps, gate("ga", "a"), gate("gb", "b"))
    first = outcome(project.refresh(recipe).expect(0))["version"]
    project.recipe(*steps, gate("ga", "a"), gate("gb", "b", afraid_of=6.0))
    project.change_model(score=6.05)
    # Act
    result = outcome(project.refresh(recipe).expect(1, "`gb@service`", "this reference can't be run any more"))
    # Assert
    assert result["outcome"] == "failed", "the gate of `a` says nothing of `b`"
    assert (result["version_before"], result["version"], project.in_service()) == (first, first, first)


def test_the_gate_of_a_later_step_does_not_speak_for_an_output(project: RefreshedProject) -> None:
    """1. Promote `a`, and `b` made of it. 2. The gate of `a` can't run. 3. The gate of `b` is not enough."""

    def recipe(**options: Any) -> Path:
        gates = [
            {"id": f"gate-{of}", "use": "faulty.versus", "from": {"candidate": of, "reference": "model"}, **more}
            for of, more in (("a", options), ("b", {}))
        ]
        return project.recipe({"id": "a"}, {"id": "b", "text": "b"}, *gates, outputs=["a", "b"])

    # Arrange
    project.change_model(score=6.0)
    project.refresh(recipe()).expect(0)
    project.change_model(score=6.05)
    # Act
    result = project.refresh(recipe(afraid_of=6.0))
    # Assert
    result.expect(1, "`gate-a@service`", "this reference can't be run any more")


def test_a_version_put_into_service_meanwhile_is_compared_with(project: RefreshedProject) -> None:
    """What is rebuilt is little worse than what was in service when it began, much worse than what is now.

    1. Promote scores 1.0 and 0.95.
    2. Begin a refresh of score 0.86, which waits in the build.
    3. Roll back to score 1.0 meanwhile, and let the build go on.
    4. It is compared with 1.0, and refused.
    """
    # Arrange
    wait = project.home / "wait"
    project.change_model(score=1.0)
    recipe = project.compared()
    first = outcome(project.refresh(recipe).expect(0))["version"]
    project.change_model(score=0.95)
    project.refresh(recipe).expect(0)
    project.change_model(score=0.86)
    project.recipe({**COPY, "act": "wait", "to": wait}, COMPARE)
    # Act
    running = project.start("refresh", recipe, "--store", project.store, "--out", project.out)
    with put_down(running):
        pids_in(wait)
        project.roll_back()
        wait.unlink()
        result = ended(running)
    # Assert
    refused = outcome(result.expect(3, "a drop of 0.14", f"{first} stays in service"))
    assert refused["version_before"] == refused["version"] == first == project.in_service()


def test_an_edited_version_in_service_is_not_compared_with(project: RefreshedProject) -> None:
    """1. Promote. 2. Edit the version by hand. 3. Every refresh fails with exit code 7, and leaves it as it is."""
    # Arrange
    project.change_model(score=1.0)
    recipe = project.compared()
    version = outcome(project.refresh(recipe).expect(0))["version"]
    marker = project.out / "small" / version / "made" / "marker.txt"
    marker.write_text("mine\n")
    for score in (1.0, 1.5):
        project.change_model(score=score)
        # Act
        result = outcome(project.refresh(recipe).expect(7, "was edited (made/marker.txt)"))
        # Assert
        assert (result["outcome"], result["error"]) == ("failed", "Refused")
    assert marker.read_text() == "mine\n"
