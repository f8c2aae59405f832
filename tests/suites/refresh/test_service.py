"""What was waived, changed or not judged is told from the run on: terminal, --json, report, card and status."""

from __future__ import annotations

import json
from typing import Any

from suites.refresh.refreshed import RefreshedProject, outcome

WAIVED = {"until": "2999-12-31", "reason": "the new runtime is needed"}
SAYS = "until 2999-12-31: the new runtime is needed"


def status(project: RefreshedProject, code: int = 0) -> dict[str, Any]:
    said = project.call("status", "small.yaml", "--json", "--store", project.store, "--out", project.out).expect(code)
    [found] = said.json
    return dict(found)


def service(project: RefreshedProject) -> tuple[dict[str, Any], str, str]:
    """Return manifest, report and card of the version in service."""
    version = project.out / "small" / "latest"
    card = (version / "made" / "README.md").read_text()
    return json.loads((version / "manifest.json").read_text()), (version / "report.md").read_text(), card


def test_a_waived_gate_is_told_everywhere_until_it_ends(project: RefreshedProject) -> None:
    recipe = project.recipe({"id": "made"}, {"id": "gate", "use": "faulty.gate", "at_least": 2.0})
    written = recipe.read_text()
    project.run(recipe).expect(3, "score 1.0, at least 2.0 asked")
    recipe.write_text(written.replace("- id: gate\n", f"- id: gate\n  waive: {json.dumps(WAIVED)}\n"))
    said = project.run(recipe, "--json").expect(0, SAYS).json
    assert said["waived"] == {"gate": SAYS} and said["checks"]["gate"][0]["waived"] == SAYS
    manifest, report, card = service(project)
    assert manifest["checks"]["gate"][0]["waived"] == SAYS and manifest["checks"]["gate"][0]["passed"] is True
    assert SAYS in report and SAYS in card
    assert status(project)["waived"] == {"gate": SAYS}
    recipe.write_text(recipe.read_text().replace("2999-12-31", "2020-12-31"))
    for command in ("run", "refresh"):
        done = project.call(command, recipe, "--store", project.store, "--out", project.out)
        done.expect(2, "waiver of `gate` ended on 2020-12-31")


def test_what_set_changed_is_told_until_a_refresh_puts_the_recipe_as_written_back(project: RefreshedProject) -> None:
    recipe = project.compared()
    first = outcome(project.refresh(recipe).expect(0))["version"]
    changed = ["made.text=other"]
    aside = project.run(recipe, "--set", *changed, "--json").expect(0).json
    assert project.in_service() == first and aside["set"] == changed and aside["not_for_service"]
    anyway = project.run(recipe, "--set", *changed, "--promote-anyway", "a trial", "--json").expect(0).json
    assert anyway["promoted_anyway"] == "a trial" and project.in_service() != first
    manifest, report, card = service(project)
    assert (manifest["set"], manifest["promoted_anyway"]) == (changed, "a trial")
    assert "made.text=other" in report and "a trial" in card
    found = status(project, 5)
    assert (found["set"], found["promoted_anyway"], found["unchecked"]) == (changed, "a trial", {})
    done = outcome(project.refresh(recipe).expect(0))
    assert (done["outcome"], done["version"]) == ("promoted", first) and project.in_service() == first
    assert "what is in service was changed with --set (made.text=other)" in done["causes"]
    assert status(project)["set"] == []


def test_what_no_gate_judged_is_told(project: RefreshedProject) -> None:
    recipe = project.recipe({"id": "made"}, unchecked={"made": "a trial for one user"})
    said = project.run(recipe, "--json").expect(0).json
    assert said["unchecked"] == {"made": "a trial for one user"}
    manifest, report, card = service(project)
    assert manifest["unchecked"] == {"made": "a trial for one user"}
    assert "a trial for one user" in report and "a trial for one user" in card
    assert status(project)["unchecked"] == {"made": "a trial for one user"}
