"""The verbs of `python -m gazepose priors`: prepared faces -> columns head_pose, landmarks, quality, quality_p.

Each verb prints for how many faces the column is known. How a column is computed: head_pose.py, landmarks.py and
data/quality.py; how files are read: import_files.py.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from shlex import quote
from typing import Literal

import numpy as np
import torch

from gazepose.data.config import Scale
from gazepose.data.crops import quality_of
from gazepose.data.index import Index
from gazepose.data.quality import drop_in_evaluation, fit_quality, quality_p, scaled
from gazepose.io import sha256_of
from gazepose.machine import cores
from gazepose.output import inform
from gazepose.priors.chunked_column import PIXELS, batches_of_crops, extract, put_column
from gazepose.priors.face_landmarker import FaceLandmarker
from gazepose.priors.head_pose import estimate_head_pose, pose_from_landmarks, read_hopenet
from gazepose.priors.import_files import Prior, join_entries, read_priors
from gazepose.priors.landmarks import landmarks_of, pose_of, read_crop
from gazepose.priors.model_files import find
from gazepose.text import counted

SCALES: tuple[Scale, ...] = ("variance", "log")


def import_files(indexes: Sequence[Index], files: Sequence[Path], prior: Prior, *, hopenet_signs: bool = True,
                 max_bad_fraction: float = 0.01) -> None:
    """Import a prior from files; an index that has none of their faces stays as it is. Arguments as `read_priors`.

    Raises:
        ValueError: no index has a face of the files; or as `read_priors`.
    """
    entries = read_priors(files, prior, hopenet_signs=hopenet_signs, max_bad_fraction=max_bad_fraction)
    print(f"{', '.join(map(str, files))}: {entries.summary()}")
    columns = [join_entries(index, entries) for index in indexes]
    if not any(column.rows for column in columns):
        first = indexes[0].name_of(0) if len(indexes[0]) else "it is empty"
        raise ValueError(f"{files[0]}: none of its faces (first: {entries.example}) is in {indexes[0].folder} (first: "
                         f"{first}) -> check that the file belongs to this data set and split")
    for index, column in zip(indexes, columns, strict=True):
        outcome = f"{index.folder}: not changed"
        if column.rows:
            put_column(index, prior, column.values, f"imported from {', '.join(path.name for path in files)}")
            outcome = _coverage(index, prior, column.values)
        print(f"{outcome}; {counted(column.unknown, 'entry', 'entries')} for faces it does not have, "
              f"{column.twice} replaced by a later one")


def show_quality(indexes: Sequence[Index], *, measure: bool = False) -> None:
    """Print each index's quality, and the share of frames that Gaussian Temporal Dropout leaves out under its own fit
    and under the training split's.

    Args:
        measure: measure the Laplacian variance on the stored crops again; otherwise only where an index has none.
    """
    quality = {index.folder: index.quality for index in indexes}
    for index in indexes:
        if measure or "quality" not in index.columns:
            quality[index.folder] = extract(
                index, "quality", lambda rows, index=index: np.array(
                    [quality_of(index.crop(row)) for row in rows.tolist()]),
                depends="Laplacian variance", source="measured on the stored crops")
    for index in indexes:
        variance, train = quality[index.folder], quality.get(index.folder.with_name("train"))
        print(_coverage(index, "quality", variance))
        for scale in SCALES:
            fits = {"own": fit_quality(variance, scale)}
            if train is not None and index.folder.name != "train":
                fits["training"] = fit_quality(train, scale)
            for whose, fit in fits.items():
                if fit is not None:
                    dropped = drop_in_evaluation(quality_p(scaled(variance, scale), *fit)).mean()
                    print(f"  --quality_scale {scale}, {whose} fit: mean {fit[0]:.6g}, standard deviation "
                          f"{fit[1]:.6g}, p < 0.2 for {dropped:.1%}")


def estimate_poses(indexes: Sequence[Index], model: Path, *, batch_size: int = 64) -> None:
    """Head pose by a Hopenet file, on the accelerator if there is one."""
    network, unused = read_hopenet(model)
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    inform(f"{model}: Hopenet on {device}; unused entries: {', '.join(unused) or 'nothing'}")
    network.to(device)
    for index in indexes:
        poses = extract(index, "head_pose", lambda rows, index=index: np.concatenate(
            [estimate_head_pose(network, crops) for crops in batches_of_crops(index, rows, batch_size)]),
            depends=f"Hopenet {sha256_of(model)}, {batch_size} at a time", source=f"Hopenet, {model.name}")
        print(_coverage(index, "head_pose", poses))


def read_column(indexes: Sequence[Index], column: Literal["head_pose", "landmarks"], model: Path | None = None) -> None:
    """Landmarks or head pose by the landmark network, on all cores.

    Args:
        model: its file; default: the one that `python -m gazepose models` got.
    """
    path = model or find("face_landmarker")
    network, value = FaceLandmarker(path), landmarks_of if column == "landmarks" else pose_of
    depends = f"FaceLandmarker {sha256_of(path)}"
    with ThreadPoolExecutor(cores()) as threads:
        for index in indexes:
            def read(row: int, index: Index = index) -> np.ndarray:
                return value(read_crop(network, index.crop(row), float(_aspect(index.box[row:row + 1])[0])))

            values = extract(index, column, lambda rows, read=read: np.stack(list(threads.map(read, rows.tolist()))),
                             depends=depends, source="FaceLandmarker", reads=(*PIXELS, "box"))
            print(_coverage(index, column, values))


def fit_poses(indexes: Sequence[Index]) -> None:
    """Head pose by fitting a common face to the index's landmarks.

    Raises:
        ValueError: an index has no landmarks.
    """
    for index in indexes:
        if "landmarks" not in index.columns:
            data = quote(str(index.folder))
            raise ValueError(f"{index.folder}: has no landmarks -> import them with `python -m gazepose priors import "
                             f"landmarks FILE --data {data}`, or find them with `python -m gazepose priors landmarks "
                             f"--data {data}`")
        poses = extract(index, "head_pose", lambda rows, index=index: pose_from_landmarks(
            index.landmarks[rows], _aspect(index.box[rows])), depends="SQPnP, Levenberg-Marquardt",
            source="fitted to the landmarks", reads=("box", "landmarks"))
        print(_coverage(index, "head_pose", poses))


def _aspect(box: np.ndarray) -> np.ndarray:
    """Width to height of boxes [n, 4], float64 [n]; NaN where a box is unknown or flat."""
    width, height = (box[:, 2:] - box[:, :2]).astype(np.float64).T
    return np.divide(width, height, out=np.full(len(box), np.nan), where=(height > 0) & (width > 0))


def _coverage(index: Index, column: str, values: np.ndarray) -> str:
    known = int(np.isfinite(values.reshape(len(values), -1)).all(axis=1).sum())
    return f"{index.folder}: {column} known for {known} of {len(values)} faces ({known / max(len(values), 1):.1%})"
