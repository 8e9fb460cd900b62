"""Pieces: one clip, read once and in order, becomes a file of crops and a table of their rows.

A piece survives an interruption: it is made again only when what it was made from has changed. Who makes which piece
is data/prepare.py; how they become one data set is data/merge.py.
"""

import hashlib
import json
import os
import signal
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import cv2
import numpy as np

from gazepose.data.challenge import list_crops
from gazepose.data.crops import cut_face, grown, jpeg_and_quality
from gazepose.data.images import existing, face_image, pictures_in_order, read_image
from gazepose.data.shards import ShardWriter
from gazepose.data.tracks import FaceTrack, Policy
from gazepose.data.video import frames_in_order
from gazepose.io import leftovers, plain_folder, read_arrays
from gazepose.processes import hear_stop_signals

VERSION = 3                  # a change here makes all pieces anew
STALL_S = 300                # a worker without a new picture for so long is ended
MAX_SHORT = 30               # frames by which faces may be annotated past the end of a whole video
CropsFrom = Literal["videos", "images", "faces"]
Rows = dict[str, Any]        # columns of the table; "tracks" and "sizes": the tracks' names and how many rows each has
T = TypeVar("T")


class CropWriter(Protocol):
    """Where JPEG bytes go; what comes back becomes the columns offset and length."""

    def append(self, jpeg: bytes | memoryview) -> tuple[int, int]: ...


class CropsInMemory:
    """The bytes of crops in a list; offset is the number in it."""

    def __init__(self) -> None:
        self.jpegs: list[bytes] = []

    def append(self, jpeg: bytes | memoryview) -> tuple[int, int]:
        self.jpegs.append(bytes(jpeg))
        return len(self.jpegs) - 1, len(jpeg)


@dataclass
class Piece:
    """One clip (or challenge video) to be cut: where it comes from, how, and where its crops and rows go."""

    uid: str
    source: Path
    path: Path
    """of the piece's files, without suffix"""
    rows: int
    """wanted; fewer when the video is shorter"""
    policy: Policy
    crop_size: int
    decoder: str
    crops_from: CropsFrom | Literal["challenge"] = "videos"
    tracks: list[FaceTrack] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    told: dict[str, str] = field(default_factory=dict)
    """decoder: why decord could not; short: that the video ends before its faces do"""

    @property
    def bad(self) -> Path:
        """Holds the reason why the clip cannot be used."""
        return self.path.with_name(f"{self.path.name}.bad")

    @property
    def shard(self) -> Path:
        return self.path.with_name(f"{self.path.name}.bin")

    @property
    def table(self) -> Path:
        return self.path.with_name(f"{self.path.name}.npz")

    def key(self) -> str:
        """What the piece depends on: a piece made from anything else is made again."""
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

    def is_made(self) -> bool:
        try:
            return self.shard.is_file() and str(self.read()["key"]) == self.key()
        except (OSError, ValueError, KeyError):
            return False

    def read(self) -> dict[str, np.ndarray]:
        """The table: columns of rows, tracks, sizes, counts, told and key."""
        return read_arrays(self.table)

    def unfinished(self) -> list[Path]:
        """What a process that died while cutting it left behind."""
        return leftovers(self.path.parent, self.shard.name)

    def outcome(self) -> tuple[dict[str, int], int, dict[str, str]]:
        """(how often each rule touched a record, rows made, told) of a made piece."""
        table = read_arrays(self.table, ("counts", "sizes", "told"))
        counts = {rule: count for rule, count in json.loads(str(table["counts"])).items() if count}
        return counts, int(table["sizes"].sum()), json.loads(str(table["told"]))


_watched = False


def start_worker() -> None:
    """In a process that makes nothing but pieces."""
    watch()


def watch() -> None:
    """In a process beside the main one: one thread, and an end if a decoder never comes back."""
    global _watched
    _watched = True
    hear_stop_signals()
    cv2.setNumThreads(1)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)                      # a decoder stuck in C hears nothing gentler


def _alive(seconds: int = STALL_S) -> None:
    if _watched:
        signal.alarm(seconds)


def make_piece(piece: Piece) -> None:
    """Cut one clip; writes the piece, or <uid>.bad with the reason when the video is missing or damaged."""
    try:
        rows_of = {"challenge": _challenge_rows, "faces": _face_rows}.get(piece.crops_from, _clip_rows)
        _or_by_pyav(piece, lambda: _write(piece, rows_of))
    except (ValueError, FileNotFoundError) as error:
        piece.bad.write_text(str(error))
    finally:
        _alive(0)


def cut_in_memory(piece: Piece) -> tuple[Rows, CropsInMemory]:
    """The crops of a clip without files, cut by the code that makes a piece.

    Raises:
        FileNotFoundError or ValueError: the video is missing or damaged.
    """
    def cut() -> tuple[Rows, CropsInMemory]:
        crops = CropsInMemory()
        return _clip_rows(piece, crops, Counter()), crops

    try:
        return _or_by_pyav(piece, cut)
    finally:
        _alive(0)


def _or_by_pyav(piece: Piece, cut: Callable[[], T]) -> T:
    """A clip that decord cannot read is read by pyav from its start, and counted."""
    try:
        return cut()
    except ValueError as error:
        if piece.crops_from != "videos" or piece.decoder == "pyav":
            raise
        piece.decoder, piece.told["decoder"] = "pyav", str(error)
        piece.counts["clip decoded by pyav: decord could not"] += 1
        return cut()


def _write(piece: Piece, rows_of: Callable[[Piece, CropWriter, Counter[str]], Rows]) -> None:
    counts = Counter(piece.counts)
    with ShardWriter(piece.shard) as writer:
        rows = rows_of(piece, writer, counts)
    temporary = piece.table.with_name(f"{piece.table.name}.part-{os.getpid()}.npz")
    np.savez(temporary, key=np.array(piece.key()), counts=np.array(json.dumps(counts)),
             told=np.array(json.dumps(piece.told)), **rows)
    os.replace(temporary, piece.table)                                 # last: a piece with a table is whole


def _clip_rows(piece: Piece, writer: CropWriter, counts: Counter[str]) -> Rows:
    """One pass over the pictures; all faces of a picture are cut while it is there."""
    policy, columns = piece.policy, _wanted(piece)
    box, offset, length, quality = (columns[name] for name in ("box", "offset", "length", "quality"))
    rows_of: dict[int, list[int]] = {}                                 # picture number -> its rows
    for row, number in enumerate((columns["frame"] - policy.first_number).tolist()):
        rows_of.setdefault(number, []).append(row)
    early = [number for number in rows_of if number < 0]               # frame 0 where counting is from 1
    counts["row left out: before the first picture"] += sum(len(rows_of.pop(number)) for number in early)
    if not rows_of:
        pictures = iter(())
    elif piece.crops_from == "images":
        pictures = pictures_in_order(piece.source, sorted(rows_of))
    else:
        pictures = frames_in_order(piece.source, sorted(rows_of), piece.decoder, whole=False)
    for number, picture in pictures:
        _alive()
        for row in rows_of.pop(number):
            face = cut_face(picture, grown(box[row], policy.box_scale))
            if policy.negative_corner == "cut":
                box[row, 2:] = np.minimum(box[row, 2:], (picture.shape[1], picture.shape[0]))
            if face is None:
                if policy.drop_outside:
                    counts["row left out: outside the picture"] += 1
                    continue
                counts["crop black: outside the picture"] += 1
                face = np.zeros((1, 1, 3), np.uint8)
            jpeg, quality[row] = jpeg_and_quality(face, piece.crop_size)
            columns["black"][row] = not face.any()
            offset[row], length[row] = writer.append(jpeg)
    missing = "no extracted picture" if piece.crops_from == "images" else "past the end of the video"
    counts[f"row left out: {missing}"] += sum(map(len, rows_of.values()))
    if piece.crops_from == "videos":
        piece.told.update(cut_short(piece.source, rows_of))
    return _kept(piece, columns)


def cut_short(video: Path, late: Collection[int]) -> dict[str, str]:
    """What is told of a video that ends before these picture numbers: nothing where it is a matter of counting."""
    if not late or max(late) - min(late) < MAX_SHORT:
        return {}
    return {"short": f"{video}: ends before frame {min(late)}, its faces go on to frame {max(late)} -> download it "
                     "again"}


def _face_rows(piece: Piece, writer: CropWriter, counts: Counter[str]) -> Rows:
    """Ready-made faces; one without an image has no row, but keeps its position in the track."""
    columns = _wanted(piece)
    names = [track.track for track in piece.tracks for _ in range(len(track.frames))]
    folder = existing(piece.source) if names else piece.source
    for name in set(names):
        if (folder / name).is_dir():
            plain_folder(folder / name, "folder of faces")
    for row, number in enumerate((columns["frame"] - piece.policy.first_number).tolist()):
        _alive()
        image = face_image(folder, names[row], number)
        if image is None:
            counts["row left out: no face image"] += 1
            continue
        jpeg, columns["quality"][row] = jpeg_and_quality(image[1], piece.crop_size, image[0])
        columns["black"][row] = not image[1].any()
        columns["offset"][row], columns["length"][row] = writer.append(jpeg)
    return _kept(piece, columns)


def _wanted(piece: Piece) -> dict[str, np.ndarray]:
    """Columns of all faces of the clip's tracks, crops and quality to come."""
    tracks = piece.tracks
    columns = {"frame": np.concatenate([np.zeros(0, np.int64), *(track.frames for track in tracks)]),
               "box": np.concatenate([np.zeros((0, 4)), *(track.boxes for track in tracks)]),
               "label": np.concatenate([np.zeros(0, np.int8), *(track.labels for track in tracks)]),
               "position": np.concatenate([np.zeros(0, np.int64), *(np.arange(len(track.frames)) for track in tracks)])}
    rows = len(columns["frame"])
    return {**columns, "offset": np.zeros(rows, np.int64), "length": np.zeros(rows, np.int64),
            "quality": np.zeros(rows), "black": np.zeros(rows, bool)}


def _kept(piece: Piece, columns: dict[str, np.ndarray]) -> Rows:
    """The rows that got a crop."""
    kept, tracks = columns["length"] > 0, piece.tracks
    track_of = np.repeat(np.arange(len(tracks)), np.array([len(track.frames) for track in tracks], np.int64))
    return {**{name: column[kept] for name, column in columns.items()},
            "tracks": np.array([track.track for track in tracks], str),
            "sizes": np.bincount(track_of[kept], minlength=len(tracks))}


def _challenge_rows(piece: Piece, writer: CropWriter, counts: Counter[str]) -> Rows:
    tracks = list_crops(piece.source.parent, piece.uid, counts)
    crops = [crop for track in tracks for crop in track]
    offset, length, quality = np.zeros(len(crops), np.int64), np.zeros(len(crops), np.int64), np.zeros(len(crops))
    black = np.zeros(len(crops), bool)
    for row, crop in enumerate(crops):
        _alive()
        jpeg, face = read_image(crop.path)
        jpeg, quality[row] = jpeg_and_quality(face, piece.crop_size, jpeg)
        black[row] = not face.any()
        offset[row], length[row] = writer.append(jpeg)
    return {"frame": np.array([crop.frame for crop in crops], np.int64), "box": np.full((len(crops), 4), np.nan),
            "label": np.full(len(crops), -1, np.int8), "offset": offset, "length": length, "quality": quality,
            "black": black, "unique_id": np.array([crop.unique_id for crop in crops], np.bytes_),
            "tracks": np.array([track[0].track for track in tracks], str),
            "sizes": np.array([len(track) for track in tracks], np.int64)}
