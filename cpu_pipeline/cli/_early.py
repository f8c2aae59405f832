"""What several recipes need besides their measurements is built before the first of these."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cpu_pipeline.core.errors import Interrupted, PipelineError

if TYPE_CHECKING:
    from cpu_pipeline.core.events import Event, Tell
    from cpu_pipeline.graph.plan import Plan
    from cpu_pipeline.store.local import Store


class Early:
    """Builds all steps of several recipes but those that measure."""

    def __init__(self, store: Store, out: Path, *, jobs: int, create_envs: bool, keep_going: bool) -> None:
        self._store, self._out = store, out
        self._jobs, self._create_envs, self._keep_going = jobs, create_envs, keep_going
        self._errors: dict[str, PipelineError] = {}
        self._told: set[tuple[str, str]] = set()

    def prepare(self, planned: Sequence[Plan]) -> None:
        """Build all other steps, where some recipe measures; remember what failed, for the recipe's own turn."""
        from cpu_pipeline import api
        from cpu_pipeline.cli.progress import Progress

        if len(planned) < 2 or not any(node.stage.alone for plan in planned for node in plan.nodes.values()):
            return
        for plan in planned:
            try:
                with Progress() as tell:
                    news = self._noting(plan, tell)
                    api.prepare(plan, self._store, self._out, jobs=self._jobs, create_envs=self._create_envs, tell=news)
            except Interrupted:
                raise
            except PipelineError as error:
                self._errors[plan.name] = error
                if not self._keep_going:
                    return

    def raise_error(self, plan: Plan) -> None:
        """Raise what a recipe failed with."""
        if plan.name in self._errors:
            raise self._errors[plan.name]

    def news(self, plan: Plan, tell: Tell) -> Tell:
        """Leave out events of steps that were told of already: they are cached now."""

        def news(event: Event) -> None:
            if (plan.name, event.node) not in self._told or event.what not in ("cached", "passed"):
                tell(event)

        return news

    def _noting(self, plan: Plan, tell: Tell) -> Tell:
        def noting(event: Event) -> None:
            if event.what in ("built", "cached"):
                self._told.add((plan.name, event.node))
            tell(event)

        return noting
