"""What several processes need beyond Accelerate: who prepares data together, and how gradients travel.

Everything here is a choice of a flag; `Accelerator` does the rest.
"""

import os
from datetime import timedelta
from functools import partial
from typing import Any

import torch.distributed as dist
from accelerate import Accelerator, DistributedDataParallelKwargs, PartialState
from accelerate.utils import DDPCommunicationHookType, DistributedType
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

from gazepose.data.prepare import Disk
from gazepose.processes import Processes

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
        return Processes(notify=partial(print, flush=True))                # progress, also into a pipe
    everyone: Any = dist.new_group(backend="gloo", timeout=PREPARING)
    first = state.process_index - state.local_process_index             # rank of this machine's first process
    firsts: list[Any] = [None] * state.num_processes
    dist.all_gather_object(firsts, first, group=everyone)
    ranks, mates = list(range(state.num_processes)), everyone        # of one disk
    if disk == "local":
        ranks = [rank for rank, other in enumerate(firsts) if other == first]
        machines = [[rank for rank, other in enumerate(firsts) if other == machine] for machine in sorted(set(firsts))]
        mates, _ = dist.new_subgroups_by_enumeration(machines, timeout=PREPARING, backend="gloo")

    def barrier() -> None:
        dist.barrier(group=mates)                                        # type: ignore[arg-type]

    def notify(line: str) -> None:
        if state.process_index == ranks[0]:
            print(line if len(ranks) == state.num_processes else f"[machine of process {first}] {line}", flush=True)

    def gather(value: Any) -> list[Any]:
        values: list[Any] = [None] * state.num_processes
        dist.all_gather_object(values, value, group=everyone)
        return values

    return Processes(ranks.index(state.process_index), len(ranks), barrier, notify, gather)


def compressed_gradients(compression: str, **powersgd: Any) -> list[DistributedDataParallelKwargs]:
    """The `kwargs_handlers` of an Accelerator whose processes exchange gradients in fewer bytes.

    Args:
        compression: no, fp16, bf16 or powersgd.
        powersgd: options of torch's PowerSGDState.
    """
    if compression == "no":
        return []
    return [DistributedDataParallelKwargs(comm_hook=HOOKS[compression], comm_state_option=powersgd)]


def is_sharded(accelerator: Accelerator) -> bool:
    """Whether each process has only a part of every weight (FSDP)."""
    return accelerator.distributed_type == DistributedType.FSDP


def gather_weights(model: nn.Module, whole: nn.Module) -> None:
    """Fill `whole` on the first process with the weights that `model` has in parts; all processes take part."""
    state = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    if dist.get_rank() == 0:
        whole.load_state_dict(state)


def refuse_sharded_inference(accelerator: Accelerator) -> None:
    """Raises ValueError where FSDP was asked for: a model that fits one device is scored whole on each."""
    if os.environ.get("ACCELERATE_USE_FSDP") == "true" or is_sharded(accelerator):
        raise ValueError("FSDP: inference takes a whole model per process -> a configuration without it, such as "
                         "accelerate_configs/gpu4.yaml")


def check_flags(accelerator: Accelerator, compression: str, sync_batchnorm: bool, resume: bool = False,
                cache_features: bool = False) -> None:
    """Refuse what the processes that were started cannot do, and say what is in vain.

    Raises:
        ValueError: naming the flag and the reason.
    """
    device, several = accelerator.device.type, accelerator.num_processes > 1
    if sync_batchnorm and device == "cpu":
        raise ValueError("--sync_batchnorm: torch's SyncBatchNorm works on GPUs only, and these processes are on cpu "
                         "-> leave it out; the weights are the same, BatchNorm takes each process's own windows")
    if os.environ.get("ACCELERATE_USE_FSDP") == "true" and not is_sharded(accelerator):
        raise ValueError(f"FSDP: Accelerate shards on GPUs only, and on {device} would start DistributedDataParallel "
                         "without a word -> accelerate_configs/cpu2.yaml")
    if is_sharded(accelerator) and (resume or compression != "no"):
        flag = "--resume" if resume else f"--gradient_compression {compression}"
        raise ValueError(f"{flag}: not with FSDP, of which only whole weights are saved, and which exchanges gradients "
                         "in parts -> leave it out, or use a configuration without FSDP (accelerate_configs/gpu4.yaml)")
    if is_sharded(accelerator) and cache_features:
        raise ValueError("--cache_features: not with FSDP, where each process has only a part of the backbone -> use a "
                         "configuration without FSDP (accelerate_configs/gpu4.yaml)")
    if compression != "no" and several and (backend := dist.get_backend()) not in BACKENDS:
        raise ValueError(f"--gradient_compression {compression}: the processes talk over {backend}, and torch "
                         f"compresses over {' and '.join(BACKENDS)} -> leave it out")
    for flag, given in ((f"--gradient_compression {compression}", compression != "no"),
                        ("--sync_batchnorm", sync_batchnorm)):
        if given and not several:
            accelerator.print(f"{flag}: one process exchanges nothing, so it changes nothing")
