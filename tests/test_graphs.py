"""Graphs of a training step: a dry graph replays operations alone, and the weights become what they become without."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from benchmarks.dry_graph import DryGraph
from gazepose.data.index import Index
from gazepose.data.loader import make_loader, order_of
from gazepose.data.windows import WindowRule
from gazepose.models import ModelConfig, build_model, gaze_lstm, gazepose
from gazepose.training import engine
from gazepose.training import graphs as graphs_module
from gazepose.training.engine import Step, train_steps
from gazepose.training.graphs import StepGraphs, hindrance, step_graphs
from gazepose.training.losses import LossRule
from gazepose.training.optim import OptimConfig, make_optimizer

SIZE = {"backbone": "test_resnet", "output_stride": 32, "dmodel": 32, "dim_feedforward": 32, "nheads": 2,
        "num_encoder_layers": 1, "num_decoder_layers": 1, "prior_head": True}
NEVER = 10**9


@pytest.fixture(scope="module", autouse=True)
def narrow(one_thread):
    """Models of a tenth of the size."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (gaze_lstm, gazepose):
            patch.setattr(module, "VECTOR", 32)
        yield


@pytest.fixture(scope="module")
def eager(faces) -> "Training":
    """A training of which no step was captured."""
    return Training(faces, NEVER).run()


@pytest.fixture(scope="module")
def faces(index_of) -> Index:
    """36 faces in tracks of several lengths: 5 batches of 8."""
    return index_of([range(20), range(3), range(0, 22, 2), [4], [9]], noise=True, label=[0, 1] * 18)


class Training:
    """A training of a small model with graphs, which has `warm_up` steps without; its lines are in `lines`."""

    def __init__(self, index: Index, warm_up: int = 1, name: str = "GazePose", full: bool = True, accumulation: int = 1,
                 precision: str = "no", dropout: float = 0.0, batch_size: int = 8, **optim: float) -> None:
        AcceleratorState._reset_state(reset_partial_state=True)
        self.accelerator = Accelerator(cpu=True, mixed_precision=precision, gradient_accumulation_steps=accumulation)
        torch.manual_seed(0)
        model = build_model(ModelConfig(model=name, dropout=dropout, **SIZE))
        self.optim = OptimConfig(lr=1e-2, warmup=0.5, **optim)
        loader = make_loader(index, WindowRule(train=True, windows_per_segment=3), np.arange(len(index)),
                             batch_size=batch_size, crop_size=32)
        order_of(loader).full_pools = full
        self.model, self.optimizer, self.loader = self.accelerator.prepare(
            model, make_optimizer(model, self.optim), loader)
        graphs_module.ready_for_graphs(self.optimizer)
        self.lines: list[str] = []
        self.graphs = StepGraphs(DryGraph, warm_up, self.lines.append)

    def run(self, plain: bool = False, **more) -> "Training":
        """One epoch."""
        self.steps: list[Step] = [
            step for steps in train_steps(self.accelerator, self.model, self.optimizer, self.loader, step=0, total=5,
                                          seed=0, loss=LossRule((0.4, 0.6)), optim=self.optim,
                                          graphs=None if plain else self.graphs, **more) for step in steps]
        return self

    def state(self) -> dict[str, torch.Tensor]:
        moments = {f"{number} {name}": value for number, entry in self.optimizer.state_dict()["state"].items()
                   for name, value in entry.items()}
        return {**self.model.state_dict(), **moments}

    def figures(self) -> list[tuple]:
        return [(step.step, step.lr, step.loss, step.grad_norm, step.samples, step.stopping) for step in self.steps]


def differences(one: Training, other: Training) -> list[str]:
    mine, others = one.state(), other.state()
    return [name for name in {**mine, **others} if not torch.equal(mine[name], others[name])]


@pytest.mark.parametrize("settings", [
    {}, {"name": "GazeLSTM", "clip": 0.1, "weight_decay": 0.1}, {"name": "FaceGaze", "precision": "bf16"},
    {"dropout": 0.1, "accumulation": 2, "precision": "bf16"}, {"accumulation": 3, "batch_size": 4}], ids=str)
def test_replayed_steps_are_those_without_graphs_to_the_bit(faces, settings):
    # with two of 5 batches to a step, the last step has one, which runs without a graph
    graphed, eager = Training(faces, 1, **settings).run(), Training(faces, NEVER, **settings).run()
    assert graphed.lines == [] and not differences(graphed, eager) and graphed.figures() == eager.figures()
    kinds = {0, settings["accumulation"]} if "accumulation" in settings else {1}
    assert graphed.graphs.captured.keys() == kinds and not eager.graphs.captured


def test_what_graphs_need_changes_no_step_but_by_the_rounding_of_the_learning_rate(faces, eager):
    plain = Training(faces)
    for group in plain.optimizer.param_groups:           # as it is without graphs
        group["lr"] = 0.0
    for step, other in zip(plain.run(plain=True).steps, eager.steps, strict=True):
        assert (step.loss, step.grad_norm) == pytest.approx((other.loss, other.grad_norm), rel=1e-3)
        assert (step.lr, step.samples) == (other.lr, other.samples)


def test_a_learning_rate_that_is_a_number_stays_as_it_was_captured(faces, eager, monkeypatch):
    monkeypatch.setattr(graphs_module, "ready_for_graphs", lambda optimizer: None)
    assert "last_layer.weight" in differences(Training(faces).run(), eager)


def test_a_replay_runs_no_python_of_the_step(faces, eager, monkeypatch):
    training, calls = Training(faces), []
    real = engine.learn_from
    monkeypatch.setattr(engine, "learn_from", lambda *args: calls.append(1) or real(*args))
    training.run()
    assert len(calls) == 2 and len(training.steps) == 5 and not differences(training, eager)


def test_a_step_that_reads_a_number_on_the_host_goes_on_without_graphs(faces, monkeypatch):
    real = engine.gradient_norm

    def reading(*args):
        norm = real(*args)
        assert norm.item() >= 0
        return norm
    monkeypatch.setattr(engine, "gradient_norm", reading)
    graphed = Training(faces).run()
    assert graphed.lines == ["graphs: off, because the step cannot be captured (operation _local_scalar_dense makes "
                             "the host wait for the device)"]
    assert not graphed.graphs.captured and len(graphed.steps) == 5


def test_a_stop_and_a_skipped_step_are_seen_in_a_replay(faces):
    stops, moved = iter([False, False, False, True, False]), []
    training = Training(faces).run(stop=lambda: next(stops), moved=moved.append)
    assert moved == [0, 1, 2, 3, 4]                      # --ema follows the weights there
    assert [step.stopping for step in training.steps] == [False, False, False, True, False]
    with torch.no_grad():
        training.model.last_layer.weight[0, 0] = math.nan
    before = training.model.frames.to_vector[0].weight.clone()
    assert all(step.skipped for step in training.run().steps) and training.graphs.captured
    assert torch.equal(before, training.model.frames.to_vector[0].weight)


class Copy:
    """A graph that only counts."""

    def __init__(self, *shared):
        self.shared = shared

    def record(self, work):
        self.outcome = work()
        return self.outcome

    def replay(self):
        replays.append(self)


replays: list[Copy] = []


def test_another_shape_is_captured_after_one_step_and_many_shapes_are_given_up():
    lines, done = [], []
    replays.clear()
    graphs = StepGraphs(Copy, 3, lines.append)

    def run(size: int, count: int) -> None:
        for _ in range(count):
            graphs.run(lambda batch, ends: done.append(len(batch["x"])) or (batch["x"],), {"x": torch.zeros(size)}, 1)
    run(5, 10)
    assert len(done) == 4 and len(replays) == 6          # three to warm up, one to capture
    run(6, 10)
    assert done[4:] == [6, 6] and len(replays) == 14 and lines == []
    for size in (7, 8, 9, 10):
        run(size, 3)
    assert lines == ["graphs: off, because the batches change their shape every few steps"]
    run(5, 4)
    assert done[-4:] == [5] * 4 and len(replays) == 14 + 3


def test_both_graphs_of_a_step_share_memory():
    graphs = StepGraphs(Copy, 1)
    for ends in (0, 2, 0, 2):
        graphs.run(lambda batch, ends: (batch["x"],), {"x": torch.zeros(3)}, ends)
    first, second = (graph for graph, _ in graphs.captured.values())
    assert first.shared == () and second.shared == (first,)


def test_what_cannot_be_captured_is_said_in_one_line(monkeypatch):
    linear = torch.nn.Linear(2, 2)
    adam, plain = make_optimizer(linear, OptimConfig()), torch.optim.SGD(linear.parameters())
    lines = []

    def on(device: str = "cuda", scaler=None, processes: int = 1) -> SimpleNamespace:
        return SimpleNamespace(device=torch.device(device), scaler=scaler, num_processes=processes, print=lines.append)
    assert hindrance(on(), adam) is None
    assert hindrance(on("cpu"), adam) == "this device is a cpu, and only CUDA has them"
    assert "scaler" in hindrance(on(scaler=1), adam) and "AdamW" in hindrance(on(), plain)
    monkeypatch.setattr(torch.distributed, "get_backend_config", lambda: "cpu:gloo,cuda:gloo")
    assert "by cpu:gloo,cuda:gloo" in hindrance(on(processes=2), adam)
    order = SimpleNamespace(full_pools=False)
    for compile in ("no", "yes", "auto", "graphs"):
        assert step_graphs(on("cpu"), adam, order, compile) is None
    assert lines == ["graphs: off, because this device is a cpu, and only CUDA has them"]    # of the last one only
    assert isinstance(adam.param_groups[0]["lr"], float) and not order.full_pools
