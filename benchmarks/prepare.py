"""Goal 1: a minute of 1080p30 video to crops, against every frame to JPEG and then crops; decoding is the floor.

The floor of each decoder is its own decoding alone. decord converts every picture to RGB, so its floor is twice that of
PyAV. Besides H.264, the same footage is prepared as VP9."""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import av
import numpy as np

from benchmarks.material import FACES, QUIET, data_set
from benchmarks.measure import Aim, Goal, MemoryWatch, both_clocks, in_child, interleaved, main, summaries
from benchmarks.reference import pictures as reference
from gazepose.data.index import Index
from gazepose.data.prepare import PrepareConfig, prepare
from gazepose.data.video import DECODERS

GROWTH_MB = "growth of memory over a five-minute clip, {}"
DECORD, PYAV = "decord against two passes, per CPU-second", "PyAV against two passes, per CPU-second"
FLOORS = {"pyav": "PyAV against decoding alone with PyAV", "decord": "decord against decoding alone with decord"}
VP9 = "PyAV against decoding alone with PyAV, VP9"
BYTES, FILES = "bytes a crop", "files a clip, one clip prepared"
GOAL = Goal(1, "preparation", (
    Aim(DECORD, least=3.5), Aim(PYAV, least=5),
    Aim(FLOORS["pyav"], most=1.2, unit="times the CPU-seconds"),
    Aim(FLOORS["decord"], most=1.35, unit="times the CPU-seconds"), Aim(VP9, most=1.2, unit="times the CPU-seconds"),
    Aim(BYTES, most=12288, unit="bytes"), Aim(FILES, most=32, unit="files"),
    *(Aim(GROWTH_MB.format(decoder), most=50, unit="MB") for decoder in DECODERS)),
    how="Two passes that write every frame and then every face as a JPEG file; 1080p, one process on either side; "
        "decoding is counted on both.")


def decode_only(video: Path) -> int:
    """Every frame decoded and nothing done with it."""
    with av.open(str(video)) as container:
        return sum(1 for _ in container.decode(video=0))


def decord_only(video: Path) -> int:
    """As decode_only, by decord."""
    import decord

    reader = decord.VideoReader(str(video), num_threads=1)
    for _ in range(len(reader)):
        reader.next()
    return len(reader)


def remembered(root: str, decoder: str) -> tuple[int, int, list[int]]:
    """(growth, peak, samples) of the memory of a process that prepares the clip."""
    shutil.rmtree(Path(root) / "prepared", ignore_errors=True)
    with MemoryWatch(every=0.05) as watch:
        prepare(root, "train", PrepareConfig(crop_size=FACES, decoder=decoder), QUIET, jobs=1)
    return watch.growth(), watch.peak, watch.bytes


def measure(options: argparse.Namespace) -> dict[str, Any]:
    root = data_set(options.work, options.quick, minutes=1)
    video = root / "videos" / "clip-0.mp4"
    annotated = json.loads((root / "json" / "av_train.json").read_text())["videos"][0]["clips"][0]
    frames, prepared = decode_only(video), root / "prepared" / f"clean-{FACES}" / "train"
    minutes = frames / 1800
    crops: dict[str, int] = {}
    plain = options.work / "two-passes"
    vp9 = data_set(options.work, options.quick, minutes=1, codec="libvpx-vp9")
    vp9_video = vp9 / "videos" / "clip-0.mp4"

    def ours(decoder: str, data: Path = root) -> float:
        shutil.rmtree(data / "prepared", ignore_errors=True)
        made = prepare(data, "train", PrepareConfig(crop_size=FACES, decoder=decoder), QUIET, jobs=1)
        crops[decoder] = len(Index.open(made))
        return minutes

    def two_passes(by_picture: bool) -> float:
        shutil.rmtree(plain, ignore_errors=True)
        assert reference.extract_frames(video, plain / "frames") == frames
        crops["two passes"] = reference.crop_faces(plain / "frames", annotated, plain / "faces", by_picture)
        return minutes

    timings = interleaved({
        "two passes": lambda: two_passes(False), "two passes, a picture read once": lambda: two_passes(True),
        "decord": lambda: ours("decord"), "pyav": lambda: ours("pyav"), "decoding": lambda: decode_only(video) / 1800,
        "decoding, decord": lambda: decord_only(video) / 1800, "pyav, VP9": lambda: ours("pyav", vp9),
        "decoding, VP9": lambda: decode_only(vp9_video) / 1800},
        options.repeats, warm_up=False)
    index = Index.open(prepared)
    files = sum(1 for path in index.folder.rglob("*") if path.is_file())
    plain_files = {folder: sum(1 for path in (plain / folder).rglob("*") if path.is_file())
                   for folder in ("frames", "faces")}
    plain_bytes = sum(path.stat().st_size for path in (plain / "frames").iterdir())
    shutil.rmtree(plain)
    long = data_set(options.work, options.quick, minutes=5)
    memory = {decoder: in_child(remembered, str(long), decoder) for decoder in DECODERS}
    shutil.rmtree(long / "prepared")
    ratio = {name: both_clocks(timings["two passes"], timings[name]) for name in DECODERS}
    floor = {name: both_clocks(timings[ours], timings[alone])["cpu"] for name, ours, alone in (
        (FLOORS["pyav"], "pyav", "decoding"), (FLOORS["decord"], "decord", "decoding, decord"),
        (VP9, "pyav, VP9", "decoding, VP9"))}
    return {"measured": {
        DECORD: ratio["decord"]["cpu"], PYAV: ratio["pyav"]["cpu"],
        **floor, BYTES: float(np.mean(index.length)), FILES: files,
        **{GROWTH_MB.format(name): growth / 1e6 for name, (growth, _, _) in memory.items()}},
        "ratio": ratio, "seconds_per_minute_of_video": summaries(timings),
        "frames": frames, "faces_per_frame": len(index) / frames, "crops": crops, "video_bytes": video.stat().st_size,
        "reference_files": plain_files, "reference_frame_bytes": plain_bytes,
        "memory_peak_bytes": {name: peak for name, (_, peak, _) in memory.items()},
        "memory_bytes": {name: samples[:: max(1, len(samples) // 200)] for name, (_, _, samples) in memory.items()}}


if __name__ == "__main__":
    main("prepare", GOAL, measure)
