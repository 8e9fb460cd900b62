"""Images that the original scripts and GazePose cut out of videos, used in place.

video_imgs/<clip>/img_%05d.jpg are whole pictures, face_imgs/<clip>/<track>/face_%05d.jpg are faces. Both are numbered
from 1, so image n shows decoded picture n - 1. How a face is cut is data/crops.py; videos are data/video.py.
"""

import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from gazepose.data.display_turn import as_shown
from gazepose.data.shards import decode, encode, jpeg_size
from gazepose.io import UnusableFile, plain_file, plain_folder

MAX_BYTES = 64 << 20
FOLDER = "folder of images"  # of one clip, in messages
ORIENTATION = 0x0112         # the EXIF tag, whose values 1 to 8 are these display matrices (video.as_shown)
ORIENTATIONS = (None, None, (-1, 0, 0, 1), (-1, 0, 0, -1), (1, 0, 0, -1), (0, 1, 1, 0), (0, 1, -1, 0), (0, -1, -1, 0),
                (0, -1, 1, 0))
JPEG_END = b"\xff\xd9"       # cannot occur inside: a byte of 255 is followed by a 0 there
HEADER_BYTES, END_BYTES = 4096, 64               # read of each image to check it


def read_image(path: Path) -> tuple[bytes, np.ndarray]:
    """(the file's bytes, uint8 [H, W, 3] RGB). An image that its EXIF data turns is turned, and its bytes made again.

    Raises:
        FileNotFoundError: no such file. ValueError: naming the file when it is damaged, absurdly large, or a link.
    """
    plain_file(path, "image", MAX_BYTES)
    jpeg = path.read_bytes()
    try:
        picture = decode(jpeg)
    except ValueError as error:
        raise UnusableFile(f"{path}: {error} -> download or make it again") from error
    if (turned := ORIENTATIONS[_orientation(jpeg)]) is not None:
        picture = as_shown(picture, turned)
        jpeg = encode(picture)
    return jpeg, picture


def _orientation(jpeg: bytes) -> int:
    """Of the EXIF data that begin within HEADER_BYTES, 1 to 8; 1: as it is."""
    start = jpeg.find(b"Exif\0\0", 0, HEADER_BYTES)
    tiff = jpeg[start + 6:start + 6 + HEADER_BYTES]
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2]) if start >= 0 else None
    if order is None:
        return 1
    with suppress(struct.error):                                       # cut short, or absurd
        (directory,) = struct.unpack_from(f"{order}I", tiff, 4)
        for entry in range(*struct.unpack_from(f"{order}H", tiff, directory)):
            tag, _, _, value = struct.unpack_from(f"{order}HHIH", tiff, directory + 2 + 12 * entry)
            if tag == ORIENTATION and 1 <= value <= 8:
                return value
    return 1


def size_by_header(path: Path) -> tuple[int, int]:
    """(height, width) of an image by its first and last bytes, without decoding.

    Raises:
        ValueError: naming the file, when its header is damaged or its end is missing. Damage in between shows only when
            the crop is decoded (images.read_image).
    """
    plain_file(path, "image", MAX_BYTES)
    with open(path, "rb") as file:
        jpeg = file.read(HEADER_BYTES)
        tail = jpeg
        if len(jpeg) == HEADER_BYTES:
            file.seek(-END_BYTES, os.SEEK_END)
            tail = file.read()
        try:
            try:
                size = jpeg_size(jpeg)
            except ValueError:                                         # a long comment or thumbnail may come first
                file.seek(0)
                size = jpeg_size(file.read())
            if JPEG_END not in tail:
                raise ValueError("not a JPEG: it has no end, so it was cut short")
        except ValueError as error:
            raise UnusableFile(f"{path}: {error} -> download it again") from error
    return (size[1], size[0]) if _orientation(jpeg) > 4 else size


def picture_path(folder: Path, number: int) -> Path:
    """Where decoded picture `number` of a clip lies, extracted."""
    return folder / f"img_{number + 1:05d}.jpg"


def face_path(folder: Path, track: str, number: int) -> Path:
    """Where the face of decoded picture `number` lies in a clip's folder."""
    return folder / track / f"face_{number + 1:05d}.jpg"


def pictures_in_order(folder: Path, numbers: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
    """As video.frames_in_order, from extracted pictures; a missing one is not yielded.

    Raises:
        FileNotFoundError: no such folder. ValueError: a picture is damaged.
    """
    plain_folder(folder, FOLDER)
    for number in numbers:
        try:
            yield number, read_image(picture_path(folder, number))[1]
        except FileNotFoundError:
            continue
