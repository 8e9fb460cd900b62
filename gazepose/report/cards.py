"""Cards: a picture becomes PNG files and a piece of HTML that holds it in light and dark; a face becomes an <img>."""

import base64
import io
from collections.abc import Callable
from html import escape
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from gazepose.report.drawing import DARK, LIGHT, Theme, png

FACE = 144  # most pixels per side of a face in the page


def card(folder: Path, name: str, title: str, caption: str, draw: Callable[[Theme], Figure], colours: int = 64) -> str:
    """The drawn picture, written as name.png and name-dark.png; the browser takes the one of its theme."""
    inline = {}
    for theme in (DARK, LIGHT):
        drawn = png(draw, theme, colours)
        (folder / f"{name}{'-dark' * (theme is DARK)}.png").write_bytes(drawn)
        inline[theme.name] = "data:image/png;base64," + base64.b64encode(drawn).decode()
    return (f'<figure><h2>{escape(title)}</h2><picture>'
            f'<source media="(prefers-color-scheme: dark)" srcset="{inline["dark"]}">'
            f'<img alt="{escape(title)}: {escape(caption)}" src="{inline["light"]}"></picture>'
            f"<figcaption>{escape(caption)}</figcaption></figure>")


def lacking(title: str, reason: str) -> str:
    """A card that holds nothing but the reason why."""
    return f"<figure><h2>{escape(title)}</h2><p class=missing>{escape(reason)}</p></figure>"


def face(crop: np.ndarray, words: str) -> str:
    """A crop, uint8 [h, w, 3], as JPEG in the page."""
    picture = Image.fromarray(crop)
    picture.thumbnail((FACE, FACE))
    packed = io.BytesIO()
    picture.save(packed, "JPEG", quality=85, optimize=True)
    return f'<img alt="{escape(words)}" src="data:image/jpeg;base64,{base64.b64encode(packed.getvalue()).decode()}">'
