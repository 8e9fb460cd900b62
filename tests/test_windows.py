"""Windows: which frames each shows, under padding, gaps, dropout and sharing."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gazepose.data import random_changes, windows
from gazepose.data.windows import WindowRule, centre_rows, close_up, make_batch, neighbours, segments, window_rows
from gazepose.keyed_random import uniform


def test_one_missing_neighbour_closes_up():
    assert close_up(np.array([[1, 0, 1, 1, 1, 1, 1]], bool)).tolist() == [[0, 0, 2, 3, 4, 5, 6]]


@given(st.lists(st.booleans(), min_size=7, max_size=7))
def test_a_window_shows_only_present_frames_in_order(present):
    window_shown = close_up(np.array([present]))[0]
    assert window_shown[3] == 3 and (np.diff(window_shown) >= 0).all()
    assert all(present[slot] or slot == 3 for slot in window_shown)


def test_windows_repeat_the_ends_of_a_track(index_of):
    index = index_of([np.arange(10, 15)])
    assert window_rows(index, WindowRule(), np.array([0, 2, 4])).tolist() == [
        [0, 0, 0, 0, 1, 2, 3], [0, 0, 1, 2, 3, 4, 4], [1, 2, 3, 4, 4, 4, 4]]


def test_neighbours_are_found_by_frame_not_by_position(index_of):
    index = index_of([[5, 6, 8, 9], [1, 2]])
    assert neighbours(index, np.array([1, 4]), 2).tolist() == [[-1, 0, 1, -1, 2], [-1, -1, 4, 5, -1]]


@given(st.lists(st.lists(st.integers(0, 20), min_size=1, max_size=14), min_size=1, max_size=3), st.integers(1, 4))
def test_neighbours_are_found_past_any_number_of_repeated_frames(index_of, tracks, reach):
    index = index_of([sorted(track) for track in tracks])
    near = neighbours(index, np.arange(len(index)), reach)
    for row in range(len(index)):
        track = index.track_of(row)
        last = {int(index.frame[r]): r for r in range(index.track_start[track], index.track_start[track + 1])}
        expected = [last.get(int(index.frame[row]) + offset, -1) for offset in range(-reach, reach + 1)]
        expected[reach] = row                                            # a face is the centre of its own window
        assert near[row].tolist() == expected


def test_the_farthest_neighbours_are_seen_beside_a_repeated_frame(index_of):
    index = index_of([[1, 2, 3, 3, 4, 5, 5, 6, 7, 8, 9]])
    assert index.frame[window_rows(index, WindowRule(), np.array([4, 7]))].tolist() == [
        [1, 2, 3, 4, 5, 6, 7], [3, 4, 5, 6, 7, 8, 9]]


def test_strides_count_positions_within_each_track(index_of):
    assert centre_rows(index_of([range(7), range(3)]), 3).tolist() == [0, 3, 6, 7]


@given(st.lists(st.sets(st.integers(0, 40), min_size=1, max_size=40), min_size=1, max_size=6), st.integers(1, 4),
       st.integers(1, 9), st.integers(0, 5))
def test_segments_are_runs_of_one_track_holes_or_not(index_of, tracks, stride, count, epoch):
    places = [sorted(track) for track in tracks]
    whole = [range(len(track)) for track in tracks]                    # without holes, neighbours are a stride apart
    for known, gap in ((places, None), (whole, stride)):
        index = index_of(known, position=[place for track in known for place in track])
        rows = centre_rows(index, stride)
        names = segments(index, WindowRule(train=True, stride=stride, windows_per_segment=count), rows, epoch)
        for name in np.unique(names):
            members = rows[names == name]
            assert len(members) <= count and len(np.unique(index.track_of(members))) == 1
            assert gap is None or (np.diff(members) == gap).all()


def test_dropout_spares_the_centre_and_the_unknown(index_of):
    index = index_of([range(7)], quality=[0, 0, np.nan, 0, 100, 100, 100])
    rule = WindowRule(gaussian_drop=True, quality_fit=(50, 20))
    # the two bad frames on the left are left out, the frame of unknown quality is repeated outwards
    assert window_rows(index, rule, np.array([3])).tolist() == [[2, 2, 2, 3, 4, 5, 6]]
    assert window_rows(index, WindowRule(), np.array([3])).tolist() == [[0, 1, 2, 3, 4, 5, 6]]


def test_training_drops_a_bad_frame_four_times_in_five(index_of):
    index = index_of([range(3)] * 4000, quality=[0, 100, 100] * 4000)
    rule = WindowRule(gaussian_drop=True, quality_fit=(50, 10), train=True)
    window_shown = window_rows(index, rule, np.arange(1, 12000, 3), epoch=0)
    assert np.mean(window_shown[:, 2] == window_shown[:, 3]) == pytest.approx(0.8, abs=0.03)
    again = window_rows(index, rule, np.arange(1, 12000, 3), epoch=1)
    assert (window_shown != again).any()


def test_dropout_without_a_fit_says_what_to_do(index_of):
    with pytest.raises(ValueError, match="quality fit.*gazepose priors quality"):
        window_rows(index_of([range(3)]), WindowRule(gaussian_drop=True), np.array([1]))


def test_dropout_on_the_log_scale(index_of):
    index = index_of([range(7)], quality=[1, 1, 100, 100, 100, 100, 100])
    # p of 1 on the log scale: 0 is two deviations below the mean, on the plain scale far less than one
    window_shown = {scale: window_rows(index, WindowRule(gaussian_drop=True, quality_scale=scale, quality_fit=fit),
                                np.array([3])).tolist()
             for scale, fit in (("log", (4, 2)), ("variance", (80, 200)))}
    assert window_shown == {"log": [[2, 2, 2, 3, 4, 5, 6]], "variance": [[0, 1, 2, 3, 4, 5, 6]]}


def test_dropout_by_a_given_p(index_of):
    index = index_of([range(7)], quality_p=[0.1, np.nan, 0.3, 0, 1, 0.19, 0.2])
    rule = WindowRule(gaussian_drop=True, quality_scale="given")
    assert window_rows(index, rule, np.array([3])).tolist() == [[1, 1, 2, 3, 4, 6, 6]]
    with pytest.raises(ValueError, match="priors import quality_p FILE"):
        window_rows(index_of([range(7)]), rule, np.array([3]))


def test_a_batch_holds_each_frame_once(index_of):
    index = index_of([range(70)])
    batch = make_batch(index, WindowRule(), np.arange(3, 67), 0, 16)
    assert batch["frames"].shape == (70, 3, 16, 16) and batch["window"].shape == (64, 7)
    # the crops of this index are solid: grey level = row
    window_shown = batch["frames"][batch["window"]][:, :, 0, 0, 0]
    np.testing.assert_allclose(window_shown, np.arange(3, 67)[:, None] + np.arange(-3, 4), atol=2)


def test_segments_that_share_a_frame_get_it_twice_in_training(index_of):
    index = index_of([range(32)])
    rule = WindowRule(train=True, windows_per_segment=8)
    batch = make_batch(index, rule, np.arange(32), 0, 16)
    names = segments(index, rule, np.arange(32), 0)
    flips = batch["flip"][batch["window"]]
    crops = batch["crop"][batch["window"]]
    for name in np.unique(names):
        inside = names == name
        assert len(np.unique(flips[inside])) == 1 and len(np.unique(crops[inside].reshape(-1, 4), axis=0)) == 1
    assert len(batch["frames"]) > 32


def test_a_filler_is_never_learnt_from(index_of):
    batch = make_batch(index_of([range(5)], label=[1] * 5), WindowRule(), np.array([2, ~1]), 0, 16)
    assert batch["label"].tolist() == [1, -1] and batch["row"].tolist() == [2, ~1]


def test_chance_depends_on_its_keys_alone():
    keys = np.arange(100000)
    drawn = uniform(7, 3, keys)
    assert uniform(7, 3, 17) == drawn[17] and uniform(7, 4, 17) != drawn[17] and uniform(3, 7, 17) != drawn[17]
    assert abs(drawn.mean() - 0.5) < 0.005 and abs(drawn.std() - 12**-0.5) < 0.005
    assert abs(np.corrcoef(drawn[1:], drawn[:-1])[0, 1]) < 0.01


def test_random_crops_lie_inside_and_keep_their_area():
    crop = random_changes.random_crops(np.arange(5000), 0, 0, 224)
    area = crop[:, 2] * crop[:, 3]
    assert (crop[:, :2] >= 0).all() and (crop[:, :2] + crop[:, 2:] <= 1 + 1e-6).all()
    assert area.min() > 0.79 and area.max() <= 1


def test_half_of_the_crops_grow_about_their_centres_when_asked():
    plain, grown = (random_changes.random_crops(np.arange(5000), 0, 0, 64, larger) for larger in (False, True))
    factor = grown[:, 2:] / plain[:, 2:]
    assert np.allclose(factor[:, 0], factor[:, 1], atol=1e-5) and 1 <= factor.min() + 1e-6 < factor.max() <= 1.35 + 1e-5
    assert np.mean(factor[:, 0] > 1) == pytest.approx(0.5, abs=0.03)
    assert np.allclose(plain[:, :2] + plain[:, 2:] / 2, grown[:, :2] + grown[:, 2:] / 2, atol=1e-6)


@pytest.mark.parametrize("size", [224, 32])
def test_random_crops_are_those_of_torchvision(size):
    from torchvision.transforms import RandomResizedCrop
    torch.manual_seed(0)
    corner = [RandomResizedCrop.get_params(torch.zeros(1, size, size), list(random_changes.CROP_SCALE),
                                           list(random_changes.CROP_ASPECT)) for _ in range(8000)]
    theirs = np.array(corner)[:, [1, 0, 3, 2]]           # y, x, height, width -> x, y, width, height
    ours = random_changes.random_crops(np.arange(8000), 0, 0, size) * size
    assert np.allclose(ours, np.rint(ours), atol=1e-3)                 # whole pixels
    whole = [((sides[:, 2:] > size - 0.5).any(1)).mean() for sides in (theirs, ours)]
    assert whole[0] == pytest.approx(whole[1], abs=0.02)               # 9 % at 224 pixels; clamped sides: 62 %
    for one, other in zip(theirs.T, ours.T, strict=True):              # x, y, width, height: the same distribution
        assert np.abs(np.quantile(one, [.1, .5, .9]) - np.quantile(other, [.1, .5, .9])).max() <= 0.02 * size + 1


def test_the_whole_picture_is_taken_where_no_draw_fits(monkeypatch):
    draws = []
    monkeypatch.setattr(random_changes, "uniform",
                        lambda *keys: draws.append(1) or np.full(np.shape(keys[3]), 1 - 1e-9))
    assert random_changes.random_crops(np.arange(3), 0, 0, 224).tolist() == [[0, 0, 1, 1]] * 3
    assert len(draws) == 4 * random_changes.CROP_TRIES


def test_a_stride_goes_over_labelled_rows_where_labels_are_sparse(index_of):
    sparse = [0 if frame % 5 == 0 else -1 for frame in range(31)]      # every fifth frame has a label
    index = index_of([range(31), range(7), range(7)], label=sparse + [-1] * 7 + [1] * 7)
    assert centre_rows(index, 3).tolist() == [0, 15, 30, 31, 34, 37, 38, 41, 44]
    assert centre_rows(index, 2).tolist()[:4] == [0, 10, 20, 30]       # by position it would be the same by luck
    assert centre_rows(index_of([range(31)], label=sparse[::-1]), 4).tolist() == [0, 20]
    assert centre_rows(index_of([range(1, 32)], label=[-1, *sparse[:-1]]), 3).tolist() == [1, 16]
    assert len(centre_rows(index, 1)) == 45                            # every face is scored
    assert windows.counts_of(index, centre_rows(index, 3)) == "train: 9 of 45 faces; 6 of the 14 with a label"


def test_what_a_stride_chooses_is_counted(index_of):
    index = index_of([range(7)])
    assert windows.counts_of(index, centre_rows(index, 3)) == "train: 3 of 7 faces"
