"""What a stage of this folder does besides its work: every way in which a stage can go wrong."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Literal

Act = Literal[
    "nothing", "raise", "hang", "segfault", "kill", "half", "memory", "fill", "full", "talk", "spawn", "tell", "wait",
    "exit", "facts", "link", "steer",
]  # fmt: skip


def act(what: Act, to: Path | None, out: Path) -> None:
    """Do it; `to` is a file that some of them write (pids, the environment) or wait for."""
    match what:
        case "raise":
            print("about to raise")
            raise ValueError("two\nlines of trouble")
        case "hang":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            _tell_pids(to)
            time.sleep(600)
        case "segfault":
            print("about to read address 0", flush=True)
            ctypes.string_at(0)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "half":
            (out / "half.bin").write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
        case "memory":
            held = bytearray(200 << 20)
            held[::4096] = b"x" * len(held[::4096])
            _tell_pids(to)
            time.sleep(1)
            os.kill(os.getpid(), signal.SIGKILL)
        case "fill":
            with (out / "large.bin").open("wb") as file:
                for _ in range(64):
                    file.write(bytes(1 << 20))
        case "full":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(out / "large.bin"))
        case "talk":
            for number in range(20_000):
                print("line", number, "\x1b[31mred\x1b[0m")
            os.write(1, b"\xff\xfe not UTF-8\n")
        case "spawn":
            stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
            _tell_pids(to, subprocess.Popen([sys.executable, "-S", "-c", stubborn]).pid)
            time.sleep(600)
        case "tell":
            print(json.dumps(dict(os.environ)))
            if to is not None:
                to.write_text(json.dumps(dict(os.environ)), encoding="utf-8")
        case "wait":
            _tell_pids(to)
            while to is not None and to.exists():
                time.sleep(0.02)
        case "steer":
            print("\x1b[31mred\x1b[0m and \x1b]0;title\x07[owned] \x9b2J", "a tab\tstays", flush=True)
            raise ValueError("\x1b[2Jgone")
        case "exit":
            os._exit(3)
        case "link":
            (out / "link").symlink_to(out / "marker.txt")


def _tell_pids(to: Path | None, *more: int) -> None:
    if to is not None:
        fresh = to.with_name(to.name + ".part")
        fresh.write_text(json.dumps([os.getpid(), *more]), encoding="utf-8")
        fresh.replace(to)
