"""What a rollback took out of service is not promoted again, and nothing else is held."""

from __future__ import annotations

import shutil

from suites.refresh.refreshed import COMPARE, COPY, RefreshedProject, outcome

from cpu_pipeline.release import versions


def test_a_rolled_back_version_is_not_promoted_again(project: RefreshedProject) -> None:
    """A rollback holds until something new comes out.

    1. Promote two versions, and roll back to the first.
    2. Refresh: held, the first stays in service.
    3. Remove the lock and refresh: the second comes out again, and is held.
    4. Change the model and refresh: the third is promoted.
    """
    # Arrange
    recipe = project.compared()
    first = outcome(project.refresh(recipe).expect(0))["version"]
    project.change_model(score=1.5)
    second = outcome(project.refresh(recipe).expect(0))["version"]
    project.roll_back()
    assert project.in_service() == first
    # Act, assert: nothing changed
    held = outcome(project.refresh(recipe).expect(0, f"held  small: {first} was put back by hand and stays"))
    assert (held["outcome"], held["version"]) == ("held", first)
    # Act, assert: the same comes out
    recipe.with_suffix(".lock").unlink()
    held = outcome(project.refresh(recipe).expect(0, f"{second} was taken out of service by hand"))
    assert (held["outcome"], project.in_service()) == ("held", first)
    # Act, assert: something else comes out
    project.change_model(score=1.6)
    assert outcome(project.refresh(recipe).expect(0))["outcome"] == "promoted"
    assert project.in_service() not in (first, second)


def test_a_locked_new_model_is_promoted_after_a_rollback(project: RefreshedProject) -> None:
    """1. Promote twice, roll back. 2. Lock a third model. 3. The refresh promotes it: nobody rejected it."""
    # Arrange
    recipe = project.compared()
    project.refresh(recipe).expect(0)
    project.change_model(score=1.5)
    project.refresh(recipe).expect(0)
    project.roll_back()
    project.change_model(score=1.6)
    project.call("lock", recipe, "--store", project.store).expect(0)
    # Act
    result = outcome(project.refresh(recipe).expect(0, "is in service, and is not what the lock says"))
    # Assert
    assert (result["outcome"], result["changes"]) == ("promoted", {"gate@service": ["score: 1.0 → 1.6"]})


def test_a_rolled_back_version_is_known_by_its_bytes(project: RefreshedProject) -> None:
    """Another store, another toolchain and another measurement make another version of the same artifact.

    1. Promote twice, roll back.
    2. Remove the store, raise the stage's version, change the measurement, refresh.
    3. The second version's bytes come out, and are held.
    """
    # Arrange
    noise = project.home / "noise.txt"
    noise.write_text("0")
    recipe = project.compared(noise=noise)
    first = outcome(project.refresh(recipe).expect(0))["version"]
    project.change_model(score=1.05)
    second = outcome(project.refresh(recipe).expect(0))["version"]
    project.roll_back()
    shutil.rmtree(project.store)
    noise.write_text("0.01")
    # Act
    result = project.refresh(recipe, FAULTY_VERSION="2").expect(0, f"{second} was taken out of service by hand")
    # Assert
    assert (outcome(result)["outcome"], project.in_service()) == ("held", first)


def test_a_rolled_back_version_with_a_damaged_manifest_is_held(project: RefreshedProject) -> None:
    """1. Promote twice, roll back. 2. Damage the second version's manifest. 3. It is still held."""
    # Arrange
    recipe = project.compared()
    project.refresh(recipe).expect(0)
    project.change_model(score=1.5)
    second = outcome(project.refresh(recipe).expect(0))["version"]
    project.roll_back()
    (project.out / "small" / second / "manifest.json").write_text("[")
    # Act, assert
    assert outcome(project.refresh(recipe).expect(0))["outcome"] == "held"


def test_a_rollback_holds_nothing_but_what_it_took_out(project: RefreshedProject) -> None:
    """1. Promote twice, roll back. 2. Edit what is in service: exit code 7. 3. Remove it: held, and not well (5)."""
    # Arrange
    recipe = project.compared()
    first = outcome(project.refresh(recipe).expect(0))["version"]
    project.change_model(score=1.5)
    project.refresh(recipe).expect(0)
    project.roll_back()
    # Act, assert: edited
    (project.out / "small" / first / "made" / "marker.txt").write_text("mine\n")
    project.refresh(recipe).expect(7, "was edited (made/marker.txt)")
    # Act, assert: removed
    shutil.rmtree(project.out / "small" / first)
    result = outcome(project.refresh(recipe).expect(5, "was taken out of service by hand"))
    assert (result["outcome"], result["version"]) == ("held", None)


def test_run_names_what_it_takes_out_of_service(project: RefreshedProject) -> None:
    """1. Promote twice, roll back. 2. `run` puts the second into service, and names the first. 3. Then: unchanged."""
    # Arrange
    recipe = project.compared()
    first = outcome(project.refresh(recipe).expect(0))["version"]
    project.change_model(score=1.5)
    second = outcome(project.refresh(recipe).expect(0))["version"]
    project.roll_back()
    # Act, assert
    assert f"promoted  {project.out / 'small' / second} (instead of {first})\n" in project.run(recipe).expect(0).out
    assert f"unchanged  {project.out / 'small' / second}\n" in project.run(recipe).expect(0).out


def test_another_measurement_is_no_other_version(project: RefreshedProject) -> None:
    """1. Promote. 2. Remove the store, measure something else. 3. The version in service stays, and is fresh."""
    # Arrange
    noise = project.home / "noise.txt"
    noise.write_text("0")
    recipe = project.recipe(COPY, {**COMPARE, "noise": noise}, refresh={"keep": 2})
    first = outcome(project.refresh(recipe).expect(0))["version"]
    shutil.rmtree(project.store)
    noise.write_text("0.01")
    # Act
    result = outcome(project.refresh(recipe, FAULTY_VERSION="2").expect(0, "unchanged  small: the same came out"))
    # Assert
    assert (result["version"], versions.versions(project.out / "small")) == (first, [first])
    assert outcome(project.refresh(recipe, FAULTY_VERSION="2").expect(0))["outcome"] == "fresh"
