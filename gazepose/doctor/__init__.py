"""The doctor: reads everything of a data set and says what is wrong with it, where, and what to do.

examine gives plain facts (JSON values); text.py turns the same facts into something to read. Kinds of faults and their
remedies are findings.py; they are gathered by clips.py and presets.py (annotations, tables of boxes), videos.py and
images.py, crops.py (test set) and tables.py (priors). Nothing is decoded beyond each video's first picture, and nothing
is written. What lies where is found by the functions of preparation, so that both take the same.
"""

import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, get_args

from gazepose.data.annotations import DAMAGED_ANNOTATIONS, official_json, read_split
from gazepose.data.box_table import Boxes, find_table, read_table
from gazepose.data.clip_crops import CropsFrom
from gazepose.data.index import Index
from gazepose.data.prepare import FOLDERS, PrepareConfig, has_pictures
from gazepose.data.video import SUFFIXES, VideoFacts
from gazepose.doctor.annotations import SplitExam
from gazepose.doctor.checks import BAD_CLIP, Findings, remedies
from gazepose.doctor.crops import examine_crops
from gazepose.doctor.images import ClipImages, look_at_images
from gazepose.doctor.policies import StoredClip
from gazepose.doctor.tables import JOINED, examine_table
from gazepose.doctor.videos import compare_length, look_at_video
from gazepose.io import is_id, read_json

FORMAT = 1


class Progress:
    """A line on stderr every few seconds, so that stdout holds the report alone."""

    def __init__(self, every: float = 5.0) -> None:
        self.every, self.told = every, time.monotonic()

    def __call__(self, what: str, done: int, total: int) -> None:
        if time.monotonic() - self.told > self.every:
            self.told = time.monotonic()
            print(f"doctor: {what}: {done} of {total}", file=sys.stderr, flush=True)


def examine(data: str | Path, notify: Progress | None = None, crops_from: CropsFrom | None = None) -> dict[str, Any]:
    """Facts of a data set in the Ego4D layout, or of one's own videos with tables of boxes.

    Args:
        crops_from: as preparation takes it; default: the first that is there.

    Returns:
        JSON values: data, crops_from, splits {train, val: clips, policies, difference, gaps, face sizes, ...; test:
        crops}, tables {split: {priors, truth}}, findings {kind: level, title, count, examples, clips} in the order of
        repair, remedies [level, finding, do] in order, healthy (nothing must be mended).

    Raises:
        FileNotFoundError: no such folder.
    """
    root, notify = Path(data).resolve(), notify or Progress()
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder -> give a data set in the Ego4D layout (json/, split/, "
                                "videos/)")
    findings, must = Findings(), set()
    source: CropsFrom = crops_from or next((one for one in get_args(CropsFrom) if has_pictures(root, one)), "videos")
    boxes = {split: _read_boxes(root, split, findings) for split in ("train", "val")}
    lists = {split: _read_list(root, split, findings) if clips is None else list(clips) or None
             for split, clips in boxes.items()}
    videos: dict[str, VideoFacts | None] = {}
    splits: dict[str, Any] = {}
    tables: dict[str, Any] = {}
    annotated_in: dict[str, set[str]] = {}
    told: set[Path] = set()

    def pictures_of(split: str, clip: StoredClip) -> VideoFacts | ClipImages | None:
        if source != "videos":
            return look_at_images(source, root / FOLDERS[source] / clip.uid, clip.wanted(),
                                  {"split": split, "clip": clip.uid}, findings)
        if clip.uid not in videos:
            videos[clip.uid] = look_at_video(root, split, clip.uid, findings, any_rate=clip.table is not None)
        return videos[clip.uid]

    if not any((root / name).is_dir() for name in ("boxes", "json", "json_original", "videos_challenge")):
        findings.add("nothing_here", file=str(root))
    for split, uids in lists.items():
        exam, path, table = SplitExam(split, findings), official_json(root, split), boxes[split]
        structure = exam if path not in told else SplitExam(split, Findings())
        told.add(path)                                                 # faults of a merged file are told once
        stored = (_stored_clips(root, path, uids, structure) if table is None
                  else (StoredClip(uid, None, root, tracks) for uid, tracks in table.items()))
        annotated_in[split] = _examine_split(root, stored, uids, exam, structure, partial(pictures_of, split), must,
                                             notify)
        if path.name == "av.json":                                     # holds the clips of both
            annotated_in[split] -= {*(lists["val" if split == "train" else "train"] or ())} - {*(uids or ())}
        splits[split] = {"listed": None if uids is None else len(uids), "annotated": len(annotated_in[split]),
                         **exam.facts()}
        tables[split] = {kind: examine_table(root, kind, split, exam.faces, findings) for kind in JOINED
                         } if table != {} else {}
    if all(clips == {} for clips in boxes.values()):
        must.add("split_absent")
    splits["test"], faces = examine_crops(root, findings, notify)
    tables["test"] = {"priors": examine_table(root, "priors", "test", faces, findings)} if faces else {}
    _compare_splits(root, source, lists, annotated_in, splits["test"].pop("names", []), findings)
    _compare_tables(tables, findings)
    prepared = _prepared(root, findings)
    found = findings.facts(must)
    return {"format": FORMAT, "data": str(root), "crops_from": source, "splits": splits, "tables": tables,
            "prepared": prepared, "findings": found, "remedies": remedies(found, str(root), bool(prepared)),
            "healthy": not any(entry["level"] == "must" for entry in found.values())}


def _examine_split(root: Path, stored: Iterator[StoredClip], uids: list[str] | None, exam: SplitExam,
                   structure: SplitExam, pictures_of: Callable[[StoredClip], VideoFacts | ClipImages | None],
                   must: set[str], notify: Progress) -> set[str]:
    """Examines the listed clips (all, where there is no list); returns which clips the split's file annotates."""
    findings, known, bad, read, listed, split = exam.findings, set(), 0, 0, set(uids or ()), exam.split
    for clip in stored:
        uid, annotated = clip.uid, clip.annotated
        wanted = uids is None or uid in listed
        if uid in known:
            structure.findings.add("clip_twice", split=split, clip=uid)
            if wanted:
                for preset in (exam.baseline, exam.clean):
                    preset.count("clip annotated twice: the first is used", 1, {"clip": uid})
            continue
        known.add(uid)
        if not wanted:
            continue
        read += 1
        try:
            if annotated is None and clip.table is None and clip.read_original() is None:
                findings.add("clip_without_segments", split=split, clip=uid, detail="no file in result_LAM")
        except ValueError as error:
            findings.add("annotation_unreadable", split=split, clip=uid, detail=str(error).removeprefix(f"{root}/"))
            continue
        clip.pictures = pictures_of(clip)
        if isinstance(clip.pictures, VideoFacts) and annotated is not None:
            compare_length(clip.pictures, annotated, split, uid, findings)
        before = exam.clean.rows
        exam.add(clip)
        bad += clip.pictures is None and exam.clean.rows > before         # no video is opened for a clip without faces
        notify(f"{split} clips", read, len(uids) if uids is not None else read)
    for uid in uids or []:
        if uid not in known:
            for preset in (exam.baseline, exam.clean):
                preset.count("clip left out: not annotated", 1, {"clip": uid})
    if bad > PrepareConfig.max_bad_fraction * len(uids or known):
        must |= {*BAD_CLIP}
    if known and not exam.clean.rows:
        findings.add("split_empty", split=split)
    elif known and not exam.clean.labelled:
        findings.add("split_unlabelled", split=split)
        must |= {"split_unlabelled"} if split == "train" else set()
    elif known and not 0 < exam.clean.looking < exam.clean.labelled:
        findings.add("split_one_label", split=split, detail=f"all {exam.clean.labelled} faces are "
                     f"{'looking' if exam.clean.looking else 'not looking'}")
    return known


def _read_boxes(root: Path, split: str, findings: Findings) -> dict[str, dict[str, Boxes]] | None:
    """A split's table of boxes, empty where it cannot be read; None where its annotations lie elsewhere."""
    try:
        path = find_table(root, split)
        return read_table(path) if path else None
    except FileNotFoundError:
        findings.add("split_absent", split=split, file=f"boxes/{split}.csv")
    except (ValueError, OSError, ImportError) as error:
        findings.add("boxes_unusable", split=split, detail=str(error).removeprefix(f"{root}/"))
    return {}


def _stored_clips(root: Path, path: Path, uids: list[str] | None, exam: SplitExam) -> Iterator[StoredClip]:
    """The clips of a JSON, or of the folders of the original scripts, one after another."""
    split, name = exam.split, path.relative_to(root).as_posix()
    if path.name == "av.json" and uids is None:
        return                                                         # without a list none is of this split
    if not path.is_file() and (root / "json_original").is_dir():
        yield from (StoredClip(uid, None, root) for uid in uids or ())
        return
    try:
        document = read_json(path, remedy=DAMAGED_ANNOTATIONS)
    except FileNotFoundError:
        exam.findings.add("annotation_missing", split=split, file=name)
        return
    except ValueError as error:
        exam.findings.add("annotation_unreadable", split=split, file=name,
                          detail=str(error).removeprefix(f"{path}: "))
        return
    if not isinstance(document, dict):
        exam.findings.add("annotation_unreadable", split=split, file=name,
                          detail=f"an object with `videos` is wanted, this is a {type(document).__name__}")
        return
    videos = exam.collection(document, "videos", "videos", {"split": split})
    document.clear()
    for number in range(len(videos)):
        video, videos[number] = videos[number], {}                     # read clips make room for what is measured
        place = {"split": split, "detail": f"video {str(video.get('video_uid'))[:140]}"}
        for annotated in exam.collection(video, "clips", "clips", place):
            uid = annotated.get("clip_uid")
            if is_id(uid):
                yield StoredClip(uid, annotated, root)
            else:
                exam.findings.add("clip_no_uid", **place)


def _read_list(root: Path, split: str, findings: Findings) -> list[str] | None:
    """Uids of a split list; of a faulty one those that can be used; None without any."""
    path = root / "split" / f"{split}.list"
    try:
        return read_split(path)
    except FileNotFoundError:
        findings.add("list_missing", split=split, file=f"split/{split}.list")
        return None
    except ValueError as error:
        findings.add("list_unusable", split=split, file=f"split/{split}.list",
                     detail=str(error).removeprefix(f"{path}: "))
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return list(dict.fromkeys(line.strip() for line in lines if is_id(line.strip()))) or None


def _compare_splits(root: Path, source: CropsFrom, lists: dict[str, list[str] | None],
                    annotated_in: dict[str, set[str]], test: list[str], findings: Findings) -> None:
    named = {split: sorted(annotated_in[split]) if uids is None else uids for split, uids in lists.items()}
    named["test"] = test
    where: dict[str, list[str]] = {}
    for split, uids in named.items():
        for uid in uids:
            where.setdefault(uid, []).append(split)
    for uid, several in where.items():
        if len(several) > 1:
            findings.add("clip_in_two_splits", clip=uid, detail=" and ".join(several))
    for split, other in (("train", "val"), ("val", "train")):
        for uid in named[split]:
            if uid not in annotated_in[split]:
                elsewhere = uid in annotated_in[other]
                findings.add("clip_in_other_file" if elsewhere else "clip_not_annotated", split=split, clip=uid,
                             **({"detail": f"annotated in av_{other}.json"} if elsewhere else {}))
    strays = {uid: official_json(root, split).relative_to(root).as_posix() for split in ("train", "val")
              for uid in sorted(annotated_in[split] - set(named["train"]) - set(named["val"]))}
    for uid, file in strays.items():
        findings.add("clip_no_split", clip=uid, file=file)
    for path in sorted((root / FOLDERS[source]).glob("*")):
        if path.is_dir() if source != "videos" else path.suffix in SUFFIXES:
            name = path.stem if source == "videos" else path.name
            findings.add("video_unused", name not in where, clip=name)
    path = root / "split" / "test.list"
    if path.is_file() and test:
        listed = [uid for uid in (line.strip() for line in path.read_text(errors="replace").splitlines()) if uid]
        for uid in sorted(set(listed) ^ set(test)):
            findings.add("test_unlisted", split="test", clip=uid,
                         detail="listed, but no crops" if uid in listed else "crops, but not listed")


def _compare_tables(tables: dict[str, Any], findings: Findings) -> None:
    there = [split for split, kinds in tables.items() if kinds.get("priors")]
    absent = [split for split, kinds in tables.items() if kinds and not kinds.get("priors")
              and not any(place.get("split") == split for place
                          in findings.found.get("table_unusable", {}).get("examples", ()))]
    for split in absent:
        findings.add("priors_some_splits" if there else "priors_absent", split=split, file=f"priors/{split}.npz")


def _prepared(root: Path, findings: Findings) -> list[dict[str, Any]]:
    """The folders that preparation left: their size, and those that are not whole."""
    folders = []
    for path in sorted((root / "prepared").glob("*/*/index.json")):
        name = path.parent.relative_to(root).as_posix()
        try:
            index = Index.open(path.parent)
        except (ValueError, EOFError, OSError) as error:
            findings.add("prepared_unreadable", file=name, detail=str(error))
            continue
        folders.append({"folder": name, "rows": len(index), "bad_clips": len(index.facts.get("bad_clips") or ())})
    return folders
