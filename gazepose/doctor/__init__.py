"""The doctor: reads everything of a data set and says what is wrong with it, where, and what to do.

examine gives plain facts (JSON values); text.py turns the same facts into something to read. Kinds of faults and their
remedies are findings.py; they are gathered by clips.py and presets.py (annotations), videos.py, crops.py (test set) and
tables.py (priors). Nothing is decoded beyond each video's first picture, and nothing is written.
"""

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gazepose.data.annotations import is_id, read_json, read_split
from gazepose.data.index import Index
from gazepose.data.video import VideoFacts
from gazepose.doctor.clips import SplitExam
from gazepose.doctor.crops import examine_crops
from gazepose.doctor.findings import BAD_VIDEO, Findings, remedies
from gazepose.doctor.presets import StoredClip
from gazepose.doctor.tables import JOINED, examine_table
from gazepose.doctor.videos import compare_length, look_at_video

FORMAT = 1
MAX_BAD_FRACTION = 0.01      # of a split's clips without a usable video: preparation stops past it


class Progress:
    """A line on stderr every few seconds, so that stdout holds the report alone."""

    def __init__(self, every: float = 5.0) -> None:
        self.every, self.told = every, time.monotonic()

    def __call__(self, what: str, done: int, total: int) -> None:
        if time.monotonic() - self.told > self.every:
            self.told = time.monotonic()
            print(f"doctor: {what}: {done} of {total}", file=sys.stderr, flush=True)


def examine(data: str | Path, say: Progress | None = None) -> dict[str, Any]:
    """Facts of a data set in the Ego4D layout.

    Returns:
        JSON values: data, splits {train, val: clips, policies, difference, gaps, face sizes, ...; test: crops},
        tables {split: {priors, truth}}, findings {kind: level, title, count, examples, clips} in the order of repair,
        remedies [level, finding, do] in order, healthy (nothing must be mended).

    Raises:
        FileNotFoundError: no such folder.
    """
    root, say = Path(data).resolve(), say or Progress()
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder -> give a data set in the Ego4D layout (json/, split/, "
                                "videos/)")
    findings, must = Findings(), set()
    lists = {split: _read_list(root, split, findings) for split in ("train", "val")}
    videos: dict[str, VideoFacts | None] = {}
    splits: dict[str, Any] = {}
    tables: dict[str, Any] = {}
    annotated_in: dict[str, set[str]] = {}
    if not any((root / name).is_dir() for name in ("json", "json_original", "videos_challenge")):
        findings.add("nothing_here", file=str(root))
    for split, uids in lists.items():
        exam = SplitExam(split, findings)
        annotated_in[split] = _examine_split(root, split, uids, exam, videos, must, say)
        splits[split] = {"listed": None if uids is None else len(uids), "annotated": len(annotated_in[split]),
                         **exam.facts()}
        tables[split] = {kind: examine_table(root, kind, split, exam.faces, findings) for kind in JOINED}
    splits["test"], faces = examine_crops(root, findings, say)
    tables["test"] = {"priors": examine_table(root, "priors", "test", faces, findings)} if faces else {}
    _compare_splits(root, lists, annotated_in, splits["test"].pop("names", []), findings)
    _compare_tables(tables, findings)
    prepared = _prepared(root, findings)
    found = findings.facts(must)
    return {"format": FORMAT, "data": str(root), "splits": splits, "tables": tables, "prepared": prepared,
            "findings": found, "remedies": remedies(found, str(root), bool(prepared)),
            "healthy": not any(entry["level"] == "must" for entry in found.values())}


def _examine_split(root: Path, split: str, uids: list[str] | None, exam: SplitExam,
                   videos: dict[str, VideoFacts | None], must: set[str], say: Progress) -> set[str]:
    """Examines the listed clips (all, where there is no list); returns which clips the split's file annotates."""
    findings, known, bad, read, listed = exam.findings, set(), 0, 0, set(uids or ())

    def video_of(uid: str) -> VideoFacts | None:
        if uid not in videos:
            videos[uid] = look_at_video(root, split, uid, findings)
        return videos[uid]

    for uid, annotated in _stored_clips(root, split, uids, exam):
        wanted = uids is None or uid in listed
        if uid in known:
            findings.add("clip_twice", split=split, clip=uid)
            if wanted:
                for preset in (exam.baseline, exam.clean):
                    preset.count("clip annotated twice: the first is used", 1, {"clip": uid})
            continue
        known.add(uid)
        if not wanted:
            continue
        read += 1
        clip = StoredClip(uid, annotated, root, video_of(uid))
        if clip.video is not None and annotated is not None:
            compare_length(clip.video, annotated, split, uid, findings)
        try:
            if annotated is None and clip.read_original() is None:
                findings.add("clip_without_segments", split=split, clip=uid, detail="no file in result_LAM")
        except ValueError as error:
            findings.add("annotation_unreadable", split=split, clip=uid, detail=str(error).removeprefix(f"{root}/"))
            continue
        before = exam.clean.rows
        exam.add(clip)
        bad += clip.video is None and exam.clean.rows > before         # no video is opened for a clip without faces
        say(f"{split} clips", read, len(uids) if uids is not None else read)
    for uid in uids or []:
        if uid not in known:
            for preset in (exam.baseline, exam.clean):
                preset.count("clip left out: not annotated", 1, {"clip": uid})
    if bad > MAX_BAD_FRACTION * len(uids or known):
        must |= {*BAD_VIDEO}
    if known and not exam.clean.rows:
        findings.add("split_empty", split=split)
    elif known and not 0 < exam.clean.looking < exam.clean.rows:
        findings.add("split_one_label", split=split, detail=f"all {exam.clean.rows} faces are "
                     f"{'looking' if exam.clean.looking else 'not looking'}")
    return known


def _stored_clips(root: Path, split: str, uids: list[str] | None, exam: SplitExam
                  ) -> Iterator[tuple[str, dict[str, Any] | None]]:
    """(uid, the clip as annotated, or None where it lies in the folders of the original scripts), one after another."""
    path = root / "json" / f"av_{split}.json"
    original = root / "json_original"
    if not path.is_file() and original.is_dir():
        yield from ((uid, None) for uid in uids or ())
        return
    try:
        document = read_json(path)
    except FileNotFoundError:
        exam.findings.add("annotation_missing", split=split, file=f"json/av_{split}.json")
        return
    except ValueError as error:
        exam.findings.add("annotation_unreadable", split=split, file=f"json/av_{split}.json",
                          detail=str(error).removeprefix(f"{path}: "))
        return
    if not isinstance(document, dict):
        exam.findings.add("annotation_unreadable", split=split, file=f"json/av_{split}.json",
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
                yield uid, annotated
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


def _compare_splits(root: Path, lists: dict[str, list[str] | None], annotated_in: dict[str, set[str]], test: list[str],
                    findings: Findings) -> None:
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
        for uid in sorted(annotated_in[split] - set(named["train"]) - set(named["val"])):
            findings.add("clip_no_split", clip=uid, file=f"json/av_{split}.json")
    for path in sorted((root / "videos").glob("*.mp4")):
        findings.add("video_unused", path.stem not in where, clip=path.stem)
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
