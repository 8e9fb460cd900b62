"""Timeline: one track: the score as it runs, the annotated stretches, the faces."""

import numpy as np
from matplotlib.figure import Figure

from gazepose.metrics import THRESHOLD
from gazepose.report.drawing import WIDTH, Theme, heading
from gazepose.report.records import Records, spread

FRAMES_PER_SECOND = 30  # of every Ego4D clip and of the embedded world


def lacks(records: Records) -> str | None:
    """The sentence where there is nothing to draw."""
    none = "There is no track to draw (pred/timeline.npz, or clip, track and frame in pred/val.npz)."
    return None if records.timeline else none


def caption(records: Records) -> str:
    """What the picture shows, in words."""
    if not records.timeline:
        return ""
    frame = records.timeline["frame"]
    faces = ("Framed faces are annotated as looking; the number is the score in %. A stretch with any looking frame "
             "shows one." if "crops" in records.timeline else "No crops were kept, so the faces are not shown.")
    return (f"{len(frame):,} scored frames, {frame[0]} to {frame[-1]}, of one face at {FRAMES_PER_SECOND} frames per "
            f"second. {faces}")


def draw_timeline(records: Records, theme: Theme, narrow: bool = False) -> Figure:
    """One track: the score as it runs, the annotated stretches shaded, the faces under it."""
    line = records.timeline
    frame, label = line["frame"].astype(float), line["label"] == 1
    second = (frame - frame[0]) / FRAMES_PER_SECOND
    width = WIDTH if narrow else 2.1 * WIDTH
    at, faces = line.get("crop_at", np.zeros(0, int)), line.get("crops", np.zeros((0, 1, 1, 3), np.uint8))
    if narrow and len(at):
        some = spread(frame[at], line["label"][at], 6)
        at, faces = at[some], faces[some]
    plot = 1.6  # inches
    under = 0.89 * width / len(at) + 0.22 if len(at) else 0.0  # the faces and their scores
    height = 0.34 + plot + 0.45 + under
    figure = Figure((width, height))
    left, right = 0.4 / width, 1 - 0.12 / width
    axes = figure.add_axes((left, 1 - (0.34 + plot) / height, right - left, plot / height))
    usual = np.median(np.diff(second)) if len(second) > 1 else 1.0
    holes = np.flatnonzero(np.diff(second) > 3.5 * usual) + 1  # a line across missing frames would be invented
    axes.plot(np.insert(second, holes, np.nan), 100 * np.insert(line["score"].astype(float), holes, np.nan),
              color=theme.accent, clip_on=False)
    start = np.flatnonzero(np.diff(np.concatenate([[False], label]).astype(int)) == 1)
    end = np.flatnonzero(np.diff(np.concatenate([label, [False]]).astype(int)) == -1)
    for low, high in zip(start, end, strict=True):
        axes.axvspan(second[low] - usual / 2, second[high] + usual / 2, color=theme.accent, alpha=0.16, linewidth=0)
    axes.axhline(100 * THRESHOLD, color=theme.muted, linewidth=1, linestyle=(0, (2, 3)))
    axes.set(ylim=(0, 100), xlim=(-usual / 2, max(second[-1], usual) + usual / 2))
    axes.set_yticks([0, 50, 100])
    heading(axes, "score, %; shaded where annotated as looking", theme)
    figure.text(right, (0.1 + under) / height, "seconds", ha="right", color=theme.muted,
                fontsize=8)
    cell = (right - left) / max(1, len(at))
    for k, (row, face) in enumerate(zip(at, faces, strict=False)):
        box = (left + (k + 0.04) * cell, 0.2 / height, 0.92 * cell, 0.92 * cell * width / height)
        picture = figure.add_axes(box)
        picture.imshow(face, interpolation="bilinear", aspect="auto")
        picture.set(xticks=[], yticks=[])
        picture.grid(False)
        picture.spines[:].set(visible=bool(label[row]), color=theme.accent, linewidth=2.2)
        figure.text(box[0] + box[2] / 2, 0.05 / height, f"{100 * line['score'][row]:.0f}", ha="center", fontsize=8,
                    color=theme.accent if label[row] else theme.muted, fontweight="bold" if label[row] else "normal")
        axes.plot(second[row], 100 * line["score"][row], "o", color=theme.accent, markersize=3.2, clip_on=False)
    return figure
