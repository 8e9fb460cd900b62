"""Prepared data for tests: the same calls with settings by name, quiet and with small crops."""

import json
import re
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from gazepose.data import prepare as prepare_module
from gazepose.data.clip_files import ClipCrops
from gazepose.data.index import COLUMNS, SHARDS, TABLES, Index
from gazepose.data.index_writer import write_index
from gazepose.data.prepare import PrepareConfig
from gazepose.data.shards import encode
from gazepose.data.tracks import POLICIES, FaceTrack
from gazepose.io import writing_by_checksum
from gazepose.processes import Processes

Track = tuple[str, str, Sequence[int]]                                 # clip, track, frames


def quiet(line: str) -> None:
    """A message that nobody reads."""


def settings_of(rules: dict[str, Any] | None = None, crop_size: int = 64, **settings: Any) -> PrepareConfig:
    rule = tuple(f"{name}={value}" for name, value in (rules or {}).items())
    return PrepareConfig(rule=rule, crop_size=crop_size, **settings)


def prepare(root: Path, split: str, *, jobs: int | None = 1, notify: Callable[[str], None] = quiet, rank: int = 0,
            world_size: int = 1, wait: Callable[[], None] = lambda: None, **settings: Any) -> Path:
    return prepare_module.prepare(root, split, settings_of(**settings), Processes(rank, world_size, wait, notify), jobs)


def list_faces(root: Path, split: str, *, notify: Callable[[str], None] = quiet, **settings: Any) -> Path:
    """The rows of a split without its crops, which are cut out of the videos when they are used."""
    return prepare(root, split, notify=notify, crops="video", **settings)


def prepared_index(root: Path, split: str = "train", **settings: Any) -> Index:
    return Index.open(prepare(root, split, **settings))


def same(one: Index, other: Index) -> None:
    """Every column, every name and every byte of the crops."""
    for name in (*COLUMNS, *TABLES):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    assert (one.clips, one.track_name) == (other.clips, other.track_name)
    assert [one.jpeg(row) for row in range(len(one))] == [other.jpeg(row) for row in range(len(other))]
    assert one.facts["fingerprint"] == other.facts["fingerprint"]


def faces(index: Index) -> dict[tuple[str, str, int], int]:
    """(clip, track, frame) -> row."""
    track = index.track_of(np.arange(len(index))).tolist()
    return {(index.clips[index.track_clip[t]], index.track_name[t], frame): row
            for row, (t, frame) in enumerate(zip(track, index.frame.tolist(), strict=True))}


# refusals, and what their messages advise

def remedy_of(attempt: Callable[[], Any], capsys: Any = None) -> str:
    """What the message of a failing attempt says behind its arrow, in one line."""
    with pytest.raises((ValueError, OSError, ImportError, EOFError, RuntimeError, SystemExit)) as caught:
        attempt()
    text = str(caught.value) + ("" if capsys is None else "".join(capsys.readouterr()))
    text = " ".join(re.sub("[╭╮╰╯│─]", " ", text).split()).split(" For full helptext")[0]     # in a frame, with a foot
    assert " -> " in text, text
    return text.split(" -> ", 1)[1]


def refused_until_mended(*states: Callable[[Path], tuple[Callable[[], Any], str, Callable[[], Any]]]) -> Any:
    """A test, once for each state: an attempt is refused, the remedy has these words, and once it is done, the attempt
    succeeds. A state makes the attempt, the words and what does the remedy, in a folder."""
    @pytest.mark.parametrize("state", states)
    def test(tmp_path: Path, state: Any) -> None:
        attempt, words, mend = state(tmp_path)
        remedy = remedy_of(attempt)
        assert words in remedy, remedy
        mend()
        attempt()
    return test


# videos whose pictures show their own number, and data sets of them

WIDTH, HEIGHT, BITS = 320, 128, 8
VIDEOS: dict[str, dict[str, str]] = {
    "plain.mp4": {}, "long.mp4": {"g": "300", "bf": "3"}, "intra.mkv": {"g": "1"}, "plain.mov": {},
    "open.mp4": {"x264-params": "open-gop=1:keyint=8:bframes=3"}, "old.avi": {"codec": "mpeg4"},
    "refresh.mkv": {"x264-params": "intra-refresh=1:keyint=10"},
    "hevc.mp4": {"codec": "libx265", "x265-params": "log-level=0"}}


def barcode(number: int) -> np.ndarray:
    """Vertical stripes, one per bit of the frame number, white for 1."""
    bits = [255 * (number >> bit & 1) for bit in range(BITS)]
    return np.repeat(np.array(bits, np.uint8), WIDTH // BITS)[None, :, None].repeat(HEIGHT, 0).repeat(3, 2)


def number_in(picture: np.ndarray) -> int:
    stripes = picture.mean(axis=(0, 2)).reshape(BITS, -1)
    middle = stripes[:, stripes.shape[1] // 4: -stripes.shape[1] // 4].mean(axis=1)
    return sum(1 << bit for bit in range(BITS) if middle[bit] > 127)


def write_video(path: Path, frames: int, codec: str = "libx264", **options: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=30)
        stream.width, stream.height, stream.pix_fmt, stream.options = WIDTH, HEIGHT, "yuv420p", options
        for number in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(barcode(number), format="rgb24")))
        container.mux(stream.encode())
    return path


def data_set(root: Path, clips: dict[str, list[tuple[str, list[int]]]], frames: int = 40, split: str = "train",
             videos: bool = True) -> Path:
    """Clips of (track, frames); every box is the whole picture, so that a crop shows the whole barcode."""
    box = {"x": 0, "y": 0, "width": WIDTH, "height": HEIGHT}
    annotated = [{"clip_uid": uid, "social_segments_looking": [{"person": "1", "start_frame": 3, "end_frame": 5}],
                  "persons": [{"person_id": "0", "camera_wearer": True}, {"person_id": "1", "tracking_paths": [
                      {"track_id": track, "track": [{**box, "frame": frame} for frame in numbers]}
                      for track, numbers in tracks]}]} for uid, tracks in clips.items()]
    for folder in ("json", "split"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "json" / f"av_{split}.json").write_text(json.dumps({"videos": [{"clips": annotated}]}))
    (root / "split" / f"{split}.list").write_text("\n".join(clips))
    for uid in clips if videos else ():
        write_video(root / "videos" / f"{uid}.mp4", frames)
    return root


def challenge(root: Path, names: list[str], size: int = 224) -> Path:
    for number, name in enumerate(names):
        path = root / "videos_challenge" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(cv2.resize(barcode(number), (size, size), interpolation=cv2.INTER_AREA)))
    return root


def clip_of(path: Path, folder: Path, frames: list[int]) -> ClipCrops:
    boxes_of = np.tile([0.0, 0, WIDTH, HEIGHT], (len(frames), 1))
    track = FaceTrack(path.stem, "t", "1", np.array(frames), boxes_of, np.zeros(len(frames), np.int8))
    return ClipCrops(path.stem, path, folder / path.stem, len(frames), POLICIES["clean"], 64, "decord", tracks=[track])


# an index without videos

def face(level: int, size: int = 32) -> np.ndarray:
    ramp = np.linspace(0, 100, size, dtype=np.uint8)
    return np.stack([ramp[None].repeat(size, 0), ramp[:, None].repeat(size, 1), np.full((size, size), level)], 2
                    ).astype(np.uint8)


def small_index(folder: Path, tracks: Sequence[Track] = (("a", "t", (1, 2, 3)), ("b", "u", (7, 9)))) -> Index:
    """An index of (clip, track, frames) with crop n of level 10 n."""
    rows = sum(len(frames) for _, _, frames in tracks)
    return write_tracks(folder, tracks, [face(10 * row % 256) for row in range(rows)], label=[1] * rows)


def write_tracks(folder: Path, tracks: Sequence[Track], crops: Iterable[np.ndarray | bytes],
                 facts: dict[str, Any] | None = None, **columns: Any) -> Index:
    """An index of (clip, track, frames) with a crop for each frame; one clip's tracks are neighbours."""
    clips, sizes = list(dict.fromkeys(clip for clip, _, _ in tracks)), [len(frames) for _, _, frames in tracks]
    track_clip = np.array([clips.index(clip) for clip, _, _ in tracks])
    jpegs, clip_of = [crop if isinstance(crop, bytes) else encode(crop) for crop in crops], np.repeat(track_clip, sizes)
    places = {name: np.zeros(len(jpegs), np.int64) for name in ("offset", "length", "checksum")}
    shards = []
    for number, clip in enumerate(clips):
        with writing_by_checksum(folder / SHARDS, f"{clip}.bin") as (file, entry):
            for row in np.flatnonzero(clip_of == number).tolist():
                places["offset"][row], places["length"][row] = file.tell(), file.write(jpegs[row])
                places["checksum"][row] = zlib.crc32(jpegs[row])
        shards.append(entry)
    plain = {"frame": [frame for _, _, frames in tracks for frame in frames], "box": np.zeros((sum(sizes), 4)),
             "label": np.zeros(sum(sizes), np.int8), **places}
    return write_index(
        folder, columns={name: np.array(values) for name, values in {**plain, **columns}.items()}, clips=clips,
        track_name=[track for _, track, _ in tracks], track_start=np.cumsum([0, *sizes]), track_clip=track_clip,
        shards=shards, facts={"split": "train", **(facts or {})})
