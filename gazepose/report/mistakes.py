"""Mistakes: the faces about which the model was wrong and most sure of it, in the page and as one sheet."""

from html import escape

import numpy as np
from matplotlib.figure import Figure

from gazepose.report.cards import face
from gazepose.report.drawing import WIDTH, Theme, short
from gazepose.report.records import Records

TITLE = "Worst mistakes"
KINDS = ((0, "Scored as looking, annotated as not looking"), (1, "Scored as not looking, annotated as looking"))
ACROSS = 6  # faces in a line of the sheet


def lacks(records: Records) -> str | None:
    """The sentence where there is nothing to show."""
    if not records.mistakes:
        return "The faces of the worst mistakes were not kept (pred/mistakes.npz); infer.py --split val keeps them."
    return None if len(records.mistakes["score"]) else "No labelled face was scored on the wrong side of one half."


def gallery(records: Records) -> str:
    """Both kinds of mistakes as rows of faces with score, clip, track and frame."""
    kept, found = records.mistakes, ""
    for label, words in KINDS:
        faces = ""
        for k in np.flatnonzero(kept["label"] == label).tolist():
            score, frame = f"{100 * kept['score'][k]:.1f} %", f"frame {kept['frame'][k]}"
            clip, track = f"clip {kept['clip_name'][k]}", f"track {kept['track_name'][k]}"
            faces += (f"<div>{face(kept['crops'][k], f'{clip}, {track}, {frame}, score {score}')}<b>{score}</b>"
                      f"<small>{escape(clip)}<br>{escape(track)}<br>{frame}</small></div>")
        found += f"<h3>{words}</h3>" + (f"<div class=faces>{faces}</div>" if faces else "<p class=missing>None.</p>")
    return (f"<section><h2>{TITLE}</h2>{found}<p class=note>The most confident ones with their score; no two of a kind "
            "are of one track or within a second of one clip. Some are the annotation's mistakes.</p></section>")


def draw_mistakes(records: Records, theme: Theme) -> Figure:
    """All of them on one sheet."""
    kept = records.mistakes
    places = [np.flatnonzero(kept["label"] == label) for label, _ in KINDS]
    lines = [-(-len(some) // ACROSS) for some in places]
    cell, line, head = 2 * WIDTH / ACROSS, 2 * WIDTH / ACROSS + 0.46, 0.34  # inches
    height = 0.1 + line * sum(lines) + head * sum(n > 0 for n in lines)
    figure, top = Figure((2 * WIDTH, height)), 0.05
    for some, count, (_, words) in zip(places, lines, KINDS, strict=True):
        if not count:
            continue
        figure.text(0.005, 1 - (top + 0.2) / height, words, color=theme.ink, fontsize=10, fontweight="bold")
        top += head
        for k, place in enumerate(some.tolist()):
            x, y = k % ACROSS * cell + 0.04, top + k // ACROSS * line
            axes = figure.add_axes((x / 2 / WIDTH, 1 - (y + cell - 0.08) / height, (cell - 0.08) / 2 / WIDTH,
                                    (cell - 0.08) / height))
            axes.imshow(kept["crops"][place], interpolation="bilinear")
            axes.set_axis_off()
            clip, track = (str(kept[name][place]) for name in ("clip_name", "track_name"))
            for below, text, color in ((0.08, f"{100 * kept['score'][place]:.1f} %", theme.ink),
                                       (0.21, short(clip, 20), theme.muted),
                                       (0.34, f"{short(track, 13)} frame {kept['frame'][place]}", theme.muted)):
                figure.text(x / 2 / WIDTH, 1 - (y + cell + below) / height, text, fontsize=7, color=color)
        top += count * line
    return figure
