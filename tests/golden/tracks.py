"""tracks.json: raw tracks and the cleaned one, padding maps, labels per frame.

Of a cleaned record its frame, box and person are compared; the further fields, which the original copies from the
first record, and whether a whole number stays whole, are not kept by ours.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from gazepose.data.tracks import POLICIES, FaceTrack, RawTrack, Segment, face_tracks
from gazepose.data.windows import close_up
from golden import Result, apart, read, same, some

BOX = 1e-6
BASELINE = POLICIES["baseline"]


def check(folder: Path) -> Iterator[Result]:
    recorded = read(folder / "tracks.json")
    for case in some("tracks", recorded["tracks"]):
        yield from check_track(case)
    for case in some("labels", recorded["labels"]):
        yield Result(f"label: {case['name']}", same(labelled(case), case["expected"]), 0)
    for name in ("pad", "pad_with_black_centre"):
        cases = some(name, recorded[name])
        closed = close_up(np.array([case["present"] for case in cases], bool)).tolist()
        centre = len(closed[0]) // 2                                       # never missing, be it black
        expected = [[centre if slot == "black" else slot for slot in case["source"]] for case in cases]
        yield Result(name, same(closed, expected), 0)


def tracks_of(records: list[dict], segments: list[Segment]) -> list[FaceTrack]:
    values = np.array([[record[key] for key in ("frameNumber", "x", "y", "width", "height")] for record in records],
                      np.float64).reshape(-1, 5)
    raw = RawTrack("t", [record["Person ID"] for record in records], values[:, 0], values[:, 1:])
    return face_tracks("clip", raw, segments, BASELINE, Counter())


def check_track(case: dict) -> Iterator[Result]:
    pieces, checked, name = tracks_of(case["raw"], []), case["checked"], f"track: {case['name']}"
    yield Result(f"{name}: pieces", same(len(pieces), 1 if checked else 0), 0)
    for track in pieces[:1]:
        boxes = np.c_[track.boxes[:, :2], track.boxes[:, 2:] - track.boxes[:, :2]]
        yield Result(f"{name}: frames", same(track.frames.tolist(), [record["frameNumber"] for record in checked]), 0)
        yield Result(f"{name}: boxes", apart(boxes, [[record[key] for key in ("x", "y", "width", "height")]
                                                     for record in checked]), BOX)
        yield Result(f"{name}: person", same({track.person}, {record["Person ID"] for record in checked}), 0)


def labelled(case: dict) -> dict:
    """In the recorded form: frames and labels, or the class of the error."""
    segments = [Segment(segment["label"], segment["start_frame"], segment["end_frame"]) for segment in case["segments"]]
    try:
        pieces = tracks_of(case["track"], segments)
    except TypeError as error:
        return {"error": type(error).__name__}
    return {"frames": [frame for track in pieces for frame in track.frames.tolist()],
            "labels": [label for track in pieces for label in track.labels.tolist()]}
