"""Goal 11: watching a video: what each part costs per picture, pictures a second on two cores, and flat memory.

It needs the model files (`python -m gazepose models`) and clips with faces, ../shared/real; without them it is skipped.
"""

import argparse
import shutil
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.measure import ROOT, Aim, Goal, MemoryWatch, cpu_seconds, in_child, main, parser
from gazepose.data.video_times import pictures_with_times
from gazepose.watch.detect import CutFinder, Detector
from gazepose.watch.faces import faces_of, read_pass, video_of
from gazepose.watch.jobs import Pass, make_tools
from gazepose.watch.video_pass import Tools, watch_video

SPEED = "720p with 2 to 3 faces: watched and drawn, pictures a second on two cores"
SPEED_CPU = "720p with 2 to 3 faces: the same by CPU-seconds, two cores at work"
GROWTH = "growth of memory from the second to the last fifth of a long video"
GOAL = Goal(11, "watching a video", (
    Aim(SPEED, least=25, unit="a second"), Aim(SPEED_CPU, least=25, unit="a second"),
    Aim(GROWTH, most=20, unit="MB")))
REAL = ROOT.parent / "shared" / "real"
CLIPS = {"720p": ("hysts_video01.mp4", (1280, 720), 1), "1080p": ("hysts_video02.mp4", (1920, 1080), 3)}
"""size -> clip, width and height, and how many of it side by side: 2.6 and 6 faces a picture"""
FLAGS = parser(GOAL)
FLAGS.add_argument("--minutes", type=float, default=20, help="length of the long video; default %(default)s")


def measure(options: argparse.Namespace) -> dict[str, Any]:
    try:
        if not (REAL / "clips").is_dir():
            raise FileNotFoundError(f"{REAL}: not there")
        from gazepose.priors.model_files import find
        models = {"yunet": find("yunet"), "face_landmarker": find("face_landmarker")}
    except FileNotFoundError as error:
        return {"measured": {}, "skipped": str(error)}
    cv2.setNumThreads(1)
    work, measured, parts = options.work / "watch", {}, {}
    shutil.rmtree(work, ignore_errors=True)
    frames = 30 if options.quick else 300
    for size, (clip, shape, copies) in CLIPS.items():
        video = encode(work / f"{size}.mp4", wide(REAL / "clips" / clip, shape, copies), frames)
        job = Pass("video", video, work / "parts", models, {})
        parts[size] = parts_of(job, video, min(frames, 60))
        parts[size]["together"] = together(job, video, work / size)
    measured[SPEED] = 1 / parts["720p"]["together"]["wall_s"]
    measured[SPEED_CPU] = 2 / parts["720p"]["together"]["cpu_s"]
    minutes = 0.1 if options.quick else options.minutes
    long = encode(work / "long.mp4", wide(REAL / "clips" / CLIPS["720p"][0], (640, 360), 1), round(minutes * 60 * 30))
    memory = in_child(long_pass, Pass("long", long, work / "parts", models, {}), work / "long")
    measured[GROWTH] = memory["growth_mb"]
    return {"measured": measured, "per_picture": parts, "memory": memory, "pictures": frames}


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
    import av
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


def parts_of(job: Pass, video: Path, frames: int) -> dict[str, Any]:
    """CPU-seconds per picture of each part by itself, and faces a picture."""
    tools = make_tools(job)
    assert isinstance(tools.detector, Detector)
    pictures: list[np.ndarray] = []
    found = {"decode": cpu(lambda: pictures.extend(
        shown.picture for shown in islice(pictures_with_times(video), frames)), frames)}
    cuts, faces = CutFinder(), []
    found["find cuts"] = cpu(lambda: [cuts.add(number / 30, shown) for number, shown in enumerate(pictures)], frames)
    found["detect, every second"] = cpu(
        lambda: faces.extend(tools.detector.find(shown) for shown in pictures[::2]), frames)
    found["landmarks"] = cpu(lambda: [tools.reader.read(shown, face[:4]) for shown, some in
                                      zip(pictures[::2], faces, strict=True) for face in some], frames / 2)
    found["faces"] = sum(map(len, faces)) / len(faces)
    return found


def cpu(work: Callable[[], Any], units: float) -> float:
    began = time.process_time()
    work()
    return (time.process_time() - began) / units


def together(job: Pass, video: Path, folder: Path) -> dict[str, float]:
    """Seconds per picture of the whole: pass and drawing, one after the other, as the command does it for one video."""
    from gazepose.watch import bouts
    from gazepose.watch.draw import draw_video
    tools = make_tools(job)
    began, used = time.perf_counter(), cpu_seconds()
    watch_video(video, folder, tools)
    watched, watched_cpu = time.perf_counter() - began, cpu_seconds() - used
    done = read_pass(folder)
    facts = video_of("video", video, done)
    table = bouts.smooth(faces_of("video", done, ["landmarks"]), videos=[facts])
    draw_video(facts, table, bouts.find_looks(table, [facts]), folder / "drawn.mp4", notify=lambda line: None)
    count = len(done.seconds)
    return {"wall_s": (time.perf_counter() - began) / count, "cpu_s": (cpu_seconds() - used) / count,
            "pass_wall_s": watched / count, "pass_cpu_s": watched_cpu / count}


class Cheap:
    """A reader that costs nothing: the memory of a long video is looked at, not its landmarks."""

    def __init__(self, reader: Any, video: Path) -> None:
        shown = next(pictures_with_times(video)).picture
        self.reading = reader.read(shown, np.array([100.0, 100, 100, 100]))

    def read(self, picture: np.ndarray, place: np.ndarray) -> Any:
        return self.reading


def long_pass(job: Pass, folder: Path) -> dict[str, float]:
    """Memory while a long video is watched."""
    tools = make_tools(job)
    cv2.setNumThreads(1)
    tools = Tools(Cheap(tools.reader, job.path), tools.detector, part_seconds=10)
    with MemoryWatch(0.25) as memory:
        watch_video(job.path, folder, tools)
    return {"peak_mb": memory.peak / 1e6, "growth_mb": memory.growth() / 1e6,
            "minutes": read_pass(folder).end / 60, "seconds": memory.seconds[-1]}


if __name__ == "__main__":
    main("watch", GOAL, measure, FLAGS)
