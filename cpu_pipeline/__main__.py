"""`python -m cpu_pipeline`, and the command `cpu-pipeline`: signals are handled before anything else is imported."""

import signal

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # Until they are handled below: Ctrl-C ends the command as the other signals do, without a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import os
import sys

from cpu_pipeline.core import signals


def main() -> None:
    """Run the command, and leave with its exit code."""
    try:
        signals.install()
        code = _command()
        signals.uninstall()
    except KeyboardInterrupt:  # no second one: what comes now ends the command at once, or counts as this one
        signals.uninstall()
        code = 130
    sys.exit(signals.exit_code() or code)


def _command() -> int:
    # pydantic would look through every installed distribution for plug-ins of its own, at each start.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    from cpu_pipeline.cli import main as command

    return command()


if __name__ == "__main__":
    main()
