"""Offline door: videos and annotations, or the challenge's crops -> shards + index. Once per policy and crop size.

Each clip becomes a piece (data/pieces.py) that survives an interruption; clips are shared out over ranks and
processes; then rank 0 merges the pieces (data/merge.py). The index is data/index.py, windows come after.
"""

import multiprocessing
import os
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np

from gazepose.data.annotations import policy_named, read_clips, read_original, read_split
from gazepose.data.challenge import list_videos
from gazepose.data.index import Index
from gazepose.data.merge import all_counts, merge
from gazepose.data.pieces import STALL_S, Piece, make_piece, start_worker
from gazepose.data.tracks import Policy
from gazepose.data.video import DECODERS

SPLITS = ("train", "val", "test")


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
        _expect(Index.open(folder), split=split, policy=policy, crop_size=crop_size)
        return folder
    began, workplace = time.monotonic(), folder.with_name(f"{split}.pieces")
    pieces = _list_pieces(root, split, workplace, rules, crop_size, decoder)
    workplace.mkdir(parents=True, exist_ok=True)
    ours = sorted(pieces, key=lambda piece: (-piece.rows, piece.uid))[rank::world_size]
    for piece in ours:
        piece.bad.unlink(missing_ok=True)                              # the video may have come since
    _make_pieces([piece for piece in ours if not piece.is_made()],
                 jobs or max((os.cpu_count() or 1) // world_size, 1), split, say)
    wait()
    bad = {piece.uid: piece.bad.read_text() for piece in pieces if piece.bad.is_file()}
    made = [piece for piece in pieces if piece.uid not in bad]
    _judge(folder, pieces, bad, made, max_bad_fraction)                # alike on every rank
    wait()
    if rank == 0:
        merge(folder, split, made, bad, root, decoder)
        shutil.rmtree(workplace)
        say(_summary(Index.open(folder), time.monotonic() - began))
    wait()
    return folder


def _list_pieces(root: Path, split: str, workplace: Path, policy: Policy, crop_size: int, decoder: str) -> list[Piece]:
    """Every clip of the split, in the split list's order."""
    settings = (policy, crop_size, decoder)
    if split == "test":
        crops = root / "videos_challenge"
        return [Piece(video, crops / video, workplace / video, sum(1 for _ in (crops / video).iterdir()), *settings)
                for video in list_videos(crops)]
    uids = read_split(root / "split" / f"{split}.list")
    annotated, original = root / "json" / f"av_{split}.json", root / "json_original"
    if not annotated.is_file() and original.is_dir():
        clips = read_original(original, root / "result_LAM", uids, policy)
    else:
        clips = read_clips(annotated, uids, policy)
    return [Piece(clip.uid, root / "videos" / f"{clip.uid}.mp4", workplace / clip.uid,
                  sum(len(track.frames) for track in clip.tracks), *settings, clip.tracks, clip.counts)
            for clip in clips]


def _make_pieces(pieces: list[Piece], jobs: int, split: str, say: Callable[[str], None]) -> None:
    told = time.monotonic()
    making = _in_processes(pieces, jobs) if jobs > 1 and len(pieces) > 1 else map(make_piece, pieces)
    for done, _ in enumerate(making, 1):
        if time.monotonic() - told > 30:
            told = time.monotonic()
            say(f"preparing {split}: {done} of {len(pieces)} clips")


def _in_processes(pieces: list[Piece], jobs: int) -> Iterator[None]:
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    pool = ProcessPoolExecutor(min(jobs, len(pieces)), multiprocessing.get_context(method), start_worker)
    try:
        for future in as_completed([pool.submit(make_piece, piece) for piece in pieces]):
            yield future.result()
    except BrokenProcessPool as error:
        left = [piece.uid for piece in pieces if not piece.table.is_file() and not piece.bad.is_file()]
        raise RuntimeError(f"a process died while cutting one of {', '.join(left[:jobs])} (killed for memory, or no "
                           f"picture in {STALL_S} s) -> look at these videos, or run again with fewer --jobs; finished "
                           "clips are kept") from error
    finally:
        pool.shutdown(cancel_futures=True)


def _judge(folder: Path, pieces: list[Piece], bad: dict[str, str], made: list[Piece], max_bad_fraction: float) -> None:
    if len(bad) > max_bad_fraction * len(pieces):
        some = "\n  ".join(list(bad.values())[:5])
        raise ValueError(f"{folder}: {len(bad)} of {len(pieces)} clips cannot be used, more than "
                         f"{max_bad_fraction:.1%}:\n  {some}\n-> put these videos there, or take the clips off the "
                         "split list; finished clips are kept")
    if gone := [piece.uid for piece in made if not piece.table.is_file()]:
        raise RuntimeError(f"{folder}: {len(gone)} clips were not cut, {gone[0]} first -> all processes must share one "
                           "file system; run again, finished clips are kept")
    if not any(len(piece.read()["frame"]) for piece in made):
        touched = all_counts([piece.read() for piece in made])
        reasons = "; ".join(f"{rule}: {count}" for rule, count in touched.most_common(5)) or "no record at all"
        raise ValueError(f"{folder}: the split is empty, none of its {len(pieces)} clips has a usable face ({reasons}) "
                         "-> check that split list and annotations belong together, or try the other policy")


def _expect(index: Index, **wanted: str | int) -> None:
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
