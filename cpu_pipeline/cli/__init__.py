"""The command line: parse, call one function, print, return an exit code."""

from __future__ import annotations

import io
import os
import sys
import traceback
from typing import Annotated

import typer

from cpu_pipeline.cli import (
    bench,
    catalog,
    diff,
    docs,
    doctor,
    env,
    history,
    init,
    lock,
    plan,
    refresh,
    run,
    schedule,
    score,
    store,
    verify,
)
from cpu_pipeline.cli.output import fail, hush, patient
from cpu_pipeline.core import signals
from cpu_pipeline.core.errors import BUG, BackendMissing, PipelineError, interruption

app = typer.Typer(
    name="cpu-pipeline",
    help="Build CPU-ready artifacts from Hugging Face models, as recipes say: cached, and checked before they go out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("run")(run.run)
app.command("plan")(plan.plan)
app.command("lock")(lock.lock)
app.command("refresh")(refresh.refresh)
app.command("check")(plan.check)
app.command("init")(init.init)
app.command("pin")(init.pin)
app.command("score")(score.score)
app.command("verify")(verify.verify)
app.command("diff")(diff.diff)
app.command("history")(history.history)
app.command("status")(history.status)
app.command("rollback")(history.rollback)
app.command("schedule")(schedule.schedule)
app.command("stages")(catalog.list_stages)
app.command("backends")(catalog.list_backends)
app.command("tasks")(catalog.list_tasks)
app.command("schema")(catalog.print_schema)
app.command("docs", hidden=True)(docs.docs)
app.command("doctor")(doctor.doctor)
app.add_typer(bench.app, name="bench")
app.add_typer(store.app, name="store")
app.add_typer(env.app, name="env")


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
        return fail(error, as_json="--json" in arguments)
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
    except Exception as error:
        if _is_usage(error):
            error.show()  # type: ignore[attr-defined]  # click's usage errors know how to show themselves
            return 2
        return _bug()


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
