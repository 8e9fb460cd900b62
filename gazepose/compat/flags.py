"""Command lines of the original guide: its options that have no counterpart here.

Those that did nothing, or whose work something else does now, are left out with a line that says so; those that would
change the result end with what to write instead. All others are flags of config.py under the same name.
"""

from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import Literal

from gazepose.data.tracks import Policy

_LAUNCHER = "accelerate launch starts the processes (accelerate_configs/)"
_ONE_FOLDER = "the data set is one folder with json/, split/ and videos/ -> --data DIR"
_UNREAD = "the published code read it nowhere"
_TRAINING = "it has no part in inference"
_INFERENCE = "that is infer.py's -> accelerate launch infer.py --{} --checkpoint RUN"

LEFT_OUT = {
    "body": _UNREAD, "max_index": _UNREAD, "face_path": f"{_UNREAD}; faces come from the folder of --data",
    "input_size": f"{_UNREAD}; --crop_size sets the size of a face", "dist": _LAUNCHER, "rank": _LAUNCHER,
    "start_rank": _LAUNCHER, "world_size": _LAUNCHER, "init_method": _LAUNCHER, "backend": _LAUNCHER,
    "device_id": "CUDA_VISIBLE_DEVICES and accelerate launch choose the GPU",
}
"""what to say of each; the program goes on without it"""
INSTEAD = {
    "source_path": _ONE_FOLDER, "json_path": _ONE_FOLDER, "gt_path": _ONE_FOLDER, "train_file": _ONE_FOLDER,
    "val_file": _ONE_FOLDER, "test_file": _ONE_FOLDER,
    "test_path": "the test crops lie under the data set as videos_challenge/ -> --data DIR",
    "prior_path": "priors are columns of the prepared data, not files given at the start -> see docs/migration.md",
}
"""what to write instead; the program ends"""
ONLY_TRAINING = ("train_path", "train_stride", "epochs", "lr", "weights")


RULES = {rule.name: rule.type for rule in fields(Policy) if rule.name != "name"}
"""rules of a policy, which were flags of their own; now --rule NAME=VALUE"""


def translate(args: Sequence[str], program: Literal["train", "infer"]) -> tuple[list[str], list[str]]:
    """Arguments without what has no counterpart, and a line for each that was left out.

    Raises:
        ValueError: an option that would change the result and has to be said otherwise.
    """
    left_out, instead = dict(LEFT_OUT), dict(INSTEAD)
    given = {_name(arg) for arg in args}
    if program == "infer":
        left_out |= dict.fromkeys(ONLY_TRAINING, _TRAINING)
    else:
        instead |= {name: _INFERENCE.format(name) for name in ("val", "eval")}
        if "exp_path" in given:
            left_out["train_path"] = "a run has one folder, that of --exp_path"
    kept, said, dropping = [], [], False
    for arg in _with_rules(args):
        name = _name(arg)
        if name is not None and name in instead:
            raise ValueError(f"--{name}: {instead[name]}")
        if name is None and dropping and arg != "-h":                     # a value of what was left out
            continue
        reason = None if name is None else left_out.get(name)
        dropping = reason is not None
        if dropping:
            said.append(f"--{name} is left out: {reason}")
        else:
            kept.append(arg)
    return kept, said


def _with_rules(args: Sequence[str]) -> Iterator[str]:
    """The same arguments, with --max_gap 30, --end_inclusive and --no_drop_outside as --rule NAME=VALUE."""
    left = iter(args)
    for arg in left:
        name = _name(arg) or ""
        rule = name.removeprefix("no_")
        if rule not in RULES:
            yield arg
        elif RULES[rule] is bool:
            yield from ("--rule", f"{rule}={name == rule}")
        else:
            yield from ("--rule", f"{rule}={arg.partition('=')[2] or next(left, '')}")


def _name(arg: str) -> str | None:
    """The option's name with underscores; None for a value."""
    return arg[2:].partition("=")[0].replace("-", "_") if arg.startswith("--") else None
