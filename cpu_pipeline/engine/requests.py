"""Write the request that runs one node."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cpu_pipeline.core import host
from cpu_pipeline.core.artifact import Artifact
from cpu_pipeline.core.jsonl import ROWS
from cpu_pipeline.engine.executors._base import StepRequest
from cpu_pipeline.engine.requirements import environments_of, home_environment
from cpu_pipeline.engine.worker.protocol import TaskSpec
from cpu_pipeline.graph.plan import Context, Node, Plan


def step_request(
    plan: Plan, node: Node, artifacts: Mapping[str, Artifact], *, out: Path, scratch: Path, log: Path
) -> StepRequest:
    """Write the request that runs a node.

    Args:
        plan: the plan that the node is part of.
        node: the node.
        artifacts: node id -> artifact, of at least every node that it reads.
        out: an empty directory for its output.
        scratch: a directory that outlives a failure.
        log: the file for its log.
    """
    formats = plan.formats(node)
    context = plan.context
    return StepRequest(
        use=node.use,
        # What was set, and nothing else: a stage may refuse an option that is of no use beside another.
        options=node.stage.model_dump(mode="json", exclude_unset=True),
        inputs={name: artifacts[source] for name, source in node.inputs.items()},
        data={role: artifacts[source].path / ROWS for role, source in node.data.items()},
        out=out,
        scratch=scratch,
        log=log,
        task=_task_spec(context),
        # Not a share of the cores: sums of floats follow the number of threads, and no output may follow --jobs.
        threads=context.threads if node.stage.alone else host.cores(),
        isa=context.isa,
        allow=tuple(sorted(context.allow)),
        environment=home_environment(node.stage, formats),
        environments=environments_of(node.stage, formats),
        online=node.stage.online,
        timeout=node.timeout,
    )


def _task_spec(context: Context) -> TaskSpec | None:
    if context.task is None or context.task_name is None:
        return None
    return TaskSpec(context.task_name, context.task.model_dump(mode="json"))
