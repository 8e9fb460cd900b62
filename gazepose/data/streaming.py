"""Streaming: the rows of a split without its shards; crops are cut out of the videos while they are used.

For a first look, or on a small disk (`--crops video`). An index is written all the same, a few bytes a row: it has the
rows, positions, labels and priors that preparation would give it, told from annotations and the headers of the videos,
and instead of bytes the corners of each crop. In what order clips are read is data/loader.py.
"""

import faulthandler
import os
import shutil
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from gazepose.data.annotations import Clip
from gazepose.data.clip_crops import STALL_S, Piece, cut_in_memory, cut_short
from gazepose.data.crops import grown, outside, whole_corners
from gazepose.data.index import Index, write_index
from gazepose.data.merge import join_priors
from gazepose.data.prepare import FOLDERS, PrepareConfig, annotated_clips, expect, made_from, prepared_folder
from gazepose.data.skipped import Outcome, write_report
from gazepose.data.tracks import FaceTrack, Policy
from gazepose.data.video import VideoFacts, find_video, frames_in_order, look_at, video_facts
from gazepose.processes import Processes


class VideoIndex(Index):
    """An index whose crops are cut out of the videos: the same bytes that preparation would have stored.

    A clip is read in order, whole and at once, because a decoder that waits decodes ahead without bound; of it only
    JPEG bytes of the wanted crops stay. quality and black are columns of this process: what preparation would have
    measured of crops that have been cut, NaN and False (unless the face lies outside the picture) of others.

    In memory: the crops in `held`, and 5 bytes a row. Crops asked for one by one (`crop`, `jpeg`): those of two clips.
    """

    def __init__(self, folder: Path, contents: dict[str, Any]) -> None:
        super().__init__(folder, contents)
        self.quality, self.black = np.array(self.quality), np.array(self.black)
        self.held: dict[int, dict[int, bytes]] = {}
        """clip -> row -> JPEG bytes"""
        self.bad: set[int] = set()
        """clips that turned out to be damaged"""
        rules = {**self.facts["rules"], "drop_outside": False, "negative_corner": "move", "box_scale": 1.0}
        self._policy = Policy(name=self.facts["policy"], **rules)           # corners are cut and grown already
        self._videos = folder.resolve().parents[2] / FOLDERS["videos"]
        self._lock = threading.Lock()                                      # priors/extract.py asks from several threads

    def __reduce__(self) -> tuple[Any, tuple[Path]]:
        return VideoIndex.open, (self.folder,)

    def clip_of(self, rows: np.ndarray) -> np.ndarray:
        """Number of the clip each row belongs to."""
        return self.track_clip[self.track_of(rows)]

    def jpeg(self, row: int) -> bytes:
        """The crop's bytes. Where they are not held the whole clip is read, and all but the last clip let go.

        Raises:
            As `read`.
        """
        if not 0 <= row < self.rows:
            raise IndexError(f"{self.folder}: row {row}: the index has {self.rows} rows")
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
            FileNotFoundError or ValueError naming the video: gone, changed, or damaged.
        """
        wanted = set(rows.tolist())
        self.held = {number: kept for number, crops in self.held.items() if number != clip
                     and (kept := {row: jpeg for row, jpeg in crops.items() if row in wanted})}
        self._cut(clip, rows[self.clip_of(rows) == clip])

    def _cut(self, clip: int, rows: np.ndarray) -> None:
        uid = self.clips[clip]
        path = find_video(self._videos, uid)
        if path.is_file() and path.stat().st_size != self.facts["bytes"][uid]:
            raise ValueError(f"{path}: has {path.stat().st_size} bytes, had {self.facts['bytes'][uid]} when its faces "
                             f"were listed -> delete {self.folder}; they are listed again")
        track = FaceTrack(uid, "", "", self.frame[rows].astype(np.int64), self.corners[rows].astype(np.float64),
                          self.label[rows])
        cut, crops = cut_in_memory(Piece(uid, path, self.folder / uid, len(rows), self._policy, self.facts["crop_size"],
                                         self.facts["decoder"], tracks=[track]))
        if len(cut["offset"]) != len(rows):
            raise ValueError(f"{path}: {len(rows) - len(cut['offset'])} of {len(rows)} faces are past its end, which "
                             "its headers do not say")
        self.black[rows] = cut["black"]
        self.quality[rows] = np.where(np.isnan(self.quality[rows]), cut["quality"], self.quality[rows])
        self.held[clip] = {row: crops.jpegs[number] for row, number in
                           zip(rows.tolist(), cut["offset"].tolist(), strict=True)}

    def give_up(self, clip: int, error: Exception, goes_on: bool) -> None:
        """Note that a clip is damaged, so that from the next run on it is left out as preparation leaves it out.

        Args:
            goes_on: this run can do without the clip; it is told, and the run goes on.

        Raises:
            ValueError: this run cannot, or too many clips are damaged.
        """
        self.bad.add(clip)
        (self.folder / f"{self.clips[clip]}.bad").write_text(str(error))
        bad = {**self.facts["bad_clips"], **_noted(self.folder)}
        _bounded(self.folder, bad, self.facts["listed"], self.facts["max_bad_fraction"])
        if not goes_on:
            raise ValueError(f"{error}\n-> every face must be scored, so run again: from now on clip "
                             f"{self.clips[clip]} is left out, as preparation leaves it out")
        print(f"warning: {error}: clip {self.clips[clip]} is left out", file=sys.stderr, flush=True)


def open_index(folder: Path) -> Index:
    """An index folder with or without shards."""
    index = Index.open(folder)
    return index if index.corners is None else VideoIndex.open(folder)


def list_faces(data: str | Path, split: str, config: PrepareConfig, processes: Processes = Processes()   # noqa: B008
               ) -> Path:
    """Make DATA/prepared/<policy>-<crop_size>-streamed/<split>, an index without shards; return at once where it is.

    Rank 0 opens every video, the others wait. Clips that a reader has noted as damaged since are left out, and the
    index is made again.

    Raises:
        As prepare.prepare; ValueError also for crops that are not from videos.
    """
    root, named = Path(data).resolve(), config.rules
    if config.crops_from not in (None, "videos") or split == "test":
        raise ValueError(f"--crops video cuts faces out of videos/, not out of {config.crops_from or split} -> "
                         "give --crops shards: images are prepared quickly")
    folder = prepared_folder(root, split, named, config.crop_size, "streamed")
    if processes.rank == 0:
        facts = made_from(root, split, named, config.crop_size, "videos", config.decoder)
        damaged: dict[str, str] = {}
        if (folder / "index.json").is_file():
            index = Index.open(folder)
            expect(index, {"split": split, **facts})
            damaged = {**index.facts["damaged"], **_noted(folder)}
        if not (folder / "index.json").is_file() or _noted(folder):
            _write_list(folder, split, root, named, damaged, {**facts, "max_bad_fraction": config.max_bad_fraction},
                        processes.notify)
    processes.barrier()
    return folder


def _write_list(folder: Path, split: str, root: Path, policy: Policy, damaged: dict[str, str], facts: dict[str, Any],
                notify: Callable[[str], None]) -> None:
    began, counts, bad, listed = time.monotonic(), Counter(), dict(damaged), []
    used: dict[str, Outcome] = {}
    made_of = {name: fact for name, fact in facts.items() if name != "max_bad_fraction"}
    clips = annotated_clips(root, split, policy)
    for clip in clips:
        told: dict[str, str] = {}
        try:
            faulthandler.dump_traceback_later(STALL_S, file=sys.__stderr__ or 2, exit=True)     # decoders may hang
            if clip.uid not in damaged:
                rows = _rows_of(clip, find_video(root / FOLDERS["videos"], clip.uid), policy, facts["decoder"], told)
                listed.append((clip, rows))
                used[clip.uid] = Outcome(sum(len(track.frames) for track in clip.tracks), len(rows["frame"]),
                                         clip.counts, told)
                counts += clip.counts
        except (ValueError, FileNotFoundError) as error:
            bad[clip.uid] = str(error)
        finally:
            faulthandler.cancel_dump_traceback_later()
    short = {uid: outcome.told["short"] for uid, outcome in used.items() if "short" in outcome.told}
    _bounded(folder, {**bad, **short}, len(clips), facts["max_bad_fraction"])
    listed = [(clip, rows) for clip, rows in listed if len(rows["frame"])]
    if not listed:
        reasons = "; ".join(f"{rule}: {count}" for rule, count in counts.most_common(5)) or "no record at all"
        raise ValueError(f"{folder}: the split is empty, none of its {len(clips)} clips has a usable face ({reasons}) "
                         "-> check that split list and annotations belong together, or try the other policy")
    columns = {name: np.concatenate([rows[name] for _, rows in listed]) for name in listed[0][1] if name != "sizes"}
    rows = len(columns["frame"])
    size = np.concatenate([rows["sizes"] for _, rows in listed])
    track = np.array([track.track for clip, _ in listed for track in clip.tracks], str)
    clip_of = np.repeat(np.arange(len(listed)), [len(clip.tracks) for clip, _ in listed])
    paths = {clip.uid: find_video(root / FOLDERS["videos"], clip.uid) for clip, _ in listed}
    facts = {**facts, "split": split, "bad_clips": bad, "damaged": damaged, "listed": len(clips),
             "bytes": {uid: path.stat().st_size for uid, path in paths.items()}, "quality_fit": None,
             "counts": {rule: count for rule, count in sorted(counts.items()) if count}}
    staging = folder.with_name(f"{split}.listing")
    shutil.rmtree(staging, ignore_errors=True)                         # of a run that was killed here
    index = write_index(staging, columns={**columns, "offset": np.zeros(rows, np.int64),
                                          "length": np.zeros(rows, np.int64)},
                        clips=list(paths), track_name=track[size > 0].tolist(),
                        track_clip=clip_of[size > 0], track_start=np.r_[0, np.cumsum(size[size > 0])],
                        clip_shard=np.zeros(len(paths), np.int32), clip_base=np.zeros(len(paths), np.int64), shards=[],
                        facts=facts)
    join_priors(index, root, split)
    write_report(staging, split, "listed", len(clips), used, bad, facts["max_bad_fraction"], made_of)
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(staging, folder)
    notify(f"listed {split} ({policy.name}, {facts['crop_size']} px, cut while they are used): {rows} faces of "
        f"{len(index.track_name)} tracks in {len(paths)} clips, {time.monotonic() - began:.0f} s"
        + "".join(f"; {rule}: {count}" for rule, count in facts["counts"].items())
        + "".join(f"\n  clip {uid} cannot be used: {reason}" for uid, reason in bad.items()))


def _rows_of(clip: Clip, path: Path, policy: Policy, decoder: str, told: dict[str, str]) -> dict[str, np.ndarray]:
    """Columns of the faces that clip_crops.py would cut, and the corners of their crops; what it leaves out is counted,
    and what it tells of the video is added to `told`."""
    tracks = clip.tracks
    frame = np.concatenate([np.zeros(0, np.int64), *(track.frames for track in tracks)])
    box = np.concatenate([np.zeros((0, 4)), *(track.boxes for track in tracks)])
    label = np.concatenate([np.zeros(0, np.int8), *(track.labels for track in tracks)])
    position = np.concatenate([np.zeros(0, np.int64), *(np.arange(len(track.frames)) for track in tracks)])
    track_of = np.repeat(np.arange(len(tracks)), np.array([len(track.frames) for track in tracks], np.int64))
    number = frame - policy.first_number
    kept = number >= 0
    clip.counts["row left out: before the first picture"] += int((~kept).sum())
    corners, gone = np.zeros(box.shape), np.zeros(len(box), bool)
    if kept.any():
        video = _checked_facts(path, np.unique(number[kept]).tolist(), decoder, told)
        late = number >= video.frames
        told.update(cut_short(path, number[late].tolist()))
        clip.counts["row left out: past the end of the video"] += int(late.sum())
        kept &= ~late
        cut = grown(box, policy.box_scale)
        corners, gone = whole_corners(cut, video.width, video.height), outside(cut, video.width, video.height) & kept
        if policy.negative_corner == "cut":
            box = np.c_[box[:, :2], np.minimum(box[:, 2:], (video.width, video.height))]
        if policy.drop_outside:
            clip.counts["row left out: outside the picture"] += int(gone.sum())
            kept &= ~gone
        else:
            clip.counts["crop black: outside the picture"] += int(gone.sum())
    return {"frame": frame[kept], "box": box[kept], "label": label[kept], "position": position[kept],
            "corners": corners[kept].astype(np.int64), "black": gone[kept],
            "sizes": np.bincount(track_of[kept], minlength=len(tracks))}


def _checked_facts(path: Path, wanted: Sequence[int], decoder: str, told: dict[str, str]) -> VideoFacts:
    """Frames as the decoder will give them and the size of its pictures, by the headers and the first picture.

    Only of a file that is known to be cut short the wanted frames are decoded, to see how far it goes.

    Raises:
        As frames_in_order, where preparation would leave the clip out.
    """
    try:
        facts = video_facts(path, decoder)
        stated, whole = look_at(path)
        if decoder == "pyav":                                          # headers do not turn pictures
            facts = replace(facts, width=stated.width, height=stated.height)
        if whole < stated.frames:
            got = [number for number, _ in frames_in_order(path, wanted, decoder)]
            if len(got) < len(wanted):
                facts = replace(facts, frames=got[-1] + 1 if got else 0)
        return facts
    except ValueError as error:
        if decoder == "pyav":
            raise
        told["decoder"] = str(error)
        return _checked_facts(path, wanted, "pyav", told)


def _noted(folder: Path) -> dict[str, str]:
    """Clip -> what a reader found wrong with it."""
    return {path.stem: path.read_text() for path in sorted(folder.glob("*.bad"))}


def _bounded(folder: Path, bad: Mapping[str, str], clips: int, fraction: float) -> None:
    if len(bad) > fraction * clips:
        some = "\n  ".join(list(bad.values())[:5])
        raise ValueError(f"{folder}: {len(bad)} of {clips} clips cannot be used, more than {fraction:.1%}:\n  {some}\n"
                         "-> put them there, take the clips off the split list and delete this folder, or go on "
                         "without them by --max_bad_fraction")
