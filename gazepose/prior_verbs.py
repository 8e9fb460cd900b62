"""The verbs of python -m gazepose priors, one function each, as in verbs.py."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gazepose.data.index import Index
from gazepose.source import prepared_indexes

Prior = Literal["head_pose", "landmarks", "quality", "quality_p"]


@dataclass(frozen=True, kw_only=True)
class Where:
    """Which prepared data."""

    data: Path | None = None
    """a data set, or one index folder; default: data/ if Ego4D is there, else the embedded world"""
    split: tuple[Literal["train", "val", "test"], ...] | None = None
    """which of its splits; default: all that are prepared"""
    prepared: str | None = None
    """which of its prepared folders, such as clean-224; default: all"""

    def indexes(self) -> list[Index]:
        return prepared_indexes(self.data, self.split, self.prepared)


def import_priors(prior: Prior, files: tuple[Path, ...], /,
                  where: Where = Where(), yaw: Literal["hopenet", "index"] = "hopenet",     # noqa: B008
                  max_bad_fraction: float = 0.01) -> None:
    """Import a prior from the published JSON files, or from tables whose names end in .csv.

    Keys of the JSON: clip:track:frame, clip:track:unique_id:frame, or nested. Columns of a table: clip,track,frame (of
    test crops unique_id) and yaw,pitch,roll or nose_x,nose_y,nose_confidence,left_eye_x,... (left_eye, right_eye,
    left_mouth, right_mouth) or quality or quality_p.

    Args:
        prior: what the files hold; quality is the Laplacian variance, quality_p is p, computed by you.
        files: one or more files; if a face has two entries, the later one is used.
        yaw: sign of the yaw in the files: Hopenet's (and 6DRepNet's), or the index's, positive to the picture's right.
        max_bad_fraction: stop if more than this part of the entries cannot be used.
    """
    from gazepose.priors.commands import import_files
    import_files(where.indexes(), files, prior, hopenet_signs=yaw == "hopenet", max_bad_fraction=max_bad_fraction)


def quality(where: Where = Where(), measure: bool = False) -> None:                         # noqa: B008
    """Show the quality of each split and how many frames Gaussian Temporal Dropout drops under each fit.

    The fit of a run is chosen by --quality_scale of train and --quality_from of infer.

    Args:
        measure: measure the quality of all stored crops again; off: only of crops whose quality is unknown.
    """
    from gazepose.priors.commands import show_quality
    show_quality(where.indexes(), measure=measure)


def head_pose(model: Path | None = None, where: Where = Where(), batch_size: int = 64) -> None:    # noqa: B008
    """Estimate the head pose with the landmark network (`python -m gazepose models` gets it), or with your own Hopenet
    checkpoint; an interrupted command resumes.

    Args:
        model: Hopenet's snapshot (ResNet50, three heads of 66 bins), a torch.save or safetensors file; default: the
            landmark network.
        batch_size: how many crops Hopenet computes at a time.
    """
    from gazepose.priors.commands import estimate_poses, read_column
    if model is None:
        read_column(where.indexes(), "head_pose")
    else:
        estimate_poses(where.indexes(), model, batch_size=batch_size)


def landmarks(model: Path | None = None, where: Where = Where()) -> None:                   # noqa: B008
    """Find five landmarks with the landmark network (`python -m gazepose models` gets it); an interrupted command
    resumes.

    Args:
        model: another file of Google's FaceLandmarker (.task); default: the one that `models` got.
    """
    from gazepose.priors.commands import read_column
    read_column(where.indexes(), "landmarks", model)


def pose_from_landmarks(where: Where = Where()) -> None:                                    # noqa: B008
    """Fit the head pose to the known landmarks, with an average face and OpenCV's solver."""
    from gazepose.priors.commands import fit_poses
    fit_poses(where.indexes())
