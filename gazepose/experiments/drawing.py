"""Drawing: the rows of a comparison as points, one per seed, and their gains with intervals."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from gazepose.evaluation.comparison import Row
from gazepose.report.style import ACCENT, INK, MUTED, WIDTH


def draw_rows(rows: Sequence[Row]) -> Figure:
    """mAP of every row, its seeds as dots and their mean as a line; beside it the gain and its interval."""
    height = 0.95 + 0.3 * len(rows)
    figure = Figure((1.75 * WIDTH, height))
    grid = figure.add_gridspec(1, 2, width_ratios=(1.15, 1), left=0.27, right=0.97, top=1 - 0.38 / height,
                               bottom=0.42 / height, wspace=0.08)
    values, gains = (figure.add_subplot(cell) for cell in grid)
    for y, row in enumerate(rows):
        seeds = [100 * result["mAP"] for result in row.results.values() if result["mAP"] is not None]
        reference = row.name == row.against
        color = INK if reference else ACCENT
        values.scatter(seeds, [y] * len(seeds), s=22, color=color, alpha=0.55, linewidths=0, clip_on=False)
        if row.mean["mAP"] is not None:
            values.plot([100 * row.mean["mAP"]] * 2, [y - 0.28, y + 0.28], color=color, linewidth=2.4)
        gain = row.gain.get("mAP")
        if gain and gain.interval:
            gains.plot([100 * bound for bound in gain.interval], [y, y], color=color)
        if gain and gain.mean is not None:
            gains.scatter([100 * gain.mean], [y], s=26, color=color, zorder=3, linewidths=0)
    side = "left" if sum(gains.get_xlim()) >= 0 else "right"           # of the line at 0, where there is room
    for y, row in enumerate(rows):
        if row.name == row.against:
            gains.text(0, y, "  compared with this one  ", va="center", ha=side, color=MUTED, fontsize=7.5)
    gains.axvline(0, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    for axes, words in ((values, "mAP, %: seeds, and their mean"),
                        (gains, "gain in points, 95 % over clips")):
        axes.set(ylim=(len(rows) - 0.5, -0.5))
        axes.text(0, 1 + 0.07 / (height - 0.8), words, transform=axes.transAxes, fontsize=8, va="bottom")
        axes.grid(False, axis="y")
        axes.grid(True, axis="x")
    values.set_yticks(range(len(rows)), [row.name for row in rows])
    gains.set_yticks([])
    figure.draw_without_rendering()
    longest = max(label.get_window_extent().width for label in values.get_yticklabels()) / figure.bbox.width
    grid.update(left=max(0.27, longest + 0.02))
    for axes, cell in ((values, grid[0, 0]), (gains, grid[0, 1])):
        axes.set_position(cell.get_position(figure))
    return figure
