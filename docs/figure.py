"""Draw docs/figure.png: one rendered face followed for seconds, with its annotation and a run's scores.

Usage: PYTHONPATH=. python docs/figure.py RUN WORK [CLIP TRACK]

RUN is a trained run, such as runs/demo-0-clips. WORK is a folder for a small world with long tracks and its scores.
Without CLIP and TRACK the longest track with looks in it is drawn.
"""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from gazepose.data.index import Index
from gazepose.report.style import ACCENT, INK, MUTED, RUNS, png
from gazepose.synthetic import presets, world

FACES = 8
WRONG = RUNS[1]
FRAMES_PER_SECOND = 30


def scored(run: Path, work: Path) -> tuple[Index, pd.DataFrame]:
    """Render the world once, score every face of its val split with the run; the index and pred.csv."""
    presets.PRESETS["figure"] = replace(presets.PRESETS["default"], name="figure", frames=(110, 130), shots=1,
                                        clips=(1, 6, 1), people=(2, 3), stills=10, distance=(0.7, 1.2), occluder=0.0)
    if not (work / "world").exists():
        world.render_world(work / "world", "figure", 3)
        (work / "world" / "world.json").unlink()                       # other programs do not know this preset
    subprocess.run([sys.executable, "infer.py", "--checkpoint", str(run), "--data", str(work / "world"), "--split",
                    "val", "--val_stride", "1", "--exp_path", str(work)], check=True)
    index = Index.open(next((work / "world" / "prepared").glob("*/val")))
    return index, pd.read_csv(work / "pred" / "val" / "pred.csv", dtype={"clip": str, "track": str})


def choose(table: pd.DataFrame) -> tuple[str, str]:
    """The longest track of which a third to two thirds are annotated as looking."""
    tracks = table.groupby(["clip", "track"]).label.agg(["size", "mean"])
    return tracks[tracks["mean"].between(1 / 3, 2 / 3)]["size"].idxmax()


def draw(index: Index, track: pd.DataFrame) -> Figure:
    """The scores over time, wrong ones marked, above some of the faces; the worst mistake is one of them."""
    seconds = (track.frame - track.frame.iloc[0]) / FRAMES_PER_SECOND
    error = np.where(track.label == 1, 1 - track.score, track.score)
    wrong = error >= 0.5
    figure = Figure((8.2, 4.1))
    grid = figure.add_gridspec(2, 1, height_ratios=(1.5, 1), hspace=0.3, left=0.05, right=0.99, top=0.93, bottom=0.06)
    axes, faces = (figure.add_subplot(cell) for cell in grid)
    axes.fill_between(seconds, 0, 100, where=track.label == 1, step="mid", color=ACCENT, alpha=0.16, linewidth=0)
    axes.plot(seconds, 100 * track.score, color=ACCENT)
    axes.plot(seconds[wrong], 100 * track.score[wrong], "o", color=WRONG, markersize=4)
    axes.axhline(50, color=MUTED, linewidth=0.8, linestyle=(0, (2, 3)))
    axes.set(xlim=(0, seconds.iloc[-1]), ylim=(0, 100), yticks=(0, 50, 100))
    axes.set_xlabel("seconds", loc="right", labelpad=-2)
    axes.text(0, 1.04, "score of looking, %   shaded: annotated as looking   dots: wrong", color=INK,
              transform=axes.transAxes)
    at = np.linspace(0, len(track) - 1, FACES).round().astype(int)
    worst = int(np.argmax(error))
    at[np.argmin(np.abs(at - worst))] = worst
    faces.imshow(np.concatenate([index.crop(int(track.row.iloc[k])) for k in at], axis=1))
    size = index.crop(0).shape[0]
    faces.set(xticks=(np.arange(FACES) + 0.5) * size, yticks=[])
    faces.set_xticklabels([f"{seconds.iloc[k]:.1f} s: {100 * track.score.iloc[k]:.0f}" for k in at])
    for label, k in zip(faces.get_xticklabels(), at, strict=True):
        label.set_color(WRONG if wrong[k] else ACCENT if track.label.iloc[k] == 1 else MUTED)
    faces.grid(False)
    faces.spines["bottom"].set_visible(False)
    faces.tick_params(length=0)
    return figure


def main() -> None:
    run, work = Path(sys.argv[1]), Path(sys.argv[2])
    index, table = scored(run, work)
    table["row"] = np.arange(len(table))                               # val_stride 1: every row, in order
    clip, name = (sys.argv[3], sys.argv[4]) if len(sys.argv) > 4 else choose(table)
    track = table[(table["clip"] == clip) & (table["track"] == name)]
    print(f"clip {clip} track {name}: {len(track)} faces, {(track.label == 1).mean():.0%} looking, "
          f"{((track.score >= 0.5) == (track.label == 1)).mean():.0%} scored right")
    Path("docs/figure.png").write_bytes(png(lambda: draw(index, track)))


if __name__ == "__main__":
    main()
