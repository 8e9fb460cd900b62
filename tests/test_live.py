"""Who looks now: the same scores and looks as `watch --causal`, frame by frame, with nothing kept of the past."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings, strategies
from squares import Reader, Squares, film, moving, picture, still, tools
from watching import faces, spans, video_of

from gazepose.data.crops import as_cut, grown
from gazepose.data.video_times import TimedPicture, pictures_with_times
from gazepose.models import ModelConfig, build_model
from gazepose.training import scoring
from gazepose.watch import bouts
from gazepose.watch.bouts import LookRules, find_looks
from gazepose.watch.faces import faces_of, read_pass
from gazepose.watch.faces import video_of as facts_of
from gazepose.watch.live import Watcher
from gazepose.watch.live_looks import LiveLook, RunningMedian
from gazepose.watch.scorers import TrainedScorer
from gazepose.watch.video_pass import POSE, read_face, watch_video

RATE = 10


def watcher(**how: Any) -> Watcher:
    return Watcher(Squares(), how.pop("reader", None) or Reader(), **how)


class Looks(Reader):
    """A landmark network that sees the face look while the first pixel is bright."""

    def read(self, shown: np.ndarray, place: np.ndarray, five: np.ndarray | None = None) -> Any:
        read = super().read(shown, place, five)
        return replace(read, yaw=0.0 if shown[0, 0, 0] > 60 else 70.0)


def live_looks(values: list[float], rules: LookRules) -> list[tuple[float, float]]:
    look, found, start = LiveLook(rules), [], np.nan
    changes = []
    for number, value in enumerate(values):
        changes += look.step(number / RATE, None if np.isnan(value) else value)
    for kind, at in [*changes, *look.end(len(values) / RATE)]:
        if kind == "starts looking":
            start = at
        else:
            found.append((round(start, 6), round(at, 6)))
    return found


@settings(max_examples=40)
@given(strategies.lists(strategies.sampled_from([0.1, 0.45, 0.8, 0.9, float("nan")]), min_size=2, max_size=60),
       strategies.sampled_from([LookRules(), LookRules(shortest=0, join=0, bridge=0), LookRules(shortest=0.35),
                                LookRules(join=0.6, bridge=0.1), LookRules(bridge=1.0, join=0.1)]))
@example([0.8, 0.1, 0.8, float("nan"), float("nan")], LookRules(shortest=0.35))   # too short if not seen on
def test_looks_that_are_announced_are_those_that_watch_finds_afterwards(values, rules):
    table = faces(values)
    assert live_looks(values, rules) == spans(find_looks(table, [video_of(table)], rules))


def test_the_running_median_is_that_of_watch_causal():
    random = np.random.default_rng(0)
    values = np.where(random.random(80) < 0.2, np.nan, random.random(80))
    wanted = bouts.smooth(faces(values.tolist(), fps=30), causal=True)["looking"].to_numpy()
    median = RunningMedian(0.1)
    found = [np.nan if np.isnan(value) else median.add(number / 30, value) for number, value in enumerate(values)]
    assert found == pytest.approx(wanted, nan_ok=True, abs=1e-12)


def test_a_frame_has_the_faces_and_scores_of_watch_causal(tmp_path):
    path = film(tmp_path / "a.mp4", moving(75, still(40, 60), lambda number: (150 + number / 3, 60, 60),
                                           lambda number: (100, 150, 30) if number % 3 else None,
                                           ground=lambda number: 40 + 60 * (number >= 50)))
    watch_video(path, tmp_path / "parts", tools(detect_seconds=0.0))
    done = read_pass(tmp_path / "parts")
    table = faces_of("v", done, ["landmarks"])
    table = bouts.smooth(table, causal=True, videos=[facts_of("v", path, done)])
    table = table[table["reason"] != "not detected"]                  # is filled in with the help of later frames
    made, found = watcher(), []
    for timed in pictures_with_times(path):
        found += [(timed.number, face) for face in made.step(timed.picture, timed.seconds)]
    assert len(found) == len(table) > 180 and done.cuts and table["looking"].isna().any()
    for (number, face), row in zip(found, table.itertuples(), strict=True):
        assert (number, face.person, face.codable, face.reason) == (row.frame, row.person, row.codable, row.reason)
        assert face.box == pytest.approx((row.x, row.y, row.width, row.height), abs=1e-9)
        assert face.probability == pytest.approx(row.looking, abs=1e-6, nan_ok=True)


def test_events_say_who_starts_and_stops_and_how_many_look():
    made, events = watcher(reader=Looks(), smooth=0.0), []
    for number in range(60):
        shown = picture([(100, 60, 80)] * (number < 50))
        shown[0, 0] = 100 * (20 <= number < 40)
        made.step(shown, number / 30)
        events += [(number, *event) for event in made.events]
    assert [(number, kind, person, round(at, 3), people) for number, kind, person, at, people in events] == [
        (23, "starts looking", "P1", 0.667, 1), (23, "people looking", "", 0.767, 1),
        (47, "stops looking", "P1", 1.333, 0), (47, "people looking", "", 1.567, 0)]


def test_a_look_ends_with_the_shot_and_with_the_camera():
    made = watcher(reader=Looks(), smooth=0.0)
    for number in range(30):
        faces_now = made.step(picture([(100, 60, 80)], 90), number / 30)
    assert faces_now[0].looking and faces_now[0].since == 0.0
    made.step(picture([(100, 60, 80)], 160), 1.0)
    assert [(event.kind, event.person, event.at) for event in made.events][0] == ("stops looking", "P1", 1.0)
    for number in range(31, 40):
        assert made.step(picture([(100, 60, 80)], 160), number / 30)[0].person == "P2"
    assert [(event.kind, event.at) for event in made.close()][0] == ("stops looking", pytest.approx(40 / 30))
    assert made.close() == []


def test_a_frame_of_another_kind_or_an_earlier_one_is_refused():
    made = watcher()
    made.step(picture([]), 1.0)
    for frame, seconds in ((picture([]), 1.0), (picture([]), float("nan")), (picture([])[..., 0], 2.0),
                           (picture([]).astype(np.float32), 2.0), ([], 2.0)):
        with pytest.raises(ValueError, match="convert it|give seconds that ascend"):
            made.step(frame, seconds)


# ---- a trained run

SMALL: dict[str, Any] = {"backbone": "test_resnet", "num_encoder_layers": 1, "num_decoder_layers": 1, "dmodel": 32,
                         "nheads": 2, "dim_feedforward": 32, "prior_head": True, "prior_landmark": True}


@pytest.fixture
def small_run(monkeypatch: pytest.MonkeyPatch) -> scoring.RunModel:
    torch.manual_seed(0)
    config = ModelConfig(model="GazePose", **SMALL)
    trained = {"model": vars(config), "prepare": {"crop_size": 32}}
    monkeypatch.setattr(scoring, "read_model", lambda path: (build_model(config), trained))
    return scoring.RunModel.read(Path("run"))


def noisy(number: int) -> np.ndarray:
    """A bright face that differs in every frame."""
    shown = picture([(100, 60, 80)])
    shown[62:138, 102:178] = np.random.default_rng(number).integers(180, 256, (76, 76, 3))
    return shown


def test_a_run_scores_a_frame_as_watch_causal_does(small_run):
    made, whole = watcher(scorer=TrainedScorer(small_run, "closed"), smooth=0.0), TrainedScorer(small_run, "closed")
    found = []
    for number in range(40):
        found += [face.probability for face in made.step(noisy(number), number / 30)]
    for number in range(40):
        face, shown = Squares().find(noisy(number))[0], TimedPicture(number, number / 30, 1 / 30, noisy(number))
        reading, points = read_face(Reader(), shown.picture, face)
        whole.add(number, 0, shown, face[:4], reading[POSE], points)
    rows, scores = whole.take(np.inf)
    assert rows.tolist() == list(range(40)) and np.ptp(scores) > 1e-5
    assert found == pytest.approx(scores.tolist(), abs=1e-6)


@pytest.mark.parametrize(("window", "shift"), [("closed", 0), ("causal", 3)])
def test_a_window_shows_the_model_no_later_frame(small_run, window, shift):
    made = TrainedScorer(small_run, window)
    pose = np.random.default_rng(0).normal(0, 20, (20, 3))
    found = []
    for number in range(20):
        made.add(number, 0, TimedPicture(number, number / 30, 1 / 30, noisy(number)), np.array([100.0, 60, 80, 80]),
                 pose[number], np.full((5, 2), np.nan))
        found.append(made.take_now(number / 30)[1][0])
    corners = np.concatenate([[x, y, x + width, y + height] for x, y, width, height in
                              [as_cut(np.array([100.0, 60, 80, 80]))]])
    crops = [small_run.cut(noisy(number), grown(corners, small_run.box_scale)) for number in range(20)]
    maps = small_run.maps(np.stack([crop[0] for crop in crops if crop is not None]))
    for number in range(6, 20):
        frames = np.minimum(number - shift + np.arange(-3, 4), number)
        alone = small_run.probabilities(maps, frames[None], pose[None, number - shift],
                                        np.full((1, 5, 3), np.nan))
        assert found[number] == pytest.approx(alone[0], abs=1e-6)


def test_what_is_held_does_not_grow(small_run):
    made = watcher(scorer=TrainedScorer(small_run, "causal"))
    made.detector.find = lambda shown: Squares().find(shown)[:1]
    held = []
    for number in range(120):
        made.step(picture([(100 + 60 * (number // 20 % 2), 60, 40)] * (number % 40 < 30)), number / 30)
        held.append(len(made.scorer.faces) + len(made._people) + sum(len(each.median._values)
                                                                     for each in made._people.values()))
    assert max(held) < 30 and max(held[80:]) <= max(held[:80]) and sys.getsizeof(made._tracker.tracks) < 2000
