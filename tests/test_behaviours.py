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
from golden.loader import check
from torch import nn

from gazepose.config import TrainConfig, asdict, parse, train_defaults
from gazepose.data.loader import WindowBatches, make_loader
from gazepose.data.order import BatchOrder
from gazepose.data.windows import (
    BEHAVIOURS,
    BLACK,
    WindowRule,
    centre_rows,
    make_batch,
    quality_fit,
    segments,
    window_rows,
)
from gazepose.models import ModelConfig, Prediction, Priors, build_model
from gazepose.models.queries import HeadPoseQueries, LandmarkQueries
from gazepose.training.augment import to_model
from gazepose.training.engine import predict, train_steps
from gazepose.training.losses import LossRule
from gazepose.training.optim import OptimConfig, learning_rate, make_optimizer

NAN = math.nan
pytestmark = pytest.mark.usefixtures("one_thread")
BOTH = ("intended", "published")
FIT = {"gaussian_drop": True, "quality_fit": (50.0, 10.0)}             # quality 0 has p 0, 100 has p 1


def rule_of(behaviour: str, **options: Any) -> WindowRule:
    return WindowRule(behaviour=BEHAVIOURS[behaviour], **options)


def shown(index, behaviour: str, row: int, **options: Any) -> list[int]:
    return window_rows(index, rule_of(behaviour, **options), np.array([row]))[0].tolist()


def landmarks(*known: int, count: int = 9) -> list[Any]:
    """Of a track: row n has all numbers n / 10 if it is known."""
    return [[[row / 10 if row in known else NAN] * 3] * 5 for row in range(count)]


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


# the windows' rows of the table

def test_a_crop_is_drawn_anew_for_each_frame_where_published_and_the_flip_is_per_window(index_of):
    index = index_of([range(40)])
    for behaviour, crops in (("intended", 1), ("published", 7)):
        rule = rule_of(behaviour, train=True, windows_per_segment=8, stride=2)
        batch = make_batch(index, rule, np.arange(10, 26, 2), 0, 16)
        drawn, flips = batch["crop"][batch["window"]], batch["flip"][batch["window"]]
        assert [len(torch.unique(window, dim=0)) for window in drawn] == [crops] * 8
        assert (flips == flips[:, :1]).all()
        assert (len(batch["frames"]) == 8 * 7) == (behaviour == "published")
    # neighbouring windows are flipped each for itself; where intended a segment is flipped as one
    rows = centre_rows(index_of([range(400)]), 1)
    names = {b: segments(index_of([range(400)]), rule_of(b, train=True, windows_per_segment=8), rows, 0) for b in BOTH}
    assert len(np.unique(names["published"])) == 400 and len(np.unique(names["intended"])) <= 51
    batch = make_batch(index_of([range(400)]), rule_of("published", train=True), rows, 0, 16)
    flips = batch["flip"][batch["window"]][:, 0].numpy()
    assert 0.4 < flips.mean() < 0.6 and 0.4 < (flips[1:] != flips[:-1]).mean() < 0.6


def test_a_repeated_frame_is_cut_anew_where_published(index_of):
    index = index_of([[5]])
    batch = make_batch(index, rule_of("published", train=True), np.array([0, ~0]), 0, 16)
    assert batch["frames"].shape[0] == 14 and batch["label"].tolist() == [0, -1]
    assert len(torch.unique(batch["crop"][batch["window"][0]], dim=0)) == 7
    assert torch.equal(batch["crop"][:7], batch["crop"][7:])            # a filler is its row again
    again = make_batch(index, rule_of("published", train=True), np.array([0]), 1, 16)
    assert not torch.equal(again["crop"], batch["crop"][:7])            # another epoch, another crop


class Reads(nn.Module):
    """Keeps what it is given."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(1, 2)
        self.seen: list[Priors] = []

    def forward(self, frames, window, priors):
        self.seen.append(Priors(*(prior.clone() for prior in priors)))
        return Prediction(self.head(frames.mean((1, 2, 3))[window[:, 3], None]), None)


@pytest.mark.parametrize("behaviour", BOTH)
def test_priors_follow_mirrored_and_moved_pixels_only_where_intended(index_of, behaviour):
    poses = [[float(row), 5.0, float(-row)] for row in range(64)]
    index = index_of([range(64)], head_pose=poses, landmarks=landmarks(*range(64), count=64))
    model, accelerator = Reads(), Accelerator(cpu=True)
    rule = rule_of(behaviour, train=True)
    prepared = accelerator.prepare(model, make_optimizer(model, OptimConfig()),
                                   make_loader(index, rule, np.arange(64), batch_size=64, crop_size=16))
    list(train_steps(accelerator, *prepared, step=0, total=1, seed=0, loss=LossRule(), optim=OptimConfig(),
                     mirror_priors=rule.behaviour.mirror_priors))
    pose, points = (torch.cat(part) for part in zip(*model.seen, strict=True))
    mirrored = (pose[:, 0] < 0).float().mean()
    assert 0.3 < mirrored < 0.7 if behaviour == "intended" else mirrored == 0
    stored = torch.from_numpy(np.array(index.landmarks))[pose[:, 0].abs().long()]
    assert torch.equal(points, stored) == (behaviour == "published")


def test_a_blurred_centre_is_black_at_test_where_published(index_of):
    index = index_of([range(7)], quality=[100, 100, 100, 0, 100, 100, 100])
    for options in ({"test": True}, {}, {"train": True}):
        for behaviour in BOTH:
            black = behaviour == "published" and "test" in options
            assert shown(index, behaviour, 3, **options, **FIT) == [0, 1, 2, BLACK if black else 3, 4, 5, 6]
    batch = make_batch(index, rule_of("published", test=True, **FIT), np.array([3, 4]), 0, 16)
    levels = batch["frames"].flatten(1).amax(1)[batch["window"]]
    assert levels.tolist() == [[0, 1, 2, 0, 4, 5, 6], [1, 1, 2, 4, 5, 6, 6]]
    assert len(batch["frames"]) == 7                                   # one black frame, however often it is shown


def test_a_black_centre_is_repeated_where_a_side_is_empty(index_of, parity):
    for case in json.loads((parity / "tracks.json").read_text())["pad_with_black_centre"]:
        index = index_of([range(7)], quality=[100 * present for present in case["present"]])
        frames_shown = [BLACK if source == "black" else source for source in case["source"]]
        assert shown(index, "published", 3, test=True, **FIT) == frames_shown


def test_a_black_crop_counts_as_missing_where_published(index_of):
    index = index_of([range(7)], black=[False, False, True, False, False, False, True])
    for options in ({"test": True}, {}, {"train": True}):
        assert shown(index, "intended", 3, **options) == [0, 1, 2, 3, 4, 5, 6]
        assert shown(index, "published", 3, **options) == [0, 0, 1, 3, 4, 5, 5]
    # as a centre it stays, and is repeated where nothing else is there
    assert shown(index, "published", 6) == [3, 4, 5, 6, 6, 6, 6]


def test_quality_is_known_of_key_frames_only_in_published_training(index_of):
    index = index_of([range(7)] * 300, quality=([0] * 3 + [100] + [0] * 3) * 300)
    centres = np.arange(3, 2100, 7)
    train: dict[str, Any] = {"train": True}
    for options, behaviour, spared in ((train, "published", {1, 2, 4, 5}), (train, "intended", set()),
                                       ({}, "published", set()), ({}, "intended", set())):
        rule = rule_of(behaviour, stride=3, **FIT, **options)
        shows = window_rows(index, rule, centres) - (centres - 3)[:, None]
        always = {slot for slot in range(7) if slot != 3 and all(slot in window for window in shows.tolist())}
        assert always == spared, (behaviour, options)


def test_the_gaussian_is_fitted_to_key_frames_only_where_published(index_of):
    index = index_of([range(7)], quality=[10, 90, 90, 20, 90, 90, 30])
    assert quality_fit(index, "variance", BEHAVIOURS["published"], 3) == (20.0, 10.0)
    assert quality_fit(index, "variance", BEHAVIOURS["intended"], 3) == pytest.approx((60.0, (8600 / 6) ** 0.5))
    assert quality_fit(index_of([range(7)]), "variance", BEHAVIOURS["published"], 3) is None


@pytest.mark.parametrize("behaviour", BOTH)
@pytest.mark.parametrize("options", [{"train": True}, {}, {"test": True}])
def test_an_unknown_quality_never_drops(index_of, behaviour, options):
    index = index_of([range(7)], quality=[NAN] * 7)
    assert shown(index, behaviour, 3, **options, **FIT) == list(range(7))


def test_landmarks_are_looked_for_in_the_published_order(index_of):
    order = (0, -1, 1, -2, 2, 3, -3)
    for place, frame in enumerate(order):
        index = index_of([range(9)], landmarks=landmarks(*(4 + later for later in order[place:])))
        for options, behaviour, expected_frame in (({"train": True}, "published", frame), ({}, "published", frame),
                                          ({"test": True}, "published", 0), ({}, "intended", 0)):
            got = make_batch(index, rule_of(behaviour, **options), np.array([4]), 0, 16)["landmarks"]
            own = landmarks(*(4 + later for later in order[place:]))[4 + expected_frame]
            np.testing.assert_array_equal(got[0], torch.tensor(own), f"{behaviour} {options} {frame}")


def test_landmarks_are_not_looked_for_beyond_the_window_the_track_or_a_gap(index_of):
    index = index_of([[0, 1, 5], [6, 7]], landmarks=landmarks(2, 3, count=5))
    for reach, row, known in ((3, 1, False), (3, 0, False), (3, 4, True), (0, 4, False)):
        got = make_batch(index, rule_of("published", reach=reach), np.array([row]), 0, 16)["landmarks"]
        assert bool(got.isfinite().all()) == known, (reach, row)


def test_evaluation_keeps_the_order_of_the_index_under_both(index_of):
    for behaviour in BOTH:
        order = BatchOrder(index_of([range(9)]), rule_of(behaviour), np.arange(9), 4)
        assert [row for batch in order for _, row in batch if row >= 0] == list(range(9))


def test_a_stride_counts_positions_of_the_track_whether_their_crops_are_there_or_not(index_of):
    index = index_of([[1, 2, 3, 7, 8, 9, 10], [4, 5]], position=[0, 1, 2, 6, 7, 8, 9, 0, 1])
    assert centre_rows(index, 3).tolist() == [0, 3, 6, 7]               # the key frame at position 3 is skipped
    assert centre_rows(index_of([[1, 2, 3, 7, 8, 9, 10], [4, 5]]), 3).tolist() == [0, 3, 6, 7]
    assert centre_rows(index, 2).tolist() == [0, 2, 3, 5, 7]
    assert index.track_position.tolist() == [0, 10, 12]


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
    with pytest.raises(ValueError, match="--schedule epoch has none -> give --warmup 0"):
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
