"""Bad input, wherever it can enter: a named error or a counted skip, nothing run, nothing reached outside.

What belongs to one reader alone stands with its tests; here are the faults that all readers share.
"""

import copy
import csv
import io
import json
import math
import os
import pickle
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any, get_type_hints

import av
import numpy as np
import pytest
import simplejpeg
import torch
from accelerate import Accelerator
from accelerate.data_loader import BatchSamplerShard
from hypothesis import given, settings
from hypothesis import strategies as st
from making import prepare
from safetensors.torch import save
from test_annotations import document
from test_boxes import HEADER
from test_engine import Grey
from test_prepare import HEIGHT, WIDTH, challenge, data_set, number_in, quiet, write_video
from test_shards_index import made
from torch import nn

from gazepose.compat.checkpoints import read_published
from gazepose.compat.start import start_from
from gazepose.config import DataConfig, InferConfig, TrainConfig, parse
from gazepose.data import annotations, video
from gazepose.data import box_table as boxes
from gazepose.data import prepare as door
from gazepose.data.challenge import list_videos, parse_name
from gazepose.data.chunks import Chunks
from gazepose.data.clip_crops import ClipCrops, cut_clip
from gazepose.data.index import Index, add_columns
from gazepose.data.loader import make_loader
from gazepose.data.order import BatchOrder
from gazepose.data.prepare import PrepareConfig, skipped
from gazepose.data.tracks import POLICIES, FaceTrack
from gazepose.data.video import container_of, frames_in_order
from gazepose.data.windows import WindowRule, make_batch
from gazepose.doctor.checks import Findings
from gazepose.doctor.tables import check_table
from gazepose.evaluation.examples import read_copy, shown_faces
from gazepose.evaluation.metrics import class_weights, evaluate
from gazepose.evaluation.submission import check, csv_to_json
from gazepose.io import MAX_HEADER, MAX_TENSORS, read_arrays, read_tensors, sha256_of, write_json
from gazepose.models import ModelConfig
from gazepose.models.backbone import create_backbone
from gazepose.priors.head_pose import read_hopenet
from gazepose.priors.import_files import CSV_COLUMNS, parse_key, read_priors
from gazepose.report.records import read_records
from gazepose.source import find_source
from gazepose.training import checkpoint
from gazepose.training.engine import train_steps
from gazepose.training.losses import LossRule
from gazepose.training.optim import OptimConfig, make_optimizer

CLEAN = POLICIES["clean"]


# What was left out

def test_what_was_left_out_is_told_in_the_report(tmp_path):
    root = data_set(tmp_path, {name: [("t", [1, 2, 3])] for name in ("whole", "late", "gone", "av1")}, frames=10)
    content = (root / "json" / "av_train.json").read_text()
    annotated = json.loads(content)
    annotated["videos"][0]["clips"][1]["persons"][1]["tracking_paths"][0]["track"][2]["frame"] = 12
    (root / "json" / "av_train.json").write_text(json.dumps(annotated))
    (root / "videos" / "gone.mp4").unlink()
    write_video(root / "videos" / "av1.mp4", 10, "libsvtav1", preset="6", crf="15")
    said = []
    folder = prepare(root, "train", jobs=1, notify=said.append, max_bad_fraction=0.25)
    report, facts = json.loads((folder / "report.json").read_text()), Index.open(folder).facts
    assert report["state"] == "prepared" and report["policy"] == "clean" and report["split"] == "train"
    assert report["clips"] == {"listed": 4, "used": 3, "bad": 1, "max_bad_fraction": 0.25}
    assert report["bad_clips"] == facts["bad_clips"] and report["bad_clips"]["gone"].endswith("gone.mp4: no such video")
    assert list(report["decoded_by_pyav"]) == ["av1"] and "av1.mp4" in report["decoded_by_pyav"]["av1"]
    assert {rule: entry["count"] for rule, entry in report["counts"].items()} == facts["counts"]
    assert report["counts"]["row left out: past the end of the video"] == {"count": 3, "clips": {"late": 3}}
    assert report["rows"] == {"wanted": 18, "made": 15} and report["cut_short"] == {}
    assert f"left out: 1 clips, 3 records, rows or tracks, see {folder / 'report.json'}" in said[-1]
    index = Index.open(folder)
    assert skipped(index) in said[-1]
    av1 = index.clips.index("av1")
    rows = np.flatnonzero(index.track_clip[index.track_of(np.arange(len(index)))] == av1)
    assert [number_in(index.crop(row)) for row in rows.tolist()] == [1, 2, 3]


def test_nothing_left_out_is_nothing_said(tmp_path):
    said = []
    folder = prepare(data_set(tmp_path, {"c": [("t", [1, 2])]}), "train", jobs=1, notify=said.append)
    assert "left out" not in said[-1].split(".")[0] and skipped(Index.open(folder)) == ""
    assert json.loads((folder / "report.json").read_text())["bad_clips"] == {}


def test_a_preparation_that_stopped_says_in_the_report_why(tmp_path):
    root = data_set(tmp_path, {f"c{n}": [("t", [1, 2])] for n in range(3)})
    (root / "videos" / "c1.mp4").write_text("text")
    with pytest.raises(ValueError, match=r"(?s)1 of 3 clips.*--max_bad_fraction; all are in .*clips/report\.json"):
        prepare(root, "train", jobs=1, notify=quiet)
    report = json.loads((root / "prepared" / "clean-64" / "train.clips" / "report.json").read_text())
    assert report["state"].startswith("stopped") and "not an mp4" in report["bad_clips"]["c1"]
    assert report["clips"]["used"] == 2


def test_a_video_that_opens_short_counts_as_bad_and_keeps_its_right_rows(tmp_path):
    """A matroska file cut short ends without complaint; the annotation knows better."""
    root = data_set(tmp_path, {"c": [("t", list(range(1, 100)))]}, videos=False)
    path = write_video(root / "videos" / "c.mkv", 100, g="10", bf="0")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"1 of 1 clips.*\n.*c\.mkv: ends before frame \d\d, its faces go on to"):
        prepare(root, "train", jobs=1, notify=quiet)
    folder = prepare(root, "train", jobs=1, notify=quiet, max_bad_fraction=1)
    index, report = Index.open(folder), json.loads((folder / "report.json").read_text())
    assert list(report["cut_short"]) == ["c"] and 10 < len(index) < 70
    assert [number_in(index.crop(row)) for row in range(len(index) - 1)] == index.frame.tolist()[:-1]


@pytest.mark.parametrize(("kind", "flags", "fraction"), [
    (TrainConfig, ["--max_bad_fraction", "0.2"], 0.2), (TrainConfig, [], 0.01),
    (InferConfig, ["--max_bad_fraction", "0"], 0.0), (InferConfig, [], 0.05)])
def test_the_fraction_is_a_flag_and_inference_takes_the_checkpoints(kind, flags, fraction):
    config = parse(kind, flags)
    prepared = config.prepare if kind is TrainConfig else config.preparation(PrepareConfig(max_bad_fraction=0.05))
    assert prepared.max_bad_fraction == fraction


# Media

KINDS: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda whole: b"", "text": lambda whole: b"not a video\n" * 99, "zeros": lambda whole: bytes(len(whole)),
    "half": lambda whole: whole[: len(whole) // 2], "a few bytes": lambda whole: whole[:48],
    "noise behind its magic": lambda whole: whole[:12] + random.Random(0).randbytes(len(whole) - 12),
    "no head": lambda whole: bytes(400) + whole[400:],
    "another's head": lambda whole: (b"\x1a\x45\xdf\xa3" * 3 if whole[:4] == b"RIFF" else b"RIFF\0\0\0\0AVI "
                                     ) + whole[12:]}
VIDEOS: dict[str, dict[str, str]] = {
    "plain.mp4": {}, "long.mp4": {"g": "300", "bf": "3"}, "intra.mkv": {"g": "1"}, "plain.mov": {},
    "open.mp4": {"x264-params": "open-gop=1:keyint=8:bframes=3"}, "old.avi": {"codec": "mpeg4"},
    "refresh.mkv": {"x264-params": "intra-refresh=1:keyint=10"},
    "hevc.mp4": {"codec": "libx265", "x265-params": "log-level=0"}}
MORE = {"vp9.mkv": {"codec": "libvpx-vp9", "deadline": "realtime"},
        "av1.mp4": {"codec": "libsvtav1", "preset": "6", "crf": "15"},
        "b.avi": {"codec": "mpeg4", "bf": "2"},
        "open5.mkv": {"codec": "libx265", "x265-params": "log-level=0:open-gop=1:keyint=8"}}


def clip_of(path: Path, folder: Path, frames: list[int]) -> ClipCrops:
    boxes_of = np.tile([0.0, 0, WIDTH, HEIGHT], (len(frames), 1))
    track = FaceTrack(path.stem, "t", "1", np.array(frames), boxes_of, np.zeros(len(frames), np.int8))
    return ClipCrops(path.stem, path, folder / path.stem, len(frames), CLEAN, 64, "decord", tracks=[track])


def test_eight_kinds_of_damage_to_eight_videos_are_all_reported(tmp_path):
    reported, wrong = 0, 0
    for name, options in VIDEOS.items():
        whole = write_video(tmp_path / name, 100, **options).read_bytes()
        for kind, damage in KINDS.items():
            path = tmp_path / "damaged" / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(damage(whole))
            clip = clip_of(path, tmp_path, list(range(100)))
            clip.bad.unlink(missing_ok=True)
            cut_clip(clip)
            if clip.bad.exists():
                reported += clip.bad.read_text().startswith(str(path))
                continue
            table = clip.rows().columns
            shard = clip.shard.read_bytes()
            numbers = [number_in(simplejpeg.decode_jpeg(shard[at:at + length])) for at, length in
                       zip(table["offset"], table["length"], strict=True)]
            wrong += numbers[:-1] != table["frame"].tolist()[:-1]      # cut inside the last, it shows what it can
            reported += clip.rows().notes.get("short", "").startswith(str(path))
            assert kind in ("half", "no head", "another's head"), (name, kind, len(numbers))
    assert (reported, wrong) == (64, 0)


def test_a_video_whose_frames_lie_nowhere_is_refused_by_name(tmp_path):
    """Its table of chunks says it is empty; decord counts frames all the same, and has a time of none."""
    whole = bytearray(write_video(tmp_path / "whole.mp4", 20).read_bytes())
    whole[whole.rindex(b"stco") + 11] = 0                              # the lowest byte of the number of chunks
    (tmp_path / "none.mp4").write_bytes(whole)
    with pytest.raises(ValueError, match="none.mp4: cannot be opened by decord: "):
        list(frames_in_order(tmp_path / "none.mp4", [0], "decord"))
    clip = clip_of(tmp_path / "none.mp4", tmp_path, list(range(20)))
    cut_clip(clip)
    assert clip.bad.read_text().startswith(str(tmp_path / "none.mp4"))


def test_twelve_encodings_give_no_wrong_frame(tmp_path):
    right = wrong = 0
    for name, options in {**VIDEOS, **MORE}.items():
        clip = clip_of(write_video(tmp_path / name, 50, **options), tmp_path / "clips", list(range(50)))
        clip.path.parent.mkdir(exist_ok=True)
        clip.path = clip.path.with_name(name)
        cut_clip(clip)
        table, shard = clip.rows().columns, clip.shard.read_bytes()
        assert len(table["frame"]) == 50, name
        for at, length, frame in zip(table["offset"], table["length"], table["frame"], strict=True):
            number = number_in(simplejpeg.decode_jpeg(shard[at:at + length]))
            right, wrong = right + (number == frame), wrong + (number != frame)
    assert len({**VIDEOS, **MORE}) == 12 and (right, wrong) == (600, 0)


class Deadly(ClipCrops):
    """Ends the process that is to cut it, as a decoder does at some damaged videos."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.abort, ()


def test_a_clip_that_takes_its_process_along_is_bad_and_the_others_are_cut(tmp_path):
    good = [clip_of(write_video(tmp_path / f"{name}.mp4", 5), tmp_path, [1, 2]) for name in "ab"]
    deadly = Deadly(**{**vars(clip_of(tmp_path / "deadly.mp4", tmp_path, [1])), "decoder": "pyav"})
    deadly.shard.with_name(f".{deadly.shard.name}.part-1").touch()      # it had begun
    assert {clip.uid for clip in door._in_processes([good[0], deadly, good[1]], 2)} == {"a", "b", "deadly"}
    assert all(clip.is_finished() for clip in good) and not deadly.unfinished()
    assert "deadly.mp4: the decoder's process died" in deadly.bad.read_text()


def test_what_could_open_something_else_is_refused_without_a_connection(tmp_path):
    whole = write_video(tmp_path / "v.mp4", 5)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        address = f"127.0.0.1:{server.getsockname()[1]}"
        playlist, script, link, pipe = (tmp_path / f"{name}.mp4" for name in ("playlist", "script", "link", "pipe"))
        playlist.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://{address}/a.ts\n")
        script.write_text(f"ffconcat version 1.0\nfile http://{address}/a.mp4\n")
        link.symlink_to(whole)
        os.mkfifo(pipe)
        refused = 0
        for name in (playlist, script, link, pipe, f"http://{address}/v.mp4", f"tcp://{address}",
                     f"concat:{whole}|{whole}", f"subfile,,start,0,end,0,,:{whole}"):
            for decoder in video.DECODERS:
                with pytest.raises(ValueError):
                    list(frames_in_order(name, [0], decoder))
            refused += 1
        with pytest.raises(TimeoutError):
            server.accept()
        with pytest.raises(av.error.FFmpegError):
            av.open(f"http://{address}/v.mp4", timeout=0.2)
        server.accept()[0].close()                                     # past the gate there would have been one
    assert refused == 8 and container_of(str(whole)) == "mov"


def test_an_image_that_is_none_is_refused_before_it_is_read(tmp_path):
    """A pipe would hang, a link lead out, and a header of 65500 x 65500 pixels ask for 12 GB."""
    names = [f"v/t/0000{n}_u{n}.jpg" for n in range(4)]
    root = challenge(tmp_path, names)
    folder = root / "videos_challenge" / "v" / "t"
    jpeg = bytearray((folder / "00000_u0.jpg").read_bytes())
    start = jpeg.index(b"\xff\xc0") + 5
    jpeg[start:start + 4] = b"\xff\xdc" * 2
    crops = {"00001_u1.jpg": ("is a link", lambda path: path.symlink_to(folder / "00000_u0.jpg")),
             "00002_u2.jpg": ("65500 x 65500 pixels", lambda path: path.write_bytes(jpeg))}
    for name, (message, plant) in crops.items():
        kept = (folder / name).read_bytes()
        (folder / name).unlink()
        plant(folder / name)
        with pytest.raises(ValueError, match=rf"1 of 1 clips.*\n.*{name}.*{message}"):
            prepare(root, "test", jobs=1, notify=quiet)
        (folder / name).unlink()
        (folder / name).write_bytes(kept)
    (folder / "00003_u3.jpg").unlink()
    os.mkfifo(folder / "00003_u3.jpg")
    (folder.parent / "out").symlink_to(folder)
    (root / "videos_challenge" / "w").symlink_to(folder.parent)
    with pytest.raises(ValueError, match=r"1 of 2 clips.*\n.*w: is a link -> link videos_challenge instead"):
        prepare(root, "test", jobs=1, notify=quiet)
    index = Index.open(prepare(root, "test", jobs=1, notify=quiet, max_bad_fraction=0.5))
    assert len(index) == 3 and index.facts["counts"] == {"file left out: not named like a crop": 1,
                                                         "track dropped: its folder is a link": 1}


@pytest.mark.parametrize("source", ["images", "faces"])
def test_extracted_images_that_lead_out_are_refused(tmp_path, source):
    root = data_set(tmp_path, {"c": [("t", [1, 2])]}, videos=False)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    inside = root / ("video_imgs" if source == "images" else "face_imgs")
    inside.mkdir()
    (inside / "c").symlink_to(elsewhere)
    with pytest.raises(ValueError, match=rf"{inside.name}/c: is a link -> link {inside.name} instead"):
        prepare(root, "train", jobs=1, notify=quiet)
    (inside / "c").unlink()
    folder = inside / "c" if source == "images" else inside / "c" / "t"
    folder.mkdir(parents=True)
    os.mkfifo(folder / ("img_00002.jpg" if source == "images" else "face_00002.jpg"))
    with pytest.raises(ValueError, match=r"_00002\.jpg: is not a regular file"):
        prepare(root, "train", jobs=1, notify=quiet)


LEFT_ALONE = """
import gc, sys, time
from gazepose.data import video
before, held = video._memory(), 0
for _ in range(5):
    reader = iter(video.frames_in_order(sys.argv[1], range(1000)))
    next(reader)
    deadline = time.monotonic() + (0.4 if held else 10)
    while time.monotonic() < deadline and (held or video._memory() - before < 30 << 20):
        time.sleep(0.05)
    held = video._memory() - before
    reader.close()
    gc.collect()
    print(held, video._memory() - before)
"""


def test_readers_left_alone_do_not_add_up(tmp_path):
    """decord decodes ahead while it waits; what one reader took, the next one uses again."""
    path = write_video(tmp_path / "v.mp4", 1000, preset="ultrafast")
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    done = subprocess.run([sys.executable, "-c", LEFT_ALONE, str(path)], env=env, capture_output=True, text=True,
                          check=True, timeout=60)                      # whose memory holds nothing that was used before
    held, left = zip(*(map(int, line.split()) for line in done.stdout.splitlines()), strict=True)
    assert held[0] >= 20 << 20                                         # it did run ahead
    assert max(left[1:]) - left[0] <= 50 << 20


# Names that lead out

PREFIXES = ["../", "..\\", "/", "//", "./../", "~/", "%2e%2e/", "..%2f", "..%5c", "..%c0%af", "\x00../", ".../...//",
            "file:///", "C:\\", "\\\\host\\", "..;/", " ../", "..\n/", "\uff0e\uff0e/", "\u2025/"]
GOALS = ["etc/passwd", "x", "", "a/../../b", "videos", "train.list", "x\u202egnp", "a" * 200]
ESCAPES = [prefix + goal for prefix in PREFIXES for goal in GOALS]


def refused(read: Callable[[], Any]) -> bool:
    try:
        return not read()
    except ValueError as error:
        return "->" in str(error)


def test_no_name_leads_out_of_its_folder(tmp_path):
    index = made(tmp_path / "prepared" / "train")
    contents = json.loads((index.folder / "index.json").read_text())
    weights = tmp_path / "weights"
    checkpoint.save_weights(weights, nn.Linear(1, 1), {})

    def of_list(text: str) -> Any:
        (tmp_path / "train.list").write_text(text + "\nc\n")
        return annotations.read_split(tmp_path / "train.list")[:-1]

    def of_annotation(text: str) -> Any:
        return annotations.raw_tracks(document(track_id=text)["videos"][0]["clips"][0], CLEAN, annotations.Counter())

    def of_table(place: int) -> Callable[[str], Any]:
        def read(text: str) -> Any:
            values = ["c", "t", "1", "0", "0", "9", "9"]
            values[place] = text
            line = io.StringIO()
            csv.writer(line).writerow(values)
            (tmp_path / "b.csv").write_text(f"{HEADER}\n{line.getvalue()}", newline="")
            return boxes.read_table(tmp_path / "b.csv")
        return read

    def of_index(kind: str) -> Callable[[str], Any]:
        def read(text: str) -> Any:
            changed = copy.deepcopy(contents)
            (changed["files"]["box"] if kind == "files" else changed["shards"][0])["file"] = text
            (index.folder / "index.json").write_text(json.dumps(changed))
            return Index.open(index.folder)
        return read

    def of_manifest(text: str) -> Any:
        (weights / checkpoint.MANIFEST).write_text(json.dumps({text: "0" * 64}))
        return checkpoint.verify(weights)

    def of_original(text: str) -> Any:
        folder = tmp_path / "original" / "c"
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{text.replace('/', '_')}.json"
        if "\x00" in name or len(name.encode()) > 255:
            return None                                                # no file system has such a name
        (folder / name).write_text("[]")
        found = annotations.original_tracks(tmp_path / "original", "c", annotations.Counter())
        (folder / name).unlink()
        return [raw for raw in found if not annotations.is_id(raw.track)]

    doors = {"split list": of_list, "annotation": of_annotation, "boxes: clip": of_table(0),
             "boxes: track": of_table(1),
             "priors": lambda text: parse_key(f"{text}:t:1") or parse_key(f"c:{text}:1") or parse_key(f"c:t:{text}:1"),
             "test crop": lambda text: parse_name(f"00001_{text}.jpg"), "index": of_index("files"),
             "shard": of_index("shards"), "manifest": of_manifest, "json_original": of_original}
    count = {name: sum(refused(lambda read=read, text=text: read(text)) for text in ESCAPES)
             for name, read in doors.items()}
    assert len(set(ESCAPES)) == 160 and count == dict.fromkeys(doors, 160)
    assert of_list("a-1") and of_annotation("a-1") and of_table(1)("a-1") and parse_name("00001_a-1.jpg")  # a good one


def test_folders_of_the_test_set_that_are_no_ids_are_not_read(tmp_path):
    challenge(tmp_path, ["v/t/a.jpg", "v v/t/a.jpg", "...v/t/a.jpg", "\uff0e\uff0e/t/a.jpg"])
    assert list_videos(tmp_path / "videos_challenge") == ["...v", "v"]


# Files that would run code

class Bomb:
    def __init__(self, fired: Path) -> None:
        self.fired = fired

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.fired),)


def test_a_bomb_in_any_file_that_is_read_does_not_go_off(tmp_path):
    fired = tmp_path / "fired"
    raw, objects = pickle.dumps(Bomb(fired)), np.array([Bomb(fired)], object)
    legacy, modern, arrays, column = (io.BytesIO() for _ in range(4))
    torch.save({"a": Bomb(fired)}, legacy, _use_new_zipfile_serialization=False)
    torch.save({"a": Bomb(fired)}, modern)
    np.savez(arrays, clip=objects, track=objects, frame=objects, label=objects, row=objects, score=objects, key=objects,
             counts=objects, told=objects, sizes=objects)
    np.save(column, objects)
    forms = {"raw": raw, "legacy": legacy.getvalue(), "zip": modern.getvalue(), "npz": arrays.getvalue(),
             "npy": column.getvalue()}
    world, run, weights = tmp_path / "world", tmp_path / "run", tmp_path / "weights"
    for folder in (world / "priors", world / "truth", world / "boxes", world / "split", run / "pred"):
        folder.mkdir(parents=True)
    checkpoint.save_weights(weights, nn.Linear(1, 1), {})
    index = made(tmp_path / "prepared" / "train")
    contents = json.loads((index.folder / "index.json").read_text())
    columns = [index.folder / entry["file"] for entry in contents["files"].values()]
    clip = clip_of(tmp_path / "c.mp4", tmp_path, [1])
    clip.shard.write_bytes(b"")

    def refuses(read: Callable[[Path], Any]) -> Callable[[Path], None]:
        def reads(path: Path) -> None:
            with pytest.raises((ValueError, FileNotFoundError, EOFError)):
                read(path)
                pytest.fail(f"{path} was read")
        return reads

    def examined(path: Path) -> None:
        findings = Findings()
        check_table(world, path.parent.name, "train", {}, findings)
        assert "file_unusable" in findings.by_kind

    def trained(name: str) -> Callable[[Path], None]:
        def resumes(path: Path) -> None:
            model = nn.Linear(1, 1)
            manifest = {file.name: sha256_of(file) for file in weights.iterdir() if file.suffix != ".json"}
            (weights / checkpoint.MANIFEST).write_text(json.dumps(manifest))
            write_json(weights / checkpoint.PROGRESS, {**asdict(checkpoint.Progress()), "scaler": None})
            checkpoint.resume(weights, model, torch.optim.AdamW(model.parameters()), None, 1)
        return resumes

    opens = refuses(lambda path: Index.open(index.folder))
    doors: list[tuple[Path, Callable[[Path], None]]] = [
        (tmp_path / "w.pth", refuses(read_published)), (tmp_path / "w.pth", refuses(checkpoint.read_model)),
        (tmp_path / "w.pth", refuses(lambda path: start_from(nn.Linear(1, 1), path))),
        (tmp_path / "hopenet.pkl", refuses(read_hopenet)), (tmp_path / "t.safetensors", refuses(read_tensors)),
        (weights / checkpoint.WEIGHTS, refuses(trained("weights"))),
        (weights / checkpoint.OPTIMIZER, refuses(trained("optimizer"))),
        (weights / checkpoint.MANIFEST, refuses(lambda path: checkpoint.read_model(weights))),
        (world / "priors" / "train.npz", refuses(read_arrays)), (world / "priors" / "train.npz", examined),
        (world / "truth" / "train.npz", examined),
        (world / "boxes" / "train.csv", refuses(boxes.read_table)),
        (world / "split" / "train.list", refuses(annotations.read_split)),
        (world / "av_train.json", refuses(annotations.read_object)),
        (world / "world.json", refuses(lambda path: find_source(world))),
        (world / "pose.json", refuses(lambda path: read_priors([path], "head_pose"))),
        (world / "pose.csv", refuses(lambda path: read_priors([path], "head_pose"))),
        (run / "config.json", refuses(lambda path: read_records(run))),
        (run / "pred" / "val.npz", refuses(lambda path: read_records(run))),
        (run / "pred" / "val.source.json", refuses(lambda path: shown_faces(run / "pred" / "val.npz", np.arange(1)))),
        (run / "pred" / "val.faces.npz", refuses(lambda path: read_copy(path, ""))),
        (run / "submission.json", refuses(lambda path: check(path, []))),
        (run / "test.csv", refuses(lambda path: csv_to_json(path, run / "out.json"))),
        (index.folder / "index.json", opens), *((path, opens) for path in columns),
        (clip.table, lambda path: pytest.fail("made") if clip.is_finished() else None),
        (tmp_path / "0000000000-0.npy", lambda path: pytest.fail("made") if Chunks(
            tmp_path, 2, 2, (3,), np.float32).files() != [None] else None)]
    tried = 0
    for path, read in doors:
        kept = path.read_bytes() if path.exists() else None
        for content in forms.values():
            path.write_bytes(content)
            read(path)
            tried += 1
        path.unlink()
        if kept is not None:
            path.write_bytes(kept)
    assert tried == len(doors) * len(forms) >= 150 and not fired.exists()
    for content in (raw, pickle.dumps(objects)):                       # and they were live ones
        pickle.loads(content)
        fired.rmdir()
    torch.load(io.BytesIO(forms["zip"]), weights_only=False)
    fired.rmdir()
    np.load(io.BytesIO(forms["npy"]), allow_pickle=True)
    assert fired.exists()


# Tensors

def packed(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def entry(begin: int, end: int, dtype: str = "F32", shape: Any = (1,)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


HOSTILE = {
    "a header past the end": packed({"weight": entry(0, 4)}, bytes(4), 1 << 40),
    "a header of 2**63 bytes": packed({"weight": entry(0, 4)}, bytes(4), (1 << 63) + 1),
    "a huge header": packed(b'{"weight": "' + b"x" * (MAX_HEADER + 1) + b'"}'),
    "too many entries": packed(b"{" + b",".join(b'"%x":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}' % n
                                                for n in range(MAX_TENSORS + 1)) + b"}"),
    "overlapping": packed({"weight": entry(0, 4), "bias": entry(2, 6)}, bytes(8)),
    "a hole": packed({"weight": entry(0, 4), "bias": entry(8, 12)}, bytes(12)),
    "past the data": packed({"weight": entry(0, 4), "bias": entry(4, 1 << 50)}, bytes(8)),
    "a shape that overflows": packed({"weight": entry(0, 4, shape=(1 << 40, 1 << 40))}, bytes(4)),
    "a negative shape": packed({"weight": entry(0, 4, shape=(-1,))}, bytes(4)),
    "an unknown dtype": packed({"weight": entry(0, 4, "F4")}, bytes(4)),
    "another dtype": save({"weight": torch.zeros(1, 1, dtype=torch.float64), "bias": torch.zeros(1)}),
    "a name twice": packed(b'{"weight":%b,"weight":%b}' % ((json.dumps(entry(0, 4)).encode(),) * 2), bytes(4)),
    "nested": packed(b'{"a":' * 100_000 + b"}" * 100_000), "a list": packed([]), "nothing": b"",
    "not finite": save({"weight": torch.full((1, 1), math.nan), "bias": torch.zeros(1)}),
    "cut short": save({"weight": torch.zeros(1, 1), "bias": torch.zeros(1)})[:-2]}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_tensors_are_refused_within_a_second(tmp_path, kind):
    (tmp_path / checkpoint.WEIGHTS).write_bytes(HOSTILE[kind])
    began = time.process_time()
    for read in (lambda: checkpoint.load_weights(tmp_path, nn.Linear(1, 1)),
                 lambda: read_hopenet(tmp_path / checkpoint.WEIGHTS) if kind != "another dtype" else int("x")):
        with pytest.raises(ValueError, match=r"model\.safetensors.* -> |invalid literal"):
            read()
    assert len(HOSTILE) >= 12 and time.process_time() - began < 1
    (tmp_path / checkpoint.WEIGHTS).write_bytes(save(nn.Linear(1, 1).state_dict()))
    checkpoint.load_weights(tmp_path, nn.Linear(1, 1))                 # a good one


@pytest.mark.parametrize("name", ["hf-hub:someone/model", "hf_hub:someone/model", "local-dir:/tmp", "../resnet18",
                                  "x" * 999])
def test_a_backbone_is_a_name_of_timms_own(name, monkeypatch):
    def connects(*_: Any) -> None:
        raise AssertionError("a connection")
    monkeypatch.setattr(socket.socket, "connect", connects)
    with pytest.raises(ValueError, match="backbone: timm has no"):
        create_backbone(name)


# JSON and settings

TRAPS = {"nan": b'{"step": NaN, "format": NaN, "version": NaN, "preset": "tiny", "seed": NaN}',
         "inf": b'{"seed": 1e999}',
         "twice": b'{"a": 1, "a": 2}', "deep": b'{"a":' * 200_000, "list": b"[1]", "number": b"7", "null": b"null",
         "empty": b"", "latin": b'{"a": "\xff"}', "long": b'{"a": ' + b"9" * 9000 + b"}", "text": b'"' + b"x" * 99}


@pytest.mark.parametrize("trap", TRAPS)
def test_a_trap_in_any_json_is_a_named_error(tmp_path, trap):
    content, weights, run = TRAPS[trap], tmp_path / "weights", tmp_path / "runs" / "one"
    checkpoint.save_weights(weights, nn.Linear(1, 1), {})
    run.mkdir(parents=True)
    index = made(tmp_path / "prepared" / "train")

    def manifest_anew() -> None:
        (weights / checkpoint.MANIFEST).write_text(json.dumps({
            name: sha256_of(weights / name) for name in (checkpoint.WEIGHTS, checkpoint.CONFIG)}))

    def resumes() -> None:
        model = nn.Linear(1, 1)
        checkpoint.resume(weights, model, torch.optim.SGD(model.parameters()), None, 1)

    doors = [(weights / checkpoint.PROGRESS, resumes), (index.folder / "index.json", lambda: Index.open(index.folder)),
             (weights / checkpoint.CONFIG, lambda: (manifest_anew(), checkpoint.read_model(weights))),
             (tmp_path / "world.json", lambda: find_source(tmp_path)),
             (tmp_path / "submission.json", lambda: check(tmp_path / "submission.json", [("v", "u", "t")])),
             (weights / checkpoint.MANIFEST, lambda: checkpoint.read_model(weights))]
    for path, read in doors:
        path.write_bytes(content)
        with pytest.raises(ValueError) as error:
            read()
        assert str(error.value).startswith(f"{path}: ") and " -> " in str(error.value), (path.name, error.value)
    (run / "status.json").write_bytes(content)
    if trap not in ("nan", "inf"):                                     # these are objects without a state
        with pytest.raises(ValueError, match=r"status\.json: .* -> "):
            checkpoint.newest_finished(run.parent)


ABSURD: list[Any] = [None, True, False, 0, -1, 1, 10**30, -(10**30), 1.5, math.nan, math.inf, -math.inf, "", "x",
                     "1e-4", "no", "../x", "\0", [], [1, 2], [None], {}, {"a": 1}, [[]] * 3]


def draws(chance: random.Random) -> Any:
    return copy.deepcopy(chance.choice(ABSURD))


def spoilt(value: Any, chance: random.Random) -> Any:
    """One place of nested collections replaced, removed, renamed or doubled."""
    places = [(value, key) for key in (value if isinstance(value, dict) else range(len(value)))]
    at = 0
    while at < len(places):
        held, key = places[at]
        inner, at = held[key], at + 1
        if isinstance(inner, dict | list):
            places += [(inner, k) for k in (inner if isinstance(inner, dict) else range(len(inner)))]
    if not places:
        return value
    held, key = chance.choice(places)
    deed = chance.randrange(8)
    if deed == 0:
        del held[key]
    elif deed == 1 and isinstance(held, dict):
        held[str(draws(chance))] = held.pop(key)
    elif deed == 2 and isinstance(held, list):
        held.append(copy.deepcopy(held[key]))
    else:
        held[key] = draws(chance)
    return value


def damaged(text: bytes, chance: random.Random, pieces: list[bytes]) -> bytes:
    content = bytearray(text)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(content) + 1)
        content[at:at + chance.choice([0, 1, 1, 3])] = chance.choice([*pieces, chance.randbytes(2), b""])
    return bytes(content[: chance.randrange(len(content) + 1)]) if chance.randrange(10) == 0 else bytes(content)


seeds = st.integers(0, 2**32)
TOKENS = [b"NaN", b"1e999", b"-1", b"null", b"{", b"}", b"[", b"]", b'"', b",", b"\\", b"\0", b"\xff", b"9" * 400,
          b"\n", b"NA", b"001", b"1_0", b";", b"\xe2\x80\xae", b"true", b"'", b"0x1F"]


def settled(count: int) -> Callable[[Any], Any]:
    return lambda test: settings(max_examples=count // 100, database=None)(test)


@settled(10_000)
@given(seeds)
def test_ten_thousand_spoilt_annotations_are_read_or_counted(seed):
    """Never an exception, never another clip, never a track that is none: 100 mutations for each seed."""
    chance = random.Random(seed)
    whole = document()
    with pytest.MonkeyPatch.context() as patch:
        for _ in range(100):
            content = copy.deepcopy(whole)
            for _ in range(chance.randint(1, 3)):
                content = spoilt(content, chance)
            patch.setattr(annotations, "read_object", lambda path, content=content, **how: content)
            for policy in POLICIES.values():
                (clip,) = annotations.read_clips("av.json", ["c"], policy)
                assert clip.uid == "c"
                for track in clip.tracks:
                    assert len(track.frames) == len(track.boxes) == len(track.labels) > 0
                    assert annotations.is_id(track.track) and np.isfinite(track.boxes).all()
                    assert set(track.labels.tolist()) <= {0, 1}


@settled(2_000)
@given(seeds)
def test_two_thousand_damaged_priors_are_refused_or_counted(tmp_path_factory, seed):
    chance, folder = random.Random(seed), tmp_path_factory.getbasetemp()
    text = json.dumps({**{f"c:t:{n}": [n, 0.5, -2] for n in range(4)}, "d": {"t": {"7": [1, 2, 3]}}}).encode()
    table = ",".join(["clip,track,frame", *CSV_COLUMNS["head_pose"]]).encode() + b"\nc,001,1,2,3,4\nc,NA,2,,,\n"
    for number in range(100):
        path = folder / ("p.json" if number % 4 else "p.csv")
        path.write_bytes(damaged(text if number % 4 else table, chance, TOKENS))
        try:
            entries = read_priors([path], "head_pose", max_bad_fraction=1)
        except ValueError as error:
            assert str(error).startswith(str(path)) and "->" in str(error)
        else:
            bad = sum(count for what, count in entries.counts.items() if what.startswith("bad"))
            assert len(entries.values) + bad == entries.counts["entries"] and not np.isinf(entries.values).any()


@settled(2_000)
@given(seeds)
def test_two_thousand_damaged_tables_are_refused_or_read(tmp_path_factory, seed):
    chance, folder = random.Random(seed), tmp_path_factory.getbasetemp()
    faces = (HEADER + ",label\nc,001,1,0,0,9,9,1\nc,NA,2,0.5,1e1,9,9,\n").encode()
    scores = b"v,00001,t,1,0.5\nv,u,t,1,0.25\n"
    sent = json.dumps({"version": "1.0", "challenge": "ego4d_looking_at_me", "results": [
        {"video_id": "v", "unique_id": "00001", "track_id": "t", "label": 1, "score": 0.5}]}).encode()
    for number in range(100):
        kind = ("faces", "scores", "sent")[number % 3]
        path = folder / f"{kind}.csv"
        path.write_bytes(damaged({"faces": faces, "scores": scores, "sent": sent}[kind], chance, TOKENS))
        try:
            if kind == "faces":
                for clip in boxes.read_boxes(path, CLEAN):
                    assert annotations.is_id(clip.uid) and all(np.isfinite(track.boxes).all() for track in clip.tracks)
            elif kind == "scores":
                csv_to_json(path, folder / "out.json")
            else:
                check(path, [("v", "00001", "t")])
        except ValueError as error:
            assert str(error).startswith(str(path)), (kind, error)


@settled(2_000)
@given(seeds)
def test_two_thousand_spoilt_settings_are_refused_or_right(seed):
    chance = random.Random(seed)
    kinds = (ModelConfig, DataConfig, PrepareConfig, checkpoint.Progress)
    whole = {kind: {**asdict(kind()), **({"rule": ["max_gap=3"]} if kind is PrepareConfig else {})} for kind in kinds}
    for number in range(100):
        kind = kinds[number % 3]
        facts = spoilt(copy.deepcopy(whole[kind]), chance)
        try:
            made_of = checkpoint.from_json(kind, facts, Path("config.json"))
        except ValueError as error:
            assert str(error).startswith(f"config.json: {kind.__name__}: ") and "->" in str(error)
        else:
            for name, hint in get_type_hints(kind).items():
                value = getattr(made_of, name)
                assert hint not in (int, bool, str, float) or type(value) is hint or (hint, type(value)) == (float, int)
                assert not isinstance(value, float) or math.isfinite(value)


@pytest.mark.parametrize("flags", [
    ["--lr", "nan"], ["--lr", "1e999"], ["--clip", "nan"], ["--min_lr", "nan"],
    ["--seed", "-1"], ["--seed", str(2**64)], ["--weights", "nan", "1"], ["--gaze_loss", "inf"],
    ["--label_loss", "nan"], ["--batch_size", "0"], ["--epochs", "-1"], ["--limit", "0"], ["--max_bad_fraction", "1.5"],
    ["--max_bad_fraction", "nan"], ["--split", "nan"], ["--crop_size", "9" * 40],
    ["--box_scale", "nan"], ["--max_gap", "-1"]])
def test_a_flag_that_cannot_be_is_refused_at_once(flags, capsys):
    with pytest.raises(SystemExit) as end:
        parse(TrainConfig, flags)
    assert end.value.code not in (0, None) and flags[0][2:] in f"{end.value.code}{capsys.readouterr()}"


# Numbers

def test_infinite_priors_never_reach_a_model(index_of, tmp_path):
    poses = np.zeros((5, 3), np.float32)
    poses[1], poses[3] = np.nan, (0, np.inf, 0)
    with pytest.raises(ValueError, match=r"column head_pose: row 3 is not finite"):
        add_columns(made(tmp_path / "train").folder, {"head_pose": poses})
    for name, tail in (("head_pose", (3,)), ("landmarks", (5, 3)), ("gaze", (2,))):
        index = copy.copy(index_of([range(5)]))
        values = np.full((5, *tail), np.nan, np.float32)
        values[3].flat[1] = -np.inf                                    # as a file that was written by other hands
        setattr(index, name, values)
        make_batch(index, WindowRule(), np.array([0, 1]), 0, 16)       # unknown is all right
        with pytest.raises(ValueError, match=rf"row 3 \(clip clip track track0 frame 3\): {name} is not finite -> "):
            make_batch(index, WindowRule(), np.array([0, 3, ~3]), 0, 16)


@pytest.mark.parametrize("change", [
    {"frame": np.array([1.0, np.nan, 3, 4, 5])}, {"frame": np.arange(4)}, {"track": np.array([["t"]] * 5)},
    {"head_pose": np.zeros((5, 2))}, {"head_pose": np.array([["a"] * 3] * 5)}, {"head_pose": np.full((5, 3), np.inf)},
    {"clip": np.zeros((0,), str)}, {"head_pose": np.zeros((4, 3))}])
def test_a_table_of_priors_that_does_not_fit_stops_preparation_by_name(tmp_path, change):
    root = data_set(tmp_path, {"c": [("t", [1, 2, 3, 4, 5])]})
    (root / "priors").mkdir()
    table = {"clip": np.array(["c"] * 5), "track": np.array(["t"] * 5), "frame": np.arange(1, 6),
             "head_pose": np.zeros((5, 3))}
    np.savez(root / "priors" / "train.npz", **{**table, **change})                 # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"priors/train\.npz: cannot be joined: "):
        prepare(root, "train", jobs=1, notify=quiet)
    np.savez(root / "priors" / "train.npz", **table)                               # type: ignore[arg-type]
    assert not np.isnan(Index.open(prepare(root, "train", jobs=1, notify=quiet)).head_pose).any()


def steps_of(index: Index, rows: int, batch_size: int, **changes: Any) -> list[Any]:
    torch.manual_seed(0)
    accelerator, model, config = Accelerator(cpu=True), Grey(), OptimConfig(lr=0.1)
    loader = make_loader(index, WindowRule(train=True, flip=False, random_crop=False), np.arange(rows),
                         batch_size=batch_size, crop_size=16)
    prepared = accelerator.prepare(model, make_optimizer(model, config), loader)
    for name, value in changes.items():
        nn.init.constant_(getattr(model.head, name), value)
    steps = train_steps(accelerator, *prepared, step=0, total=9, seed=0, loss=LossRule((0.5, 0.5)), optim=config)
    return list(chain.from_iterable(steps))


@pytest.mark.parametrize(("rows", "batch_size", "steps"), [(21, 20, 2), (1, 20, 1), (5, 64, 1), (40, 20, 2)])
def test_a_last_batch_of_one_and_a_batch_larger_than_the_data_are_learnt_from_once(index_of, rows, batch_size, steps):
    index = index_of([range(40)], label=[0, 1] * 20)
    taken = steps_of(index, rows, batch_size)
    assert len(taken) == steps and sum(step.samples for step in taken) == rows
    assert all(math.isfinite(step.loss) and not step.skipped for step in taken)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite_make_no_step(index_of, value):
    assert all(step.skipped for step in steps_of(index_of([range(40)], label=[0, 1] * 20), 40, 20, weight=value))


@pytest.mark.parametrize("labels", [[1, 1, -1], [0, 0], [], [-1, -1]])
def test_a_class_without_a_row_is_refused_with_the_counts_and_scored_as_unknown(labels):
    looking, away = labels.count(1), labels.count(0)
    with pytest.raises(ValueError, match=f"{looking} looking and {away} not looking -> both are needed"):
        class_weights(np.array(labels, np.int8))
    result = evaluate(np.array(labels, np.int8), np.linspace(0.1, 0.9, len(labels)))
    assert result["mAP"] is None and result["auroc"] is None


def test_every_row_is_validated_once_whatever_the_numbers(index_of):
    """As Accelerate deals the batches out: 21 sizes, 3 batch sizes, 1 and 2 processes."""
    index, tried = index_of([range(20)]), 0
    for rows in range(21):
        for batch_size in (1, 4, 64):
            for world in (1, 2):
                tried += 1
                if rows == 0:
                    with pytest.raises(ValueError, match="no rows to load"):
                        make_loader(index, WindowRule(), np.arange(0), batch_size=batch_size, crop_size=16)
                    continue
                order = BatchOrder(index, WindowRule(), np.arange(rows), batch_size, world)
                dealt = [list(BatchSamplerShard(order, world, process)) if world > 1 else list(order)
                         for process in range(world)]
                assert len({len(batches) for batches in dealt}) == 1                # none waits for another
                met = [row for batches in dealt for batch in batches for _, row in batch if row >= 0]
                assert sorted(met) == list(range(rows)), (rows, batch_size, world)
    assert tried == 126
