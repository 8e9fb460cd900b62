"""The two behaviours side by side: every difference by name, and what is defined under both."""

import json
import math
import pickle
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from behaviours import FIT, landmarks, rule_of
from golden.loader import check

from gazepose.config import TrainConfig, asdict, parse, train_defaults
from gazepose.data.loader import WindowBatches, make_loader
from gazepose.data.order import BatchOrder
from gazepose.data.windows import BEHAVIOURS, centre_rows, make_batch
from gazepose.models import ModelConfig, Priors, build_model
from gazepose.models.queries import HeadPoseQueries, LandmarkQueries
from gazepose.training.augment import to_model
from gazepose.training.engine import predict, train_steps
from gazepose.training.losses import LossRule
from gazepose.training.optim import OptimConfig, learning_rate, make_optimizer

NAN = math.nan
pytestmark = pytest.mark.usefixtures("one_thread")
BOTH = ("intended", "published")


# what the golden vectors say

def recorded_elsewhere(parity, folder, change) -> Any:
    content = json.loads((parity / "loader.json").read_text())
    change(content)
    (folder / "loader.json").write_text(json.dumps(content))
    (folder / "models.json").write_text((parity / "models.json").read_text())
    return check(folder)


def test_the_check_sees_one_wrong_slot_and_one_lost_sample(parity, tmp_path):
    def spoil(content):
        content["test"]["runs"][1]["samples"][0]["slots"][0] = 1
        content["train_val"]["training_runs"][0]["samples"].pop()
    wrong = [result.what for result in recorded_elsewhere(parity, tmp_path, spoil)
             if result.difference > result.tolerance]
    assert "test run 1: windows with other slots of 20" in wrong
    assert "training run 0: windows that only one side has" in wrong


def test_the_check_refuses_a_run_without_samples(parity, tmp_path):
    with pytest.raises(ValueError, match="test run 0: no samples to compare"):
        list(recorded_elsewhere(parity, tmp_path, lambda content: content["test"]["runs"][0].update(samples=[])))


@pytest.mark.parametrize(("field", "wrong", "what"), [
    ("landmarks_from", (0, -1, 1, -2, 2, -3, 3), "validation run 0: landmarks"),
    ("black_centre_at_test", False, "test run 1: windows with other slots")])
def test_the_check_sees_each_rule_that_is_not_the_published_one(parity, monkeypatch, field, wrong, what):
    monkeypatch.setattr("golden.loader.PUBLISHED", replace(BEHAVIOURS["published"], **{field: wrong}))
    failed = [result.what for result in check(parity) if result.difference > result.tolerance]
    assert any(line.startswith(what) for line in failed), failed


# the model's rows of the table

def pose_rows(behaviour: str, *angles: float) -> list[int]:
    queries = HeadPoseQueries(8, split=1.0, published=behaviour == "published")
    return queries.rows(torch.tensor(angles)[:, None].expand(-1, 3))[:, 0].tolist()


def landmark_rows(behaviour: str, x: float, y: float) -> tuple[int, int]:
    queries = LandmarkQueries(8, dsplit=0.1, csplit=0.1, published=behaviour == "published")
    cell, confidence = queries.rows(torch.tensor([x, y, x * 0]).expand(1, 5, 3))
    return cell[0, 0].item(), confidence[0, 0].item()


def test_unknown_head_pose_is_ninety_degrees_where_published():
    assert pose_rows("published", NAN) == pose_rows("published", 90.0)
    assert pose_rows("intended", NAN)[0] not in pose_rows("intended", 90.0, 99.0, -99.0, 0.0)


def test_the_sign_of_a_head_pose_is_lost_where_published():
    assert pose_rows("published", -30.5) == pose_rows("published", 30.5)
    assert pose_rows("intended", -30.5) != pose_rows("intended", 30.5)


@pytest.mark.parametrize(("behaviour", "last"), [("published", 90), ("intended", 198)])
def test_angles_past_the_last_bin_take_it(behaviour, last):
    assert pose_rows(behaviour, 95.0 if behaviour == "published" else 120.0, 500.0) == [last, last]


def test_unknown_landmarks_are_zeros_where_published():
    assert landmark_rows("published", NAN, NAN) == landmark_rows("published", 0.0, 0.0) == (420, 0)
    assert landmark_rows("intended", NAN, NAN) != landmark_rows("intended", 0.0, 0.0)


def test_distant_landmark_cells_share_a_row_where_published():
    assert landmark_rows("published", 0.05, 1.05)[0] == landmark_rows("published", 0.15, -0.95)[0]
    assert landmark_rows("intended", 0.05, 1.05)[0] != landmark_rows("intended", 0.15, -0.95)[0]


def test_landmark_tables_learn_only_where_intended(index_of):
    for behaviour in BOTH:
        tables = tiny(behaviour).landmark_queries
        before = tables.cell.weight.clone()
        model, _ = trained(index_of([range(6)], landmarks=landmarks(*range(6), count=6), label=[0, 1] * 3), behaviour,
                           batch_size=3)
        assert torch.equal(model.landmark_queries.cell.weight, before) == (behaviour == "published")


# the learning rate

def test_the_published_learning_rate_moves_once_per_epoch(parity):
    recorded = json.loads((parity / "training.json").read_text())["cosine_lr_per_epoch"]
    assert recorded["lr"]
    for lr, rates in recorded["lr"].items():
        config = OptimConfig(lr=float(lr), min_lr=recorded["eta_min"], schedule="epoch")
        ours = [learning_rate(7 * epoch + step, 70, config, epoch) for epoch in range(len(rates)) for step in range(7)]
        np.testing.assert_allclose(ours, np.repeat(rates, 7), rtol=1e-9)
        intended = [learning_rate(step, 70, OptimConfig(lr=float(lr)), step // 7) for step in range(70)]
        assert len(set(intended)) == 70                                # a function of the step


def test_training_steps_use_the_schedule(index_of):
    index = index_of([range(6)], label=[0, 1] * 3)
    for schedule, expected in (("epoch", [5.25e-5] * 2), ("step", [1e-4, 5.25e-5])):
        optim = OptimConfig(schedule=schedule)
        _, steps = trained(index, "published", batch_size=3, optim=optim, epoch=5)
        assert [step.lr for step in steps] == pytest.approx(expected)


def test_a_warm_up_beside_the_published_schedule_is_refused():
    with pytest.raises(ValueError, match="the schedule epoch has none -> use warmup 0"):
        OptimConfig(warmup=0.1, schedule="epoch")


def test_the_behaviour_chooses_the_schedule():
    for behaviour, schedule in (("intended", "step"), ("published", "epoch")):
        for embedded in (False, True):
            for gpu in (False, True):
                flags = ["--behaviour", behaviour]
                defaults = train_defaults(parse(TrainConfig, flags), embedded, gpu)
                assert defaults.optim.schedule == schedule
                config = parse(TrainConfig, flags, defaults)
                assert config.model.behaviour == behaviour and asdict(config)["optim"]["schedule"] == schedule


# what is defined under both, through loader, model and step

def tiny(behaviour: str, **options: Any) -> Any:
    torch.manual_seed(0)
    return build_model(ModelConfig(**{
        "behaviour": behaviour, "backbone": "test_resnet", "num_encoder_layers": 1, "num_decoder_layers": 1,
        "dmodel": 64, "dim_feedforward": 64, "prior_head": True, "prior_landmark": True, **options}))


def trained(index, behaviour: str, *, batch_size: int, optim: OptimConfig | None = None, epoch: int = 0
            ) -> tuple[Any, list[Any]]:
    """One epoch of a tiny model over all rows of an index."""
    accelerator, model = Accelerator(cpu=True), tiny(behaviour)
    optim = optim or OptimConfig(lr=1e-3)
    rule = rule_of(behaviour, train=True, windows_per_segment=4, **FIT)
    loader = make_loader(index, rule, np.arange(len(index)), batch_size=batch_size, crop_size=64)
    prepared = accelerator.prepare(model, make_optimizer(model, optim), loader)
    steps = train_steps(accelerator, *prepared, step=0, total=len(loader), seed=0, loss=LossRule(), optim=optim,
                        epoch=epoch, mirror_priors=rule.behaviour.mirror_priors)
    return model, list(chain.from_iterable(steps))


CASES: dict[str, tuple[int, dict[str, Any]]] = {
    "a batch of one": (1, {}), "a last odd batch": (3, {}),
    "angles past ninety degrees": (5, {"head_pose": [[120.0, -170.0, 91.0]] * 5}),
    "a missing head pose": (5, {"head_pose": [[NAN] * 3, [1.0, 2.0, NAN]] + [[1.0, 2.0, 3.0]] * 3}),
    "missing landmarks": (5, {"landmarks": landmarks(2, count=5)}),
    "no landmarks at all": (5, {"landmarks": landmarks(count=5)}),
    "black crops": (5, {"black": [True, True, False, True, False], "quality": [0, 0, 100, 0, 100]}),
}


@pytest.mark.parametrize("behaviour", BOTH)
@pytest.mark.parametrize("case", CASES)
def test_a_step_and_a_score_are_defined_for(index_of, behaviour, case):
    batch_size, columns = CASES[case]
    index = index_of([range(4), [9]], label=[0, 1, 0, 1, 1], **columns)
    model, steps = trained(index, behaviour, batch_size=batch_size)
    assert len(steps) == -(-5 // batch_size) and sum(step.samples for step in steps) == 5
    assert all(math.isfinite(step.loss) and math.isfinite(step.grad_norm) and not step.skipped for step in steps)
    assert all(value.isfinite().all() for value in model.state_dict().values())
    for split in ({}, {"test": True}):
        accelerator = Accelerator(cpu=True)
        loader = accelerator.prepare(make_loader(index, rule_of(behaviour, **split, **FIT), np.arange(5),
                                                 batch_size=batch_size, crop_size=64))
        assert np.isfinite(predict(accelerator, model, loader, np.arange(5)).score).all()


@pytest.mark.parametrize("behaviour", BOTH)
def test_scores_do_not_depend_on_sharing_frames(index_of, behaviour):
    index = index_of([range(20)], quality=[0, 100, 100, 0, 100] * 4, black=[False] * 10 + [True] + [False] * 9,
                     landmarks=landmarks(3, 9, count=20))
    model = tiny(behaviour).eval()
    for split in ({}, {"test": True}):
        rule = rule_of(behaviour, **split, **FIT)
        def scored(rows, rule=rule):
            batch = to_model(make_batch(index, rule, np.array(rows), 0, 64))
            with torch.no_grad():
                return model(batch["frames"], batch["window"], Priors.of(batch)).logits
        alone = torch.cat([scored([row]) for row in range(20)])
        torch.testing.assert_close(scored(range(20)), alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("behaviour", BOTH)
@pytest.mark.parametrize("world", [1, 2])
def test_an_epoch_meets_every_row_once_on_one_and_two_processes(index_of, behaviour, world):
    index = index_of([range(13), range(8)])
    rule = rule_of(behaviour, train=True, windows_per_segment=4, stride=2)
    rows = centre_rows(index, 2)
    order = BatchOrder(index, rule, rows, 3, world)
    assert pickle.loads(pickle.dumps(rule)) == rule                    # as a worker gets it
    batches = list(order)
    assert len(batches) % world == 0 and {len(batch) for batch in batches} == {3}
    assert sorted(row for batch in batches for _, row in batch if row >= 0) == rows.tolist()
    source = WindowBatches(index, rule, rows, 16)
    pools = [len(source.__getitems__(batch)["frames"]) for batch in batches]
    assert (set(pools) == {21}) == (behaviour == "published")
