"""Style: colours, sizes and the way from a figure to SVG or PNG; every picture of the package is drawn with it.

A picture is drawn once, in light colours. In its SVG each colour of COLOURS becomes a CSS variable, so that the same
picture is readable in a light and in a dark page.
"""

import io
import re
from collections.abc import Callable
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure
from PIL import Image

WIDTH = 4.1  # inches; a picture of this width keeps its letters legible on a phone
DPI = 170
COLOURS = {  # name: light, dark
    "back": ("#f3f5f6", "#121619"), "paper": ("#ffffff", "#1b2024"), "ink": ("#1d2327", "#e8ecef"),
    "muted": ("#5d676f", "#98a3ab"), "line": ("#d9dee2", "#3a4248"), "accent": ("#0b7a75", "#45c7bd"),
    "run1": ("#c2511a", "#f0894f"), "run2": ("#5a54c9", "#a29bff"), "run3": ("#a8327c", "#ea78bd"),
    "run4": ("#8a6a00", "#dbb84d"), "run5": ("#3d7fc4", "#7db8f2")}
PAPER, INK, MUTED, LINE, ACCENT = (COLOURS[name][0] for name in ("paper", "ink", "muted", "line", "accent"))
RUNS = (ACCENT, *(COLOURS[f"run{k}"][0] for k in range(1, 6)))  # of several runs in one picture
RC: dict[Any, Any] = {
    "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans", "Verdana"], "font.size": 8.5, "text.color": INK,
    "axes.labelcolor": MUTED, "axes.edgecolor": LINE, "axes.facecolor": "none", "figure.facecolor": PAPER,
    "savefig.facecolor": PAPER, "xtick.color": LINE, "ytick.color": LINE, "axes.axisbelow": True,
    "xtick.labelcolor": MUTED, "ytick.labelcolor": MUTED, "axes.spines.top": False, "axes.spines.right": False,
    "axes.spines.left": False, "axes.grid": True, "axes.grid.axis": "y", "grid.color": LINE, "grid.linewidth": 0.6,
    "xtick.major.size": 3, "ytick.major.size": 0, "lines.solid_capstyle": "round", "lines.linewidth": 1.6,
    "axes.labelsize": 8, "xtick.labelsize": 8, "ytick.labelsize": 8, "svg.fonttype": "none"}


def colours_css() -> str:
    """Every colour as a CSS variable, in light and in dark."""
    light, dark = (" ".join(f"--{name}: {pair[k]};" for name, pair in COLOURS.items()) for k in (0, 1))
    return f":root {{ {light} }}\n@media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}\n"


def font_file(bold: bool = False) -> str:
    """Path of the pages' font as a file; matplotlib brings it."""
    from matplotlib.font_manager import FontProperties, findfont
    return findfont(FontProperties(family="DejaVu Sans", weight="bold" if bold else "normal"))


def svg(draw: Callable[[], Figure], name: str) -> str:
    """The drawn figure as one SVG element for a page with `colours_css`; ids of another `name` differ."""
    drawn = io.StringIO()
    with rc_context({**RC, "svg.hashsalt": name}):
        draw().savefig(drawn, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    text = drawn.getvalue()
    text = text[text.index("<svg"):]
    text = re.sub(r'<metadata>.*?</metadata>| id="[a-zA-Z.]+\d?d?_\d+"| transform="rotate\(-?0 [^"]*"', "", text,
                  flags=re.DOTALL)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*" height="[^"]*"', r"\1", text, count=1)
    for variable, (light, _) in COLOURS.items():
        text = text.replace(light, f"var(--{variable})")
    return text


def png(draw: Callable[[], Figure]) -> bytes:
    """The drawn figure as PNG bytes in light; flat colours look the same as 64 of them, at a third of the size."""
    with rc_context(RC):
        drawn = io.BytesIO()
        draw().savefig(drawn, dpi=DPI)
    picture = Image.open(drawn).convert("RGB").quantize(64, dither=Image.Dither.NONE)
    small = io.BytesIO()
    picture.save(small, "PNG", optimize=True)
    return small.getvalue()
