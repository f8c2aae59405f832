"""What a build shows while it runs: a line for each event, and on a terminal one line that changes."""

from __future__ import annotations

import io
import sys

import pytest

from cpu_pipeline.cli import progress
from cpu_pipeline.cli.output import columns
from cpu_pipeline.cli.progress import Progress, clock, now_line
from cpu_pipeline.core.events import Event

EVENTS = [
    Event("model", "cached", (), 0.0, 1, 4),
    Event("int8", "building", ("never built",), 0.0, 1, 4, 200.0),
    Event("int8", "progress", ("calibration batches",), 0.0, 12, 128),
    Event("int8", "built", (), 62.34, 2, 4, 140.0),
    Event("gate", "passed", ("f1 0.89, at least 0.5 asked",)),
    Event("gate", "FAILED", ("f1 0.1, at least 0.5 asked", "rows 3")),
    Event("speed", "waiting", ("the machine is not free for measuring: pid 7 measures other/speed since 10:00:00",)),
    Event("data.validation", "built", (), 0.1, 3, 4, says="419 of 419 rows"),
    Event("data.calibration", "cached", (), 0.0, 3, 4, says="160 of 1,000 rows"),
]


def test_a_log_gets_a_line_for_each_event_and_no_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress() as tell:
        for event in EVENTS:
            tell(event)
    said = capsys.readouterr().err
    assert said.splitlines() == [
        "cached    model",
        "building  int8  because never built",
        "built     int8  62.3 s  (2 of 4, about 2:20 left)",
        "passed    gate: f1 0.89, at least 0.5 asked",
        "FAILED    gate: f1 0.1, at least 0.5 asked",
        "FAILED    gate: rows 3",
        "waiting   speed  because the machine is not free for measuring: pid 7 measures other/speed since 10:00:00",
        "built     data.validation  0.1 s  (3 of 4)  419 of 419 rows",
        "cached    data.calibration  160 of 1,000 rows",
    ]
    assert not [character for character in said if ord(character) < 32 and character != "\n"]


def test_a_log_is_not_flooded(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a thousand pieces of news it gets one line in half a minute."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with Progress() as tell:
        tell(EVENTS[1])
        for number in range(1000):
            now[0] += 0.1
            tell(Event("int8", "progress", ("rows",), 0.0, number, 1000))
    lines = capsys.readouterr().err.splitlines()
    assert lines[1].startswith("running   int8  0:30  rows ") and len(lines) == 4


def test_nothing_is_shown_when_that_is_asked(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(quiet=True) as tell:
        for event in EVENTS:
            tell(event)
    assert capsys.readouterr() == ("", "")


def test_the_line_of_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    shown = Progress()
    assert now_line(shown, 1000.0) == "planning"
    monkeypatch.setattr(shown, "_line", lambda text: None)
    for event in EVENTS[:3]:
        shown(event)
    assert now_line(shown, 1065.0) == "1 of 4  1:05, about 2:15 left  int8 calibration batches 12 of 128"
    shown(EVENTS[3])
    shown(EVENTS[6])
    assert now_line(shown, 1065.0).startswith("2 of 4  1:05  speed waits: the machine is not free")


def test_a_terminal_of_80_columns_gets_one_line_of_its_width(monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    shown = Progress()
    shown.total, shown.running = 4, {"a-step": progress._Running(0.0, 0.0, "something " * 30)}
    out = io.StringIO()
    console = Console(file=out, width=80, force_terminal=True, color_system=None)
    console.print(console.status(progress._Line(shown)).renderable)  # type: ignore[arg-type]
    [line] = out.getvalue().splitlines()
    assert len(line) == 80 and line.endswith("…")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_lines_too_and_its_cursor_back(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    with Progress() as tell:
        for event in EVENTS:
            tell(event)
    text = stream.getvalue()
    assert ("built     int8  62.3 s" in text and text.rstrip("\r\n").endswith("\x1b[?25h")) or "\x1b[?25h" in text


@pytest.mark.parametrize(("seconds", "shown"), [(0.4, "0:00"), (59.6, "1:00"), (61, "1:01"), (3725, "1:02:05")])
def test_times_are_written_for_people(seconds: float, shown: str) -> None:
    assert clock(seconds) == shown


def test_a_table_holds_nothing_that_steers_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    columns([("a\x1b[2Jb", "c\u202ed"), ("longer", "\x1b]0;title\x07e\x9b1mf\x00")])
    assert capsys.readouterr().out == "ab      c\\u202ed\nlonger  ef\n"
