"""Conventions: numbers that make sense only if they were written under another convention than ours.

Each function returns words that follow the name of the numbers ("look like ... -> ..."), or "" where the numbers are
plausible or too few to judge (`unjudged`). Whoever reads numbers that others wrote asks here: tables of boxes
(box_table.py), priors (join.py, priors/import_files.py), the doctor.
"""

import math

import numpy as np

from gazepose.text import counted

FPS = 30                     # of Ego4D and of the embedded world, from which models learn
FEW = 20                     # fewer faces are judged only where a single one is evidence enough
FEW_LANDMARKS = 8            # faces whose landmarks all span a small part of the crop
EDGE = 1.02                  # of the picture's sides: boxes may pass the edge a little
CORNERS = "look like corners x1, y1, x2, y2 -> width is x2 - x1, height is y2 - y1"
OTHER_SIZE = "lie past the picture's edge -> they belong to a video of another size: scale them, or give that one"


def of_boxes(boxes: np.ndarray, size: np.ndarray) -> str:
    """Boxes that should be the corner x, y and width, height in pixels.

    Args:
        boxes: float [n, 4]. size: width and height of the picture of each, float [n, 2]; NaN unknown.
    """
    corner, sides, size = _known(boxes, size)
    if not len(size):
        return ""
    if (corner + sides).max() <= 2:
        return ("look like parts of the picture (0..1) -> multiply x and width by the picture's width, y and height by "
                "its height")
    known = np.isfinite(size).all(axis=1)
    corner, sides, size = corner[known], sides[known], size[known]
    far = corner + sides
    if len(size) < FEW:
        # no face has its centre past the picture; as corners these boxes lie in it
        if (corner + sides / 2 > EDGE * size).any() and (sides > corner).all() and (sides <= EDGE * size).all():
            return CORNERS
        return OTHER_SIZE if len(size) and (far > 2 * size).any(axis=1).mean() > 0.1 else ""
    if far.max() <= 100.5 and np.ptp(corner, axis=0).max() > 25 and np.median(size.min(axis=1)) > 300:
        return ("look like percent of the picture -> multiply x and width by the picture's width / 100, y and height "
                "by its height / 100")
    past = (far > EDGE * size).any(axis=1).mean()

    def nearly_all(*conditions: np.ndarray) -> bool:
        return bool(np.logical_and.reduce(conditions).all(axis=1).mean() > 0.99)

    if past > 0.25 and nearly_all(sides > corner, sides <= EDGE * size):
        return CORNERS
    # boxes about their centres never pass the left or upper edge, also not where they come near it
    inside = nearly_all(corner >= 0.5 * sides - 1, corner + 0.5 * sides <= EDGE * size)
    if past > 0.01 and _near_an_edge(corner, sides) and inside:
        return "look like centres -> subtract half of the width from x and half of the height from y"
    if (far > 1.25 * size).any(axis=1).mean() > 0.1:
        return OTHER_SIZE
    return ""


def unjudged(boxes: np.ndarray, size: np.ndarray) -> str:
    """Why `of_boxes` cannot judge all conventions by these boxes, in words; "" where it can. Arguments as there."""
    corner, sides, size = _known(boxes, size)
    known = np.isfinite(size).all(axis=1)
    if known.sum() < FEW:
        return f"too few to judge: {counted(known.sum(), 'face')} in pictures of a known size, {FEW} are needed"
    if not _near_an_edge(corner, sides):
        return "corners or centres cannot be told apart, since no face comes near the left or upper edge"
    return ""


def _known(boxes: np.ndarray, size: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Corner, width and height of the boxes that have them, and the sizes of their pictures."""
    known = np.isfinite(boxes).all(axis=1) & (boxes[:, 2:] > 0).all(axis=1)
    return boxes[known, :2], boxes[known, 2:], size[known]


def _near_an_edge(corner: np.ndarray, sides: np.ndarray) -> bool:
    return bool((corner < sides).any(axis=1).mean() > 0.01)


def of_frames(first: int, last: int, pictures: int) -> str:
    """Frame numbers of a clip, from `first` to `last`, that should count its pictures from 0."""
    if first >= 1 and last == pictures:
        return f"look as if counted from 1: the last is {last}, of {pictures} pictures -> give --rule first_number=1"
    return ""


def of_rate(fps: float) -> str:
    """Frames per second of a video that a model is to score or learn from."""
    if abs(fps - FPS) <= 0.5:
        return ""
    return (f"{fps:.3f} frames per second: models learn from {FPS}, so seven frames span {FPS / max(fps, 1e-3):.2f} of "
            f"the time that they know -> convert it with ffmpeg -i IN.mp4 -r {FPS} OUT.mp4, and find its faces again")


def of_prior(name: str, values: np.ndarray) -> str:
    """A column of index.COLUMNS, float [n, ...], NaN unknown."""
    known = values[np.isfinite(values).all(axis=tuple(range(1, values.ndim)))]
    if name == "landmarks" and len(known) and np.median(np.abs(known[..., :2])) > 10:
        return ("look like pixels -> divide x by the crop's width and y by its height, so that 0..1 spans the crop "
                "(of pixels of the whole picture, subtract the box's corner first)")
    if name == "quality" and len(known) and 0 < known.max() <= 1:     # a black crop has 0
        return ("lies in 0..1, all of it, so it looks like p rather than the Laplacian variance -> use `priors import "
                "quality_p`")
    most = np.abs(known).max(initial=0)
    if name == "head_pose" and len(known) >= FEW and most <= math.pi + 1e-3:
        return f"looks like radians: no angle is beyond {most:.3g} -> multiply by 180 / pi"
    if name == "gaze" and most > 2 * math.pi:
        return f"looks like degrees: an angle is {most:.3g} -> multiply by pi / 180"
    span = np.ptp(known[..., :2], axis=1).max(axis=1) if name == "landmarks" else np.ones(0)
    if len(span) >= FEW_LANDMARKS and np.median(span) < 0.12:
        return ("look like places in the whole picture, since each face spans a small part of 0..1 -> subtract the "
                "box's corner and divide by its width and height, so that 0..1 spans the crop")
    return ""
