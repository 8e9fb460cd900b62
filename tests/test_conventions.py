"""What is written otherwise than expected: read where its meaning is certain, named where it is not."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from making import HEIGHT, WIDTH, data_set, number_in, prepare, prepared_index, write_video

from gazepose.data.annotations import person_name, read_clips, segments_of, whole_number
from gazepose.data.box_table import COLUMNS, read_table, table_rules
from gazepose.data.conventions import of_boxes, of_frames, of_prior, unjudged
from gazepose.data.index import Index
from gazepose.data.index_writer import add_columns
from gazepose.data.join import join
from gazepose.data.own_videos import lay_out
from gazepose.data.tracks import POLICIES, Clip
from gazepose.doctor import examine
from gazepose.doctor.text import as_text
from gazepose.priors.commands import import_files

BASELINE, CLEAN = POLICIES["baseline"], POLICIES["clean"]


# ---- annotations: one clip, one person with the frames 0 to 9, who looks in 3..6

def clip_of(tmp_path: Path, segments: list[Any], person_id: Any = "1", policy=CLEAN, **track: Any) -> Clip:
    records = [{"x": 5, "y": 5, "width": 20, "height": 20, "frame": frame} for frame in range(10)]
    person = {"person_id": person_id, "tracking_paths": [{"track_id": "t", "track": records, **track}]}
    wearer = {"person_id": "0", "camera_wearer": True, "tracking_paths": []}
    path = tmp_path / "av.json"
    path.write_text(json.dumps({"videos": [{"clips": [
        {"clip_uid": "c", "persons": [wearer, person], "social_segments_looking": segments}]}]}))
    return read_clips(path, ["c"], policy)[0]


def segment(start: Any = 3, end: Any = 6, person: Any = "1") -> dict[str, Any]:
    return {"start_frame": start, "end_frame": end, "person": person}


READ = [0, 0, 0, 1, 1, 1, 0, 0, 0, 0]


@pytest.mark.parametrize("written", [segment(3.0, 6), segment("3", "6.0"), segment(person=1), segment(person=1.0),
                                     segment(person="1.0")])
@pytest.mark.parametrize("person_id", ["1", 1, 1.0])
def test_a_whole_number_written_otherwise_is_read(tmp_path, written, person_id):
    clip = clip_of(tmp_path, [written], person_id)
    assert clip.tracks[0].labels.tolist() == READ and +clip.counts == {"person left out: camera wearer": 1}


@pytest.mark.parametrize(("written", "labels"), [
    (segment(start=3.5), [-1] * 7 + [0] * 3),              # it ends at 6, but begins nobody knows where
    (segment(end=None), [0] * 3 + [-1] * 7),
    (segment(start=None, end="soon"), [-1] * 10),
    (segment(person=["1"]), [0] * 3 + [-1] * 4 + [0] * 3),             # someone looks in 3..6
    ("3..6", [-1] * 10)])
def test_faces_of_a_segment_that_cannot_be_read_are_unknown(tmp_path, written, labels):
    for policy in (CLEAN, BASELINE):
        clip = clip_of(tmp_path, [written], policy=policy)
        first = 1 if policy is BASELINE else 0             # which drops frame 0
        assert clip.tracks[0].labels.tolist() == labels[first:]
        assert [rule for rule in +clip.counts if rule.startswith("segment dropped: ") and "unknown" in rule]
    read = clip_of(tmp_path, [written, segment()]).tracks[0].labels.tolist()
    assert read[3:6] == [1, 1, 1]                          # a segment that is read is certain


def test_an_unreadable_segment_of_another_person_says_nothing_of_this_one(tmp_path):
    assert clip_of(tmp_path, [segment(), segment(start="?", person="2")]).tracks[0].labels.tolist() == READ


def test_a_segment_without_a_person_labels_nobody_as_published():
    counts = Counter[str]()
    assert segments_of([segment(person=None), None], ("person", "start_frame", "end_frame"), CLEAN, counts) == []
    assert counts == {"segment dropped: no person": 1}


def test_unmapped_frames_are_read_as_whole_numbers_too(tmp_path):
    tracks = clip_of(tmp_path, [], unmapped_frames=[4.0, "5", 6.5, None]).tracks
    assert [track.frames.tolist() for track in tracks] == [[0, 1, 2, 3], [6, 7, 8, 9]]


@pytest.mark.parametrize(("value", "number", "name"), [
    (3, 3, "3"), (3.0, 3, "3"), ("3", 3, "3"), ("3.0", 3, "3"), ("-3", -3, "-3"), ("007", 7, "007"),
    (True, None, "True"), (3.5, None, "3.5"), ("a", None, "a"), (None, None, ""), (float("inf"), None, "inf"),
    ("1e3", None, "1e3")])
def test_whole_numbers_and_names(value, number, name):
    assert whole_number(value) == number and person_name(value) == name


# ---- tables of boxes: faces of 60 to 120 pixels all over pictures of 1280 x 720

def boxes_of(faces: int = 200) -> np.ndarray:
    random = np.random.default_rng(0)
    side = random.uniform(60, 120, (faces, 2))
    return np.concatenate([random.uniform(0, 1, (faces, 2)) * (np.array([1280, 720]) - side), side], axis=1)


def corners(boxes):
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def centres(boxes):
    return np.concatenate([boxes[:, :2] + boxes[:, 2:] / 2, boxes[:, 2:]], axis=1)


def percent(boxes):
    return boxes / [12.80, 7.20, 12.80, 7.20]


def parts(boxes):
    return boxes / [1280, 720, 1280, 720]


SIZE = np.tile([1280.0, 720.0], (200, 1))
WRITTEN = {corners: "look like corners x1, y1, x2, y2 -> width is x2 - x1",
           centres: "look like centres -> subtract half", percent: "look like percent of the picture -> multiply",
           parts: r"look like parts of the picture \(0..1\) -> multiply"}


@pytest.mark.parametrize("written", WRITTEN)
def test_boxes_of_another_convention_are_named(written):
    assert of_boxes(boxes_of(), SIZE) == ""
    with pytest.raises(ValueError, match=WRITTEN[written]):
        raise ValueError(of_boxes(written(boxes_of()), SIZE))
    few = of_boxes(written(boxes_of()[:5]), SIZE[:5])      # too few to judge, but some are certain of a single face
    assert bool(few) == (written in (parts, corners))
    assert unjudged(boxes_of(), SIZE) == "" and "too few to judge: 5 faces" in unjudged(boxes_of()[:5], SIZE[:5])
    assert "too few to judge: 0 faces" in unjudged(boxes_of(), SIZE * np.nan)
    assert "corners or centres" in unjudged(boxes_of() + np.r_[200, 200, 0, 0], SIZE)


@pytest.mark.parametrize(("box", "words"), [
    ([900, 500, 1000, 600], "look like corners x1, y1"),   # as x, y, width, height its centre is at 1400, 800
    ([2700, 300, 90, 90], "video of another size"), ([500, 1500, 90, 90], "video of another size"),
    ([900, 500, 500, 300], ""), ([-20, -30, 90, 90], ""), ([1230, 700, 100, 100], ""), ([100, 100, 400, 500], "")])
def test_one_box_is_enough_where_no_face_can_be_so(box, words):
    assert words in of_boxes(np.array([box], float), SIZE[:1]) and bool(of_boxes(np.array([box], float), SIZE[:1])
                                                                        ) == bool(words)


@pytest.mark.parametrize("boxes", [
    boxes_of() + np.r_[60, 0, 0, 0],                       # some pass the right edge
    boxes_of() - np.r_[60, 60, 0, 0],                      # or the left one
    np.tile([900.0, 500, 500, 300], (200, 1)),             # one large face in a corner of the picture
    np.tile([10.0, 10, 60, 70], (200, 1)), np.full((200, 4), np.nan)])
def test_boxes_near_an_edge_are_plausible(boxes):
    assert of_boxes(boxes, SIZE) == "" and of_boxes(boxes, SIZE * np.nan) == ""


def test_boxes_of_a_larger_video_are_named():
    assert "video of another size" in of_boxes(boxes_of() * 3 - np.r_[100, 100, 0, 0], SIZE)


def test_frames_that_count_from_one_are_named():
    assert of_frames(1, 300, 300) == ("look as if counted from 1: the last is 300, of 300 pictures -> give --rule "
                                      "first_number=1")
    assert of_frames(0, 299, 300) == of_frames(1, 299, 300) == of_frames(1, 310, 300) == ""


def table(path: Path, frames: range, boxes: np.ndarray | None = None, header: str = ",".join(COLUMNS)) -> Path:
    boxes = np.tile([0.0, 0, WIDTH, HEIGHT], (len(frames), 1)) if boxes is None else boxes
    lines = [f"c,t,{frame}," + ",".join(f"{number:.3f}" for number in box)
             for frame, box in zip(frames, boxes, strict=True)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *lines]))
    return path


def test_a_table_of_another_convention_is_refused_with_a_way_out(tmp_path):
    video, out = write_video(tmp_path / "c.mp4", 40), tmp_path / "mine"
    faces = boxes_of(40) * ([WIDTH / 1280, HEIGHT / 720] * 2)
    wrong = table(tmp_path / "b.csv", range(40), corners(faces))
    with pytest.raises(ValueError, match=r"b\.csv: clip c: boxes look like corners .* yourself\)"):
        lay_out(wrong, video, out, "val")
    assert not out.exists()
    with pytest.raises(ValueError, match=r"no column 'x' -> .*; x is x1, y is y1, width is x2 - x1, height is y2 - y1"):
        read_table(table(wrong, range(40), faces, "clip,track,frame,x1,y1,x2,y2"))
    table(wrong, range(40), corners(faces), "clip,track,frame,x1,y1,x2,y2")
    assert f"{wrong}: boxes are read as corners x1, y1, x2, y2" in lay_out(wrong, video, tmp_path / "right", "val")
    for folder, source in (("boxes/val.csv", table(wrong, range(40), corners(faces))), ("videos/c.mp4", video)):
        (out / folder).parent.mkdir(parents=True)
        (out / folder).write_bytes(source.read_bytes())    # as the message says
    assert len(Index.open(prepare(out, "val", jobs=1))) == 40
    found = examine(out, notify=lambda line: None)["findings"]["convention"]
    (example,) = found["examples"]
    assert found["level"] == "look" and example["clip"] == "c" and "corners" in example["detail"]


# ---- facts of a table travel with it

@pytest.mark.parametrize("policy", POLICIES)
def test_the_number_of_the_first_picture_travels_with_the_table(tmp_path, policy):
    video, out = write_video(tmp_path / "c.mp4", 40), tmp_path / "mine"
    counted = table(tmp_path / "b.csv", range(1, 41))
    with pytest.raises(ValueError, match=r"frames look as if counted from 1: .* -> give --rule first_number=1"):
        lay_out(counted, video, out, "val")
    lay_out(counted, video, out, "val", first_number=1)    # as the message says
    made = prepare(out, "val", jobs=1)
    index = Index.open(prepare(out, "val", policy=policy, jobs=1))     # as inference, which knows no rule
    assert index.frame.tolist() == list(range(1, 41))                  # the numbers of the table
    assert [number_in(index.crop(row)) for row in (0, 20, 39)] == [0, 20, 39]
    assert (made == index.folder) == (policy == "clean")
    facts = examine(out, notify=lambda line: None)
    assert facts["splits"]["val"]["policies"][policy]["rows_with_picture"] == 40
    assert not {"convention", "face_without_picture"} & set(facts["findings"])
    lay_out(table(tmp_path / "b.csv", range(40)), video, out, "val")   # another table, counted from 0
    index = Index.open(prepare(out, "val", policy=policy, jobs=1))
    assert [number_in(index.crop(row)) for row in (0, len(index) - 1)] == [index.frame[0], 39]


def test_what_a_table_states_is_taken_before_any_rule(tmp_path):
    assert table_rules(tmp_path, "val", ("max_gap=3",)) == ("max_gap=3",)
    (tmp_path / "boxes").mkdir()
    path = tmp_path / "boxes" / "val.json"
    path.write_text('{"first_number": 1}')
    assert table_rules(tmp_path, "val", ("first_number=0", "max_gap=3")) == ("max_gap=3", "first_number=1")
    for wrong in ('{"first_number": 2}', '{"first_number": true}', "{}"):
        path.write_text(wrong)
        with pytest.raises(ValueError, match=r"val\.json: first_number .* -> write 0 or 1, or delete the file"):
            table_rules(tmp_path, "val", ())


# ---- priors: 50 faces

RANDOM = np.random.default_rng(0)
DEGREES = RANDOM.normal(0, 25, (50, 3))
LANDMARKS = np.dstack([np.tile([[.5, .6], [.65, .4], [.35, .4], [.6, .8], [.4, .8]], (50, 1, 1))
                       + RANDOM.normal(0, .02, (50, 5, 2)), np.ones((50, 5, 1))])
IN_PICTURE = LANDMARKS * [.08, .14, 1] + np.append(RANDOM.uniform(0, .8, (50, 1, 2)), np.zeros((50, 1, 1)), axis=2)
PRIORS = [("head_pose", DEGREES, np.radians(DEGREES), "looks like radians: no angle is beyond .* -> multiply by 180"),
          ("landmarks", LANDMARKS, IN_PICTURE, "look like places in the whole picture, .* -> subtract the box's cor"),
          ("landmarks", LANDMARKS, LANDMARKS * [224, 224, 1], "look like pixels -> divide x by the crop's width"),
          ("gaze", np.radians(DEGREES[:, :2]), DEGREES[:, :2], "looks like degrees: .* -> multiply by pi / 180")]


@pytest.mark.parametrize(("name", "right", "wrong", "message"), PRIORS)
def test_priors_of_another_convention_are_named_wherever_they_enter(tmp_path, index_of, name, right, wrong, message):
    assert of_prior(name, right) == of_prior(name, np.full_like(right, np.nan)) == ""
    index = index_of([range(50)])
    table = {"clip": np.full(50, "clip"), "track": np.full(50, "track0"), "frame": np.arange(50)}
    assert np.isfinite(join(index, {**table, name: right})[name]).all()
    with pytest.raises(ValueError, match=f"the table to join: {name} {message}"):
        join(index, {**table, name: wrong})
    if name != "gaze":
        points = np.dstack([wrong[..., :2], np.zeros((50, 5, 1)), wrong[..., 2:]]) if name == "landmarks" else wrong
        file = tmp_path / "priors.json"
        file.write_text(json.dumps({f"clip:track0:{frame}": value.tolist() for frame, value in enumerate(points)}))
        with pytest.raises(ValueError, match=rf"priors\.json: {name} {message}"):
            import_files([index], [file], name)


@pytest.mark.parametrize("counted", [0, 1])
def test_priors_whose_frames_count_from_one_are_named(tmp_path, index_of, counted):
    index = index_of([range(20), range(5, 25), range(20), range(20)])
    frame = np.concatenate([np.arange(20), np.arange(5, 25), np.arange(20), np.arange(20)]) + counted
    table = {"clip": np.full(80, "clip"), "track": np.repeat([f"track{n}" for n in range(4)], 20), "frame": frame,
             "head_pose": RANDOM.normal(0, 25, (80, 3))}
    file = tmp_path / "pose.json"
    file.write_text(json.dumps({f"clip:track{track}:{frame + counted}": [10 * track, frame, 5]
                                for track, frames in enumerate((range(20), range(5, 25), range(20), range(20)))
                                for frame in frames}))
    if counted:
        with pytest.raises(ValueError, match="look as if counted from 1: 4 of 80 faces are not there, but all are"):
            import_files([index], [file], "head_pose")
        with pytest.raises(ValueError, match="table to join look as if counted from 1: 4 of 80"):
            join(index, table)
    else:
        join(index, table)
        import_files([index], [file], "head_pose")
        assert np.isfinite(Index.open(index.folder).head_pose).all()


# ---- the doctor

def test_the_doctor_sees_priors_that_were_imported_and_names_the_command(tmp_path):
    root = data_set(tmp_path / "data", {"c": [("t", list(range(30)))]})

    def absent() -> list[str]:
        facts = examine(root, notify=lambda line: None)
        return [example["split"] for example in facts["findings"].get("priors_absent", {"examples": []})["examples"]]
    assert "train" in absent()
    assert "python -m gazepose priors" in as_text(examine(root, notify=lambda line: None))
    index = prepared_index(root)
    assert "train" in absent()
    add_columns(index, {"head_pose": np.ones((30, 3))})
    assert "train" not in absent()
    assert "prepared/clean-64/train head_pose" in as_text(examine(root, notify=lambda line: None))


@pytest.mark.parametrize("state", [{"width": 1280, "height": 720}, {"video_metadata": {
    "display_resolution_width": 1280, "display_resolution_height": 720}}, {}])
@pytest.mark.parametrize("written", [corners, boxes_of])
def test_the_doctor_judges_boxes_without_videos_by_what_the_annotation_states(tmp_path, written, state):
    root = data_set(tmp_path / "data", {"c": [("t", list(range(30)))]}, videos=False)
    path = root / "json" / "av_train.json"
    document = json.loads(path.read_text())
    clip = document["videos"][0]["clips"][0]
    clip.update(state)
    boxes = corners(boxes_of(30)) if written is corners else boxes_of(30)
    for record, box in zip(clip["persons"][1]["tracking_paths"][0]["track"], boxes, strict=True):
        record.update(zip(("x", "y", "width", "height"), box.tolist(), strict=True))
    path.write_text(json.dumps(document))
    found = examine(root, notify=lambda line: None)["findings"]
    assert ("convention" in found) == (written is corners and bool(state))
    assert ("convention_unjudged" in found) == (not state)


def test_clips_of_few_faces_are_judged_together(tmp_path):
    faces = boxes_of(40) * ([WIDTH / 1280, HEIGHT / 720] * 2)
    out = tmp_path / "mine"
    lines = [f"c{number // 10},t,{number % 10}," + ",".join(f"{side:.3f}" for side in box)
             for number, box in enumerate(centres(faces))]
    for number in range(4):
        write_video(out / "videos" / f"c{number}.mp4", 12)
    path = tmp_path / "b.csv"
    path.write_text("\n".join([",".join(COLUMNS), *lines]))
    with pytest.raises(ValueError, match=r"b\.csv: the boxes of all clips together look like centres"):
        lay_out(path, out / "videos", tmp_path / "set", "val")
    (out / "boxes").mkdir()
    for rows, kind, words in ((lines, "convention", "4 clips together: look like centres"),
                              (lines[:3], "convention_unjudged", "1 clip together: too few to judge: 3 faces")):
        (out / "boxes" / "val.csv").write_text("\n".join([",".join(COLUMNS), *rows]))
        found = examine(out, notify=lambda line: None)["findings"]
        assert words in found[kind]["examples"][0]["detail"]
        assert len({"convention", "convention_unjudged"} & {*found}) == 1


def test_the_doctor_names_segments_that_cannot_be_read(tmp_path):
    root = data_set(tmp_path / "data", {"c": [("t", list(range(30)))]})
    path = root / "json" / "av_train.json"
    path.write_text(path.read_text().replace('"start_frame": 3', '"start_frame": 3.5'))
    facts = examine(root, notify=lambda line: None)
    assert facts["findings"]["label_unreadable"]["examples"][0]["detail"] == "person 1, frames 0 to 5"
    assert facts["splits"]["train"]["policies"]["clean"]["labelled"] == 24


def test_the_doctor_names_priors_of_another_convention(tmp_path):
    root = data_set(tmp_path / "data", {"c": [("t", list(range(50)))]}, frames=50)
    (root / "priors").mkdir()
    np.savez(root / "priors" / "train.npz", clip=np.full(50, "c"), track=np.full(50, "t"), frame=np.arange(50),
             head_pose=np.radians(DEGREES).astype(np.float32))
    found = examine(root, notify=lambda line: None)["findings"]["convention"]
    assert found["level"] == "must" and "radians" in found["examples"][0]["detail"]
