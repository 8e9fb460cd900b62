"""Full pools: all batches of an epoch have one shape, which CUDA graphs need, and show what they showed before."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gazepose.data import windows
from gazepose.data.index import Index
from gazepose.data.loader import make_loader, order_of
from gazepose.data.order import ROUND, BatchOrder
from gazepose.data.windows import BEHAVIOURS, WindowRule, centre_rows, make_batch

TRACKS = [range(60), [1, 2, 3, 9, 10, 40, 41, 41, 41, 42, 43], [5], range(3), range(0, 90, 2), [7, 8]]
"""long, with gaps and repeated frames, of one face, short, with a gap between any two frames"""
QUALITY = np.random.default_rng(0).normal(50, 20, sum(map(len, TRACKS))).tolist()


def rule_of(stride: int, **more) -> WindowRule:
    return WindowRule(**{"train": True, "windows_per_segment": 4, "stride": stride, "gaussian_drop": True,
                         "quality_fit": (50, 20), **more})


def epoch_of(index: Index, rule: WindowRule, full: bool, epoch: int = 0, start: int = 0, **more) -> list[dict]:
    loader = make_loader(index, rule, centre_rows(index, rule.stride), batch_size=8, crop_size=16, **more)
    order_of(loader).full_pools, order_of(loader).epoch, order_of(loader).start = full, epoch, start
    return list(loader)


@pytest.fixture
def tracks(index_of) -> Index:
    return index_of(TRACKS, noise=True, quality=QUALITY)


@pytest.mark.parametrize("rule", [
    rule_of(1), rule_of(3), rule_of(13), rule_of(1, gaussian_drop=False), rule_of(2, augment="standard"),
    rule_of(3, windows_per_segment=1), rule_of(1, behaviour=BEHAVIOURS["published"])], ids=range(7))
def test_all_batches_of_an_epoch_have_one_shape_and_show_what_they_showed(tracks, rule):
    for epoch in range(2):
        plain, full = (epoch_of(tracks, rule, way, epoch) for way in (False, True))
        assert len({tuple((name, value.shape) for name, value in batch.items()) for batch in full}) == 1
        for one, other in zip(plain, full, strict=True):
            own = len(one["frames"])
            for name, value in one.items():                            # the first pictures and all windows are the same
                torch.testing.assert_close(other[name][:len(value)], value, rtol=0, atol=0, equal_nan=True)
            assert own <= len(other["frames"]) and int(other["window"].max()) < own


def test_a_pool_is_filled_with_its_own_pictures_evenly(tracks):
    rows = np.arange(4, 12)
    plain, full = (make_batch(tracks, rule_of(1), rows, 0, 16, size=size) for size in (0, 70))
    own = len(plain["frames"])
    places = np.arange(70 - own) * own // (70 - own)
    assert len(full["frames"]) == 70 and np.bincount(places).max() - np.bincount(places).min() <= 1
    for name in ("frames", "flip", "crop"):
        assert torch.equal(full[name][own:], plain[name][places])
    assert full["frames"].is_contiguous(memory_format=torch.channels_last) and full["frames"].any()


@given(st.lists(st.lists(st.integers(0, 25), min_size=1, max_size=30), min_size=1, max_size=6), st.integers(1, 9),
       st.integers(1, 9), st.integers(1, 9), st.integers(0, 3), st.integers(1, 3))
def test_no_pool_is_larger_than_the_bound(index_of, frames, stride, count, batch_size, epoch, world):
    index = index_of([sorted(track) for track in frames])
    rule = WindowRule(train=True, stride=stride, windows_per_segment=count)
    rows = centre_rows(index, stride)
    order = BatchOrder(index, rule, rows, batch_size, world)
    order.epoch, order.full_pools = epoch, True
    for batch in order:
        centre = np.array([row if row >= 0 else ~row for _, row, _ in batch])
        pool, *_ = windows.pool_of(index, rule, centre, windows.window_rows(index, rule, centre, epoch), epoch)
        assert len(pool) <= order.most_frames(centre) <= batch[0][2]


@pytest.mark.parametrize("frames, rows, stride", [
    (range(64), np.arange(3, 25, 3), 3),                               # frames 0 to 27 are shown
    ([*range(8), *range(7, 12)], np.arange(3, 8), 1)])                 # the second face of frame 7 is shown too
def test_the_bound_is_reached(index_of, frames, rows, stride):
    index, rule = index_of([frames]), WindowRule(train=True, stride=stride, windows_per_segment=99)
    order = BatchOrder(index, rule, rows, len(rows))
    assert order.most_frames(rows) == len(make_batch(index, rule, rows, 0, 16)["frames"])


def test_a_run_that_resumes_in_an_epoch_has_the_pools_it_had(tracks):
    whole = epoch_of(tracks, rule_of(1), True)
    rest = epoch_of(tracks, rule_of(1), True, start=16)
    assert len(rest) == len(whole) - 2 and len(whole[0]["frames"]) % ROUND == 0
    assert all(torch.equal(one["frames"], other["frames"]) for one, other in zip(rest, whole[2:], strict=True))
    assert epoch_of(tracks, rule_of(1), True, start=len(tracks)) == []             # it stopped before validation


def test_a_row_is_decoded_once_for_all_segments_that_show_it(tracks, monkeypatch):
    seen = []
    crop = Index.crop
    monkeypatch.setattr(Index, "crop", lambda self, row, out=None: seen.append(row) or crop(self, row, out))
    pool = np.array([3, 4, 5, 4, 3, 4])
    frames = windows.read_pool(tracks, pool, 16)
    assert seen == [3, 4, 5] and all((frames[place] == crop(tracks, row)).all() for place, row in enumerate(pool))
