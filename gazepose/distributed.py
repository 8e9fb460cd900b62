"""What several processes need beyond Accelerate: who prepares data together, and how gradients travel.

Everything here is a choice of a flag; `Accelerator` does the rest.
"""

from datetime import timedelta
from typing import Any

import torch.distributed as dist
from accelerate import Accelerator, DistributedDataParallelKwargs, PartialState
from accelerate.utils import DDPCommunicationHookType

from gazepose.sources import Disk, Processes

PREPARING = timedelta(hours=12)
"""how long processes wait for each other's videos; a process that dies is noticed at once"""
HOOKS = {"fp16": DDPCommunicationHookType.FP16, "bf16": DDPCommunicationHookType.BF16,
         "powersgd": DDPCommunicationHookType.POWER_SGD}        # a plain string would be ignored without a word
BACKENDS = ("gloo", "nccl")


def share_preparation(state: Accelerator | PartialState, disk: Disk) -> Processes:
    """Who prepares data together: all processes on a shared disk, those of each machine where it has its own.

    Their barriers are gloo's, on any device: it notices a process that died, and preparing may take longer than a
    step is allowed to.
    """
    if state.num_processes == 1:
        return Processes(say=state.print)
    everyone: Any = dist.new_group(backend="gloo", timeout=PREPARING)
    first = state.process_index - state.local_process_index             # rank of this machine's first process
    firsts: list[Any] = [None] * state.num_processes
    dist.all_gather_object(firsts, first, group=everyone)
    ranks, mates = list(range(state.num_processes)), everyone
    if disk == "local":
        ranks = [rank for rank, other in enumerate(firsts) if other == first]
        machines = [[rank for rank, other in enumerate(firsts) if other == machine] for machine in sorted(set(firsts))]
        mates, _ = dist.new_subgroups_by_enumeration(machines, timeout=PREPARING, backend="gloo")

    def wait() -> None:
        dist.barrier(group=mates)

    def say(line: str) -> None:
        if state.process_index == ranks[0]:
            print(line if len(ranks) == state.num_processes else f"[machine of process {first}] {line}", flush=True)

    def compare(value: Any) -> list[Any]:
        values: list[Any] = [None] * state.num_processes
        dist.all_gather_object(values, value, group=everyone)
        return values

    return Processes(ranks.index(state.process_index), len(ranks), wait, say, compare)


def compressed_gradients(compression: str, **powersgd: Any) -> list[DistributedDataParallelKwargs]:
    """The `kwargs_handlers` of an Accelerator whose processes exchange gradients in fewer bytes.

    Args:
        compression: no, fp16, bf16 or powersgd.
        powersgd: options of torch's PowerSGDState.
    """
    if compression == "no":
        return []
    return [DistributedDataParallelKwargs(comm_hook=HOOKS[compression], comm_state_option=powersgd)]


def check_flags(accelerator: Accelerator, compression: str, sync_batchnorm: bool) -> None:
    """Refuse what the processes that were started cannot do, and say what is in vain.

    Raises:
        ValueError: naming the flag and the reason.
    """
    device, several = accelerator.device.type, accelerator.num_processes > 1
    if sync_batchnorm and device == "cpu":
        raise ValueError("--sync_batchnorm: torch's SyncBatchNorm works on GPUs only, and these processes are on cpu "
                         "-> leave it out; the weights are the same, BatchNorm takes each process's own windows")
    if compression != "no" and several and (backend := dist.get_backend()) not in BACKENDS:
        raise ValueError(f"--gradient_compression {compression}: the processes talk over {backend}, and torch "
                         f"compresses over {' and '.join(BACKENDS)} -> leave it out")
    for flag, given in ((f"--gradient_compression {compression}", compression != "no"),
                        ("--sync_batchnorm", sync_batchnorm)):
        if given and not several:
            accelerator.print(f"{flag}: one process exchanges nothing, so it changes nothing")
