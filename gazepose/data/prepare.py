"""Offline door: videos and annotations, or the challenge's crops -> shards + index. Once per policy and crop size.

Each clip is decoded once, in order, into a piece (crops and their rows) that survives an interruption; clips are
shared out over ranks and processes; then rank 0 merges the pieces. The index is data/index.py, windows come after.
"""

import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from gazepose.data.annotations import Clip, policy_named, read_clips, read_original, read_split
from gazepose.data.challenge import list_crops, list_videos, read_crop
from gazepose.data.index import Index, add_columns, join, write_index
from gazepose.data.shards import QUALITY, SUBSAMPLING, ShardWriter, encode
from gazepose.data.tracks import FaceTrack, Policy
from gazepose.data.video import DECODERS, frames_in_order
from gazepose.priors.quality import fit_gaussian, laplacian_variance

PUBLISHED_SIZE = 224         # crops of the published work; quality is always measured at this size
SHARD_BYTES = 256 << 20
STALL_S = 300                # a worker without a new picture for so long is ended
VERSION = 1                  # of the pieces; a change here makes them anew
SPLITS = ("train", "val", "test")


def cut_face(picture: np.ndarray, box: np.ndarray) -> np.ndarray | None:
    """The picture inside the box: corners truncated to whole pixels, clipped at the border; None when nothing is left.

    Args:
        picture: uint8 [H, W, 3]; box: x1, y1, x2, y2.
    """
    x1, y1, x2, y2 = (max(int(corner), 0) for corner in box)
    face = picture[y1:y2, x1:x2]
    return face if face.size else None


def published_crop(face: np.ndarray) -> np.ndarray:
    """Stretched bilinearly to 224 x 224, whatever its shape."""
    return cv2.resize(face, (PUBLISHED_SIZE, PUBLISHED_SIZE), interpolation=cv2.INTER_LINEAR)


def stored_crop(face: np.ndarray, size: int, published: np.ndarray) -> np.ndarray:
    """The crop as stored: the published one at its size; else from the face itself, averaged when it shrinks."""
    if size == PUBLISHED_SIZE:
        return published
    shrinks = face.shape[0] >= size and face.shape[1] >= size
    return cv2.resize(face, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def prepare(data: str | Path, split: str, *, policy: str = "clean", crop_size: int = 64, decoder: str = "decord",
            rank: int = 0, world_size: int = 1, wait: Callable[[], None] = lambda: None, jobs: int | None = None,
            say: Callable[[str], None] = print, max_bad_fraction: float = 0.01) -> Path:
    """Make DATA/prepared/<policy>-<crop_size>/<split>, or return at once when it is there.

    Args:
        data: root of a data set in the Ego4D layout; split: train, val (videos) or test (crop folders, label -1).
        decoder: decord or pyav; a clip decord cannot read is read by pyav, and counted.
        rank, world_size, wait: of the processes that prepare together, on one file system; wait is their barrier.
        jobs: processes of this rank; default: the cores divided among the ranks; 1: in this process.
        say: gets one line at the end, and one every half minute before it.
        max_bad_fraction: of clips whose video is missing or damaged; more is an error.

    Raises:
        FileNotFoundError: split list, annotation or crop folders missing. ValueError: unknown policy or split, an
            impossible size, too many bad clips, or a split without a single row; also a prepared folder made with
            other settings. RuntimeError: a worker died.
    """
    root = Path(data).resolve()
    rules = policy_named(policy)
    if split not in SPLITS:
        raise ValueError(f"split {split!r} is unknown -> use {', '.join(SPLITS)}")
    if not 16 <= crop_size <= 1024:
        raise ValueError(f"crop_size {crop_size}: crops of 16 to 1024 pixels are stored -> use 64 or 224")
    if decoder not in DECODERS:
        raise ValueError(f"decoder {decoder!r} is unknown -> use {' or '.join(DECODERS)}")
    folder = root / "prepared" / f"{policy}-{crop_size}" / split
    if (folder / "index.json").is_file():
        _expect(Index.open(folder), {"split": split, "policy": policy, "crop_size": crop_size})
        return folder
    began, pieces = time.monotonic(), folder.with_name(f"{split}.pieces")
    settings = _Settings(rules, crop_size, decoder)
    tasks = (_challenge_tasks if split == "test" else _clip_tasks)(root, split, pieces, settings)
    pieces.mkdir(parents=True, exist_ok=True)
    ours = sorted(tasks, key=lambda task: (-task.rows, task.uid))[rank::world_size]
    for task in ours:
        task.bad.unlink(missing_ok=True)                               # the video may have come since
    _make_pieces([task for task in ours if not _is_made(task)], jobs or max((os.cpu_count() or 1) // world_size, 1),
                 split, say)
    wait()
    bad = {task.uid: task.bad.read_text() for task in tasks if task.bad.is_file()}
    made = [task for task in tasks if task.uid not in bad]
    _judge(folder, tasks, bad, made, max_bad_fraction)                 # alike on every rank
    wait()
    if rank == 0:
        _merge(folder, split, made, bad, root, decoder)
        shutil.rmtree(pieces)
        say(_summary(Index.open(folder), time.monotonic() - began))
    wait()
    return folder


@dataclass(frozen=True)
class _Settings:
    policy: Policy
    crop_size: int
    decoder: str


@dataclass
class _Task:
    """One clip (or challenge video) to be cut; `piece` is its files' path without suffix."""

    uid: str
    source: Path
    piece: Path
    rows: int
    settings: _Settings
    tracks: list[FaceTrack] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def bad(self) -> Path:
        return self.piece.with_name(f"{self.piece.name}.bad")

    @property
    def shard(self) -> Path:
        return self.piece.with_name(f"{self.piece.name}.bin")

    @property
    def table(self) -> Path:
        return self.piece.with_name(f"{self.piece.name}.npz")

    def key(self) -> str:
        """What the piece depends on: a piece made from anything else is made again."""
        digest = hashlib.sha256(repr((VERSION, self.settings.crop_size, self.settings.policy)).encode())
        for track in self.tracks:
            digest.update(track.track.encode())
            for column in (track.frames, track.boxes, track.labels):
                digest.update(np.ascontiguousarray(column).tobytes())
        if self.source.is_file():
            facts = self.source.stat()
            digest.update(f"{facts.st_size} {facts.st_mtime_ns}".encode())
        return digest.hexdigest()


def _clip_tasks(root: Path, split: str, pieces: Path, settings: _Settings) -> list[_Task]:
    uids = read_split(root / "split" / f"{split}.list")
    annotated, original = root / "json" / f"av_{split}.json", root / "json_original"
    clips: list[Clip]
    if not annotated.is_file() and original.is_dir():
        clips = read_original(original, root / "result_LAM", uids, settings.policy)
    else:
        clips = read_clips(annotated, uids, settings.policy)
    return [_Task(clip.uid, root / "videos" / f"{clip.uid}.mp4", pieces / clip.uid,
                  sum(len(track.frames) for track in clip.tracks), settings, clip.tracks, clip.counts)
            for clip in clips]


def _challenge_tasks(root: Path, split: str, pieces: Path, settings: _Settings) -> list[_Task]:
    crops = root / "videos_challenge"
    return [_Task(video, crops / video, pieces / video, sum(1 for _ in (crops / video).iterdir()), settings)
            for video in list_videos(crops)]


def _is_made(task: _Task) -> bool:
    if not (task.table.is_file() and task.shard.is_file()):
        return False
    try:
        with np.load(task.table, allow_pickle=False) as table:
            return str(table["key"]) == task.key()
    except (OSError, ValueError, KeyError, EOFError):
        return False


def _make_pieces(tasks: list[_Task], jobs: int, split: str, say: Callable[[str], None]) -> None:
    done, told = 0, time.monotonic()
    for _ in _in_processes(tasks, jobs) if jobs > 1 and len(tasks) > 1 else map(_make_piece, tasks):
        done += 1
        if time.monotonic() - told > 30:
            told = time.monotonic()
            say(f"preparing {split}: {done} of {len(tasks)} clips")


def _in_processes(tasks: list[_Task], jobs: int) -> Iterator[None]:
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    pool = ProcessPoolExecutor(min(jobs, len(tasks)), multiprocessing.get_context(method), _start_worker)
    try:
        for future in as_completed([pool.submit(_make_piece, task) for task in tasks]):
            yield future.result()
    except BrokenProcessPool as error:
        left = [task.uid for task in tasks if not task.table.is_file() and not task.bad.is_file()]
        raise RuntimeError(f"a process died while cutting one of {', '.join(left[:jobs])} (killed for memory, or no "
                           f"picture in {STALL_S} s) -> look at these videos, or run again with fewer --jobs; finished "
                           "clips are kept") from error
    finally:
        pool.shutdown(cancel_futures=True)


_watched = False


def _start_worker() -> None:
    global _watched
    _watched = True
    cv2.setNumThreads(1)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)                      # a decoder stuck in C hears nothing gentler


def _make_piece(task: _Task) -> None:
    """Cut one clip; writes its piece, or <uid>.bad with the reason when the video is missing or damaged."""
    try:
        if task.source.is_dir():
            _write_piece(task, _challenge_rows)
            return
        try:
            _write_piece(task, _clip_rows)
        except ValueError:
            if task.settings.decoder == "pyav":
                raise
            task.settings = replace(task.settings, decoder="pyav")
            task.counts["clip decoded by pyav: decord could not"] += 1
            _write_piece(task, _clip_rows)
    except (ValueError, FileNotFoundError) as error:
        task.bad.write_text(str(error))
    finally:
        if _watched:
            signal.alarm(0)


def _write_piece(task: _Task, rows_of: Callable[[_Task, ShardWriter, Counter[str]], dict[str, Any]]) -> None:
    counts = Counter(task.counts)
    with ShardWriter(task.shard) as writer:
        table = rows_of(task, writer, counts)
    temporary = task.table.with_name(f"{task.table.name}.part-{os.getpid()}.npz")
    np.savez(temporary, key=np.array(task.key()), counts=np.array(json.dumps(counts)), **table)
    os.replace(temporary, task.table)                                  # last: a piece with a table is whole


def _clip_rows(task: _Task, writer: ShardWriter, counts: Counter[str]) -> dict[str, Any]:
    """One pass over the video; all faces of a picture are cut while it is there."""
    policy = task.settings.policy
    frame = np.concatenate([track.frames for track in task.tracks] or [np.zeros(0, np.int64)])
    box = np.concatenate([track.boxes for track in task.tracks] or [np.zeros((0, 4))])
    offset, length, quality = np.zeros(len(frame), np.int64), np.zeros(len(frame), np.int64), np.zeros(len(frame))
    picture_number = frame - policy.first_number
    order = np.argsort(picture_number, kind="stable")
    wanted, starts = np.unique(picture_number[order], return_index=True)
    rows_of = dict(zip(wanted.tolist(), np.split(order, starts[1:]), strict=True)) if len(wanted) else {}
    kept = np.zeros(len(frame), bool)
    pictures = frames_in_order(task.source, wanted.tolist(), task.settings.decoder) if len(wanted) else iter(())
    for number, picture in pictures:
        if _watched:
            signal.alarm(STALL_S)
        for row in rows_of.pop(number).tolist():
            face = cut_face(picture, _grown(box[row], policy.box_scale))
            if policy.negative_corner == "cut":
                box[row, 2:] = np.minimum(box[row, 2:], (picture.shape[1], picture.shape[0]))
            if face is None:
                if policy.drop_outside:
                    counts["row left out: outside the picture"] += 1
                    continue
                counts["crop black: outside the picture"] += 1
                face = np.zeros((1, 1, 3), np.uint8)
            published = published_crop(face)
            quality[row] = laplacian_variance(published)
            offset[row], length[row] = writer.append(encode(stored_crop(face, task.settings.crop_size, published)))
            kept[row] = True
    counts["row left out: past the end of the video"] += sum(map(len, rows_of.values()))
    sizes = [int(kept[slice_].sum()) for slice_ in _slices([len(track.frames) for track in task.tracks])]
    label = np.concatenate([track.labels for track in task.tracks] or [np.zeros(0, np.int8)])
    return {"frame": frame[kept], "box": box[kept], "label": label[kept], "offset": offset[kept],
            "length": length[kept], "quality": quality[kept], "tracks": np.array([t.track for t in task.tracks], str),
            "sizes": np.array(sizes, np.int64)}


def _challenge_rows(task: _Task, writer: ShardWriter, counts: Counter[str]) -> dict[str, Any]:
    tracks = list_crops(task.source.parent, task.uid, counts)
    crops, size = [crop for track in tracks for crop in track], task.settings.crop_size
    offset, length, quality = np.zeros(len(crops), np.int64), np.zeros(len(crops), np.int64), np.zeros(len(crops))
    for row, crop in enumerate(crops):
        if _watched:
            signal.alarm(STALL_S)
        jpeg, face = read_crop(crop.path)
        published = face if face.shape[:2] == (PUBLISHED_SIZE, PUBLISHED_SIZE) else published_crop(face)
        if face.shape[:2] != (size, size):                             # of the wanted size: its own bytes, no new loss
            jpeg = encode(stored_crop(face, size, published))
        quality[row] = laplacian_variance(published)
        offset[row], length[row] = writer.append(jpeg)
    return {"frame": np.array([crop.frame for crop in crops], np.int64), "box": np.full((len(crops), 4), np.nan),
            "label": np.full(len(crops), -1, np.int8), "offset": offset, "length": length, "quality": quality,
            "unique_id": np.array([crop.unique_id for crop in crops], np.bytes_),
            "tracks": np.array([track[0].track for track in tracks], str),
            "sizes": np.array([len(track) for track in tracks], np.int64)}


def _grown(box: np.ndarray, scale: float) -> np.ndarray:
    if scale == 1.0:
        return box
    centre, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2 * scale
    return np.r_[centre - half, centre + half]


def _slices(sizes: list[int]) -> list[slice]:
    ends = np.cumsum([0, *sizes]).tolist()
    return [slice(start, stop) for start, stop in zip(ends[:-1], ends[1:], strict=True)]


def _judge(folder: Path, tasks: list[_Task], bad: dict[str, str], made: list[_Task], max_bad_fraction: float) -> None:
    if len(bad) > max_bad_fraction * len(tasks):
        some = "\n  ".join(list(bad.values())[:5])
        raise ValueError(f"{folder}: {len(bad)} of {len(tasks)} clips cannot be used, more than "
                         f"{max_bad_fraction:.1%}:\n  {some}\n-> put these videos there, or take the clips off the "
                         "split list; finished clips are kept")
    if gone := [task.uid for task in made if not task.table.is_file()]:
        raise RuntimeError(f"{folder}: {len(gone)} clips were not cut, {gone[0]} first -> all processes must share one "
                           "file system; run again, finished clips are kept")
    if not any(len(_table(task)["frame"]) for task in made):
        touched = sum((Counter(json.loads(str(_table(task)["counts"]))) for task in made), Counter())
        reasons = "; ".join(f"{rule}: {count}" for rule, count in touched.most_common(5)) or "no record at all"
        raise ValueError(f"{folder}: the split is empty, none of its {len(tasks)} clips has a usable face ({reasons}) "
                         "-> check that split list and annotations belong together, or try the other policy")


def _table(task: _Task) -> dict[str, np.ndarray]:
    with np.load(task.table, allow_pickle=False) as table:
        return dict(table)


def _merge(folder: Path, split: str, tasks: list[_Task], bad: dict[str, str], root: Path, decoder: str) -> None:
    """Pieces -> shards of about 256 MB and one index, under the order of the split list."""
    for leftover in [path for kind in ("joining*", "shards-*") for path in folder.parent.glob(f"{split}.{kind}")]:
        shutil.rmtree(leftover, ignore_errors=True)                    # of a run that was killed here
    tables = {task.uid: _table(task) for task in tasks}
    counts = sum((Counter(json.loads(str(table["counts"]))) for table in tables.values()), Counter())
    tasks = [task for task in tasks if len(tables[task.uid]["frame"])]
    staging = folder.with_name(f"{split}.shards-{os.getpid()}")
    staging.mkdir()
    try:
        shards, digests, clip_shard, clip_base = _write_shards(tasks, staging)
        names, columns = list(tables[tasks[0].uid]), {}
        for name in [name for name in names if name not in ("key", "counts", "tracks", "sizes")]:
            columns[name] = np.concatenate([tables[task.uid][name] for task in tasks])
        sizes = [tables[task.uid]["sizes"] for task in tasks]
        clip_of = np.repeat(np.arange(len(tasks)), [len(size) for size in sizes])
        size, track = np.concatenate(sizes), np.concatenate([tables[task.uid]["tracks"] for task in tasks])
        used = size > 0
        settings = tasks[0].settings
        facts = {"split": split, "policy": settings.policy.name, "crop_size": settings.crop_size,
                 "decoder": None if split == "test" else decoder, "encoder": f"JPEG q{QUALITY} {SUBSAMPLING}",
                 "quality_fit": fit_gaussian(columns["quality"]), "bad_clips": bad,
                 "counts": {rule: count for rule, count in sorted(counts.items()) if count}}
        index = write_index(folder.with_name(f"{split}.joining"), columns=columns, clips=[task.uid for task in tasks],
                            track_name=track[used].tolist(), track_clip=clip_of[used],
                            track_start=np.r_[0, np.cumsum(size[used])], clip_shard=np.array(clip_shard),
                            clip_base=np.array(clip_base), shards=shards, sha256=digests, facts=facts)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    for source, names in [(root / "priors", ("head_pose", "landmarks")), (root / "truth", ("gaze",))]:
        if (source / f"{split}.npz").is_file() and not (split == "test" and source.name == "truth"):
            add_columns(index.folder, _joined(index, source / f"{split}.npz", names))
    os.replace(index.folder, folder)


def _joined(index: Index, path: Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as table:
            return join(index, {name: table[name] for name in ("clip", "track", "frame", *names) if name in table})
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{path}: cannot be joined: {error}") from error


def _write_shards(tasks: list[_Task], staging: Path) -> tuple[list[Path], list[str], list[int], list[int]]:
    """Pieces one after another; returns paths, SHA-256, and per clip its shard and the byte it starts at."""
    shards: list[Path] = []
    digests: list[str] = []
    clip_shard: list[int] = []
    clip_base: list[int] = []
    waiting = list(tasks)
    while waiting:
        shards.append(staging / f"{len(shards):05d}.bin")
        with ShardWriter(shards[-1]) as writer:
            while waiting and (not writer.size or writer.size + waiting[0].shard.stat().st_size <= SHARD_BYTES):
                clip_shard.append(len(shards) - 1)
                clip_base.append(writer.size)
                with open(waiting.pop(0).shard, "rb") as piece:
                    while chunk := piece.read(8 << 20):
                        writer.append(chunk)
        digests.append(writer.sha256)
    return shards, digests, clip_shard, clip_base


def _expect(index: Index, wanted: dict[str, Any]) -> None:
    for name, value in wanted.items():
        if index.facts.get(name) != value:
            raise ValueError(f"{index.folder}: was made with {name} {index.facts.get(name)}, wanted {value} -> delete "
                             "the folder; it is made again")


def _summary(index: Index, seconds: float) -> str:
    facts, size = index.facts, int(index.length.sum(dtype=np.int64))
    counts = "; ".join(f"{rule}: {count}" for rule, count in facts["counts"].items())
    return (f"prepared {facts['split']} ({facts['policy']}, {facts['crop_size']} px): {len(index)} crops of "
            f"{len(index.track_name)} tracks in {len(index.clips)} clips, {size / 1e6:.1f} MB, {seconds:.0f} s"
            + (f"; {len(facts['bad_clips'])} clips could not be used" if facts["bad_clips"] else "")
            + (f". {counts}" if counts else ""))
