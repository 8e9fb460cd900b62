"""Damaged and hostile media: a named error or a counted skip, and never a wrong frame.
"""

import json
import os
import random
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import simplejpeg
from making import VIDEOS, challenge, clip_of, data_set, number_in, prepare, prepared_index, write_video

from gazepose.config import InferConfig, TrainConfig, parse
from gazepose.data import clip_crops, video
from gazepose.data import prepare as prepare_module
from gazepose.data.clip_crops import cut_clip
from gazepose.data.clip_files import ClipCrops
from gazepose.data.containers import container_of
from gazepose.data.index import Index
from gazepose.data.outcome import skipped
from gazepose.data.prepare import PrepareConfig
from gazepose.data.tracks import POLICIES
from gazepose.data.video import frames_in_order

CLEAN = POLICIES["clean"]


# What was left out

def test_the_report_lists_what_was_left_out(tmp_path):
    root = data_set(tmp_path, {name: [("t", [1, 2, 3])] for name in ("whole", "late", "gone", "av1")}, frames=10)
    content = (root / "json" / "av_train.json").read_text()
    annotated = json.loads(content)
    annotated["videos"][0]["clips"][1]["persons"][1]["tracking_paths"][0]["track"][2]["frame"] = 12
    (root / "json" / "av_train.json").write_text(json.dumps(annotated))
    (root / "videos" / "gone.mp4").unlink()
    write_video(root / "videos" / "av1.mp4", 10, "libsvtav1", preset="6", crf="15")
    messages = []
    folder = prepare(root, "train", notify=messages.append, max_bad_fraction=0.25)
    report, facts = json.loads((folder / "report.json").read_text()), Index.open(folder).facts
    assert report["state"] == "prepared" and report["policy"] == "clean" and report["split"] == "train"
    assert report["clips"] == {"listed": 4, "used": 3, "bad": 1, "max_bad_fraction": 0.25}
    assert report["bad_clips"] == facts["bad_clips"] and report["bad_clips"]["gone"].endswith("gone.mp4: no such video")
    assert list(report["decoded_by_pyav"]) == ["av1"] and "av1.mp4" in report["decoded_by_pyav"]["av1"]
    assert {rule: entry["count"] for rule, entry in report["counts"].items()} == facts["counts"]
    assert report["counts"]["row left out: past the end of the video"] == {"count": 3, "clips": {"late": 3}}
    assert report["rows"] == {"wanted": 18, "made": 15} and report["cut_short"] == {}
    assert f"left out: 1 clip, 3 records, rows or tracks, see {folder / 'report.json'}" in messages[-1]
    index = Index.open(folder)
    assert skipped(index) in messages[-1]
    av1 = index.clips.index("av1")
    rows = np.flatnonzero(index.track_clip[index.track_of(np.arange(len(index)))] == av1)
    assert [number_in(index.crop(row)) for row in rows.tolist()] == [1, 2, 3]


def test_without_omissions_the_message_names_none(tmp_path):
    messages = []
    folder = prepare(data_set(tmp_path, {"c": [("t", [1, 2])]}), "train", notify=messages.append)
    assert "left out" not in messages[-1].split(".")[0] and skipped(Index.open(folder)) == ""
    assert json.loads((folder / "report.json").read_text())["bad_clips"] == {}


def test_a_preparation_that_stopped_says_in_the_report_why(tmp_path):
    root = data_set(tmp_path, {f"c{n}": [("t", [1, 2])] for n in range(3)})
    (root / "videos" / "c1.mp4").write_text("text")
    with pytest.raises(ValueError, match=r"(?s)1 of 3 clips.*--max_bad_fraction; all are in .*train/report\.json"):
        prepare(root, "train")
    report = json.loads((root / "prepared" / "clean-64" / "train" / "report.json").read_text())
    assert report["state"].startswith("stopped") and "not an mp4" in report["bad_clips"]["c1"]
    assert report["clips"]["used"] == 2


def test_a_video_that_opens_short_counts_as_bad_and_keeps_its_right_rows(tmp_path):
    """A matroska file cut short ends without complaint; the annotation knows better."""
    root = data_set(tmp_path, {"c": [("t", list(range(1, 100)))]}, videos=False)
    path = write_video(root / "videos" / "c.mkv", 100, g="10", bf="0")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"1 of 1 clip .*\n.*c\.mkv: ends before frame \d\d, its faces go on to"):
        prepare(root, "train")
    folder = prepare(root, "train", max_bad_fraction=1)
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

def reason(clip: ClipCrops) -> str:
    return json.loads(clip.bad.read_text())["reason"]


def crops_of(clip: ClipCrops) -> bytes:
    return clip.path.with_name(clip.rows().shard["file"]).read_bytes()


KINDS: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda whole: b"", "text": lambda whole: b"not a video\n" * 99, "zeros": lambda whole: bytes(len(whole)),
    "half": lambda whole: whole[: len(whole) // 2], "a few bytes": lambda whole: whole[:48],
    "noise behind its magic": lambda whole: whole[:12] + random.Random(0).randbytes(len(whole) - 12),
    "no head": lambda whole: bytes(400) + whole[400:],
    "another's head": lambda whole: (b"\x1a\x45\xdf\xa3" * 3 if whole[:4] == b"RIFF" else b"RIFF\0\0\0\0AVI "
                                     ) + whole[12:]}
MORE = {"vp9.mkv": {"codec": "libvpx-vp9", "deadline": "realtime"},
        "av1.mp4": {"codec": "libsvtav1", "preset": "6", "crf": "15"},
        "b.avi": {"codec": "mpeg4", "bf": "2"},
        "open5.mkv": {"codec": "libx265", "x265-params": "log-level=0:open-gop=1:keyint=8"}}


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
                reported += reason(clip).startswith(str(path))
                continue
            table = clip.rows().columns
            shard = crops_of(clip)
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
    assert reason(clip).startswith(str(tmp_path / "none.mp4"))


def test_twelve_encodings_give_no_wrong_frame(tmp_path):
    right = wrong = 0
    for name, options in {**VIDEOS, **MORE}.items():
        clip = clip_of(write_video(tmp_path / name, 50, **options), tmp_path / "clips", list(range(50)))
        clip.path.parent.mkdir(exist_ok=True)
        clip.path = clip.path.with_name(name)
        cut_clip(clip)
        table, shard = clip.rows().columns, crops_of(clip)
        assert len(table["frame"]) == 50, name
        for at, length, frame in zip(table["offset"], table["length"], table["frame"], strict=True):
            number = number_in(simplejpeg.decode_jpeg(shard[at:at + length]))
            right, wrong = right + (number == frame), wrong + (number != frame)
    assert len({**VIDEOS, **MORE}) == 12 and (right, wrong) == (600, 0)


def test_an_error_that_is_not_the_files_is_raised_and_marks_no_clip(tmp_path, monkeypatch):
    clip = clip_of(write_video(tmp_path / "c.mp4", 20), tmp_path / "clips", list(range(20)))
    for error in (ValueError("shapes do not match"), FileNotFoundError("clips/other")):
        def fails(*_, error=error):
            raise error
        monkeypatch.setattr(clip_crops, "cut_face", fails)
        with pytest.raises(type(error), match=str(error)):
            cut_clip(clip)
        assert not clip.bad.exists() and not clip.table.exists()


class Deadly(ClipCrops):
    """Ends the process that is to cut it, as a decoder does at some damaged videos."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.abort, ()


def test_a_clip_that_takes_its_process_along_is_bad_and_the_others_are_cut(tmp_path):
    good = [clip_of(write_video(tmp_path / f"{name}.mp4", 5), tmp_path, [1, 2]) for name in "ab"]
    deadly = Deadly(**{**vars(clip_of(tmp_path / "deadly.mp4", tmp_path, [1])), "decoder": "pyav"})
    deadly.path.with_name(f".{deadly.shard_name}.part-1").touch()      # it had begun
    assert {clip.uid for clip in prepare_module._in_processes([good[0], deadly, good[1]], 2)} == {"a", "b", "deadly"}
    assert all(clip.is_finished() for clip in good) and not deadly.unfinished()
    assert "deadly.mp4: the decoder's process died" in reason(deadly) and reason(deadly).endswith(
        "-> download the video again")
    again = clip_of(write_video(tmp_path / "deadly.mp4", 5), tmp_path, [1])
    assert [clip.is_finished() for clip in prepare_module._in_this_process([again])] == [True]


def test_after_a_process_that_died_before_it_cut_anything_the_next_run_cuts_the_rest(tmp_path):
    clips = [clip_of(write_video(tmp_path / f"{name}.mp4", 5), tmp_path, [1, 2]) for name in "ab"]
    deadly = Deadly(**vars(clips[1]))
    with pytest.raises(RuntimeError, match=r"died before it cut anything of b -> run again, .*finished clips are kept"):
        for clip in prepare_module._in_processes([clips[0], deadly], 1):
            assert clip is clips[0] and clip.is_finished()
    assert [clip.is_finished() for clip in clips] == [True, False]
    assert [clip.is_finished() for clip in prepare_module._in_this_process(clips[1:])] == [True]


def test_what_could_open_something_else_is_refused_without_a_connection(tmp_path, monkeypatch):
    whole = write_video(tmp_path / "v.mp4", 5)
    monkeypatch.chdir(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        address = f"127.0.0.1:{server.getsockname()[1]}"
        playlist, script, link, pipe = (tmp_path / f"{name}.mp4" for name in ("playlist", "script", "link", "pipe"))
        playlist.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://{address}/a.ts\n")
        script.write_text(f"ffconcat version 1.0\nfile http://{address}/a.mp4\n")
        link.symlink_to(whole)
        os.mkfifo(pipe)
        refused = {playlist: "not an mp4", script: "not an mp4", link: "is a link", pipe: "not a regular file",
                   tmp_path: "not a regular file", "v.mp4": "absolute path", f"http://{address}/v.mp4": "absolute path",
                   f"tcp://{address}": "absolute path", f"concat:{whole}|{whole}": "absolute path",
                   f"subfile,,start,0,end,0,,:{whole}": "absolute path"}
        for name, message in refused.items():
            for decoder in video.DECODERS:
                with pytest.raises(ValueError, match=message):
                    list(frames_in_order(name, [0], decoder))
        with pytest.raises(TimeoutError):
            server.accept()
        with pytest.raises(av.error.FFmpegError):
            av.open(f"http://{address}/v.mp4", timeout=0.2)
        server.accept()[0].close()                                     # without the refusal there would have been one
    assert container_of(str(whole)) == "mov"
    with pytest.raises(FileNotFoundError, match=r"gone\.mp4: no such video"):
        frames_in_order(tmp_path / "gone.mp4", [0])


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
        jpeg_bytes = (folder / name).read_bytes()
        (folder / name).unlink()
        plant(folder / name)
        with pytest.raises(ValueError, match=rf"1 of 1 clip .*\n.*{name}.*{message}"):
            prepare(root, "test")
        (folder / name).unlink()
        (folder / name).write_bytes(jpeg_bytes)
    (folder / "00003_u3.jpg").unlink()
    os.mkfifo(folder / "00003_u3.jpg")
    (folder.parent / "out").symlink_to(folder)
    (root / "videos_challenge" / "w").symlink_to(folder.parent)
    with pytest.raises(ValueError, match=r"1 of 2 clips.*\n.*w: is a link -> link videos_challenge instead"):
        prepare(root, "test")
    index = prepared_index(root, "test", max_bad_fraction=0.5)
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
        prepare(root, "train")
    (inside / "c").unlink()
    folder = inside / "c" if source == "images" else inside / "c" / "t"
    folder.mkdir(parents=True)
    os.mkfifo(folder / ("img_00002.jpg" if source == "images" else "face_00002.jpg"))
    with pytest.raises(ValueError, match=r"_00002\.jpg: is not a regular file"):
        prepare(root, "train")


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
