"""Calibration: how often a score is right, and where the scores of each class lie."""

import numpy as np
from matplotlib.figure import Figure

from gazepose.evaluation.metrics import calibration_error
from gazepose.report.drawing import Theme, heading, panels
from gazepose.report.records import Records


def caption(records: Records) -> str:
    """What the picture shows, in words."""
    beside = "; thin: head pose alone" if records.head_pose is not None else ""
    return (f"Dashed: as often as said{beside}. Training with class weights moves scores away from frequencies; the "
            "order, and so mAP, does not mind.")


def _bins(label: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean score, share of looking and count of each tenth of the scores that holds any."""
    place = np.clip(np.digitize(score, np.linspace(0, 1, 11)) - 1, 0, 9)
    n = np.bincount(place, minlength=10)
    has = n > 0
    return np.bincount(place, score, 10)[has] / n[has], np.bincount(place, label, 10)[has] / n[has], n[has]


def draw_calibration(records: Records, theme: Theme) -> Figure:
    """How often a score of p is right, and where the scores of each class lie."""
    figure, (line, counts) = panels(4.1, (2.4, 1), left=0.11, right=0.96, top=0.93, bottom=0.12, hspace=0.34)
    label, score = records.scores["label"] == 1, records.scores["score"].astype(float)
    mean, share, n = _bins(label, score)
    gap = calibration_error(label, score, bins=10)
    line.plot([0, 100], [0, 100], color=theme.muted, linewidth=1, linestyle=(0, (4, 3)))
    if records.head_pose is not None:
        said, true, _ = _bins(label, records.head_pose)
        line.plot(100 * said, 100 * true, color=theme.muted, linewidth=0.9, marker="o", markersize=2.5, clip_on=False)
    line.plot(100 * mean, 100 * share, color=theme.accent, clip_on=False)
    line.scatter(100 * mean, 100 * share, s=12 + 120 * n / n.max(), color=theme.accent, clip_on=False, zorder=3,
                 linewidths=0)
    line.set(xlim=(0, 100), ylim=(0, 100))
    heading(line, f"looking among faces of that score, %; mean gap {100 * gap:.1f}", theme)
    for positive, color in ((label, theme.accent), (~label, theme.ink)):
        bins = np.histogram(score[positive], bins=np.linspace(0, 1, 31))[0]
        height = 100 * bins / max(1, bins.sum())
        counts.stairs(height, np.linspace(0, 100, 31), color=color, fill=positive is label,
                      alpha=0.55 if positive is label else 1.0, linewidth=1.2)
    counts.set(xlim=(0, 100), xlabel="score, %")
    heading(counts, "share of each class, %:", theme)
    for x, name, color in ((0.40, "looking", theme.accent), (0.56, "not looking", theme.ink)):
        counts.text(x, 1.03, name, transform=counts.transAxes, color=color, fontweight="bold", va="bottom")
    for axes in (line, counts):
        axes.set_xticks([0, 25, 50, 75, 100])
    line.set_yticks([0, 25, 50, 75, 100])
    return figure
