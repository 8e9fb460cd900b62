"""Several processes: starting Accelerate, sharing preparation, and sending the main process's values to all."""

import atexit
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from accelerate import Accelerator, DataLoaderConfiguration, PartialState
from accelerate.utils import InitProcessGroupKwargs, broadcast_object_list

from gazepose.data.config import Disk
from gazepose.heartbeat import RankWatch
from gazepose.machine import cores
from gazepose.output import inform
from gazepose.processes import Processes, end_now
from gazepose.startup import LAUNCHED

PREPARING = timedelta(days=30)
"""how long processes wait for each other's videos; the death of a process is noticed at once, and RankWatch notices one
that is stopped"""
STUCK = timedelta(minutes=5)
"""collective timeout at the start and the end of a program, by the clock; RankWatch watches what lies between"""
SILENT = 10.0
"""seconds without a word in which processes wait for each other's start"""
Value = TypeVar("Value")


class Informing(Accelerator):
    """Its lines are information, which --quiet drops."""

    def print(self, *words: Any) -> None:
        if self.is_main_process:
            inform(" ".join(map(str, words)))


def start_accelerator(**options: Any) -> Accelerator:
    """Create the Accelerator. Without a GPU, pass `cpu=True`: otherwise each CPU process believes it is alone. Also
    divide the cores among the processes of this machine, because launchers set one thread each.

    Args:
        options: of Accelerator.

    Raises:
        ValueError: the launcher was configured for FSDP; processes did not come.
    """
    if os.environ.get("ACCELERATE_USE_FSDP") == "true":
        raise ValueError("FSDP is not supported, because a model has only 45 MB -> use a configuration without FSDP, "
                         "such as `gazepose launch --config_file gpu4 train`")
    with waiting_for_processes():
        accelerator = Informing(cpu=not torch.accelerator.is_available(),
                                dataloader_config=DataLoaderConfiguration(non_blocking=True),
                                kwargs_handlers=[InitProcessGroupKwargs(timeout=STUCK)], **options)
    if accelerator.device.type == "cpu":
        local = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
        torch.set_num_threads(max(1, cores() // local))
        # threads add up gradients in any order otherwise; filling fresh memory on top would only cost time
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False    # type: ignore[attr-defined]
    return accelerator


@contextmanager
def waiting_for_processes() -> Iterator[None]:
    """Around the start of torch.distributed: say so when processes that the environment names do not come.

    Raises:
        ValueError: they have not come within the time limit, nothing says where they meet, or its port is in use.
    """
    world, local = (os.environ.get(name, "1") for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    if sys.platform == "linux" and world == local != "1":              # one machine: nobody else can connect
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True" and "MASTER_PORT" in os.environ:
            meet_on_loopback(int(os.environ["MASTER_PORT"]))
    where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT', '29500')}"
    others = (f"for the other processes at {where}, because the environment says WORLD_SIZE={world} -> start "
              "them, with a launcher; or, if this process is to be alone, `unset WORLD_SIZE RANK LOCAL_RANK`")
    if world != "1" and "MASTER_ADDR" not in os.environ:
        raise ValueError(f"cannot look {others}")
    timer = threading.Timer(SILENT, lambda: print(f"world: still waiting {others}", file=sys.stderr, flush=True))
    timer.daemon = True
    if world != "1":
        timer.start()
    try:
        yield
    except dist.DistError as error:
        if "imed out" not in str(error):
            raise
        raise ValueError(f"waited in vain {others}") from None
    finally:
        timer.cancel()


def meet_on_loopback(port: int) -> None:
    """Have the processes of one machine meet at a store of rank 0 that listens on loopback alone. Torch's own would
    listen on all interfaces. A launcher's store, which listens before this program starts, is not changed."""
    global _store
    if os.environ.get("RANK") == "0":
        try:
            listener = socket.create_server(("127.0.0.1", port))
        except OSError as error:
            raise ValueError(f"port {port} of this machine cannot be used ({error.strerror}) -> set MASTER_PORT to "
                             "another for all processes") from None
        _store = dist.TCPStore("127.0.0.1", port, is_master=True, wait_for_workers=False,  # type: ignore[attr-defined]
                               multi_tenant=True, master_listen_fd=listener.detach())
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "TORCHELASTIC_USE_AGENT_STORE": "True"}     # the others only connect


_store: Any = None               # it serves as long as it is referenced


def check_processes(accelerator: Accelerator, processes: str | None, sync_batchnorm: bool, accumulation: int
                    ) -> None:
    """Refuse what the processes that were started cannot do.

    Args:
        processes: the number that the user counts on; None or any: any number.
        accumulation: batches per optimiser step by our flag; Accelerate takes an environment variable first.

    Raises:
        ValueError: naming the flag and the reason.
    """
    if processes not in (None, "any", str(accelerator.num_processes)):
        raise ValueError(f"--processes {processes}, but the launcher has started {accelerator.num_processes} -> "
                         f"accelerate launch --num_processes {processes} starts that many; or leave --processes out")
    if accelerator.gradient_accumulation_steps != accumulation:
        raise ValueError(f"--gradient_accumulation_steps {accumulation}, but the launcher has set "
                         f"{accelerator.gradient_accumulation_steps} -> give both the same number, or unset "
                         "ACCELERATE_GRADIENT_ACCUMULATION_STEPS")
    tasks = os.environ.get("SLURM_STEP_NUM_TASKS", "1")
    if accelerator.num_processes == 1 and tasks != "1" and LAUNCHED.isdisjoint(os.environ):
        raise ValueError(f"srun started this program {tasks} times, and each would train alone -> sbatch "
                         "launch/slurm.sh FLAG ... starts processes that know each other (docs/cluster.md); for one "
                         "process: srun --ntasks=1")
    if sync_batchnorm and accelerator.device.type == "cpu":
        raise ValueError("--sync_batchnorm: torch's SyncBatchNorm works on GPUs only, and these processes are on cpu "
                         "-> leave it out; then BatchNorm uses the windows of each process alone")
    if sync_batchnorm and accelerator.num_processes == 1:
        accelerator.print("--sync_batchnorm changes nothing: there is one process")


def check_alike(gather: Callable[[Any], list[Any]], what: str, facts: Mapping[str, Any], remedy: str) -> None:
    """Refuse to go on where a process differs from rank 0; all processes call it together.

    Args:
        gather: a value of each process -> all of them by rank.
        what: the facts are, for the message; facts: by name, equal on all processes.

    Raises:
        ValueError: on all processes, naming the first rank that differs, and its facts.
    """
    ranks = gather(dict(facts))
    for rank, other in enumerate(ranks):
        names = [name for name in {**ranks[0], **other} if ranks[0].get(name) != other.get(name)]
        if names:
            first = ", ".join(f"{name} {other.get(name)!s:.60} (rank 0: {ranks[0].get(name)!s:.60})"
                              for name in names[:5])
            raise ValueError(f"rank {rank} has other {what} than rank 0: {first}"
                             f"{f' and {len(names) - 5} more' if len(names) > 5 else ''} -> {remedy}")


def from_main(accelerator: Accelerator, find: Callable[[], Value]) -> Value:
    """Run `find` on the main process and return its value on all processes.

    Raises:
        ValueError, FileNotFoundError: on all processes, where `find` raises it.
    """
    value: Any = None
    error: Exception | None = None
    if accelerator.is_main_process:
        try:
            value = find()
        except (ValueError, FileNotFoundError) as caught:
            error = caught
    value, error = broadcast_object_list([value, error])
    if error is not None:
        raise error
    return value


def share_preparation(state: Accelerator | PartialState, disk: Disk) -> Processes:
    """The processes that prepare data together: all on a shared disk, or those of one machine with a disk of its own.

    Their barriers use gloo on any device: it notices a dead process, and preparing may take longer than a step. A rank
    that is stopped or hangs ends those that wait for it (heartbeat.py), here and in `in_step`.
    """
    global _watch
    if state.num_processes == 1:
        return Processes()
    everyone: Any = dist.new_group(backend="gloo", timeout=PREPARING)

    def gather_now(value: Any) -> list[Any]:
        values: list[Any] = [None] * state.num_processes
        dist.all_gather_object(values, value, group=everyone)
        return values

    names = gather_now(f"process {os.getpid()} on {socket.gethostname()}")
    store = dist.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)  # type: ignore[attr-defined]
    watch = RankWatch(store, state.process_index, names, lambda line: end_now("failed", line, 1),
                      lambda line: print(line, file=sys.stderr, flush=True))

    def gather(value: Any) -> list[Any]:
        with watch.waiting():
            return gather_now(value)

    first = state.process_index - state.local_process_index             # rank of this machine's first process
    firsts = gather_now(first)                                           # every rank has made its watch
    watch.__enter__()
    atexit.register(watch.__exit__)
    _watch = watch
    ranks, mates = list(range(state.num_processes)), everyone        # of one disk
    if disk == "local":
        ranks = [rank for rank, other in enumerate(firsts) if other == first]
        machines = [[rank for rank, other in enumerate(firsts) if other == machine] for machine in sorted(set(firsts))]
        mates, _ = dist.new_subgroups_by_enumeration(machines, timeout=PREPARING, backend="gloo")

    def notify(line: str) -> None:
        if state.process_index == ranks[0]:
            inform(line if len(ranks) == state.num_processes else f"[machine of process {first}] {line}")

    def barrier() -> None:
        with watch.waiting():
            dist.barrier(group=mates)                                    # type: ignore[arg-type]

    return Processes(ranks.index(state.process_index), len(ranks), barrier, notify, gather)


_watch: RankWatch | None = None


@contextmanager
def in_step() -> Iterator[None]:
    """In the block, after `share_preparation`, all processes train or score together. Their watch ends a run in which
    one is stopped or hangs. It counts the time in which they ran; collectives would count also a suspended job's."""
    if _watch is None:
        yield
        return
    _limit_collectives(PREPARING)
    try:
        with _watch.in_step():
            yield
    finally:
        _limit_collectives(STUCK)


def _limit_collectives(timeout: timedelta) -> None:
    """Set the timeout of later collectives, of all backends of the default group."""
    # the public name is newer than the oldest torch that is supported
    change: Any = getattr(dist, "set_timeout", None) or dist.distributed_c10d._set_pg_timeout
    change(timeout, dist.group.WORLD)
