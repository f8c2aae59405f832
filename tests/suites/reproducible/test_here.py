"""The stages of the default environment give the same bytes wherever, whoever, whenever; and every stage is tried."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import yaml
from suites.reproducible.held import Twice, hold
from suites.reproducible.places import HERE

from cpu_pipeline import stages

ELSEWHERE = {"environments"}
"""Recipes that need other environments: `test_environments.py` builds them."""
ORDER = ("compiled", "wide", "ways")


@pytest.mark.parametrize("name", ORDER)
def test_gives_the_bytes_it_claims(name: str, twice: Callable[[str], Twice]) -> None:
    hold(twice(name))


def test_every_stage_is_in_a_recipe(twice: Callable[[str], Twice]) -> None:
    tried = {use for name in ORDER for use in twice(name).uses.values()}
    for name in ELSEWHERE:
        said = yaml.safe_load((HERE / f"{name}.yaml").read_text(encoding="utf-8"))
        tried |= {step["use"] for step in said["stages"]}
    assert {path.stem for path in HERE.glob("*.yaml")} == {*ORDER, *ELSEWHERE}
    untried = {name for name in stages.names(internal=True) if not stages.get(name).alone} - tried
    # No recipe has them: refresh puts the first in, and it refuses any bytes but those it names; trials the second.
    assert untried == {"load.kept", "load.few"}


def made(key: str, digest: str) -> dict[str, str]:
    return {"key": key, "digest": digest}


def test_a_promise_that_is_not_kept_is_seen() -> None:
    uses = {"one": "fuse.onnx", "two": "quantize.onnx", "speed": "validate.latency"}
    first = {"one": made("a", "1"), "two": made("b", "2"), "speed": made("c", "3")}
    hold(Twice(first, {**first, "speed": made("c", "4")}, uses))
    with pytest.raises(AssertionError, match=r"promises the same:\none \(fuse.onnx\): 1 here, 9 there"):
        hold(Twice(first, {**first, "one": made("a", "9"), "two": made("x", "8")}, uses))
    with pytest.raises(AssertionError, match=r"says that it cannot: validate\.latency"):
        hold(Twice(first, first, uses))
    both = {"one": "fuse.onnx", "two": "quantize.onnx"}
    plain = {step: first[step] for step in both}
    with pytest.raises(AssertionError, match="other keys, though everything that they are made of is the same: two"):
        hold(Twice(plain, {**plain, "two": made("x", "2")}, both))
