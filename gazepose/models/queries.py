"""Priors -> decoder queries, and what "unknown" means.

A prior is what is known of a face besides its pixels; `Priors` holds all of them for every model.
Three kinds of queries have one call: queries = Kind(...)(prior), prior [B, ...] -> [B, Q, d]. Unknown is NaN up to
here; here it becomes a table row of its own, or under behaviour "published" what the published code took it for.
Rows are found in float32 by true division, as the published numbers were: at the edge of a bin it decides.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Priors(NamedTuple):
    """The priors of a batch, float [B, ...], NaN unknown. Each field has the name of its column (data/index.py)."""

    head_pose: Tensor
    """yaw, pitch, roll in degrees, [B, 3]"""
    landmarks: Tensor
    """nose, left eye, right eye, left and right mouth corner: x, y in 0..1 of the crop, confidence; [B, 5, 3]"""

    @classmethod
    def of(cls, batch: Mapping[str, Tensor]) -> "Priors":
        """The priors of a loader's batch."""
        return cls(*(batch[name] for name in cls._fields))


def bins(value: Tensor, step: float, top: int) -> Tensor:
    """floor(value / step) held within 0..top; NaN stays NaN. float [...] -> float32 [...]."""
    value = value.float()
    # a tensor as divisor: by a plain number the GPU multiplies with the reciprocal, another bin at the edges
    return torch.floor(value / torch.full_like(value, step)).clamp(0, top)


def table_rows(row: Tensor, unknown: int) -> Tensor:
    """Whole numbers, NaN unknown, as rows of a table: float32 [...] -> int64 [...]."""
    return row.nan_to_num(unknown).long()


def eye_centred(landmarks: Tensor) -> Tensor:
    """Landmarks of the crop -> the published form: relative to the middle of the eyes, in units of the crop.

    Args:
        landmarks: nose, left eye, right eye, left and right mouth corner, each (x, y in 0..1 of the crop,
            confidence), [B, 5, 3]; NaN unknown. Without both eyes no position is known.

    Returns:
        [B, 5, 3], x and y within -2..2, confidence at most 1.
    """
    centre = landmarks[:, 1:3, :2].mean(dim=1, keepdim=True)              # [B, 1, 2]
    place = (landmarks[..., :2] - centre).clamp(-2, 2)                    # [B, 5, 2]
    return torch.cat([place, landmarks[..., 2:].clamp(max=1)], dim=-1)


class LearnedQueries(nn.Module):
    """The same learned queries for every face, blind to its prior."""

    def __init__(self, count: int, dim: int):
        super().__init__()
        self.table = nn.Parameter(torch.randn(count, dim))

    def forward(self, prior: Tensor) -> Tensor:
        """prior [B, ...] -> [B, count, d]; of the prior only B is read."""
        return self.table.expand(prior.shape[0], -1, -1)


class HeadPoseQueries(nn.Module):
    """One query per angle of the head, looked up in a table of bins.

    Intended: bins over -99..99 degrees and a row for unknown; beyond it the outermost bin. `unsigned` drops the
    sign (bins over 0..90). Published: unsigned, without a row for unknown, which counts as 90 degrees; the
    published code crashes past its last bin, this takes the last bin.
    """

    def __init__(self, dim: int, *, split: float, unsigned: bool = False, published: bool = False):
        super().__init__()
        self.split = split
        self.unsigned = unsigned or published
        self.top = int((90 if self.unsigned else 198) / split)            # last bin
        self.unknown = self.top if published else self.top + 1
        self.yaw, self.pitch, self.roll = (nn.Embedding(self.unknown + 1, dim) for _ in range(3))

    def rows(self, head_pose: Tensor) -> Tensor:
        """Table rows, float [B, 3] degrees (NaN unknown) -> int64 [B, 3]."""
        angle = head_pose.abs() if self.unsigned else head_pose + 99
        return table_rows(bins(angle, self.split, self.top), self.unknown)

    def forward(self, head_pose: Tensor) -> Tensor:
        """(yaw, pitch, roll) in degrees, NaN unknown, [B, 3] -> [B, 3, d]."""
        yaw, pitch, roll = self.rows(head_pose).unbind(dim=1)             # [B] each
        return torch.stack([self.yaw(yaw), self.pitch(pitch), self.roll(roll)], dim=1)


class LandmarkQueries(nn.Module):
    """One query per landmark: half of it says where it is, half how sure that is.

    Intended: one row per cell of the grid over -2..2, trained, and a row for unknown. Published: the row is
    x * int(2 / dsplit) + y, so that distant cells share rows; the tables stay at their random start (they are in
    the checkpoint, but get no gradient); unknown counts as all zeros.
    """

    def __init__(self, dim: int, *, dsplit: float, csplit: float, published: bool = False):
        super().__init__()
        self.dsplit, self.csplit = dsplit, csplit
        self.published = published
        self.top, self.confidence_top = int(4 / dsplit), int(1 / csplit)  # last bins
        cells = (self.top + 1) ** 2
        self.stride = int(2 / dsplit) if published else self.top + 1
        self.unknown_cell, self.unknown_confidence = cells, self.confidence_top + 1
        extra = 0 if published else 1                                     # the row for unknown
        self.cell = nn.Embedding(cells + extra, dim // 2)
        self.confidence = nn.Embedding(self.confidence_top + 1 + extra, dim // 2)
        self.requires_grad_(not published)

    def rows(self, relative: Tensor) -> tuple[Tensor, Tensor]:
        """Table rows of eye-centred landmarks, float [B, 5, 3] (NaN unknown) -> int64 [B, 5] cell, confidence."""
        if self.published:
            relative = relative.nan_to_num(0.0)
        x, y = bins(relative[..., :2] + 2, self.dsplit, self.top).unbind(dim=-1)  # [B, 5] each
        confidence = bins(relative[..., 2], self.csplit, self.confidence_top)
        return table_rows(x * self.stride + y, self.unknown_cell), table_rows(confidence, self.unknown_confidence)

    def forward(self, landmarks: Tensor) -> Tensor:
        """(x, y in 0..1 of the crop, confidence) of five landmarks, NaN unknown, [B, 5, 3] -> [B, 5, d]."""
        cell, confidence = self.rows(eye_centred(landmarks))
        return torch.cat([self.cell(cell), self.confidence(confidence)], dim=-1)
