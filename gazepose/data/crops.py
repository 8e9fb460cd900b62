"""Crops: a face cut out of a picture, at the size it is stored, and how sharp it is. Arrays and bytes, no files.

The published work stretches every face to 224 x 224; quality is always measured on that crop, whatever is stored.
"""

import cv2
import numpy as np

from gazepose.data.quality import laplacian_variance
from gazepose.data.shards import encode

PUBLISHED_SIZE = 224
LEFT, TOP, WIDTH, HEIGHT = 0.038, 0.132, 0.92, 0.828
"""A face detector's (YuNet's) boxes begin higher on the forehead than annotated ones. x and y move by these parts of
width and height, which are multiplied by the other two: so eyes and mouth come to where they are in the crops of
training."""


def as_cut(boxes: np.ndarray) -> np.ndarray:
    """A detector's boxes, moved to where annotated boxes lie on a face.

    Args:
        boxes: x, y, width, height in pixels, float [..., 4].
    """
    x, y, width, height = np.moveaxis(np.asarray(boxes, np.float64), -1, 0)
    return np.stack([x + LEFT * width, y + TOP * height, WIDTH * width, HEIGHT * height], axis=-1)


def as_detected(boxes: np.ndarray) -> np.ndarray:
    """The inverse of `as_cut`."""
    x, y, width, height = np.moveaxis(np.asarray(boxes, np.float64) / (1, 1, WIDTH, HEIGHT), -1, 0)
    return np.stack([x - LEFT * width, y - TOP * height, width, height], axis=-1)


def grown(box: np.ndarray, scale: float) -> np.ndarray:
    """Boxes [..., 4] of x1, y1, x2, y2 grown about their centres."""
    if scale == 1.0:
        return box
    centre, half = (box[..., :2] + box[..., 2:]) / 2, (box[..., 2:] - box[..., :2]) / 2 * scale
    return np.concatenate([centre - half, centre + half], axis=-1)


def cut_face(picture: np.ndarray, box: np.ndarray) -> np.ndarray | None:
    """The picture inside the box: corners truncated to whole pixels, clipped at the border; None when nothing is left.

    Args:
        picture: uint8 [H, W, 3]; box: x1, y1, x2, y2.
    """
    x1, y1, x2, y2 = (max(int(corner), 0) for corner in box)
    face = picture[y1:y2, x1:x2]
    return face if face.size else None


def whole_corners(boxes: np.ndarray, width: int | np.ndarray, height: int | np.ndarray) -> np.ndarray:
    """The corners at which cut_face cuts boxes [n, 4], whole float64 [n, 4]; width and height: of all pictures, or of
    each, [n]."""
    return np.minimum(np.maximum(np.trunc(boxes), 0), np.stack([width, height, width, height], axis=-1))


def outside(boxes: np.ndarray, width: int | np.ndarray, height: int | np.ndarray) -> np.ndarray:
    """Whether cut_face leaves nothing of a box, bool [n]; arguments as of whole_corners."""
    corners = whole_corners(boxes, width, height)
    return np.any(corners[:, 2:] <= corners[:, :2], axis=1)


def published_crop(face: np.ndarray) -> np.ndarray:
    """Stretched bilinearly to 224 x 224, whatever its shape."""
    return cv2.resize(face, (PUBLISHED_SIZE, PUBLISHED_SIZE), interpolation=cv2.INTER_LINEAR)


def stored_crop(face: np.ndarray, size: int, published: np.ndarray) -> np.ndarray:
    """The crop as stored: the published one at its size; else from the face itself, averaged when it shrinks."""
    if size == PUBLISHED_SIZE:
        return published
    shrinks = face.shape[0] >= size and face.shape[1] >= size
    return cv2.resize(face, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def quality_of(face: np.ndarray) -> float:
    """How sharp a face of any size is."""
    return laplacian_variance(published_crop(face))


def jpeg_and_quality(face: np.ndarray, size: int, jpeg: bytes | None = None) -> tuple[bytes, float]:
    """(the stored crop's JPEG bytes, the quality of the face).

    Args:
        jpeg: the face's own bytes; used where it has that size already, so that it is not encoded a second time.
    """
    published = published_crop(face)
    if jpeg is None or face.shape[:2] != (size, size):
        jpeg = encode(stored_crop(face, size, published))
    return jpeg, laplacian_variance(published)
