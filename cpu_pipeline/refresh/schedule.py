"""The jobs that keep recipes fresh. Each file of schedulers/ writes them for one scheduler."""

from __future__ import annotations

import importlib
import os
import re
import shlex
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.core.files import make_dir, write_file, writing
from cpu_pipeline.engine.environments import DEFAULT
from cpu_pipeline.engine.requirements import environments_of
from cpu_pipeline.graph import planner
from cpu_pipeline.graph.plan import Plan
from cpu_pipeline.recipe import reader
from cpu_pipeline.recipe.cron import Cron, parse_cron
from cpu_pipeline.recipe.spec import Recipe
from cpu_pipeline.store.remote.urls import shown

REFRESH = "cpu-pipeline-refresh"
"""The first part of the name of every file and job."""
OUT = "artifacts"


class Kind(StrEnum):
    """A scheduler that files can be written for."""

    github_actions = "github-actions"
    cron = "cron"
    systemd = "systemd"
    kubernetes = "kubernetes"


@dataclass(frozen=True)
class ScheduledJob:
    """Recipes of one schedule, refreshed together."""

    name: str
    """Small letters, digits and `-`, of 52 characters at most: a name for every scheduler."""
    asked: str
    """The cron that the recipes have."""
    cron: Cron
    """The cron that is run: off the full and half hours."""
    recipes: tuple[str, ...]
    """Paths below the project's folder, with `/`."""
    create_envs: bool
    """True when a step needs another environment than the default one."""
    watches: tuple[str, ...]
    """Files (and `folder/**`) whose change is a reason to refresh now, where a scheduler can see that."""
    threads: int | None = None
    """Most threads that a recipe's target names."""

    @property
    def max_age(self) -> str:
        """Return how old a version may become before something must be wrong: one day more than the longest gap."""
        return f"{self.cron.longest_gap + 1}d"

    @property
    def moved(self) -> str:
        """Say that the minute was moved, or nothing."""
        if self.cron.minutes == parse_cron(self.asked).minutes:
            return ""
        return f"`{self.cron.text}` stands for `{self.asked}`: off the full and half hours, when everybody's jobs start"

    @property
    def watch(self) -> Cron:
        """Return when to look whether anything is too old: once a day."""
        return parse_cron("0 12 * * *").off_minute(self.name)


@dataclass(frozen=True)
class Order:
    """Jobs, and how they are to be run."""

    jobs: tuple[ScheduledJob, ...]
    project: Path
    """The directory of recipes and `out`; absolute."""
    program: tuple[str, ...] = ("cpu-pipeline",)
    """The command on the machine that will run it."""
    out: str = OUT
    store: Path | None = None
    """Directory of cached steps; the user's own store when None."""
    store_remote: str | None = None
    install: str | None = None
    """Shell command that puts cpu-pipeline onto a fresh machine."""
    image: str | None = None
    """Container image that holds cpu-pipeline."""

    def on(self, *program: str) -> Commands:
        """Return the commands as `program` runs them."""
        return Commands(self, program or self.program)


@dataclass(frozen=True)
class Commands:
    """The command lines of one order, each as its words."""

    order: Order
    program: tuple[str, ...]

    def refresh(self, job: ScheduledJob) -> list[str]:
        more = ["--create-envs"] if job.create_envs else []
        if self.order.store_remote is not None:
            more += ["--store-remote", self.order.store_remote]
        return [*self.program, "refresh", *job.recipes, "--keep-going", "--json", *self._out(), *more]

    def status(self, job: ScheduledJob) -> list[str]:
        return [*self.program, "status", *job.recipes, "--max-age", job.max_age, *self._out()]

    def pull(self, job: ScheduledJob) -> list[str] | None:
        return self._store("pull", job)

    def push(self, job: ScheduledJob) -> list[str] | None:
        return self._store("push", job)

    def script(self, job: ScheduledJob, check: bool) -> list[str]:
        """Return shell lines: pull, refresh, push, and look at the age; they leave `code` at the first failure's.

        Pulling saves time only, so its failure is none; what passed is pushed even when another recipe failed.
        """
        lines = ["code="]
        if pull := self.pull(job):
            lines.append(f"{shlex.join(pull)} || true")
        after = [self.push(job), self.status(job) if check else None]
        for words in (self.refresh(job), *after):
            if words:
                lines.append(f"{shlex.join(words)} || code=${{code:-$?}}")
        return lines

    def _out(self) -> list[str]:
        return [] if self.order.out == OUT else ["--out", self.order.out]

    def _store(self, verb: str, job: ScheduledJob) -> list[str] | None:
        if self.order.store_remote is None:
            return None
        named = [word for recipe in job.recipes for word in ("--recipe", recipe)]
        return [*self.program, "store", verb, self.order.store_remote, *named]


def find_recipes(project: Path) -> list[Path]:
    """List the recipes of a project that have a schedule.

    Raises:
        RecipeError: there is none, or a recipe can't be read.
    """
    found = []
    for path in sorted((project / "recipes").glob("*.yaml")):
        refresh = reader.load_recipe(path).value.refresh
        if refresh is not None and refresh.cron is not None:
            found.append(path)
    if not found:
        raise RecipeError(
            'recipes/: no recipe has a schedule; write `refresh: {cron: "17 3 * * 1"}` into those that are to be fresh'
        )
    return found


def jobs(recipes: Sequence[Path], project: Path) -> tuple[ScheduledJob, ...]:
    """Put recipes of the same cron into one job, in the order of their names.

    Raises:
        RecipeError: a recipe is wrong, has no cron, or is outside the project.
    """
    together: dict[str, list[Plan]] = {}
    seen: dict[str, Path] = {}
    for path in dict.fromkeys(recipes):
        plan = planner.make_plan(reader.load_recipe(path))
        refresh = plan.recipe.refresh
        if refresh is None or refresh.cron is None:
            raise RecipeError(f'{path}: has no schedule; write `refresh: {{cron: "17 3 * * 1"}}` into it')
        if (other := seen.setdefault(plan.name, path)) != path:
            raise RecipeError(f"{path}: {other} has the same name, and both would be {OUT}/{plan.name}; rename one")
        together.setdefault(parse_cron(refresh.cron).text, []).append(plan)
    made: list[ScheduledJob] = []
    for text, plans in sorted(together.items(), key=lambda item: min(p.name for p in item[1])):
        plans.sort(key=lambda plan: plan.name)
        name = REFRESH if len(together) == 1 else _name(plans[0].name, {job.name for job in made})
        made.append(_job(name, text, plans, project))
    return tuple(made)


def _job(name: str, text: str, plans: Sequence[Plan], project: Path) -> ScheduledJob:
    reacting = [p for p in plans if p.recipe.refresh and (not p.recipe.refresh.on or "recipe" in p.recipe.refresh.on)]
    return ScheduledJob(
        name,
        text,
        parse_cron(text).off_minute(plans[0].name),
        tuple(below(plan.path, project) for plan in plans),
        any(environments_of(n.stage, plan.formats(n)) - {DEFAULT} for plan in plans for n in plan.nodes.values()),
        tuple(dict.fromkeys(path for plan in reacting for path in _watched(plan, project))),
        max((plan.recipe.target.threads for plan in plans if plan.recipe.target.threads), default=None),
    )


def _name(first: str, taken: set[str]) -> str:
    short = re.sub("[^a-z0-9]+", "-", first.lower()).strip("-")[:28].rstrip("-")
    stem = f"{REFRESH}-{short or 'recipe'}"
    choices = (stem if number == 1 else f"{stem}-{number}" for number in range(1, len(taken) + 2))
    return next(choice for choice in choices if choice not in taken)


def below(path: Path, project: Path) -> str:
    """Write a path as it reads from the project's folder.

    Raises:
        RecipeError: it is outside, or its name cannot stand in a file of one line per command.
    """
    try:
        name = Path(os.path.abspath(path)).relative_to(project).as_posix()  # noqa: PTH100 - links stay links
    except ValueError as error:
        raise RecipeError(f"{path} lies outside {project}; schedule recipes from their project's folder") from error
    require_plain(name, str(path))
    return f"./{name}" if name.startswith("-") else name


def require_plain(text: str, what: str) -> None:
    """Refuse what no quoting can carry through every scheduler: control characters, and bytes that are not UTF-8."""
    if not text.isprintable():
        raise RecipeError(f"{what!r}: holds a character that cannot be printed; no scheduler's file can hold that")


def address(url: str | None) -> str | None:
    """Return the address of a remote store as it may stand in a file.

    Raises:
        RecipeError: it holds what may be secret.
    """
    if url is None:
        return None
    require_plain(url, "--store-remote")
    if shown(url) != url or url.startswith("-"):
        raise RecipeError(
            f"--store-remote {shown(url)}: a file is no place for a user, a password or a query; leave them out of the "
            "address, and let the scheduler hand them over in the environment"
        )
    return url


def _watched(plan: Plan, project: Path) -> list[str]:
    """Name the recipe and its local files."""
    recipe: Recipe = plan.recipe
    found = [plan.path]
    home = Path(os.path.abspath(plan.path)).parent  # noqa: PTH100 - links stay links
    pipeline = home.parent / "pipelines" / f"{recipe.pipeline}.yaml"
    if recipe.pipeline is not None and pipeline.is_file() and pipeline.is_relative_to(project):
        found.append(pipeline)
    names = [below(path, project) for path in found]
    places: list[dict[str, Any] | None] = [recipe.model, recipe.tokenizer, recipe.teacher, *recipe.data.values()]
    for place in places:
        for key, after in (("folder", "/**"), ("file", "")):
            written = (place or {}).get(key, [])
            for one in [written] if isinstance(written, str) else written:
                names.append(below(home / one, project) + after)
    return names


def this_program() -> tuple[str, ...]:
    """Name the command on this machine by its full path: schedulers start with a path of their own."""
    script = Path(sysconfig.get_path("scripts")) / "cpu-pipeline"
    return (str(script),) if script.is_file() else (sys.executable, "-m", "cpu_pipeline")


def files(kind: Kind, order: Order) -> dict[str, str]:
    """Make the files of one scheduler: name -> text.

    Raises:
        RecipeError: that scheduler cannot do what was ordered.
    """
    module = importlib.import_module(f"cpu_pipeline.refresh.schedulers.{kind.name}")
    made: dict[str, str] = module.files(order)
    return made


def write(made: dict[str, str], folder: Path) -> list[Path]:
    """Write files into a folder, each whole or not at all.

    Raises:
        RecipeError: it is no folder, or not writable.
    """
    if folder.exists() and not folder.is_dir():
        raise RecipeError(f"{folder} is not a directory; name another place")
    with writing(folder):
        make_dir(folder)
        for name, text in made.items():
            write_file(folder / name, text, folder / f".{name}.new")
    return [folder / name for name in made]
