"""Figures: learning curves, precision and recall, calibration and the score along a track, of one run or of several."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from gazepose.evaluation.examples import FRAMES_PER_SECOND
from gazepose.evaluation.metrics import BASELINES, THRESHOLD, calibration_error, evaluate, percent
from gazepose.report.records import Records, Track
from gazepose.report.style import ACCENT, INK, MUTED, PAPER, RUNS, WIDTH

DASHES = ("solid", (0, (5, 2)), (0, (1.5, 1.5)))  # one for each round of colours
DASHED, DOTTED = (0, (4, 3)), (0, (2, 3))
LEFT, RIGHT = 0.09, 0.97  # of a timeline's axes; the page lines up the faces under it


def style_of(k: int) -> dict[str, Any]:
    """Colour and dashes of the k-th run."""
    return {"color": RUNS[k % len(RUNS)], "linestyle": DASHES[k // len(RUNS) % len(DASHES)]}


def panels(height: float, rows: Sequence[float] = (1,), **space: float) -> tuple[Figure, list[Axes]]:
    """A figure of the usual width with one panel below the other; rows: their heights in proportion."""
    figure = Figure((WIDTH, height))
    grid = figure.add_gridspec(len(rows), 1, height_ratios=rows, **space)
    return figure, [figure.add_subplot(cell) for cell in grid]


def heading(axes: Axes, text: str) -> None:
    """Words above a panel, flush left."""
    axes.text(0, 1.03, text, transform=axes.transAxes, fontsize=8.5, va="bottom")


def short(name: str, most: int = 30) -> str:
    """A name that fits into a picture: its middle is left out."""
    return name if len(name) <= most else f"{name[:most // 2 - 1]}…{name[-(most // 2):]}"


def thinned(values: np.ndarray, limit: int = 1500) -> np.ndarray:
    """At most `limit` evenly spread places of values, ends included; more points than pixels cost and show nothing."""
    return np.unique(np.linspace(0, len(values) - 1, min(len(values), limit)).astype(int))


def _legend(axes: Axes, place: Literal["upper right", "lower left", "lower right"]) -> None:
    axes.legend(loc=place, facecolor=PAPER, edgecolor="none", framealpha=0.9, fontsize=7.5, handlelength=1.6,
                labelcolor="linecolor", borderaxespad=0.1)


def smoothed(value: np.ndarray) -> tuple[np.ndarray, int]:
    """Mean of the last `span` values at each place from the span-th on, and the span: a fortieth of all."""
    span = max(1, len(value) // 40)
    summed = np.concatenate([[0.0], np.cumsum(value)])
    return (summed[span:] - summed[:-span]) / span, span


def draw_learning(runs: Sequence[Records], names: Sequence[str]) -> Figure:
    """Training loss, validation mAP beside the baselines, and learning rate over the steps."""
    figure, (loss, score, rate) = panels(5.0, (3, 3, 1.2), left=0.12, right=0.95, top=0.94, bottom=0.085, hspace=0.42)
    last, words = 1.0, "training loss"
    for k, (records, name) in enumerate(zip(runs, names, strict=True)):
        train = records.train
        if not train:
            continue
        last = max(last, train["step"][-1])
        finite = np.isfinite(train["loss"])
        step, value = train["step"][finite], train["loss"][finite]
        if len(step):
            smooth, span = smoothed(value)
            few = thinned(smooth)
            loss.plot(step[span - 1:][few], smooth[few], label=short(name), **style_of(k))
            if len(runs) == 1:
                words += f" (line: mean of {span} steps)" if span > 1 else ""
                words += f", at the end {smooth[-1]:.3f}"
                some = thinned(value)
                loss.plot(step[some], value[some], color=MUTED, linewidth=0.7, alpha=0.45, zorder=1)
                loss.set_ylim(min(0.0, float(value.min())), max(1e-3, np.percentile(value, 99.5) * 1.1))
        rate.plot(train["step"], train["lr"], **style_of(k))
    if not loss.lines:
        loss.text(0.5, 0.5, "no training loss was recorded", transform=loss.transAxes, ha="center", color=MUTED)
        loss.set_yticks([])
    elif len(runs) > 1:
        _legend(loss, "upper right")
    heading(loss, words)
    last = max(last, _draw_validations(score, runs))
    peak = max([0.0, *(value for line in rate.lines for value in np.asarray(line.get_ydata()) if value > 0)])
    rate.set_ylim(0, 1.15 * peak or 1)
    rate.set_yticks([0, peak] if peak else [0], ["0", f"{peak:.0e}".replace("e-0", "e-")] if peak else ["0"])
    heading(rate, "learning rate")
    for axes in (loss, score, rate):
        axes.set_xlim(0, last * 1.02)
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        axes.tick_params(labelbottom=axes is rate)
    rate.set_xlabel("optimiser steps")
    return figure


def _draw_validations(axes: Axes, runs: Sequence[Records]) -> float:
    """Validation mAP of each run, and dashed lines for what needs no model; returns the last step."""
    levels, values, last = {"chance": 50.0}, [50.0], 1.0
    head_pose = next((records.baselines["head_pose"] for records in runs if records.baselines.get("head_pose")), {})
    if head_pose.get("mAP") is not None:
        levels[BASELINES["head_pose"]] = 100 * head_pose["mAP"]
    for name, level in levels.items():
        axes.axhline(level, color=MUTED, linewidth=1, linestyle=DASHED)
        axes.annotate(f"{name} {level:.1f}", (0, level), (2, 3), xycoords=("axes fraction", "data"),
                      textcoords="offset points", color=MUTED, fontsize=7.5)
    for k, records in enumerate(runs):
        points = [(line["step"], 100 * line["mAP"]) for line in records.val if line.get("mAP") is not None]
        plain = [(line["step"], 100 * line["mAP_without_ema"]) for line in records.val
                 if line.get("mAP_without_ema") is not None]
        if plain and len(runs) == 1:             # of several runs, only what they make is compared
            x, y = map(np.array, zip(*plain, strict=True))
            axes.plot(x, y, color=MUTED, linewidth=1, label="without --ema")
            _legend(axes, "lower right")
            values += y.tolist()
        if points:
            x, y = map(np.array, zip(*points, strict=True))
            axes.plot(x, y, marker="o", markersize=3.5, clip_on=False, **style_of(k))
            best = int(y.argmax())
            axes.annotate(f"{y[best]:.1f}", (x[best], y[best]), (0, 6), textcoords="offset points", ha="center",
                          color=style_of(k)["color"], fontweight="bold")
            values += y.tolist()
            last = max(last, float(x.max()))
    if len(values) == 1:
        axes.text(0.5, 0.7, "no validation with both classes", transform=axes.transAxes, ha="center", color=MUTED)
    values += levels.values()
    axes.set_ylim(min(values) - 4, min(103, max(values) + 9))
    heading(axes, "validation mAP, %")
    return last


def curve(hit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Recall and the envelope of precision at each hit of a ranked list, from recall 0; the area is the AP."""
    rank = np.flatnonzero(hit) + 1
    precision = np.arange(1, len(rank) + 1) / rank
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    recall = np.arange(len(rank) + 1) / len(rank)
    some = thinned(recall)
    return recall[some], np.concatenate([envelope[:1], envelope])[some]


def draw_precision_recall(runs: Sequence[Records], names: Sequence[str]) -> Figure:
    """One panel per class, with the precision of guessing; beside a single run, head pose alone."""
    figure, panes = panels(5.6, (1, 1), left=0.12, right=0.95, top=0.945, bottom=0.075, hspace=0.3)
    for axes, words, key, sign in zip(panes, ("looking", "not looking"), ("ap_looking", "ap_not_looking"), (1, -1),
                                      strict=True):
        for k, (records, name) in enumerate(zip(runs, names, strict=True)):
            if not records.has_both_classes:
                continue
            label = records.scores["label"]
            sets = [(name, records.scores["score"].astype(float), style_of(k))]
            if len(runs) == 1 and records.head_pose is not None:
                sets.append((BASELINES["head_pose"], records.head_pose, {"color": MUTED, "linewidth": 0.9}))
            positive = label == (1 if sign == 1 else 0)
            for title, score, style in sets:
                recall, precision = curve(positive[np.argsort(-sign * score, kind="stable")])
                title = f"AP {percent(evaluate(label, score)[key])} {short(title)}"
                axes.plot(100 * recall, 100 * precision, label=title, clip_on=False, **style)
            share = 100 * positive.mean()
            axes.axhline(share, color=MUTED, linewidth=1, linestyle=DOTTED)
            if len(runs) == 1:
                below = share > 12                  # no curve comes there: its end is no lower than chance
                axes.annotate(f"chance {share:.1f}", (100, share), (0, -3 if below else 3), ha="right",
                              textcoords="offset points", color=MUTED, fontsize=7.5, va="top" if below else "bottom")
        axes.set(xlim=(0, 100), ylim=(0, 103))
        axes.set_yticks([0, 25, 50, 75, 100])
        heading(axes, f"{words}: precision, %")
        _legend(axes, "lower left")
    panes[1].set_xlabel("recall, %")
    return figure


def draw_calibration(records: Records) -> Figure:
    """How often a score of p is right, and where the scores of each class lie."""
    from sklearn.calibration import calibration_curve

    figure, (line, counts) = panels(4.1, (2.4, 1), left=0.11, right=0.96, top=0.93, bottom=0.12, hspace=0.34)
    label, score = records.scores["label"] == 1, records.scores["score"].astype(float)
    line.plot([0, 100], [0, 100], color=MUTED, linewidth=1, linestyle=DASHED)
    if records.head_pose is not None:
        share, mean = calibration_curve(label, records.head_pose, n_bins=10)
        line.plot(100 * mean, 100 * share, color=MUTED, linewidth=0.9, marker="o", markersize=2.5, clip_on=False)
    share, mean = calibration_curve(label, score, n_bins=10)
    line.plot(100 * mean, 100 * share, color=ACCENT, marker="o", markersize=5, clip_on=False)
    line.set(xlim=(0, 100), ylim=(0, 100), yticks=[0, 25, 50, 75, 100])
    gap = calibration_error(records.scores["label"], score, bins=10)
    heading(line, f"looking among faces of that score, %; mean gap {100 * gap:.1f}")
    for positive, colour, filled in ((label, ACCENT, True), (~label, INK, False)):
        bins = np.histogram(score[positive], bins=np.linspace(0, 1, 31))[0]
        counts.stairs(100 * bins / max(1, bins.sum()), np.linspace(0, 100, 31), color=colour, fill=filled,
                      alpha=0.55 if filled else 1.0, linewidth=1.2)
    counts.set(xlim=(0, 100), xlabel="score, %")
    heading(counts, "share of each class, %:")
    for x, name, colour in ((0.42, "looking", ACCENT), (0.60, "not looking", INK)):
        counts.text(x, 1.03, name, transform=counts.transAxes, color=colour, fontweight="bold", va="bottom")
    for axes in (line, counts):
        axes.set_xticks([0, 25, 50, 75, 100])
    return figure


def draw_timeline(track: Track) -> Figure:
    """The score along a track with the annotated stretches shaded; dots are the faces that the page shows below."""
    columns = track.columns
    label = columns["label"] == 1
    second = (columns["frame"] - columns["frame"][0]) / FRAMES_PER_SECOND
    height = 1.75
    figure = Figure((WIDTH, height))
    axes = figure.add_axes((LEFT, 0.4 / height, RIGHT - LEFT, 1.1 / height))
    usual = float(np.median(np.diff(second))) if len(second) > 1 else 1.0
    holes = np.flatnonzero(np.diff(second) > 3.5 * usual) + 1  # a line across missing frames would be invented
    for name, colour, width in (("head_pose_score", MUTED, 0.9), ("score", ACCENT, 1.6)):
        if name in columns:
            axes.plot(np.insert(second, holes, np.nan), 100 * np.insert(columns[name].astype(float), holes, np.nan),
                      color=colour, linewidth=width, clip_on=False)
    start = np.flatnonzero(np.diff(np.concatenate([[False], label]).astype(int)) == 1)
    end = np.flatnonzero(np.diff(np.concatenate([label, [False]]).astype(int)) == -1)
    for low, high in zip(start, end, strict=True):
        axes.axvspan(second[low] - usual / 2, second[high] + usual / 2, color=ACCENT, alpha=0.16, linewidth=0)
    axes.axhline(100 * THRESHOLD, color=MUTED, linewidth=1, linestyle=DOTTED)
    for place, _ in track.faces:
        axes.plot(second[place], 100 * columns["score"][place], "o", color=ACCENT, markersize=3.2, clip_on=False)
    axes.set(ylim=(0, 100), xlim=(-usual / 2, max(second[-1], usual) + usual / 2), yticks=[0, 50, 100])
    axes.set_xticks([tick for tick in MaxNLocator(6).tick_values(0, second[-1]) if -1e-9 < tick < second[-1] + 1e-9])
    axes.set_xlabel("seconds", loc="right", labelpad=1)
    heading(axes, "score, %")
    return figure
