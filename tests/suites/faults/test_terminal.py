"""B13: pipes, closed streams, NO_COLOR, and output of stages that would steer a terminal."""

from __future__ import annotations

import os
import pty
import shlex
import subprocess

import pytest
from project import CommandResult, ProjectFixture, ended


def shell(bench: ProjectFixture, script: str) -> CommandResult:
    """Run a line of bash in which `$RUN` is the whole command."""
    return ended(
        subprocess.Popen(
            ["bash", "-o", "pipefail", "-c", script], cwd=bench.home, env=bench.environment(), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
    )  # fmt: skip


def run_line(bench: ProjectFixture, *steps: dict[str, object]) -> str:
    recipe = bench.recipe(*(steps or ({"id": "one"},)))
    return shlex.join(bench.command(*bench.run_arguments(recipe)))


def test_pipes_get_plain_lines(bench: ProjectFixture) -> None:
    """Without a terminal there are no escape codes, though a stage that fails has printed some."""
    said = bench.run(bench.recipe({"id": "one"})).expect(0, "building  one  because never built\n")
    assert "\x1b" not in said.err + said.out
    failed = bench.run(bench.recipe({"id": "two", "act": "talk"}, {"id": "end", "act": "raise", "text": "end"})).expect(
        1
    )
    assert "\x1b" not in failed.err + failed.out


def test_escape_codes_of_stages_are_left_out(bench: ProjectFixture) -> None:
    """The last lines of a log that is shown cannot colour, clear or retitle a terminal."""
    recipe = bench.recipe({"id": "one", "act": "steer"})
    said = bench.run(recipe).expect(1, "red and [owned]", "a tab\tstays")
    assert not [c for c in said.err if ord(c) < 32 and c not in "\n\t"]
    assert "\x9b" not in said.err


@pytest.mark.parametrize("option", ["", " --json"])
def test_reader_of_results_leaves(bench: ProjectFixture, option: str) -> None:
    """`| head -1`, and a reader that reads nothing: no traceback; what was asked for is done."""
    run = run_line(bench)
    shell(bench, f"{run}{option} | head -1").expect(0)
    shell(bench, f"{run}{option} | true").expect(0)
    assert (bench.out / "small" / "latest").is_dir()


def test_reader_of_much_leaves(bench: ProjectFixture) -> None:
    """The schema is longer than any pipe's buffer of ours."""
    said = shell(bench, f"{shlex.join(bench.command('schema'))} | true").expect(0)
    assert said.err == ""


def test_reader_of_progress_leaves(bench: ProjectFixture) -> None:
    """`2>&1 | head -1` stops no build."""
    said = shell(bench, f"{run_line(bench)} 2>&1 | head -1").expect(0)
    assert len(said.out.splitlines()) == 1
    assert (bench.out / "small" / "latest").is_dir(), "the build ended with its reader"


def test_failure_keeps_its_code_without_a_reader(bench: ProjectFixture) -> None:
    """A failed build says so to a script, though nobody reads what it says."""
    run = run_line(bench, {"id": "one", "act": "full"})
    shell(bench, f"{run} --json 2>&1 | true").expect(75)
    shell(bench, f"{run} --json | true").expect(75, "error: ")


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams(bench: ProjectFixture, closed: str) -> None:
    """Streams that are closed from the start: it works, and no file is opened in their place."""
    shell(bench, f"{run_line(bench)} {closed}").expect(0)
    assert (bench.out / "small" / "latest").is_dir()
    assert bench.verify().code == 0
    shell(bench, f"{run_line(bench, {'id': 'bad', 'act': 'raise', 'text': 'bad'})} {closed}").expect(1)


def on_terminal(bench: ProjectFixture, **env: str) -> str:
    """Run on a pseudo-terminal; return what it showed."""
    parent, child = pty.openpty()
    command = subprocess.Popen(
        bench.command(*bench.run_arguments(bench.recipe({"id": "one", "seconds": 0.3}))), cwd=bench.home,
        env=bench.environment(TERM="xterm-256color", COLUMNS="80", **env), stdout=child, stderr=child, stdin=child,
    )  # fmt: skip
    os.close(child)
    shown = b""
    while True:
        try:
            piece = os.read(parent, 4096)
        except OSError:  # Linux says so when the last writer is gone
            break
        if not piece:
            break
        shown += piece
    os.close(parent)
    assert command.wait(30) == 0
    return shown.decode("utf-8", "replace")


def test_no_color(bench: ProjectFixture) -> None:
    """On a terminal there is a live line; with NO_COLOR it has no colours, and TERM=dumb has none either."""
    colours = ("\x1b[3", "\x1b[9", "\x1b[4", "\x1b[1;3")
    shown = on_terminal(bench)
    assert any(code in shown for code in colours), "no colour even without NO_COLOR: this test looks for nothing"
    assert "built     one" in shown
    bench.store = bench.home / "second"
    shown = on_terminal(bench, NO_COLOR="1")
    assert not [code for code in colours if code in shown]
    assert "built     one" in shown


@pytest.mark.parametrize(
    "arguments",
    ["--help", "--version", "stages", "tasks", "backends", "pipelines", "schema", "doctor", "plan small.yaml",
     "history", "plan small.yaml --json", "status small.yaml --json", "check small.yaml", "check absent.yaml --json",
     "env list", "run small.yaml", "run small.yaml --json", "store stat", "history --json"],
)  # fmt: skip
def test_a_disk_that_takes_no_output(bench: ProjectFixture, arguments: str) -> None:
    """F22: standard output on a full disk is 75 with a message; standard error there changes nothing."""
    bench.env["CPU_PIPELINE_STORE"] = str(bench.store)
    recipe = bench.recipe({"id": "one"})
    if arguments.startswith("history"):
        bench.built(recipe)
    wanted = bench.call(*arguments.split())
    assert wanted.out or wanted.code == 2, "a command that prints nothing needs no disk"
    with open("/dev/full", "w") as full:  # noqa: PTH123 - a device
        done = subprocess.run(
            bench.command(*arguments.split()), cwd=bench.home, env=bench.environment(), text=True, check=False,
            stdout=full, stderr=subprocess.PIPE,
        )  # fmt: skip
        if wanted.code != 2:
            assert done.returncode == 75 and "standard output: No space left on device" in done.stderr, done.stderr
        assert done.returncode in (2, 75) and "Traceback" not in done.stderr and "Exception ignored" not in done.stderr
        wanted = bench.call(*arguments.split())
        quiet = subprocess.run(
            bench.command(*arguments.split()), cwd=bench.home, env=bench.environment(), check=False,
            stdout=subprocess.DEVNULL, stderr=full,
        )  # fmt: skip
        assert quiet.returncode == wanted.code
