"""Timeline: one track: the score as it runs, the annotated stretches, the faces."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from gazepose.evaluation.examples import CANDIDATES, FRAMES_PER_SECOND, distance
from gazepose.evaluation.metrics import THRESHOLD
from gazepose.report.drawing import WIDTH, Theme, heading
from gazepose.report.kept import Track
from gazepose.report.records import Records

TITLE = "Tracks"


def lacks(records: Records) -> str | None:
    """The sentence where there is nothing to draw."""
    none = "There is no track to draw (pred/timeline.npz, or clip, track and frame in pred/val.npz)."
    return None if records.tracks else none


def explained(records: Records) -> str:
    """What all these pictures show, in words."""
    order = (f"From the track whose scores are nearest to its labels to the one farthest off, of the {CANDIDATES} in "
             "which both classes are most even. " if len(records.tracks) > 1 else "")
    alone = "Thin: head pose alone. " if "head_pose_score" in records.tracks[0].columns else ""
    return (f"{order}Shaded: annotated as looking. {alone}Faces: one of each stretch of time, framed where annotated "
            "as looking, with the score in %; a stretch with any looking frame shows one.")


def title(track: Track) -> str:
    """The track by name, as far as names were recorded."""
    return " of ".join(f"{what} {name}" for what, name in (("Track", track.name), ("clip", track.clip)) if name) \
        or "One track"


def caption(track: Track) -> str:
    """What the picture shows, in words."""
    frame, label, score = (track.columns[name] for name in ("frame", "label", "score"))
    off = f", on average {100 * distance(label, score):.0f} off the label" if (label >= 0).any() else ""
    lost = "" if len(track.crops) else " No crops were kept, so the faces are not shown."
    return f"{len(frame):,} scored frames, {frame[0]} to {frame[-1]}{off}.{lost}"


def draw_timeline(track: Track, theme: Theme) -> Figure:
    """The score as it runs, the annotated stretches shaded, the faces under it."""
    columns = track.columns
    frame, label = columns["frame"].astype(float), columns["label"] == 1
    second = (frame - frame[0]) / FRAMES_PER_SECOND
    at = track.crop_at
    plot, above, below = 1.15, 0.3, 0.42  # inches
    cell = 0.89 * WIDTH / max(1, len(at))
    side = min(0.92 * cell, 0.55)
    under = side + 0.24 if len(at) else 0.0  # the faces and their scores
    height = above + plot + below + under
    figure = Figure((WIDTH, height))
    left, right = 0.36 / WIDTH, 1 - 0.12 / WIDTH
    axes = figure.add_axes((left, 1 - (above + plot) / height, right - left, plot / height))
    usual = float(np.median(np.diff(second))) if len(second) > 1 else 1.0
    holes = np.flatnonzero(np.diff(second) > 3.5 * usual) + 1  # a line across missing frames would be invented
    for name, color, width in (("head_pose_score", theme.muted, 0.9), ("score", theme.accent, 1.6)):
        if name in columns:
            axes.plot(np.insert(second, holes, np.nan), 100 * np.insert(columns[name].astype(float), holes, np.nan),
                      color=color, linewidth=width, clip_on=False)
    start = np.flatnonzero(np.diff(np.concatenate([[False], label]).astype(int)) == 1)
    end = np.flatnonzero(np.diff(np.concatenate([label, [False]]).astype(int)) == -1)
    for low, high in zip(start, end, strict=True):
        axes.axvspan(second[low] - usual / 2, second[high] + usual / 2, color=theme.accent, alpha=0.16, linewidth=0)
    axes.axhline(100 * THRESHOLD, color=theme.muted, linewidth=1, linestyle=(0, (2, 3)))
    axes.set(ylim=(0, 100), xlim=(-usual / 2, max(second[-1], usual) + usual / 2))
    axes.set_yticks([0, 50, 100])
    axes.set_xticks([tick for tick in MaxNLocator(6).tick_values(0, second[-1]) if -1e-9 < tick < second[-1] + 1e-9])
    heading(axes, "score, %", theme)
    figure.text(right, (0.06 + under) / height, "seconds", ha="right", color=theme.muted, fontsize=8)
    for k, (row, face) in enumerate(zip(at, track.crops, strict=True)):
        middle = left + (k + 0.5) * (right - left) / len(at)
        picture = figure.add_axes((middle - side / 2 / WIDTH, 0.2 / height, side / WIDTH, side / height))
        picture.imshow(face, interpolation="bilinear", aspect="auto")
        picture.set(xticks=[], yticks=[])
        picture.grid(False)
        picture.spines[:].set(visible=bool(label[row]), color=theme.accent, linewidth=2.2)
        figure.text(middle, 0.05 / height, f"{100 * columns['score'][row]:.0f}", ha="center", fontsize=8,
                    color=theme.accent if label[row] else theme.muted, fontweight="bold" if label[row] else "normal")
        axes.plot(second[row], 100 * columns["score"][row], "o", color=theme.accent, markersize=3.2, clip_on=False)
    return figure
