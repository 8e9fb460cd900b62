"""Find the faces of a picture with YuNet, and the pictures with which a new shot begins.

YuNet (2023mar, MIT licence) runs in OpenCV. Its file comes from `python -m gazepose models`.
"""

from collections import deque
from pathlib import Path

import cv2
import numpy as np

SCORE = 0.6                  # of a face, at least
OVERLAP = 0.3                # IoU above which two boxes are one face
MOST_FACES = 1000
SIZES = ((1280, 640), (10 ** 9, 960))
"""(long side of a picture, at most; long side at which faces are searched): faces of 20 pixels are found up to 1080p"""
BOX, POINTS, SCORE_AT = slice(0, 4), slice(4, 14), 14
"""columns of a face: x, y, width, height; five points (right eye, left eye, nose, right and left corner of the mouth);
score. All in pixels of the whole picture."""
COLUMNS = 15


class Detector:
    """YuNet.

    Args:
        file: its ONNX file.
        size: long side at which faces are searched; None: by the size of the picture (SIZES).
    """

    def __init__(self, file: Path, size: int | None = None) -> None:
        self.size = size
        self._net = cv2.FaceDetectorYN.create(str(file), "", (320, 320), SCORE, OVERLAP, MOST_FACES)
        self._input = (0, 0)

    def find(self, picture: np.ndarray) -> np.ndarray:
        """Faces in a picture, float64 [n, COLUMNS], from left to right. A picture that is smaller than the size for the
        search is not enlarged.

        Args:
            picture: uint8 [H, W, 3] RGB.
        """
        height, width = picture.shape[:2]
        side = self.size or next(size for most, size in SIZES if max(height, width) <= most)
        scale = min(1.0, side / max(height, width))
        small = (max(round(width * scale), 1), max(round(height * scale), 1))
        if small != (width, height):
            picture = cv2.resize(picture, small, interpolation=cv2.INTER_AREA)
        if small != self._input:
            self._net.setInputSize(small)
            self._input = small
        _, faces = self._net.detect(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        if faces is None:
            return np.zeros((0, COLUMNS))
        found = faces.astype(np.float64)                               # [n, 15]
        found[:, :SCORE_AT] *= np.tile([width / small[0], height / small[1]], 7)
        found = found[np.isfinite(found).all(axis=1) & (found[:, 2:4] > 0).all(axis=1)]
        return found[np.lexsort(found[:, BOX].T[::-1])]


class CutFinder:
    """Whether a picture begins a new shot: its colours differ from those of the picture before by more than LEAST, and
    by more than TIMES the median of the last SECONDS."""

    LEAST, TIMES, SECONDS, MOST = 0.35, 5.0, 2.0, 120
    LEVELS = 8               # of each colour
    ACROSS = 96              # pixels that are counted along the longer side

    def __init__(self) -> None:
        self._before: np.ndarray | None = None
        self._changes: deque[tuple[float, float]] = deque(maxlen=self.MOST)

    def add(self, seconds: float, picture: np.ndarray) -> bool:
        """Take the next picture, uint8 [H, W, 3]; True if it begins a new shot. The first does not."""
        step = max(max(picture.shape[:2]) // self.ACROSS, 1)
        few = picture[step // 2::step, step // 2::step].reshape(-1, 3) // (256 // self.LEVELS)
        codes = few.astype(np.int64) @ [self.LEVELS ** 2, self.LEVELS, 1]
        counts = np.bincount(codes, minlength=self.LEVELS ** 3) / len(codes)
        before, self._before = self._before, counts
        if before is None:
            return False
        change = float(np.abs(counts - before).sum() / 2)              # 0: the same colours, 1: none in common
        while self._changes and self._changes[0][0] < seconds - self.SECONDS:
            self._changes.popleft()
        usual = float(np.median([value for _, value in self._changes])) if self._changes else 0.0
        if change > max(self.LEAST, self.TIMES * usual):
            self._changes.clear()                                      # the new shot has its own pace
            return True
        self._changes.append((seconds, change))
        return False

    def state(self) -> dict[str, np.ndarray]:
        """What `restore` takes, to go on at the same picture."""
        before = np.zeros(0) if self._before is None else self._before
        return {"before": before, "changes": np.array(self._changes, np.float64).reshape(-1, 2)}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        self._before = state["before"] if len(state["before"]) else None
        self._changes = deque(map(tuple, state["changes"].tolist()), maxlen=self.MOST)
