"""Goal 11: watching a video: what each part costs per picture, pictures a second on two cores, flat memory, and a kill.

It needs the model files (`python -m gazepose models`) and clips with faces, ../shared/real; without them it is skipped.
"""

import argparse
import multiprocessing
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from benchmarks.measure import ROOT, Aim, Goal, MemoryWatch, in_child, interleaved, main, parser, summaries
from gazepose.data.video_times import pictures_with_times
from gazepose.watch import bouts
from gazepose.watch.detect import CutFinder, Detector
from gazepose.watch.draw import _Drawn, _drawn, _Pictures, draw_video
from gazepose.watch.faces import faces_of, read_pass, video_of
from gazepose.watch.jobs import Pass, make_tools
from gazepose.watch.overlay import Overlay
from gazepose.watch.table import Table, Video
from gazepose.watch.video_pass import finished_parts, part_path, watch_video

SPEED = "720p with 2 to 3 faces: watched and drawn, pictures a second on two cores"
SPEED_CPU = "720p with 2 to 3 faces: CPU-milliseconds a picture"
SIX, SIX_CPU = "1080p with six faces: pictures a second", "1080p with six faces: CPU-milliseconds a picture"
GROWTH = "growth of memory from the second to the last fifth of a long video, watched"
GROWTH_DRAWN = "growth of memory from the second to the last fifth of a long video, drawn"
KILLED = "faces read twice, and parts of other bytes, after kill -9 in the middle"
GOAL = Goal(11, "watching a video", (
    Aim(SPEED, least=25, unit="a second"), Aim(SPEED_CPU, most=80, unit="ms"), Aim(SIX, unit="a second"),
    Aim(SIX_CPU, unit="ms"), Aim(GROWTH, most=20, unit="MB"), Aim(GROWTH_DRAWN, most=20, unit="MB"),
    Aim(KILLED, most=0, unit="")),
    how="No reference. Detection, tracking, landmarks, drawing and encoding are counted.")
REAL = ROOT.parent / "shared" / "real"
CLIPS = {"720p": ("hysts_video01.mp4", (1280, 720), 1), "1080p": ("hysts_video02.mp4", (1920, 1080), 3)}
"""size -> clip, width and height, and how many of it side by side: 2.6 and 6 faces a picture"""
UNIT_S = 8                   # seconds of video that are looped to make a long one
FLAGS = parser(GOAL)
FLAGS.add_argument("--minutes", type=float, default=5, help="length of the long video; default %(default)s")


def measure(options: argparse.Namespace) -> dict[str, Any]:
    try:
        if not (REAL / "clips").is_dir():
            raise FileNotFoundError(f"{REAL}: not there")
        from gazepose.priors.model_files import find
        models = {"yunet": find("yunet"), "face_landmarker": find("face_landmarker")}
    except FileNotFoundError as error:
        return {"measured": {}, "skipped": str(error)}
    cv2.setNumThreads(1)
    work, measured = options.work / "watch", {}
    shutil.rmtree(work, ignore_errors=True)
    frames = 30 if options.quick else 240
    ways: dict[str, Callable[[], float]] = {}
    for size, (clip, shape, copies) in CLIPS.items():
        video = encode(work / f"{size}.mp4", wide(REAL / "clips" / clip, shape, copies), frames)
        job = Pass(size, video, work / "parts", models, {}, part_seconds=1)
        ways |= whole(job, work / size) | {f"{size} {name}": way for name, way in parts_of(job, work / size).items()}
    timings = interleaved(ways, options.repeats)
    parts = summaries(timings)
    for size, speed, used in (("720p", SPEED, SPEED_CPU), ("1080p", SIX, SIX_CPU)):
        both = [parts[f"{size} {step}"] for step in ("watched", "drawn")]
        measured[speed] = 1 / sum(step["wall_s"] for step in both)
        measured[used] = 1000 * sum(step["cpu_s"] for step in both)
    job = Pass("720p", work / "720p.mp4", work / "parts", models, {}, part_seconds=1)
    kill = killed(job, work / "720p", work / "killed")
    measured[KILLED] = kill["read_twice"] + kill["other_bytes"]
    unit = encode(work / "unit.mp4", wide(REAL / "clips" / CLIPS["720p"][0], (640, 360), 1), UNIT_S * 30)
    count = 1 if options.quick else round(options.minutes * 60 / UNIT_S)
    long = Pass("long", looped(unit, work / "long.mp4", count), work / "parts", models, {}, part_seconds=10)
    memory = in_child(memory_of, long, work / "long")
    measured[GROWTH], measured[GROWTH_DRAWN] = (memory[step]["growth_mb"] for step in ("watched", "drawn"))
    return {"measured": measured, "per_picture": parts, "kill": kill, "memory": memory, "pictures": frames}


def wide(clip: Path, size: tuple[int, int], copies: int) -> Iterator[np.ndarray]:
    """The pictures of a clip, over and over, as `copies` beside each other, in a picture of that size."""
    width, height = size
    while True:
        for shown in pictures_with_times(clip):
            small = cv2.resize(shown.picture, (width // copies // 2 * 2, height // copies // 2 * 2),
                               interpolation=cv2.INTER_AREA)
            drawn = np.full((height, width, 3), 60, np.uint8)
            for copy in range(copies):
                drawn[:small.shape[0], copy * small.shape[1]:(copy + 1) * small.shape[1]] = small
            yield drawn


def encode(path: Path, pictures: Iterator[np.ndarray], frames: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=30, options={"preset": "veryfast", "crf": "20"})
        for number in range(frames):
            shown = next(pictures)
            if number == 0:
                stream.height, stream.width, stream.pix_fmt = *shown.shape[:2], "yuv420p"
                stream.codec_context.time_base = Fraction(1, 30)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(shown, format="rgb24")))
        container.mux(stream.encode())
    return path


def looped(unit: Path, path: Path, times: int) -> Path:
    """The same video over and over, without decoding it."""
    with av.open(str(unit)) as source, av.open(str(path), "w") as container:
        stream: Any = source.streams.video[0]
        copy: Any = container.add_stream_from_template(stream)
        packets = [(bytes(each), each.pts, each.dts, each.is_keyframe) for each in source.demux(stream) if each.size]
        for number in range(times):
            shift = round(number * UNIT_S / stream.time_base)
            for content, pts, dts, key in packets:
                packet: Any = av.Packet(content)
                packet.stream, packet.time_base, packet.is_keyframe = copy, stream.time_base, key
                packet.pts, packet.dts = pts + shift, dts + shift
                container.mux(packet)
    return path


def whole(job: Pass, folder: Path) -> dict[str, Callable[[], float]]:
    """Watching and drawing a video, as the command does it; each returns the number of pictures."""
    tools = make_tools(job)

    def watched() -> float:
        shutil.rmtree(folder, ignore_errors=True)
        watch_video(job.path, folder, tools)
        return len(read_pass(folder).seconds)

    def drawn() -> float:
        video, table, looks = results_of(job, folder)
        draw_video(video, table, looks, folder.with_suffix(".drawn.mp4"), notify=lambda line: None)
        return video.frames

    return {f"{job.name} watched": watched, f"{job.name} drawn": drawn}


def results_of(job: Pass, folder: Path) -> tuple[Video, Table, Table]:
    """Facts, faces and looks of a video that was watched."""
    done = read_pass(folder)
    video = video_of(job.name, job.path, done)
    table = bouts.smooth(faces_of(job.name, done, ["landmarks"]), videos=[video])
    return video, table, bouts.find_looks(table, [video])


def parts_of(job: Pass, folder: Path, count: int = 30) -> dict[str, Callable[[], float]]:
    """Each part by itself on the first pictures; each returns their number. `folder`: where the video was watched."""
    tools = make_tools(job)
    detector = tools.detector
    assert isinstance(detector, Detector)
    timed = list(islice(pictures_with_times(job.path), count))
    faces = [detector.find(shown.picture) for shown in timed]

    def every(work: Callable[[int], Any], step: int = 1) -> Callable[[], float]:
        def run() -> float:
            for number in range(0, len(timed), step):
                work(number)
            return len(timed)
        return run

    def cuts() -> float:
        finder = CutFinder()
        return float(sum(finder.add(shown.seconds, shown.picture) is not None for shown in timed))

    def draw() -> float:
        _, table, looks = results_of(job, folder)
        height, width, _ = timed[0].picture.shape
        overlay = Overlay(width, height, table, looks, False)
        ready[:] = _drawn(overlay, timed[0], iter(timed[1:]))
        return len(timed)

    def encoded() -> float:
        with av.open(str(folder.with_suffix(".encoded.mp4")), "w") as container:
            height, width = ready[0].planes.shape
            encoder = _Pictures(container, width, height * 2 // 3, 30)
            for shown in ready:
                encoder.add(shown)
            encoder.end()
        return len(timed)

    ready: list[_Drawn] = []
    return {"decode": lambda: len(list(map(len, islice(pictures_with_times(job.path), count)))), "find cuts": cuts,
            "detect, every second": every(lambda number: detector.find(timed[number].picture), 2),
            f"landmarks of {sum(map(len, faces)) / count:.1f} faces": every(lambda number: [
                tools.reader.read(timed[number].picture, face[:4]) for face in faces[number]]),
            "draw": draw, "encode": encoded}


def watch_into(job: Pass, folder: Path) -> None:
    """In a process that will be killed."""
    cv2.setNumThreads(1)
    watch_video(job.path, folder, make_tools(job))


def killed(job: Pass, whole_folder: Path, folder: Path) -> dict[str, int]:
    """Kill a pass as soon as a part is finished, go on, and compare with a pass that was not killed."""
    shutil.rmtree(folder, ignore_errors=True)
    process = multiprocessing.get_context("spawn").Process(target=watch_into, args=(job, folder))
    process.start()
    while process.is_alive() and not part_path(folder, 0).is_file():
        time.sleep(0.01)
    process.kill()
    process.join()
    done = sum(len(np.load(part)["frame"]) for part in finished_parts(folder))
    reader = Counting(make_tools(job).reader)
    watch_video(job.path, folder, replace(make_tools(job), reader=reader))
    parts = finished_parts(whole_folder)
    same = [part.read_bytes() == (folder / part.name).read_bytes() for part in parts]
    return {"read_before": done, "read_after": reader.calls, "parts": len(parts),
            "read_twice": done + reader.calls - len(read_pass(whole_folder).frame), "other_bytes": same.count(False)}


class Counting:
    """A reader that counts."""

    def __init__(self, reader: Any) -> None:
        self.reader, self.calls = reader, 0

    def read(self, *face: Any) -> Any:
        self.calls += 1
        return self.reader.read(*face)


class Cheap:
    """A reader that costs nothing: the memory of a long video is looked at, not its landmarks."""

    def __init__(self, reader: Any, video: Path) -> None:
        shown = next(pictures_with_times(video)).picture
        self.reading = reader.read(shown, np.array([100.0, 100, 100, 100]))

    def read(self, *face: Any) -> Any:
        return self.reading


def memory_of(job: Pass, folder: Path) -> dict[str, dict[str, float]]:
    """Memory while a long video is watched, and while it is drawn."""
    tools = make_tools(job)
    cv2.setNumThreads(1)
    tools, found = replace(tools, reader=Cheap(tools.reader, job.path)), {}
    with MemoryWatch(0.25) as watched:
        watch_video(job.path, folder, tools)
    video, table, looks = results_of(job, folder)
    with MemoryWatch(0.25) as drawn:
        draw_video(video, table, looks, folder.with_suffix(".drawn.mp4"), notify=lambda line: None)
    for name, memory in (("watched", watched), ("drawn", drawn)):
        found[name] = {"peak_mb": memory.peak / 1e6, "growth_mb": memory.growth() / 1e6, "minutes": video.seconds / 60,
                       "seconds": memory.seconds[-1]}
    return found


if __name__ == "__main__":
    main("watch", GOAL, measure, FLAGS)
