"""GitHub Actions: one workflow; what passed is committed by its bot, and the job fails when a gate did."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence
from importlib import metadata
from typing import Any

from cpu_pipeline.core.artifact import digest_json
from cpu_pipeline.refresh.schedule import REFRESH, Order, ScheduledJob
from cpu_pipeline.refresh.schedulers._yaml import aside, dump, note
from cpu_pipeline.store.remote.urls import PACKAGES, protocol_of

VARIABLE, CONSTRAINTS = "CPU_PIPELINE_REQUIREMENT", "CPU_PIPELINE_CONSTRAINTS"
"""Variables of the repository: what pip installs, and a file of constraints in it."""
STORE = ".cpu-pipeline"
_CACHE = "55cc8345863c7cc4c66a329aec7e433d2d1c52a9"
CHECKOUT, PYTHON, RESTORE, SAVE, UPLOAD = (
    aside("actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1", "v7.0.1"),
    aside("actions/setup-python@5fda3b95a4ea91299a34e894583c3862153e4b97", "v7.0.0"),
    aside(f"actions/cache/restore@{_CACHE}", "v6.1.0"),
    aside(f"actions/cache/save@{_CACHE}", "v6.1.0"),
    aside("actions/upload-artifact@043fb46d1a93c77aae656e7c1c64a875d1fc6a0a", "v7.0.1"),
)
"""By their commits: a tag can be moved to other code, and these jobs hold secrets and may write to the repository."""
ALWAYS = "${{ !cancelled() }}"
"""Runs after a failed step too: it saves what passed although something else failed."""
SECRETS = {"s3": ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "s3a": ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
           "az": ("AZURE_STORAGE_CONNECTION_STRING",), "abfs": ("AZURE_STORAGE_CONNECTION_STRING",)}  # fmt: skip
"""Protocol of a remote store -> the secrets that its client reads from the environment."""
HEAD = """\
Keeps artifacts fresh. Made by `cpu-pipeline schedule --for github-actions`: make it again when a schedule changes.
It goes to .github/workflows/{name}.yml on the default branch; GitHub runs it in UTC, and late when it is busy.
Variables of the repository: {variable} says what pip installs, such as
{requirement}, the path of a wheel or `cpu-pipeline[build] @ git+ADDRESS@COMMIT`; {constraints} may name a
file of constraints. Secrets of the repository that it takes when they are there: {secrets}.
Versions and runs are kept in GitHub's cache, for each job under the names of its recipes.
Where another schedule puts recipes together anew, a job finds what one earlier job had kept, and its other recipes
begin without their earlier versions.
Actions are named by their commits; the comment behind each is the tag that stood there."""


def files(order: Order) -> dict[str, str]:
    """Return the workflow of an order."""
    secrets = ", ".join(["HF_TOKEN (for gated and private repositories)", *_secrets(order)])
    name = f"{REFRESH}.yml"
    about = HEAD.format(
        name=REFRESH, secrets=secrets, variable=VARIABLE, constraints=CONSTRAINTS, requirement=_requirement()
    )
    return {name: dump([_workflow(order)], about)}


def _workflow(order: Order) -> dict[str, Any]:
    watches = list(dict.fromkeys(_glob(path) for job in order.jobs for path in job.watches))
    pushed = {"push": {**note("recipes that say nothing else in `on:` are refreshed when they change as well"),
                       "paths": watches}}  # fmt: skip
    crons = dict.fromkeys(job.cron.text for job in order.jobs)
    moved = dict.fromkeys(job.moved for job in order.jobs if job.moved)
    return {
        "name": "Refresh artifacts",
        "on": {
            **note("\n".join(moved)),
            "schedule": [{"cron": text} for text in crons],
            "workflow_dispatch": None,
            **(pushed if watches else {}),
        },
        **note("to commit recipes that moved, and their locks"),
        "permissions": {"contents": "write"},
        "defaults": {"run": {"shell": "bash"}},
        "jobs": {job.name: _job(order, job) for job in order.jobs},
    }


def _job(order: Order, job: ScheduledJob) -> dict[str, Any]:
    when = _when(order, job)
    return {
        **({"if": when} if when else {}),
        "runs-on": "ubuntu-24.04",
        "timeout-minutes": 350,
        **note("one at a time; what waits is not lost, since the next refresh does all there is to do"),
        "concurrency": {"group": f"{job.name}-${{{{ github.ref }}}}", "cancel-in-progress": False},
        "env": {"CPU_PIPELINE_STORE": f"${{{{ github.workspace }}}}/{STORE}"},
        "steps": [*_prepare(order, job), *_refresh(order, job), *_keep(order, job)],
    }


def _when(order: Order, job: ScheduledJob) -> str:
    """Say which events are this job's."""
    found = []
    if len({one.cron.text for one in order.jobs}) > 1:
        found.append(f"(github.event_name != 'schedule' || github.event.schedule == '{job.cron.text}')")
    if job.watches:
        found.append("(github.event_name != 'push' || github.ref_name == github.event.repository.default_branch)")
    elif any(one.watches for one in order.jobs):
        found.append("github.event_name != 'push'")
    return f"${{{{ {' && '.join(found)} }}}}" if found else ""


def _prepare(order: Order, job: ScheduledJob) -> list[dict[str, Any]]:
    scheme = protocol_of(order.store_remote or "")
    client = f"\npython -m pip install {PACKAGES[scheme]}" if scheme in PACKAGES else ""
    restored = {
        "name": "Bring back earlier versions and runs",
        "uses": RESTORE,
        "with": {**_kept(order, job), "restore-keys": "\n".join(map(_remembered, job.recipes))},
    }
    pull = order.on("cpu-pipeline").pull(job)
    pulled = {
        "name": "Pull built steps",
        **note("costs time when it fails, nothing else"),
        "continue-on-error": True,
        **_env(order),
        "run": _shell(pull or []),
    }
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    python = {**note("another version is another toolchain: everything would be built anew"), "python-version": version}
    return [
        {"uses": CHECKOUT},
        {"uses": PYTHON, "with": python},
        _install(order, client),
        restored,
        *([pulled] if pull else []),
    ]


def _install(order: Order, client: str) -> dict[str, Any]:
    """Install what the user names: this file does not know where cpu-pipeline comes from."""
    if order.install is not None:
        return {"name": "Install", "run": order.install + client}
    about = (
        f"::error::Set the variable {VARIABLE} of this repository (Settings > Secrets and variables > Actions > "
        f"Variables) to what pip installs, such as {_requirement()} or the path of a wheel"
    )
    lines = [
        'if [ -z "$REQUIREMENT" ]; then',
        f"  echo {shlex.quote(about)}",
        "  exit 2",
        "fi",
        'python -m pip install ${CONSTRAINTS:+--constraint "$CONSTRAINTS"} "$REQUIREMENT"',
    ]
    named = {"REQUIREMENT": f"${{{{ vars.{VARIABLE} }}}}", "CONSTRAINTS": f"${{{{ vars.{CONSTRAINTS} }}}}"}
    return {"name": "Install", "env": named, "run": "\n".join(lines) + client}


def _requirement() -> str:
    """Write the requirement of this version: another one is another toolchain."""
    try:
        return f"cpu-pipeline[build]=={metadata.version('cpu-pipeline')}"
    except metadata.PackageNotFoundError:
        return "cpu-pipeline[build]"


def _refresh(order: Order, job: ScheduledJob) -> list[dict[str, Any]]:
    commands = order.on("cpu-pipeline")
    push = commands.push(job)
    refreshed = {
        "name": "Refresh",
        **note("writes its summary to the page of the run by itself"),
        "env": {"HF_TOKEN": "${{ secrets.HF_TOKEN }}", **_env(order).get("env", {})},
        "run": _shell(commands.refresh(job)),
    }
    pushed = {"name": "Push built steps", "if": ALWAYS, **_env(order), "run": _shell(push or [])}
    return [refreshed, *([pushed] if push else [])]


def _keep(order: Order, job: ScheduledJob) -> list[dict[str, Any]]:
    names = [recipe.rpartition("/")[2].removesuffix(".yaml") for recipe in job.recipes]
    latest = _literal("\n".join(_glob(f"{order.out}/{name}/latest/") for name in names))
    return [
        {
            "name": "Commit what moved",
            **note("also when another recipe's gate failed; a push with this token starts no workflow"),
            "if": ALWAYS,
            "run": _commit(job, names),
        },
        {
            "name": "Keep versions and runs",
            "if": ALWAYS,
            "uses": SAVE,
            "with": _kept(order, job),
        },
        {
            "name": "Hand out what is in service",
            "if": ALWAYS,
            "uses": UPLOAD,
            "with": {"name": job.name, "path": latest, "if-no-files-found": "ignore"},
        },
        {
            "name": "Is everything fresh?",
            **note("a dead man's switch: fails when a version is too old, whatever the reason"),
            "if": ALWAYS,
            "run": _shell(order.on("cpu-pipeline").status(job)),
        },
    ]


def _commit(job: ScheduledJob, names: Sequence[str]) -> str:
    moving = [path for recipe in job.recipes for path in (recipe, recipe.removesuffix(".yaml") + ".lock")]
    return "\n".join([
        "git config user.name 'github-actions[bot]'",
        "git config user.email '41898282+github-actions[bot]@users.noreply.github.com'",
        f"for path in {_shell(moving)}; do",
        '  if [ -e "$path" ]; then git --literal-pathspecs add -- "$path"; fi',
        "done",
        "if git diff --cached --quiet; then exit 0; fi",
        f"git commit --quiet --message {_shell(['Refresh ' + ', '.join(names)])}",
        "for pause in 0 5 10 20 40; do",
        '  sleep "$pause"',
        "  if git pull --quiet --rebase --autostash && git push --quiet; then exit 0; fi",
        "done",
        "exit 1",
    ])  # fmt: skip


def _kept(order: Order, job: ScheduledJob) -> dict[str, Any]:
    """Say what is cached and under which key: a new one each time, for GitHub's caches never change."""
    key = f"{_remembered(job.recipes[0])}${{{{ github.run_id }}}}-${{{{ github.run_attempt }}}}"
    return {"path": _cached(order), "key": key}


def _remembered(recipe: str) -> str:
    """Begin the key of the job whose first recipe this is, whatever the job is called; no other key begins so.

    A job looks under its other recipes too: one of them was the first before another one joined.
    """
    return f"{REFRESH}/{digest_json(recipe)[:16]}/"


def _cached(order: Order) -> str:
    """Name what a throwaway machine has to remember: a remote store holds the built steps, but neither of these."""
    return "\n".join([_literal(_glob(order.out)), STORE if order.store_remote is None else f"{STORE}/runs"])


def _secrets(order: Order) -> tuple[str, ...]:
    return SECRETS.get(protocol_of(order.store_remote or ""), ())


def _env(order: Order) -> dict[str, Any]:
    named = {name: f"${{{{ secrets.{name} }}}}" for name in _secrets(order)}
    return {"env": named} if named else {}


def _shell(words: Sequence[str]) -> str:
    """Quote words for the shell, and keep `${{` in a name from being read as an expression before the shell sees it."""
    return shlex.join(words).replace("${{", "$''{{")


def _literal(text: str) -> str:
    """Keep `${{` in the input of an action from being read as an expression."""
    return text.replace("${{", "${{ '${{' }}")


def _glob(path: str) -> str:
    """Write a path as GitHub's filters take it literally, but for the `**` that we put at its end."""
    path = path.removeprefix("./")
    stem = path.removesuffix("/**")
    return re.sub(r"([\\*?+\[\]!])", r"\\\1", stem) + path[len(stem) :]
