"""Goal 5: the index of 3.5 million rows, against tuples and dictionaries: size, building, opening, workers' memory."""

import argparse
import gc
import multiprocessing
import os
import pickle
import shutil
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.measure import Aim, Goal, MemoryWatch, in_child, main, parser, private_bytes
from benchmarks.reference import rows as reference
from gazepose.data.annotations import policy_named, read_clips, read_split
from gazepose.data.index import COLUMNS, SHARDS, Index
from gazepose.data.index_writer import add_columns, write_index
from gazepose.io import writing_by_checksum

ROWS = 3_500_000
CLIP, TRACK = 8_000, 500         # rows of a clip and of a track
PRIORS = ("quality", "head_pose", "landmarks")
JPEG = 1                         # bytes of a crop; more would be read for their checksum, and nothing else is
ROW, PRIOR_ROW, BUILD = "bytes a row", "bytes a row with all priors", "building from JSON"
OPEN, WORKER = "opening", "private memory of a worker"
GOAL = Goal(5, "the index of 3.5 million rows", (
    Aim(ROW, most=34, unit="bytes"), Aim(PRIOR_ROW, most=110, unit="bytes"), Aim(BUILD, most=12, unit="s"),
    Aim(OPEN, most=0.1, unit="s"), Aim(WORKER, most=20, unit="MB")),
    how="No reference. A table of the size of Ego4D, made from JSON files in the official shape.")
FLAGS = parser(GOAL)
FLAGS.add_argument("--rows", type=int, help=f"default {ROWS}, quick 10000")


def make_json(folder: Path, rows: int) -> tuple[Path, Path]:
    """(av_train.json, train.list) with so many records of faces, in the official shape."""
    path, split = folder / f"av-{rows}.json", folder / f"train-{rows}.list"
    if path.exists():
        return path, split
    random, part, done, clips = np.random.default_rng(0), path.with_name("part"), 0, []
    with open(part, "w") as file:
        file.write('{"videos": [')
        while done < rows:
            uid, size = f"{len(clips):08x}-0000-4000-8000-000000000000", min(CLIP, rows - done)
            paths = []
            for first in range(0, size, TRACK):
                boxes = random.uniform((0, 0, 60, 80), (1700, 900, 220, 300), (min(TRACK, size - first), 4)).round(2)
                records = ", ".join(
                    f'{{"x": {x}, "y": {y}, "width": {w}, "height": {h}, "frame": {first + n}, "video_frame": '
                    f'{first + n}, "clip_frame": null}}' for n, (x, y, w, h) in enumerate(boxes.tolist()))
                paths.append(f'{{"track_id": "track-{first // TRACK}", "suspect": false, "unmapped_frames": [], '
                             f'"track": [{records}]}}')
            file.write((", " if clips else "") + f'{{"clips": [{{"clip_uid": "{uid}", "persons": [{{"person_id": "0", '
                       '"camera_wearer": true}, {"person_id": "1", "camera_wearer": false, "tracking_paths": ['
                       + ", ".join(paths) + ']}], "social_segments_looking": [{"start_frame": 100, "end_frame": 400, '
                       '"person": "1", "target": "0"}]}]}')
            clips.append(uid)
            done += size
        file.write("]}")
    split.write_text("\n".join(clips))
    os.replace(part, path)
    return path, split


def build(annotated: str, split: str, folder: str) -> dict[str, float]:
    """JSON to an index, without any picture: the crops are a file with a hole. Seconds, CPU-seconds, peak memory."""
    shutil.rmtree(folder, ignore_errors=True)
    wall, cpu = time.perf_counter(), time.process_time()
    with MemoryWatch() as watch:
        clips = read_clips(annotated, read_split(split), policy_named("clean"))
        tracks = [track for clip in clips for track in clip.tracks]
        lengths = np.array([len(track.frames) for track in tracks])
        sizes = np.array([sum(len(track.frames) for track in clip.tracks) for clip in clips])
        within = np.arange(lengths.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        with writing_by_checksum(Path(folder) / SHARDS, "all.bin") as (file, shard):
            file.truncate(int(sizes.max()) * JPEG)                     # all clips share it
        write_index(Path(folder), columns={
            "frame": np.concatenate([track.frames for track in tracks]),
            "box": np.concatenate([track.boxes for track in tracks]),
            "label": np.concatenate([track.labels for track in tracks]),
            "offset": within * JPEG, "length": np.full(len(within), JPEG), "checksum": np.zeros(len(within), np.int64)},
            clips=[clip.uid for clip in clips], track_name=[track.track for track in tracks],
            track_clip=np.repeat(np.arange(len(clips)), [len(clip.tracks) for clip in clips]),
            track_start=np.r_[0, np.cumsum(lengths)], shards=[shard] * len(clips),
            facts={"split": "train", "policy": "clean", "crop_size": 224})
        spent = time.perf_counter() - wall, time.process_time() - cpu
    return {"wall_s": spent[0], "cpu_s": spent[1], "peak_bytes": watch.peak, "grown_bytes": watch.peak - watch.bytes[0]}


def bytes_a_row(index: Index) -> float:
    """Of all columns and tables on disk, the list of names too."""
    files = [index.folder / entry["file"] for entry in index.contents["files"].values()]
    return sum(path.stat().st_size for path in [*files, index.folder / "index.json"]) / len(index)


def opened(folder: str) -> float:
    """Seconds to open an index, in a process that has done so before with its imports."""
    began = time.perf_counter()
    Index.open(folder)
    return time.perf_counter() - began


def touch(index: Index, batches: int) -> None:
    """What a worker does with the index, but for the pixels: windows and columns of random rows."""
    from gazepose.data.windows import WindowRule, window_rows

    random = np.random.default_rng(os.getpid())
    rule = WindowRule(stride=3, windows_per_segment=8, train=True)
    for _ in range(batches):
        rows = random.integers(len(index), size=64)
        shown = window_rows(index, rule, rows)
        for name in index.columns:
            np.array(getattr(index, name)[shown])
        index.clip_of(shown.ravel())


def worker_memory(sent: bytes, batches: int) -> int:
    """Private bytes that an index, as a loader sends it to a worker, costs there while it is used."""
    import gazepose.data.windows  # noqa: F401                         # torch is there before, and only in this child

    gc.collect()
    before = private_bytes()
    touch(pickle.loads(sent), batches)
    return private_bytes() - before


def forked(report: Connection, work: Callable[[], Any]) -> None:
    before = private_bytes()
    work()
    report.send(private_bytes() - before)


def plain_memory(annotated: str, batches: int) -> dict[str, float]:
    """The reference way: seconds and bytes to read the rows, and what a forked worker copies by touching them."""
    gc.collect()
    before, began, cpu = private_bytes(), time.perf_counter(), time.process_time()
    rows, boxes, places = reference.read_rows(Path(annotated))
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    gc.collect()
    held = private_bytes() - before

    def use() -> int:
        random = np.random.default_rng(os.getpid())
        return sum(places[f"{rows[n][0]}:{rows[n][1]}:{rows[n][2]}"] + int(boxes[f"{rows[n][0]}:{rows[n][1]}:"
                   f"{rows[n][2]}"][0]) for n in random.integers(len(rows), size=64 * batches).tolist())

    here, there = multiprocessing.get_context("fork").Pipe()
    worker = multiprocessing.get_context("fork").Process(target=forked, args=(there, use))
    worker.start()
    copied = here.recv()
    worker.join()
    return {"wall_s": seconds, "cpu_s": cpu, "bytes_a_row": held / len(rows), "worker_bytes": copied}


def plain_priors(annotated: str) -> float:
    """Bytes a row of the reference way's priors."""
    rows, _, _ = reference.read_rows(Path(annotated))
    gc.collect()
    before = private_bytes()
    priors = reference.read_priors(rows)
    return (private_bytes() - before) / len(rows) if priors else 0.0


def measure(options: argparse.Namespace) -> dict[str, Any]:
    rows = options.rows or (10_000 if options.quick else ROWS)
    batches = 200 if options.quick else 5_000
    annotated, split = make_json(options.work, rows)
    folder = options.work / f"index-{rows}"
    ours, plain = [], []
    for _ in range(max(1, options.repeats // 2)):                      # minutes each, so fewer rounds
        ours.append(in_child(build, str(annotated), str(split), str(folder)))
        plain.append(in_child(plain_memory, str(annotated), batches))
    index = Index.open(folder)
    assert len(index) == rows, f"{len(index)} rows, wanted {rows}"
    bare = bytes_a_row(index)
    add_columns(index, {name: np.zeros((rows, *COLUMNS[name][1]), np.float32) for name in PRIORS})
    worker = in_child(worker_memory, pickle.dumps(Index.open(folder)), batches)
    some = make_json(options.work, min(rows, 350_000))[0]              # its priors would fill many a machine
    opening = [opened(str(folder)) for _ in range(max(3, options.repeats))]
    return {"measured": {
        ROW: bare, PRIOR_ROW: bytes_a_row(Index.open(folder)), BUILD: median(run["wall_s"] for run in ours),
        OPEN: median(opening), WORKER: worker / 1e6},
        "rows": rows, "json_bytes": annotated.stat().st_size, "build": ours, "reference": plain, "open_s": opening,
        "worker_bytes": worker, "reference_priors_bytes_a_row": in_child(plain_priors, str(some)),
        "ratio": {"memory": median(run["bytes_a_row"] for run in plain) / bare,
                  "building, cpu": median(b["cpu_s"] / a["cpu_s"] for a, b in zip(ours, plain, strict=True))}}


if __name__ == "__main__":
    main("index", GOAL, measure, FLAGS)
