"""crops.json: faces cut out of a picture. A sample's `frame` only names its picture, which is the same for all."""

import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from gazepose.data.crops import PUBLISHED_SIZE, cut_face, published_crop
from golden import Result, apart, octets, read, same, some


def check(folder: Path) -> Iterator[Result]:
    recorded = read(folder / "crops.json")
    image = recorded["image"]
    rows, columns, repeat = *image["grid"], image["repeat"]
    blue_first = octets(image["octets_label"], rows * columns * 3).astype(np.uint8).reshape(rows, columns, 3)
    picture = np.ascontiguousarray(blue_first.repeat(repeat, 0).repeat(repeat, 1)[..., ::-1])
    yield Result("picture", same(picture.shape, (image["height"], image["width"], 3)), 0)
    for sample in some("samples", recorded["samples"]):
        face = cut_face(picture, np.array(sample["box"]))
        size = (PUBLISHED_SIZE, PUBLISHED_SIZE, 3)
        crop = np.zeros(size, np.uint8) if face is None else np.ascontiguousarray(published_crop(face))
        name = f"box {sample['box']}"
        yield Result(f"{name}: black", same(face is None, sample["black"]), 0)
        yield Result(f"{name}: bytes", same(zlib.crc32(crop.tobytes()), sample["crc32"]), 0)
        yield Result(f"{name}: mean", apart(crop.mean(axis=(0, 1)), sample["mean_rgb"]), 1e-9)
        pixels = [crop[pixel["row"], pixel["column"]].tolist() for pixel in sample["pixels"]]
        yield Result(f"{name}: pixels", same(pixels, [pixel["rgb"] for pixel in sample["pixels"]]), 0)
