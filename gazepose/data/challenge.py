"""The challenge's test set: folders of ready-made face crops, without boxes and without labels.

videos_challenge/<video_id>/<track_id>/<frame:05d>_<unique_id>.jpg. Names are parsed, never searched: the published
loader looks for the five digits anywhere in the name and takes the first hit. Shards and index are made of these
crops by data/clip_crops.py. Where a test set has labels, they are joined here.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gazepose.data.index import Index
from gazepose.data.join import match, number_names, place_numbers
from gazepose.io import UnusableFile, is_id, plain_folder

NAME = re.compile(r"(?:(\d{5})_)?(.+)\.jpg")


@dataclass(frozen=True)
class CropFile:
    """One test crop. frame -1: its name has none, so the crop is its own window."""

    track: str
    frame: int
    unique_id: str
    path: Path


def parse_name(name: str) -> tuple[int, str] | None:
    """File name -> (frame or -1, unique id); None when it is no crop's name."""
    parts = NAME.fullmatch(name)
    if parts is None or not is_id(parts[2]):
        return None
    return int(parts[1] or -1), parts[2]


def list_videos(root: Path) -> list[str]:
    """Video ids of the test set, sorted; FileNotFoundError naming the folder when it is missing or empty."""
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder, so there is no test set -> put the challenge's face crops "
                                "there, or score --split val")
    videos = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and is_id(entry.name))
    if not videos:
        raise FileNotFoundError(f"{root}: holds no video folder -> put the crops there as "
                                "<video_id>/<track_id>/<frame>_<unique_id>.jpg")
    return videos


def walk_crops(root: Path, video: str) -> Iterator[tuple[Path, CropFile | None, str]]:
    """Every track folder's files by name: (path, crop, ""); for a folder or file that is left out, (path, None, the
    rule that it breaks)."""
    for folder in sorted(entry for entry in (root / video).iterdir() if entry.is_dir()):
        if not is_id(folder.name):
            yield folder, None, "track dropped: its id is not letters, digits, _ . -"
            continue
        if folder.is_symlink():
            yield folder, None, "track dropped: its folder is a link"
            continue
        for path in sorted(folder.iterdir()):
            parsed = parse_name(path.name)
            if parsed is None or not path.is_file():
                yield path, None, "file left out: not named like a crop"
            else:
                yield path, CropFile(folder.name, *parsed, path), ""


def list_crops(root: Path, video: str, counts: Counter[str]) -> list[list[CropFile]]:
    """Crops of one video by track, each ascending in frame; a crop without a frame number is a track of its own.

    Raises:
        ValueError: the video's folder is a link, or a unique id occurs twice in a track (each crop is scored once).
    """
    plain_folder(root / video, "folder of crops")
    tracks: list[list[CropFile]] = []
    framed: dict[str, list[CropFile]] = {}
    seen: set[tuple[str, str]] = set()
    for path, crop, rule in walk_crops(root, video):
        if crop is None:
            counts[rule] += 1
            continue
        if (crop.track, crop.unique_id) in seen:
            raise UnusableFile(f"{path}: the unique id {crop.unique_id} occurs twice in this track -> keep one of "
                             "the files")
        seen.add((crop.track, crop.unique_id))
        if crop.frame < 0:
            counts["crop alone: its name has no frame number"] += 1
            tracks.append([crop])
        else:
            framed.setdefault(crop.track, []).append(crop)
    tracks += [sorted(track, key=lambda crop: (crop.frame, crop.unique_id)) for track in framed.values()]
    return sorted(tracks, key=lambda track: track[0].track)


def faces_on_disk(root: Path) -> list[tuple[str, str, str]]:
    """(video_id, unique_id, track_id) of every crop of a data set's videos_challenge/; raises as `list_crops`."""
    folder = root / "videos_challenge"
    return [(video, crop.unique_id, crop.track) for video in list_videos(folder)
            for track in list_crops(folder, video, Counter()) for crop in track]


def load_test_labels(root: Path, index: Index) -> np.ndarray:
    """Labels of a test index, int8 [rows]; -1 where DATA/truth/test_labels.csv has none or does not exist.

    The published test set has no labels; an embedded world keeps its own apart from the crops.

    Raises:
        ValueError: a table without the columns video_id, track_id, unique_id and label, or with another label.
    """
    labels = np.full(len(index), -1, np.int8)
    path = root / "truth" / "test_labels.csv"
    if not path.is_file() or index.unique_id is None:
        return labels
    import pandas as pd
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except ValueError as error:                                        # pandas' own errors are ValueErrors
        raise ValueError(f"{path}: not a table: {error} -> make or download it again") from error
    keys = ["video_id", "track_id", "unique_id"]
    faults = [f"no column {name}" for name in (*keys, "label") if name not in table]
    if not faults:
        faults = [f"label {label!r}" for label in sorted(set(table["label"]) - {"0", "1"})]
    if faults:
        raise ValueError(f"{path}: {faults[0]} -> the columns are video_id,track_id,unique_id,label with labels 0 and "
                         "1")
    names, number = number_names(table["video_id"].to_numpy(), table["track_id"].to_numpy())
    unique_id = np.array([name.encode() for name in table["unique_id"]], np.bytes_)
    entry = match(index, names, number, *place_numbers(unique_id, index.unique_id)).entry
    labels[entry >= 0] = table["label"].to_numpy(np.int8)[entry[entry >= 0]]
    return labels
