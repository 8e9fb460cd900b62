"""annotations/: official files, what the original scripts make of them, and the samples that come out.

Not compared, since no file of ours takes part: the count of unreadable files after a second run and the error of a
merge in the wrong order (the original appends to its files); and in `split_counts.json`, which counts the published
lists, how they overlap. A list of the counted form is read.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from making import write_tracks

from gazepose.compat.folders import read_original
from gazepose.data.annotations import (
    raw_tracks,
    read_clips,
    read_split,
    segments_of,  # read_clips and read_original show its result in labels only
)
from gazepose.data.index import Index
from gazepose.data.tracks import POLICIES, Clip
from gazepose.data.windows import centre_rows
from golden import Result, apart, read, same, some

BOX = 1e-6
BASELINE = POLICIES["baseline"]
SPLITS = ("train", "val")


def check(folder: Path) -> Iterator[Result]:
    place, expected = folder / "annotations", folder / "annotations" / "expected"
    recorded, annotated, official = read(expected / "samples.json"), [], []
    for split in SPLITS:
        clips = [clip for video in read(place / f"av_{split}.json")["videos"] for clip in video["clips"] or []]
        annotated += clips
        official += read_clips(place / f"av_{split}.json", [clip["clip_uid"] for clip in clips], BASELINE)
    official.sort(key=lambda clip: clip.uid)
    yield from check_tracks(annotated, expected / "json_original")
    yield from check_results(annotated, expected / "result_LAM")
    yield from check_samples("official files", official, recorded["samples"])
    uids = recorded["clips_with_a_result_file"]
    original = read_original(expected / "json_original", expected / "result_LAM", uids, BASELINE)
    yield from check_samples("files of the original scripts", original, recorded["samples"])
    left_out = [clip.uid for clip in official if any(rule.startswith("clip left out") for rule in clip.counts)]
    yield Result("clips left out", same(left_out, sorted(recorded["clips_without_a_result_file"])), 0)
    strides = {key: int(key.rpartition("_")[2]) for key in recorded if key.startswith("keyframes_stride_")}
    with TemporaryDirectory() as name:
        index, rows = index_of(original, Path(name)), samples(original)
        for key, stride in some("keyframes", strides).items():
            ours = [rows[row][:3] for row in centre_rows(index, stride).tolist()]
            yield Result(key, same(ours, recorded[key]), 0)
        facts = read(place / "split_counts.json")
        lists = {split: counts for split, counts in facts.items() if isinstance(counts, dict)}
        for split, counts in some("split_counts.json", lists).items():
            yield from check_list(split, counts, Path(name) / f"{split}.list")


def samples(clips: list[Clip]) -> list[list[Any]]:
    """[clip, track, frame, [x1, y1, x2, y2], label] of every face."""
    return [[track.clip, track.track, *row] for clip in clips for track in clip.tracks
            for row in zip(track.frames.tolist(), track.boxes.tolist(), track.labels.tolist(), strict=True)]


def check_samples(source: str, clips: list[Clip], recorded: list) -> Iterator[Result]:
    ours = sorted(samples(clips), key=lambda row: row[:3])
    theirs = sorted(some("samples", recorded), key=lambda row: row[:3])
    yield Result(f"{source}: faces and labels", same([row[:3] + row[4:] for row in ours],
                                                     [row[:3] + row[4:] for row in theirs]), 0)
    yield Result(f"{source}: boxes", apart([row[3] for row in ours], [row[3] for row in theirs]), BOX)


def check_tracks(annotated: list[dict], folder: Path) -> Iterator[Result]:
    """Every track is a file of the original script, and every file a track."""
    ours, theirs = {}, {}
    for clip in some("clips", annotated):
        for track in raw_tracks(clip, BASELINE, Counter()):
            records = zip(track.frames.tolist(), *track.boxes.T.tolist(), track.persons, strict=True)
            ours[f"{clip['clip_uid']}/{track.track}.json"] = [list(record) for record in records]
    for path in folder.glob("*/*.json"):
        theirs[f"{path.parent.name}/{path.name}"] = [
            [record[key] for key in ("frameNumber", "x", "y", "width", "height", "Person ID")] for record in read(path)]
    yield Result("json_original", same(ours, some("json_original", theirs)), 0)


def check_results(annotated: list[dict], folder: Path) -> Iterator[Result]:
    """A clip with segments has a result file with those of a known person."""
    looking = {clip["clip_uid"]: clip.get("social_segments_looking") for clip in annotated}
    ours = {f"{uid}.json": segments_of(segments, ("person", "start_frame", "end_frame"), BASELINE, Counter())
             for uid, segments in looking.items() if segments}
    theirs = {path.name: segments_of(read(path), ("label", "start_frame", "end_frame"), BASELINE, Counter())
              for path in folder.glob("*.json")}
    yield Result("result_LAM", same(ours, some("result_LAM", theirs)), 0)


def index_of(clips: list[Clip], folder: Path) -> Index:
    """The tracks as an index of crops that are never looked at."""
    tracks = [track for clip in clips for track in clip.tracks]
    return write_tracks(
        folder / "index", [(track.clip, track.track, track.frames.tolist()) for track in tracks],
        [b"crop"] * sum(len(track.frames) for track in tracks), {"policy": BASELINE.name, "crop_size": 16},
        box=np.concatenate([track.boxes for track in tracks]), label=np.concatenate([track.labels for track in tracks]))


def check_list(split: str, counts: dict, path: Path) -> Iterator[Result]:
    """A list with as many clips and line ends as the published one is read whole."""
    uids = [f"clip-{number}" for number in range(counts["clips"])]
    text = "\n".join(uids) + "\n" * counts["ends_with_newline"]
    path.write_text(text)
    yield Result(f"{split} list", same((read_split(path), text.count("\n")), (uids, counts["newline_characters"])), 0)
