"""Errors as their users see them: one line and an exit code, which docs/runs.md lists."""

from collections.abc import Iterator
from contextlib import contextmanager

from gazepose.startup import say, tell_launcher

EXIT_USAGE = 2               # as argparse; other errors have 1


class UsageError(ValueError):
    """Flags that cannot be, alone or together: another command line is needed, whatever the files are."""


def usage_error(line: str) -> SystemExit:
    """What ends this program after a fault of its command line. The line is printed here."""
    say(line)
    error = SystemExit(line)
    error.code = EXIT_USAGE
    return error


@contextmanager
def readable_errors(usage: type[Exception] = UsageError) -> Iterator[None]:
    """Faults of flags, files and data end the program with their message alone; other errors keep their traceback.

    usage: errors of the command line.
    """
    try:
        yield
    except ConnectionError:                      # between our own processes: the traceback says where
        raise
    except (ValueError, OSError, EOFError, ImportError) as error:
        from gazepose.text import printable  # numpy: not before it is needed
        line = f"error: {printable(error)}"
        tell_launcher(line)
        raise (usage_error(line) if isinstance(error, usage) else SystemExit(line)) from None
