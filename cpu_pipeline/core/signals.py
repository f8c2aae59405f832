"""Signals that end a command: Ctrl-C, SIGTERM and SIGHUP become an exception, and the exit code of the command."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from cpu_pipeline.core.errors import Termination

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

NAMES = ("SIGINT", "SIGTERM", "SIGHUP")
ONE = 1.0
"""Seconds in which repeated signals count as one: `timeout` and terminals send theirs to a whole group as well."""
_SHOW_CURSOR = b"\x1b[?25h"


class _Received:
    """The first signal that came, and when."""

    number: int | None = None
    when = 0.0


def install() -> None:
    """Handle the signals from now on; one that is ignored, as `nohup` does with SIGHUP, stays ignored."""
    _Received.number = None
    for name in NAMES:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)
    if sys.unraisablehook is not _deliver_again:
        sys.unraisablehook = _deliver_again


def uninstall() -> None:
    """Let the signals end the process by themselves: what was to be done is done."""
    for name in NAMES:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is _interrupt:
            signal.signal(number, signal.SIG_DFL)


def exit_code() -> int | None:
    """Return the exit code of a command that a signal has ended, as shells count: 128 and its number; else None."""
    return None if _Received.number is None else 128 + _Received.number


def _interrupt(number: int, _: FrameType | None) -> None:
    """Raise for the first signal; end at once for a later one: whoever sends two does not want to wait."""
    now = time.monotonic()
    if _Received.number is None:
        _Received.number, _Received.when = number, now
        raise KeyboardInterrupt if number == signal.SIGINT else Termination(number)
    if now - _Received.when > ONE:
        _end(128 + number)


def _end(code: int) -> NoReturn:
    """End without a word: children die with their parent, and the store is whole at every moment."""
    if os.isatty(2):
        os.write(2, _SHOW_CURSOR)
    os._exit(code)


def _deliver_again(about: UnraisableHookArgs, /) -> None:
    """Send a signal again whose exception was raised where none can leave, such as in `__del__`."""
    if not issubclass(about.exc_type, KeyboardInterrupt) or (number := _Received.number) is None:
        sys.__unraisablehook__(about)
        return
    _Received.number = None
    threading.Timer(0.01, os.kill, (os.getpid(), number)).start()
