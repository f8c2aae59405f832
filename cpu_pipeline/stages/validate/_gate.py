"""What all gates share: two sides, bounds of which at least one is set, and a report that is judged when it is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import Any, ClassVar, Literal, Self, TypeVar

from pydantic import model_validator

from cpu_pipeline import backends
from cpu_pipeline.core.errors import StageFailed
from cpu_pipeline.stages._base import Job, Stage, Verdict, Waiver
from cpu_pipeline.tasks._base import Task

Side = Literal["candidate", "reference"]
SIDES: tuple[Side, ...] = ("candidate", "reference")
T = TypeVar("T")


class Gate(Stage):
    """Measure a candidate beside a reference, and judge what was measured."""

    takes: ClassVar[Mapping[str, Set[str]]] = dict.fromkeys(SIDES, frozenset(backends.names()))
    bounds: ClassVar[Set[str]] = frozenset()
    """Options that can make it fail; a recipe sets one of them at least."""
    may_only_measure: ClassVar[bool] = False
    """True when it may have no bound: then it measures for the report, and its verdict says that it judges nothing."""

    waive: Waiver | None = None
    """Let it pass though it failed, until a day and for a reason, which the report shows:
    {until: 2026-12-31, reason: ...}; also a key of the step. A recipe with a day that is over is refused."""

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Leave what only judges out of the key of every gate."""
        super().__pydantic_init_subclass__(**kwargs)
        cls.unkeyed = cls.unkeyed | {"waive"}

    def waiver(self) -> Waiver | None:
        """Return until when a failure is waived."""
        return self.waive

    @model_validator(mode="after")
    def _can_fail(self) -> Self:
        if not self.may_only_measure and not self.bounded:
            raise ValueError(f"a gate must be able to fail: set one of {', '.join(sorted(self.bounds))}")
        return self

    @property
    def bounded(self) -> bool:
        """Say whether it has a bound that it could fail."""
        return any(getattr(self, name) is not None for name in self.bounds)

    def gives(self) -> str:
        """Name the format of the output."""
        return "report"

    def backends(self, formats: Mapping[str, str]) -> Set[str]:
        """Name the backends of both sides; none where predictions are compared."""
        return frozenset() if self.through else frozenset(formats.values())


def only_measured(gate: Gate) -> list[Verdict]:
    """Say of a gate without bounds that it judges nothing; nothing to say of any other."""
    if gate.bounded:
        return []
    return [Verdict("measured", True, f"only measured: no bound is set ({', '.join(sorted(gate.bounds))})")]


def task_of(job: Job, gate: str) -> Task:
    """Return the recipe's task.

    Raises:
        StageFailed: the job has none.
    """
    if job.task is None:
        raise StageFailed(f"{gate} needs the recipe's task")
    return job.task


def spread(items: Sequence[T], count: int) -> list[T]:
    """Take `count` items, evenly spread over all."""
    if len(items) <= count:
        return list(items)
    return [items[i * len(items) // count] for i in range(count)]
