"""One pass over one video: its pictures are decoded once, in order; faces are found, followed and read. Resumable.

What is finished is written as a part for each minute of video, with all that the next part needs to go on. A pass that
was killed goes on after its last part and gives the same bytes. faces.py makes the table of faces from the parts.

One thread decodes and detects, another follows the faces, and READERS read them, so one video keeps two cores busy.
"""

import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np

from gazepose.data.clip_crops import alive
from gazepose.data.video_times import TimedPicture, pictures_with_times
from gazepose.io import read_arrays, write_arrays
from gazepose.priors.face_landmarker import five_points
from gazepose.watch.detect import BOX, COLUMNS, POINTS, SCORE_AT, CutFinder
from gazepose.watch.tracker import Tracker

VERSION = 2                  # of what a part holds; a new one makes all parts anew
PART_SECONDS = 60.0          # of video in a part
MOST_SKIPPED = 3             # pictures in a row that the detector may skip; they are held in memory
AHEAD = 2                    # pictures that are decoded before they are needed
READERS = 2                  # threads that read faces; LiteRT lets others run meanwhile
EARLY = 1e-4                 # seconds by which times may be rounded
READING = ("presence", "yaw", "pitch", "roll", "eye_x", "eye_y", "blink", "light", "fit", "eye")
"""numbers of a face's reading by the landmark network (priors/face_landmarker.py) that a part holds"""
POSE = slice(1, 4)
FROM_YUNET = (2, 1, 0, 4, 3)             # nose, left and right eye, mouth corners, out of the detector's five points
T = TypeVar("T")


class Finder(Protocol):
    """Finds faces, as detect.Detector does: float64 [n, COLUMNS]."""

    def find(self, picture: np.ndarray) -> np.ndarray: ...


class Scorer(Protocol):
    """Scores faces from their pictures and those before and after (scorers.py)."""

    def add(self, row: int, track: int, timed: TimedPicture, box: np.ndarray, pose: np.ndarray, points: np.ndarray
            ) -> None: ...
    def end_all(self) -> None: ...
    def take(self, seconds: float) -> tuple[np.ndarray, np.ndarray]: ...
    def state(self) -> dict[str, np.ndarray]: ...
    def restore(self, state: dict[str, np.ndarray]) -> None: ...


@dataclass
class Tools:
    """What a pass works with."""

    reader: Any
    """has `read(picture, place)`, as priors.face_landmarker.FaceLandmarker"""
    detector: Finder | None = None
    """None: the boxes are given"""
    boxes: dict[int, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    """the user's boxes of each frame: (numbers of their tracks, int64 [n]; x, y, width, height, float64 [n, 4])"""
    scorers: dict[str, Scorer] = field(default_factory=dict)
    detect_seconds: float = 1 / 15
    """seconds between two pictures in which faces are searched; between them boxes are interpolated. 0: all pictures"""
    part_seconds: float = PART_SECONDS


_Faces = tuple[TimedPicture, np.ndarray, np.ndarray]
"""a picture, the numbers of its tracks, int64 [n], and their faces, float64 [n, COLUMNS]"""


class Seen(NamedTuple):
    """A picture with what the first thread found in it."""

    timed: TimedPicture
    cut: bool
    faces: np.ndarray | None
    """float64 [n, COLUMNS]; None: faces were not searched"""
    tracks: np.ndarray | None
    """of given boxes, int64 [n]"""
    state: dict[str, np.ndarray] | None
    """where a part may end after this picture: what the first thread needs to go on"""


def watch_video(path: Path, folder: Path, tools: Tools, report: Callable[[float], None] = lambda seconds: None) -> None:
    """Write the parts of a video that are missing in `folder`.

    Args:
        report: is called with the seconds of video that are done, once a second of video.

    Raises:
        As data.video_times.pictures_with_times. Parts that are finished stay.
    """
    parts = finished_parts(folder)
    part = read_part(parts[-1]) if parts else {}
    if part and part["last"]:
        return
    start = int(part["next_frame"]) if part else 0
    notes: list[str] = []
    pictures = pictures_with_times(path, start, notes.append)
    report(float(part["seconds"][-1]) if part else 0.0)
    told = -1.0
    alive()
    with ThreadPoolExecutor(READERS) as readers:
        builder = _Builder(tools, part, readers)
        for seen in ahead(_look(pictures, tools, _prefixed(part, "look."))):
            alive()
            builder.add(seen)
            if seen.timed.seconds - told >= 1:
                told = seen.timed.seconds
                report(told)
            if seen.state is not None:
                write_arrays(part_path(folder, len(parts)), builder.part(seen.state), compressed=True)
                parts.append(part_path(folder, len(parts)))
    last = builder.part({}, last=True)
    last["notes"] = np.frombuffer("\n".join(notes).encode(), np.uint8)
    write_arrays(part_path(folder, len(parts)), last, compressed=True)
    alive(reads=False)


# ---- first thread: decode, find cuts and faces

def _look(pictures: Iterator[TimedPicture], tools: Tools, state: dict[str, np.ndarray]) -> Iterator[Seen]:
    """Find cuts and faces. Faces are searched in the first and the last picture of each shot, and in between at least
    every `detect_seconds` or each MOST_SKIPPED + 1 pictures."""
    cuts, searched, border = CutFinder(), -np.inf, tools.part_seconds
    if state:
        cuts.restore(state)
        searched, border = float(state["searched"]), float(state["border"])
    skipped: list[Seen] = []
    for timed in pictures:
        cut = cuts.add(timed.seconds, timed.picture)
        due = cut or timed.seconds - searched >= tools.detect_seconds - EARLY or len(skipped) >= MOST_SKIPPED
        if tools.detector is not None and not due:
            skipped.append(Seen(timed, cut, None, None, None))
            continue
        if cut:
            yield from _with_last(skipped, tools)
        else:
            yield from skipped
        skipped, searched, now = [], timed.seconds, None
        if timed.seconds >= border:
            border = (timed.seconds // tools.part_seconds + 1) * tools.part_seconds
            now = {**cuts.state(), "searched": np.array(searched), "border": np.array(border)}
        yield _searched(timed, cut, tools, now)
    yield from _with_last(skipped, tools)


def _with_last(skipped: list[Seen], tools: Tools) -> Iterator[Seen]:
    """Skipped pictures at the end of a shot: faces are searched in the last of them."""
    yield from skipped[:-1]
    for seen in skipped[-1:]:
        yield _searched(seen.timed, seen.cut, tools, None)


def _searched(timed: TimedPicture, cut: bool, tools: Tools, state: dict[str, np.ndarray] | None) -> Seen:
    if tools.detector is not None:
        return Seen(timed, cut, tools.detector.find(timed.picture), None, state)
    tracks, boxes = tools.boxes.get(timed.number, (np.zeros(0, np.int64), np.zeros((0, 4))))
    faces = np.full((len(boxes), COLUMNS), np.nan)
    faces[:, BOX], faces[:, SCORE_AT] = boxes, 1.0
    return Seen(timed, cut, faces, tracks, state)


# ---- second thread: follow, and have the faces read

class _Builder:
    """Follows and reads faces, and collects the rows of a part."""

    def __init__(self, tools: Tools, part: dict[str, np.ndarray], readers: ThreadPoolExecutor) -> None:
        self.tools, self.tracker, self.readers = tools, Tracker(), readers
        self.rows, self.size, self.end = 0, (0, 0), 0.0
        self._skipped: list[TimedPicture] = []
        self._before: tuple[float, np.ndarray, np.ndarray] = (0.0, np.zeros(0, np.int64), np.zeros((0, COLUMNS)))
        if part:
            self.rows, self.size = int(part["next_row"]), (int(part["size"][0]), int(part["size"][1]))
            self.end = float(part["end"])
            self.tracker.restore(_prefixed(part, "tracker."))
            self._before = float(part["before.seconds"]), part["before.numbers"], part["before.faces"]
            for name, scorer in tools.scorers.items():
                scorer.restore(_prefixed(part, f"scorer.{name}."))
        self._clear()

    def _clear(self) -> None:
        self._frames: list[tuple[int, float, bool]] = []
        self._faces: list[np.ndarray] = []                             # frame, track, box, score, reading
        self._scores: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {name: [] for name in self.tools.scorers}

    def add(self, seen: Seen) -> None:
        """Take the next picture."""
        timed = seen.timed
        self._frames.append((timed.number, timed.seconds, seen.cut))
        self.end = timed.seconds + timed.duration
        if self.size == (0, 0):
            self.size = timed.picture.shape[1], timed.picture.shape[0]
        if seen.faces is None:
            self._skipped.append(timed)
            return
        if seen.cut and seen.tracks is None:                           # the user's tracks end where the user says
            self.tracker.end_all()
            self._before = timed.seconds, np.zeros(0, np.int64), np.zeros((0, COLUMNS))
            for scorer in self.tools.scorers.values():
                scorer.end_all()
        numbers = self.tracker.step(timed.seconds, seen.faces) if seen.tracks is None else seen.tracks
        self._read([*self._between(timed.seconds, numbers, seen.faces), (timed, numbers, seen.faces)])
        self._before = timed.seconds, numbers, seen.faces
        for name, scorer in self.tools.scorers.items():
            self._scores[name].append(scorer.take(timed.seconds))

    def _between(self, seconds: float, numbers: np.ndarray, faces: np.ndarray) -> Iterator[_Faces]:
        """The faces of skipped pictures, at the boxes between those before and after."""
        began, old, earlier = self._before
        both, first, second = np.intersect1d(old, numbers, return_indices=True)
        for timed in self._skipped:
            way = (timed.seconds - began) / (seconds - began)
            yield timed, both, (1 - way) * earlier[first] + way * faces[second]
        self._skipped = []

    def _read(self, shown: list[_Faces]) -> None:
        each = [(timed, int(numbers[place]), faces[place]) for timed, numbers, faces in shown
                for place in np.argsort(numbers, kind="stable").tolist()]
        readings = self.readers.map(lambda one: read_face(self.tools.reader, one[0].picture, one[2]), each)
        for (timed, track, face), (reading, points) in zip(each, readings, strict=True):
            self._faces.append(np.concatenate([[timed.number, track], face[BOX], face[SCORE_AT:], reading]))
            for scorer in self.tools.scorers.values():
                scorer.add(self.rows, track, timed, face[BOX], reading[POSE], points)
            self.rows += 1

    def part(self, look: dict[str, np.ndarray], last: bool = False) -> dict[str, np.ndarray]:
        """The arrays of a part, which ends here."""
        if last:
            for name, scorer in self.tools.scorers.items():
                scorer.end_all()
                self._scores[name].append(scorer.take(np.inf))
        faces = np.array(self._faces).reshape(-1, 7 + len(READING))
        frames = np.array(self._frames, np.float64).reshape(-1, 3)
        part = {"frame": faces[:, 0].astype(np.int64), "track": faces[:, 1].astype(np.int64), "box": faces[:, 2:6],
                "score": faces[:, 6], "reading": faces[:, 7:], "number": frames[:, 0].astype(np.int64),
                "seconds": frames[:, 1], "cuts": frames[frames[:, 2] > 0, 1], "size": np.array(self.size, np.int64),
                "end": np.array(self.end), "last": np.array(last), "next_row": np.array(self.rows),
                "next_frame": np.array(self._frames[-1][0] + 1 if self._frames else 0),
                "before.seconds": np.array(self._before[0]), "before.numbers": self._before[1],
                "before.faces": self._before[2]}
        states = [("look.", look), ("tracker.", self.tracker.state())]
        for name, scorer in self.tools.scorers.items():
            rows, scores = (np.concatenate(column) for column in zip(*self._scores[name], strict=True))
            part |= {f"{name}.row": rows, f"{name}.looking": scores}
            states.append((f"scorer.{name}.", scorer.state()))
        if not last:
            part |= {f"{start}{name}": value for start, state in states for name, value in state.items()}
        self._clear()
        return part


def read_face(reader: Any, picture: np.ndarray, face: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """READING of a face and five points of it, [5, 2]. NaN where there is nothing to read, as of a given box without a
    size.

    Args:
        reader: as Tools has it. face: a row of what a Finder finds.
    """
    points = face[POINTS].reshape(5, 2)[list(FROM_YUNET)]
    try:
        read = reader.read(picture, face[BOX], points if np.isfinite(points).all() else None)
    except ValueError:
        return np.full(len(READING), np.nan), np.full((5, 2), np.nan)
    return np.array([getattr(read, name) for name in READING], np.float64), five_points(read.points)


# ---- parts

def part_path(folder: Path, number: int) -> Path:
    return folder / f"{number:05d}.npz"


def finished_parts(folder: Path) -> list[Path]:
    """The parts from the first on, without a gap."""
    paths = []
    while part_path(folder, len(paths)).is_file():
        paths.append(part_path(folder, len(paths)))
    return paths


def is_finished(folder: Path) -> bool:
    """Whether all parts are there."""
    parts = finished_parts(folder)
    return bool(parts) and bool(read_part(parts[-1], ["last"])["last"])


def read_part(path: Path, names: Iterable[str] | None = None) -> dict[str, np.ndarray]:
    """As io.read_arrays; the error says what to do about a damaged part."""
    try:
        return read_arrays(path, names)
    except ValueError as error:
        raise ValueError(f"{error} -> delete this file and run the command again") from None


def _prefixed(part: dict[str, np.ndarray], start: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(start): value for name, value in part.items() if name.startswith(start)}


def ahead(values: Iterator[T], count: int = AHEAD) -> Generator[T, None, None]:
    """The same values, made by a thread that is so many ahead. Its error is raised here."""
    ready: queue.Queue[tuple[bool, Any]] = queue.Queue(count)
    ended = threading.Event()

    def put(entry: tuple[bool, Any]) -> None:
        while not ended.is_set():
            try:
                return ready.put(entry, timeout=0.5)
            except queue.Full:
                continue

    def make() -> None:
        try:
            for value in values:
                put((True, value))
                if ended.is_set():
                    return
            put((False, None))
        except BaseException as error:
            put((False, error))

    thread = threading.Thread(target=make, daemon=True)
    thread.start()
    try:
        while True:
            is_value, value = ready.get()
            if is_value:
                yield value
            elif value is None:
                return
            else:
                raise value
    finally:
        ended.set()
        thread.join()
