"""Looks of one person while they happen: the rules of bouts.py without later frames, and events.

A look is only known to have begun after `shortest` seconds, and to have ended after `join` seconds. An event says both
times: when it happened, and when that was known.
"""

from collections import deque
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from gazepose.watch.bouts import NEAR, SLACK, LookRules

Kind = Literal["starts looking", "stops looking", "people looking"]


class Event(NamedTuple):
    """Something that changed."""

    kind: Kind
    person: str
    """who; empty for "people looking" """
    at: float
    """seconds at which the look began or ended; of "people looking" the time of the frame"""
    people: int
    """how many people look after it"""


@dataclass
class LiveLook:
    """Whether a person looks, from probabilities that come one by one.

    All looks that are announced are those of bouts.find_looks over the same frames.
    """

    rules: LookRules
    since: float = 0.0
    """seconds at which the state that `looking` says began"""
    looking: bool = False
    """a look was announced and has not ended"""
    _start: float | None = None
    """of the look that may become one, or is one"""
    _end: float | None = None
    """of its last run of frames, while no run goes on"""
    _codable_until: float | None = None
    """end of the last codable frame; None: there was none in this shot"""
    _open: bool = False
    """the last frame was codable, and ends with the next"""

    def step(self, seconds: float, probability: float | None) -> list[tuple[Kind, float]]:
        """Take the next frame.

        Args:
            seconds: later than that of the step before.
            probability: smoothed; None where there is no codable face.

        Returns:
            What changed, and when it happened.
        """
        changes: list[tuple[Kind, float]] = []
        self._end_frame(seconds)
        unseen = 0.0 if self._codable_until is None else seconds - self._codable_until
        over = 0.0 if self._end is None else seconds - self._end
        if unseen > self.rules.bridge + NEAR or over > self.rules.join + NEAR:
            changes += self.end(seconds)
        if probability is not None:
            self._turn(seconds, probability)
            self._open = True
        if self._start is not None and not self.looking:
            seen = seconds if self._open else self._codable_until       # a gap counts once a codable frame has ended it
            changes += self._announced(seen if self._end is None else self._end)
        return changes

    def end(self, seconds: float) -> list[tuple[Kind, float]]:
        """The person is gone, or the shot ended: a look that goes on ends with its last codable frame.

        Args:
            seconds: end of the last frame, at most.
        """
        self._end_frame(seconds)
        end = self._codable_until if self._end is None else self._end
        changes: list[tuple[Kind, float]] = []
        if self._start is not None and end is not None:
            if not self.looking:
                changes += self._announced(end)
            if self.looking:
                changes.append(("stops looking", end))
                self.looking, self.since = False, end
        self._start = self._end = self._codable_until = None
        return changes

    def _end_frame(self, seconds: float) -> None:
        if self._open:
            self._codable_until, self._open = seconds, False

    def _turn(self, seconds: float, probability: float) -> None:
        runs = self._start is not None and self._end is None
        if runs and probability < self.rules.off:
            self._end = self._codable_until
        elif not runs and probability >= self.rules.on:
            self._start = seconds if self._start is None else self._start
            self._end = None

    def _announced(self, until: float | None) -> list[tuple[Kind, float]]:
        """The start, if the look is long enough by now."""
        assert self._start is not None
        if until is None or until - self._start < max(self.rules.shortest - NEAR, NEAR):
            return []
        self.looking, self.since = True, self._start
        return [("starts looking", self._start)]


class RunningMedian:
    """The running median of bouts.smooth, causal: over the last 2 * `seconds` of a person's codable frames."""

    def __init__(self, seconds: float) -> None:
        self.reach = 2 * (seconds + SLACK) if seconds > 0 else 0.0
        self._values: deque[tuple[float, float]] = deque()

    def add(self, seconds: float, value: float) -> float:
        """Take the next value and return the median."""
        self._values.append((seconds, value))
        while seconds - self._values[0][0] > self.reach:
            self._values.popleft()
        return float(np.median([value for _, value in self._values]))

    def clear(self) -> None:
        """A new shot begins."""
        self._values.clear()
