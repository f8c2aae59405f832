"""Recipes that must pass and recipes that must fail, as files, through the real command."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from conftest import Cli

from cpu_pipeline.recipe.document import MAX_ALIASES, MAX_BYTES, MAX_DEPTH, MAX_NODES

EXAMPLES = Path(__file__).parents[1] / "examples"
VALID = sorted((EXAMPLES / "valid").glob("*.yaml"))
INVALID = sorted((EXAMPLES / "invalid").glob("*.yaml"))
GOOD = "model: {folder: model}\ntask: question-answering\nstages:\n  - {id: float, use: export.onnx}\n"


def expected(path: Path) -> tuple[list[str], int]:
    """Read the `# error:` and `# exit:` lines at the top of an invalid example."""
    said = re.findall(r"^# (error|exit): (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return [text for key, text in said if key == "error"], int(dict(said)["exit"])


def check(lines: list[str], path: Path) -> None:
    """Compare each line of an error with the example's, in order; long lists of what there is may be left out."""
    errors, _ = expected(path)
    assert len(lines) == len(errors), lines
    for line, error in zip(lines, errors, strict=True):
        shown = line.replace(f"{path.parent}/", "").replace(f"{EXAMPLES}/", "")
        assert shown == f"{path.name}:{error}" or shown.startswith((f"{path.name}:{error}; ", f"{path.name}:{error}, "))


@pytest.mark.parametrize("path", VALID, ids=lambda p: p.stem)
def test_accepts(path: Path, cli: Cli) -> None:
    assert cli("check", "--recipe-only", path).code == 0


@pytest.mark.parametrize("path", INVALID, ids=lambda p: p.stem)
def test_refuses(path: Path, cli: Cli) -> None:
    said = cli("check", "--recipe-only", path)
    assert said.code == expected(path)[1]
    kind, _, text = said.err.partition(": ")
    assert kind == "error"
    assert said.out == "" and "Traceback" not in said.err
    check(text.splitlines(), path)


def test_checks_all_at_once_as_a_process_of_its_own(command: Cli) -> None:
    said = command("check", "--recipe-only", "--json", *VALID, *INVALID)
    assert said.code == 7
    assert said.err == ""
    found: dict[str, dict[str, Any]] = {one["file"]: one for one in said.json}
    assert [found[str(path)]["exit_code"] for path in VALID] == [0] * len(VALID)
    for path in INVALID:
        assert found[str(path)]["exit_code"] == expected(path)[1]
        check(found[str(path)]["says"], path)


def test_every_error_says_where(command: Cli) -> None:
    for path in INVALID:
        errors, code = expected(path)
        assert code in (2, 7) and errors
        assert all(re.match(r"\d+:\d+: .{10,}", error) for error in errors), path.name


def laughs(levels: int) -> str:
    rows = ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    rows += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 7)}]" for i in range(1, levels)]
    return "\n".join(rows) + "\n"


MADE = {
    "alias bomb": (laughs(9).encode(), f"more than {MAX_NODES} values, aliases counted in full"),
    "aliases of one level": (
        b"a: &a [" + b"x, " * 3_000 + b"x]\nb: [" + b"*a, " * 63 + b"*a, " + b"x, " * 10_000 + b"x]\n",
        f"more than {MAX_NODES} values, aliases counted in full",
    ),
    "over 1 MiB": (GOOD.encode() + b"# " + b"x" * MAX_BYTES, f"over {MAX_BYTES} bytes"),
    "over 200,000 nodes": (b"a: [" + b"1, " * MAX_NODES + b"1]\n", f"more than {MAX_NODES} values"),
    "65 aliases": (b"a: &a 1\nb: [" + b"*a, " * MAX_ALIASES + b"*a]\n", f"more than {MAX_ALIASES} aliases"),
    "deeper than 64": (b"a: " + b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), f"nested deeper than {MAX_DEPTH}"),
    "deep mappings": (b"{a: " * (MAX_DEPTH + 2) + b"1" + b"}" * (MAX_DEPTH + 2), f"nested deeper than {MAX_DEPTH}"),
    "very deep": (b"a: " + b"[" * 200_000, f"nested deeper than {MAX_DEPTH}"),
    "deep keys": (b"? " * 5_000 + b"a\n", ""),
    "NUL": (GOOD.encode() + b"about: a\0b\n", ":5:1: holds a NUL character"),
    "UTF-16": (GOOD.encode("utf-16"), ":1:1: not UTF-8 (this looks like UTF-16); save it as UTF-8"),
    "UTF-16 without a mark": (GOOD.encode("utf-16-le"), ":1:1: holds a NUL character"),
    "latin-1": (GOOD.encode() + "about: é\n".encode("latin-1"), ":5:1: not UTF-8; save it as UTF-8"),
    "control character": (GOOD.encode() + b'about: "\x07"\n', ":1:1: "),
}


@pytest.mark.parametrize("name", MADE)
def test_refuses_made(name: str, cli: Cli, tmp_path: Path) -> None:
    data, says = MADE[name]
    path = tmp_path / "made.yaml"
    path.write_bytes(data)
    said = cli("check", "--recipe-only", path)
    assert said.code == 2
    assert says in said.err and "Traceback" not in said.err
    assert said.err.startswith(f"error: {path}:") and len(said.err.splitlines()) == 1


def test_accepts_what_is_just_below_the_caps(tmp_path: Path, cli: Cli) -> None:
    path = tmp_path / "made.yaml"
    aliases = ", ".join(["*a"] * MAX_ALIASES)
    path.write_text(GOOD + f"  - {{id: int8, use: quantize.onnx, with: {{skip_nodes: [&a x, {aliases}]}}}}\n")
    assert cli("check", "--recipe-only", path).code == 0
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.encode() + b"# " + b"x" * (MAX_BYTES - len(GOOD) - 5))
    assert cli("check", "--recipe-only", path).code == 0


def test_refuses_a_symlink_that_leads_out(tmp_path: Path, cli: Cli) -> None:
    home = tmp_path / "recipes"
    home.mkdir()
    (tmp_path / "elsewhere").mkdir()
    (home / "model").symlink_to(tmp_path / "elsewhere")
    (home / "toy.yaml").write_text(GOOD)
    said = cli("check", "--recipe-only", home / "toy.yaml")
    assert said.code == 7
    assert "toy.yaml:1:9: model.folder: `model` leads out of the recipe's folder" in said.err
    (home / "model").unlink()
    (home / "inside").mkdir()
    (home / "model").symlink_to(home / "inside")
    assert cli("check", "--recipe-only", home / "toy.yaml").code == 0


def test_says_which_file_is_missing(tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "roberta.yaml").write_text(GOOD)
    said = cli("plan", tmp_path / "robert.yaml")
    assert said.code == 2
    assert f"{tmp_path / 'robert.yaml'}: no such file (did you mean `roberta.yaml`?)" in said.err
    said = cli("check", "--recipe-only", tmp_path / "robert.yaml", tmp_path / "roberta.yaml")
    assert said.code == 2 and f"ok  {tmp_path / 'roberta.yaml'}" in said.out
    said = cli("check", "--recipe-only", tmp_path)
    assert said.code == 2 and "Is a directory" in said.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--set", "int8.per_chanel=true"], "--set int8.per_chanel: unknown key `per_chanel` (did you mean `per_chan"),
        (["--set", "int4.per_channel=true"], "--set int4: no step is called `int4` (did you mean `int8`?)"),
        (["--set", "int8.per_channel=maybe"], '--set int8.per_channel: must be true or false, is "maybe"'),
        (["--set", "accuracy.max_drop=.nan"], ".nan is not a number that anything can be compared with"),
        (["--set", "int8.per_channel"], "--set int8.per_channel: write it as STEP.OPTION=VALUE"),
        (["--set", "per_channel=true"], "--set per_channel=true: write it as STEP.OPTION=VALUE"),
        (["--set", "int8.skip_nodes=[a"], "--set int8.skip_nodes:2:1: while parsing a flow sequence"),
        (["--until", "flaot"], "--until flaot: no step is called `flaot` (did you mean `float`?)"),
    ],
)
def test_refuses_options_of_the_command(arguments: list[str], says: str, cli: Cli) -> None:
    said = cli("plan", EXAMPLES / "valid" / "pipeline.yaml", *arguments)
    assert said.code == 2
    assert says in said.err and "Traceback" not in said.err
