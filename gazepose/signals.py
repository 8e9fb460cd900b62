"""The signals that a system has. Windows lacks most of them, and can neither block one nor send one to a thread."""

import _thread
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

STOP_SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1")
                     if hasattr(signal, name))
_mask: Any = getattr(signal, "pthread_sigmask", None)
_BLOCK, _UNBLOCK, _SET = (getattr(signal, name, None) for name in ("SIG_BLOCK", "SIG_UNBLOCK", "SIG_SETMASK"))
_send: Any = getattr(signal, "pthread_kill", None)


@contextmanager
def stop_signals_blocked() -> Iterator[None]:
    """Processes started in this block hear no stop signal until `begin_worker`; this one hears them after the block."""
    if _mask is None:
        yield
        return
    before = _mask(_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        _mask(_SET, before)


def unblock_sigterm() -> None:
    """Hear SIGTERM again."""
    if _mask:
        _mask(_UNBLOCK, {signal.SIGTERM})


def wake_main_thread() -> None:
    """Run the main thread's handler of SIGTERM. Where a signal can be sent, it also interrupts a system call."""
    if _send:
        _send(threading.main_thread().ident or 0, signal.SIGTERM)
    else:
        _thread.interrupt_main(signal.SIGTERM)
