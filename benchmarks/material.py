"""Material: what the benchmarks work on, made once and kept: a 1080p clip, indexes of any size, files of faces."""

import fcntl
import itertools
import json
import os
import shutil
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from gazepose.data.index import SHARDS, Index
from gazepose.data.index_writer import write_index
from gazepose.data.prepare import PrepareConfig, prepare
from gazepose.data.shards import encode
from gazepose.data.video_writer import write_mp4
from gazepose.io import writing_by_checksum
from gazepose.processes import Processes
from gazepose.synthetic.camera import draw_clip
from gazepose.synthetic.plan import plan_clip
from gazepose.synthetic.presets import FPS, PRESETS

SECONDS = 20                     # of rendered footage, repeated to any length
# the default world at full size; seed 2 casts 14 people in 5 shots, 2.6 annotated faces a frame
FOOTAGE = replace(PRESETS["default"], name="footage", size=(1920, 1080), people=(2, 3), shots=5,
                  frames=(SECONDS * FPS // 5,) * 2, defocus=0.0, occluder=0.0, dark=0.0)
QUICK = replace(FOOTAGE, size=(480, 270), shots=2, frames=(15, 15))
SEED = 2
GRAIN = 2.7                      # of a sensor, in grey levels: 5 Mbit/s instead of 2, as a camera worn on the head has
FACES = 224

QUIET = Processes(notify=lambda line: None)


@contextmanager
def made_once(path: Path) -> Iterator[Path | None]:
    """A name to make `path` under, renamed when the block succeeds; None when it is there already."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_name(f"{path.name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if path.exists():
            yield None
            return
        part = path.with_name(f"{path.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        yield part
        os.replace(part, path)


def grainy(pictures: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Pictures with the noise of a sensor; without it a rendered video is far smaller than a filmed one, and decodes
    faster."""
    random, grain = np.random.default_rng(SEED), []
    for number, picture in enumerate(pictures):
        grain = grain or [random.normal(0, GRAIN, (*picture.shape[:2], 1)).round().astype(np.int16) for _ in range(7)]
        yield np.clip(picture + np.roll(grain[number % 7], 37 * number, axis=1), 0, 255).astype(np.uint8)


def footage(work: Path, quick: bool) -> tuple[Path, dict[str, Any]]:
    """A rendered clip and its annotation (a clip of av_train.json)."""
    with made_once(work / "footage") as part:
        if part is not None:
            preset = QUICK if quick else FOOTAGE
            print(f"rendering {preset.shots * preset.frames[0]} frames of {preset.size[0]} x {preset.size[1]}, once")
            part.mkdir()
            clip = plan_clip(preset, SEED, "train", 0)
            write_mp4(part / "clip.mp4", grainy(draw_clip(clip)), preset.size, 23)
            (part / "clip.json").write_text(json.dumps(clip.annotation))
    return work / "footage" / "clip.mp4", json.loads((work / "footage" / "clip.json").read_text())


def encoded_as(codec: str, source: Path) -> Path:
    """The same pictures in another codec, beside their file, at about the same rate of bits."""
    with made_once(source.with_name(f"{codec}.mp4")) as part:
        if part is not None:
            with av.open(str(source)) as reading, av.open(str(part), "w", format="mp4") as writing:
                taken: Any = reading.streams.video[0]
                stream: Any = writing.add_stream(codec, rate=FPS, options={"deadline": "realtime", "cpu-used": "8"})
                stream.width, stream.height, stream.pix_fmt = taken.width, taken.height, "yuv420p"
                stream.bit_rate = source.stat().st_size * 8 * FPS // taken.frames
                for number, frame in enumerate(reading.decode(taken)):
                    frame.pts, frame.time_base = number, Fraction(1, FPS)
                    writing.mux(stream.encode(frame))
                writing.mux(stream.encode(None))
    return source.with_name(f"{codec}.mp4")


def repeat_video(source: Path, path: Path, times: int) -> None:
    """The same packets several times over, each time later; nothing is decoded."""
    with av.open(str(source)) as reading, av.open(str(path), "w", format="mp4") as writing:
        taken = reading.streams.video[0]
        stream = writing.add_stream_from_template(taken)
        packets = [packet for packet in reading.demux(taken) if packet.size]
        assert taken.time_base is not None
        length = round(Fraction(len(packets), FPS) / taken.time_base)
        kept = [(bytes(packet), packet.pts, packet.dts, packet.duration, packet.is_keyframe) for packet in packets]
        for number, (data, pts, dts, duration, key) in itertools.product(range(times), kept):
            packet = av.Packet(data)
            packet.stream, packet.time_base, packet.is_keyframe = stream, taken.time_base, key
            packet.pts, packet.dts, packet.duration = pts + number * length, dts + number * length, duration
            writing.mux(packet)


def repeat_annotation(clip: dict[str, Any], uid: str, times: int) -> dict[str, Any]:
    """The annotation of `repeat_video`: the tracks again, later and under names of their own."""
    frames = clip["clip_end_frame"]
    persons = [{**person, "tracking_paths": [
        {**path, "track_id": f"{path['track_id']}-{number}",
         "unmapped_frames": [frame + number * frames for frame in path["unmapped_frames"]],
         "track": [{**record, "frame": record["frame"] + number * frames} for record in path["track"]]}
        for number in range(times) for path in person["tracking_paths"]]} for person in clip["persons"]]
    looking = [{**segment, "start_frame": segment["start_frame"] + number * frames,
                "end_frame": segment["end_frame"] + number * frames}
               for number in range(times) for segment in clip["social_segments_looking"]]
    return {**clip, "clip_uid": uid, "persons": persons, "social_segments_looking": looking}


def data_set(work: Path, quick: bool, *, minutes: float = 1.0, clips: int = 1, codec: str = "libx264") -> Path:
    """A data set in the Ego4D layout: `clips` clips of `minutes` each (quick: two seconds instead of a minute), all of
    the same pictures. The folder is to be read and prepared only."""
    root = work / f"clips-{clips}x{minutes:g}{'' if codec == 'libx264' else f'-{codec}'}"
    with made_once(root) as part:
        if part is not None:
            video, annotated = footage(work, quick)
            if codec != "libx264":
                video = encoded_as(codec, video)
            times = max(1, round(minutes * (2 * FPS if quick else 60 * FPS) / annotated["clip_end_frame"]))
            for folder in ("json", "split", "videos"):
                (part / folder).mkdir(parents=True)
            uids = [f"clip-{number}" for number in range(clips)]
            repeat_video(video, part / "videos" / f"{uids[0]}.mp4", times)
            for uid in uids[1:]:
                os.link(part / "videos" / f"{uids[0]}.mp4", part / "videos" / f"{uid}.mp4")
            (part / "split" / "train.list").write_text("".join(f"{uid}\n" for uid in uids))
            (part / "json" / "av_train.json").write_text(json.dumps(
                {"videos": [{"clips": [repeat_annotation(annotated, uid, times)]} for uid in uids]}))
    return root


def faces(work: Path, quick: bool, crop_size: int = FACES) -> Index:
    """The index of one minute of footage."""
    root = work / f"faces-{crop_size}"
    with made_once(root) as part:
        if part is not None:
            made = data_set(work, quick)
            shutil.copytree(made, part, copy_function=os.link, ignore=shutil.ignore_patterns("prepared"))
            prepare(part, "train", PrepareConfig(crop_size=crop_size, decoder="pyav"), QUIET)
    return Index.open(root / "prepared" / f"clean-{crop_size}" / "train")


class NoiseFaces:
    """Pictures without a video, for `many_rows`: soft colours and grain, as large as JPEGs of faces."""

    def __init__(self, count: int, size: int) -> None:
        random = np.random.default_rng(0)
        soft = random.integers(0, 256, (count, size // 16, size // 16, 3), np.uint8)
        grain = random.normal(0, 2 * GRAIN, (size, size, 1))
        crops = [cv2.resize(colours, (size, size), interpolation=cv2.INTER_CUBIC) + grain for colours in soft]
        self.jpegs = [encode(np.clip(crop, 0, 255).astype(np.uint8)) for crop in crops]
        self.length = np.array([len(jpeg) for jpeg in self.jpegs])
        self.checksum = np.array([zlib.crc32(jpeg) for jpeg in self.jpegs])
        self.box, self.facts = np.zeros((count, 4), np.float32), {"crop_size": size}

    def __len__(self) -> int:
        return len(self.jpegs)

    def jpeg(self, row: int) -> bytes:
        return self.jpegs[row]


def many_rows(source: Index | NoiseFaces, folder: Path, *, tracks: int, length: int) -> Index:
    """An index of tracks x length rows that show the crops of `source` in turn; its pixels take no more room."""
    with made_once(folder) as part:
        if part is not None:
            rows = tracks * length
            shown = np.arange(rows, dtype=np.int64) % len(source)
            size = np.asarray(source.length, np.int64)
            with writing_by_checksum(part / SHARDS, "all.bin") as (file, shard):     # all clips share it
                file.write(b"".join(map(source.jpeg, range(len(source)))))
            clips = -(-tracks // 8)
            random = np.random.default_rng(0)
            write_index(part, columns={
                "frame": np.tile(np.arange(length, dtype=np.int32), tracks), "box": np.asarray(source.box)[shown],
                "label": (random.random(rows) < 0.2).astype(np.int8),
                "offset": (np.cumsum(size) - size)[shown], "length": size[shown],
                "checksum": np.asarray(source.checksum)[shown],
                "head_pose": np.tile(random.normal(0, 20, (1, 3)), (rows, 1))},
                clips=[f"clip-{number:05d}" for number in range(clips)],
                track_name=[f"track-{number}" for number in range(tracks)], track_clip=np.arange(tracks) // 8,
                track_start=np.arange(tracks + 1) * length, shards=[shard] * clips,
                facts={"split": "train", "policy": "clean", "crop_size": source.facts["crop_size"]})
    return Index.open(folder)


def rows_of(index: Index) -> list[tuple[str, str, int, int]]:
    """(clip, track, frame, label) of every row, as the reference way keeps them."""
    track = index.track_of(np.arange(len(index))).tolist()
    return [(index.clips[index.track_clip[t]], index.track_name[t], frame, label)
            for t, frame, label in zip(track, index.frame.tolist(), index.label.tolist(), strict=True)]


def face_files(index: Index, folder: Path, named: str = "face_{frame:05d}.jpg") -> Path:
    """The crops of an index as files <clip>/<track>/<name>, the very same bytes."""
    with made_once(folder) as part:
        if part is not None:
            for row, (clip, track, frame, _) in enumerate(rows_of(index)):
                path = part / clip / track / named.format(frame=frame, row=row)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(index.jpeg(row))
    return folder
