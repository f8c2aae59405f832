"""Five cron fields that every scheduler reads alike: checked, moved off crowded minutes, written for systemd.

The grammar is that of POSIX crontab with steps and names, which cron, GitHub Actions and Kubernetes share; `L`, `#`,
`@daily`, `5/15` and all else that only some of them know is refused. cronsim interprets the fields, as Debian's cron
does.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise

FIELDS = ("minute", "hour", "day", "month", "weekday")
LAST = (59, 23, 31, 12, 7)
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
CROWDED = frozenset({0, 30})
"""Minutes at which everybody's jobs start: GitHub starts those late or, at worst, not at all."""

_VALUE = r"(?:\d{1,2}|[a-z]{3})"
_TERM = re.compile(rf"\*(?:/(\d{{1,2}}))?|{_VALUE}(?:-{_VALUE}(?:/(\d{{1,2}}))?)?", re.ASCII)
_FROM = datetime(2026, 1, 1, tzinfo=UTC)
"""Where the search for gaps begins: nine years have two leap days and nearly every combination of weekday and date."""
_SPAN = timedelta(days=9 * 366)


@dataclass(frozen=True)
class Cron:
    """A schedule in UTC: which minutes, hours, days, months and weekdays (0 is Sunday)."""

    text: str
    """Five fields of digits, `*`, `,`, `-` and `/`, one space apart; the weekday goes from 0 to 6."""
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: tuple[int, ...]
    months: tuple[int, ...]
    weekdays: tuple[int, ...]
    either_day: bool
    """True when a day fits by its date *or* by its weekday: cron's rule when both are given."""

    def fires(self, after: datetime) -> Iterator[datetime]:
        """Yield the times it fires at, in UTC, the first one after `after`."""
        from cronsim import CronSim

        return CronSim(self.text, after)

    @property
    def longest_gap(self) -> int:
        """Return the longest gap between two days on which it fires, in days."""
        day = parse_cron("0 0 " + " ".join(self.text.split()[2:]))
        found = [_FROM]
        for when in day.fires(_FROM):
            found.append(when)
            if when > _FROM + _SPAN:
                break
        return max(((later - earlier).days for earlier, later in pairwise(found[1:])), default=0)

    def off_minute(self, name: str) -> Cron:
        """Move full and half hours to a later minute of their own, which a digest of `name` chooses, never 0 or 30."""
        if not set(self.minutes) <= CROWDED:
            return self
        number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
        if self.minutes == (30,):
            minute = str(31 + number % 29)
        elif self.minutes == (0,):
            choice = [m for m in range(60) if m not in CROWDED]
            minute = str(choice[number % len(choice)])
        else:
            minute = f"{1 + number % 29},{31 + number % 29}"
        return parse_cron(" ".join([minute, *self.text.split()[1:]]))

    def calendars(self) -> list[str]:
        """Write the schedule as `OnCalendar=` of systemd.time(7): two lines where the date or the weekday counts."""
        time = f"{_listed(self.hours, range(24))}:{_listed(self.minutes, range(60))}:00 UTC"
        dates = f"*-{_listed(self.months, range(1, 13))}-{_listed(self.days, range(1, 32))}"
        any_date = f"*-{_listed(self.months, range(1, 13))}-*"
        names = [DAYS[day].capitalize() for day in self.weekdays]
        weekdays = "" if len(names) == len(DAYS) else ",".join(names) + " "
        if not self.either_day:
            return [f"{weekdays}{dates} {time}"]
        if not weekdays or len(self.days) == LAST[2]:
            return [f"{any_date} {time}"]
        return [f"{dates} {time}", f"{weekdays}{any_date} {time}"]


def parse_cron(text: str) -> Cron:
    """Read a schedule.

    Raises:
        ValueError: it is not five fields that cron, systemd, GitHub Actions and Kubernetes understand alike.
    """
    from cronsim import CronSim, CronSimError

    fields = text.lower().split()
    if len(fields) != len(FIELDS):
        raise ValueError(
            f"`{' '.join(fields)}` is not five fields (minute, hour, day, month, weekday), such as `17 3 * * 1`"
        )
    plain = []
    for name, last, field in zip(FIELDS, LAST, fields, strict=True):
        for term in field.split(","):
            if not (match := _TERM.fullmatch(term)):
                raise ValueError(
                    f"{name} `{field}`: only numbers, ranges (1-5), lists (1,3) and steps (*/2, 0-20/5) "
                    "are understood by every scheduler"
                )
            if (step := match[1] or match[2]) and not 1 <= int(step) <= last:
                raise ValueError(f"{name} `{field}`: a step must be from 1 to {last}")
        plain.append(_numbered(name, field))
    if "*" not in (plain[2], plain[4]) and "*" in plain[2] + plain[4]:
        raise ValueError(
            f"day `{fields[2]}` and weekday `{fields[4]}`: schedulers disagree on what a step means here; list the days"
        )
    try:
        known = CronSim(" ".join(plain), _FROM)
    except CronSimError as error:
        field_name = str(error).removeprefix("Bad ").replace("day-of-month", "day").replace("day-of-week", "weekday")
        raise ValueError(f"`{' '.join(fields)}`: its {field_name} is out of range or never comes") from error
    weekdays = sorted({int(day) % 7 for day in known.weekdays if not isinstance(day, tuple)})
    if "7" in plain[4]:  # Kubernetes knows no day 7
        plain[4] = ",".join(map(str, weekdays))
    either = "*" not in (plain[2], plain[4])
    return Cron(
        " ".join(plain), tuple(sorted(known.minutes)), tuple(sorted(known.hours)), tuple(sorted(known.days)),
        tuple(sorted(known.months)), tuple(weekdays), either,
    )  # fmt: skip


def _numbered(name: str, field: str) -> str:
    """Write names of months and weekdays as numbers: not every scheduler takes them in lists and ranges."""
    names = {"month": dict(zip(MONTHS, range(1, 13), strict=True)), "weekday": dict(zip(DAYS, range(7), strict=True))}
    known = names.get(name, {})

    def number(match: re.Match[str]) -> str:
        if match[0] not in known:
            names_known = f"; there are: {', '.join(known)}" if known else ""
            raise ValueError(f"{name} `{field}`: `{match[0]}` is no {name}{names_known}")
        return str(known[match[0]])

    return re.sub("[a-z]+", number, field)


def _listed(values: tuple[int, ...], everything: range) -> str:
    """Write values as systemd lists them."""
    return "*" if len(values) == len(everything) else ",".join(f"{value:02}" for value in values)
