"""One pass over a video: faces are found, followed and read once; what was stopped goes on and ends the same."""

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from squares import Reader, film, moving, picture, still, tools

from gazepose.io import read_arrays
from gazepose.watch.detect import COLUMNS, CutFinder
from gazepose.watch.faces import faces_of, read_pass, video_of
from gazepose.watch.table import Table
from gazepose.watch.tracker import Tracker
from gazepose.watch.video_pass import Tools, finished_parts, is_finished, watch_video


@pytest.fixture(autouse=True)
def plain_score(monkeypatch: pytest.MonkeyPatch) -> None:
    from gazepose.watch import faces
    monkeypatch.setattr(faces, "_landmark_score", lambda known: 1 - known["yaw"] / 10)


def faces(path: Path, folder: Path, with_tools: Tools | None = None) -> Table:
    watch_video(path, folder, with_tools or tools())
    return faces_of("v", read_pass(folder), ["landmarks"])


def box(x: float, y: float = 50, side: float = 40) -> np.ndarray:
    face = np.zeros((1, COLUMNS))
    face[0, :4] = x, y, side, side
    return face


# ---- the tracker

def test_two_faces_that_pass_each_other_keep_their_numbers():
    tracker = Tracker()
    for number in range(40):
        faces = np.concatenate([box(10 + 5 * number, 50), box(210 - 5 * number, 85)])
        assert tracker.step(number / 30, faces).tolist() == [0, 1]


@pytest.mark.parametrize(("rate", "gap", "same"), [(30, 0.45, True), (30, 0.6, False), (10, 0.4, True),
                                                   (120, 0.45, True)])
def test_a_face_that_is_lost_for_up_to_half_a_second_keeps_its_number_at_any_rate(rate, gap, same):
    tracker = Tracker()
    for number in range(rate // 5):
        tracker.step(number / rate, box(50))
    assert tracker.step((rate // 5 - 1) / rate + gap, box(52)).tolist() == [0 if same else 1]


def test_a_face_that_is_far_away_or_of_another_size_is_another_face():
    for other in (box(150), box(50, side=90)):
        tracker = Tracker()
        tracker.step(0.0, box(50))
        assert tracker.step(1 / 30, other).tolist() == [1]


def test_a_tracker_that_is_restored_goes_on_alike():
    one, other = Tracker(), Tracker()
    for number in range(9):
        one.step(number / 30, np.concatenate([box(10 + 6 * number), box(200 - 6 * number)]))
    other.restore(one.state())
    for number in range(9, 25):
        faces = np.concatenate([box(10 + 6 * number), box(200 - 6 * number)])
        assert one.step(number / 30, faces).tolist() == other.step(number / 30, faces).tolist()


# ---- cuts

def test_a_cut_is_a_sudden_change_of_colours_and_a_pan_is_none():
    finder, noise = CutFinder(), np.random.default_rng(0).integers(0, 256, (60, 400, 3), np.uint8).repeat(4, 0)
    pans = [finder.add(number / 30, noise[:, 4 * number:4 * number + 100]) for number in range(60)]
    assert not any(pans)
    assert finder.add(2.0, np.full((240, 100, 3), 200, np.uint8))
    assert not finder.add(2.03, np.full((240, 100, 3), 201, np.uint8))


def test_a_cut_every_ten_frames_gives_each_shot_people_of_its_own(tmp_path):
    path = film(tmp_path / "a.mp4", moving(60, still(100, 80), ground=lambda number: 40 + 100 * (number // 10 % 2)))
    table = faces(path, tmp_path / "parts")
    assert video_of("v", path, read_pass(tmp_path / "parts")).cuts == pytest.approx(np.arange(1, 6) / 3, abs=0.01)
    assert table.groupby("person")["frame"].agg(["min", "max", "count"]).to_numpy().tolist() == [
        [10 * shot, 10 * shot + 9, 10] for shot in range(6)]


# ---- rows

def test_the_detector_sees_every_second_picture_and_boxes_between_are_interpolated(tmp_path):
    path, used = film(tmp_path / "a.mp4", moving(31, lambda number: (20 + 4 * number, 60, 60))), tools()
    table = faces(path, tmp_path / "parts", used)
    assert used.detector.calls == 16 and used.reader.calls == 31 and len(table) == 31
    assert table["x"].tolist() == pytest.approx([20 + 4 * number for number in range(31)], abs=1.5)
    assert (table["person"] == "P1").all() and (table["codable"] == 1).all()


@pytest.mark.parametrize(("rate", "calls"), [(10, 20), (25, 11), (60, 6)])
def test_the_detector_is_used_by_time_not_by_frames(tmp_path, rate, calls):
    used = tools()
    faces(film(tmp_path / "a.mp4", moving(20, still(100, 80)), rate=rate), tmp_path / "parts", used)
    assert used.detector.calls == calls


def test_without_skipping_every_picture_is_searched(tmp_path):
    used = tools(detect_seconds=0.0)
    faces(film(tmp_path / "a.mp4", moving(20, still(100, 80))), tmp_path / "parts", used)
    assert used.detector.calls == 20


def test_a_gap_is_filled_and_never_scored(tmp_path):
    path = film(tmp_path / "a.mp4", moving(40, lambda number: None if 15 <= number < 21 else (100, 80, 60)))
    table = faces(path, tmp_path / "parts")
    filled = table[table["reason"] == "not detected"]
    assert table["frame"].tolist() == list(range(40)) and set(table["person"]) == {"P1"}
    assert set(range(15, 21)) <= set(filled["frame"]) and len(filled) <= 8
    assert filled["looking"].isna().all() and (filled["codable"] == 0).all()
    assert filled["x"].tolist() == pytest.approx([100] * len(filled), abs=2)


def test_a_track_shorter_than_a_quarter_second_is_dropped_but_not_a_short_video(tmp_path):
    short = film(tmp_path / "a.mp4", moving(60, still(30, 80),
                                            lambda number: (200, 80, 60) if 20 <= number < 26 else None))
    assert set(faces(short, tmp_path / "a")["person"]) == {"P1"}
    assert len(faces(film(tmp_path / "b.mp4", moving(3, still(30, 80))), tmp_path / "b")) == 3


def test_one_frame_no_face_and_eight_pixel_faces_are_defined(tmp_path):
    one = faces(film(tmp_path / "a.mp4", [picture([(30, 80, 60)])]), tmp_path / "a")
    assert one[["person", "frame", "seconds", "codable"]].to_numpy().tolist() == [["P1", 0, 0.0, 1]]
    assert len(faces(film(tmp_path / "b.mp4", moving(10)), tmp_path / "b")) == 0
    tiny = faces(film(tmp_path / "c.mp4", moving(10, still(100, 80, 8))), tmp_path / "c")
    assert len(tiny) == 10 and set(tiny["reason"]) == {"too small"} and tiny["looking"].isna().all()


def test_a_crowd_of_sixty_is_sixty_people(tmp_path):
    def member(number: int) -> Callable[[int], tuple[float, float, float]]:
        return lambda frame: (10 + 60 * (number % 10) + frame % 3, 10 + 58 * (number // 10), 44)
    path = film(tmp_path / "a.mp4", [picture([member(n)(frame) for n in range(60)], size=(620, 360))
                                      for frame in range(20)])
    table = faces(path, tmp_path / "parts")
    assert table["person"].nunique() == 60 and table.groupby("frame").size().tolist() == [60] * 20
    assert table[table["frame"] == 0].sort_values(["x", "y"])["person"].nunique() == 60


def test_rules_are_in_seconds_at_a_variable_rate(tmp_path):
    times = np.cumsum([0.0, *([0.02, 0.08] * 20)]).tolist()
    table = faces(film(tmp_path / "a.mkv", moving(41, still(100, 80)), times=times), tmp_path / "parts")
    assert set(table["person"]) == {"P1"} and table["seconds"].tolist() == pytest.approx(times, abs=0.002)


# ---- the user's own boxes

def test_own_boxes_are_used_as_they_are(tmp_path):
    boxes = {3: (np.array([1, 0]), np.array([[10.0, 10, 50, 50], [90, 20, 60, 60]])),
             5: (np.array([0]), np.array([[92.0, 20, 0, 60]]))}
    used = Tools(Reader(lambda number: None), None, boxes)
    watch_video(film(tmp_path / "a.mp4", moving(10)), tmp_path / "parts", used)
    table = faces_of("v", read_pass(tmp_path / "parts"), ["landmarks"], ["ann", "bob"])
    assert table[["frame", "person", "x", "width"]].to_numpy().tolist() == [
        [3, "ann", 90, 60], [3, "bob", 10, 50], [5, "ann", 92, 0]]


# ---- going on

@pytest.mark.parametrize("stop_at", [5, 40, 61, 99])
def test_a_pass_that_was_stopped_goes_on_reads_nothing_twice_and_ends_with_the_same_bytes(tmp_path, stop_at):
    cuts = moving(90, lambda number: (20 + 2 * number, 60, 60),
                  lambda number: None if 30 < number < 40 else (240, 150, 50),
                  ground=lambda number: 40 + 60 * (number >= 50))
    path = film(tmp_path / "a.mp4", cuts)
    whole = tools(part_seconds=0.5)
    watch_video(path, tmp_path / "whole", whole)

    def fails(number: int) -> None:
        if number == stop_at:
            raise KeyboardInterrupt
    first = tools(reader=Reader(fails), part_seconds=0.5)
    with pytest.raises(KeyboardInterrupt):
        watch_video(path, tmp_path / "parts", first)
    before = [(part, part.stat().st_mtime_ns) for part in finished_parts(tmp_path / "parts")]
    done = sum(len(read_arrays(part, ["frame"])["frame"]) for part, _ in before)
    assert not is_finished(tmp_path / "parts")
    second = tools(part_seconds=0.5)
    watch_video(path, tmp_path / "parts", second)
    assert second.reader.calls == whole.reader.calls - done
    assert [(part, part.stat().st_mtime_ns) for part, _ in before] == before
    names = [part.name for part in finished_parts(tmp_path / "whole")]
    assert names == [part.name for part in finished_parts(tmp_path / "parts")] and len(names) > 4
    for name in names:
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()
    watch_video(path, tmp_path / "parts", third := tools(part_seconds=0.5))
    assert third.reader.calls == third.detector.calls == 0


def test_an_error_of_the_reader_or_of_the_video_comes_out_of_both_threads(tmp_path):
    def fails(number: int) -> None:
        if number == 7:
            raise RuntimeError("in the reader")
    path, before = film(tmp_path / "a.mp4", moving(30, still(100, 80))), threading.active_count()
    with pytest.raises(RuntimeError, match="in the reader"):
        watch_video(path, tmp_path / "parts", tools(reader=Reader(fails)))
    with pytest.raises(FileNotFoundError, match="no such video"):
        watch_video(tmp_path / "b.mp4", tmp_path / "parts", tools())
    assert threading.active_count() == before


def test_progress_is_told_in_seconds_of_video(tmp_path):
    told: list[float] = []
    watch_video(film(tmp_path / "a.mp4", moving(50, still(100, 80)), rate=10), tmp_path / "parts", tools(), told.append)
    assert told[0] == 0 and told[-1] >= 4 and told == sorted(told)
