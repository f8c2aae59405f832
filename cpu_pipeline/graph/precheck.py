"""Tell what a build would refuse, as far as that is known before anything is built.

Stages that read rows run for real, into a directory that is thrown away; a model is looked at through its
configuration and the headers of its files. Nothing is downloaded, and nothing heavy is imported.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn

from cpu_pipeline import sources
from cpu_pipeline.core.artifact import Artifact
from cpu_pipeline.core.errors import PipelineError, RecipeError
from cpu_pipeline.core.files import temporary_folder
from cpu_pipeline.core.jsonl import ROWS, read_jsonl
from cpu_pipeline.core.repo_files import copy_file
from cpu_pipeline.graph.plan import Node, Plan
from cpu_pipeline.stages._base import Job
from cpu_pipeline.tasks._base import Task

MOST_ROWS = 64 << 20
"""Bytes of a role's files above which the build alone reads them."""
FETCH = "fetch"
PART = "part"
"""Format of files of which not all are on this machine."""


@dataclass(frozen=True)
class Finding:
    """One thing that a build would refuse."""

    where: str
    """`file:line:column`."""
    label: str
    """The key of the recipe's source, or the step as messages name it."""
    error: PipelineError

    @property
    def says(self) -> str:
        """Write the finding on one line."""
        text = str(self.error)
        return f"{self.where}: {text if text.startswith(self.label) else f'{self.label}: {text}'}"


@dataclass(frozen=True)
class Checked:
    """What was found, and what could not be looked at."""

    findings: tuple[Finding, ...]
    unread: tuple[str, ...]
    """Sources of which nothing was read, each with the reason."""
    warnings: tuple[str, ...] = ()
    """What a build does, though it cannot show much, each with the step."""

    def require(self) -> None:
        """Raise everything that was found as one error, of the class that the build would meet first.

        Raises:
            PipelineError: one line for each finding.
        """
        if self.findings:
            lines = dict.fromkeys(finding.says for finding in self.findings)
            raise type(self.findings[0].error)("\n".join(lines))


def precheck(
    plan: Plan, cached: Collection[str] = frozenset(), *, advises: bool = False, thorough: bool = False
) -> Checked:
    """Look at everything that a plan names on this machine.

    Args:
        plan: the plan.
        cached: nodes that a build would not run: what they would refuse is not asked again.
        advises: tell also what is no error and what a build tells, which may take seconds.
        thorough: compare tokenization with transformers' own, too, which takes seconds.
    """
    with temporary_folder("cpu-pipeline-check-") as scratch:
        check = _Precheck(plan, frozenset(cached), scratch, advises=advises, thorough=thorough)
        check.look()
        return Checked(tuple(check.findings), tuple(check.unread), tuple(check.warnings))


class _Precheck:
    """The work of `precheck`."""

    def __init__(self, plan: Plan, cached: frozenset[str], scratch: Path, *, advises: bool, thorough: bool) -> None:
        self.plan, self.cached, self.scratch = plan, cached, scratch
        self.advises, self.thorough = advises, thorough
        self.findings: list[Finding] = []
        self.unread: list[str] = []
        self.warnings: list[str] = []
        self.known: dict[str, Artifact] = {}
        """Node id -> what it would give, as far as it is of interest here."""

    def look(self) -> None:
        if self.cached >= self.plan.nodes.keys():
            return
        for node in self.plan.nodes.values():
            if node.use == FETCH:
                self._gather(node)
            else:
                self._precheck(node)
        self._fit()
        if self.findings:  # first things first
            return
        self.warnings += cautions(self.plan, {name: found.path for name, found in self.known.items()})

    def _gather(self, node: Node) -> None:
        """Bring the files of a source together, as links; a source that is elsewhere gives what is cached of it."""
        stage: Any = node.stage
        if self._is_unconfirmed(node):
            self.unread.append(f"{_source_of(node)} lies outside, and is not allowed yet")
            return
        with self._finding(node):
            source = sources.find(stage.source, stage.fields)
            files = source.local_files(stage.want, frozenset(self.plan.context.allow))
            if not files:
                self.unread.append(f"{_source_of(node)} is not on this machine")
            elif stage.want == "data" and sum(path.stat().st_size for path in files.values()) > MOST_ROWS:
                self.unread.append(f"{_source_of(node)} has more than {MOST_ROWS >> 20} MiB")
            else:
                self.known[node.id] = self._artifact(PART if source.online else "files")
                for name, path in files.items():
                    _bring(path, self.known[node.id].path / name, link=stage.want != "data")

    def _is_unconfirmed(self, node: Node) -> bool:
        source = _source_of(node)
        return any(not path.allowed and ".".join(map(str, path.keys[:-1])) == source for path in self.plan.outside)

    def _precheck(self, node: Node) -> None:
        """Ask a stage what it would refuse. One that loads needs its files; one that builds has no inputs yet."""
        inputs = {name: self.known[source] for name, source in node.inputs.items() if source in self.known}
        out = self.scratch
        if _is_source(node):
            if len(inputs) < len(node.inputs):
                return
            whole = all(artifact.format != PART for artifact in inputs.values())
            loaded = self._artifact(node.gives if whole else PART)
            out = loaded.path
        with self._finding(node):
            for says in node.stage.precheck(inputs, out, self._job(node)):
                if isinstance(says, str):
                    self.warnings.append(says)
                else:
                    self._find(node, says)
            if _is_source(node):
                self.known[node.id] = loaded

    def _fit(self) -> None:
        """Compare the task with the models, and the rows with the model, once for each."""
        task = self.plan.context.task
        if task is None:
            return
        fits = {role: self._check_model(task, role) for role in ("model", "teacher")}
        if not fits["model"]:
            return
        model = self.known["model"].path
        for name, rows in self.known.items():
            if name.startswith("data.") and rows.format == "rows" and (rows.path / ROWS).is_file():
                with self._finding(self.plan.nodes[name]):
                    task.check_rows(read_jsonl(rows.path / ROWS), model)
        for node in self.plan.nodes.values():
            for says in node.stage.misfits(task, model):
                self._find(node, RecipeError(says))

    def _check_model(self, task: Task, role: str) -> bool:
        """Compare the task with a model; say whether one is known, and fits."""
        model = self.known.get(role)
        if model is None or not (model.path / "config.json").is_file():
            return False
        if any(role in node.inputs.values() and node.stage.headless() for node in self.plan.nodes.values()):
            return False
        before = len(self.findings)
        with self._finding(self.plan.nodes[role]):
            task.check_model(model.path)
        return len(self.findings) == before

    def _job(self, node: Node) -> Job:
        rows = {role: self.known[source].path / ROWS for role, source in node.data.items() if source in self.known}
        return Job(
            load=_nothing_built,
            timer=_nothing_built,
            task=self.plan.context.task,
            data={role: path for role, path in rows.items() if path.is_file()},
            threads=self.plan.context.threads,
            isa=self.plan.context.isa,
            allow=frozenset(self.plan.context.allow),
            advises=self.advises,
            thorough=self.thorough,
        )

    def _artifact(self, format: str) -> Artifact:
        path = Path(tempfile.mkdtemp(dir=self.scratch))
        return Artifact(format, path, "", {})

    @contextmanager
    def _finding(self, node: Node) -> Iterator[None]:
        try:
            yield
        except PipelineError as error:
            self._find(node, error)

    def _find(self, node: Node, error: PipelineError) -> None:
        if node.id not in self.cached:
            label = _source_of(node) if _is_source(node) else node.label
            self.findings.append(Finding(node.where, label, error))


def cautions(plan: Plan, known: Mapping[str, Path] = MappingProxyType({})) -> list[str]:
    """List what each step says that it cannot show much of, before anything is built.

    Args:
        plan: the plan.
        known: node id of rows -> the directory that holds them. Where they are not there yet, the recipe may say how
            many it takes.
    """
    found: list[str] = []
    if plan.withheld is not None:  # a trial shows nothing anyhow
        return found
    model = known.get("model")
    if model is not None and not (model / "config.json").is_file():
        model = None
    for node in plan.nodes.values():
        rows = node.data.get("validation")
        count = None if rows is None else _count(plan.nodes[rows], known.get(rows))
        found += [f"{node.label}: {says}" for says in node.stage.cautions(plan.context.task, model, count)]
    return found


def _count(rows: Node, path: Path | None) -> int | None:
    """Count the rows of a role; None where that is not known before they are read."""
    if path is not None and (path / ROWS).is_file():
        with (path / ROWS).open("rb") as file:
            return sum(1 for _ in file)
    taken: int | None = getattr(rows.stage, "take", None)
    return taken


def _bring(path: Path, target: Path, *, link: bool) -> None:
    """Link a file of a model, which may be large; copy one of rows, whose media must lie beside them."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if link:
        target.symlink_to(path.absolute())
    else:
        copy_file(path, target)


def _source_of(node: Node) -> str:
    """Name the recipe's source that a node fetches or loads, such as `data.validation`."""
    return node.id.partition(":")[0]


def _is_source(node: Node) -> bool:
    return node.use == FETCH or node.use.startswith("load.")


def _nothing_built(*_: object) -> NoReturn:
    raise AssertionError("a check before the build cannot load a model")
