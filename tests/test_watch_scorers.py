"""Trained models as scorers of videos: what a window shows at any rate, and scores that a stop does not change."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from making import list_faces
from squares import film, moving, picture, tools

from gazepose.data.own_videos import lay_out
from gazepose.data.streaming import open_index
from gazepose.data.video_times import TimedPicture, pictures_with_times
from gazepose.data.windows import WindowRule, make_batch
from gazepose.models import ModelConfig, Priors, build_model
from gazepose.priors.face_landmarker import five_points
from gazepose.training import scoring
from gazepose.training.augment import to_model
from gazepose.training.run_config import face_heights
from gazepose.watch.config import LANDMARKS
from gazepose.watch.faces import faces_of, read_pass
from gazepose.watch.scorers import TrainedScorer
from gazepose.watch.sources import read_own_boxes
from gazepose.watch.video_pass import watch_video

SMALL: dict[str, Any] = {"backbone": "test_resnet", "num_encoder_layers": 1, "num_decoder_layers": 1, "dmodel": 32,
                         "nheads": 2, "dim_feedforward": 32, "prior_head": True, "prior_landmark": True}
UNKNOWN = np.full(3, np.nan), np.full((5, 2), np.nan)


@pytest.fixture(autouse=True)
def small_model(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    config = ModelConfig(model="GazePose", **SMALL)
    model = build_model(config).eval()
    trained = {"model": vars(config), "prepare": {"crop_size": 32}}
    monkeypatch.setattr(scoring, "read_model", lambda path: (model, trained))


def scorer(**how: Any) -> TrainedScorer:
    return TrainedScorer(Path("run"), **how)


def shown(number: int, rate: float) -> TimedPicture:
    return TimedPicture(number, number / rate, 1 / rate, picture([(100, 60, 80)], 40 + number % 100))


def window_at(rate: float, centre: int, count: int = 60, **how: Any) -> list[int]:
    """Numbers of the pictures in the window of one of them."""
    made = scorer(**how)
    for number in range(count):
        made.add(number, 0, shown(number, rate), np.array([100.0, 60, 80, 80]), *UNKNOWN)
    return made._window(made.faces[centre], list(range(count))).tolist()


@pytest.mark.parametrize(("rate", "wanted"), [
    (30, [7, 8, 9, 10, 11, 12, 13]), (60, [4, 6, 8, 10, 12, 14, 16]), (120, [-2, 2, 6, 10, 14, 18, 22]),
    (10, [9, 9, 10, 10, 10, 11, 11])])
def test_frames_of_a_window_are_a_thirtieth_of_a_second_apart_at_any_rate(rate, wanted):
    moved_on = 10 if rate == 120 else 0                                # where the window has all its frames
    assert window_at(rate, 10 + moved_on) == [number + moved_on for number in wanted]


def test_at_the_end_of_a_track_the_outermost_frame_is_repeated_and_a_causal_window_has_nothing_later():
    assert window_at(30, 59) == [56, 57, 58, 59, 59, 59, 59]
    assert window_at(30, 30, window="closed") == [27, 28, 29, 30, 30, 30, 30]
    assert window_at(30, 30, window="causal") == [24, 25, 26, 27, 28, 29, 30]
    assert window_at(30, 2, window="causal") == [0, 0, 0, 0, 1, 2, 2]


def test_a_crop_is_read_by_the_backbone_once(monkeypatch):
    made, read = scorer(window="closed"), []
    maps = scoring.RunModel.maps
    monkeypatch.setattr(scoring.RunModel, "maps", lambda run, crops: read.append(len(crops)) or maps(run, crops))
    for number in range(20):
        made.add(number, 0, shown(number, 30), np.array([100.0, 60, 80, 80]), *UNKNOWN)
        assert made.take_now(number / 30)[0].tolist() == [number]
    assert read == [1] * 20 and len(made.faces) <= 5


def test_blurred_neighbours_are_left_out_where_the_run_was_trained_so_and_the_centre_never_is(monkeypatch):
    trained = {"model": vars(ModelConfig(model="GazePose", **SMALL)), "prepare": {"crop_size": 32},
               "data": {"gaussian_drop": True}, "quality_fit": [1e9, 1.0]}                # every crop is far less sharp
    monkeypatch.setattr(scoring, "read_model", lambda path: (torch.nn.Identity(), trained))
    assert window_at(30, 10) == [10] * 7
    trained["quality_fit"] = [0.0, 1.0]
    assert window_at(30, 10) == [7, 8, 9, 10, 11, 12, 13]


def test_another_track_is_in_no_window():
    made = scorer()
    for number in range(12):
        for track in (0, 1):
            made.add(2 * number + track, track, shown(number, 30), np.array([100.0, 60, 80, 80]), *UNKNOWN)
    centre = made.faces[12]
    places = [place for place, face in enumerate(made.faces) if face.track == centre.track]
    assert made._window(centre, places).tolist() == [6, 8, 10, 12, 14, 16, 18]


def test_the_detectors_box_is_moved_to_where_training_crops_lie_and_the_users_is_not():
    # the upper eighth of the box lies on the dark ground, and is not in the crop of a box that is moved down
    for own, top in ((True, 40), (False, 255)):
        made = scorer(own_boxes=own)
        made.add(0, 0, shown(0, 30), np.array([110.0, 50, 60, 80]), *UNKNOWN)
        assert made.faces[0].crop.shape == (32, 32, 3)
        assert made.faces[0].crop[0, 16].tolist() == pytest.approx([top] * 3, abs=2)       # a JPEG lies between


def test_landmarks_are_parts_of_the_crop():
    made = scorer(own_boxes=True)
    made.add(0, 0, shown(0, 30), np.array([100.0, 60, 80, 40]), np.array([1.0, 2, 3]), np.array([[140.0, 80]] * 5))
    assert made.faces[0].landmarks.tolist() == [[0.5, 0.5, 1.0]] * 5 and made.faces[0].pose.tolist() == [1, 2, 3]


def scores(path: Path, folder: Path, **how: Any) -> np.ndarray:
    watch_video(path, folder, tools(scorers={"run": scorer()}, **how))
    return read_pass(folder, ["run"]).looking["run"]


def test_every_face_gets_one_score_and_a_stop_changes_none(tmp_path):
    pictures = moving(70, lambda number: (60 + number / 2, 60, 60), lambda number: (200, 90, 60),
                      ground=lambda number: 40 + 60 * (number >= 33))
    for number, each in enumerate(pictures):
        face = each[60 + number % 50:120, 40:270]                      # every picture differs, and is a face still
        face[face == 255] = 180
    path = film(tmp_path / "a.mp4", pictures)
    whole = scores(path, tmp_path / "whole", part_seconds=0.5)
    assert len(whole) == 140 and ((whole >= 0) & (whole <= 1)).all() and len(set(whole.round(5).tolist())) > 50
    used = tools(scorers={"run": scorer()}, part_seconds=0.5)

    def fails(number: int) -> None:
        if number == 90:
            raise KeyboardInterrupt
    used.reader.fails = fails
    with pytest.raises(KeyboardInterrupt):
        watch_video(path, tmp_path / "parts", used)
    assert np.array_equal(scores(path, tmp_path / "parts", part_seconds=0.5), whole)
    for part in sorted((tmp_path / "whole").iterdir()):
        assert part.read_bytes() == (tmp_path / "parts" / part.name).read_bytes()


def test_a_score_is_what_the_model_says_of_that_window(tmp_path):
    path = film(tmp_path / "a.mp4", moving(20, lambda number: (60 + number, 60, 60)))
    found = scores(path, tmp_path / "parts", detect_seconds=0.0)
    alone = scorer()
    for shown in pictures_with_times(path):
        face = tools().detector.find(shown.picture)[0]
        read = tools().reader.read(shown.picture, face[4:14].reshape(5, 2)[[2, 1, 0, 4, 3]])
        pose = np.array([read.yaw, read.pitch, read.roll])
        alone.add(shown.number, 0, shown, face[:4], pose, five_points(read.points))
    alone.end_all()
    rows, values = alone.take(np.inf)
    assert rows.tolist() == list(range(20)) and found.tolist() == pytest.approx(values.tolist(), abs=1e-5)


@pytest.mark.parametrize(("smallest", "scored"), [(None, 0), (20.0, 0), (16.0, 20), (60.0, 0)])
def test_a_run_scores_faces_as_small_as_those_it_was_trained_on(tmp_path, monkeypatch, smallest, scored):
    model, trained = scoring.read_model(Path("run"))
    heights = None if smallest is None else [smallest, 200.0]
    monkeypatch.setattr(scoring, "read_model", lambda path: (model, {**trained, "face_heights": heights}))
    path = film(tmp_path / "a.mp4", moving(20, lambda number: (60, 60, 60), lambda number: (200, 60, 20)))
    watch_video(path, tmp_path / "parts", tools(scorers={"run": scorer()}))    # crops: 16.6 pixels of a box of 20
    done = read_pass(tmp_path / "parts", ["run"])
    table = faces_of("v", done, ["run", LANDMARKS])
    of_person = table.groupby("person")["looking"].agg(["count", "size"]).to_numpy().tolist()
    assert of_person == [[20, 20], [scored, 20]]
    assert set(table[table["person"] == "P2"]["reason"]) == {"" if scored else "too small"}
    assert table[table["person"] == "P2"]["looking_landmarks"].isna().all()
    assert faces_of("v", done, [LANDMARKS, "run"])["codable"].sum() == 20      # is said of the first scorer


def test_a_run_records_the_heights_of_nine_of_ten_of_its_faces():
    box = np.zeros((101, 4), np.float32)
    box[:, 3] = np.r_[np.arange(100), np.nan] + 1
    low, high = face_heights(box) or (0, 0)
    assert (low, high) == pytest.approx((5.95, 95.05)) and face_heights(box[-1:]) is None
def test_the_users_boxes_get_the_same_scores_as_by_inference(tmp_path, monkeypatch):
    """At the rate of the training data: the same pixels, JPEG and windows. The changes of light look like cuts."""
    plain = ModelConfig(model="GazePose", **{**SMALL, "prior_head": False, "prior_landmark": False})
    model = build_model(plain).eval()
    monkeypatch.setattr(scoring, "read_model", lambda path: (model, {"model": vars(plain), "prepare": {
        "crop_size": 32}}))
    path = film(tmp_path / "a.mp4", moving(20, lambda number: (60 + 3 * number, 60, 60), lambda number: (200, 60, 60),
                                           ground=lambda number: 40 + 5 * number))
    rows = [f"a,{track},{frame},{x + 2.5 * frame:.2f},{57.25 - frame},{50 + frame:.2f},63.5"
            for track, x in (("bob", 55), ("ann", 190)) for frame in range(20)]
    table = tmp_path / "boxes.csv"
    table.write_text("\n".join(["clip,track,frame,x,y,width,height", *rows]) + "\n")

    persons, boxes = read_own_boxes(table, {"a": path}, notify=lambda line: None)["a"]
    watch_video(path, tmp_path / "parts", tools(boxes=boxes, detector=None,
                                                scorers={"run": TrainedScorer(Path("run"), own_boxes=True)}))
    done = read_pass(tmp_path / "parts", ["run"])
    watched = {f"clip a track {persons[track]} frame {frame}": score for track, frame, score in
               zip(done.track.tolist(), done.frame.tolist(), done.looking["run"].tolist(), strict=True)}

    lay_out(table, path, tmp_path / "data", "val")
    index = open_index(list_faces(tmp_path / "data", "val", crop_size=32, decoder="pyav"))
    batch = to_model(make_batch(index, WindowRule(), np.arange(len(index)), 0, 32))
    with torch.inference_mode():
        logits = model(batch["frames"], batch["window"], Priors.of(batch)).logits
    inferred = logits.double().softmax(1)[:, 1].tolist()
    assert len(watched) == len(inferred) == 40 and len(set(np.round(inferred, 5))) > 30
    for row, score in enumerate(inferred):
        assert watched[index.name_of(row)] == pytest.approx(score, abs=1e-6), index.name_of(row)
