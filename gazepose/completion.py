"""Completion of verbs and flags in a shell. tyro writes the script, from the functions and dataclasses of the verbs."""

import contextlib
import importlib
import io
from collections.abc import Callable
from typing import Annotated, Any, Literal, Union

import tyro

from gazepose.__main__ import VERBS, file_of
from gazepose.config import InferConfig, TrainConfig

Shell = Literal["bash", "zsh", "fish"]
FILES = """
_gazepose() { _tyro_gazepose "$@"; [ -n "${COMPREPLY[*]}" ] || COMPREPLY=(); }
complete -o default -F _gazepose gazepose
"""
"""for bash: where nothing is known, such as for the file of a verb, names of files"""


def script(shell: Shell) -> str:
    """The completion of the command gazepose, for the shell to read."""
    verbs: dict[str, Any] = {"train": TrainConfig, "infer": InferConfig}
    groups: dict[str, dict[str, Any]] = {}
    for verb, (name, _) in VERBS.items():
        group, _, last = verb.rpartition(" ")
        if verb not in verbs:
            function = getattr(importlib.import_module(file_of(verb)), name)
            (groups.setdefault(group, {}) if group else verbs)[last] = function
    verbs |= {group: _group(members) for group, members in groups.items()}
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        tyro.cli(_one_of(verbs), prog="gazepose", args=["--tyro-print-completion", shell], use_underscores=True,
                 config=(tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes))
    # the texts stand in one line of Python; a shell would take their second line for another word
    lines = [line.replace("\\n", " ") if line.startswith("COMPLETION_SPEC = ") else line
             for line in printed.getvalue().splitlines()]
    return "\n".join(lines) + FILES * (shell == "bash")


def _one_of(verbs: dict[str, Any]) -> Any:
    kinds = [Annotated[Any, tyro.conf.subcommand(name=name, constructor=function, description=_says(name))]
             for name, function in verbs.items()]
    return Union[tuple(kinds)]                                           # noqa: UP007


def _says(verb: str) -> str:
    return next((text for name, (_, text) in VERBS.items() if name.split()[-1] == verb), verb)


def _group(members: dict[str, Any]) -> Callable[..., None]:
    """A verb of several, such as priors."""
    def group(verb: Any) -> None:
        """Its verbs."""
    group.__annotations__["verb"] = _one_of(members)
    return group
