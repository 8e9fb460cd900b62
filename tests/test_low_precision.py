"""bf16: the same numbers as autocast within its noise, from far fewer operations; the weights stay float32."""

from collections import Counter

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from gazepose.models import ModelConfig, Priors, build_model
from gazepose.training.augment import to_model
from gazepose.training.engine import train_steps
from gazepose.training.losses import LossRule, loss_parts
from gazepose.training.optim import OptimConfig, make_optimizer

VIEWS = {"view", "_unsafe_view", "expand", "permute", "transpose", "t", "unsqueeze", "squeeze", "select", "slice",
         "split", "split_with_sizes", "unbind", "alias", "detach", "as_strided", "_reshape_alias"}
NO_WORK = {"empty", "empty_like", "new_empty", "profiler::_record_function_enter_new",
           "profiler::_record_function_exit"}
WAITING = {"_local_scalar_dense", "is_nonzero", "nonzero", "masked_select", "unique_dim", "_unique2"}
"""operations after which the host waits for the device, or whose shape depends on its numbers"""
WINDOWS, FRAMES = 4, 9
SMALL = {"dmodel": 64, "dim_feedforward": 64, "image_size": 64}
MOST = {"GazePose": 1000, "GazeLSTM": 230}
"""operations of a whole step that are not views; autocast alone took 2,450 and 365 for forward and backward"""
MOST_OF_CHANGES = 50
"""of normalising, flipping and cutting pixels, gaze and priors"""


class Operations(TorchDispatchMode):
    """Counts what is asked of the device."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name.removeprefix("aten::")
        if name not in VIEWS | NO_WORK:
            self.counts[name] += 1
        return func(*args, **(kwargs or {}))


@pytest.fixture(scope="module")
def batch():
    some = torch.Generator().manual_seed(0)
    return {"frames": torch.randn(FRAMES, 3, 64, 64, generator=some),
            "window": torch.randint(0, FRAMES, (WINDOWS, 7), generator=some),
            "label": torch.tensor([0, 1, 1, -1]), "row": torch.arange(WINDOWS),
            "gaze": torch.full((WINDOWS, 2), torch.nan), "head_pose": 20 * torch.randn(WINDOWS, 3, generator=some),
            "landmarks": torch.rand(WINDOWS, 5, 3, generator=some)}


def model_of(name: str, **more) -> nn.Module:
    torch.manual_seed(0)
    return build_model(ModelConfig(model=name, prior_head=True, prior_landmark=True, **{**SMALL, **more}))


def step(model: nn.Module, batch: dict, low: bool) -> torch.Tensor:
    """Logits; the gradients are left in the model."""
    with torch.autocast("cpu", torch.bfloat16, enabled=low):
        logits, gaze = model(batch["frames"], batch["window"], Priors.of(batch))
    loss_parts(logits.float(), gaze, batch, LossRule((0.5, 0.5))).label.backward()
    return logits.detach().float()


@pytest.mark.parametrize("name", ["GazePose", "GazeLSTM", "FaceGaze"])
def test_gradients_are_as_near_to_those_of_float32_as_with_autocast(batch, name, monkeypatch):
    found = {}
    for way in ("float32", "ours", "autocast"):
        if way == "autocast":
            monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
        model = model_of(name, dropout=0.0)
        logits = step(model, batch, low=way != "float32")
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
        gradients = {key: weight.grad for key, weight in model.named_parameters() if weight.grad is not None}
        assert {gradient.dtype for gradient in gradients.values()} == {torch.float32}
        found[way] = logits, torch.cat([gradient.flatten() for gradient in gradients.values()]), gradients.keys()
    logits, gradient, names = found["ours"]
    assert names == found["float32"][2]
    torch.testing.assert_close(logits, found["float32"][0], rtol=0, atol=0.02)
    near = {way: nn.functional.cosine_similarity(found[way][1], found["float32"][1], dim=0)
            for way in ("ours", "autocast")}
    assert near["ours"] > 0.98 and near["ours"] > near["autocast"] - 0.005, near


def test_a_frozen_backbone_gets_no_gradient_in_bf16(batch):
    model = model_of("GazePose")
    model.frames.backbone.requires_grad_(False)
    step(model, batch, low=True)
    assert all(parameter.grad is None for parameter in model.frames.backbone.parameters())
    assert all(parameter.grad is not None for name, parameter in model.named_parameters() if ".backbone." not in name)


@pytest.fixture
def bf16():
    """An Accelerator of that precision."""
    AcceleratorState._reset_state(reset_partial_state=True)
    return Accelerator(cpu=True, mixed_precision="bf16")


@pytest.mark.parametrize("name", MOST)
def test_a_step_in_bf16_asks_for_few_operations_and_never_waits(batch, bf16, name):
    model = model_of(name)
    model, optimizer = bf16.prepare(model, make_optimizer(model, OptimConfig()))
    counts = []
    for _ in range(2):                           # in its first step the optimiser also makes its state
        with Operations() as operations:
            steps = [step for steps in train_steps(bf16, model, optimizer, [dict(batch)], step=0, total=2, seed=0,
                                                   loss=LossRule((0.5, 0.5)), optim=OptimConfig()) for step in steps]
        assert len(steps) == 1 and not steps[0].skipped
        counts.append(operations.counts)
    assert counts[1].total() <= MOST[name], counts[1].most_common(12)
    assert not WAITING & (counts[0].keys() | counts[1].keys())


def test_pixels_become_a_batch_of_the_model_in_few_operations_that_never_wait(batch):
    pixels = {**batch, "frames": torch.zeros(FRAMES, 3, 64, 64, dtype=torch.uint8),
              "flip": torch.arange(FRAMES) % 2 == 0, "crop": torch.tensor([[0.1, 0.0, 0.9, 1.0]]).repeat(FRAMES, 1)}
    to_model(dict(pixels))                       # its constants are made once
    with Operations() as operations:
        to_model(pixels)
    assert operations.counts.total() <= MOST_OF_CHANGES, operations.counts.most_common(12)
    assert not WAITING & operations.counts.keys()


@pytest.mark.parametrize("fault", [False, True])
def test_batchnorm_counts_each_forward_and_none_that_fails(batch, fault, monkeypatch):
    model = model_of("GazeLSTM")
    if fault:
        monkeypatch.setattr(model.frames.backbone.layer4, "forward", lambda x: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            step(model, batch, low=True)
    else:
        step(model, batch, low=True)
    counts = [value for key, value in model.state_dict().items() if key.endswith("num_batches_tracked")]
    assert len(counts) == 20 and {int(count) for count in counts} == {int(not fault)}


def test_a_model_comes_back_to_its_weights_after_a_fault(batch):
    model = model_of("GazeLSTM")
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(IndexError):
        model(batch["frames"], batch["window"] + FRAMES, Priors.of(batch))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert torch.isfinite(step(model, batch, low=True)).all()
