"""cron: lines of a crontab; the tool locks for itself, so that two refreshes at once are no harm."""

from __future__ import annotations

import shlex

from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.refresh.schedule import REFRESH, Order, ScheduledJob
from cpu_pipeline.refresh.schedulers._yaml import comment

LONGEST = 998
"""Characters of a command in Debian's crontab; a longer one is refused."""
HEAD = """\
Keeps artifacts fresh. Made by `cpu-pipeline schedule --for cron`: make it again when a schedule changes.
Add it to a crontab with `crontab -e`, which may hold other lines.
Times are those of this machine's cron daemon. Set the daemon's zone to UTC if they are to be the same all year and
everywhere; with cronie, a line CRON_TZ=UTC above does it.
cron mails what a line prints: nothing, unless a refresh failed (the end of its log) or a version is too old.
Mail goes to the owner of the crontab, or to whom a line MAILTO=name@example.org above names.
A token for gated repositories belongs into the file that `hf auth login` writes, not here."""


def files(order: Order) -> dict[str, str]:
    """Return the crontab of an order.

    Raises:
        RecipeError: a command is longer than cron takes.
    """
    program = order.program[0].rpartition("/")[0]
    lines = [comment(HEAD), f"PATH={_value(f'{program}:/usr/local/bin:/usr/bin:/bin')}\n"]
    if order.store is not None:
        lines.append(f"CPU_PIPELINE_STORE={_value(str(order.store))}\n")
    for job in order.jobs:
        lines.append("\n")
        if job.moved:
            lines.append(comment(job.moved))
        lines.append(f"{job.cron.text} {_command(_refresh(order, job), job)}\n")
        lines.append(comment("a dead man's switch: prints, and so mails, only when something is too old or failing"))
        lines.append(f"{job.watch.text} {_command(_status(order, job), job)}\n")
    return {f"{REFRESH}.crontab": "".join(lines)}


def _refresh(order: Order, job: ScheduledJob) -> str:
    log = f"{job.name}.log"
    script = "; ".join([*order.on().script(job, check=False), 'exit "${code:-0}"'])
    return f"cd {shlex.quote(str(order.project))} && {{ ( {script} ) >>{log} 2>&1 || tail -n 20 {log}; }}"


def _status(order: Order, job: ScheduledJob) -> str:
    status = shlex.join(order.on().status(job))
    return f"cd {shlex.quote(str(order.project))} && {status} >/dev/null"


def _command(command: str, job: ScheduledJob) -> str:
    """Write a command as the sixth field: there `%` ends the line, unless it is escaped."""
    escaped = command.replace("%", r"\%")
    if len(escaped.encode()) > LONGEST:
        raise RecipeError(
            f"{job.name}: its line is {len(escaped.encode())} bytes long, and cron takes {LONGEST}; name fewer "
            "recipes, give some another minute, or use --for systemd"
        )
    return escaped


def _value(text: str) -> str:
    """Write the value of a crontab's variable: quoted, and nothing in it is expanded."""
    for quote in ('"', "'"):
        if quote not in text:
            return f"{quote}{text}{quote}"
    raise RecipeError(f"{text}: holds both kinds of quotes, which no crontab can say; rename the folder")
