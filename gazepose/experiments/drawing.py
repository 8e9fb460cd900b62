"""Drawing: a record's rows as points, one per seed, and their differences with intervals."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from gazepose.report.drawing import WIDTH, Theme


def draw_rows(record: Mapping[str, Any], theme: Theme) -> Figure:
    """mAP of every row, its seeds as dots and their mean as a line; beside it the gain and its interval."""
    rows = [row for row in record["rows"] if row["runs"]]
    height = 0.95 + 0.3 * len(rows)
    figure = Figure((1.75 * WIDTH, height))
    grid = figure.add_gridspec(1, 2, width_ratios=(1.15, 1), left=0.27, right=0.97, top=1 - 0.38 / height,
                               bottom=0.42 / height, wspace=0.08)
    values, gains = (figure.add_subplot(cell) for cell in grid)
    for y, row in enumerate(rows):
        found = [100 * run["mAP"] for run in row["runs"] if run["mAP"] is not None]
        own = row["name"] == record["against"]
        color = theme.ink if own else theme.accent
        values.scatter(found, [y] * len(found), s=22, color=color, alpha=0.55, linewidths=0, clip_on=False)
        if found:
            values.plot([np.mean(found)] * 2, [y - 0.28, y + 0.28], color=color, linewidth=2.4)
        gain = (row["gain"] or {}).get("mAP") or {}
        if gain.get("interval"):
            gains.plot([100 * bound for bound in gain["interval"]], [y, y], color=color)
        if gain.get("mean") is not None:
            gains.scatter([100 * gain["mean"]], [y], s=26, color=color, zorder=3, linewidths=0)
        elif own:
            gains.text(0, y, "  compared with this one", va="center", color=theme.muted, fontsize=7.5)
    gains.axvline(0, color=theme.muted, linewidth=1, linestyle=(0, (4, 3)))
    for axes, words in ((values, "mAP, %: dots are seeds, the bar their mean"),
                        (gains, "gain in points, 95 % over clips")):
        axes.set(ylim=(len(rows) - 0.5, -0.5))
        axes.text(0, 1 + 0.07 / (height - 0.8), words, transform=axes.transAxes, fontsize=8, va="bottom")
        axes.grid(False, axis="y")
        axes.grid(True, axis="x")
    values.set_yticks(range(len(rows)), [row["name"] for row in rows])
    gains.set_yticks([])
    return figure
