"""Drawing: what all pictures share: two themes, sizes, and the way to PNG bytes. What is drawn is in the others."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

WIDTH = 4.1  # inches; a picture of this width keeps its letters legible on a phone
DPI = 170


@dataclass(frozen=True)
class Theme:
    name: str
    paper: str
    ink: str
    muted: str
    line: str
    accent: str
    runs: tuple[str, ...]
    """of several runs in one picture, the first is the accent"""


LIGHT = Theme("light", "#ffffff", "#1d2327", "#6a747c", "#d9dee2", "#0b7a75",
              ("#0b7a75", "#c2511a", "#5a54c9", "#a8327c", "#8a6a00", "#3d7fc4"))
DARK = Theme("dark", "#1b2024", "#e8ecef", "#98a3ab", "#3a4248", "#45c7bd",
             ("#45c7bd", "#f0894f", "#a29bff", "#ea78bd", "#dbb84d", "#7db8f2"))


def _style(theme: Theme) -> Any:
    return {
        "font.family": "sans-serif", "font.size": 8.5, "text.color": theme.ink, "axes.labelcolor": theme.muted,
        "axes.edgecolor": theme.line, "axes.facecolor": theme.paper, "figure.facecolor": theme.paper,
        "savefig.facecolor": theme.paper, "xtick.color": theme.line, "ytick.color": theme.line, "axes.axisbelow": True,
        "xtick.labelcolor": theme.muted, "ytick.labelcolor": theme.muted, "axes.spines.top": False, "axes.grid": True,
        "axes.spines.right": False, "axes.spines.left": False, "axes.grid.axis": "y", "grid.color": theme.line,
        "grid.linewidth": 0.6, "xtick.major.size": 3, "ytick.major.size": 0, "lines.solid_capstyle": "round",
        "lines.linewidth": 1.6, "axes.labelsize": 8, "xtick.labelsize": 8, "ytick.labelsize": 8,
    }


def panels(height: float, rows: Sequence[float] = (1,), **space: float) -> tuple[Figure, list[Axes]]:
    """A figure of the usual width with one panel below the other; rows: their heights in proportion."""
    figure = Figure((WIDTH, height))
    grid = figure.add_gridspec(len(rows), 1, height_ratios=rows, **space)
    return figure, [figure.add_subplot(cell) for cell in grid]


def heading(axes: Axes, text: str, theme: Theme) -> None:
    """Words above a panel, flush left."""
    axes.text(0, 1.03, text, transform=axes.transAxes, color=theme.ink, fontsize=8.5, va="bottom")


def blank(axes: Axes, reason: str, theme: Theme) -> None:
    """A panel that holds nothing but the reason why."""
    axes.text(0.5, 0.5, reason, transform=axes.transAxes, ha="center", color=theme.muted)
    axes.set_yticks([])


def short(name: str, most: int = 30) -> str:
    """A name that fits into a picture: its middle left out."""
    return name if len(name) <= most else f"{name[:most // 2 - 1]}…{name[-(most // 2):]}"


def thinned(values: np.ndarray, limit: int = 1500) -> np.ndarray:
    """At most `limit` evenly spread places of values, ends included; more points than pixels cost and show nothing."""
    return np.unique(np.linspace(0, len(values) - 1, min(len(values), limit)).astype(int))


def png(draw: Callable[[Theme], Figure], theme: Theme, colours: int = 64) -> bytes:
    """The drawn figure as PNG bytes; flat colours look the same as 64 of them, faces as 256, at a third of the size."""
    with rc_context(_style(theme)):
        drawn = io.BytesIO()
        draw(theme).savefig(drawn, dpi=DPI)
    picture = Image.open(drawn).convert("RGB").quantize(colours, dither=Image.Dither.NONE)
    small = io.BytesIO()
    picture.save(small, "PNG", optimize=True)
    return small.getvalue()
