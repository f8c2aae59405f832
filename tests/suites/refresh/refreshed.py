"""A small project whose recipe is refreshed by the real command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from project import CommandResult, ProjectFixture

from cpu_pipeline.release import latest, manifest

COPY = {"id": "made"}
"""A step that copies the model; its score is that of the model."""
COMPARE = {"id": "gate", "use": "faulty.versus", "from": {"reference": "model"}}
"""A gate that compares the scores of two models; a drop of more than 0.1 fails."""


class RefreshedProject(ProjectFixture):
    """Refreshes its recipe `small`, changes the model below it, and looks at what is in service."""

    def compared(self, **options: Any) -> Path:
        """Write a recipe that copies the model and compares the copy; the options are the gate's."""
        return self.recipe(COPY, {**COMPARE, **options})

    def change_model(self, **config: Any) -> None:
        """Change the model that the recipes are made of, as a new upstream version would."""
        path = self.home / "model" / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | config, indent=2), encoding="utf-8")

    def refresh(self, *arguments: object, **env: str) -> CommandResult:
        """Run `cpu-pipeline refresh` with this project's store and artifacts."""
        return self.call("refresh", *arguments, "--store", self.store, "--out", self.out, **env)

    def roll_back(self) -> None:
        """Put the version before back into service, by hand."""
        self.call("rollback", "small", "--out", self.out, "--store", self.store).expect(0)

    def in_service(self, name: str = "small") -> str:
        """Return the version in service, which is whole."""
        version = latest.in_service(self.out / name)
        assert version is not None
        assert manifest.edited(version) == []
        return version.name

    def history(self) -> list[dict[str, Any]]:
        """Return the recorded runs, newest first."""
        runs: list[dict[str, Any]] = self.call("history", "--json", "--store", self.store).expect(0).json["runs"]
        return runs


def outcome(result: CommandResult) -> dict[str, Any]:
    """Read the one line of JSON that a refresh of one recipe prints."""
    [line] = result.out.splitlines()
    read: dict[str, Any] = json.loads(line)
    return read
