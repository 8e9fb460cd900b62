"""Commands run as processes of their own, forked from one that has the slow imports behind it.

A command stands for [sys.executable, ...]: a script, -m module or -c code, with flags. It runs from its first line as
__main__, in its folder, with the environment and the streams that it is given. Where the launcher or the imports are
the point, tests start real interpreters.
"""

import atexit
import functools
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gazepose import tensor_files

ROOT = Path(__file__).resolve().parents[1]


def python(*command: str, cwd: Path, world: int = 1, timeout: float = 240) -> tuple[int, str]:
    """(exit code, everything that was written) of a command; of several processes, their highest and all of it."""
    with tempfile.TemporaryDirectory() as folder:
        logs = [Path(folder) / f"{rank}.log" for rank in range(world)]
        codes = wait(start(*command, cwd=cwd, logs=logs), timeout)
        return max(codes, key=abs), "".join(log.read_text() for log in logs)


def ran(*command: str, cwd: Path, world: int = 1, fails: bool = False) -> str:
    """Everything that a command wrote, which must end well, or with an error."""
    code, output = python(*command, cwd=cwd, world=world)
    assert (code != 0) == fails, output
    return output


def start(*command: str, cwd: Path, logs: Sequence[Path], launcher: bool = False) -> list[int]:
    """Start a process for each log, as a launcher would; their pids. With `launcher` first that of their parent."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {**os.environ, "PYTHONPATH": _path(), "COLUMNS": "120"}
    world: list[dict[str, Any]] = [{"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": len(logs),
                                    "LOCAL_WORLD_SIZE": len(logs), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
                                   if len(logs) > 1 else {} for rank in range(len(logs))]
    if launcher:
        env["TORCHELASTIC_RUN_ID"] = "warm"
    in_process = tensor_files.in_child is tensor_files.convert
    return _ask("start", launcher, [{"argv": command, "cwd": str(cwd), "log": str(log),
                                     "in_process": in_process, "env": {
        **env, **{name: str(value) for name, value in names.items()}}} for log, names in zip(logs, world, strict=True)])


def wait(pids: Sequence[int], seconds: float) -> list[int]:
    """Exit codes of what was started, as subprocess has them; what still runs after so many seconds is killed."""
    return _ask("wait", pids, seconds)


def _path() -> str:
    return os.pathsep.join([str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])


def _ask(*request: Any) -> Any:
    server = _server()
    assert server.stdin and server.stdout
    server.stdin.write(json.dumps(request) + "\n")
    server.stdin.flush()
    return json.loads(server.stdout.readline())


@functools.cache
def _server() -> subprocess.Popen[str]:
    started = subprocess.Popen([sys.executable, "-c", "import warm; warm.serve()"], stdin=subprocess.PIPE, text=True,
                               stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": _path(),
                                                            "OMP_WAIT_POLICY": "PASSIVE"})
    atexit.register(lambda: (started.kill(), started.wait()))
    return started


def serve() -> None:
    """The warm process: imports, then forks what it is asked for."""
    import gc

    import sklearn.linear_model
    import torch._dynamo

    import gazepose.doctor
    import gazepose.experiments.ensemble
    import gazepose.experiments.sweep
    import gazepose.infer
    import gazepose.priors.commands
    import gazepose.report
    import gazepose.synthetic.world
    import gazepose.train
    import gazepose.verbs
    from gazepose.models.backbone import create_backbone
    assert torch and gazepose and sklearn
    create_backbone("test_resnet")                        # traced once here, instead of in each training
    gazepose.train.parse_train(["--preset", "tiny"])      # tyro reads the texts of all flags
    gc.collect()
    gc.freeze()                                           # the garbage collector of a fork leaves shared pages alone
    for line in sys.stdin:
        what, *how = json.loads(line)
        print(json.dumps({"start": _start, "wait": _wait}[what](*how)), flush=True)


def _start(launcher: bool, requests: list[dict[str, Any]]) -> list[int]:
    if launcher:
        read, write = os.pipe()
        pid = os.fork()
        if pid:
            return [pid, *json.loads(os.read(read, 1000))]
    pids: list[int] = []
    for request in requests:
        pid = os.fork()
        if not pid:
            try:
                os.setpgid(0, pids[0] if pids else 0)
                os._exit(_run(request))
            finally:
                os._exit(1)
        pids.append(pid)
        os.setpgid(pid, pids[0])          # here too: the first one's group must be there before the second joins it
    if launcher:
        os.write(write, json.dumps(pids).encode())
        _end_together(set(pids))
    return pids


def _end_together(pids: set[int]) -> None:
    """What a launcher does: once a process fails it ends the others, and then itself."""
    while pids:
        ended, status = os.wait()
        pids.discard(ended)
        for pid in pids if status else ():
            os.kill(pid, signal.SIGTERM)
    os._exit(0)


def _wait(pids: list[int], seconds: float) -> list[int]:
    ends, codes = time.monotonic() + seconds, {}
    while len(codes) < len(pids):
        for pid in set(pids) - set(codes):
            if time.monotonic() > ends:
                os.kill(pid, signal.SIGKILL)
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                codes[pid] = os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    return [codes[pid] for pid in pids]


def _run(request: dict[str, Any]) -> int:
    stream = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for number in (1, 2):
        os.dup2(stream, number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    if request["in_process"]:
        tensor_files.in_child = tensor_files.convert
    first, *rest = request["argv"]
    for name in (rest[0] if rest else "", f"{rest[0] if rest else ''}.__main__"):   # what is imported, but not run
        sys.modules.pop(name, None)
    try:
        if first == "-m":
            sys.argv = rest
            runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        elif first == "-c":
            sys.argv = ["-c", *rest[1:]]
            exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
        else:
            sys.argv = [first, *rest]
            runpy.run_path(first, run_name="__main__")
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return code
