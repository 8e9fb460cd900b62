"""Prepare a split: pictures and annotations, or ready-made crops -> shards and an index. Once per policy and crop size.

Faces come out of videos/, or out of what was cut from these: video_imgs/ (whole pictures), face_imgs/ (faces),
videos_challenge/ (the test set). Annotations are json/, json_original/ with result_LAM/, or a table in boxes/.

Ranks and processes share the clips (data/clip_crops.py), which survive an interruption. Then rank 0 merges them into
one data set (data/merge.py). report.json beside its index says what was left out.
"""

import os
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from gazepose.data.annotations import annotated_clips, policy_named
from gazepose.data.box_table import find_table
from gazepose.data.challenge import list_videos
from gazepose.data.clip_crops import STALL_S, ClipCrops, ClipRows, CropsFrom, cut_clip, start_worker
from gazepose.data.index import Index
from gazepose.data.merge import merge
from gazepose.data.tracks import Policy
from gazepose.data.video import find_video
from gazepose.io import sha256_of, write_json, writing_folder
from gazepose.processes import WORKERS, Processes
from gazepose.progress import Progress

SPLITS = ("train", "val", "test")
Disk = Literal["shared", "local"]
FOLDERS = {"videos": "videos", "images": "video_imgs", "faces": "face_imgs", "challenge": "videos_challenge"}
REPORT = "report.json"       # for people; nothing reads it back
EXAMPLES = 3                 # clips that the report names per rule, those with most of it
LEFT_OUT = ("record dropped", "row left out", "segment dropped", "track dropped", "file left out")


@dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """How the faces of a data set become crops."""

    policy: Literal["clean", "baseline"] = "clean"
    """how annotations are cleaned; baseline: as for the published scores"""
    rule: tuple[str, ...] = ()
    """NAME=VALUE: change one rule of the policy, such as max_gap=30; may be given several times"""
    crops_from: CropsFrom | None = None
    """source of the faces: videos/, video_imgs/ or face_imgs/; default: the first of them that exists"""
    crops: Literal["shards", "video"] = "shards"
    """shards: cut crops once and store them; video: cut them again in every epoch, for a first look or a small disk"""
    crop_size: int = 224
    """pixels per side of a face crop"""
    decoder: Literal["decord", "pyav"] = "decord"
    """library that reads the videos; if decord cannot read a clip, pyav reads it, and it is counted"""
    data_disk: Disk = "shared"
    """shared: all machines see one disk; local: each machine has the data set on its own disk and prepares it itself"""
    max_bad_fraction: float = 0.01
    """stop if more than this part of a split's clips is missing, damaged or cut short"""

    def __post_init__(self) -> None:
        policy_named(self.policy, self.rule)
        if not 16 <= self.crop_size <= 1024:
            raise ValueError(f"--crop_size {self.crop_size} -> give 16 to 1024 pixels, such as 64 or 224")
        if not 0 <= self.max_bad_fraction <= 1:
            raise ValueError(f"--max_bad_fraction {self.max_bad_fraction} -> give 0 to 1")
        if self.crops_from not in (None, *get_args(CropsFrom)):
            raise ValueError(f"crops_from {self.crops_from!r} is unknown -> use {', '.join(get_args(CropsFrom))}")

    @property
    def rules(self) -> Policy:
        """The policy with its changed rules."""
        return policy_named(self.policy, self.rule)


def prepare(data: str | Path, split: str, config: PrepareConfig, processes: Processes = Processes(),  # noqa: B008
            jobs: int | None = None) -> Path:
    """Make DATA/prepared/<policy>-<crop_size>/<split>, or return at once when it exists.

    The folder's name holds the rules that differ from the policy (clean+max_gap=30-224). It ends in -images or -faces
    when the crops are not from videos, and in -streamed with `config.crops` video: then train and val get an index
    without shards, for data/streaming.py. Clips that a reader of such an index has found damaged are left out of it,
    and it is made again.

    Args:
        data: root of a data set in the Ego4D layout.
        split: train, val (videos) or test (crop folders, label -1).
        processes: that prepare together.
        jobs: processes of this rank; default: the cores divided among the ranks; 1: in this process.

    Raises:
        FileNotFoundError: split list, annotation or crop folders missing. ValueError: unknown split, too many bad
            clips, or a split without a single row; also a prepared folder made with other settings. RuntimeError: a
            worker died. report.json beside the index says what was left out; where preparation stops, it lies beside
            the finished clips.
    """
    root, rank = Path(data).resolve(), processes.rank
    if split not in SPLITS:
        raise ValueError(f"split {split!r} is unknown -> use {', '.join(SPLITS)}")
    source = _source(root, split, config)
    folder = _folder(root, split, config, source)
    facts = _made_from(root, split, config, source)
    damaged: dict[str, str] = {}
    if (folder / "index.json").is_file():
        index = Index.open(folder)
        _refuse_other_settings(index, {"split": split, **facts})
        found_damaged = damaged_clips(folder)
        if not found_damaged:
            return folder
        damaged = {**index.facts["damaged"], **found_damaged}
    began, workplace = time.monotonic(), folder.with_name(f"{split}.clips")
    clips = _list_clips(root, split, workplace, config, source)
    workplace.mkdir(parents=True, exist_ok=True)
    usable = [clip for clip in clips if clip.uid not in damaged]
    ours = sorted(usable, key=lambda clip: (-clip.faces, clip.uid))[rank::processes.world_size]
    for clip in ours:
        clip.bad.unlink(missing_ok=True)                               # the video may have come since
    _cut([clip for clip in ours if not clip.is_finished()], split, jobs, processes)
    processes.barrier()
    outcome = Outcome(clips, {**damaged, **damaged_clips(workplace)}, {"split": split, **facts},
                      config.max_bad_fraction)
    try:
        outcome.check(folder, f"all are in {workplace / REPORT}; finished clips are kept")
    except ValueError:                                                 # alike on every rank
        if rank == 0:
            outcome.write(workplace, "stopped: too many clips, or all, cannot be used")
        raise
    processes.barrier()                                                # every rank has read the tables
    if rank == 0:
        facts = {**outcome.facts, "bad_clips": outcome.bad, "counts": dict(sorted((+outcome.counts).items()))}
        if source == "streamed":
            facts |= {"damaged": damaged, "listed": len(clips), "max_bad_fraction": config.max_bad_fraction}
        with writing_folder(folder, replace=bool(damaged)) as part:
            part.rmdir()                                               # write_index makes it
            merge(part, root, outcome.used, facts, workplace)
            outcome.write(part, "listed" if source == "streamed" else "prepared")
        shutil.rmtree(workplace)
        processes.notify(_summary(Index.open(folder), time.monotonic() - began))
    processes.barrier()
    return folder


# ---- what is prepared, from what

def _source(root: Path, split: str, config: PrepareConfig) -> str:
    """Key of FOLDERS, or "streamed": as the settings say; else the first that exists, or did when it was prepared."""
    if config.crops == "video" and split != "test":
        if config.crops_from not in (None, "videos"):
            raise ValueError(f"--crops video cuts faces out of videos/, not out of {config.crops_from} -> give --crops "
                             "shards: images are prepared quickly")
        return "streamed"
    if split == "test":
        return "challenge"
    existing = (source for source in get_args(CropsFrom) if has_pictures(root, source)
                or _folder(root, split, config, source).is_dir())
    source = config.crops_from or next(existing, "videos")
    if source == "faces" and config.rules.box_scale != 1:
        raise ValueError(f"box_scale {config.rules.box_scale}: ready-made faces cannot be cut anew -> leave it out, or "
                         "give --crops_from videos")
    return source


def has_pictures(root: Path, source: CropsFrom) -> bool:
    """Whether the folder of that source holds anything."""
    return any((root / FOLDERS[source]).glob("*"))


def _folder(root: Path, split: str, config: PrepareConfig, source: str) -> Path:
    suffix = f"-{source}" if source in ("images", "faces", "streamed") else ""
    return root / "prepared" / f"{config.rules.name}-{config.crop_size}{suffix}" / split


def _made_from(root: Path, split: str, config: PrepareConfig, source: str) -> dict[str, Any]:
    """Settings and sources of an index, for its facts."""
    policy, source = config.rules, "videos" if source == "streamed" else source
    facts = {"policy": policy.name, "rules": {key: value for key, value in vars(policy).items() if key != "name"},
             "crop_size": config.crop_size, "crops_from": source,
             "decoder": config.decoder if source == "videos" else None}
    if split != "test" and (table := find_table(root, split)):
        facts["table"] = sha256_of(table)
    return facts


def _refuse_other_settings(index: Index, facts: Mapping[str, Any]) -> None:
    """Facts that the index does not state are not compared, nor is the decoder."""
    stated, expected = ({**some, **some.get("rules", {})} for some in (index.facts, facts))
    for name in [name for name in expected if name in stated and name not in ("rules", "decoder")]:
        if stated[name] != expected[name]:
            raise ValueError(f"{index.folder}: was made with {name} {stated[name]}, wanted {expected[name]} -> delete "
                             "the folder; it is made again")


def _list_clips(root: Path, split: str, workplace: Path, config: PrepareConfig, source: Any) -> list[ClipCrops]:
    """Every clip of the split, in the split list's order."""
    folder, settings = root / FOLDERS.get(source, "videos"), (config.rules, config.crop_size, config.decoder, source)
    if source == "challenge":
        return [ClipCrops(video, folder / video, workplace / video, sum(1 for _ in (folder / video).glob("*/*")),
                          *settings) for video in list_videos(folder)]
    from_videos = source in ("videos", "streamed")
    return [ClipCrops(clip.uid, find_video(folder, clip.uid) if from_videos else folder / clip.uid,
                      workplace / clip.uid, sum(len(track.frames) for track in clip.tracks), *settings, clip.tracks,
                      clip.counts) for clip in annotated_clips(root, split, config.rules)]


# ---- who cuts which clip

def _cut(clips: list[ClipCrops], split: str, jobs: int | None, processes: Processes) -> None:
    """Cut this rank's clips; progress counts faces, because clips differ and the longest come first."""
    jobs_of_rank = jobs or max((os.cpu_count() or 1) // processes.world_size, 1)
    cutting = _in_this_process(clips) if jobs == 1 else _in_processes(clips, jobs_of_rank)
    with Progress(f"preparing {split}", sum(clip.faces for clip in clips), "faces", processes.notify,
                  rank=processes.rank) as progress:
        for done, clip in enumerate(cutting, 1):
            progress.add(clip.faces, f"{done} of {len(clips)} clips")


def _in_this_process(clips: list[ClipCrops]) -> Iterator[ClipCrops]:
    for clip in clips:
        cut_clip(clip)
        yield clip


def _in_processes(clips: list[ClipCrops], jobs: int) -> Iterator[ClipCrops]:
    """A damaged video may end the decoder's whole process: the clips that were being cut then are tried once more, each
    in a process of its own, and the others go on."""
    if not clips:
        return
    pool = _pool(min(jobs, len(clips)))
    finished = set()
    try:
        futures = {pool.submit(cut_clip, clip): clip for clip in clips}
        for future in as_completed(futures):
            future.result()
            finished.add(futures[future].uid)
            yield futures[future]
    except BrokenProcessPool as error:
        pool.shutdown(cancel_futures=True)
        rest = [clip for clip in clips if clip.uid not in finished]
        suspects = [clip for clip in rest if clip.unfinished()]
        if not suspects:
            raise RuntimeError(f"a process died before it cut anything of {', '.join(clip.uid for clip in rest[:3])} "
                               "-> run again, with more free memory if it was short; finished clips are kept"
                               ) from error
        for clip in suspects:
            _alone(clip)
            yield clip
        yield from _in_processes([clip for clip in rest if clip not in suspects], jobs)
    finally:
        pool.shutdown(cancel_futures=True)


def _alone(clip: ClipCrops) -> None:
    """Cut as before, then by PyAV; a clip at which a process dies again cannot be used."""
    for decoder in dict.fromkeys((clip.decoder, "pyav")):
        for part in clip.unfinished():
            part.unlink()
        if decoder != clip.decoder:
            clip = replace(clip, decoder=decoder, notes={"decoder": f"{clip.source}: decord ended its process"})
        try:
            with _pool(1) as pool:
                return pool.submit(cut_clip, clip).result()
        except BrokenProcessPool:
            continue
    for part in clip.unfinished():
        part.unlink()
    clip.mark_bad(f"{clip.source}: the decoder's process died (it crashed, lacked memory, or gave no picture for "
                  f"{STALL_S} s) -> download the video again")


def _pool(jobs: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(jobs, WORKERS, start_worker)


# ---- what became of the clips

def damaged_clips(folder: Path) -> dict[str, str]:
    """Clip -> reason why it cannot be used, from the .bad files of a folder."""
    return {path.name.removesuffix(".bad"): path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.bad"))}


class Outcome:
    """What became of the clips of a split; the same on every rank.

    Args:
        bad: clip -> why it cannot be used. facts: the split, and settings and sources of the index.

    Raises:
        RuntimeError: a clip was neither cut nor refused, so the processes do not see one disk.
    """

    def __init__(self, clips: list[ClipCrops], bad: Mapping[str, str], facts: Mapping[str, Any],
                 max_bad_fraction: float) -> None:
        self.clips, self.facts, self.max_bad_fraction = clips, facts, max_bad_fraction
        self.bad = {clip.uid: bad[clip.uid] for clip in clips if clip.uid in bad}
        self.used = [clip for clip in clips if clip.uid not in bad]
        if missing := [clip.uid for clip in self.used if not clip.table.is_file()]:
            raise RuntimeError(f"{clips[0].path.parent}: {len(missing)} clips were not cut, {missing[0]} first -> the "
                               "processes do not see one disk: give --data_disk local where each machine has its own; "
                               "finished clips are kept")
        self.rows: dict[str, ClipRows] = {clip.uid: clip.rows(columns=False) for clip in self.used}
        self.counts = sum((rows.counts for rows in self.rows.values()), Counter())

    def noted(self, what: str) -> dict[str, str]:
        """Clip -> its note of that name."""
        return {uid: rows.notes[what] for uid, rows in self.rows.items() if what in rows.notes}

    def check(self, folder: Path, details: str) -> None:
        """Raises ValueError: too many clips are bad or cut short, or no clip has a row."""
        check_bad_clips(folder, {**self.bad, **self.noted("short")}, len(self.clips), self.max_bad_fraction, details)
        if not any(rows.sizes.sum() for rows in self.rows.values()):
            reasons = "; ".join(f"{rule}: {count}" for rule, count in self.counts.most_common(5))
            raise ValueError(f"{folder}: the split is empty, none of its {len(self.clips)} clips has a usable face "
                             f"({reasons or 'no record at all'}) -> check that split list and annotations belong "
                             "together, or try the other policy")

    def write(self, folder: Path, state: str) -> None:
        """Write FOLDER/report.json."""
        touched: dict[str, Counter[str]] = {}                          # rule -> clip -> how often
        for uid, rows in self.rows.items():
            for rule, count in rows.counts.items():
                touched.setdefault(rule, Counter())[uid] = count
        write_json(folder / REPORT, {
            "state": state, **self.facts,
            "clips": {"listed": len(self.clips), "used": len(self.used), "bad": len(self.bad),
                      "max_bad_fraction": self.max_bad_fraction},
            "rows": {"wanted": sum(clip.faces for clip in self.used),
                     "made": sum(int(rows.sizes.sum()) for rows in self.rows.values())},
            "bad_clips": self.bad, "cut_short": self.noted("short"), "decoded_by_pyav": self.noted("decoder"),
            "counts": {rule: {"count": clips.total(), "clips": dict(clips.most_common(EXAMPLES))}
                       for rule, clips in sorted(touched.items())}})


def check_bad_clips(folder: Path, bad: Mapping[str, str], clips: int, most: float, details: str) -> None:
    """Raises ValueError with the first reasons: more than the fraction `most` of the clips cannot be used."""
    if len(bad) > most * clips:
        reasons = "\n  ".join(list(bad.values())[:5])
        raise ValueError(f"{folder}: {len(bad)} of {clips} clips cannot be used, more than {most:.1%}:\n  {reasons}\n"
                         "-> add the missing files, remove the clips from the split list, or continue without them by "
                         f"a larger --max_bad_fraction; {details}")


def skipped(index: Index) -> str:
    """What was left out of an index in half a line, and where to read more; empty where nothing was."""
    bad = len(index.facts.get("bad_clips", ()))
    dropped = sum(count for rule, count in index.facts.get("counts", {}).items() if rule.startswith(LEFT_OUT))
    parts = [f"{bad} clips"] * bool(bad) + [f"{dropped} records, rows or tracks"] * bool(dropped)
    return f"left out: {', '.join(parts)}, see {index.folder / REPORT}" if parts else ""


def _summary(index: Index, seconds: float) -> str:
    facts, size = index.facts, int(index.length.sum(dtype=np.int64))
    where = f"{size / 1e6:.1f} MB" if index.corners is None else "cut while they are used"
    counts = "; ".join(f"{rule}: {count}" for rule, count in facts["counts"].items())
    left_out = skipped(index)
    return (f"prepared {facts['split']} ({facts['policy']}, {facts['crop_size']} px): {len(index)} crops of "
            f"{len(index.track_name)} tracks in {len(index.clips)} clips, {where}, {seconds:.0f} s"
            + (f"; {left_out}" if left_out else "") + (f". {counts}" if counts else ""))
