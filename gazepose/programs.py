"""Training and inference as programs: train.py, infer.py, and the verbs train and infer of `gazepose`."""

import importlib
import os

from gazepose.output import lasting_output
from gazepose.startup import end_at_interrupt, end_with_launcher

PROGRAMS = ("train", "infer")


@lasting_output()
def program(name: str, flags: list[str] | None = None) -> None:
    """Train or infer. The flags are read first: then --help, and an error in them, need not wait for torch.

    Args:
        name: train or infer. flags: default: those of the command line.
    """
    end_at_interrupt(name)
    end_with_launcher()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")   # before torch: waiting threads must not spin on shared cores
    from gazepose.config import InferConfig, parse, parse_train
    given = parse_train(flags) if name == "train" else parse(InferConfig, flags)
    importlib.import_module(f"gazepose.{name}").main(given)
