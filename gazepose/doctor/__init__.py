"""The doctor: reads everything of a data set and says what is wrong with it, where, and what to do.

`examine` gives plain facts (JSON values); text.py turns them into a report. The kinds of findings and their remedies
are in checks.py; annotations.py, policies.py, media.py and tables.py look for them. Nothing is decoded beyond each
video's first picture, and nothing is written. Files are found by the functions of preparation: both take the same ones.
"""

import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np

from gazepose.data.annotations import ANNOTATIONS, MAX_LIST, has_no_list, official_json, read_split
from gazepose.data.box_table import find_table, read_table, table_rules
from gazepose.data.clip_files import CropsFrom
from gazepose.data.index import PRIORS, Index
from gazepose.data.prepare import PrepareConfig, changed_sources, has_pictures, pictures_folder
from gazepose.data.tracks import RawTrack
from gazepose.data.video import SUFFIXES
from gazepose.doctor.annotations import SplitExam, stored_clips
from gazepose.doctor.checks import BAD_CLIP, Findings, remedies
from gazepose.doctor.media import check_crops, check_images, check_video
from gazepose.doctor.policies import BASELINE, CLEAN, Pictures, PolicyClip, StoredClip, apply_policy, pictures_needed
from gazepose.doctor.tables import JOINED, check_table
from gazepose.io import is_id
from gazepose.output import inform
from gazepose.progress import Progress

FORMAT = 2
Names = dict[str, list[str]]         # clips by split
Lists = dict[str, list[str] | None]  # the same; None: no list


def examine(data: str | Path, crops_from: CropsFrom | None = None, notify: Callable[[str], None] | None = None,
            verify: bool = False) -> dict[str, Any]:
    """Facts of a data set in the Ego4D layout, or of one's own videos with tables of boxes.

    Args:
        crops_from: as preparation takes it; default: the first that is there.
        verify: read every prepared crop, and every file that faces were prepared from, and compare their checksums.

    Returns:
        JSON values: data, crops_from, splits {train, val: clips, policies, difference, gaps, face sizes, ...; test:
        crops}, tables {split: {priors, truth}}, findings {kind: level, title, count, parts, examples, clips} in the
        order of repair, remedies [level, finding, do] in order, healthy (nothing must be repaired).

    Raises:
        FileNotFoundError: no such folder.
    """
    root, findings = Path(data).resolve(), Findings()
    notify = notify or partial(inform, file=sys.stderr)     # stdout holds the report alone
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder -> give a data set in the Ego4D layout (json/, split/, "
                                "videos/)")
    if not any((root / name).is_dir() for name in ("boxes", *ANNOTATIONS, "json_original", "videos_challenge")):
        findings.add("nothing_here", file=str(root))
    source: CropsFrom = crops_from or next((one for one in get_args(CropsFrom) if has_pictures(root, one)), "videos")
    boxes = {split: _read_boxes(root, split, findings) for split in ("train", "val")}
    lists: Lists = {split: _read_list(root, split, findings) if table is None else list(table) or None
                    for split, table in boxes.items()}
    annotated: Names = {}
    read_files: set[Path] = set()
    splits: dict[str, Any] = {}
    tables: dict[str, Any] = {}
    for split, uids in lists.items():
        exam, path, table = SplitExam(split, findings), official_json(root, split), boxes[split]
        of_file = Findings() if path in read_files else findings    # json/av.json is the file of both splits
        read_files |= {path} if table is None and uids else set()
        clips = (stored_clips(root, path, split, uids, of_file) if table is None
                 else _table_clips(root, split, table, findings))
        in_file = _examine_clips(root, source, clips, uids, exam, of_file, notify)
        exam.judge_few()
        _judge_split(exam, bool(in_file))
        if path.name == "av.json":                                     # holds the clips of both
            in_file -= {*(lists["val" if split == "train" else "train"] or ())} - {*(uids or ())}
        annotated[split] = sorted(in_file)
        splits[split] = {"listed": None if uids is None else len(uids), "annotated": len(in_file), **exam.facts()}
        tables[split] = {} if table == {} else {kind: check_table(root, kind, split, exam.faces, findings)
                                                for kind in JOINED}
    if all(table == {} for table in boxes.values()):
        findings.levels["split_absent"] = "must"
    splits["test"], faces = check_crops(root, findings, notify)
    tables["test"] = {"priors": check_table(root, "priors", "test", faces, findings)} if faces else {}
    _compare_splits(root, source, lists, annotated, splits["test"].pop("names", []), findings)
    prepared = _prepared(root, findings, verify)
    imported = {Path(entry["folder"]).name for entry in prepared if entry["priors"]}
    for split, kinds in tables.items():
        file = f"priors/{split}.npz"             # a table that cannot be used is named already
        absent = bool(kinds) and split not in imported and not (root / file).is_file()
        findings.add("priors_absent", absent, split=split, file=file, detail="not there, nor in a prepared folder")
    if imported or any(kinds.get("priors") for kinds in tables.values()):
        findings.levels["priors_absent"] = "look"                      # since other splits have them
    entries = findings.facts()
    return {"format": FORMAT, "data": str(root), "crops_from": source, "splits": splits, "tables": tables,
            "prepared": prepared, "findings": entries, "remedies": remedies(entries, str(root)),
            "healthy": not any(entry["level"] == "must" for entry in entries.values())}


def _examine_clips(root: Path, source: CropsFrom, clips: Iterable[StoredClip], uids: list[str] | None,
                   exam: SplitExam, of_file: Findings, notify: Callable[[str], None]) -> set[str]:
    """Examine the listed clips (all, where there is no list); returns which clips the split's file annotates."""
    split, uids_of_file, bad = exam.split, set[str](), 0
    listed = set(uids or ())
    with Progress(f"reading {split}", len(listed), "clips", notify) as progress:
        for clip in clips:
            is_listed = uids is None or clip.uid in listed
            if clip.uid in uids_of_file:
                of_file.add("name_twice", what="clip", split=split, clip=clip.uid)
                if is_listed:
                    exam.count("clip annotated twice: the first is used", clip.uid)
            elif is_listed:
                bad += _examine_clip(root, source, clip, exam)
                progress.add(1)
            uids_of_file.add(clip.uid)
    for uid in uids or []:
        if uid not in uids_of_file:
            exam.count("clip left out: not annotated", uid)
    if bad > PrepareConfig.max_bad_fraction * len(uids or uids_of_file):
        exam.findings.levels.update(dict.fromkeys(BAD_CLIP, "must"))
    return uids_of_file


def _examine_clip(root: Path, source: CropsFrom, clip: StoredClip, exam: SplitExam) -> bool:
    """Examine one clip; returns whether preparation would call it bad: it has faces, but its pictures are unusable."""
    place, findings = {"split": exam.split, "clip": clip.uid}, exam.findings
    under: list[PolicyClip] = []             # baseline, clean
    with findings.catching("file_unusable", "annotation file", root, **place):
        under = [apply_policy(clip, policy) for policy in (BASELINE, CLEAN)]
    if not under:
        return False
    if clip.annotated is None and under[1].segments is None:
        findings.add("clip_without_segments", **place, detail="no file in result_LAM")
    pictures: Pictures
    if source == "videos":
        pictures = check_video(root, place, clip.annotated, clip.table is not None, findings)
    else:
        folder, needed = pictures_folder(root, source) / clip.uid, pictures_needed(under)
        pictures = check_images(source, folder, needed, place, findings)
    return exam.add(clip, under[0], under[1], pictures) > 0 and pictures is None


def _judge_split(exam: SplitExam, has_clips: bool) -> None:
    """Can the split be trained on, and scored?"""
    totals, findings, place = exam.clean.totals, exam.findings, {"split": exam.split}
    if not has_clips:
        return
    if not totals["rows"]:
        findings.add("split_unusable", what="no usable face", **place)
    elif not totals["labelled"]:
        findings.add("split_unlabelled", **place)
        if exam.split == "train":
            findings.levels["split_unlabelled"] = "must"
    elif not 0 < totals["looking"] < totals["labelled"]:
        state = "looking" if totals["looking"] else "not looking"
        findings.add("split_unusable", what="one label", **place, detail=f"all {totals['labelled']} faces are {state}")


def _read_boxes(root: Path, split: str, findings: Findings) -> dict[str, list[RawTrack]] | None:
    """A split's table of boxes, empty where it cannot be read; None where its annotations lie elsewhere."""
    with findings.catching("file_unusable", "table of boxes", root, "split_absent", split=split,
                           file=f"boxes/{split}.csv"):
        path = find_table(root, split)
        return read_table(path) if path else None
    return {}


def _table_clips(root: Path, split: str, table: dict[str, list[RawTrack]], findings: Findings) -> list[StoredClip]:
    """The clips of a table of boxes, with what boxes/<split>.json states of it."""
    first = None
    with findings.catching("file_unusable", "facts of a table of boxes", root, split=split, file=f"boxes/{split}.json"):
        for rule in table_rules(root, split, ()):
            first = int(rule.removeprefix("first_number="))
    return [StoredClip(uid, root, table=tracks, first_number=first) for uid, tracks in table.items()]


def _read_list(root: Path, split: str, findings: Findings) -> list[str] | None:
    """Uids of a split list; of a faulty one those that can be used; None without any."""
    path, place = root / "split" / f"{split}.list", {"split": split, "file": f"split/{split}.list"}
    if has_no_list(root, split):
        findings.add("list_absent", **place)
        return None
    with findings.catching("file_unusable", "split list", path, "file_missing", **place):
        return read_split(path)
    if not path.is_file() or path.stat().st_size > MAX_LIST:
        return None
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return list(dict.fromkeys(line.strip() for line in lines if is_id(line.strip()))) or None


def _compare_splits(root: Path, source: CropsFrom, lists: Lists, annotated: Names, test: list[str],
                    findings: Findings) -> None:
    """Clips in two splits; clips that are listed or annotated or have pictures, but not all three."""
    named = {split: annotated[split] if uids is None else uids for split, uids in lists.items()} | {"test": test}
    splits_of: Names = {}
    for split, uids in named.items():
        for uid in uids:
            splits_of.setdefault(uid, []).append(split)
    for uid, several in splits_of.items():
        findings.add("clip_in_two_splits", len(several) > 1, clip=uid, detail=" and ".join(several))
    for split, other in (("train", "val"), ("val", "train")):
        for uid in sorted({*named[split]} - {*annotated[split]}):
            elsewhere = uid in annotated[other]
            findings.add("list_differs", what="listed, but not annotated in this split", split=split, clip=uid,
                         **({"detail": f"annotated in av_{other}.json"} if elsewhere else {}))
    unused = {uid: official_json(root, split).relative_to(root).as_posix() for split in ("train", "val")
              for uid in annotated[split] if uid not in named["train"] and uid not in named["val"]}
    for uid, file in unused.items():
        findings.add("clip_unused", what="annotated", clip=uid, file=file)
    for path in sorted(pictures_folder(root, source).glob("*")):
        if path.is_dir() if source != "videos" else path.suffix.lower() in SUFFIXES:
            name = path.stem if source == "videos" else path.name
            findings.add("clip_unused", name not in splits_of and name not in unused, what="has pictures", clip=name)
    path = root / "split" / "test.list"
    if path.is_file() and path.stat().st_size <= MAX_LIST and test:
        listed = {line.strip() for line in path.read_text(errors="replace").splitlines()} - {""}
        for uid in sorted(listed ^ {*test}):
            findings.add("list_differs", what="listed, but no crops" if uid in listed else "crops, but not listed",
                         split="test", clip=uid)


def _prepared(root: Path, findings: Findings, verify: bool) -> list[dict[str, Any]]:
    """The folders that preparation left: their size, for how many faces a prior is known; those that are not whole, and
    files that have changed since."""
    folders = []
    for path in sorted((root / "prepared").glob("*/*/index.json")):
        name = path.parent.relative_to(root).as_posix()
        with findings.catching("file_unusable", "prepared folder", path.parent, file=name):
            for source in changed_sources(path.parent, root, full=verify):
                findings.add("prepared_stale", split=path.parent.name, file=source)
            index = Index.open(path.parent)
            if verify:
                index.verify()
            known = {prior: int(np.isfinite(getattr(index, prior).reshape(len(index), -1)).all(axis=1).sum())
                     for prior in PRIORS if prior in index.columns}
            folders.append({"folder": name, "rows": len(index), "bad_clips": len(index.facts.get("bad_clips") or ()),
                            "priors": {prior: count for prior, count in known.items() if count}})
    return folders
