"""Scores: precision and recall, and confusion of the saved predictions, head pose alone beside them."""

import numpy as np
from matplotlib.figure import Figure

from gazepose.evaluation.metrics import THRESHOLD, evaluate
from gazepose.report.drawing import Theme, heading, panels, thinned
from gazepose.report.records import Records


def lacks(records: Records) -> str | None:
    """The sentence where there is nothing to draw."""
    label = records.scores.get("label", np.zeros(0))
    if not len(label):
        return "There are no saved predictions with labels (pred/val.npz); infer.py --split val writes them."
    return None if 0 in label and 1 in label else f"All {len(label):,} predicted faces are of one class."


def precision_recall_caption(records: Records) -> str:
    """What the picture shows, in words."""
    beside = "Thin: head pose alone. " if records.head_pose is not None else ""
    return ("The envelope whose area is the AP; mAP is the mean of the two. "
            f"{beside}Dotted: the class's share, which guessing gives.")


def confusion_caption(records: Records) -> str:
    """What the picture shows, in words."""
    beside = " Below: the same of head pose alone." if records.head_pose is not None else ""
    return f"Each row is one annotated class and sums to 100 %. Accuracy is dominated by the frequent class.{beside}"


def curve(hit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Recall and the envelope of precision at each hit of a ranked list, from recall 0."""
    rank = np.flatnonzero(hit) + 1
    precision = np.arange(1, len(rank) + 1) / rank
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    recall = np.arange(len(rank) + 1) / len(rank)
    keep = thinned(recall)
    return recall[keep], np.concatenate([envelope[:1], envelope])[keep]


def draw_precision_recall(records: Records, theme: Theme) -> Figure:
    """Both classes, each with the precision of guessing."""
    figure, (axes,) = panels(3.7, left=0.11, right=0.96, top=0.92, bottom=0.13)
    label, score = records.scores["label"] == 1, records.scores["score"].astype(float)
    result = evaluate(label.astype(int), score)
    heading(axes, "precision, %:", theme)
    for place, name, positive, value, color in ((0.24, "looking", label, score, theme.accent),
                                                (0.60, "not looking", ~label, 1 - score, theme.ink)):
        if (alone := records.head_pose) is not None:
            recall, precision = curve(positive[np.argsort(-alone if positive is label else alone, kind="stable")])
            axes.plot(100 * recall, 100 * precision, color=color, linewidth=0.8, alpha=0.6, clip_on=False)
        recall, precision = curve(positive[np.argsort(-value, kind="stable")])
        axes.plot(100 * recall, 100 * precision, color=color, clip_on=False)
        share = 100 * positive.mean()
        axes.axhline(share, color=color, linewidth=1, linestyle=(0, (2, 3)), alpha=0.8)
        axes.annotate(f"chance {share:.1f}", (0, share), (2, -3 if share > 50 else 3), textcoords="offset points",
                      color=color, fontsize=7.5, va="top" if share > 50 else "bottom", alpha=0.9)
        axes.text(place, 1.03, f"{name}, AP {100 * result['ap_' + name.replace(' ', '_')]:.1f}", color=color,
                  transform=axes.transAxes, fontweight="bold", va="bottom")
    axes.set(xlim=(0, 100), ylim=(0, 103), xlabel="recall, %")
    axes.set_yticks([0, 25, 50, 75, 100])
    return figure


def draw_confusion(records: Records, theme: Theme) -> Figure:
    """Counts at a score of one half; the shade is the share of the annotated class."""
    figure, (axes,) = panels(2.8, left=0.24, right=0.98, top=0.83, bottom=0.03)
    counts = evaluate(records.scores["label"], records.scores["score"])["confusion"]
    names = ["looking", "not looking"]
    table = _table(counts)
    alone = None
    if records.head_pose is not None:
        alone = _table(evaluate(records.scores["label"], records.head_pose)["confusion"])
    for y, row in enumerate(table):
        for x, count in enumerate(row):
            share = count / max(1, row.sum())
            axes.fill([x + 0.02, x + 0.98, x + 0.98, x + 0.02], [y + 0.03, y + 0.03, y + 0.97, y + 0.97],
                      color=theme.accent if x == y else theme.muted, alpha=0.08 + 0.55 * share, linewidth=0)
            axes.text(x + 0.5, y + 0.38, f"{100 * share:.1f} %", ha="center", va="center", fontsize=14)
            axes.text(x + 0.5, y + 0.64, f"{count:,} of {row.sum():,}", ha="center", va="center", fontsize=8)
            if alone is not None:
                axes.text(x + 0.5, y + 0.83, f"head pose {100 * alone[y, x] / max(1, row.sum()):.1f} %", ha="center",
                          va="center", fontsize=7.5)
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


def _table(counts: dict[str, int]) -> np.ndarray:
    """Annotated down, said across, looking first: int64 [2, 2]."""
    return np.array([[counts["tp"], counts["fn"]], [counts["fp"], counts["tn"]]])
