"""The newest picture of a camera, an address, or a file that is played at its own pace.

A thread takes the pictures as they come and keeps only the newest, so a slow reader is never behind: pictures for which
it had no time are dropped and counted. A camera that goes away is opened again, with growing pauses.
"""

import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Self

import cv2
import numpy as np

from gazepose.data.video_times import pictures_with_times

SCHEMES = ("rtsp", "rtsps", "http", "https")
TIMEOUT_MS = 5000            # of opening an address, and of waiting for its next picture
PAUSES = (1.0, 30.0)         # seconds before a camera is opened again: the first pause, and the longest


class LivePicture(NamedTuple):
    number: int
    """in the order in which the pictures came, from 0; dropped ones count"""
    seconds: float
    """from the first picture: when it came, of a file when it is shown"""
    came: float
    """the same on time.monotonic"""
    picture: np.ndarray
    """uint8 [H, W, 3] RGB"""


class LiveSource:
    """Yields the newest picture each time, until a file ends; a camera does not end. Use it in a `with` block.

    When a camera goes away it yields None, once, before it waits for the camera to come back.

    Args:
        source: number of a camera, an address of SCHEMES, or the path of a video.
        give_up: seconds without a picture after which a camera that went away is an error.
        notify: is called with what happens to the camera.

    Raises:
        FileNotFoundError: no such file. ValueError: another kind of address, or a file that is no video. OSError: the
            camera cannot be opened, or went away for longer than `give_up`.
    """

    def __init__(self, source: str, give_up: float = 60.0, notify: Callable[[str], None] = print) -> None:
        scheme, is_address, _ = source.partition("://")
        if is_address and scheme.lower() not in SCHEMES:
            raise ValueError(f"{source}: an address of this kind cannot be read -> give {', '.join(SCHEMES)}, the "
                             "number of a camera, or a file")
        self.name = f"camera {source}" if source.isdecimal() else re.sub(r"//[^/@]*@", "//", source)   # no password
        self.give_up, self.notify, self.dropped = give_up, notify, 0
        self._source, self._is_file = source, not (is_address or source.isdecimal())
        if self._is_file and not Path(source).exists():
            raise FileNotFoundError(f"{source}: no such video -> give a file, the number of a camera, or an address")
        self._began: float | None = None
        self._count = 0
        self._newest: LivePicture | None = None
        self._gone = False
        self._error: BaseException | None = None
        self._ended = False
        self._changed, self._stop = threading.Condition(), threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join(2.0)                 # a camera that hangs must not hold up Ctrl-C

    def __iter__(self) -> Iterator[LivePicture | None]:
        while True:
            with self._changed:
                while self._newest is None and not self._gone and not self._ended:
                    self._changed.wait(0.5)
                newest, self._newest = self._newest, None
                gone = self._gone and newest is None
                self._gone = self._gone and not gone
            if newest is not None or gone:
                yield newest
            elif self._error is not None:
                raise self._error
            else:
                return

    def _run(self) -> None:
        try:
            for shown in self._played() if self._is_file else self._grabbed():
                with self._changed:
                    if shown is not None:
                        self.dropped += self._newest is not None
                        self._newest = shown
                    self._gone = shown is None
                    self._changed.notify()
                if self._stop.is_set():
                    break
        except BaseException as error:
            self._error = error
        with self._changed:
            self._ended = True
            self._changed.notify()

    def _played(self) -> Iterator[LivePicture]:
        for timed in pictures_with_times(Path(self._source).absolute(), notify=self.notify):
            now = time.monotonic()
            self._began = now if self._began is None else self._began
            self._stop.wait(max(0.0, self._began + timed.seconds - now))
            yield LivePicture(timed.number, timed.seconds, time.monotonic(), timed.picture)

    def _grabbed(self) -> Iterator[LivePicture | None]:
        pause, last, shows = PAUSES[0], time.monotonic(), False
        while not self._stop.is_set():
            for picture in self._pictures():
                last, pause, shows = time.monotonic(), PAUSES[0], True
                self._began = last if self._began is None else self._began
                yield LivePicture(self._count, last - self._began, last, picture)
                self._count += 1
            if self._stop.is_set():
                return
            if self._began is None:
                raise OSError(f"{self.name}: gives no picture -> look whether the camera is on, its number, or its "
                              "address and password, are right, and no other program uses it")
            if shows:
                yield None
            shows, left = False, last + self.give_up - time.monotonic()
            if left <= 0:
                raise OSError(f"{self.name}: gave no picture for {self.give_up:g} s -> look at the camera, then start "
                              "again; --give_up waits longer")
            self.notify(f"{self.name}: gives no picture any more; opening it again in {min(pause, left):.2g} s")
            self._stop.wait(min(pause, left))
            pause = min(2 * pause, PAUSES[1])

    def _pictures(self) -> Iterator[np.ndarray]:
        """The pictures of the camera, as long as it gives any."""
        capture = self._opened()
        try:
            while capture.isOpened() and not self._stop.is_set():
                there, picture = capture.read()
                if not there:
                    return
                yield cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
        finally:
            capture.release()

    def _opened(self) -> Any:
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)       # its warnings here mislead
        if self._source.isdecimal():
            return cv2.VideoCapture(int(self._source))
        limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, TIMEOUT_MS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, TIMEOUT_MS]
        return cv2.VideoCapture(self._source, cv2.CAP_FFMPEG, limits)
