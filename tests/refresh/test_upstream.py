"""A recipe is moved to where its branches stand, and not a word of it else."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpu_pipeline import api
from cpu_pipeline.core import hub_api
from cpu_pipeline.core.errors import RecipeError, TryAgain
from cpu_pipeline.recipe.reader import load_recipe
from cpu_pipeline.refresh import upstream

OLD, NEW, DATA = "a" * 40, "b" * 40, "c" * 40
RECIPE = f"""\
# A comment that stays: {OLD}
about: "Sämtliches bleibt, auch {OLD}."
model: {{hub: own/model, revision: "{OLD}"}}   # main
task: text-classification
data:
  validation:
    hub: own/rows
    split: test
    "revision" :   '{OLD}'
stages:
  - {{id: onnx, use: export.onnx}}
refresh: {{follow: main}}
"""


@pytest.fixture
def heads(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, str], str]:
    """Say where branches stand; asking twice for one is an error."""
    stand = {("own/model", "model"): NEW, ("own/rows", "data"): DATA}
    asked: list[tuple[str, str]] = []

    def resolve(repo: str, want: str, branch: str) -> str:
        assert branch == "main"
        assert (repo, want) not in asked, "asked twice"
        asked.append((repo, want))
        return stand[repo, want]

    monkeypatch.setattr(hub_api, "resolve", resolve)
    return stand


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


def test_moves_every_revision_and_leaves_every_other_byte(tmp_path: Path, heads: dict[tuple[str, str], str]) -> None:
    recipe = load_recipe(write(tmp_path / "r.yaml", RECIPE))
    found = upstream.moves(recipe, {"model", "data"})
    assert [(m.keys, m.kind, m.repo, m.old, m.new) for m in found] == [
        (("model", "revision"), "model", "own/model", OLD, NEW),
        (("data", "validation", "revision"), "data", "own/rows", OLD, DATA),
    ]
    assert found[0].says == f"model: main of own/model advanced: {OLD[:12]} → {NEW[:12]}"
    after, text = upstream.moved(recipe, found)
    lines = RECIPE.splitlines(keepends=True)
    lines[2] = lines[2].replace(OLD, NEW)
    lines[8] = lines[8].replace(OLD, DATA)
    assert text == "".join(lines)
    assert after.value.model["revision"] == NEW
    assert after.value.data["validation"]["revision"] == DATA
    assert load_recipe(tmp_path / "r.yaml").value.model["revision"] == OLD, "nothing is written yet"


def test_every_source_of_the_hub_is_followed_and_no_file(tmp_path: Path, heads: dict[tuple[str, str], str]) -> None:
    more = f'tokenizer: {{hub: own/words, revision: "{OLD}"}}\nteacher: {{hub: own/large, revision: "{OLD}"}}\n'
    text = RECIPE.replace("stages:", f"{more}stages:").replace(
        "  validation:", "  training: {file: x.jsonl}\n  validation:"
    )
    heads["own/words", "model"] = heads["own/large", "model"] = NEW
    recipe = load_recipe(write(tmp_path / "r.yaml", text))
    found = upstream.moves(recipe, {"model", "data"})
    assert {(m.keys[:-1], m.kind, m.repo) for m in found} == {
        (("model",), "model", "own/model"), (("tokenizer",), "model", "own/words"),
        (("teacher",), "model", "own/large"), (("data", "validation"), "data", "own/rows"),
    }  # fmt: skip
    after, moved = upstream.moved(recipe, found)
    assert moved.count(NEW) == 3 and after.value.tokenizer == {"hub": "own/words", "revision": NEW}


def test_asks_for_what_it_reacts_to_alone(tmp_path: Path, heads: dict[tuple[str, str], str]) -> None:
    recipe = load_recipe(write(tmp_path / "r.yaml", RECIPE))
    assert [move.kind for move in upstream.moves(recipe, {"data", "toolchain"})] == ["data"]


def test_what_stands_where_its_branch_does_is_not_moved(tmp_path: Path, heads: dict[tuple[str, str], str]) -> None:
    heads["own/model", "model"] = heads["own/rows", "data"] = OLD
    assert upstream.moves(load_recipe(write(tmp_path / "r.yaml", RECIPE)), {"model", "data"}) == []


def test_a_recipe_that_follows_nothing_asks_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_api, "resolve", None)
    text = RECIPE.replace("refresh: {follow: main}\n", "refresh: {keep: 3}\n")
    assert upstream.moves(load_recipe(write(tmp_path / "r.yaml", text)), {"model", "data"}) == []


@given(end=st.sampled_from(["\n", "\r\n"]), mark=st.booleans(), quote=st.sampled_from(["'", '"']))
def test_line_ends_and_byte_order_marks_stay(
    tmp_path_factory: pytest.TempPathFactory, end: str, mark: bool, quote: str
) -> None:
    text = ("\ufeff" if mark else "") + RECIPE.replace(f'"{OLD}"', f"{quote}{OLD}{quote}").replace("\n", end)
    recipe = load_recipe(write(tmp_path_factory.mktemp("follow") / "r.yaml", text))
    move = upstream.Move(("model", "revision"), "model", "own/model", "main", OLD, NEW)
    _, moved = upstream.moved(recipe, [move])
    assert moved == text.replace(f"{quote}{OLD}{quote}}}", f"{quote}{NEW}{quote}}}", 1)


def test_the_first_line_behind_a_byte_order_mark(tmp_path: Path) -> None:
    text = f'\ufeffmodel: {{hub: own/model, revision: "{OLD}"}}\ntask: text-classification\npipeline: onnx-int8\n'
    recipe = load_recipe(write(tmp_path / "r.yaml", text))
    _, moved = upstream.moved(recipe, [upstream.Move(("model", "revision"), "model", "own/model", "main", OLD, NEW)])
    assert moved == text.replace(OLD, NEW)


ALIASED = f"""\
model: {{hub: own/model, revision: "{NEW}"}}
task: text-classification
data:
  calibration: &rows {{hub: own/rows, revision: "{OLD}", split: train}}
  validation: *rows
stages: [{{id: onnx, use: export.onnx}}]
"""


def test_an_alias_moves_with_what_it_stands_for(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path / "r.yaml", ALIASED))
    moves = [
        upstream.Move(("data", role, "revision"), "data", "own/rows", "main", OLD, DATA)
        for role in ("calibration", "validation")
    ]
    after, text = upstream.moved(recipe, moves)
    assert text == ALIASED.replace(OLD, DATA)
    assert after.value.data["validation"]["revision"] == DATA


def test_a_revision_that_is_an_alias_is_left_to_people(tmp_path: Path) -> None:
    text = (
        ALIASED.replace(NEW, OLD)
        .replace(f'"{OLD}"', f'&commit "{OLD}"', 1)
        .replace(f'revision: "{OLD}"', "revision: *commit")
    )
    recipe = load_recipe(write(tmp_path / "r.yaml", text))
    move = upstream.Move(("data", "calibration", "revision"), "data", "own/rows", "main", OLD, DATA)
    with pytest.raises(RecipeError, match=r"r\.yaml:4:\d+: data\.calibration\.revision: .*write it there by hand"):
        upstream.moved(recipe, [move])


def test_a_recipe_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "r.yaml", RECIPE)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch, pytest.raises(TryAgain):
        patch.setattr(os, "fsync", full)
        upstream.write(path, "about: new\n")
    assert path.read_text() == RECIPE


def test_a_linked_recipe_stays_a_link(tmp_path: Path) -> None:
    real = write(tmp_path / "real.yaml", RECIPE)
    link = tmp_path / "link.yaml"
    link.symlink_to(real)
    upstream.write(link, "about: new\n")
    assert link.is_symlink()
    assert real.read_text() == "about: new\n"
    assert stat.S_ISREG(real.lstat().st_mode)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link.yaml", "real.yaml"]


MOVES = (
    upstream.Move(("model", "revision"), "model", "own/model", "main", OLD, NEW),
    upstream.Move(("data", "validation", "revision"), "data", "own/rows", "main", OLD, DATA),
)


def test_what_somebody_wrote_meanwhile_stays(tmp_path: Path) -> None:
    text = RECIPE.replace("# A comment", "# Two lines\n# of a comment").replace("split: test", "split: train")
    path = write(tmp_path / "r.yaml", text)
    upstream.rewrite(path, MOVES)
    after = load_recipe(path).value
    assert (after.model["revision"], after.data["validation"]["revision"]) == (NEW, DATA)
    assert path.read_text() == text.replace(f'"{OLD}"}}', f'"{NEW}"}}').replace(f"'{OLD}'", f"'{DATA}'")
    upstream.rewrite(path, MOVES)
    assert load_recipe(path).value == after, "what somebody else has moved there is not moved again"


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (
            f'"{OLD}"}}',
            f'"{"d" * 40}"}}',
            r"r\.yaml:3:\d+: model\.revision: `main` of own/model advanced, and this was",
        ),
        ("hub: own/rows", "hub: own/others", r"data\.validation\.revision: `main` of own/rows advanced, and this was"),
        ("refresh: {follow: main}", "refresh: {follow: next}", "model.revision: `main` of own/model advanced"),
        ("refresh: {follow: main}\n", "", "model.revision: `main` of own/model advanced"),
        (f'model: {{hub: own/model, revision: "{OLD}"}}', "model: {folder: model}", "and this was changed"),
        ("stages:", "stages: [", r"r\.yaml:1\d:"),
    ],
    ids=["revision", "repository", "branch", "follows nothing", "folder", "half saved"],
)
def test_what_names_something_else_by_now_is_left_alone(tmp_path: Path, old: str, new: str, says: str) -> None:
    text = RECIPE.replace(old, new)
    assert text != RECIPE
    path = write(tmp_path / "r.yaml", text)
    with pytest.raises(RecipeError, match=says):
        upstream.rewrite(path, MOVES)
    assert path.read_text() == text and len(list(tmp_path.iterdir())) == 1


def test_an_upgrade_keeps_what_was_written_while_it_built(tmp_path: Path, heads: dict[tuple[str, str], str]) -> None:
    path = write(tmp_path / "r.yaml", RECIPE)
    upgrade = api.upgrade(api.load_recipe(path))
    assert upgrade is not None and len(upgrade.changes) == 2 and upgrade.recipe.value.model["revision"] == NEW
    edited = RECIPE.replace("about: ", "# Mine.\nabout: ")
    write(path, edited)
    upgrade.write()
    assert path.read_text() == edited.replace(f'"{OLD}"}}', f'"{NEW}"}}').replace(f"'{OLD}'", f"'{DATA}'")
