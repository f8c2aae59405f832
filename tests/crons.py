"""Cron expressions of every shape that is allowed, for Hypothesis."""

from __future__ import annotations

from hypothesis import strategies as st

from cpu_pipeline.recipe.cron import DAYS, MONTHS

LIMITS = ((0, 59), (0, 23), (1, 28), (1, 12), (0, 7))
"""Days up to 28, so that each expression comes true in any month it names."""
NAMES = {3: MONTHS, 4: DAYS}


@st.composite
def term(draw: st.DrawFn, place: int, star: bool) -> str:
    first, last = LIMITS[place]
    kind = draw(st.sampled_from(["value", "range", "stepped", *(["star", "star"] if star else [])]))
    step = draw(st.integers(1, max(1, (last - first) // 2)))
    if kind == "star":
        return f"*/{step}"
    begin = draw(st.integers(first, last))
    if kind == "value":
        names = NAMES.get(place)
        named = names is not None and begin - first < len(names) and draw(st.booleans())
        return names[begin - first] if named and names else str(begin)
    end = draw(st.integers(begin, last))
    return f"{begin}-{end}" + (f"/{step}" if kind == "stepped" else "")


def field(place: int, star: bool = True) -> st.SearchStrategy[str]:
    return st.lists(term(place, star), min_size=1, max_size=3).map(",".join)


@st.composite
def crons(draw: st.DrawFn) -> str:
    """Draw an expression; a step stands in at most one of the two fields for days."""
    days = draw(st.sampled_from(["any", "date", "weekday", "either"]))
    minute = draw(st.one_of(st.sampled_from(["0", "30", "0,30", "*/30", "*"]), field(0)))
    hour = draw(st.one_of(st.just("*"), field(1)))
    date = draw(field(2, star=days == "date")) if days in ("date", "either") else "*"
    month = draw(st.one_of(st.just("*"), field(3)))
    weekday = draw(field(4, star=days == "weekday")) if days in ("weekday", "either") else "*"
    return f"{minute} {hour} {date} {month} {weekday}"
