"""Cut one clip: its video is read once, in order, and becomes a file of crops and a table of their rows.

The files are data/clip_files.py. Who cuts which clip, and how the clips become one data set, is data/prepare.py.
Cutting while training is data/streaming.py.
"""

import functools
import multiprocessing
import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, Self, TypeVar

import cv2
import numpy as np

from gazepose.data.challenge import list_crops
from gazepose.data.clip_files import ClipCrops, CutRows
from gazepose.data.crops import cut_face, grown, jpeg_and_quality, outside, whole_corners
from gazepose.data.images import FOLDER, face_path, pictures_in_order, read_image
from gazepose.data.stamps import digest_of, stamp_of_files
from gazepose.data.video import VideoFacts, frames_in_order, look_at, video_facts
from gazepose.heartbeat import Watch
from gazepose.io import UnusableFile, plain_folder, writing_by_checksum
from gazepose.processes import begin_worker

STALL_S = 300                # a worker process that gets no picture for so long ends
MAX_SHORT = 30               # frames by which faces may be annotated past the end of a whole video
BY_PYAV = "clip decoded by pyav: decord could not"
T = TypeVar("T")


class CropWriter:
    """Appends crops to a file. Notes for each row where its crop lies, its checksum, its quality and if it is black."""

    def __init__(self, file: BinaryIO, rows: int, crop_size: int) -> None:
        self.file, self.crop_size = file, crop_size
        self.columns = {"offset": np.zeros(rows, np.int64), "length": np.zeros(rows, np.int64),
                        "checksum": np.zeros(rows, np.uint32), "quality": np.zeros(rows),
                        "black": np.zeros(rows, bool)}
        """length 0: the row has no crop"""

    def add(self, row: int, face: np.ndarray | None, jpeg: bytes | None = None) -> None:
        """Append a face, uint8 [H, W, 3]; None: black. `jpeg`: the face's own bytes, used where the size fits."""
        if face is None:
            face = np.zeros((1, 1, 3), np.uint8)
        jpeg, quality = jpeg_and_quality(face, self.crop_size, jpeg)
        self.columns["quality"][row] = quality
        self.columns["black"][row] = quality == 0 and not face.any()   # few faces have to be looked at
        self.columns["offset"][row] = self.file.tell()
        self.columns["length"][row] = self.file.write(jpeg)
        self.columns["checksum"][row] = zlib.crc32(jpeg)


def start_worker() -> None:
    """Set up a process beside the main one: OpenCV uses one thread."""
    begin_worker()
    cv2.setNumThreads(1)


class Clock(Watch):
    """Ends this process after STALL_S seconds without a call of `alive`. Only the time counts in which it ran, so a job
    that is suspended goes on. A decoder that hangs in C runs no signal handler, but lets this thread run."""

    calls, reads = 0, False

    def __enter__(self) -> Self:
        self._seen = self.calls, 0.0
        return super().__enter__()

    def look(self, now: float) -> None:
        if self.calls != self._seen[0]:
            self._seen = self.calls, now
        elif self.reads and now - self._seen[1] > STALL_S:
            os._exit(1)


_clock = functools.cache(lambda: Clock().__enter__())


def alive(reads: bool = True) -> None:
    """Restart the clock of a process beside the main one; reads False: stop it. The main process has no clock."""
    if multiprocessing.parent_process() is not None:
        clock = _clock()
        clock.calls, clock.reads = clock.calls + 1, reads


def cut_clip(clip: ClipCrops) -> None:
    """Cut one clip; writes its crops and rows, or <uid>.bad with the reason when its video is missing or damaged."""
    notes = dict(clip.notes)
    cut = {"challenge": _challenge_rows, "faces": _face_rows, "streamed": _listed_rows}.get(
        clip.crops_from, _picture_rows)

    def write(decoder: str) -> None:
        seen = stamp_of_files(clip.source)                             # first: a change from now on is noticed later
        with writing_by_checksum(clip.path.parent, clip.shard_name) as (file, shard):
            rows = cut(replace(clip, decoder=decoder, counts=Counter(), notes=notes), file)
        rows.counts[BY_PYAV] += "decoder" in notes
        alive()
        digest = None if clip.crops_from == "streamed" else digest_of(clip.source)
        setting = "decord" if "decoder" in notes else clip.decoder
        clip.write_table(rows, {**notes, "setting": setting}, shard, [seen, digest])

    try:
        alive()
        if clip.crops_from in ("videos", "streamed"):
            by_either_decoder(clip.decoder, notes, write)
        else:
            write(clip.decoder)
    except (UnusableFile, FileNotFoundError) as error:                 # any other error is ours, not the file's
        if isinstance(error, FileNotFoundError) and clip.source.exists():
            raise
        clip.mark_bad(str(error))
    finally:
        alive(reads=False)


def by_either_decoder(decoder: str, notes: dict[str, str], read: Callable[[str], T]) -> T:
    """`read(decoder)`; where decord cannot read the file, `read("pyav")` from the start, and a note of the reason."""
    try:
        return read(decoder)
    except UnusableFile as error:
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


def _picture_rows(clip: ClipCrops, file: BinaryIO) -> CutRows:
    """Cut faces out of a video or out of extracted pictures."""
    columns, size = _faces(clip)
    crops, boxes = CropWriter(file, len(size), clip.crop_size), grown(columns["box"], clip.policy.box_scale)
    decoder = None if clip.crops_from == "images" else clip.decoder
    for row, face, picture_size in faces_in_order(clip.source, columns["number"], boxes, decoder):
        size[row] = picture_size
        if face is not None or not clip.policy.drop_outside:
            crops.add(row, face)
    return _rows_with_picture(clip, {**columns, **crops.columns}, size)


def _listed_rows(clip: ClipCrops, file: BinaryIO) -> CutRows:
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
    columns["offset"] = columns["length"] = columns["checksum"] = np.zeros(len(size), np.int64)
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


def _face_rows(clip: ClipCrops, file: BinaryIO) -> CutRows:
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


def _challenge_rows(clip: ClipCrops, file: BinaryIO) -> CutRows:
    """Take the crops of one video of the test set; boxes and labels are unknown."""
    tracks = list_crops(clip.source.parent, clip.uid, clip.counts)
    faces = [face for track in tracks for face in track]
    crops = CropWriter(file, len(faces), clip.crop_size)
    for row, face in enumerate(faces):
        alive()
        jpeg, picture = read_image(face.path)
        crops.add(row, picture, jpeg)
    columns = {"frame": np.array([face.frame for face in faces], np.int64), "box": np.full((len(faces), 4), np.nan),
               **crops.columns, "unique_id": np.array([face.unique_id for face in faces], np.bytes_)}
    return CutRows(columns, [track[0].track for track in tracks], np.array([len(track) for track in tracks], np.int64),
                   clip.counts)


def _faces(clip: ClipCrops) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """(columns of all faces of the clip's tracks, and the numbers of their track and picture, float64 [n, 2] for the
    width and height of their pictures, NaN)."""
    tracks, lengths = clip.tracks, np.array([len(track.frames) for track in clip.tracks], np.int64)
    columns = {"frame": np.concatenate([np.zeros(0, np.int64), *(track.frames for track in tracks)]),
               "box": np.concatenate([np.zeros((0, 4)), *(track.boxes for track in tracks)]),
               "face": np.arange(int(lengths.sum())),
               "position": np.concatenate([np.zeros(0, np.int64), *map(np.arange, lengths)]),
               "track": np.repeat(np.arange(len(tracks)), lengths)}
    columns["number"] = columns["frame"] - clip.policy.first_number    # below 0: frame 0, where frames count from 1
    return columns, np.full((len(columns["frame"]), 2), np.nan)


def _rows_with_picture(clip: ClipCrops, columns: dict[str, np.ndarray], size: np.ndarray) -> CutRows:
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


def _rows(clip: ClipCrops, columns: dict[str, np.ndarray], keep: np.ndarray) -> CutRows:
    sizes = np.bincount(columns["track"][keep], minlength=len(clip.tracks))
    chosen = {name: column[keep] for name, column in columns.items() if name not in ("track", "number")}
    return CutRows(chosen, [track.track for track in clip.tracks], sizes, clip.counts)
