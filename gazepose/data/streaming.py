"""Streaming (`--crops video`): crops are cut out of the videos while they are used. For a first look, or a small disk.

Preparation writes an index all the same, a few bytes a row: its rows, positions, labels and priors are those that it
would have with shards, as far as the headers of the videos say. In place of bytes it has the corners of each crop. In
what order clips are read is data/loader.py.
"""

import os
import sys
import threading
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from gazepose.data.clip_crops import CropWriter, alive, by_either_decoder, faces_in_order
from gazepose.data.clip_files import bad_clips, mark_bad
from gazepose.data.index import SHARDS, Index
from gazepose.data.merge import name_in
from gazepose.data.outcome import check_bad_clips
from gazepose.data.prepare import pictures_folder
from gazepose.data.video import find_video, usable_decoder
from gazepose.io import UnusableFile, stamp
from gazepose.text import counted, printable


class VideoIndex(Index):
    """An index whose crops are cut out of the videos: the same bytes that preparation would have stored.

    A clip is read in order, whole and at once, because a decoder that waits decodes ahead without bound; of it only
    the JPEG bytes of the crops that are needed stay. quality and black are columns of this process: for crops that
    have been cut, the values that preparation would have measured; for others NaN and False (True for a face outside
    its picture).

    In memory: the crops in `held`, and 5 bytes a row. Crops that are asked for one by one (`crop`, `jpeg`): those of
    two clips.
    """

    def __init__(self, folder: Path, contents: dict[str, Any]) -> None:
        super().__init__(folder, contents)
        self.quality, self.black = np.array(self.quality), np.array(self.black)
        self.held: dict[int, dict[int, bytes]] = {}
        """clip -> row -> JPEG bytes"""
        self.bad: set[int] = set()
        """clips that turned out to be damaged"""
        self._videos = pictures_folder(folder.resolve().parents[2], "videos")
        self._lock = threading.Lock()                                  # several threads may ask for single crops

    def jpeg(self, row: int) -> bytes:
        """The crop's bytes. Where they are not held the whole clip is read, and all but the last clip let go.

        Raises:
            As `read`.
        """
        if not 0 <= row < self.rows:
            raise IndexError(f"{self.folder}: row {row}: the index has {counted(self.rows, 'row')}")
        clip = int(self.clip_of(np.array(row)))
        with self._lock:
            if row not in self.held.get(clip, {}):
                for other in list(self.held)[:-1]:
                    del self.held[other]
                tracks = np.flatnonzero(self.track_clip == clip)
                first, end = self.track_start[[tracks[0], tracks[-1] + 1]].tolist()
                self._cut(clip, np.arange(first, end))
            return self.held[clip][row]

    def lacking(self, rows: np.ndarray) -> list[int]:
        """Clips whose crops are not held, of these rows, ascending."""
        clips = self.clip_of(rows).tolist()
        return sorted({clip for clip, row in zip(clips, rows.tolist(), strict=True)
                       if row not in self.held.get(clip, {})})

    def read(self, clip: int, rows: np.ndarray) -> None:
        """Read a clip: its crops of `rows` are held afterwards; of other clips those of `rows` that were held before.

        Raises:
            FileNotFoundError or UnusableFile naming the video: gone, changed, or damaged.
        """
        needed, held = set(rows.tolist()), {}
        for number, crops in self.held.items():
            crops = {row: jpeg for row, jpeg in crops.items() if row in needed}
            if number != clip and crops:
                held[number] = crops
        self.held = held
        self._cut(clip, rows[self.clip_of(rows) == clip])

    def _cut(self, clip: int, rows: np.ndarray) -> None:
        uid = self.clips[clip]
        path = find_video(self._videos, uid)
        if self._has_changed(path):
            raise UnusableFile(f"{path}: has changed since its faces were listed -> run again; they are listed again")
        numbers = self.frame[rows].astype(np.int64) - self.facts["rules"]["first_number"]

        def cut(decoder: str) -> tuple[dict[str, np.ndarray], bytes]:
            file = BytesIO()
            crops = CropWriter(file, len(rows), self.facts["crop_size"])
            for row, face, _ in faces_in_order(path, numbers, self.corners[rows], decoder):
                crops.add(row, face)
            return crops.columns, file.getvalue()

        try:
            decoder = self.facts["decoder"] if usable_decoder()[0] == "decord" else "pyav"
            columns, jpegs = by_either_decoder(decoder, {}, cut)
        finally:
            alive(reads=False)
        offset, length = columns["offset"], columns["length"]
        if missing := int((length == 0).sum()):
            raise UnusableFile(f"{path}: {missing} of {len(rows)} faces are after its end: it is shorter than its "
                               "header says")
        self.black[rows] = columns["black"]
        self.quality[rows] = np.where(np.isnan(self.quality[rows]), columns["quality"], self.quality[rows])
        self.held[clip] = {row: jpegs[start:end] for row, start, end in
                           zip(rows.tolist(), offset.tolist(), (offset + length).tolist(), strict=True)}

    def _has_changed(self, video: Path) -> bool:
        """Whether a video is another one than its faces were listed from."""
        return stamp(video) not in (self.facts["sources"][name_in(self.folder.resolve().parents[2], video)][0], None)

    def give_up(self, clip: int, error: Exception, goes_on: bool) -> None:
        """Note that a clip is damaged, so that the next run leaves it out as preparation does. One that has changed is
        only left out of this run, since the next one lists its faces again.

        Args:
            goes_on: this run can do without the clip: it prints a warning and goes on.

        Raises:
            ValueError: this run needs the clip, or too many clips are damaged.
        """
        self.bad.add(clip)
        uid, folder = self.clips[clip], self.folder / SHARDS
        video = find_video(self._videos, uid)
        changed = self._has_changed(video)
        if not changed:
            mark_bad(folder / f"{uid}.bad", video, str(error))
        bad = {**self.facts["bad_clips"], **bad_clips(folder), uid: str(error)}
        check_bad_clips(self.folder, bad, self.facts["listed"], self.facts["max_bad_fraction"],
                        "the videos that can be read are used")
        if changed and not goes_on:
            raise error
        if not goes_on:
            raise ValueError(f"{error}\n-> every face must be scored, so run again: from now on clip "
                             f"{self.clips[clip]} is left out, as preparation leaves it out")
        print(printable(f"warning: {error}: clip {self.clips[clip]} is left out"), file=sys.stderr, flush=True)


def open_index(folder: Path) -> Index:
    """An index folder with or without shards."""
    index = Index.open(folder)
    if index.corners is None:
        return index
    decoder, reason = usable_decoder()
    if index.facts["decoder"] != decoder == "pyav" and os.environ.get("RANK", "0") == "0":
        print(printable(f"warning: {folder}: decord was to read these videos, and cannot be loaded here ({reason}), so "
                        "pyav reads them"), file=sys.stderr, flush=True)
    return VideoIndex(index.folder, index.contents)
