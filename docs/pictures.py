"""Draw the pictures of docs/how.md from a rendered clip, as SVG that follows the reader's light or dark mode.

Usage: PYTHONPATH=. python docs/pictures.py WORK

WORK is the folder that docs/figure.py has rendered its world into.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

from gazepose.data.index import Index
from gazepose.report.style import ACCENT, INK, LINE, MUTED, RUNS, colours_css, svg

OUT = Path("docs/pictures")
BEFORE, AFTER = 20, 5        # frames of the track that are shown before the centre and after it, at most
CENTRE = BEFORE              # among the frames that `chosen` gives
REACH = 3
CROP = 96                    # pixels
PLAIN = {"xticks": [], "yticks": [], "facecolor": "none"}


def canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure with one axes in inches, without a frame."""
    figure = Figure((width, height), facecolor="none")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(0, height), **PLAIN)
    axes.axis("off")
    return figure, axes


def show(axes: Axes, crop: np.ndarray, x: float, y: float, size: float, edge: str = LINE, wide: float = 1.0) -> None:
    """A crop with its lower left corner at x, y."""
    axes.imshow(crop, extent=(x, x + size, y, y + size), interpolation="nearest", zorder=2)
    axes.add_patch(Rectangle((x, y), size, size, fill=False, edgecolor=edge, linewidth=wide, zorder=3))


def box(axes: Axes, x: float, y: float, width: float, height: float, text: str, edge: str = MUTED) -> None:
    axes.add_patch(FancyBboxPatch((x, y), width, height, boxstyle="round,pad=0,rounding_size=.06", fill=False,
                                  edgecolor=edge, linewidth=1.2))
    axes.text(x + width / 2, y + height / 2, text, ha="center", va="center", color=INK, linespacing=1.35)


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    axes.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=9, color=MUTED, linewidth=1.1,
                                   shrinkA=0, shrinkB=0))


def keep_limits(figure: Figure) -> Figure:
    """imshow changes the limits; set them to inches again."""
    width, height = figure.get_size_inches()
    figure.axes[0].set(xlim=(0, width), ylim=(0, height), aspect="auto")
    return figure


def chosen(index: Index) -> np.ndarray:
    """Rows of one track around the frame from which on the person looks no more; of all such frames the one with the
    sharpest faces around it."""
    label, track = index.label[:], np.repeat(np.arange(len(index.track_name)), np.diff(index.track_start))
    away = np.flatnonzero((label[:-1] == 1) & (label[1:] == 0) & (track[:-1] == track[1:])) + 1
    around = [np.arange(row - BEFORE, row + AFTER) for row in away if BEFORE <= row < len(label) - AFTER]
    return max((rows for rows in around if len(set(track[rows])) == 1),
               key=lambda rows: float(np.median(index.quality[rows])))


def window(crops: np.ndarray) -> Figure:
    """Seven crops of one track, the centre marked."""
    figure, axes = canvas(7.4, 1.6)
    for k in range(-REACH, REACH + 1):
        x = 0.1 + 1.04 * (k + REACH)
        show(axes, crops[CENTRE + k], x, 0.32, 0.96, ACCENT if k == 0 else LINE, 2.6 if k == 0 else 1.0)
        axes.text(x + 0.48, 0.2, "t" if k == 0 else f"t {'−' if k < 0 else '+'} {abs(k)}", ha="center", va="center",
                  color=ACCENT if k == 0 else MUTED)
    axes.text(3.7, 1.43, "is the person looking in this frame?", ha="center", va="center", color=ACCENT)
    return keep_limits(figure)


def pool(crops: np.ndarray) -> Figure:
    """Three windows around neighbouring frames: 21 places, nine crops."""
    figure, axes = canvas(7.4, 2.2)
    step, size = 0.8, 0.74
    for k in range(9):
        show(axes, crops[CENTRE - 4 + k], 0.1 + step * k, 1.3, size)
    for row, colour in enumerate((ACCENT, *RUNS[1:3])):
        y = 1.08 - 0.34 * row
        x1, x2 = 0.1 + step * row, 0.1 + step * (row + 6) + size
        axes.plot([x1, x2], [y, y], color=colour, linewidth=3)
        middle = 0.1 + step * (row + REACH) + size / 2
        axes.plot([middle], [y], "o", color=colour, markersize=7)
    axes.text(3.7, 0.1, "3 windows of 7 frames; 9 crops are read and encoded, not 21", ha="center", va="center",
              color=MUTED)
    return keep_limits(figure)


def queries(crops: np.ndarray, points: np.ndarray, pose: np.ndarray) -> Figure:
    """The model: what each part reads."""
    figure, axes = canvas(7.4, 2.9)
    for k in range(3):
        show(axes, crops[CENTRE - 10 + 4 * k], 0.1 + 0.14 * k, 1.75 - 0.14 * k, 0.72)
    axes.text(0.6, 2.72, "7 crops", ha="center", va="center", color=MUTED)
    box(axes, 1.5, 1.6, 1.0, 0.7, "backbone\n(shared)")
    box(axes, 3.1, 2.05, 1.5, 0.6, "7 vectors: LSTM\nboth directions", ACCENT)
    box(axes, 3.1, 1.1, 1.5, 0.6, "centre map:\ntransformer", RUNS[1])
    box(axes, 5.2, 1.6, 0.9, 0.7, "join")
    box(axes, 6.5, 1.6, 0.8, 0.7, "score\n0 to 1")
    arrow(axes, (1.12, 1.95), (1.48, 1.95))
    for y in (2.35, 1.4):
        arrow(axes, (2.5, 1.95), (3.08, y))
        arrow(axes, (4.6, y), (5.18, 1.95))
    arrow(axes, (6.1, 1.95), (6.48, 1.95))
    show(axes, crops[CENTRE], 1.6, 0.12, 0.8)
    known = np.isfinite(points).all(axis=1)
    axes.plot(1.6 + 0.8 * points[known, 0], 0.92 - 0.8 * points[known, 1], "o", color=RUNS[1], markersize=3.5, zorder=4)
    axes.text(1.5, 0.52, "prior of the centre:\nyaw {:.0f}°, pitch {:.0f}°,\nroll {:.0f}°, 5 points"
              .format(*np.round(pose) + 0.0), ha="right",
              va="center", color=MUTED, linespacing=1.35)
    box(axes, 3.1, 0.2, 1.5, 0.6, "8 queries: 3 angles\nand 5 points", RUNS[1])
    arrow(axes, (2.42, 0.5), (3.08, 0.5))
    arrow(axes, (3.85, 0.8), (3.85, 1.08))
    return keep_limits(figure)


def not_codable(crops: np.ndarray) -> Figure:
    """One face that can be judged, and what it takes to lose it."""
    figure, axes = canvas(7.4, 1.9)
    face = crops[CENTRE - 20]
    small = np.kron(face[::12, ::12], np.ones((12, 12, 1), np.uint8))[:len(face), :len(face)]
    shown = ((face, "can be judged"), (small, "too small"), ((face * 0.14).astype(np.uint8), "too dark"))
    for k, (crop, reason) in enumerate(shown):
        x = 1.2 + 1.8 * k
        show(axes, crop, x, 0.35, 1.4, LINE if k else ACCENT, 1.0 if k else 2.6)
        axes.text(x + 0.7, 0.17, reason, ha="center", va="center", color=MUTED if k else ACCENT)
    return keep_limits(figure)


def main() -> None:
    world = Path(sys.argv[1]) / "world"
    subprocess.run([sys.executable, "-m", "gazepose", "prepare", "--data", str(world), "--split", "val", "--crop_size",
                    str(CROP)], check=True)
    index = Index.open(next((world / "prepared").glob(f"*-{CROP}/val")))
    rows = chosen(index)
    crops = np.stack([index.crop(int(row)) for row in rows])                       # [N, S, S, 3]
    drawings = {"window": lambda: window(crops), "pool": lambda: pool(crops),
                "queries": lambda: queries(crops, index.landmarks[rows[CENTRE], :, :2], index.head_pose[rows[CENTRE]]),
                "not_codable": lambda: not_codable(crops)}
    OUT.mkdir(exist_ok=True)
    for name, draw in drawings.items():
        text = svg(draw, name)
        start = text.index(">") + 1
        (OUT / f"{name}.svg").write_text(f"{text[:start]}<style>{colours_css()}</style>{text[start:]}")


if __name__ == "__main__":
    main()
