"""What only a GPU can show. Everywhere else the suite hides GPUs, so these run by themselves: pytest -m gpu

One GPU is enough.
"""

import json
import math
import os
import subprocess
import sys
import warnings
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import warm
from safetensors.torch import load_file

from gazepose.data.loader import make_loader, order_of
from gazepose.data.windows import WindowRule, make_batch
from gazepose.models import ModelConfig, Priors, build_model
from gazepose.training.augment import to_model
from gazepose.training.engine import READ_EVERY, predict, train_steps
from gazepose.training.graphs import prepare_launches, step_graphs
from gazepose.training.losses import LossRule
from gazepose.training.optim import OptimConfig, make_optimizer

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is seen -> "
              "pytest -m gpu, on a machine that has one")]
ROOT = Path(__file__).resolve().parents[1]
LAYERS = {"num_encoder_layers": 1, "num_decoder_layers": 1, "dmodel": 64, "dim_feedforward": 64}
SMALL = ["--crop_size", "32", "--output_stride", "32", "--dmodel", "64", "--dim_feedforward", "64",
         "--num_encoder_layers", "1", "--num_decoder_layers", "1", "--batch_size", "8", "--epochs", "2",
         "--num_workers", "2", "--prior_head"]


@pytest.fixture
def exact():
    """Float32 as the CPU has it: no TF32."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


@pytest.fixture
def fresh(request):
    """An Accelerator on the GPU, of the precision that is asked for."""
    from accelerate.state import AcceleratorState

    from gazepose.training.distributed import start_accelerator
    AcceleratorState._reset_state(reset_partial_state=True)
    yield start_accelerator(mixed_precision=getattr(request, "param", "no"))
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="module")
def faces(index_of):
    """Two tracks of noise; the label is drawn, too."""
    random = np.random.default_rng(1)
    return index_of([range(200)] * 2, noise=True, label=random.integers(0, 2, 400).tolist(),
                    head_pose=random.normal(0, 20, (400, 3)).tolist())


def batch_of(index, rows=range(12)) -> dict[str, torch.Tensor]:
    return make_batch(index, WindowRule(train=True, windows_per_segment=4), np.array(rows), 0, 64)


def on_gpu(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value.cuda() for name, value in batch.items()}


def test_a_batch_is_turned_and_cut_as_on_the_cpu(faces, exact):
    here, on_cuda = to_model(batch_of(faces)), to_model(on_gpu(batch_of(faces)))
    for name, value in here.items():
        torch.testing.assert_close(on_cuda[name].cpu(), value, rtol=1e-5, atol=2e-5, equal_nan=True)


@pytest.mark.parametrize("name", ["GazePose", "GazeLSTM", "BaselineLSTM", "FaceGaze"])
@pytest.mark.parametrize("behaviour", ["intended", "published"])
def test_a_model_says_what_it_says_on_the_cpu(name, behaviour, faces, exact):
    torch.manual_seed(0)
    model = build_model(ModelConfig(model=name, behaviour=behaviour, prior_head=True, prior_landmark=True,
                                    gaze_head=True)).eval().to(memory_format=torch.channels_last)
    batch = to_model(batch_of(faces))
    with torch.inference_mode():
        here = model(batch["frames"], batch["window"], Priors.of(batch))
        moved = on_gpu(batch)
        on_cuda = model.cuda()(moved["frames"], moved["window"], Priors.of(moved))
    torch.testing.assert_close(on_cuda.logits.cpu().softmax(1), here.logits.softmax(1), rtol=0, atol=1e-4)


def training(accelerator, index, name="GazePose", steps=6, poison=False, launched="no"):
    torch.manual_seed(0)
    model = build_model(ModelConfig(model=name, prior_head=True, prior_landmark=True, **LAYERS))
    model = model.to(memory_format=torch.channels_last)
    if poison:
        torch.nn.init.constant_(model.last_layer.weight, math.nan)
    optim = OptimConfig(lr=1e-3, clip=1.0)
    loader = make_loader(index, WindowRule(train=True, windows_per_segment=4), np.arange(len(index)), batch_size=32,
                         crop_size=64, num_workers=2, pin_memory=True)
    optimizer = make_optimizer(model, optim)
    prepare_launches(accelerator, model, launched)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    order_of(loader).epoch = 0
    graphs = step_graphs(accelerator, optimizer, order_of(loader), launched)
    order_of(loader).full_pools = True
    return model, lambda: train_steps(accelerator, model, optimizer, loader, step=0, total=steps, seed=0,
                                      loss=LossRule((0.4, 0.6)), optim=optim, graphs=graphs)


@pytest.mark.parametrize("fresh", ["no", "bf16"], indirect=True)
@pytest.mark.parametrize("name", ["GazePose", "GazeLSTM"])
def test_ten_steps_wait_for_the_device_once(fresh, faces, name):
    _, epoch = training(fresh, faces, name)
    list(epoch())                                                      # kernels are chosen, constants brought
    steps = epoch()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            steps_taken = next(steps)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    waits = [str(warning.message) for warning in caught if "synchroniz" in str(warning.message)]
    assert len(steps_taken) == READ_EVERY == 10 and len(waits) == 1, waits
    assert all(math.isfinite(step.loss) and not step.skipped and step.samples == 32 for step in steps_taken)
    assert [len(rest) for rest in steps] == [3]                        # 400 rows are 13 steps


@pytest.mark.parametrize("fresh", ["no", "bf16"], indirect=True)
@pytest.mark.parametrize("name", ["GazePose", "GazeLSTM"])
def test_steps_from_graphs_are_those_without(fresh, faces, name, exact, capsys):
    found = {}
    for launched in ("no", "graphs"):
        _, epoch = training(fresh, faces, name, steps=13, launched=launched)
        found[launched] = list(chain.from_iterable(epoch()))
    assert capsys.readouterr().out.count("graphs: ") == 1              # on; not off after a while
    for step, other in zip(*found.values(), strict=True):
        assert step.samples == other.samples and step.loss == pytest.approx(other.loss, rel=0.05)


@pytest.mark.parametrize("fresh", ["no", "bf16", "fp16"], indirect=True)
def test_every_precision_learns_and_a_damaged_gradient_moves_nothing(fresh, faces):
    model, epoch = training(fresh, faces, "GazeLSTM")
    before = [parameter.detach().clone() for parameter in model.parameters()]
    steps_taken = list(chain.from_iterable(epoch()))
    assert sum(step.samples for step in steps_taken) == 400 and not all(step.skipped for step in steps_taken)
    assert any(not parameter.equal(old) for parameter, old in zip(model.parameters(), before, strict=True))


@pytest.mark.parametrize("fresh", ["no", "fp16"], indirect=True)
def test_a_gradient_that_is_not_finite_is_skipped_on_the_device(fresh, faces):
    model, epoch = training(fresh, faces, "GazeLSTM", poison=True)
    before = [parameter.detach().clone() for parameter in model.frames.parameters()]
    steps_taken = list(chain.from_iterable(epoch()))
    assert all(step.skipped for step in steps_taken)
    assert all(parameter.equal(old) for parameter, old in zip(model.frames.parameters(), before, strict=True))


def test_prediction_meets_every_row_once(fresh, faces):
    model = build_model(ModelConfig(model="GazeLSTM"))
    loader = make_loader(faces, WindowRule(), np.arange(333), batch_size=50, crop_size=64, num_workers=2,
                         pin_memory=True)
    model, loader = fresh.prepare(model, loader)
    scores = predict(fresh, model, loader, np.arange(333), stop=lambda: False)
    assert scores.score.shape == (333,)


def run(folder: Path, *flags: str, program: str = "train.py", launcher: tuple[str, ...] = (), **env: str) -> str:
    done = subprocess.run([sys.executable, *launcher, str(ROOT / program), *flags], cwd=folder, text=True, timeout=300,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          env={**os.environ, "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}", **env})
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def work(tmp_path_factory, tiny_world) -> Path:
    folder = tmp_path_factory.mktemp("work")
    (folder / "world").symlink_to(tiny_world)
    return folder


def test_the_commands_train_in_bf16_and_score_as_the_cpu_does(work):
    output = run(work, "--data", "world", *SMALL, "--mixed_precision", "bf16", "--exp_path", "runs/bf16")
    assert "world: 1 process on cuda, mixed precision bf16" in output
    for name, env in (("gpu", {}), ("cpu", {"CUDA_VISIBLE_DEVICES": ""})):
        run(work, "--data", "world", "--split", "val", "--checkpoint", "runs/bf16", "--mixed_precision", "no",
            "--exp_path", name, program="infer.py", **env)
    scores, cpu_scores = (pd.read_csv(work / name / "pred" / "val" / "pred.csv")["score"] for name in ("gpu", "cpu"))
    assert len(scores) == len(cpu_scores) > 30 and (scores - cpu_scores).abs().max() <= 2e-3  # TF32 in convolutions


def test_nccl_ddp_synchronised_statistics_and_compressed_gradients_start(work):
    output = run(work, "--data", "world", *SMALL, "--sync_batchnorm", "--exp_path",
               "runs/nccl", launcher=("-m", "torch.distributed.run", "--nproc_per_node", "1"))
    assert "1 process on cuda" in output
    assert json.loads((work / "runs" / "nccl" / "status.json").read_text())["state"] == "finished"


def test_a_stopped_run_on_the_gpu_goes_on_where_it_was(faces, tmp_path):
    from rig import Rig
    rig = Rig(faces.folder, tmp_path)
    whole = rig.run("whole")
    rig.run("stopped", ends=75, fault=("after_step", 2, "hit", 15))
    again = rig.run("stopped", "--resume")
    assert "resume: " in again.log() and again.status()["samples"] == whole.status()["samples"]
    one, other = (load_file(run.folder / "checkpoints" / "step-00000012" / "model.safetensors")
                  for run in (whole, again))
    # kernels of the GPU add up in any order, so not to the bit; each of 12 steps moves a weight by about 1e-3
    assert max(float((one[key].float() - other[key].float()).abs().max()) for key in one) <= 1e-2


def test_the_warm_process_has_not_touched_the_gpu(tmp_path):
    assert warm.python("-c", "import torch; print(torch.cuda.is_initialized())", cwd=tmp_path) == (0, "False\n")
