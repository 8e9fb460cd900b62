"""docs/flags.md: the help of training, inference and every verb as one page."""

import contextlib
import io
import os
import re
import sys
from collections.abc import Callable
from unittest import mock

from gazepose import __main__ as verbs
from gazepose.config import InferConfig, TrainConfig, parse, train_defaults
from gazepose.programs import PROGRAMS

HEAD = """# All flags

Made by `python -m gazepose flags` from the code. Defaults of training are those of Ego4D on a GPU;
`python -m gazepose train --help` shows those of your data and machine.
"""


def flags_page() -> str:
    """The whole page in Markdown."""
    ego4d = train_defaults(TrainConfig(), embedded=False, gpu=True)
    parts = [HEAD, section("python -m gazepose train", lambda: parse(TrainConfig, ["--help"], ego4d)),
             section("python -m gazepose infer", lambda: parse(InferConfig, ["--help"]))]
    for verb in [verb for verb in verbs.VERBS if verb not in PROGRAMS]:
        parts.append(section(f"python -m gazepose {verb}", verbs.main, *verb.split(), "--help"))
    return "\n".join(parts)


def section(title: str, show_help: Callable[[], object], *args: str) -> str:
    """A heading and the help that a command prints, without the frames around its groups."""
    printed = io.StringIO()
    plain = {**os.environ, "COLUMNS": "110", "NO_COLOR": "1"}
    with mock.patch.dict(os.environ, plain), mock.patch.object(sys, "argv", [title, *args]), \
            contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        show_help()
    text = re.sub(r"\x1b\[[0-9;]*m", "", printed.getvalue())
    lines = [line.strip("│|").rstrip() for line in text.splitlines()]
    return f"## {title}\n\n```\n" + "\n".join(lines).strip() + "\n```\n"
