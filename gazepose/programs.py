"""Training and inference as programs: train.py, infer.py, and the verbs train, infer and launch of `gazepose`."""

import importlib
import os
import signal
import sys
from typing import Any

from gazepose.errors import UsageError
from gazepose.machine import keep_freed_memory, let_waiting_threads_sleep
from gazepose.output import QUIET_HELP, inform, lasting_output, take_quiet
from gazepose.startup import called, end_at_interrupt, end_with_launcher, without_telemetry

PROGRAMS = ("train", "infer")
LAUNCHED = {"train": ["gazepose.train"], "infer": ["gazepose.infer"], "prepare": ["gazepose", "prepare"]}
"""verbs that several processes share -> the module that Accelerate's launcher starts, and its first argument"""


@lasting_output()
def program(name: str, flags: list[str] | None = None) -> None:
    """Train or infer. The flags are read first: then --help, and an error in them, need not wait for torch.

    Args:
        name: train or infer. flags: default: those of the command line.
    """
    end_at_interrupt(name)
    end_with_launcher()
    without_telemetry()
    let_waiting_threads_sleep()
    from gazepose.config import InferConfig, parse, parse_train
    given: Any
    if name == "train":
        given = parse_train(flags)
        keep_freed_memory()
        if given[0].data.num_workers:            # their server imports while this process does
            from gazepose.processes import shield_workers
            shield_workers()
    else:
        given = parse(InferConfig, flags)
    if os.environ.get("RANK", "0") == "0":
        inform(f"{name}: starting; importing torch takes some seconds", file=sys.stderr)
    importlib.import_module(f"gazepose.{name}").main(given)


def launch(words: list[str], /) -> None:
    """Start train, infer or prepare with `accelerate launch`, in this process, whose options come before the verb.

    Raises:
        UsageError: no such configuration, or words without a verb. SystemExit: after the help, or the launcher's own.
    """
    from gazepose.training.launcher import configurations, with_paths
    place = next((number for number, word in enumerate(words) if word in LAUNCHED), None)
    if place is None or words[0] in ("-h", "--help"):
        lines = [f"  {name:14}  {text}" for name, text in configurations().items()]
        print("\n".join([
            f"usage: {called()} launch [--config_file NAME_OR_FILE] [OPTION ...] train|infer|prepare FLAG ...", "",
            "Start one of these verbs in several processes. Options are those of `accelerate launch`.", "",
            "names of --config_file:", *lines, "", QUIET_HELP]))
        if not words or words[0] in ("-h", "--help"):
            raise SystemExit(0)
        raise UsageError("no verb -> add train, infer or prepare after the options")
    module = LAUNCHED[words[place]]
    take_quiet(words[:place])                    # before the verb it is an option of Accelerate's launcher too
    options = [*with_paths(words[:place]), "-m", *module, *words[place + 1:]]
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)        # the launcher waits for its processes
    from accelerate.commands.launch import launch_command, launch_command_parser
    launch_command(launch_command_parser().parse_args(options))
