"""The command line: parse, call one function, print, return an exit code."""

from __future__ import annotations

import errno
import io
import os
import sys
import traceback
from collections.abc import Callable
from typing import Annotated, Any

import typer

from cpu_pipeline.cli import (
    bench,
    bisect,
    catalog,
    diff,
    docs,
    doctor,
    env,
    flips,
    history,
    init,
    lock,
    plan,
    refresh,
    run,
    schedule,
    score,
    sensitivity,
    store,
    verify,
)
from cpu_pipeline.cli._help import GroupedCommands
from cpu_pipeline.cli.output import fail, forgive_stderr, hush, patient, unwritable
from cpu_pipeline.core import signals
from cpu_pipeline.core.errors import BUG, BackendMissing, PipelineError, RecipeError, TryAgain, interruption

app = typer.Typer(
    name="cpu-pipeline",
    cls=GroupedCommands,
    help="Build CPU-ready artifacts from Hugging Face models, as recipes say: cached, and checked before they go out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
BUILD, INSPECT, SERVE, CATALOGUE, MACHINE = (
    "Build", "Look before and after", "Keep in service", "What there is", "This machine"
)  # fmt: skip
"""Groups of commands in the help."""


def _add(group: str, name: str, function: Callable[..., Any], about: str) -> None:
    app.command(name, rich_help_panel=group, short_help=about)(function)


_add(BUILD, "init", init.init, "Write a first recipe for a model and its data.")
_add(BUILD, "check", plan.check, "Tell what a build of a recipe would refuse.")
_add(BUILD, "run", run.run, "Build recipes, check the results, publish them.")
_add(BUILD, "plan", plan.plan, "Show what a build would do, and why.")
_add(BUILD, "lock", lock.lock, "Write a recipe's lock, or check it.")
_add(INSPECT, "bisect", bisect.bisect, "Find the step that lost what a metric says.")
_add(INSPECT, "sensitivity", sensitivity.sensitivity, "Rank the operators of a quantized model by their damage.")
_add(INSPECT, "diff", diff.diff, "Compare two versions or runs.")
_add(INSPECT, "verify", verify.verify, "Hash a version again, and check where it is from.")
_add(INSPECT, "flips", flips.flips, "List the rows whose answers a model lost or won.")
_add(INSPECT, "history", history.history, "List runs, and the versions of an artifact.")
_add(INSPECT, "score", score.score, "Score predictions made anywhere.")
_add(SERVE, "status", history.status, "Show what is in service, and how old it is.")
_add(SERVE, "refresh", refresh.refresh, "Rebuild what changed; promote it if it is as good.")
_add(SERVE, "rollback", history.rollback, "Put an earlier version back into service.")
_add(SERVE, "schedule", schedule.schedule, "Print a file that refreshes on a schedule.")
_add(CATALOGUE, "pipelines", catalog.list_pipelines, "Pipelines: what each needs, and its steps.")
_add(CATALOGUE, "tasks", catalog.list_tasks, "Tasks: columns, metrics, options.")
_add(CATALOGUE, "stages", catalog.list_stages, "Stages that steps can use, with their options.")
_add(CATALOGUE, "backends", catalog.list_backends, "Formats, and how each is run.")
_add(CATALOGUE, "schema", catalog.print_schema, "The JSON Schema of recipes, for editors.")
_add(CATALOGUE, "pin", init.pin, "The commit of a branch on the Hub.")
app.command("docs", hidden=True)(docs.docs)
_add(MACHINE, "doctor", doctor.doctor, "The CPU, versions, and what works here.")
app.add_typer(env.app, name="env", rich_help_panel=MACHINE, short_help="Environments that some stages need.")
app.add_typer(store.app, name="store", rich_help_panel=MACHINE, short_help="The store of cached steps.")
app.add_typer(bench.app, name="bench", rich_help_panel=MACHINE, short_help="Measurements for people.")


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import PackageNotFoundError, version

        try:
            typer.echo(f"cpu-pipeline {version('cpu-pipeline')}")
        except PackageNotFoundError:
            typer.echo("cpu-pipeline, not installed: run from its source")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    pass


def main(argv: list[str] | None = None) -> int:
    """Run one command; only errors that we did not foresee show a traceback.

    A signal that ends the command is its exit code, whatever became of the exception on its way here.
    """
    signals.install()
    try:
        if argv is None:
            _speak_utf8()
        _open_streams()
        if argv is None:
            forgive_stderr()
        code = _run(sys.argv[1:] if argv is None else argv)
    except KeyboardInterrupt as error:  # while an error was being reported
        code = interruption(error, "interrupted").exit_code
    return signals.exit_code() or code


def _run(arguments: list[str]) -> int:
    if isinstance(sys.stdout, io.TextIOWrapper):  # names of files need not be UTF-8; in JSON this is how to escape them
        sys.stdout.reconfigure(errors="backslashreplace")
    stdout = sys.stdout
    try:
        with patient(stdout):
            code = app(arguments, prog_name="cpu-pipeline", standalone_mode=False)
            return code if isinstance(code, int) else 0
    except PipelineError as error:
        try:
            return fail(error, as_json="--json" in arguments)
        except OSError as full:  # while it was printed as JSON
            told = unwritable(stdout, full)
            return error.exit_code if told is None else fail(told)
    except SystemExit as left:
        if not isinstance(left.__context__, BrokenPipeError):
            raise
        hush(stdout)  # typer exits with 1 when nobody reads any more
        return 0
    except (KeyboardInterrupt, typer.Abort) as error:
        # typer makes the first of these the second.
        return interruption(error.__cause__ or error, "interrupted").exit_code
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("cpu_pipeline"):
            raise
        message = f"{error.name} is not installed; pip install 'cpu-pipeline[build]'"
        return fail(BackendMissing(message), as_json="--json" in arguments)
    except OSError as error:
        if (unsaid := unwritable(stdout, error)) is not None:
            return fail(unsaid)
        if (known := _limit_of_the_system(error)) is None:
            return _bug()
        return fail(known, as_json="--json" in arguments)
    except Exception as error:
        if _is_usage(error):
            error.show()  # type: ignore[attr-defined]  # click's usage errors know how to show themselves
            return 2
        return _bug()


def _limit_of_the_system(error: OSError) -> PipelineError | None:
    """Return the error for what this system does not take, wherever it was met; None for anything else."""
    name = str(error.filename or "")
    if error.errno == errno.ENAMETOOLONG:
        return RecipeError(f"{name[:60]}...: {error.strerror}: {len(name)} characters; shorten the name")
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return TryAgain(f"{error.strerror}: allow more (`ulimit -n 1024`), then run the same command again")
    return None


def _bug() -> int:
    """Report the exception that is handled, unless a signal is behind it: some libraries make another one of that."""
    if signals.exit_code() is None:
        traceback.print_exc()
        print("this is a bug of cpu-pipeline; please report it with the lines above", file=sys.stderr)
    return BUG


def _is_usage(error: Exception) -> bool:
    return hasattr(error, "show") and hasattr(error, "exit_code")


def _speak_utf8() -> None:
    """Begin again in UTF-8 mode where the locale has another encoding: most files and their names are UTF-8 anyhow."""
    if sys.getfilesystemencoding() != "utf-8" and os.environ.get("PYTHONUTF8") != "1":
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, sys.orig_argv)


def _open_streams() -> None:
    """Give closed standard streams (`>&-`) somewhere to go: else files opened later would take their numbers."""
    for name, number, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            setattr(sys, name, os.fdopen(number, mode, closefd=False))
