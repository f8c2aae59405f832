"""Refreshes on machines that lack the artifacts, the store, or both."""

from __future__ import annotations

import shutil
import socket

from project import CommandResult
from suites.refresh.refreshed import COMPARE, COPY, RefreshedProject, outcome


def test_lost_artifacts_are_published_again(project: RefreshedProject) -> None:
    """1. Promote. 2. Remove the artifacts. 3. The same version is published from the cache."""
    # Arrange
    recipe = project.compared()
    first = outcome(project.refresh(recipe).expect(0))
    shutil.rmtree(project.out)
    # Act
    result = outcome(project.refresh(recipe).expect(0, "nothing is in service in "))
    # Assert
    assert (result["version"], result["built"]) == (first["version"], 0)
    assert project.in_service() == first["version"]


def test_another_version_than_the_locked_one_is_replaced(project: RefreshedProject) -> None:
    """As after a kill between promotion and lock, or after a `run` of something else.

    1. Promote. 2. `run` another text of the recipe, and write the first text back. 3. The locked version returns.
    """
    # Arrange
    recipe = project.compared()
    first = outcome(project.refresh(recipe).expect(0))
    text = recipe.read_text()
    project.recipe({**COPY, "text": "else"}, COMPARE)
    project.built(recipe)
    recipe.write_text(text)
    # Act
    result = outcome(project.refresh(recipe).expect(0, "is not what the lock says"))
    # Assert
    assert result["version"] == first["version"] == project.in_service()


def test_a_machine_without_artifacts_compares_with_lock_and_store(project: RefreshedProject) -> None:
    """1. Promote, remove the artifacts. 2. A worse model is refused. 3. Without the store: promoted, with a warning."""
    # Arrange
    recipe = project.compared()
    project.refresh(recipe).expect(0)
    shutil.rmtree(project.out)
    project.change_model(score=0.2)
    # Act, assert: the store has the baseline
    assert outcome(project.refresh(recipe).expect(3))["failed"] == ["gate@service: a drop of 0.80"]
    assert not (project.out / "small" / "latest").exists(), "only the report of the failure is there"
    # Act, assert: nothing has it
    shutil.rmtree(project.store)
    assert outcome(project.refresh(recipe).expect(0, "neither here nor in the store"))["outcome"] == "promoted"


def test_a_throwaway_machine_compares_with_the_remote_store(project: RefreshedProject) -> None:
    """1. Promote and push. 2. A worse model on an empty machine is refused. 3. Without an answer: exit code 75."""
    # Arrange
    remote = project.home / "remote"
    recipe = project.compared()
    project.refresh(recipe).expect(0)
    project.call("store", "push", remote, "--store", project.store).expect(0)
    project.change_model(score=0.2)

    def on_an_empty_machine(url: object) -> CommandResult:
        for path in (project.out, project.store):
            shutil.rmtree(path, ignore_errors=True)
        return project.refresh(recipe, "--store-remote", url)

    # Act, assert: the remote has the baseline
    assert outcome(on_an_empty_machine(remote).expect(3))["failed"] == ["gate@service: a drop of 0.80"]
    # Act, assert: nobody answers
    with socket.socket() as nobody:  # bound, and not listening
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        result = outcome(on_an_empty_machine(url).expect(75, "what is in service (made) is not here"))
    assert (result["outcome"], (project.out / "small").exists()) == ("failed", False)


def test_a_locked_artifact_is_loaded_in_its_own_format(project: RefreshedProject) -> None:
    """1. Promote, remove the artifacts. 2. Let the recipe ask for another format. 3. The baseline keeps its own."""
    # Arrange
    recipe = project.compared()
    project.refresh(recipe).expect(0)
    shutil.rmtree(project.out)
    project.recipe({**COPY, "form": "onnx"}, COMPARE)
    project.change_model(score=1.05)
    # Act
    project.refresh(recipe).expect(0, "gate@service: score: 1.0 → 1.05")
    # Assert
    records = project.call("store", "list", "--json", "--store", project.store).expect(0).json
    assert [record["format"] for record in records if record["stage"] == "load.kept"] == ["hf"]
