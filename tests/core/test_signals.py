"""A signal at any moment: its own exit code, no traceback, and no word of a bug."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import models
import pytest
from conftest import ROOT
from project import write_model

BEGIN = """\
import os
from cpu_pipeline.core import signals
signals.install()
os.write(1, b".")
from cpu_pipeline.__main__ import main
main()
"""
"""The command, which says when it is about to begin: Python's own start is not ours."""
WAIT = """\
import os, sys, time

class Waits:
    def find_spec(self, name, path=None, target=None):
        if name == "cpu_pipeline.cli":
            os.write(1, b".")
            time.sleep(60)

sys.meta_path.insert(0, Waits())
from cpu_pipeline.__main__ import main
main()
"""
"""The command, which waits where it begins to import, so that a signal meets it there on any machine."""
RECIPE = """\
model: {folder: model}
task: text-classification
data: {validation: {file: validation.jsonl}}
stages:
  - {id: float, use: export.onnx}
"""
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    write_model(tmp_path / "model")
    models.write_rows(tmp_path / "validation.jsonl", "text-classification", 12, seed=2)
    (tmp_path / "toy.yaml").write_text(RECIPE)
    return tmp_path


def interrupted(
    home: Path, arguments: Sequence[str], number: int, after: float, times: int = 1, program: str = BEGIN
) -> tuple[int, str]:
    """Begin a command, send it a signal after some seconds, and again until it ends; return its code and stderr."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "CPU_PIPELINE_STORE": str(home / "store")}
    command = subprocess.Popen(
        [sys.executable, "-c", program, *arguments], cwd=home, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert command.stdout is not None
    assert command.stdout.read(1) == b"."
    time.sleep(after)
    for _ in range(times):
        command.send_signal(number)
        time.sleep(0.002)
    _, err = command.communicate(timeout=60)
    return command.returncode, err.decode()


@pytest.mark.parametrize("arguments", [["run", "toy.yaml", "--until", "model"], ["status", "toy.yaml"], ["--help"]])
def test_a_signal_at_any_moment(arguments: list[str], home: Path) -> None:
    chance = random.Random(str(arguments))
    # Which moments are met depends on the machine's speed; the next test meets one for certain.
    for turn in range(5):
        number = list(CODES)[turn % 3]
        code, err = interrupted(home, arguments, number, 0.02 + chance.random() * 0.08 * (turn + 1), times=1 + turn % 2)
        assert code in (CODES[number], -number, 0, 5), (code, err)
        assert "Traceback" not in err and "a bug" not in err and "Exception ignored" not in err, err


@pytest.mark.parametrize("number", CODES)
def test_a_signal_while_it_begins_to_import(number: int, home: Path) -> None:
    code, err = interrupted(home, ["--help"], number, 0.0, program=WAIT)
    assert code == CODES[signal.Signals(number)]
    assert "Traceback" not in err and "a bug" not in err and "Exception ignored" not in err, err


AT_IMPORT = """\
import os, runpy, sys

number, at, name = int(sys.argv.pop(1)), int(sys.argv.pop(1)), "cpu_pipeline.__main__"
seen = 0

def heard(event, given):
    global seen
    if event == "import" and given[0].startswith("cpu_pipeline"):
        seen += 1
        if seen == at:
            os.kill(os.getpid(), number)

runpy.run_module  # loaded before it is counted
sys.addaudithook(heard)
runpy.run_module(name, run_name="__main__", alter_sys=True)
"""
"""The command, which sends itself a signal at one of its imports."""


@pytest.mark.parametrize(("number", "at"), [(2, 2), (2, 4), (15, 3), (2, 8), (15, 20), (1, 15)])
def test_a_signal_at_an_import(number: int, at: int) -> None:
    """At the first ones nothing is handled yet: the signal ends the process itself, which a shell reports alike."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", AT_IMPORT, str(number), str(at), "--version"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode in (128 + number, -number) and done.stderr == "", (done.returncode, done.stderr)


def test_a_signal_that_is_ignored_stays_so(home: Path) -> None:
    """As `nohup` has it."""
    script = f"""\
import signal, os
signal.signal(signal.SIGHUP, signal.SIG_IGN)
{BEGIN}"""
    done = subprocess.run(
        [sys.executable, "-c", script.replace("main()", "os.kill(os.getpid(), signal.SIGHUP); main()"), "--version"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_signal_in_a_finalizer_is_not_lost() -> None:
    """Python drops what is raised in `__del__`: the signal is delivered once more."""
    script = """\
import os, signal, time
from cpu_pipeline.core import signals

class Odd:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)

signals.install()
try:
    Odd()
    time.sleep(5)
except KeyboardInterrupt:
    raise SystemExit(signals.exit_code())
"""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (143, "")


def test_a_later_second_signal_ends_at_once() -> None:
    script = """\
import os, signal, time
from cpu_pipeline.core import signals

signals.ONE = 0.05
signals.install()
try:
    os.kill(os.getpid(), signal.SIGTERM)
finally:
    os.kill(os.getpid(), signal.SIGTERM)  # one with the first
    time.sleep(0.1)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(5)
"""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "")
