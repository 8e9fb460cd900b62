"""A warm rig: trainings as small as they come, forked from a process that has the slow imports behind it.

`Rig.start` starts the processes of one run as a launcher would. What is to go wrong in them is a function of this
module, by name and arguments, called in each of them before train.main.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SMALL = ["--preset", "tiny", "--crop_size", "32", "--num_encoder_layers", "1", "--num_decoder_layers", "1", "--dmodel",
         "32", "--dim_feedforward", "32", "--nheads", "2", "--output_stride", "32", "--backbone", "test_resnet",
         "--batch_size", "4", "--epochs", "2", "--train_stride", "1", "--val_stride", "1", "--windows_per_segment", "2",
         "--limit", "23", "--save_minutes", "0", "--num_workers", "0", "--prior_head", "--lr", "1e-3"]


@dataclass
class Run:
    rig: "Rig"
    folder: Path
    pids: list[int]

    def wait(self, seconds: float = 60) -> list[int]:
        """Exit codes of the processes, as subprocess has them; what still runs after so many seconds is killed."""
        return self.rig.ask("wait", self.pids, seconds)

    def log(self, rank: int = 0) -> str:
        return Path(f"{self.folder}.{rank}.log").read_text()

    def status(self) -> dict[str, Any]:
        return json.loads((self.folder / "status.json").read_text())

    def until(self, condition: Callable[[], Any], seconds: float = 60) -> None:
        """Wait for something that the run is to do."""
        ends = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < ends, self.log()
            time.sleep(0.01)


class Rig:
    """The warm process, as seen by the tests. `index`: the rows to train on."""

    def __init__(self, index: Path, folder: Path):
        self.index, self.folder = index, folder
        path = os.pathsep.join([str(ROOT / "tests"), str(ROOT), os.environ.get("PYTHONPATH", "")])
        self.server = subprocess.Popen([sys.executable, "-c", "import rig; rig.serve()"], stdin=subprocess.PIPE,
                                       stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path})

    def ask(self, *request: Any) -> Any:
        assert self.server.stdin and self.server.stdout
        self.server.stdin.write(json.dumps(request) + "\n")
        self.server.stdin.flush()
        return json.loads(self.server.stdout.readline())

    def start(self, name: str, *flags: str, world: int = 1, fault: tuple[Any, ...] = ("nothing",),
              launcher: bool = False) -> Run:
        """A run of so many processes into the folder of that name; with a launcher, which is then the only child."""
        folder = self.folder / name
        flags = ("--exp_path", str(folder), *flags)
        return Run(self, folder, self.ask("launch" if launcher else "start", str(self.index), flags, world, fault))

    def fork(self, what: str, *how: Any) -> int:
        """A process that calls a function of this module, in a world without training; its pid."""
        return self.ask("fork", what, how)

    def run(self, name: str, *flags: str, ends: int = 0, **how: Any) -> Run:
        """The same, to its end with that exit code."""
        run = self.start(name, *flags, **how)
        codes = run.wait()
        assert set(codes) == {ends}, f"{codes}\n" + "\n".join(run.log(rank) for rank in range(len(codes)))
        return run

    def close(self) -> None:
        assert self.server.stdin
        self.server.stdin.close()
        self.server.wait()


def serve() -> None:
    """The warm process: imports, then forks what it is asked for."""
    import train
    for line in sys.stdin:
        what, *how = json.loads(line)
        made = {"start": _start, "launch": _launch, "fork": _fork, "wait": _wait}
        print(json.dumps(made[what](*how)), flush=True)
    assert train


def _fork(what: str, how: list[Any]) -> int:
    pid = os.fork()
    if not pid:
        try:
            globals()[what](*how)
        except BaseException:
            os._exit(1)
        os._exit(0)
    return pid


def _launch(*how: Any) -> list[int]:
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        os.environ["TORCHELASTIC_RUN_ID"] = "rig"
        pids = _start(*how)
        os.write(write, json.dumps(pids).encode())
        signal.pause()
    return [pid, *json.loads(os.read(read, 1000))]


def _start(index: str, flags: list[str], world: int, fault: list[Any]) -> list[int]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pids = []
    for rank in range(world):
        pid = os.fork()
        if not pid:
            code = 1
            try:
                os.setpgid(0, pids[0] if pids else 0)
                names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world,
                         "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port} if world > 1 else {}
                os.environ.update({name: str(value) for name, value in names.items()})
                code = _train(index, flags, rank, fault)
            finally:
                os._exit(code)
        pids.append(pid)
    return pids


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


def _train(index: str, flags: list[str], rank: int, fault: list[Any]) -> int:
    import atexit
    import traceback

    import torch

    import train
    from gazepose.data.index import Index
    from gazepose.process import end_with_launcher
    from gazepose.sources import Source
    end_with_launcher()
    log = os.open(f"{flags[1]}.{rank}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.argv = ["train.py", *SMALL, *flags]
    Source.ready = lambda self, processes: self
    Source.split = lambda self, name, processes, **how: Index.open(Path(index))
    torch.set_num_threads(1)
    try:
        globals()[fault[0]](*fault[1:])
        train.main()
        code = 0
    except SystemExit as error:
        print(error, file=sys.stderr)
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return code


# what can go wrong

def nothing() -> None:
    pass


def after_step(step: int, what: str, how: Any = None, rank: int = 0) -> None:
    """Do something once that many steps are recorded."""
    from gazepose.runlog import RunLog
    record = RunLog.step

    def recorded(self: RunLog, done: Any, epoch: int) -> None:
        record(self, done, epoch)
        if done.step + 1 == step and int(os.environ.get("RANK", 0)) == rank:
            globals()[what](*([] if how is None else [how]))
    RunLog.step = recorded


def hit(number: int, times: int = 1) -> None:
    for _ in range(times):
        os.kill(os.getpid(), number)


def sleep(seconds: float = 600) -> None:
    time.sleep(seconds)


def group() -> None:
    """What a scheduler does, loader workers and the process they are forked from included."""
    os.killpg(0, signal.SIGTERM)


def fail(_: int) -> None:
    raise ZeroDivisionError("on purpose")


def in_a_save(step: int, what: str, *how: Any) -> None:
    """Do something once a save of that step has written the model and the optimiser."""
    from gazepose import checkpoint
    write = checkpoint.write_json

    def written(path: Path, content: Any) -> None:
        write(path, content)
        if path.name == checkpoint.PROGRESS and content["step"] == step:
            globals()[what](*how)
    checkpoint.write_json = written


def note_rows() -> None:
    """Every row that is learnt from, one a line, in rows.<rank> beside the run."""
    from gazepose import engine
    parts = engine.loss_parts

    def noted(logits: Any, gaze: Any, batch: dict[str, Any], rule: Any) -> Any:
        with open(f"{sys.argv[sys.argv.index('--exp_path') + 1]}.rows.{os.environ.get('RANK', 0)}", "a") as file:
            file.writelines(f"{row}\n" for row in batch["row"].tolist() if row >= 0)
        return parts(logits, gaze, batch, rule)
    engine.loss_parts = noted


def rows_and_stop(step: int) -> None:
    note_rows()
    after_step(step, "hit", signal.SIGTERM)


# saves, without a training

def save_once(folder: Path, step: int, value: float | None = None) -> None:
    """A checkpoint whose weights are all its step, or that value."""
    import torch

    from gazepose.checkpoint import Progress, save_training
    model = torch.nn.Linear(8, 8)
    for parameter in model.parameters():
        torch.nn.init.constant_(parameter, step if value is None else value)
        parameter.grad = torch.zeros_like(parameter)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0)
    optimizer.step()
    save_training(folder, model, optimizer, None, Progress(step=step), {})


def save_for_ever(folder: str, step: int) -> None:
    while True:
        save_once(Path(folder), step)
        step += 1


def save_and_die(folder: str, step: int, number: int) -> None:
    """Die before the number-th thing that a save does to the disk."""
    from gazepose import checkpoint
    left = number

    def counted(act: Callable[..., Any]) -> Callable[..., Any]:
        def acted(*args: Any, **options: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                os._exit(9)
            return act(*args, **options)
        return acted
    checkpoint.save_file = counted(checkpoint.save_file)
    for owner, name in ((os, "fsync"), (os, "replace"), (Path, "rename"), (Path, "mkdir"), (shutil, "rmtree")):
        setattr(owner, name, counted(getattr(owner, name)))
    save_once(Path(folder), step)


def unkeyed() -> None:
    """Augmentation from the state of a generator, as most loaders have it."""
    import numpy as np

    from gazepose.data import windows
    random = np.random.default_rng(0)
    windows.uniform = lambda *keys: random.random(np.broadcast_shapes(*(np.shape(key) for key in keys)))
