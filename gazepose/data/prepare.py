"""Offline door: pictures and annotations, or ready-made crops -> shards + index. Once per policy and crop size.

Faces come out of videos/, or out of what others cut from these: video_imgs/ (whole pictures), face_imgs/ (faces),
videos_challenge/ (the test set). Annotations are json/, json_original/ with result_LAM/, or a table in boxes/.

Each clip becomes a piece (data/clip_crops.py) that survives an interruption; clips are shared out over ranks and
processes; then rank 0 merges the pieces (data/merge.py). The index is data/index.py, windows come after.
"""

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from gazepose.data.annotations import Clip, policy_named, read_clips, read_original, read_split
from gazepose.data.box_table import find_table, read_boxes
from gazepose.data.challenge import list_videos
from gazepose.data.clip_crops import STALL_S, CropsFrom, Piece, make_piece, start_worker
from gazepose.data.index import Index
from gazepose.data.merge import all_counts, merge
from gazepose.data.skipped import REPORT, outcomes, skipped, write_report
from gazepose.data.tracks import Policy
from gazepose.data.video import find_video
from gazepose.processes import WORKERS, Processes

SPLITS = ("train", "val", "test")
SAY_EVERY_S = 30
Disk = Literal["shared", "local"]
FOLDERS = {"videos": "videos", "images": "video_imgs", "faces": "face_imgs", "challenge": "videos_challenge"}


@dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """How the faces of a data set become crops."""

    policy: Literal["clean", "baseline"] = "clean"
    """how annotations are cleaned; baseline: as for the published scores"""
    rule: tuple[str, ...] = ()
    """NAME=VALUE: change one rule of the policy, such as max_gap=30; may be given several times"""
    crops_from: CropsFrom | None = None
    """faces from videos/, video_imgs/ or face_imgs/; default: the first of them that is there"""
    crops: Literal["shards", "video"] = "shards"
    """shards: cut once, then reuse; video: cut out of the clips in every epoch, for a first look or a small disk"""
    crop_size: int = 224
    """pixels per side of a face crop"""
    decoder: Literal["decord", "pyav"] = "decord"
    """what reads the videos; a clip that decord cannot read is read by pyav, and counted"""
    data_disk: Disk = "shared"
    """local: each machine has its own disk with the data set on it, and prepares it by itself"""
    max_bad_fraction: float = 0.01
    """stop if more than this part of a split's clips is missing, damaged or cut short"""

    def __post_init__(self) -> None:
        policy_named(self.policy, self.rule)
        if not 16 <= self.crop_size <= 1024:
            raise ValueError(f"--crop_size {self.crop_size} -> give 16 to 1024 pixels, such as 64 or 224")
        if not 0 <= self.max_bad_fraction <= 1:
            raise ValueError(f"--max_bad_fraction {self.max_bad_fraction} -> give 0 to 1")

    @property
    def rules(self) -> Policy:
        """The policy with its changed rules."""
        return policy_named(self.policy, self.rule)


def prepare(data: str | Path, split: str, config: PrepareConfig, processes: Processes = Processes(),  # noqa: B008
            jobs: int | None = None) -> Path:
    """Make DATA/prepared/<policy>-<crop_size>/<split>, or return at once when it is there.

    The folder's name holds the rules that differ from the policy (clean+max_gap=30-224) and ends in -images or -faces
    when the crops are not from videos.

    Args:
        data: root of a data set in the Ego4D layout.
        split: train, val (videos) or test (crop folders, label -1).
        processes: that prepare together.
        jobs: processes of this rank; default: the cores divided among the ranks; 1: in this process.

    Raises:
        FileNotFoundError: split list, annotation or crop folders missing. ValueError: unknown split, too many bad
            clips, or a split without a single row; also a prepared folder made with other settings. RuntimeError: a
            worker died. What was left out is told in report.json beside the index; where it stops, with the clips that
            are finished.
    """
    root, rank, world_size = Path(data).resolve(), processes.rank, processes.world_size
    named, crop_size, decoder = config.rules, config.crop_size, config.decoder
    max_bad_fraction = config.max_bad_fraction
    if split not in SPLITS:
        raise ValueError(f"split {split!r} is unknown -> use {', '.join(SPLITS)}")
    source = _source(root, split, named, crop_size, config.crops_from)
    if source == "faces" and named.box_scale != 1:
        raise ValueError(f"box_scale {named.box_scale}: ready-made faces cannot be cut anew -> leave it out, or give "
                         "--crops_from videos")
    folder = prepared_folder(root, split, named, crop_size, source)
    facts = made_from(root, split, named, crop_size, source, decoder)
    if (folder / "index.json").is_file():
        expect(Index.open(folder), {"split": split, **facts})
        return folder
    began, workplace = time.monotonic(), folder.with_name(f"{split}.pieces")
    pieces = _list_pieces(root, split, workplace, named, crop_size, decoder, source)
    workplace.mkdir(parents=True, exist_ok=True)
    ours = sorted(pieces, key=lambda piece: (-piece.rows, piece.uid))[rank::world_size]
    for piece in ours:
        piece.bad.unlink(missing_ok=True)                              # the video may have come since
    _make_pieces([piece for piece in ours if not piece.is_made()],
                 jobs, world_size, split, processes.notify)
    processes.barrier()
    bad = {piece.uid: piece.bad.read_text() for piece in pieces if piece.bad.is_file()}
    made = [piece for piece in pieces if piece.uid not in bad]
    _judge(folder, pieces, bad, made, max_bad_fraction,                # alike on every rank
           lambda: write_report(workplace, split, "stopped: too many clips cannot be used", len(pieces),
                                outcomes(pieces, bad), bad, max_bad_fraction, facts) if rank == 0
           else workplace / REPORT)
    processes.barrier()
    if rank == 0:
        merge(folder, split, pieces, bad, root, facts, max_bad_fraction)
        shutil.rmtree(workplace)
        processes.notify(_summary(Index.open(folder), time.monotonic() - began))
    processes.barrier()
    return folder


def prepared_folder(root: Path, split: str, policy: Policy, crop_size: int, source: str = "videos") -> Path:
    """Where the index of a split lies, or will lie."""
    suffix = f"-{source}" if source in ("images", "faces", "streamed") else ""
    return root / "prepared" / f"{policy.name}-{crop_size}{suffix}" / split


def made_from(root: Path, split: str, policy: Policy, crop_size: int, source: str, decoder: str) -> dict[str, Any]:
    """What an index is made from, for its facts."""
    facts = {"policy": policy.name, "rules": {key: value for key, value in vars(policy).items() if key != "name"},
             "crop_size": crop_size, "crops_from": source, "decoder": decoder if source == "videos" else None}
    if split != "test" and (table := find_table(root, split)):
        facts["table"] = hashlib.sha256(table.read_bytes()).hexdigest()
    return facts


def _source(root: Path, split: str, policy: Policy, crop_size: int, asked: CropsFrom | None) -> str:
    """Where the crops come from: as asked; else what is there, or was when it was prepared."""
    if asked is not None and asked not in get_args(CropsFrom):
        raise ValueError(f"crops_from {asked!r} is unknown -> use {', '.join(get_args(CropsFrom))}")
    if split == "test":
        return "challenge"
    there = (source for source in get_args(CropsFrom) if has_pictures(root, source)
             or prepared_folder(root, split, policy, crop_size, source).is_dir())
    return asked or next(there, "videos")


def has_pictures(root: Path, source: CropsFrom) -> bool:
    """Is there anything to take crops from?"""
    return any((root / FOLDERS[source]).glob("*"))


def _list_pieces(root: Path, split: str, workplace: Path, policy: Policy, crop_size: int, decoder: str,
                 source: Any) -> list[Piece]:
    """Every clip of the split, in the split list's order."""
    folder, settings = root / FOLDERS[source], (policy, crop_size, decoder, source)
    if source == "challenge":
        return [Piece(video, folder / video, workplace / video, sum(1 for _ in (folder / video).iterdir()), *settings)
                for video in list_videos(folder)]
    return [Piece(clip.uid, find_video(folder, clip.uid) if source == "videos" else folder / clip.uid,
                  workplace / clip.uid, sum(len(track.frames) for track in clip.tracks), *settings, clip.tracks,
                  clip.counts) for clip in annotated_clips(root, split, policy)]


def annotated_clips(root: Path, split: str, policy: Policy) -> list[Clip]:
    """Face tracks of train or val from whichever annotations are there, in the split list's order.

    A table of boxes/ comes first, then the official JSON (json/av_<split>.json, or the json/av.json that the original
    scripts merge), then what these scripts made of it.

    Raises:
        FileNotFoundError or ValueError naming what is missing or damaged.
    """
    if table := find_table(root, split):
        return read_boxes(table, policy)
    uids = read_split(root / "split" / f"{split}.list")
    official, original = official_json(root, split), root / "json_original"
    if original.is_dir() and not official.is_file():
        return read_original(original, root / "result_LAM", uids, policy)
    return read_clips(official, uids, policy)


def official_json(root: Path, split: str) -> Path:
    """json/av_<split>.json, else the merged json/av.json; the former when there is neither, so that an error names it.
    """
    paths = [root / "json" / f"av_{split}.json", root / "json" / "av.json"]
    return next((path for path in paths if path.is_file()), paths[0])


def _make_pieces(pieces: list[Piece], jobs: int | None, world_size: int, split: str, notify: Callable[[str], None]
                 ) -> None:
    """The time that is left is told by crops: clips differ, and the longest come first."""
    began = told = time.monotonic()
    rows, crops = 0, max(1, sum(piece.rows for piece in pieces))
    making = _here(pieces) if jobs == 1 else _in_processes(pieces, jobs or max((os.cpu_count() or 1) // world_size, 1))
    for done, piece in enumerate(making, 1):
        rows, now = rows + piece.rows, time.monotonic()
        if now - told > SAY_EVERY_S and rows:
            told = now
            notify(f"preparing {split}: {done} of {len(pieces)} clips, {rows / crops:.0%} of the crops, about "
                f"{max(1, round((crops - rows) * (now - began) / rows / 60))} min left")


def _here(pieces: list[Piece]) -> Iterator[Piece]:
    for piece in pieces:
        make_piece(piece)
        yield piece


def _in_processes(pieces: list[Piece], jobs: int) -> Iterator[Piece]:
    """A damaged video may take the decoder's whole process along: the clips it had in hand are tried once more, each in
    a process of its own, and the others go on."""
    if not pieces:
        return
    pool = _pool(min(jobs, len(pieces)))
    finished = set()
    try:
        futures = {pool.submit(make_piece, piece): piece for piece in pieces}
        for future in as_completed(futures):
            future.result()
            finished.add(futures[future].uid)
            yield futures[future]
    except BrokenProcessPool as error:
        pool.shutdown(cancel_futures=True)
        left = [piece for piece in pieces if piece.uid not in finished]
        in_hand = [piece for piece in left if piece.unfinished()]
        if not in_hand:
            raise RuntimeError(f"a process died before it cut anything of {', '.join(p.uid for p in left[:3])} -> run "
                               "again, with fewer --jobs where memory is short; finished clips are kept") from error
        for piece in in_hand:
            _alone(piece)
            yield piece
        yield from _in_processes([piece for piece in left if piece not in in_hand], jobs)
    finally:
        pool.shutdown(cancel_futures=True)


def _alone(piece: Piece) -> None:
    """As before, then by PyAV; a clip at which a process dies again cannot be used."""
    for decoder in dict.fromkeys((piece.decoder, "pyav")):
        for part in piece.unfinished():
            part.unlink()
        if decoder != piece.decoder:
            piece.decoder, piece.told["decoder"] = decoder, f"{piece.source}: decord ended its process"
            piece.counts["clip decoded by pyav: decord could not"] += 1
        try:
            with _pool(1) as pool:
                return pool.submit(make_piece, piece).result()
        except BrokenProcessPool:
            continue
    piece.bad.write_text(f"{piece.source}: the decoder's process died (by a fault of its own, for memory, or after "
                         f"{STALL_S} s without a picture) -> download it again")


def _pool(jobs: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(jobs, WORKERS, start_worker)


def _judge(folder: Path, pieces: list[Piece], bad: dict[str, str], made: list[Piece], max_bad_fraction: float,
           report: Callable[[], Path]) -> None:
    faults = {**bad, **{piece.uid: said for piece in made if piece.table.is_file()
                        and (said := piece.outcome()[2].get("short"))}}
    if len(faults) > max_bad_fraction * len(pieces):
        some = "\n  ".join(list(faults.values())[:5])
        raise ValueError(f"{folder}: {len(faults)} of {len(pieces)} clips cannot be used, more than "
                         f"{max_bad_fraction:.1%}:\n  {some}\n-> put them there, take the clips off the split list, or "
                         f"go on without them by --max_bad_fraction; all are in {report()}; finished clips are kept")
    if gone := [piece.uid for piece in made if not piece.table.is_file()]:
        raise RuntimeError(f"{folder}: {len(gone)} clips were not cut, {gone[0]} first -> the processes do not see "
                           "one disk: give --data_disk local where each machine has its own; finished clips are kept")
    if not any(len(piece.read()["frame"]) for piece in made):
        touched = all_counts([piece.read() for piece in made])
        reasons = "; ".join(f"{rule}: {count}" for rule, count in touched.most_common(5)) or "no record at all"
        raise ValueError(f"{folder}: the split is empty, none of its {len(pieces)} clips has a usable face ({reasons}) "
                         "-> check that split list and annotations belong together, or try the other policy")


def expect(index: Index, wanted: Mapping[str, Any]) -> None:
    """The index was made from what is wanted; facts it does not state are not compared, nor is the decoder."""
    made, wanted = ({**facts, **facts.get("rules", {})} for facts in (index.facts, wanted))
    for name in sorted(set(made) & set(wanted) - {"rules", "decoder"}, key=list(wanted).index):
        if made[name] != wanted[name]:
            raise ValueError(f"{index.folder}: was made with {name} {made[name]}, wanted {wanted[name]} -> delete the "
                             "folder; it is made again")


def _summary(index: Index, seconds: float) -> str:
    facts, size = index.facts, int(index.length.sum(dtype=np.int64))
    counts = "; ".join(f"{rule}: {count}" for rule, count in facts["counts"].items())
    return (f"prepared {facts['split']} ({facts['policy']}, {facts['crop_size']} px): {len(index)} crops of "
            f"{len(index.track_name)} tracks in {len(index.clips)} clips, {size / 1e6:.1f} MB, {seconds:.0f} s"
            + (f"; {left}" if (left := skipped(index)) else "") + (f". {counts}" if counts else ""))
