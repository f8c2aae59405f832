"""`python -m cpu_pipeline`, and the command `cpu-pipeline`: signals are handled before anything else is imported."""

import sys

from cpu_pipeline.core import signals


def main() -> None:
    """Run the command, and leave with its exit code."""
    signals.install()
    try:
        from cpu_pipeline.cli import main as command

        code = command()
        sys.stdout.flush()
    except KeyboardInterrupt:
        code = 130
    except OSError:  # nobody reads what is left, or it has nowhere to go: the command has said so where it matters
        pass
    finally:
        signals.uninstall()
    sys.exit(signals.exit_code() or code)


if __name__ == "__main__":
    main()
