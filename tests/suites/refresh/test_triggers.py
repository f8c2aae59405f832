"""What a refresh reacts to, and what it says of the rest."""

from __future__ import annotations

from suites.refresh.refreshed import COMPARE, COPY, RefreshedProject, outcome

from cpu_pipeline.release import lockfile


def test_it_reacts_to_the_triggers_that_are_named(project: RefreshedProject) -> None:
    """`--only` limits what a refresh reacts to.

    1. Promote, then change the model.
    2. Refresh with `--only data,recipe` and with `--only data`: fresh; the change is reported, the runs are partial.
    3. Refresh with `--only model`: promoted.
    4. A word that is no trigger is an error with a suggestion.
    """
    # Arrange
    recipe = project.compared()
    project.refresh(recipe).expect(0)
    project.change_model(score=1.2)
    # Act, assert: other triggers
    result = outcome(project.refresh(recipe, "--only", "data,recipe").expect(0, "not reacted to: model: "))
    assert result["outcome"] == "fresh"
    assert result["ignored"]
    project.refresh(recipe, "--only", "data").expect(0)
    runs = project.history()
    assert [run["partial"] for run in runs] == [True, True, False]
    assert {(run["place"], run["out"]) for run in runs} == {(str(recipe), str(project.out))}
    # Act, assert: the trigger of the change
    assert outcome(project.refresh(recipe, "--only", "model").expect(0))["outcome"] == "promoted"
    # Act, assert: a misspelled one
    project.refresh(recipe, "--only", "modle").expect(2, "did you mean `model`?")


def test_changes_that_come_along_are_reported(project: RefreshedProject) -> None:
    """1. Change model and recipe. 2. Refresh with `--only model`. 3. Both are built, and the recipe is a side cause."""
    # Arrange
    recipe = project.compared()
    project.refresh(recipe).expect(0)
    project.change_model(score=1.2)
    project.recipe({**COPY, "text": "new"}, COMPARE)
    # Act
    result = outcome(project.refresh(recipe, "--only", "model").expect(0))
    # Assert
    assert result["outcome"] == "promoted"
    assert any(cause.startswith("recipe: ") and cause.endswith("(no reason by itself)") for cause in result["causes"])
    assert result["ignored"] == []


def test_another_name_of_an_output_is_a_change_of_the_recipe(project: RefreshedProject) -> None:
    """1. Rename the output. 2. `--only data` finds it fresh. 3. A full refresh promotes it, with nothing to compare."""
    # Arrange
    recipe = project.compared()
    project.refresh(recipe).expect(0)
    project.recipe({"id": "renamed"}, COMPARE)
    # Act, assert
    assert outcome(project.refresh(recipe, "--only", "data").expect(0))["outcome"] == "fresh"
    result = project.refresh(recipe).expect(0, "`renamed` is not in service yet")
    assert outcome(result)["outcome"] == "promoted"


def test_the_recipe_names_its_triggers(project: RefreshedProject) -> None:
    """1. `refresh.on` names the recipe alone. 2. A changed model is no reason. 3. `--only model` overrides it."""
    # Arrange
    recipe = project.recipe(COPY, COMPARE, refresh={"on": ["recipe"]})
    project.refresh(recipe).expect(0)
    project.change_model(score=1.2)
    # Act, assert
    assert outcome(project.refresh(recipe).expect(0))["outcome"] == "fresh"
    assert outcome(project.refresh(recipe, "--only", "model").expect(0))["outcome"] == "promoted"


def test_a_new_stage_version_is_a_change_of_the_toolchain(project: RefreshedProject) -> None:
    """1. Raise the version of a stage. 2. It runs again, the same bytes come out. 3. Only the lock changes."""
    # Arrange
    recipe = project.compared()
    project.refresh(recipe).expect(0)
    # Act
    result = outcome(project.refresh(recipe, FAULTY_VERSION="2").expect(0))
    # Assert
    assert "toolchain: steps.made.version: 1 → 2" in result["causes"]
    assert result["outcome"] == "unchanged"
    assert lockfile.read_lock(recipe.with_suffix(".lock"))["steps"]["made"]["version"] == 2
    assert outcome(project.refresh(recipe, FAULTY_VERSION="2").expect(0))["outcome"] == "fresh"
