"""Prepare a split: pictures and annotations, or ready-made crops -> shards and an index. Once per policy and crop size.

Faces come out of videos/, or out of what was cut from these: video_imgs/ (whole pictures), face_imgs/ (faces),
videos_challenge/ (the test set). Annotations are json/, json_original/ with result_LAM/, or a table in boxes/. What
Ego4D's downloader made, v2/annotations/ and v2/clips/, is read where it lies.

Ranks and processes share the clips (data/clip_files.py), which survive an interruption. Then rank 0 merges them into
one index (data/merge.py), which knows its sources: when one of them has changed, the next call makes again what depends
on it. report.json beside the index says what was left out.
"""

import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any, get_args

from gazepose.data.annotations import annotated_clips, annotation_files, has_no_list, official_json
from gazepose.data.box_table import find_table, label_origin, table_rules
from gazepose.data.challenge import list_videos
from gazepose.data.clip_crops import STALL_S, cut_clip, start_worker
from gazepose.data.clip_files import ClipCrops, CropsFrom, bad_clips
from gazepose.data.config import PrepareConfig
from gazepose.data.index import SHARDS, Index, read_contents, verify_columns
from gazepose.data.index_writer import LOCK
from gazepose.data.merge import merge, name_in, source_of
from gazepose.data.outcome import REPORT, Outcome, some, summary
from gazepose.data.stamps import Sources, changed_in, stamp_of_files
from gazepose.data.tracks import Policy
from gazepose.data.video import find_video, usable_decoder
from gazepose.machine import cores
from gazepose.processes import WORKERS, Processes
from gazepose.processes import killed as processes_killed
from gazepose.progress import Progress
from gazepose.text import counted

SPLITS = ("train", "val", "test")
FOLDERS = {"videos": "videos", "images": "video_imgs", "faces": "face_imgs", "challenge": "videos_challenge"}
DOWNLOADED = ("clips", "v2/clips", "v1/clips")       # where Ego4D's downloader puts the videos


def prepare(data: str | Path, split: str, config: PrepareConfig, processes: Processes = Processes(),  # noqa: B008
            jobs: int | None = None) -> Path:
    """Make DATA/prepared/<policy>-<crop_size>/<split>, or return at once when nothing has changed since it was made.

    The folder's name holds the rules that differ from the policy (clean+max_gap=30-224). It ends in -images or -faces
    when the crops are not from videos, and in -streamed with `config.crops` video: then train and val get an index
    without crops, for data/streaming.py. Clips that a reader of such an index has found damaged are left out of it.

    One run at a time prepares a folder; others wait, and use what it made.

    Args:
        data: root of a data set in the Ego4D layout.
        split: train, val (videos) or test (crop folders, label -1).
        processes: that prepare together.
        jobs: processes of this rank; default: the cores divided among the ranks; 1: in this process.

    Raises:
        FileNotFoundError: split list, annotation or crop folders missing. ValueError: unknown split, too many bad
            clips, or a split without a single row; also a prepared folder made with other settings. RuntimeError: a
            worker died. report.json beside the index says what was left out; finished clips are kept.
    """
    root = Path(data).resolve()
    if split not in SPLITS:
        raise ValueError(f"split {split!r} is unknown -> use {', '.join(SPLITS)}")
    config = replace(config, rule=table_rules(root, split, config.rule))
    source = _source(root, split, config)
    folder = _folder(root, split, config, source)
    facts = {**_made_from(split, config, source), **label_origin(root, split)}
    if all(processes.gather(_is_fresh(folder, root, facts))):
        if facts["decoder"] not in (None, "auto", *(decoders := decoders_of(read_contents(folder)["facts"]))):
            processes.notify(f"{folder}: was read by {' and '.join(decoders)}, and is used as it is, not read again by "
                             f"{config.decoder} -> delete the folder, if you want that")
        return folder
    try:
        (folder / SHARDS).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"{folder}: cannot be made ({error.strerror}) -> make a folder on a disk that you can write to, "
                      f"put links into it (ln -s {root}/* FOLDER; rm -f FOLDER/prepared), and give it as --data"
                      ) from error
    with processes.in_turn(folder / LOCK):
        # another run may have made it meanwhile; machines may see that at different times, and must agree
        if not all(processes.gather(_is_fresh(folder, root, facts))):
            _prepare(root, split, config, source, folder, facts, processes, jobs)
    return folder


def _prepare(root: Path, split: str, config: PrepareConfig, source: str, folder: Path, facts: dict[str, Any],
             processes: Processes, jobs: int | None) -> None:
    """As `prepare`, by the run that holds the lock."""
    began, before = time.monotonic(), None
    if (folder / "index.json").is_file():
        contents = read_contents(folder)
        verify_columns(folder, contents)
        before = Index(folder, contents)
        if changed := changed_sources(folder, root):
            processes.notify(f"{folder}: changed since it was made: {some(changed)} -> what depends on it is made "
                             "again")
    if split != "test" and not find_table(root, split) and has_no_list(root, split):
        processes.notify(f"{split}: there is no split/{split}.list, so all clips of {official_json(root, split)} are "
                         "used")
    pictures, files = pictures_folder(root, source), annotation_files(root, split) if split != "test" else []
    sources = {name_in(root, path): source_of(path) for path in (*files, pictures)}      # before they are read
    clips = _list_clips(root, split, folder / SHARDS, config, source)
    ours = sorted(clips, key=lambda clip: (-clip.faces, clip.uid))[processes.rank::processes.world_size]
    ours = [clip for clip in ours if not (clip.is_finished() or source == "streamed" and clip.known_bad())]
    if source in ("videos", "streamed"):
        decoder, lines = _decoder(config.decoder, folder, before, processes)
        facts = {**facts, "decoder": decoder}
        for line in lines if any(processes.gather(len(ours))) else ():
            processes.notify(line)
        ours = [replace(clip, decoder=decoder) for clip in ours]
    for clip in ours:
        clip.bad.unlink(missing_ok=True)                               # the video may have come since
    _cut(ours, split, jobs, processes)
    processes.barrier()
    outcome = Outcome(clips, bad_clips(folder / SHARDS), facts, config.max_bad_fraction)
    try:
        outcome.check(folder, f"all are in {folder / REPORT}; finished clips are kept")
    except ValueError:                                                 # alike on every rank
        if processes.rank == 0:
            outcome.write(folder, "stopped: too many clips, or all, cannot be used")
        raise
    processes.barrier()                                                # every rank has read the tables
    if processes.rank == 0:
        sources |= {name_in(root, clip.source): [stamp_of_files(clip.source), None] for clip in clips
                    if clip.uid in outcome.bad}
        facts = {**facts, "bad_clips": outcome.bad, "counts": dict(sorted((+outcome.counts).items())),
                 "listed": len(clips), "max_bad_fraction": config.max_bad_fraction}
        index, lines = merge(folder, root, outcome.used, sources, facts, before)
        outcome.write(folder, "listed" if source == "streamed" else "prepared")
        processes.notify(summary(index, before, time.monotonic() - began))
        for line in lines:
            processes.notify(line)
    processes.barrier()


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
    return any(pictures_folder(root, source).glob("*"))


def _folder(root: Path, split: str, config: PrepareConfig, source: str) -> Path:
    suffix = f"-{source}" if source in ("images", "faces", "streamed") else ""
    return root / "prepared" / f"{config.rules.name}-{config.crop_size}{suffix}" / split


def pictures_folder(root: Path, source: str) -> Path:
    """The folder of a source (key of FOLDERS, or "streamed") in a data set; videos may lie in one of DOWNLOADED."""
    name = FOLDERS.get(source, "videos")
    places = [root / place for place in (name, *DOWNLOADED)] if name == "videos" else [root / name]
    return next((place for place in places if place.is_dir()), places[0])


def _made_from(split: str, config: PrepareConfig, source: str) -> dict[str, Any]:
    """Settings of an index, for its facts."""
    policy, source = config.rules, "videos" if source == "streamed" else source
    return {"split": split, "policy": policy.name,
            "rules": {key: value for key, value in vars(policy).items() if key != "name"},
            "crop_size": config.crop_size, "crops_from": source,
            "decoder": config.decoder if source == "videos" else None}


def decoders_of(facts: Mapping[str, Any]) -> list[str]:
    """The decoders that read the clips of an index; several, where later clips were read by another."""
    return facts.get("decoders") or [facts["decoder"]]


def _decoder(wanted: str, folder: Path, before: Index | None, processes: Processes) -> tuple[str, list[str]]:
    """One decoder for all ranks, in place of auto: PyAV, where it read the index before, so that crops are alike, or
    where a rank cannot load decord; else decord. And lines that say which."""
    earlier = decoders_of(before.facts) if before else []
    decoder, lines = wanted, []
    if wanted == "auto" and earlier == ["pyav"]:
        decoder = "pyav"
    elif wanted == "auto":
        decoder, reason = max(processes.gather(usable_decoder()))          # pyav comes after decord
        if reason:
            lines = [f"videos: read by pyav, because decord cannot be loaded ({reason})"]
    if others := [other for other in earlier if other != decoder]:
        lines.append(f"{folder}: its clips were read by {' and '.join(others)}; those that are cut now are read by "
                     f"{decoder} -> delete the folder, to have all read by one")
    return decoder, lines


def _is_fresh(folder: Path, root: Path, facts: Mapping[str, Any]) -> bool:
    """Whether a folder is prepared, with these settings, from the sources that are there now.

    Raises:
        ValueError: with other settings, beside the decoder; who made the labels stands in a source.
    """
    if not (folder / "index.json").is_file():
        return False
    stated = read_contents(folder)["facts"]
    before, now = _settings(stated), _settings(facts)
    differing = [f"{name} {before.get(name)}, wanted {now.get(name)}" for name in {**now, **before}
                 if (name in facts or name not in stated) and before.get(name) != now.get(name)]
    if differing:
        raise ValueError(f"{folder}: was made with {some(differing)} -> delete the folder; it is made again")
    return not changed_sources(folder, root)


def _settings(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of an index, beside its decoder and who made its labels, with its rules by name. A rule that was not
    there yet when the index was made is at its default."""
    rules = facts.get("rules")
    defaults = {rule.name: rule.default for rule in fields(Policy) if rule.default is not MISSING}
    return {**{name: value for name, value in facts.items() if name not in ("rules", "decoder", "labels")},
            **defaults, **(rules if isinstance(rules, dict) else {})}


def changed_sources(folder: Path, root: Path, full: bool = False) -> list[str]:
    """Files of a data set that are not as they were when the index in `folder` was made of them.

    Files that are gone do not count: many delete their videos once these are prepared.

    Args:
        full: compare their bytes where these are known, instead of their sizes and times (see stamps.py).
    """
    contents = read_contents(folder)
    sources: Sources = contents["facts"].get("sources", {})
    changed = changed_in(root, sources, full)
    damaged = {path.name.removesuffix(".bad") for path in (folder / SHARDS).glob("*.bad")}
    changed += sorted(f"{uid}, which is damaged" for uid in damaged & {*contents["clips"]})
    shards = [(folder / SHARDS / shard["file"], shard["bytes"]) for shard in contents["shards"]]
    return changed + [str(path) for path, size in shards if not (path.is_file() and path.stat().st_size >= size)]


def _list_clips(root: Path, split: str, workplace: Path, config: PrepareConfig, source: Any) -> list[ClipCrops]:
    """Every clip of the split, in the split list's order."""
    folder, settings = pictures_folder(root, source), (config.rules, config.crop_size, config.decoder, source)
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
    jobs_of_rank = jobs or max(cores() // processes.world_size, 1)
    cutting = _in_this_process(clips) if jobs == 1 else _in_processes(clips, jobs_of_rank)
    with Progress(f"preparing {split}", sum(clip.faces for clip in clips), "faces", processes.notify,
                  rank=processes.rank) as progress:
        for done, clip in enumerate(cutting, 1):
            progress.add(clip.faces, f"{done} of {counted(len(clips), 'clip')}")


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
    finished, killed = set(), len(processes_killed)
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
        if not suspects and len(processes_killed) == killed:           # a Watchdog kills what is stopped
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
