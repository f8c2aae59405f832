"""Which files a recipe may name: those below its directory, and those that the user allows."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from conftest import Cli
from project import write_model

from cpu_pipeline import api
from cpu_pipeline.core.errors import Refused

STEPS = "task: text-classification\nstages: [{id: float, use: export.onnx}]\n"


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """Give a recipe whose model lies outside its folder."""
    write_model(tmp_path / "elsewhere" / "model")
    path = tmp_path / "recipes" / "toy.yaml"
    path.parent.mkdir()
    path.write_text("model: {folder: ../elsewhere/model}\n" + STEPS)
    return path


def marked(recipe: Path) -> Path:
    recipe.write_text(recipe.read_text().replace("/model}", "/model, outside: true}"))
    return recipe


def test_a_path_outside_is_refused_with_the_option_that_allows_it(recipe: Path, tmp_path: Path, cli: Cli) -> None:
    said = cli("check", recipe)
    assert said.code == 7
    _, _, option = said.err.partition("allow it: ")
    flag, _, value = option.partition(";")[0].partition(" ")
    assert (flag, value) == ("--allow-path", str((tmp_path / "elsewhere" / "model").resolve()))
    assert cli("check", recipe, flag, value).code == 0  # the hint leads to no other refusal


@pytest.mark.parametrize("command", ["plan", "check"])
def test_the_user_allows_a_directory(recipe: Path, tmp_path: Path, cli: Cli, command: str) -> None:
    assert cli(command, recipe, "--allow-path", tmp_path / "elsewhere").code == 0
    assert cli(command, recipe, "--allow-path", tmp_path / "recipes").code == 7


def test_the_environment_allows_directories(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CPU_PIPELINE_ALLOW_PATH", os.pathsep.join([str(tmp_path / "x"), str(tmp_path / "elsewhere")]))
    [outside] = api.plan(api.load_recipe(recipe)).outside
    assert outside.allowed and outside.path == (tmp_path / "elsewhere" / "model").resolve()


def test_a_mark_in_the_recipe_is_shown_and_lets_nothing_be_read(recipe: Path, cli: Cli) -> None:
    (recipe.parent.parent / "elsewhere" / "model" / "model.safetensors").unlink()  # which nobody notices
    said = cli("check", marked(recipe))
    assert said.code == 0
    assert "(not read: model lies outside" in said.out and "not read; a build needs --allow-path" in said.out
    assert cli("run", recipe).code == 7
    with pytest.raises(Refused, match="--allow-path"):
        api.plan(api.load_recipe(recipe))


def test_what_is_allowed_is_read_and_shown(recipe: Path, tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "elsewhere" / "model" / "model.safetensors").unlink()
    said = cli("check", marked(recipe), "--allow-path", tmp_path / "elsewhere")
    assert said.code == 2 and "no weights" in said.err
    [found] = cli("check", recipe, "--json", "--recipe-only", "--allow-path", tmp_path / "elsewhere").json
    assert found["exit_code"] == 0 and "(allowed)" in found["outside"][0]


@pytest.mark.parametrize("written", ["{home}/recipes/model", "sub/../model", "link"])
def test_where_a_path_leads_counts_and_not_how_it_is_written(tmp_path: Path, cli: Cli, written: str) -> None:
    home = tmp_path / "recipes"
    write_model(home / "model")
    (home / "sub").mkdir()
    (home / "link").symlink_to(home / "model")
    (home / "toy.yaml").write_text(f"model: {{folder: {written.format(home=tmp_path)}}}\n" + STEPS)
    said = cli("check", home / "toy.yaml")
    assert (said.code, said.out) == (0, f"ok  {home / 'toy.yaml'}\n"), said.err


def test_a_link_does_not_lead_out_of_an_allowed_directory(recipe: Path, tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "allowed").mkdir()
    (tmp_path / "allowed" / "model").symlink_to(tmp_path / "elsewhere" / "model")
    recipe.write_text("model: {folder: ../allowed/model}\n" + STEPS)
    assert cli("check", recipe, "--allow-path", tmp_path / "allowed").code == 7


def test_a_home_directory_is_found(tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    write_model(tmp_path / "home" / "model")
    path = tmp_path / "toy.yaml"
    path.write_text("model: {folder: ~/model}\n" + STEPS)
    assert cli("check", path).code == 0
