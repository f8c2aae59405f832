"""Five cron fields: read strictly, moved off crowded minutes, otherwise left as they are."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from itertools import islice

import pytest
from crons import crons
from hypothesis import given

from cpu_pipeline.recipe.cron import CROWDED, parse_cron

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("17 3 * * 1", "17 3 * * 1"),
        ("  17\t3 *\n* 1 ", "17 3 * * 1"),
        ("*/20 0-6/2 1,15 jan,Mar-MAY *", "*/20 0-6/2 1,15 1,3-5 *"),
        ("0 0 * * 7", "0 0 * * 0"),
        ("0 0 * * fri-7", "0 0 * * 0,5,6"),
        ("0 0 13 * fri", "0 0 13 * 5"),
        ("0 0 */2 * *", "0 0 */2 * *"),
    ],
)
def test_what_is_read(text: str, plain: str) -> None:
    assert parse_cron(text).text == plain


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is not five fields"),
        ("@daily", "`@daily` is not five fields"),
        ("0 3 * *", "is not five fields"),
        ("0 0 3 * * *", "is not five fields"),
        ("60 3 * * *", "its minute is out of range"),
        ("0 24 * * *", "its hour is out of range"),
        ("0 0 0 * *", "its day is out of range"),
        ("0 0 * 13 *", "its month is out of range"),
        ("0 0 * * 8", "its weekday is out of range"),
        ("0 0 30 2 *", "its day is out of range or never comes"),
        ("0 0 * * sat-mon", "its weekday is out of range"),
        ("5/15 * * * *", "minute `5/15`: only numbers, ranges"),
        ("0 0 L * *", "day `l`: only numbers"),
        ("0 0 * * 5#2", "weekday `5#2`: only numbers"),
        ("0,,5 * * * *", "minute `0,,5`: only numbers"),
        ("0 0 * foo *", "`foo` is no month; there are: jan, feb"),
        ("jan 0 * * *", "`jan` is no minute"),
        ("*/0 * * * *", "a step must be from 1 to 59"),
        ("*/90 * * * *", "a step must be from 1 to 59"),
        ("0 0 */2 * 1", "schedulers disagree"),
        ("0 0 1 * */2", "schedulers disagree"),
        ("0 3 * * *; reboot", "is not five fields"),
        ("0 3 * * $(id)", "weekday `$(id)`: only numbers"),
        ("٣ 3 * * *", "minute `٣`: only numbers"),
    ],
)
def test_what_is_refused(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        parse_cron(text)


@given(crons())
def test_reading_what_was_read_changes_nothing(text: str) -> None:
    once = parse_cron(text)
    assert parse_cron(once.text) == once


@given(crons())
def test_moving_changes_minutes_only_and_never_backwards(text: str) -> None:
    asked = parse_cron(text)
    moved = asked.off_minute("some-recipe")
    assert moved.text.split()[1:] == asked.text.split()[1:]
    if not set(asked.minutes) <= CROWDED:
        assert moved == asked
        return
    assert not set(moved.minutes) & CROWDED
    assert len(moved.minutes) == len(asked.minutes)
    assert all(before < after for before, after in zip(asked.minutes, moved.minutes, strict=True))


def test_recipes_are_spread_over_the_hour() -> None:
    minutes = {parse_cron("0 3 * * *").off_minute(f"recipe-{n}").minutes[0] for n in range(400)}
    assert minutes == set(range(60)) - CROWDED
    assert {parse_cron("30 3 * * *").off_minute(f"recipe-{n}").minutes[0] for n in range(400)} == set(range(31, 60))
    # The same on every machine and in every process: a file that is made again differs in nothing.
    assert [parse_cron(f"{minutes} 3 * * *").off_minute("a").minutes for minutes in ("0", "30", "0,30")] == [
        (23,), (53,), (23, 53),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "days"),
    [
        ("17 3 * * *", 1),
        ("* * * * *", 1),
        ("17 3 * * 1", 7),
        ("17 3 1 * *", 31),
        ("17 3 1 1 *", 366),
        ("17 3 29 2 *", 1461),
        ("17 3 * * 1-5", 3),
        ("17 3 1,15 * fri", 7),
    ],
)
def test_the_longest_gap_between_days(text: str, days: int) -> None:
    assert parse_cron(text).longest_gap == days


def test_a_date_or_a_weekday_fires_on_either() -> None:
    days = {when.date() for when in islice(parse_cron("0 4 13 * fri").fires(NOW), 200)}
    assert all(day.day == 13 or day.isoweekday() == 5 for day in days)
    assert any(day.day == 13 and day.isoweekday() != 5 for day in days)
    assert max(days) - min(days) > timedelta(days=1000)
