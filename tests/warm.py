"""Commands run as processes of their own, forked from one that has the slow imports behind it.

`python(...)` stands for subprocess.run([sys.executable, ...]): the script runs from its first line as __main__, in the
folder, with the environment and the streams that it is given. Where the launcher or the imports are the point, tests
start real interpreters.
"""

import atexit
import functools
import json
import os
import runpy
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def python(*command: str, cwd: Path, timeout: float = 240) -> tuple[int, str]:
    """(exit code, everything that was written) of `python COMMAND...`: a script, -m module or -c code, with flags."""
    with tempfile.TemporaryDirectory() as folder:
        said = Path(folder) / "said"
        server = _server()
        assert server.stdin and server.stdout
        server.stdin.write(json.dumps({"argv": command, "cwd": str(cwd), "said": str(said), "timeout": timeout,
                                       "env": {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "120"}}) + "\n")
        server.stdin.flush()
        code = json.loads(server.stdout.readline())
        return code, said.read_text()


@functools.cache
def _server() -> subprocess.Popen[str]:
    path = os.pathsep.join([str(ROOT / "tests"), str(ROOT)])
    started = subprocess.Popen([sys.executable, "-c", "import warm; warm.serve()"], stdin=subprocess.PIPE, text=True,
                               stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path,
                                                            "OMP_WAIT_POLICY": "PASSIVE"})
    atexit.register(started.kill)
    return started


def serve() -> None:
    """The warm process: imports, then forks a child for each line that it reads."""
    import torch._dynamo

    import gazepose.__main__
    import infer
    import train
    assert torch and train and infer and gazepose
    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if not pid:
            os._exit(_run(request))
        ends = time.monotonic() + request["timeout"]
        while not (ended := os.waitpid(pid, os.WNOHANG))[0]:
            if time.monotonic() > ends:
                os.kill(pid, 9)
            time.sleep(0.01)
        print(os.waitstatus_to_exitcode(ended[1]), flush=True)


def _run(request: dict[str, Any]) -> int:
    stream = os.open(request["said"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for number in (1, 2):
        os.dup2(stream, number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    first, *rest = request["argv"]
    for name in ("train", "infer"):                                    # what is imported, but not run
        sys.modules.pop(name)
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
