"""The look of training pictures: drawn from keys, and changed on the device."""

import math

import numpy as np
import pytest
import simplejpeg
import torch

from gazepose.data.random_changes import LOOKS, random_looks
from gazepose.data.windows import WindowRule, make_batch
from gazepose.training.augment import to_model
from gazepose.training.photometric import change_look

RULE = WindowRule(train=True, windows_per_segment=3, augment="standard")


def a_look(**amounts: float) -> torch.Tensor:
    """A look that changes nothing but what is given, for one picture."""
    return torch.tensor([[*({name: neutral for name, (*_, neutral) in LOOKS.items()} | amounts).values(), 0.5]])


def face() -> torch.Tensor:
    """A smooth picture with an edge, float [1, 3, 64, 64]."""
    y, x = torch.meshgrid(torch.linspace(0, 1, 64), torch.linspace(0, 1, 64), indexing="ij")
    return torch.stack([0.3 + 0.4 * x, 0.5 + 0.2 * torch.sin(9 * y), torch.where(x > 0.5, 0.6, 0.3)])[None]


def test_a_look_is_a_function_of_its_key_and_epoch():
    keys = np.arange(50)
    looks = random_looks(keys, keys, 0, 0)
    assert np.array_equal(random_looks(keys[::-1], keys[::-1], 0, 0)[::-1], looks)
    assert not np.array_equal(random_looks(keys, keys, 0, 1), looks)
    assert not np.array_equal(random_looks(keys, keys, 1, 0), looks)


def test_the_amounts_have_their_chances_and_ranges():
    looks = random_looks(np.arange(20000), np.arange(20000), 0, 0)
    for amount, (chance, least, most, otherwise) in zip(looks.T, LOOKS.values(), strict=False):
        drawn = amount[amount != np.float32(otherwise)] if chance < 1 else amount
        assert len(drawn) / len(amount) == pytest.approx(chance, abs=0.015)
        assert drawn.min() >= least - 1e-6 and drawn.max() <= most + 1e-6
        assert drawn.mean() == pytest.approx((least + most) / 2, abs=0.02 * (most - least) + 1e-6)


def test_a_segment_has_one_look_and_each_of_its_frames_its_own_noise(index_of):
    look = make_batch(index_of([range(9)]), RULE, np.arange(9), 0, 16)["look"].numpy()
    assert 2 <= len(np.unique(look[:, :-1], axis=0)) <= 4                  # segments of a track of nine
    assert len(np.unique(look[:, -1])) == len(look)


def test_the_same_key_gives_the_same_pixels_in_whichever_batch(index_of):
    index = index_of([range(9), range(9)])
    whole, part = (make_batch(index, RULE, rows, 0, 16) for rows in (np.arange(18), np.arange(9, 18)))
    shown = {}
    for batch in (whole, part):
        names = [look.tobytes() for look in batch["look"].numpy()]
        for name, frame in zip(names, to_model(batch)["frames"], strict=True):
            assert name not in shown or torch.equal(shown[name], frame)
            shown[name] = frame
    assert len(shown) == len(whole["frames"])


def test_without_the_look_a_batch_is_bit_identical(index_of):
    index, rows = index_of([range(9)]), np.arange(9)
    plain = make_batch(index, WindowRule(train=True, windows_per_segment=3), rows, 0, 16)
    changed = make_batch(index, RULE, rows, 0, 16)
    assert "look" not in plain and changed.keys() - plain.keys() == {"look"}
    assert all(values.equal(other) or values.isnan().any() for values, other in
               ((plain[name], changed[name]) for name in plain if name != "crop"))
    assert (plain["crop"] >= 0).all() and (changed["crop"][:, 2:] >= plain["crop"][:, 2:]).all()
    assert "look" not in make_batch(index, RULE.for_evaluation(1), rows, 0, 16)
    assert not to_model(plain)["frames"].equal(to_model(changed)["frames"])


@pytest.mark.parametrize("size", [(64, 64), (20, 33)])
def test_a_neutral_look_changes_nothing_that_is_seen(size):
    pixels = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    assert (change_look(pixels, a_look()) - pixels).abs().max() < 4 / 255


def test_each_amount_does_what_its_name_says():
    pixels = face()
    plain = change_look(pixels, a_look())

    def changed(**amounts: float) -> torch.Tensor:
        return change_look(pixels, a_look(**amounts))

    assert (changed(brightness=0.1) - plain).mean() == pytest.approx(0.1, abs=0.01)
    assert changed(contrast=0.5).std() == pytest.approx(plain.std().item() / 2, abs=0.01)
    assert changed(grey=0.0).std(1).max() < 0.02 < plain.std(1).max()
    assert changed(red=1.1)[:, 0].mean() == pytest.approx(1.1 * plain[:, 0].mean().item(), abs=0.01)
    assert changed(gamma=1.5).mean() < plain.mean()
    edge = plain[0, 2].diff(dim=1).abs().max()
    for softer in (changed(blur_x=0.02), changed(pixels=24.0)):
        assert softer[0, 2].diff(dim=1).abs().max() < 0.7 * edge
        assert softer.mean() == pytest.approx(plain.mean().item(), abs=0.005)
    assert (changed(noise=0.05) - plain)[:, 1].std() == pytest.approx(0.05, abs=0.02)
    kept = (changed(oval=0.4, scene=0.3) - plain).abs().amax(1)[0] < 0.02
    assert kept[20:44, 20:44].all() and kept.float().mean() < math.pi * 0.4 ** 2 * 1.25
    hidden = changed(cover=0.5, cover_x=0.5, cover_y=0.5, cover_level=1.0)
    assert (hidden > 0.97).float().mean() == pytest.approx(0.25, abs=0.02)


@pytest.mark.parametrize("quality", [20, 60])
def test_the_rounding_is_that_of_jpeg(quality):
    pixels = (torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 255).round()
    picture = pixels[0].permute(1, 2, 0).byte().contiguous().numpy()
    theirs = simplejpeg.decode_jpeg(simplejpeg.encode_jpeg(picture, quality, "RGB", "444"), "RGB")
    ours = change_look(pixels / 255, a_look(quality=float(quality)))[0].permute(1, 2, 0).numpy() * 255
    lost = np.abs(theirs - picture.astype(float)).mean()
    # libjpeg rounds the colours to whole levels on the way
    assert lost > 10 and np.abs(ours - theirs).mean() < 0.25 * lost
