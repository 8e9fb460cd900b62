"""This machine as gazepose would see Windows or macOS: what these lack is hidden from the package, and only from it.

Other packages have their own ways on each system; here they go on with those of this one.
"""

import builtins
import pathlib
import sys
import tempfile
import types
from typing import Any

POSIX = {
    "os": ("sched_getaffinity", "sched_setaffinity", "fork", "forkpty", "mkfifo", "pread", "pwrite", "sysconf",
           "killpg", "getpgid", "setsid", "setpgid", "getuid", "geteuid", "chown", "fchmod", "wait", "WNOHANG",
           "nice", "uname", "statvfs", "posix_fadvise", "O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_DIRECTORY",
           "register_at_fork"),
    "signal": ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGKILL", "SIGSTOP", "SIGCONT", "SIGALRM", "SIGCHLD", "SIGPIPE",
               "alarm", "setitimer", "pause", "pthread_kill", "pthread_sigmask", "SIG_BLOCK", "SIG_UNBLOCK",
               "SIG_SETMASK"),
    "multiprocessing.context": ("ForkServerContext", "ForkServerProcess", "ForkContext", "ForkProcess"),
    "socket": ("AF_UNIX",)}
LINUX = {"os": ("sched_getaffinity", "sched_setaffinity", "posix_fadvise"), "resource": ("prlimit",)}
HIDDEN = {"win32": POSIX, "darwin": LINUX}
ABSENT = {"win32": ("fcntl", "resource", "termios", "tty", "pty", "pwd", "grp", "multiprocessing.forkserver",
                    "multiprocessing.resource_tracker", "decord"), "darwin": ("decord",)}
FOLDERS = ("/proc", "/dev")
OURS = tempfile.gettempdir()                 # tests may have their files in /dev/shm


class Seen(types.ModuleType):
    """A module without some of its names."""

    def __init__(self, module: types.ModuleType, hidden: tuple[str, ...], **other: Any) -> None:
        super().__init__(module.__name__)
        self.__dict__.update(_module=module, _hidden=hidden, _other=other, __path__=getattr(module, "__path__", None))

    def __getattr__(self, name: str) -> Any:
        if name in self._hidden:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r} on this system")
        return self._other[name] if name in self._other else getattr(self._module, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._module, name, value)


def pretend(platform: str) -> None:
    """From now on, gazepose is imported as on win32 or darwin."""
    plain, absent, missing = builtins.__import__, ABSENT[platform], {f"{name}." for name in ABSENT[platform]}
    import multiprocessing
    other: dict[str, dict[str, Any]] = {"sys": {"platform": platform}}
    if platform == "win32":
        other |= {"os": {"name": "nt", "O_BINARY": 0}, "multiprocessing": {"get_all_start_methods": lambda: ["spawn"]}}
    modules = {**HIDDEN[platform], **{name: () for name in other if name not in HIDDEN[platform]}}
    seen = {name: Seen(plain(name, fromlist=["x"]), hidden, **other.get(name, {})) for name, hidden in modules.items()}

    def imported(name: str, scope: Any = None, local: Any = None, fromlist: Any = (), level: int = 0) -> Any:
        if (scope or {}).get("__name__", "").split(".")[0] != "gazepose":
            return plain(name, scope, local, fromlist, level)
        for whole in (name, *(f"{name}.{part}" for part in fromlist or ())):
            if whole in absent or f"{whole.rpartition('.')[0]}." in missing:
                raise ModuleNotFoundError(f"No module named {whole!r}", name=whole)
        found = plain(name, scope, local, fromlist, level)
        return seen.get(name if fromlist else name.split(".")[0], found)

    builtins.__import__ = imported
    for method in ("read_text", "read_bytes", "is_dir", "exists", "open"):
        _hide_folders(method)
    assert multiprocessing


def _hide_folders(method: str) -> None:
    before = getattr(pathlib.Path, method)

    def hidden(path: pathlib.Path, *args: Any, **how: Any) -> Any:
        missing = str(path).startswith(FOLDERS) and not str(path).startswith(OURS)
        if missing and sys._getframe(1).f_globals["__name__"].startswith("gazepose"):
            if method in ("is_dir", "exists"):
                return False
            raise FileNotFoundError(2, "no such file", str(path))
        return before(path, *args, **how)
    setattr(pathlib.Path, method, hidden)
