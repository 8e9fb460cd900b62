"""Two processes beside one: the same step, and data on one disk or on two."""

import functools
import multiprocessing
import os
import shutil
import socket
import traceback
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
import timm
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from making import data_set, settings_of
from test_engine import Grey
from torch import nn

from gazepose.data import prepare as prepare_module
from gazepose.data.index import Index
from gazepose.data.loader import make_loader
from gazepose.data.windows import WindowRule
from gazepose.models import sync_batchnorm
from gazepose.source import Source
from gazepose.training.distributed import check_processes, meet_on_loopback, share_preparation, start_accelerator
from gazepose.training.engine import train_steps
from gazepose.training.losses import LossRule
from gazepose.training.optim import OptimConfig, make_optimizer


def in_processes(work: Callable[..., Any], count: int, *args: Any, local_ranks: list[int] | None = None) -> list[Any]:
    """What `work(rank, *args)` returns in forked processes of one gloo group; its traceback where it fails."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    fork = multiprocessing.get_context("fork")
    ends = [fork.Pipe(duplex=False) for _ in range(count)]

    def child(rank: int) -> None:
        local = (local_ranks or list(range(count)))[rank]
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(local), "WORLD_SIZE": str(count), "OMP_NUM_THREADS": "1",
                       "LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        torch.set_num_threads(1)                     # threads of OpenMP do not outlive a fork
        for state in (AcceleratorState, PartialState, GradientState):
            state._shared_state.clear()
        try:
            ends[rank][1].send((True, work(rank, *args)))
        except BaseException:
            ends[rank][1].send((False, traceback.format_exc()))

    children = [fork.Process(target=child, args=(rank,)) for rank in range(count)]
    for process in children:
        process.start()
    try:
        results = [end.recv() if end.poll(60) else (False, "no answer within 60 s") for end, _ in ends]
    finally:
        for process in children:
            process.kill()
            process.join()
    if failed := [result for good, result in results if not good]:
        raise RuntimeError("\n".join(failed))
    return [result for _, result in results]


@pytest.fixture(scope="module")
def uneven(index_of):
    """Labels lie so that two processes' shares of a batch weigh differently: unknown, rare, frequent."""
    label = np.tile([-1, -1, 1, 0, 0, 0, 1, 0, 0, -1], 10)
    return index_of([range(100)], label=label.astype(np.int8).tolist())


def trained(_: int, index: Index, batch_size: int) -> tuple[np.ndarray, list[float]]:
    """Weights and losses after one epoch."""
    accelerator = Accelerator(cpu=True)
    torch.manual_seed(0)
    config = OptimConfig(lr=0.1)
    model = Grey()
    model.head = nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 2))
    loader = make_loader(index, WindowRule(train=True, flip=False, random_crop=False), np.arange(100), crop_size=16,
                         batch_size=batch_size, world_size=accelerator.num_processes)
    prepared = accelerator.prepare(model, make_optimizer(model, config), loader)
    losses = [step.loss for steps in train_steps(accelerator, *prepared, step=0, total=5, seed=0,
                                                 loss=LossRule((0.2, 0.8)), optim=config) for step in steps]
    return torch.cat([part.flatten() for part in model.parameters()]).detach().numpy(), losses


def test_two_processes_take_the_step_of_one_with_the_whole_batch(uneven):
    ((whole, losses),) = in_processes(trained, 1, uneven, 40)
    for weights, their_losses in in_processes(trained, 2, uneven, 20):
        np.testing.assert_allclose(weights, whole, rtol=0, atol=1e-6)
        assert their_losses == pytest.approx(losses, abs=1e-6)


def test_processes_that_cannot_do_it_are_refused_by_flag():
    lines: list[str] = []
    accelerator: Any = SimpleNamespace(device=torch.device("cpu"), num_processes=2, print=lines.append,
                                       gradient_accumulation_steps=4)
    with pytest.raises(ValueError, match="--sync_batchnorm: torch's SyncBatchNorm works on GPUs only"):
        check_processes(accelerator, "2", True, 4)
    with pytest.raises(ValueError, match="--processes 3, but the launcher has started 2 -> accelerate launch --num_p"):
        check_processes(accelerator, "3", False, 4)
    check_processes(SimpleNamespace(**{**vars(accelerator), "device": torch.device("cuda"), "num_processes": 1}),  # type: ignore[arg-type]
                    None, True, 4)
    with pytest.raises(ValueError, match="--gradient_accumulation_steps 1, but the launcher has set 4 -> give both"):
        check_processes(accelerator, "any", False, 1)
    assert lines == ["--sync_batchnorm changes nothing: there is one process"]


def test_synchronised_batchnorm_keeps_parameters_and_activations():
    model = timm.create_model("mobilenetv3_small_050", num_classes=2).eval()     # its BatchNorm holds the activation
    before, faces = list(model.parameters()), torch.randn(2, 3, 64, 64)
    expected = model(faces)
    changed = sync_batchnorm(model).eval()
    layers = [layer for layer in changed.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    assert layers and all(isinstance(layer, nn.SyncBatchNorm) for layer in layers)
    assert all(one is other for one, other in zip(before, changed.parameters(), strict=True))
    torch.testing.assert_close(changed(faces), expected)


def prepared_on(rank: int, roots: list, disk: str) -> tuple[list[str], int, str]:
    """Prepare train on this process's disk: the clips it cut itself, the rows it then has, and the error."""
    cut, cut_clip = [], prepare_module.cut_clip
    prepare_module.cut_clip = lambda clip: (cut.append(clip.uid), cut_clip(clip))[1]
    prepare_module.prepare = functools.partial(prepare_module.prepare, jobs=1)     # here, where it can be counted
    processes = share_preparation(Accelerator(cpu=True), disk)                       # type: ignore[arg-type]
    try:
        index = Source(roots[rank]).split("train", settings_of(crop_size=32, decoder="pyav"), processes)
    except (ValueError, RuntimeError) as error:
        return sorted(cut), 0, str(error)
    return sorted(cut), len(index), ""


@pytest.fixture
def disks(tmp_path):
    """Two folders with the same three clips; cut in the process itself."""
    clips = {f"c{n}": [("t", [1, 2])] for n in range(3)}
    return [data_set(tmp_path / name, clips, frames=4) for name in ("first", "second")]


def test_processes_on_one_disk_share_the_clips(disks):
    (first, *ended), (second, *_) = in_processes(prepared_on, 2, disks[:1] * 2, "shared")
    assert ended == [6, ""] and sorted(first + second) == ["c0", "c1", "c2"] and first and second


def test_each_machine_prepares_its_own_disk(disks):
    everything = ["c0", "c1", "c2"]
    machines = in_processes(prepared_on, 2, disks, "local", local_ranks=[0, 0])
    assert machines == [(everything, 6, "")] * 2
    shutil.rmtree(disks[1] / "prepared")                              # the one that is done waits for the other
    assert in_processes(prepared_on, 2, disks, "local", local_ranks=[0, 0]) == [([], 6, ""), (everything, 6, "")]


def listening(rank: int) -> set[str]:
    share_preparation(start_accelerator(), "shared").barrier()
    return {one.laddr.ip for one in psutil.Process().net_connections("inet") if one.status == psutil.CONN_LISTEN}


def test_processes_of_one_machine_listen_on_loopback_alone():
    assert [*in_processes(listening, 2)] == [{"127.0.0.1"}] * 2


def test_a_port_in_use_is_named():
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.MonkeyPatch.context() as patch:
        patch.setenv("RANK", "0")
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=f"port {port} of this machine cannot be used .* -> set MASTER_PORT"):
            meet_on_loopback(port)


def test_two_disks_taken_for_one_are_named(disks):
    for _, rows, message in in_processes(prepared_on, 2, disks, "shared", local_ranks=[0, 0]):
        assert rows == 0 and "the processes do not see one disk: give --data_disk local" in message


def test_machines_with_other_rows_are_refused(disks):
    (disks[1] / "split" / "train.list").write_text("c0\nc2")
    (_, _, first), (_, _, second) = in_processes(prepared_on, 2, disks, "local", local_ranks=[0, 0])
    assert f"{disks[0]}/prepared/clean-32/train: rank 1 prepared other rows than this rank" in first
    assert "rank 0 prepared other rows than this rank. Their disks hold different data" in second


def test_sharding_is_refused(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ValueError, match="FSDP is not supported.* -> use a configuration without FSDP"):
        start_accelerator()
