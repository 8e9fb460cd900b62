"""Google's FaceLandmarker in LiteRT: a face in a picture -> 478 points, head pose, eye direction and blink.

The file (model_files.py) is a zip of two networks and a common face. The first network reads a square of 256 pixels
around the upright face and gives 478 points in three dimensions; the second reads 146 of these and gives 52
blendshapes, such as how far an eye is closed. Nothing here finds faces. Signs: data/head_angles.py.
"""

import math
import os
import struct
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from gazepose.data.head_angles import head_angles
from gazepose.io import open_regular
from gazepose.priors.model_files import MODELS, find

SIDE = 256                   # pixels that the network reads
POINTS = 478
LANDMARKS, BLENDSHAPES = "face_landmarks_detector.tflite", "face_blendshapes.tflite"
GEOMETRY = "geometry_pipeline_metadata_landmarks.binarypb"
NOTES = threading.Lock()
MOST = 16 << 20              # bytes of a member; they have 3 MB
# The networks' interface, as MediaPipe's face_blendshapes_graph.cc has it: the points that the second network reads,
# and the places of eight of its outputs
TO_BLENDSHAPES = np.array([
    0, 1, 4, 5, 6, 7, 8, 10, 13, 14, 17, 21, 33, 37, 39, 40, 46, 52, 53, 54, 55, 58, 61, 63, 65, 66, 67, 70, 78, 80,
    81, 82, 84, 87, 88, 91, 93, 95, 103, 105, 107, 109, 127, 132, 133, 136, 144, 145, 146, 148, 149, 150, 152, 153,
    154, 155, 157, 158, 159, 160, 161, 162, 163, 168, 172, 173, 176, 178, 181, 185, 191, 195, 197, 234, 246, 249, 251,
    263, 267, 269, 270, 276, 282, 283, 284, 285, 288, 291, 293, 295, 296, 297, 300, 308, 310, 311, 312, 314, 317, 318,
    321, 323, 324, 332, 334, 336, 338, 356, 361, 362, 365, 373, 374, 375, 377, 378, 379, 380, 381, 382, 384, 385, 386,
    387, 388, 389, 390, 397, 398, 400, 402, 405, 409, 415, 454, 466, *range(468, 478)])
BLINK = (9, 10)              # of the person's left and right eye
LOOK_DOWN, LOOK_IN, LOOK_OUT, LOOK_UP = (11, 12), (13, 14), (15, 16), (17, 18)
NOSE, MOUTH = 4, (291, 61)   # the person's left and right corner
EYES = ((362, 263), (133, 33))           # the two corners of the person's left and right eye
LIDS = ((386, 374), (159, 145))          # upper and lower
IRISES = (473, 468)
FROM_BOX = 1.25              # side of the square, in longer sides of a detector's box
FROM_EYES = (3.85, 3.5)      # side of the square, in distances of the eyes, and of the eyes' middle to the mouth's
FROM_EYES_DOWN = 0.35        # its centre, on the way from the eyes to the mouth
LEAST_PRESENCE = 0.1
"""below it the points are not to be trusted: one in ten such faces of the rendered world has a head pose that is off by
20 degrees"""
TILTED = 20.0                # degrees of roll above which a face is turned upright first


@dataclass(frozen=True)
class FaceReading:
    """What the networks say of one face."""

    points: np.ndarray
    """in pixels of the picture, float32 [478, 3]; z in the same unit, smaller is nearer"""
    presence: float
    """the network's probability that it sees a face, and where it is"""
    yaw: float
    """of the head, degrees, positive to the picture's right"""
    pitch: float
    """positive up"""
    roll: float
    """positive: the top of the head to the picture's right"""
    eye_x: float
    """eye direction in the head's axes, -1..1, positive to the picture's right"""
    eye_y: float
    """positive up"""
    blink: float
    """0 both eyes open to 1 both closed"""
    light: float
    """mean brightness of the face's pixels, 0..255"""
    fit: float
    """how far the face is from a rigid common face: root mean square, in parts of its size"""
    eye: float
    """width of the nearer eye in pixels"""


class FaceLandmarker:
    """The two networks, one pair of interpreters for each thread that calls.

    Args:
        path: the .task file; default: the file that `python -m gazepose models` got.
        threads: of one interpreter.

    Raises:
        FileNotFoundError: there is no such file. ImportError: LiteRT is not installed.
        ValueError: the file has other bytes than the published one, or is not of this kind.
    """

    def __init__(self, path: Path | None = None, threads: int = 1) -> None:
        path = path or find("face_landmarker")
        self.networks, self.face, self.weight = _read_task(path)
        self.threads, self.own = threads, threading.local()
        self._interpreters()                             # a file that cannot be used is an error here

    def read(self, picture: np.ndarray, place: np.ndarray, five: np.ndarray | None = None) -> FaceReading:
        """Read one face.

        Args:
            picture: uint8 [H, W, 3] RGB; the face may reach out of it.
            place: the detector's box x, y, width, height in pixels, [4]; or in its stead five points, [5, 2].
            five: the detector's points of the same face, if there are any, [5, 2]: nose, left and right eye, left and
                right mouth corner (the person's own left and right). By them a tilted face is turned upright.

        Raises:
            ValueError: the place is of another shape, not finite, or has no size.
        """
        place = np.asarray(place, np.float64)
        if place.shape not in ((4,), (5, 2)) or not np.isfinite(place).all():
            raise ValueError(f"a face's place must be x, y, width, height or five points, not {place.tolist()}")
        if place.shape == (5, 2):
            return self._read(picture, square_of_points(place))
        square = square_of_box(place)
        if five is not None and abs(tilt_of(five)) > TILTED:
            return self._read(picture, square_of_points(five))
        reading = self._read(picture, square)
        if five is None and abs(reading.roll) > TILTED:
            again = self._read(picture, square_of_points(five_points(reading.points)))
            reading = max(reading, again, key=lambda one: one.presence)
        return reading

    def _read(self, picture: np.ndarray, square: np.ndarray) -> FaceReading:
        landmarks, blendshapes = self._interpreters()
        crop = cv2.warpAffine(picture, square, (SIDE, SIDE), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                              borderMode=cv2.BORDER_REPLICATE)
        points, presence, _ = landmarks(crop[None], 1 / 255)
        points = points.reshape(POINTS, 3)                                # pixels of the crop
        shapes, = blendshapes(points[None, TO_BLENDSHAPES, :2])           # upright, so that roll does not count
        size = float(np.hypot(*square[:, 0]))                             # pixels of the picture for one of the crop
        placed = np.empty_like(points)
        placed[:, :2] = points[:, :2] @ square[:, :2].T + square[:, 2]
        placed[:, 2] = points[:, 2] * size
        rotation, fit = rotation_of(self.face, placed[:len(self.face)], self.weight)
        yaw, pitch, roll = head_angles(rotation).tolist()
        left, right = ([1, -1][side] * (shapes[LOOK_OUT[side]] - shapes[LOOK_IN[side]]) for side in (0, 1))
        down, up = (float(shapes[list(places)].mean()) for places in (LOOK_DOWN, LOOK_UP))
        return FaceReading(
            points=placed, presence=1 / (1 + math.exp(-float(presence.ravel()[0]))), yaw=yaw, pitch=pitch, roll=roll,
            eye_x=float(left + right) / 2, eye_y=up - down, blink=float(shapes[list(BLINK)].mean()),
            light=_light(crop, points), fit=fit,
            eye=max(float(np.hypot(*(placed[a, :2] - placed[b, :2]))) for a, b in EYES))

    def blendshapes(self, points: np.ndarray) -> np.ndarray:
        """The second network's 52 values, such as how far an eye is closed, float [52].

        Args:
            points: of a reading, [478, 3]. The face is turned upright first.
        """
        square = cv2.invertAffineTransform(square_of_points(five_points(points)))
        upright = (points[:, :2] @ square[:, :2].T + square[:, 2]).astype(np.float32)     # pixels of the square
        return self._interpreters()[1](upright[None, TO_BLENDSHAPES])[0].ravel()

    def _interpreters(self) -> tuple[Any, Any]:
        """This thread's two networks (_network)."""
        if not hasattr(self.own, "pair"):
            self.own.pair = tuple(_network(self.networks[name], self.threads) for name in (LANDMARKS, BLENDSHAPES))
        return self.own.pair


# ---- squares around faces: affine maps [2, 3] from the pixels of the network's square to those of the picture

def square_of_box(box: np.ndarray) -> np.ndarray:
    """The square around a detector's box (x, y, width, height), not turned.

    Raises:
        ValueError: the box has no size.
    """
    x, y, width, height = box
    return _square(np.array([x + width / 2, y + height / 2]), FROM_BOX * max(width, height), np.array([1.0, 0.0]))


def square_of_points(five: np.ndarray) -> np.ndarray:
    """The square around nose, left and right eye, left and right mouth corner [5, 2], turned upright.

    Raises:
        ValueError: the points lie in one place.
    """
    eyes, mouth = five[1:3].mean(axis=0), five[3:].mean(axis=0)
    across, down = (float(np.hypot(*apart)) for apart in (five[1] - five[2], mouth - eyes))
    roll = np.radians(tilt_of(five))
    return _square(eyes + FROM_EYES_DOWN * (mouth - eyes), max(FROM_EYES[0] * across, FROM_EYES[1] * down),
                   np.array([np.cos(roll), np.sin(roll)]))


def tilt_of(five: np.ndarray) -> float:
    """Roll of five points [5, 2] in degrees, positive: the top of the head to the picture's right."""
    down = five[3:].mean(axis=0) - five[1:3].mean(axis=0)
    # of a face in profile the eyes are too near to each other to say how it is turned; the line to the mouth does
    along = five[1] - five[2] + [down[1], -down[0]]
    return float(np.degrees(np.arctan2(along[1], along[0])))


def _square(centre: np.ndarray, side: float, along: np.ndarray) -> np.ndarray:
    """Centre and side in pixels of the picture; along: unit vector of the square's rows."""
    if not side > 0:
        raise ValueError("a face's place must have a size -> leave boxes without width and height out")
    axes = np.array([[along[0], -along[1]], [along[1], along[0]]]) * side / SIDE
    return np.hstack([axes, (centre - axes @ np.full(2, SIDE / 2))[:, None]])


def five_points(points: np.ndarray) -> np.ndarray:
    """Nose, left and right eye (its middle), left and right mouth corner of the 478 points, float [5, 2]."""
    eyes = [points[list(corners), :2].mean(axis=0) for corners in EYES]
    return np.stack([points[NOSE, :2], *eyes, *points[list(MOUTH), :2]])


# ---- head pose

def rotation_of(face: np.ndarray, points: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, float]:
    """The rotation of a common face that fits best onto a face's points, with any size and place (Umeyama, 1991).

    Args:
        face: the common face in the head's axes, [N, 3]. points: in pixels with depth, [N, 3].
        weight: of each point, [N]; zero leaves it out.

    Returns:
        Rotation head -> camera [3, 3], and the weighted root mean square of what remains, in parts of the face's size.
    """
    weight = weight / weight.sum()
    used = weight > 0
    weight, face, points = weight[used, None], face[used], points[used].astype(np.float64)
    own, seen = face - (weight * face).sum(axis=0), points - (weight * points).sum(axis=0)
    left, stretch, right = np.linalg.svd((weight * seen).T @ own)
    signs = np.array([1, 1, np.sign(np.linalg.det(left @ right))])
    rotation = left @ (signs[:, None] * right)
    spread = float((weight * own**2).sum())
    scale = float((stretch * signs).sum()) / spread
    remains = float((weight * (seen - scale * own @ rotation.T)**2).sum())
    return rotation, float(np.sqrt(remains / max(float((weight * seen**2).sum()), 1e-12)))


def _light(crop: np.ndarray, points: np.ndarray) -> float:
    """Mean brightness of the face's pixels in the crop, 0..255."""
    x0, y0 = points[:, :2].min(axis=0).clip(0, SIDE - 1).astype(int)
    x1, y1 = points[:, :2].max(axis=0).clip(1, SIDE).astype(int)
    part = crop[y0:max(y1, y0 + 1), x0:max(x1, x0 + 1)]
    return float(np.dot(cv2.mean(part)[:3], [0.299, 0.587, 0.114]))


# ---- the file

def _read_task(path: Path) -> tuple[dict[str, bytes], np.ndarray, np.ndarray]:
    """The two networks' bytes, the common face [468, 3] and the weights of its rigid points [468]."""
    try:
        with open_regular(path, "model file", MODELS["face_landmarker"].bytes) as file:
            archive = zipfile.ZipFile(BytesIO(file.read()))
        sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
        if any(sizes[name] > MOST for name in (LANDMARKS, BLENDSHAPES, GEOMETRY)):
            raise ValueError("a member is too large")
        contents = {name: archive.read(name) for name in (LANDMARKS, BLENDSHAPES, GEOMETRY)}
        return contents, *_common_face(contents.pop(GEOMETRY))
    except FileNotFoundError:
        raise
    except Exception as error:                           # damaged bytes make zipfile, zlib and struct raise anything
        raise ValueError(f"{path}: not a face landmarker ({error}) -> `python -m gazepose models` gets one") from error


def _common_face(metadata: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Points and weights of MediaPipe's GeometryPipelineMetadata: field 1 the mesh (its field 3: x, y, z, u, v of each
    vertex), field 2 a point of the rigid part (field 1 its number, 2 its weight)."""
    face, weight = np.zeros((0, 3)), {}
    for number, value in _fields(metadata):
        if number == 1:
            face = np.array([entry for field, entry in _fields(value) if field == 3]).reshape(-1, 5)[:, :3]
        elif number == 2:
            point = dict(_fields(value))
            weight[point[1]] = point[2]
    weights = np.zeros(len(face))
    weights[list(weight)] = list(weight.values())
    return face, weights


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """The fields of a protocol buffer: number and value, of kinds varint, bytes and float."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte, at = message[at], at + 1
            value, shift = value | (byte & 127) << shift, shift + 7
            if byte < 128:
                return value

    while at < len(message):
        tag = varint()
        kind = tag & 7
        if kind == 0:
            value: Any = varint()
        elif kind == 2:
            size = varint()
            value, at = message[at:at + size], at + size
        elif kind == 5:
            value, at = struct.unpack_from("<f", message, at)[0], at + 4
        else:
            raise ValueError(f"a field of kind {kind}")
        yield tag >> 3, value


@contextmanager
def _without_notes() -> Iterator[None]:
    """LiteRT writes a line to standard error for each process, which no setting turns off."""
    with NOTES:
        before, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        try:
            yield
        finally:
            os.dup2(before, 2)
            os.close(before)
            os.close(nowhere)


def _network(content: bytes, threads: int) -> Any:
    """One network: an array and what it is multiplied by -> list of its outputs, as copies."""
    try:
        from ai_edge_litert.interpreter import Interpreter  # type: ignore[import-not-found]
    except ImportError as error:
        raise ImportError(f"LiteRT cannot be imported ({error}) -> it is in the optional extra `watch`: "
                          "pip install 'gazepose[watch]'") from error
    with _without_notes():
        interpreter = Interpreter(model_content=content, num_threads=threads)
        interpreter.allocate_tensors()
    entry = interpreter.tensor(interpreter.get_input_details()[0]["index"])
    exits = [details["index"] for details in interpreter.get_output_details()]

    def run(values: np.ndarray, by: float = 1.0) -> list[np.ndarray]:
        np.multiply(values, by, out=entry(), dtype=np.float32)         # written where the network reads it: no copy
        interpreter.invoke()
        return [interpreter.get_tensor(number) for number in exits]

    return run
