"""Images that the original scripts and GazePose cut out of videos, read where they lie.

video_imgs/<clip>/img_%05d.jpg are whole pictures, face_imgs/<clip>/<track>/face_%05d.jpg are faces. Both are numbered
from 1, so image n is of decoded picture n - 1. How a face is cut is data/crops.py; videos are data/video.py.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from gazepose.data.shards import decode, jpeg_size
from gazepose.io import plain_file, plain_folder

MAX_BYTES = 64 << 20


def read_image(path: Path) -> tuple[bytes, np.ndarray]:
    """(the file's bytes, uint8 [H, W, 3] RGB).

    Raises:
        FileNotFoundError: no such file. ValueError: naming the file when it is damaged, absurdly large, or a link.
    """
    plain_file(path, "image", MAX_BYTES)
    jpeg = path.read_bytes()
    try:
        jpeg_size(jpeg)                                                # before memory is asked for
        return jpeg, decode(jpeg)
    except ValueError as error:
        raise ValueError(f"{path}: {error} -> download or make it again") from error


def picture_path(folder: Path, number: int) -> Path:
    """Where decoded picture `number` of a clip lies, extracted."""
    return folder / f"img_{number + 1:05d}.jpg"


def face_path(folder: Path, track: str, number: int) -> Path:
    """Where the face of decoded picture `number` lies in a clip's folder."""
    return folder / track / f"face_{number + 1:05d}.jpg"


def pictures_in_order(folder: Path, wanted: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
    """As video.frames_in_order, from extracted pictures; one that is not there is not yielded.

    Raises:
        FileNotFoundError: no such folder. ValueError: a picture is damaged.
    """
    folder = existing(folder)
    for number in wanted:
        try:
            yield number, read_image(picture_path(folder, number))[1]
        except FileNotFoundError:
            continue


def face_image(folder: Path, track: str, number: int) -> tuple[bytes, np.ndarray] | None:
    """The face of decoded picture `number`, as read_image; None when there is no image of it."""
    try:
        return read_image(face_path(folder, track, number))
    except FileNotFoundError:
        return None


def existing(folder: Path) -> Path:
    """The folder; FileNotFoundError when it is not there, ValueError when it is a link."""
    return plain_folder(folder, "folder of images")
