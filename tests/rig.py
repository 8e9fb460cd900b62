"""A rig of trainings as small as they come, forked from the warm process.

`Rig.start` starts the processes of one run as a launcher would. What is to go wrong in them is a function of this
module, by name and arguments, called in each of them before train.main.
"""

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import warm

SMALL = ["--preset", "tiny", "--crop_size", "32", "--num_encoder_layers", "1", "--num_decoder_layers", "1", "--dmodel",
         "32", "--dim_feedforward", "32", "--nheads", "2", "--output_stride", "32", "--backbone", "test_resnet",
         "--batch_size", "4", "--epochs", "2", "--train_stride", "1", "--val_stride", "1", "--windows_per_segment", "2",
         "--limit", "23", "--save_every", "0min", "--num_workers", "0", "--prior_head", "--lr", "1e-3",
         "--allow_unknown_priors"]
NARROW = 32                                             # instead of VECTOR
SHORT = ("--epochs", "1", "--limit", "8")               # two steps
STOP_AFTER_ONE = ("after_step", 1, "hit", int(signal.SIGTERM))


@dataclass
class Run:
    folder: Path
    pids: list[int]

    def wait(self, seconds: float = 60) -> list[int]:
        """Exit codes of the processes, as subprocess has them; what still runs after so many seconds is killed."""
        return warm.wait(self.pids, seconds)

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


@dataclass
class Rig:
    """`index`: the rows to train on; `folder`: where runs go.

    `narrow`: with an LSTM of that width: a run has 9 MB and not 58. Only runs of narrow rigs read its checkpoints.
    """

    index: Path
    folder: Path
    narrow: bool = False

    def start(self, name: str, *flags: str, world: int = 1, fault: tuple[Any, ...] = ("nothing",),
              launcher: bool = False) -> Run:
        """A run of so many processes into the folder of that name; with a launcher, its pid comes first."""
        folder = self.folder / name
        pids = warm.start("-c", self.code(*fault), "--exp_path", str(folder), *SMALL, *flags, cwd=self.folder,
                          launcher=launcher, logs=[Path(f"{folder}.{rank}.log") for rank in range(world)])
        return Run(folder, pids)

    def code(self, *fault: Any) -> str:
        """What each process of a run does."""
        settings = json.dumps([str(self.index), fault, self.narrow])
        return f"import json, rig; rig.train(*json.loads({settings!r}))"

    def run(self, name: str, *flags: str, ends: int = 0, **how: Any) -> Run:
        """The same, to its end with that exit code."""
        run = self.start(name, *flags, **how)
        codes = run.wait()
        assert set(codes) == {ends}, f"{codes}\n" + "\n".join(run.log(rank) for rank in range(len(codes)))
        return run

    def fork(self, what: str, *how: Any) -> int:
        """A process that calls a function of this module, in a world without training; its pid."""
        code = f"import rig; rig.{what}(*{json.dumps(how)})"
        return warm.start("-c", code, cwd=self.folder, logs=[self.folder / f"{what}.log"])[0]


def resumed(rig: Rig, folder: Path, *flags: str, ends: int = 0) -> str:
    """The output of a run that is resumed with --resume --exp_path RUN and nothing else."""
    ended, text = warm.python("-c", rig.code("nothing"), "--resume", "--exp_path", str(folder), *flags, cwd=rig.folder)
    assert ended == ends, text
    return text


def config_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text())


def train(index: str, fault: Sequence[Any], narrow: bool) -> None:
    """What each process of a run does: train.main on the rows of an index, with its fault."""
    import torch

    from gazepose import train
    from gazepose.data.index import Index
    from gazepose.models import gazepose
    from gazepose.source import Source
    from gazepose.startup import end_with_launcher
    if narrow:
        gazepose.VECTOR = NARROW
    end_with_launcher()
    Source.ready = lambda self, processes: self
    Source.split = lambda self, name, config, processes: Index.open(Path(index))
    torch.set_num_threads(1)
    globals()[fault[0]](*fault[1:])
    train.main()


# what can go wrong

def nothing() -> None:
    pass


def with_hub(constants: dict[str, Any]) -> None:
    """Another hub: names and values of huggingface_hub.constants."""
    from huggingface_hub import constants as hub
    for name, value in constants.items():
        setattr(hub, name, value)


def after_step(step: int, what: str, how: Any = None, rank: int = 0) -> None:
    """Do something once that many steps are recorded."""
    from gazepose.training.runlog import RunLog
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


def in_validation(number: int) -> None:
    """A signal with the first batch that is scored in a run."""
    from gazepose.training import engine
    columns = engine._columns

    def scored(*how: Any) -> Any:
        engine._columns = columns
        hit(number)
        return columns(*how)
    engine._columns = scored


def close_output() -> None:
    """Whoever read this process's output has gone."""
    read, write = os.pipe()
    os.close(read)
    for stream in (1, 2):
        os.dup2(write, stream)


def fail(_: int) -> None:
    raise ZeroDivisionError("on purpose")


def preparing(rank: int, what: str, *how: Any) -> None:
    """One rank does something while the others wait for its part of the preparation; silence counts after 2 seconds."""
    from gazepose import heartbeat
    from gazepose.source import Source
    heartbeat.SILENT = 2.0
    split = Source.split

    def split_slowly(self: Source, name: str, config: Any, processes: Any) -> Any:
        if int(os.environ.get("RANK", 0)) == rank and name == "val":
            globals()[what](*how)
        processes.barrier()
        return split(self, name, config, processes)
    Source.split = split_slowly


def waiting_in_training(rank: int, seconds: float, stuck: float = 600) -> None:
    """After one step, one rank makes the others wait; collectives that are not in step may take 1.5 seconds."""
    from datetime import timedelta

    from gazepose import heartbeat
    from gazepose.training import distributed
    from gazepose.training.runlog import RunLog
    heartbeat.SILENT, heartbeat.STUCK = 2.0, stuck
    start = RunLog.start

    def limited(self: RunLog, *about: Any) -> None:
        start(self, *about)
        distributed._limit_collectives(timedelta(seconds=1.5))
    RunLog.start = limited
    after_step(1, "sleep", seconds, rank)


def fail_at_once() -> None:
    """Before anything is prepared."""
    from gazepose import train
    train.share_preparation = lambda *_: fail(0)


def other_flag_on_rank_1() -> None:
    if os.environ.get("RANK") == "1":
        sys.argv += ["--lr", "0.5"]


def other_shard_on_rank_1() -> None:
    from gazepose.data.index import Index
    read = Index.__init__

    def changed(self: Index, folder: Path, contents: dict[str, Any]) -> None:
        read(self, folder, contents)
        if os.environ.get("RANK") == "1":
            contents["shards"][0]["sha256"] = "other"
    Index.__init__ = changed


def other_column_on_rank_1(name: str) -> None:
    from gazepose.data.index import Index
    read = Index.__init__

    def changed(self: Index, folder: Path, contents: dict[str, Any]) -> None:
        read(self, folder, contents)
        if os.environ.get("RANK") == "1":
            contents["files"][name] = {"sha256": "other"}
    Index.__init__ = changed


def not_finite() -> None:
    from gazepose.training import engine
    real = engine.global_loss

    def spoilt(*args: Any, **options: Any) -> Any:
        share, figures = real(*args, **options)
        return share * float("nan"), figures
    engine.global_loss = spoilt


def with_gaze() -> None:
    """Faces whose gaze is known."""
    import numpy as np

    from gazepose.data.index import Index
    read = Index.__init__

    def known(self: Index, *args: Any) -> None:
        read(self, *args)
        self.gaze = np.zeros((len(self), 2), np.float32)
    Index.__init__ = known


def in_a_save(step: int, what: str, *how: Any) -> None:
    """Do something once a save of that step has written the model and the optimiser."""
    from gazepose.training import checkpoint
    write = checkpoint.write_json

    def written(path: Path, content: Any) -> None:
        write(path, content)
        if path.name == checkpoint.PROGRESS and content["step"] == step:
            globals()[what](*how)
    checkpoint.write_json = written


def note_rows() -> None:
    """Every row that is learnt from, one a line, in rows.<rank> beside the run."""
    from gazepose.training import engine
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

    from gazepose.training.checkpoint import Progress, save_training
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
    from gazepose.training import checkpoint
    remaining = number

    def counted(act: Callable[..., Any]) -> Callable[..., Any]:
        def acted(*args: Any, **options: Any) -> Any:
            nonlocal remaining
            remaining -= 1
            if remaining < 0:
                os._exit(9)
            return act(*args, **options)
        return acted
    checkpoint.save_tensors = counted(checkpoint.save_tensors)
    for owner, name in ((os, "fsync"), (os, "replace"), (Path, "rename"), (Path, "mkdir"), (shutil, "rmtree")):
        setattr(owner, name, counted(getattr(owner, name)))
    save_once(Path(folder), step)


def unkeyed() -> None:
    """Augmentation from the state of a generator, as most loaders have it."""
    import numpy as np

    from gazepose.data import windows
    random = np.random.default_rng(0)
    windows.uniform = lambda *keys: random.random(np.broadcast_shapes(*(np.shape(key) for key in keys)))
