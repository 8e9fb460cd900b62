"""Who looks now: one frame of a camera in, the faces in it and what changed out. Nothing waits for a later frame.

The steps are those of `watch --causal`: find, follow, read, score, smooth, find looks. What is held in memory is held
for the people in the picture and for a fraction of a second.
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from gazepose.data.video_times import TimedPicture
from gazepose.watch.bouts import LookRules
from gazepose.watch.codable import judge
from gazepose.watch.detect import BOX, COLUMNS, CutFinder
from gazepose.watch.live_looks import Event, Kind, LiveLook, RunningMedian
from gazepose.watch.readout import READ, Readout
from gazepose.watch.scorers import TrainedScorer
from gazepose.watch.tracker import NUMBER, Tracker
from gazepose.watch.video_pass import POSE, READING, Finder, read_face

JUDGED = ("presence", "yaw", "pitch", "light", "fit", "eye")


Change = tuple[int, Kind, float]
"""number of the track, what changed, and when"""


class Face(NamedTuple):
    """A face in a frame."""

    person: str
    """P1, P2, ... in the order in which they appear; a person who is not found for half a second gets a new name"""
    box: tuple[float, ...]
    """the detector's x, y, width, height in pixels of the frame"""
    probability: float
    """that the person looks at the camera, 0 to 1, smoothed; NaN where the face is not codable"""
    looking: bool
    """the person is in a look, by the rules of looks"""
    since: float
    """seconds at which that look began, or, if the person does not look, the last look ended or the person came"""
    codable: bool
    """the face can be judged at all"""
    reason: str
    """why not; empty if it is"""


@dataclass
class _Person:
    median: RunningMedian
    look: LiveLook


@dataclass
class Watcher:
    """Tells for each frame of a camera who is in it and who looks. One watcher is for one camera.

    `gazepose.load(...).stream()` makes one.
    """

    detector: Finder
    """finds faces, as watch.detect.Detector"""
    reader: Any
    """reads one, as priors.face_landmarker.FaceLandmarker"""
    scorer: TrainedScorer | None = None
    """None: the landmark score"""
    smooth: float = 0.1
    """the probability is the median of the last 2 * smooth seconds; 0: as it is"""
    rules: LookRules = field(default_factory=LookRules)
    events: list[Event] = field(default_factory=list)
    """what changed with the last step"""

    def __post_init__(self) -> None:
        self._cuts, self._tracker, self._readout = CutFinder(), Tracker(), Readout.shipped()
        self._people: dict[int, _Person] = {}
        self._before: float | None = None
        self._count, self._looking, self._ends = 0, 0, 0.0

    def warm_up(self) -> None:
        """Do what only a first frame needs, which takes a second: imports and buffers. Nothing is remembered."""
        import scipy.optimize  # noqa: F401 (of the tracker)
        black, face = np.zeros((720, 1280, 3), np.uint8), np.full(COLUMNS, np.nan)
        face[BOX] = 600, 300, 100, 100
        self.detector.find(black)
        read_face(self.reader, black, face)
        if self.scorer is not None:
            self.scorer.run.maps(np.zeros((1, self.scorer.run.crop_size, self.scorer.run.crop_size, 3), np.uint8))

    def step(self, frame: np.ndarray, seconds: float) -> list[Face]:
        """Take the next frame.

        Args:
            frame: uint8 [H, W, 3], RGB; all of one size.
            seconds: when it was taken, on any clock; later than that of the frame before. Frames may be left out.

        Returns:
            Its faces, in the order in which the people appeared. `events` has what changed.

        Raises:
            ValueError: the frame is no such array, or the time is not later.
        """
        if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            shape = getattr(frame, "shape", type(frame).__name__)
            raise ValueError(f"a frame must be uint8 [H, W, 3] in RGB, not {getattr(frame, 'dtype', '')} {shape} -> "
                             "convert it")
        if not np.isfinite(seconds) or (self._before is not None and seconds <= self._before):
            raise ValueError(f"frame at {seconds} s after one at {self._before} s -> give seconds that ascend")
        lasts = 1 / 30 if self._before is None else seconds - self._before
        self._before = float(seconds)
        cut = self._cuts.add(seconds, frame)
        if cut:
            self._tracker.end_all()
            if self.scorer is not None:
                self.scorer.end_all()
        found = self.detector.find(frame)
        numbers = self._tracker.step(seconds, found)
        order = np.argsort(numbers, kind="stable")
        faces, numbers = found[order], numbers[order].tolist()
        codable, reason, score = self._read(TimedPicture(self._count, float(seconds), lasts, frame), faces, numbers)
        self._count, self._ends = self._count + 1, seconds + lasts
        changes = self._forget({int(number) for number in self._tracker.tracks[:, NUMBER]}, seconds)
        smooth = {number: self._smoothed(number, seconds, value)
                  for number, value in zip(numbers, np.where(codable, score, np.nan).tolist(), strict=True)}
        for number, person in self._people.items():
            value = smooth.get(number, np.nan)
            changes += [(number, *change) for change in person.look.step(seconds, None if np.isnan(value) else value)]
        self._note(changes, seconds)
        looks = [self._people[number].look for number in numbers]
        return [Face(name_of(number), tuple(box), smooth[number], look.looking, look.since, bool(known), str(why))
                for number, box, known, why, look in zip(numbers, faces[:, BOX].tolist(), codable, reason, looks,
                                                         strict=True)]

    def close(self) -> list[Event]:
        """The camera is off: looks that go on end with their last frame. `step` may go on after it."""
        self._tracker.end_all()
        if self.scorer is not None:
            self.scorer.end_all()
        self._note(self._forget(set(), self._ends), self._ends)
        return self.events

    def _read(self, timed: TimedPicture, faces: np.ndarray, numbers: list[int]
              ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of each face: codable, bool [n]; reason, str [n]; probability, float64 [n], not smoothed."""
        readings = np.full((len(faces), len(READING)), np.nan)
        for place, (face, number) in enumerate(zip(faces, numbers, strict=True)):
            readings[place], points = read_face(self.reader, timed.picture, face)
            if self.scorer is not None:
                self.scorer.add(place, number, timed, face[BOX], readings[place, POSE], points)
        known = {name: readings[:, place] for place, name in enumerate(READING)}
        if self.scorer is None:
            score, scored = self._readout.probability(*(known[name] for name in READ)), None
        else:
            score = np.full(len(faces), np.nan)
            rows, scores = self.scorer.take_now(timed.seconds)
            score[rows] = scores
            scored = np.isfinite(score)
        codable, reason = judge(faces[:, 3], **{name: known[name] for name in JUDGED}, scored=scored)
        return codable, reason, score

    def _smoothed(self, number: int, seconds: float, value: float) -> float:
        if number not in self._people:
            self._people[number] = _Person(RunningMedian(self.smooth), LiveLook(self.rules, since=seconds))
        return value if np.isnan(value) else self._people[number].median.add(seconds, value)

    def _forget(self, alive: set[int], seconds: float) -> list[Change]:
        """Forget the people whose track has ended; their looks end."""
        gone = [number for number in self._people if number not in alive]
        changes = [(number, *change) for number in gone for change in self._people[number].look.end(seconds)]
        for number in gone:
            del self._people[number]
        return changes

    def _note(self, changes: list[Change], seconds: float) -> None:
        people = sum(person.look.looking for person in self._people.values())
        self.events = [Event(kind, name_of(number), at, people) for number, kind, at in changes]
        if people != self._looking:
            self.events.append(Event("people looking", "", seconds, people))
        self._looking = people


def name_of(number: int) -> str:
    """A person's name, of the number of the track."""
    return f"P{number + 1}"
