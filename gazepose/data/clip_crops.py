"""Cut one clip: its video is read once, in order, and becomes a file of crops and a table of their rows.

Both survive an interruption: they are made again only when something that they depend on has changed. Who cuts which
clip, and how the clips become one data set, is data/prepare.py. Cutting while training is data/streaming.py.
"""

import hashlib
import json
import multiprocessing
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeVar

import cv2
import numpy as np

from gazepose.data.challenge import list_crops
from gazepose.data.crops import cut_face, grown, jpeg_and_quality, outside, whole_corners
from gazepose.data.images import FOLDER, face_path, pictures_in_order, read_image
from gazepose.data.tracks import FaceTrack, Policy
from gazepose.data.video import VideoFacts, frames_in_order, look_at, video_facts
from gazepose.io import leftovers, plain_folder, read_arrays, write_arrays, writing, writing_bytes
from gazepose.processes import begin_worker

VERSION = 4                  # a change here cuts all clips again
STALL_S = 300                # a worker process that gets no picture for so long ends
MAX_SHORT = 30               # frames by which faces may be annotated past the end of a whole video
BY_PYAV = "clip decoded by pyav: decord could not"
CropsFrom = Literal["videos", "images", "faces"]
T = TypeVar("T")


@dataclass(frozen=True)
class ClipRows:
    """The rows of a clip, in the order of its tracks, and what happened to it."""

    columns: dict[str, np.ndarray]
    """of index.COLUMNS, each [n, ...]"""
    tracks: list[str]
    """names of all tracks, also of those without a row"""
    sizes: np.ndarray
    """int64 [tracks]: rows of each track"""
    counts: Counter[str]
    """rule -> how many records it touched"""
    notes: dict[str, str]
    """decoder: why decord could not read the video; short: the video ends before its faces do"""


@dataclass
class ClipCrops:
    """One clip (or challenge video) to cut: its source, the settings, and where its crops and rows go."""

    uid: str
    source: Path
    """the video, or the clip's folder of images"""
    path: Path
    """of the clip's files, without suffix"""
    faces: int
    """in the annotation; fewer get a row when the video is shorter"""
    policy: Policy
    crop_size: int
    decoder: str
    crops_from: CropsFrom | Literal["challenge", "streamed"] = "videos"
    """streamed: rows only, whose crops are cut while they are used"""
    tracks: list[FaceTrack] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    notes: dict[str, str] = field(default_factory=dict)

    @property
    def bad(self) -> Path:
        """Holds the reason why the clip cannot be used."""
        return self.path.with_name(f"{self.path.name}.bad")

    @property
    def shard(self) -> Path:
        """The crops' JPEG bytes, one after another."""
        return self.path.with_name(f"{self.path.name}.bin")

    @property
    def table(self) -> Path:
        """The rows; written last, so a clip with a table is whole."""
        return self.path.with_name(f"{self.path.name}.npz")

    def key(self) -> str:
        """Hash of everything that the crops and rows depend on."""
        digest = hashlib.sha256(repr((VERSION, self.crop_size, self.policy)).encode())
        for track in self.tracks:
            digest.update(track.track.encode())
            for column in (track.frames, track.boxes, track.labels):
                digest.update(np.ascontiguousarray(column).tobytes())
        if self.source.is_file():
            facts = self.source.stat()
            digest.update(f"{facts.st_size} {facts.st_mtime_ns}".encode())
        elif self.source.is_dir():                                     # a folder's time changes with the files in it
            for folder in [self.source, *sorted(entry for entry in self.source.iterdir() if entry.is_dir())]:
                digest.update(f"{folder.name} {folder.stat().st_mtime_ns}".encode())
        return digest.hexdigest()

    def is_finished(self) -> bool:
        """Whether an earlier run has cut the clip, from the same source with the same settings."""
        try:
            return self.shard.is_file() and str(read_arrays(self.table, ["key"])["key"]) == self.key()
        except (OSError, ValueError, KeyError):
            return False

    def rows(self, columns: bool = True) -> ClipRows:
        """The table of a finished clip; without `columns`, only how many rows there are and what happened."""
        arrays = read_arrays(self.table, None if columns else ("tracks", "sizes", "counts", "notes"))
        arrays.pop("key", None)
        tracks, sizes, counts, notes = (arrays.pop(name) for name in ("tracks", "sizes", "counts", "notes"))
        return ClipRows(arrays, tracks.tolist(), sizes, Counter(json.loads(str(counts))), json.loads(str(notes)))

    def unfinished(self) -> list[Path]:
        """Temporary files of a process that died while it cut the clip."""
        return leftovers(self.path.parent, self.shard.name)

    def mark_bad(self, reason: str) -> None:
        """Note why the clip cannot be used."""
        with writing(self.bad) as file:
            file.write(reason)


class CropWriter:
    """Appends crops to a file and notes for each row where its crop lies, how sharp it is, and whether it is black."""

    def __init__(self, file: BinaryIO, rows: int, crop_size: int) -> None:
        self.file, self.crop_size = file, crop_size
        self.columns = {"offset": np.zeros(rows, np.int64), "length": np.zeros(rows, np.int64),
                        "quality": np.zeros(rows), "black": np.zeros(rows, bool)}
        """length 0: the row has no crop"""

    def add(self, row: int, face: np.ndarray | None, jpeg: bytes | None = None) -> None:
        """Append a face, uint8 [H, W, 3]; None: black. `jpeg`: the face's own bytes, used where the size fits."""
        if face is None:
            face = np.zeros((1, 1, 3), np.uint8)
        jpeg, self.columns["quality"][row] = jpeg_and_quality(face, self.crop_size, jpeg)
        self.columns["black"][row] = not face.any()
        self.columns["offset"][row] = self.file.tell()
        self.columns["length"][row] = self.file.write(jpeg)


def start_worker() -> None:
    """Set up a process beside the main one: it ends on SIGALRM, and OpenCV uses one thread."""
    begin_worker()
    cv2.setNumThreads(1)
    if hasattr(signal, "SIGALRM"):                                     # not on Windows
        signal.signal(signal.SIGALRM, signal.SIG_DFL)                  # a decoder that hangs in C runs no handler


def alive(seconds: int = STALL_S) -> None:
    """Restart the clock of a process beside the main one, which ends so many seconds after the last call; 0: stop the
    clock. The main process has no clock."""
    if multiprocessing.parent_process() is not None:
        signal.alarm(seconds)


def cut_clip(clip: ClipCrops) -> None:
    """Cut one clip; writes its crops and rows, or <uid>.bad with the reason when its video is missing or damaged."""
    notes = dict(clip.notes)
    cut = {"challenge": _challenge_rows, "faces": _face_rows, "streamed": _listed_rows}.get(
        clip.crops_from, _picture_rows)

    def write(decoder: str) -> None:
        with writing_bytes(clip.shard) as file:
            rows = cut(replace(clip, decoder=decoder, counts=Counter(clip.counts), notes=notes), file)
        rows.counts[BY_PYAV] += "decoder" in notes
        write_arrays(clip.table, {**rows.columns, "tracks": np.array(rows.tracks, str), "sizes": rows.sizes,
                                  "counts": np.array(json.dumps(+rows.counts)), "notes": np.array(json.dumps(notes)),
                                  "key": np.array(clip.key())})

    try:
        alive()
        if clip.crops_from in ("videos", "streamed"):
            by_either_decoder(clip.decoder, notes, write)
        else:
            write(clip.decoder)
    except (ValueError, FileNotFoundError) as error:
        clip.mark_bad(str(error))
    finally:
        alive(0)


def by_either_decoder(decoder: str, notes: dict[str, str], read: Callable[[str], T]) -> T:
    """`read(decoder)`; where decord raises a ValueError, `read("pyav")` from the start, and a note of the reason."""
    try:
        return read(decoder)
    except ValueError as error:
        if decoder == "pyav":
            raise
        notes["decoder"] = str(error)
        return read("pyav")


def faces_in_order(source: Path, numbers: np.ndarray, boxes: np.ndarray, decoder: str | None
                   ) -> Iterator[tuple[int, np.ndarray | None, tuple[int, int]]]:
    """All faces of a clip, in one pass over its pictures: (row, face, (width, height) of its picture).

    A row whose picture is not there is left out; the face is None where nothing of it lies in its picture.

    Args:
        numbers: int64 [n], the picture of each row, from 0; below 0: none. boxes: float64 [n, 4].
        decoder: reads the video `source`; None: `source` is a folder of extracted pictures.
    """
    rows_of: dict[int, list[int]] = {}                                 # picture -> its rows
    for row in np.flatnonzero(numbers >= 0).tolist():
        rows_of.setdefault(int(numbers[row]), []).append(row)
    if not rows_of:                                                    # then the video may be missing
        return
    pictures: Iterator[tuple[int, Any]]
    if decoder is None:
        pictures = pictures_in_order(source, sorted(rows_of))
    else:
        pictures = frames_in_order(source, sorted(rows_of), decoder, whole=False)
    alive()
    for number, picture in pictures:
        alive()
        for row in rows_of[number]:
            yield row, cut_face(picture, boxes[row]), (picture.shape[1], picture.shape[0])


def _picture_rows(clip: ClipCrops, file: BinaryIO) -> ClipRows:
    """Cut faces out of a video or out of extracted pictures."""
    columns, size = _faces(clip)
    crops, boxes = CropWriter(file, len(size), clip.crop_size), grown(columns["box"], clip.policy.box_scale)
    decoder = None if clip.crops_from == "images" else clip.decoder
    for row, face, picture_size in faces_in_order(clip.source, columns["number"], boxes, decoder):
        size[row] = picture_size
        if face is not None or not clip.policy.drop_outside:
            crops.add(row, face)
    return _rows_with_picture(clip, {**columns, **crops.columns}, size)


def _listed_rows(clip: ClipCrops, file: BinaryIO) -> ClipRows:
    """The rows that `_picture_rows` would give, by the video's headers, with the corners of each crop in place of its
    bytes."""
    columns, size = _faces(clip)
    numbers = columns["number"]
    if (numbers >= 0).any():
        facts = _facts_of_headers(clip.source, np.unique(numbers[numbers >= 0]).tolist(), clip.decoder)
        size[(numbers >= 0) & (numbers < facts.frames)] = facts.width, facts.height
    boxes = grown(columns["box"], clip.policy.box_scale)
    columns["corners"] = np.nan_to_num(whole_corners(boxes, *size.T)).astype(np.int64)
    columns["black"] = outside(boxes, *size.T)
    columns["offset"] = columns["length"] = np.zeros(len(size), np.int64)
    return _rows_with_picture(clip, columns, size)


def _facts_of_headers(video: Path, wanted: Sequence[int], decoder: str) -> VideoFacts:
    """Frames as the decoder will give them and the size of its pictures, by the headers and the first picture.

    Only of a file that is known to be cut short, the wanted frames are decoded, to see how far it goes.
    """
    facts = video_facts(video, decoder)
    stated, whole = look_at(video)
    if decoder == "pyav":                                              # headers do not turn pictures
        facts = replace(facts, width=stated.width, height=stated.height)
    if whole < stated.frames:
        decoded = [number for number, _ in frames_in_order(video, wanted, decoder)]
        if len(decoded) < len(wanted):
            facts = replace(facts, frames=decoded[-1] + 1 if decoded else 0)
    return facts


def _face_rows(clip: ClipCrops, file: BinaryIO) -> ClipRows:
    """Take ready-made faces; one without an image has no row, but keeps its position in the track."""
    columns, size = _faces(clip)
    crops, names = CropWriter(file, len(size), clip.crop_size), [track.track for track in clip.tracks]
    if names:
        plain_folder(clip.source, FOLDER)
    for name in set(names):
        if (clip.source / name).is_dir():
            plain_folder(clip.source / name, "folder of faces")
    places = zip(columns["track"].tolist(), columns["number"].tolist(), strict=True)
    for row, (track, number) in enumerate(places):
        alive()
        with suppress(FileNotFoundError):                              # a row without an image has length 0
            jpeg, face = read_image(face_path(clip.source, names[track], number))
            crops.add(row, face, jpeg)
    has_crop = crops.columns["length"] > 0
    clip.counts["row left out: no face image"] += int((~has_crop).sum())
    return _rows(clip, {**columns, **crops.columns}, has_crop)


def _challenge_rows(clip: ClipCrops, file: BinaryIO) -> ClipRows:
    """Take the crops of one video of the test set; boxes and labels are unknown."""
    tracks = list_crops(clip.source.parent, clip.uid, clip.counts)
    faces = [face for track in tracks for face in track]
    crops = CropWriter(file, len(faces), clip.crop_size)
    for row, face in enumerate(faces):
        alive()
        jpeg, picture = read_image(face.path)
        crops.add(row, picture, jpeg)
    columns = {"frame": np.array([face.frame for face in faces], np.int64), "box": np.full((len(faces), 4), np.nan),
               "label": np.full(len(faces), -1, np.int8), **crops.columns,
               "unique_id": np.array([face.unique_id for face in faces], np.bytes_)}
    return ClipRows(columns, [track[0].track for track in tracks], np.array([len(track) for track in tracks], np.int64),
                    clip.counts, clip.notes)


def _faces(clip: ClipCrops) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """(columns of all faces of the clip's tracks, and the numbers of their track and picture, float64 [n, 2] for the
    width and height of their pictures, NaN)."""
    tracks, lengths = clip.tracks, np.array([len(track.frames) for track in clip.tracks], np.int64)
    columns = {"frame": np.concatenate([np.zeros(0, np.int64), *(track.frames for track in tracks)]),
               "box": np.concatenate([np.zeros((0, 4)), *(track.boxes for track in tracks)]),
               "label": np.concatenate([np.zeros(0, np.int8), *(track.labels for track in tracks)]),
               "position": np.concatenate([np.zeros(0, np.int64), *map(np.arange, lengths)]),
               "track": np.repeat(np.arange(len(tracks)), lengths)}
    columns["number"] = columns["frame"] - clip.policy.first_number    # below 0: frame 0, where frames count from 1
    return columns, np.full((len(columns["frame"]), 2), np.nan)


def _rows_with_picture(clip: ClipCrops, columns: dict[str, np.ndarray], size: np.ndarray) -> ClipRows:
    """The faces that have a picture, and lie in it if the policy wants that; the others are counted by reason.

    Args:
        size: float64 [n, 2], width and height of each face's picture; NaN where there is none.
    """
    numbers, policy, counts = columns["number"], clip.policy, clip.counts
    early, late = numbers < 0, (numbers >= 0) & np.isnan(size[:, 0])
    counts["row left out: before the first picture"] += int(early.sum())
    missing = "no extracted picture" if clip.crops_from == "images" else "past the end of the video"
    counts[f"row left out: {missing}"] += int(late.sum())
    keep = ~early & ~late
    unseen = keep & outside(grown(columns["box"], policy.box_scale), *size.T)
    if policy.drop_outside:
        counts["row left out: outside the picture"] += int(unseen.sum())
        keep &= ~unseen
    else:
        counts["crop black: outside the picture"] += int(unseen.sum())
    if policy.negative_corner == "cut":
        columns["box"][:, 2:] = np.minimum(columns["box"][:, 2:], size)
    # fewer frames are a matter of counting, such as an annotation made at another rate
    if clip.crops_from != "images" and late.any() and np.ptp(numbers[late]) >= MAX_SHORT:
        clip.notes["short"] = (f"{clip.source}: ends before frame {numbers[late].min()}, its faces go on to frame "
                               f"{numbers[late].max()} -> download it again")
    return _rows(clip, columns, keep)


def _rows(clip: ClipCrops, columns: dict[str, np.ndarray], keep: np.ndarray) -> ClipRows:
    sizes = np.bincount(columns["track"][keep], minlength=len(clip.tracks))
    chosen = {name: column[keep] for name, column in columns.items() if name not in ("track", "number")}
    return ClipRows(chosen, [track.track for track in clip.tracks], sizes, clip.counts, clip.notes)
