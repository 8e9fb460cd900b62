"""Windows under the two behaviours: crops, flips, black and dropped frames, landmarks, strides."""

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from behaviours import FIT, landmarks, rule_of
from torch import nn

from gazepose.data.loader import make_loader
from gazepose.data.order import BatchOrder
from gazepose.data.windows import (
    BEHAVIOURS,
    BLACK,
    centre_rows,
    make_batch,
    quality_fit,
    segments,
    window_rows,
)
from gazepose.models import Prediction, Priors
from gazepose.training.engine import train_steps
from gazepose.training.losses import LossRule
from gazepose.training.optim import OptimConfig, make_optimizer

NAN = math.nan
pytestmark = pytest.mark.usefixtures("one_thread")
BOTH = ("intended", "published")


def shown(index, behaviour: str, row: int, **options: Any) -> list[int]:
    return window_rows(index, rule_of(behaviour, **options), np.array([row]))[0].tolist()


# the windows' rows of the table

def test_a_crop_is_drawn_anew_for_each_frame_where_published_and_the_flip_is_per_window(index_of):
    index = index_of([range(40)])
    for behaviour, crops in (("intended", 1), ("published", 7)):
        rule = rule_of(behaviour, train=True, windows_per_segment=8, stride=2)
        batch = make_batch(index, rule, np.arange(10, 26, 2), 0, 224)   # of 16 pixels two crops may be alike
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
    batch = make_batch(index, rule_of("published", train=True), np.array([0, ~0]), 0, 224)
    assert batch["frames"].shape[0] == 14 and batch["label"].tolist() == [0, -1]
    assert len(torch.unique(batch["crop"][batch["window"][0]], dim=0)) == 7
    assert torch.equal(batch["crop"][:7], batch["crop"][7:])            # a filler is its row again
    again = make_batch(index, rule_of("published", train=True), np.array([0]), 1, 224)
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


def published_window(present: list[bool], black: list[bool]) -> list[int]:
    """Slots that the published loader shows, written as its loops are: pictures are put in a list, those that are not
    there as zeros, and only then is every picture of zeros, without the centre, replaced by one nearer to it."""
    pictures = [slot + 1 if there and not dark else 0 for slot, (there, dark) in enumerate(zip(present, black,
                                                                                               strict=True))]
    shown = list(range(7))
    if not all(present):
        for side in ([2, 1, 0], [4, 5, 6]):              # nearest first
            left = [slot for slot in side if pictures[slot]]
            for place, slot in enumerate(side):
                shown[slot] = left[min(place, len(left) - 1)] if left else 3
    return shown


def test_a_black_crop_stays_in_a_whole_window_and_closes_up_in_another_where_published(index_of):
    black = [False, False, True, False, False, False, True]
    whole = index_of([range(7)], black=black)
    for options in ({"test": True}, {}, {"train": True}):
        assert shown(whole, "intended", 3, **options) == [0, 1, 2, 3, 4, 5, 6]
        assert shown(whole, "published", 3, **options) == [0, 1, 2, 3, 4, 5, 6]
    gap = index_of([[0, 1, 2, 3, 4, 6]], black=[False, False, True, False, False, True])       # frame 5 is missing
    assert shown(gap, "intended", 3) == [0, 1, 2, 3, 4, 5, 5]
    assert shown(gap, "published", 3) == [0, 0, 1, 3, 4, 4, 4]
    # as a centre it stays, and is repeated where nothing else is there
    assert shown(whole, "published", 6) == [3, 4, 5, 6, 6, 6, 6]


@pytest.mark.parametrize("split", ["val", "test"])
def test_five_hundred_windows_with_black_missing_and_dropped_frames_are_the_published_ones(index_of, split):
    random = np.random.default_rng(1)
    tracks, present, black, quality = [], [], [], []
    for _ in range(500):
        there, dark, blurred = (random.random(7) < part for part in (0.9, 0.15, 0.1))
        there[3], blurred[3] = True, False                             # a dropped centre: see the tests above
        tracks.append(np.flatnonzero(there).tolist())
        present.append((there & ~blurred).tolist())
        black.append(dark.tolist())
        quality += [0.0 if blurred[slot] else 100.0 for slot in tracks[-1]]
    index = index_of(tracks, black=[dark[slot] for dark, track in zip(black, tracks, strict=True) for slot in track],
                     quality=quality)
    centres = np.array([start + track.index(3) for start, track in zip(index.track_start, tracks, strict=False)])
    rows = window_rows(index, rule_of("published", test=split == "test", **FIT), centres)
    expected = [published_window(*case) for case in zip(present, black, strict=True)]
    assert index.frame[rows].tolist() == expected
    always = sum([published_window([*there[:3], False, *there[4:]], dark) != window
                  for there, dark, window in zip(present, black, expected, strict=True)])
    assert always > 50                                                 # where black would always close up


def test_a_dropped_centre_lets_black_neighbours_close_up_at_test(index_of):
    black = [False, False, True, False, False, False, False]
    index = index_of([range(7)], black=black, quality=[100, 100, 100, 0, 100, 100, 100])
    assert shown(index, "published", 3, test=True, **FIT) == [0, 0, 1, BLACK, 4, 5, 6]
    assert shown(index, "published", 3, **FIT) == [0, 1, 2, 3, 4, 5, 6]


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
