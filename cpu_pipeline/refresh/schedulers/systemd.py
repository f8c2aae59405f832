"""systemd: a service and a timer per job, and another pair that looks every day whether anything is too old."""

from __future__ import annotations

import getpass
import re
from collections.abc import Sequence

from cpu_pipeline.refresh.schedule import Order, ScheduledJob
from cpu_pipeline.refresh.schedulers._yaml import comment

HEAD = """\
Keeps artifacts fresh. Made by `cpu-pipeline schedule --for systemd`: make it again when a schedule changes.
Put the units into /etc/systemd/system/, then: systemctl daemon-reload && systemctl enable --now
{timers}
/etc/{name}.env may hold HF_TOKEN=... and credentials of a remote store, readable by root alone."""
HARDENING = """\
NoNewPrivileges=yes
CapabilityBoundingSet=
ProtectSystem=full
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
PrivateDevices=yes
RestrictSUIDSGID=yes
RestrictNamespaces=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK
LockPersonality=yes
SystemCallArchitectures=native
UMask=0027
"""
WITHOUT = """\
Not PrivateTmp: builds of one user share a lock in the folder for temporary files, so that measurements run alone.
Not MemoryDenyWriteExecute: torch, oneDNN and OpenVINO write the code that they run."""


def files(order: Order) -> dict[str, str]:
    """Return the units of an order, services before their timers."""
    made: dict[str, str] = {}
    for job in order.jobs:
        head = HEAD.format(timers=f"{job.name}.timer {job.name}-status.timer", name=job.name)
        made[f"{job.name}.service"] = comment(head) + _service(order, job)
        made[f"{job.name}.timer"] = _timer(job)
        made[f"{job.name}-status.service"] = _status(order, job)
        made[f"{job.name}-status.timer"] = _status_timer(job)
    return made


def _service(order: Order, job: ScheduledJob) -> str:
    commands = order.on()
    pull, push = commands.pull(job), commands.push(job)
    lines = [
        "[Unit]",
        f"Description=Refresh {_escape(', '.join(job.recipes))}",
        "Wants=network-online.target",
        "After=network-online.target",
        "",
        "[Service]",
        "Type=oneshot",
        *_place(order, job),
        *([f"ExecStartPre=-{_words(pull)}"] if pull else []),
        f"ExecStart={_words(commands.refresh(job))}",
    ]
    if push:
        lines += ["# after a failed gate too: what passed is pushed", f"ExecStopPost={_words(push)}"]
        lines += ["TimeoutStopSec=1h"]
    lines += ["Nice=10", "KillMode=mixed", ""]
    return "\n".join(lines) + comment(WITHOUT) + HARDENING


def _timer(job: ScheduledJob) -> str:
    why = comment(job.moved) if job.moved else ""
    calendars = "".join(f"OnCalendar={calendar}\n" for calendar in job.cron.calendars())
    return (
        f"[Unit]\nDescription=When to refresh: {job.cron.text}\n\n[Timer]\n{why}"
        f"{comment('UTC, whatever the zone of this machine')}{calendars}"
        "Persistent=true\nRandomizedDelaySec=120\nAccuracySec=1s\n\n[Install]\nWantedBy=timers.target\n"
    )


def _status(order: Order, job: ScheduledJob) -> str:
    lines = [
        comment("A dead man's switch: fails when a version is too old or failing; add OnFailure= for what is to tell.")
        + "[Unit]",
        f"Description=Is everything fresh: {_escape(', '.join(job.recipes))}",
        "",
        "[Service]",
        "Type=oneshot",
        *_place(order, job),
        f"ExecStart={_words(order.on().status(job))}",
        "",
    ]
    return "\n".join(lines) + HARDENING


def _status_timer(job: ScheduledJob) -> str:
    return (
        "[Unit]\nDescription=When to look whether everything is fresh\n\n[Timer]\n"
        f"OnCalendar={job.watch.calendars()[0]}\nPersistent=true\n\n[Install]\nWantedBy=timers.target\n"
    )


def _place(order: Order, job: ScheduledJob) -> list[str]:
    lines = [f"User={_escape(getpass.getuser())}", f"WorkingDirectory={_escape(str(order.project))}"]
    if order.store is not None:
        lines.append(f"Environment={_word(f'CPU_PIPELINE_STORE={order.store}', variables=False)}")
    return [*lines, f"EnvironmentFile=-/etc/{job.name}.env"]


def _words(words: Sequence[str]) -> str:
    return " ".join([_word(words[0], variables=False), *(_word(word) for word in words[1:])])


def _word(word: str, variables: bool = True) -> str:
    """Write one word of a command line so that systemd expands and splits nothing in it.

    The program's own path knows no variables, so its `$` stays single.
    """
    text = _escape(word)
    if variables:
        text = text.replace("$", "$$")
    if re.fullmatch(r"[\w@%+=:,./$-]+", text, re.ASCII):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _escape(text: str) -> str:
    """Keep `%` from being read as a specifier."""
    return text.replace("%", "%%")
