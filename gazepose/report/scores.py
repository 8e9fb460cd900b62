"""Scores: precision and recall, confusion and calibration of the saved predictions."""

import numpy as np
from matplotlib.figure import Figure

from gazepose.metrics import THRESHOLD, evaluate
from gazepose.report.drawing import Theme, heading, panels, thinned
from gazepose.report.records import Records


def lacks(records: Records) -> str | None:
    """The sentence where there is nothing to draw."""
    label = records.scores.get("label", np.zeros(0))
    if not len(label):
        return "There are no saved predictions with labels (pred/val.npz); infer.py --split val writes them."
    return None if 0 in label and 1 in label else f"All {len(label):,} predicted faces are of one class."


def _curve(hit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Recall and the envelope of precision at each hit of a ranked list, from recall 0."""
    rank = np.flatnonzero(hit) + 1
    precision = np.arange(1, len(rank) + 1) / rank
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    recall = np.arange(len(rank) + 1) / len(rank)
    keep = thinned(recall)
    return recall[keep], np.concatenate([envelope[:1], envelope])[keep]


def _free_place(grid: np.ndarray, own: np.ndarray, lines: list[np.ndarray], taken: list[tuple[float, float]],
                half_width: int = 19, half_height: float = 4.5) -> tuple[float, float]:
    """Centre of a label near its own line that touches no line and no other label."""
    best = (np.inf, (50.0, 50.0))
    for x in range(40, 101 - half_width, 3):
        under = slice(x - half_width, x + half_width + 1)
        for y in np.arange(5.0, 108.0, 1.5):
            free = min(np.abs(line[under] - y).min() for line in lines) > half_height or y > 104.5
            apart = all(abs(y - other) > 2 * half_height for _, other in taken)
            cost = np.abs(own[under] - y).min() + 0.02 * abs(x - 60)
            if free and apart and cost < best[0]:
                best = (cost, (float(grid[x]), float(y)))
    return best[1]


def draw_precision_recall(records: Records, theme: Theme) -> Figure:
    """Both classes, each with the precision of guessing."""
    figure, (axes,) = panels(3.7, left=0.11, right=0.96, top=0.92, bottom=0.13)
    label, score = records.scores["label"] == 1, records.scores["score"].astype(float)
    result = evaluate(label.astype(int), score)
    grid, curves, words = np.arange(101.0), [], []
    for name, positive, value, color in (("looking", label, score, theme.accent),
                                         ("not looking", ~label, 1 - score, theme.ink)):
        recall, precision = _curve(positive[np.argsort(-value, kind="stable")])
        axes.plot(100 * recall, 100 * precision, color=color, clip_on=False)
        share = 100 * positive.mean()
        axes.axhline(share, color=color, linewidth=1, linestyle=(0, (2, 3)), alpha=0.8)
        axes.annotate(f"chance {share:.1f}", (0, share), (2, -3 if share > 50 else 3), textcoords="offset points",
                      color=color, fontsize=7.5, va="top" if share > 50 else "bottom", alpha=0.9)
        curves.append((np.interp(grid, 100 * recall, 100 * precision), np.full(len(grid), share)))
        words.append((f"{name}, AP {100 * result['ap_' + name.replace(' ', '_')]:.1f}", color))
    taken: list[tuple[float, float]] = []
    for (own, _), (text, color) in zip(curves, words, strict=True):
        taken.append(_free_place(grid, own, [line for pair in curves for line in pair], taken))
        axes.text(*taken[-1], text, color=color, ha="center", va="center", fontweight="bold")
    axes.set(xlim=(0, 100), ylim=(0, 112), xlabel="recall, %")
    axes.set_yticks([0, 25, 50, 75, 100])
    heading(axes, "precision, %", theme)
    return figure


def draw_confusion(records: Records, theme: Theme) -> Figure:
    """Counts at a score of one half; the shade is the share of the annotated class."""
    figure, (axes,) = panels(2.8, left=0.24, right=0.98, top=0.83, bottom=0.03)
    counts = evaluate(records.scores["label"], records.scores["score"])["confusion"]
    names = ["looking", "not looking"]
    table = np.array([[counts["tp"], counts["fn"]], [counts["fp"], counts["tn"]]])
    for y, row in enumerate(table):
        for x, count in enumerate(row):
            share = count / max(1, row.sum())
            axes.fill([x + 0.02, x + 0.98, x + 0.98, x + 0.02], [y + 0.03, y + 0.03, y + 0.97, y + 0.97],
                      color=theme.accent if x == y else theme.muted, alpha=0.08 + 0.55 * share, linewidth=0)
            axes.text(x + 0.5, y + 0.44, f"{100 * share:.1f} %", ha="center", va="center", fontsize=14)
            axes.text(x + 0.5, y + 0.72, f"{count:,} of {row.sum():,}", ha="center", va="center", fontsize=8)
    axes.set(xlim=(0, 2), ylim=(2, 0))
    axes.set_xticks([0.5, 1.5], names)
    axes.set_yticks([0.5, 1.5], names)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.text(1, -0.24, f"said (score {THRESHOLD:g} and above is looking)", ha="center", color=theme.muted, fontsize=8)
    axes.text(-0.045, -0.09, "annotated", ha="right", color=theme.muted, fontsize=8)
    return figure


def draw_calibration(records: Records, theme: Theme) -> Figure:
    """How often a score of p is right, and where the scores of each class lie."""
    figure, (curve, counts) = panels(4.1, (2.4, 1), left=0.11, right=0.96, top=0.93, bottom=0.12, hspace=0.34)
    label, score = records.scores["label"] == 1, records.scores["score"].astype(float)
    edges = np.linspace(0, 1, 11)
    place = np.clip(np.digitize(score, edges) - 1, 0, 9)
    n = np.bincount(place, minlength=10)
    has = n > 0
    mean = np.bincount(place, score, 10)[has] / n[has]
    share = np.bincount(place, label, 10)[has] / n[has]
    gap = float((n[has] * np.abs(mean - share)).sum() / n.sum())
    curve.plot([0, 100], [0, 100], color=theme.muted, linewidth=1, linestyle=(0, (4, 3)))
    above = np.interp(0.24, mean, share) < 0.24  # the words go where the curve does not
    curve.text(24, 26 if above else 22, "as often as said", color=theme.muted, fontsize=7.5, ha="center", rotation=45,
               va="bottom" if above else "top", rotation_mode="anchor", transform_rotates_text=True)
    curve.plot(100 * mean, 100 * share, color=theme.accent, clip_on=False)
    curve.scatter(100 * mean, 100 * share, s=12 + 120 * n[has] / n.max(), color=theme.accent, clip_on=False, zorder=3,
                  linewidths=0)
    curve.set(xlim=(0, 100), ylim=(0, 100))
    heading(curve, f"looking among faces of that score, %; mean gap {100 * gap:.1f}", theme)
    for positive, color in ((label, theme.accent), (~label, theme.ink)):
        bins = np.histogram(score[positive], bins=np.linspace(0, 1, 31))[0]
        height = 100 * bins / max(1, bins.sum())
        counts.stairs(height, np.linspace(0, 100, 31), color=color, fill=positive is label,
                      alpha=0.55 if positive is label else 1.0, linewidth=1.2)
    counts.set(xlim=(0, 100), xlabel="score, %")
    heading(counts, "share of each class, %:", theme)
    for x, name, color in ((0.40, "looking", theme.accent), (0.56, "not looking", theme.ink)):
        counts.text(x, 1.03, name, transform=counts.transAxes, color=color, fontweight="bold", va="bottom")
    for axes in (curve, counts):
        axes.set_xticks([0, 25, 50, 75, 100])
    curve.set_yticks([0, 25, 50, 75, 100])
    return figure
