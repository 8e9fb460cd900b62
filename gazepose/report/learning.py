"""Learning: training loss, validation mAP and learning rate over the run."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from gazepose.report.drawing import Theme, blank, heading, panels, thinned
from gazepose.report.records import Records


def lacks(records: Records) -> str | None:
    """The sentence where there is nothing to draw."""
    return None if records.train or records.val else "metrics.jsonl has no lines, so there are no learning curves."


def caption(records: Records) -> str:
    """What the picture shows, in words."""
    return ("Training loss, validation mAP and learning rate over the run. Above the dashed lines the model knows more "
            "than where the head points.")


def smoothed(value: np.ndarray) -> tuple[np.ndarray, int]:
    """Mean of the last `span` values at each place from the span-th on, and the span: a fortieth of all."""
    span = max(1, len(value) // 40)
    summed = np.concatenate([[0.0], np.cumsum(value)])
    return (summed[span:] - summed[:-span]) / span, span


def draw_learning(records: Records, theme: Theme) -> Figure:
    """Training loss, validation mAP beside the baselines, learning rate; one time axis."""
    figure, (loss, score, rate) = panels(5.0, (3, 3, 1.2), left=0.12, right=0.95, top=0.94, bottom=0.085, hspace=0.42)
    train, val = records.train, records.val
    last = max([line["step"] for line in val] + list(train.get("step", [])[-1:]))
    if train:
        keep = np.isfinite(train["loss"])
        step, value = train["step"][keep], train["loss"][keep]
        if len(step):
            smooth, span = smoothed(value)
            some, few = thinned(value), thinned(smooth)
            loss.plot(step[some], value[some], color=theme.muted, linewidth=0.7, alpha=0.45)
            loss.plot(step[span - 1:][few], smooth[few], color=theme.accent)
            top = np.percentile(value, 99.5) * 1.1
            loss.set_ylim(min(0.0, float(value.min())), top if top > 0 else 1)
            mean = f" (line: mean of {span} steps)" if span > 1 else ""
            heading(loss, f"training loss{mean}, at the end {smooth[-1]:.3f}", theme)
        else:
            blank(loss, "no loss is a finite number", theme)
        rate.plot(train["step"], train["lr"], color=theme.muted)
        peak = np.nanmax(train["lr"]) if np.isfinite(train["lr"]).any() else 0.0
        rate.set_ylim(0, 1.15 * peak or 1)
        rate.set_yticks(*(([0, peak], ["0", f"{peak:.0e}".replace("e-0", "e-")]) if peak > 0 else ([0], ["0"])))
    else:
        blank(loss, "no training records", theme)
        blank(rate, "", theme)
    heading(rate, "learning rate", theme)
    points = [(line["step"], 100 * line["mAP"]) for line in val if line.get("mAP") is not None]
    levels = {"chance": 50.0}
    head_pose = (records.baselines.get("head_pose") or {}).get("mAP")
    if head_pose is not None:
        levels["head pose alone"] = 100 * head_pose
    for name, level in levels.items():
        score.axhline(level, color=theme.muted, linewidth=1, linestyle=(0, (4, 3)))
        score.annotate(f"{name} {level:.1f}", (0, level), (2, 2), xycoords=("axes fraction", "data"),
                       textcoords="offset points", color=theme.muted, fontsize=7.5)
    if points:
        x, y = map(np.array, zip(*points, strict=True))
        score.plot(x, y, color=theme.accent, marker="o", markersize=3.5, clip_on=False)
        best = int(y.argmax())
        score.annotate(f"{y[best]:.1f}", (x[best], y[best]), (0, 6), textcoords="offset points", ha="center",
                       color=theme.accent, fontweight="bold")
    else:
        score.text(0.5, 0.7, "no validation with both classes", transform=score.transAxes, ha="center",
                   color=theme.muted)
    values = [*levels.values(), *(y for _, y in points)]
    score.set_ylim(min(values) - 4, min(103, max(values) + 9))
    heading(score, "validation mAP, %", theme)
    for axes in (loss, score, rate):
        axes.set_xlim(0, max(1, last) * 1.02)
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    for axes in (loss, score):
        axes.tick_params(labelbottom=False)
    rate.set_xlabel("optimiser steps")
    return figure
