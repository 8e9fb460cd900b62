"""Flips and crops on the device: pixels and priors move together."""

import numpy as np
import pytest
import torch

from gazepose.data.windows import WindowRule, make_batch
from gazepose.models import Priors
from gazepose.training.augment import MEAN, MOVES, STD, mirror, move_landmarks, normalise, to_model, warp

WHOLE = torch.tensor([[0.0, 0.0, 1.0, 1.0]])


def picture() -> torch.Tensor:
    return torch.arange(2 * 3 * 8 * 8, dtype=torch.float32).reshape(2, 3, 8, 8)


def test_black_and_white_have_the_statistics_of_imagenet():
    frames = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, 4, 4)
    floats = normalise(frames)
    for channel in range(3):
        assert floats[0, channel, 0, 0].item() == pytest.approx(-MEAN[channel] / STD[channel], rel=1e-5)
        assert floats[1, channel, 0, 0].item() == pytest.approx((1 - MEAN[channel]) / STD[channel], rel=1e-5)


def test_the_whole_picture_unflipped_is_left_alone():
    torch.testing.assert_close(warp(picture(), torch.tensor([False, False]), WHOLE.repeat(2, 1)), picture())


def test_a_flip_mirrors_the_columns_of_its_frame_only():
    flipped = warp(picture(), torch.tensor([True, False]), WHOLE.repeat(2, 1))
    torch.testing.assert_close(flipped, torch.stack([picture()[0].flip(-1), picture()[1]]))


def test_a_quarter_is_stretched_to_the_whole():
    cut = warp(picture(), torch.tensor([False, False]), torch.tensor([[0.5, 0.0, 0.5, 0.5]]).repeat(2, 1))
    assert cut.shape == picture().shape
    # the corner pixel of the quarter fills the corner
    assert cut[0, 0, 0, -1] == pytest.approx(picture()[0, 0, 0, 7].item(), abs=1)
    assert cut[0, 0, -1, 0] == pytest.approx(picture()[0, 0, 3, 4].item(), abs=3)


@pytest.mark.parametrize("flip", [False, True])
def test_landmarks_stay_on_their_pixels(flip):
    crop = torch.tensor([[0.25, 0.0, 0.75, 0.5]])
    frames = torch.zeros(1, 3, 64, 64)
    frames[0, :, 16, 40] = 1.0                                                    # x = 40.5 / 64, y = 16.5 / 64
    landmarks = torch.tensor([[[40.5 / 64, 16.5 / 64, 0.9]]]).repeat(1, 5, 1)
    moved = move_landmarks(landmarks, torch.tensor([flip]), crop)[0, 0]
    mirrored = warp(frames, torch.tensor([flip]), crop)[0, 0]
    y, x = divmod(int(mirrored.argmax()), 64)
    assert (moved[:2] * 64 - 0.5).tolist() == pytest.approx([x, y], abs=1)
    assert moved[2] == pytest.approx(0.9)


def batch(flip: bool) -> dict[str, torch.Tensor]:
    return {"frames": torch.zeros(2, 3, 8, 8, dtype=torch.uint8), "window": torch.tensor([[0, 1, 1]]),
            "head_pose": torch.tensor([[10.0, 20.0, 30.0]]), "gaze": torch.tensor([[0.1, 0.2]]),
            "landmarks": torch.rand(1, 5, 3), "flip": torch.tensor([not flip, flip]), "crop": WHOLE.repeat(2, 1)}


def test_a_row_mirrors_with_its_centre_frame():
    plain_batch = batch(flip=True)
    moved = to_model(plain_batch)
    assert moved["head_pose"].tolist() == [[-10.0, 20.0, -30.0]]
    torch.testing.assert_close(moved["gaze"], torch.tensor([[-0.1, 0.2]]))
    # own left eye (1) and right eye (2) change places
    torch.testing.assert_close(moved["landmarks"][0, 1, 0], 1 - plain_batch["landmarks"][0, 2, 0])
    same = to_model(batch(flip=False))
    assert same["head_pose"].tolist() == [[10.0, 20.0, 30.0]]


def test_published_training_left_the_priors_alone():
    plain_batch = batch(flip=True)
    moved = to_model(plain_batch, mirror_priors=False)
    assert moved["head_pose"].tolist() == plain_batch["head_pose"].tolist()
    torch.testing.assert_close(moved["landmarks"], plain_batch["landmarks"])


def test_the_mirror_is_that_of_training_and_its_own_inverse():
    plain_batch = {**batch(flip=True), "flip": torch.tensor([True, True]), "crop": WHOLE.repeat(2, 1)}
    plain_batch["frames"] = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    plain = to_model({name: value for name, value in plain_batch.items() if name not in ("flip", "crop")})
    trained, mirrored = to_model(plain_batch), mirror(plain)
    for name in ("frames", "head_pose", "landmarks", "gaze"):
        torch.testing.assert_close(mirrored[name], trained[name], atol=1e-5, rtol=1e-5)
    again = mirror(mirrored)
    assert torch.equal(again["frames"], plain["frames"]) and torch.equal(again["head_pose"], plain["head_pose"])
    torch.testing.assert_close(again["landmarks"], plain["landmarks"])
    unknown = mirror({**plain, "landmarks": torch.full((1, 5, 3), torch.nan)})
    assert torch.isnan(unknown["landmarks"]).all()


def test_a_batch_holds_the_priors_of_the_models_and_a_prior_without_a_move_stays(index_of):
    plain_batch = make_batch(index_of([range(9)]), WindowRule(train=True), np.arange(4), 0, 16)
    others = {"frames", "window", "gaze", "label", "row", "flip", "crop"}
    assert plain_batch.keys() - others == set(Priors._fields) and not others - plain_batch.keys()
    assert set(MOVES) == {"gaze", *Priors._fields}
    blink = torch.rand(4)
    assert torch.equal(mirror(to_model({**plain_batch, "blink": blink}))["blink"], blink)


def test_unknown_stays_unknown():
    plain_batch = {**batch(flip=True), "head_pose": torch.full((1, 3), torch.nan),
             "landmarks": torch.full((1, 5, 3), torch.nan)}
    moved = to_model(plain_batch)
    assert moved["head_pose"].isnan().all() and moved["landmarks"].isnan().all()
