"""What is in service is compared with as it answered, or answers anew; what is damaged is compared with nothing."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from publishing import RECIPE, PretendedProject

from cpu_pipeline.core.errors import Refused
from cpu_pipeline.refresh import baseline
from cpu_pipeline.release import lockfile, standing
from cpu_pipeline.store.lease import leased

LEAST = {"id": "accuracy", "use": "validate.accuracy", "from": {"reference": "model"}, "with": {"at_least": 0.1}}


@pytest.fixture
def made(tmp_path: Path) -> PretendedProject:
    return PretendedProject(tmp_path / "project")


def loaded(version: Path) -> baseline.Baseline:
    found = baseline.of_version(standing.read_standing(version.parent))
    assert found is not None
    return found


def uses(made: PretendedProject, version: Path, **how: Any) -> dict[str, str]:
    """Hold another build against a version; name what is added to its plan, and the stage of each."""
    built, _ = made.build(**how)
    plan = baseline.against(loaded(version), built)
    return {name: node.use for name, node in plan.nodes.items() if name not in built.plan.nodes}


def test_what_was_answered_is_taken_as_it_was(made: PretendedProject) -> None:
    version = made.published()
    built, _ = made.build(files={"more.txt": "more"})
    plan = baseline.against(loaded(version), built)
    answers = plan.nodes["predict:int8@service"]
    assert (answers.use, answers.gives) == ("load.kept", "predictions")
    assert answers.stage.model_dump()["files"] == ("sub/file.txt",)
    gate = plan.nodes["accuracy@service"]
    assert gate.inputs == {"candidate": "predict:int8", "reference": "predict:int8@service"}
    assert gate.data == plan.nodes["accuracy"].data


@pytest.mark.parametrize(
    "how",
    [
        {"content": "other rows"},
        {"files": {"more.txt": "more"}, "task": {"use": "question-answering", "with": {"max_seq_length": 320}}},
    ],
    ids=["rows", "task"],
)
def test_it_answers_anew_when_other_rows_or_another_task_is_asked(made: PretendedProject, how: dict[str, Any]) -> None:
    """Answers to other questions, side by side with ours, would say nothing, or that everything is wrong."""
    added = uses(made, made.published(), **how)
    assert added == {
        "int8@service": "load.kept", "predict:int8@service": "predict", "accuracy@service": "validate.accuracy",
    }  # fmt: skip


def test_what_came_out_the_same_is_not_compared(made: PretendedProject) -> None:
    assert uses(made, made.published()) == {}


def test_an_output_that_is_not_in_service_is_not_compared(made: PretendedProject) -> None:
    assert uses(made, made.published(outputs=["float"]), files={"more.txt": "more"}) == {}


def test_the_successors_bounds_are_what_is_judged(made: PretendedProject) -> None:
    """A gate without a drop of its own has one against what is in service."""
    stages = [*RECIPE["stages"][:2], LEAST]
    version = made.published(stages=stages)
    built, _ = made.build(stages=stages, files={"more.txt": "more"})
    stage = baseline.against(loaded(version), built).nodes["accuracy@service"].stage
    assert stage == built.plan.nodes["accuracy"].stage.successor() != built.plan.nodes["accuracy"].stage


def test_an_edited_version_is_refused(made: PretendedProject) -> None:
    version = made.published()
    (version / "int8" / "sub" / "file.txt").write_text("mine")
    with pytest.raises(Refused, match=r"is in service and was edited \(int8/sub/file.txt\)"):
        baseline.of_version(standing.read_standing(version.parent))


def test_of_a_lock_only_what_the_store_holds_whole_is_taken_up(made: PretendedProject) -> None:
    built, store = made.build()
    held = lockfile.make_lock(built, store)

    def found() -> tuple[baseline.Baseline, list[str]]:
        with leased(store) as lease:
            return baseline.of_lock(held, built.plan, lease)

    kept, lacking = found()
    assert (kept.version, kept.models.keys(), lacking) == (None, {"float", "int8"}, [])
    assert kept.models["int8"].digest == built.artifacts["int8"].digest
    path = store.path_of(built.artifacts["int8"].digest) / "sub" / "file.txt"
    path.chmod(0o644)
    path.write_text(path.read_text().upper())
    store._checked.clear()
    kept, lacking = found()
    assert (kept.models.keys(), lacking) == ({"float"}, ["int8"])
    held = {**held, "steps": {}}
    kept, lacking = found()
    assert (kept.models, lacking) == ({}, [])


def test_a_gate_that_looks_in_parts_looks_so_at_what_is_in_service(made: PretendedProject) -> None:
    steps = [step for step in RECIPE["stages"] if step["id"] != "accuracy"]
    options = {"stages": [*steps, {**LEAST, "with": {"max_drop": 0.1, "on_inconclusive": "more"}}]}
    version = made.published(**options)
    built, _ = made.build(**options, files={"more.txt": "more"})
    plan = baseline.against(loaded(version), built)
    assert plan.nodes["accuracy@service"].inputs == {
        "candidate": "predict:accuracy@service:4-of-4:int8",
        "reference": "predict:accuracy@service:4-of-4:int8@service",
    }
    assert plan.nodes["accuracy@service:look-1"].stage.model_dump()["max_drop"] == 0.1
    assert plan.nodes["predict:accuracy@service:1-of-4:int8"].inputs == {"model": "int8"}


def test_five_refreshes_cannot_walk_a_metric_down(made: PretendedProject) -> None:
    """Each is within max_drop of the one before; the gate against the best version sees what they lose together."""
    version = made.published()
    found = standing.read_standing(version.parent)
    assert found.manifest is not None
    walked = []
    for number in range(5):
        manifest = copy.deepcopy(dict(found.manifest))
        manifest["steps"]["accuracy"]["facts"]["metrics"]["f1"]["candidate"] = 0.898 - 0.009 * number
        manifest["version"] = f"v{number}"
        walked.append(replace(found, manifest=manifest, version=f"v{number}"))
    built, _ = made.build(files={"more.txt": "more"})
    plan = baseline.against_best(walked[::-1], built)
    gate = plan.nodes["accuracy@best"]
    assert gate.inputs == {"candidate": "predict:int8", "reference": "predict:int8@best"}
    assert gate.stage == built.plan.nodes["accuracy"].stage.successor()
    best = baseline.against_best([walked[3], walked[0], walked[4]], built)
    assert best.nodes["predict:int8@best"].stage == plan.nodes["predict:int8@best"].stage


def test_the_best_is_the_one_with_the_highest_metric(made: PretendedProject, tmp_path: Path) -> None:
    first = made.published()
    low, high = standing.read_standing(first.parent), standing.read_standing(first.parent)
    assert low.manifest is not None
    manifest = copy.deepcopy(dict(low.manifest))
    manifest["steps"]["accuracy"]["facts"]["metrics"]["f1"]["candidate"] = 0.5
    low = replace(low, manifest=manifest, folder=tmp_path / "low")
    built, _ = made.build(files={"more.txt": "more"})
    for order in ([low, high], [high, low]):
        kept = baseline.against_best(order, built).nodes["predict:int8@best"].stage.model_dump()
        assert Path(kept["folder"]).is_relative_to(first), "its predictions are those of the better one"
    other, _ = made.build(content="other rows")
    assert "accuracy@best" not in baseline.against_best([high], other).nodes, (
        "of other rows there is nothing to compare"
    )
