"""The first seconds of a program: Ctrl-C during its slow imports, the death of its launcher, and words to both.

It imports what Python has imported at its start, because Ctrl-C is a traceback until `end_at_interrupt`.
"""

import atexit
import os
import signal
import sys

EXIT_PREEMPTED = 75              # EX_TEMPFAIL of sysexits.h: the same command with --resume goes on
LAUNCHED = {"ACCELERATE_MIXED_PRECISION", "TORCHELASTIC_RUN_ID"}     # set by accelerate's two launchers and torchrun
WORLD_SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")      # set by torchrun and MPI
_PR_SET_PDEATHSIG = 1            # prctl(2)


def without_telemetry() -> None:
    """Have huggingface_hub, before it is imported, send no facts about this machine unless the user wants it.

    Else it asks the hub once a day for a list of programs that may have started this one (/api/agent-harnesses), and
    names the program and the version of torch in every request.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")


def is_alone() -> bool:
    """Whether no launcher says that other processes run beside this one."""
    return all(os.environ.get(name, "1") == "1" for name in WORLD_SIZES)


def called() -> str:
    """How the user wrote this program: gazepose, or python -m gazepose."""
    return "gazepose" if os.path.splitext(os.path.basename(sys.argv[0]))[0] == "gazepose" else "python -m gazepose"


def end_at_interrupt(name: str) -> None:
    """From now on Ctrl-C ends this program with one line and exit code 130, until `processes.command` handles it.

    An exception in the middle of an import may be caught there, or become another. A signal that is ignored stays so.
    """
    def end(number: int, frame: object) -> None:
        if os.environ.get("RANK", "0") == "0":
            say(f"{name}: stopped by SIGINT")
        os._exit(128 + number)

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, end)


_preempted = False


def preempted() -> SystemExit:
    """What ends this program after a stop signal. To be raised when all is said and kept.

    The signal's exception may have come out of a library's lock or of `Thread.join`, which Python before 3.13 then
    takes for ended (its issue 90882). Taking the interpreter apart could wait for such a lock for ever.
    """
    global _preempted
    _preempted = True
    return SystemExit(EXIT_PREEMPTED)


@atexit.register                 # before any other, so it is called after all others
def _leave() -> None:
    """End the process as it is, after `preempted`."""
    if _preempted:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (OSError, ValueError, AttributeError):
                pass
        os._exit(EXIT_PREEMPTED)


def say(line: str) -> None:
    """Print a line on standard error, which may be closed."""
    try:
        sys.stderr.write(line + "\n")
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):
        pass


def tell_launcher(line: str) -> None:
    """Have the launcher's summary, which comes last, show an error."""
    import json
    import time
    if file := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        with open(file, "w", encoding="utf-8") as record:
            json.dump({"message": line, "timestamp": int(time.time())}, record)


def end_with_parent(number: int) -> None:
    """Have the kernel send this process a signal when its parent dies (Linux; elsewhere it outlives its parent)."""
    if sys.platform != "linux":
        return
    import ctypes
    parent = os.getppid()
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:                   # the parent died before prctl
        os.kill(os.getpid(), number)


def end_with_launcher() -> None:
    """Treat the death of the launcher as a SIGTERM, so that it leaves no process behind.

    A process that no launcher started may outlive its parent, as under nohup.
    """
    if not LAUNCHED.isdisjoint(os.environ):
        end_with_parent(signal.SIGTERM)
