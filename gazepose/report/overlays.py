"""Overlays: several runs in one picture: results with their intervals, learning curves, precision and recall."""

from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from gazepose.report.drawing import Theme, heading, panels, short, thinned
from gazepose.report.entries import Entry
from gazepose.report.learning import smoothed
from gazepose.report.scores import curve

DASHES = ("solid", (0, (5, 2)), (0, (1.5, 1.5)))  # a round of colours each


def style(k: int, theme: Theme) -> dict[str, Any]:
    """Colour and dashes of the k-th run."""
    return {"color": theme.runs[k % len(theme.runs)], "linestyle": DASHES[k // len(theme.runs) % len(DASHES)]}


def draw_results(entries: list[Entry], theme: Theme) -> Figure:
    """mAP of each with its 95 % interval over clips."""
    shown = [(k, entry) for k, entry in enumerate(entries) if entry.result.get("mAP") is not None]
    height = 0.55 + 0.44 * len(shown)
    figure, (axes,) = panels(height, left=0.03, right=0.86, top=1 - 0.05 / height, bottom=0.42 / height)
    ends = [50.0]
    for y, (k, entry) in enumerate(shown):
        run = entry.records is not None
        color = theme.runs[k % len(theme.runs)] if run else theme.muted
        value = 100 * entry.result["mAP"]
        low, high = (100 * end for end in entry.interval or (entry.result["mAP"],) * 2)
        ends += [value, low, high]
        axes.plot([low, high], [y, y], color=color, linewidth=2.4, alpha=0.55)
        axes.scatter(value, y, s=42, facecolors=color if run else theme.paper, edgecolors=color, linewidths=1.2,
                     zorder=3)
        axes.text(0, y - 0.36, short(entry.name, 46), transform=axes.get_yaxis_transform(), fontsize=7.5, va="center",
                  color=theme.ink if run else theme.muted,
                  bbox={"facecolor": theme.paper, "edgecolor": "none", "pad": 1})
        axes.text(1.15, y, f"{value:.1f}", transform=axes.get_yaxis_transform(), ha="right", va="center", color=color,
                  fontweight="bold" if run else "normal")
    axes.axvline(50, color=theme.muted, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
    axes.set(xlim=(min(ends) - 2, min(100, max(ends) + 2)), ylim=(len(shown) - 0.4, -0.75), xlabel="mAP, %")
    axes.set_yticks([])
    axes.grid(axis="x")
    return figure


def _legend(axes: Axes, place: Literal["upper right", "lower left"], theme: Theme) -> None:
    axes.legend(loc=place, facecolor=theme.paper, edgecolor="none", framealpha=0.9, fontsize=7.5, handlelength=1.6,
                labelcolor="linecolor", borderaxespad=0.1)


def draw_learning(entries: list[Entry], theme: Theme) -> Figure:
    """Training loss, smoothed, and validation mAP of all runs."""
    figure, (loss, score) = panels(4.6, (1, 1), left=0.12, right=0.95, top=0.94, bottom=0.095, hspace=0.3)
    last, values = 1.0, [50.0]
    for k, entry in enumerate(entries):
        if entry.records is None:
            if entry.result.get("mAP") is not None:
                score.axhline(100 * entry.result["mAP"], color=theme.muted, linewidth=1, linestyle=(0, (4, 3)))
                values.append(100 * entry.result["mAP"])
            continue
        train = entry.records.train
        if train and (keep := np.isfinite(train["loss"])).any():
            smooth, span = smoothed(train["loss"][keep])
            few, step = thinned(smooth), train["step"][keep][span - 1:]
            loss.plot(step[few], smooth[few], label=short(entry.name), **style(k, theme))
            last = max(last, step[-1])
        points = [(line["step"], 100 * line["mAP"]) for line in entry.records.val if line.get("mAP") is not None]
        if points:
            x, y = map(np.array, zip(*points, strict=True))
            score.plot(x, y, marker="o", markersize=3.5, clip_on=False, **style(k, theme))
            last, values = max(last, x.max()), [*values, *y]
    heading(loss, "training loss, smoothed", theme)
    heading(score, "validation mAP, % (dashed: baselines)", theme)
    score.set_ylim(min(values) - 4, min(103, max(values) + 6))
    for axes in (loss, score):
        axes.set_xlim(0, last * 1.02)
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    loss.tick_params(labelbottom=False)
    score.set_xlabel("optimiser steps")
    if loss.lines:
        _legend(loss, "upper right", theme)
    return figure


def draw_precision_recall(entries: list[Entry], theme: Theme) -> Figure:
    """Both classes, one panel each, with the share that guessing gives."""
    figure, panes = panels(6.4, (1, 1), left=0.12, right=0.95, top=0.955, bottom=0.07, hspace=0.3)
    for axes, name, sign in zip(panes, ("looking", "not looking"), (1, -1), strict=True):
        for k, entry in enumerate(entries):
            scores = entry.records.scores if entry.records else {}
            if entry.records is None or not {0, 1} <= set(np.unique(scores.get("label", ())).tolist()):
                continue
            positive = (scores["label"] == 1) == (sign == 1)
            recall, precision = curve(positive[np.argsort(-sign * scores["score"].astype(float), kind="stable")])
            ap = 100 * entry.result[f"ap_{name.replace(' ', '_')}"]
            axes.plot(100 * recall, 100 * precision, label=f"{ap:.1f} {short(entry.name)}", **style(k, theme))
            axes.axhline(100 * positive.mean(), color=theme.muted, linewidth=1, linestyle=(0, (2, 3)))
        axes.set(xlim=(0, 100), ylim=(0, 103))
        axes.set_yticks([0, 25, 50, 75, 100])
        heading(axes, f"{name}: precision, %", theme)
        if axes.lines:
            _legend(axes, "lower left", theme)
    panes[1].set_xlabel("recall, %")
    return figure
