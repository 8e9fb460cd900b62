"""Draw docs/figure.png: a rendered conversation, who looks at the camera in it, and a run's scores over time.

Usage: PYTHONPATH=. python docs/figure.py RUN WORK [CLIP]

RUN is a trained run, such as runs/demo-0. WORK is a folder for a small world with long tracks and its scores.
Without CLIP, the clip with the best balance of looking and not looking is drawn.
"""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from gazepose.data.video_times import pictures_with_times
from gazepose.report.style import ACCENT, INK, LINE, MUTED, RUNS, png
from gazepose.synthetic import presets, world

SHOWN = 4                    # pictures of the clip
NOT_LOOKING = RUNS[1]
FRAMES_PER_SECOND = 30
SMOOTH = 7                   # frames of the median, as `watch` smooths: 0.1 s on each side


def scored(run: Path, work: Path) -> pd.DataFrame:
    """Render the world once, score every face of its val split with the run; pred.csv, one row per face."""
    if not (work / "world").exists():
        presets.PRESETS["figure"] = replace(presets.PRESETS["default"], name="figure", frames=(110, 130), shots=1,
                                            val_shots=1, long_every=0, clips=(1, 6, 1), people=(2, 3), stills=10,
                                            distance=(0.7, 1.2), beyond=0.0, jolts=0.0, occluder=0.0)
        world.render_world(work / "world", "figure", 3)
        (work / "world" / "world.json").unlink()                       # other programs do not know this preset
    if not (work / "pred" / "val" / "pred.csv").exists():
        subprocess.run([sys.executable, "infer.py", "--checkpoint", str(run), "--data", str(work / "world"), "--split",
                        "val", "--val_stride", "1", "--exp_path", str(work)], check=True)
    table = pd.read_csv(work / "pred" / "val" / "pred.csv", dtype={"clip": str, "track": str})
    scores = table.groupby(["clip", "track"]).score
    table["smooth"] = scores.transform(lambda s: s.rolling(SMOOTH, center=True, min_periods=1).median())
    table["right"] = (table.smooth >= 0.5) == (table.label == 1)
    table["person"] = "P" + (table.groupby("clip").track.transform(lambda t: t.factorize()[0]) + 1).astype(str)
    return table


def choose(table: pd.DataFrame) -> str:
    """The clip whose least balanced person is the most balanced one of all clips."""
    balance = table.groupby(["clip", "track"]).label.mean().map(lambda share: min(share, 1 - share))
    return str(balance.groupby("clip").min().idxmax())


def draw(faces: pd.DataFrame, video: Path) -> Figure:
    """Pictures with a box at each face, above a strip for each person: score, and when it says looking and is right."""
    people = sorted(faces.person.unique())
    last = int(faces.frame.max())
    at = ((np.arange(SHOWN) + 0.5) / SHOWN * last).round().astype(int)
    pictures = [shown.picture for shown in pictures_with_times(video)]
    left, right, top, bottom = _shown_part(faces[faces.frame.isin(at)], pictures[0].shape)
    figure = Figure((8.2, 2.0 + 0.5 * len(people)))
    heights = [1.75, *[0.5] * len(people)]
    grid = figure.add_gridspec(1 + len(people), SHOWN, height_ratios=heights, hspace=0.3, wspace=0.03, left=0.045,
                               right=0.99, top=0.99, bottom=0.13)
    for column, frame in enumerate(at):
        axes = figure.add_subplot(grid[0, column])
        axes.imshow(pictures[frame])
        axes.set(xlim=(left, right), ylim=(bottom, top), xticks=[], yticks=[])
        axes.spines["bottom"].set_visible(False)
        axes.grid(False)
        axes.set_title(f"{frame / FRAMES_PER_SECOND:.1f} s", loc="left", fontsize=8, color=MUTED, y=-0.16)
        for face in faces[faces.frame == frame].itertuples():
            _draw_face(axes, face, right)
    for row, person in enumerate(people):
        axes = figure.add_subplot(grid[1 + row, :])
        _draw_strip(axes, faces[faces.person == person], last, at)
        axes.set_ylabel(person, rotation=0, color=INK, ha="right", va="center")
        if row + 1 < len(people):
            axes.set_xticklabels([])
    axes.set_xlabel("seconds", labelpad=1)
    return figure


def _shown_part(faces: pd.DataFrame, shape: tuple[int, ...]) -> tuple[float, float, float, float]:
    """left, right, top, bottom of the part of the picture that has all faces, at the picture's own proportions."""
    x1, x2 = faces.x1.min() - 50, faces.x2.max() + 50
    width = min(x2 - x1, shape[1])
    height = min(max(width * 0.8, faces.y2.max() - faces.y1.min() + 90), shape[0])
    left = np.clip((x1 + x2 - width) / 2, 0, shape[1] - width)
    top = np.clip((faces.y1.min() + faces.y2.max() - height) / 2, 0, shape[0] - height)
    return left, left + width, top, top + height


def _draw_face(axes, face, right: float) -> None:
    looking = face.smooth >= 0.5
    colour = ACCENT if looking else NOT_LOOKING
    axes.add_patch(Rectangle((face.x1, face.y1), face.x2 - face.x1, face.y2 - face.y1, fill=False, edgecolor=colour,
                             linewidth=1.8 if looking else 1.2))
    near = right - face.x1 < 100                           # its label would leave the picture
    axes.text(face.x2 if near else face.x1, face.y1 - 5, f"{face.person} {face.smooth:.2f}", color="white",
              fontsize=8, ha="right" if near else "left", va="bottom",
              bbox={"facecolor": colour, "edgecolor": "none", "pad": 1.5})


def _draw_strip(axes, face: pd.DataFrame, last: int, at: np.ndarray) -> None:
    seconds = face.frame / FRAMES_PER_SECOND
    axes.fill_between(seconds, 0, 1, where=face.smooth >= 0.5, step="mid", color=ACCENT, alpha=0.3, linewidth=0)
    axes.plot(seconds, face.smooth, color=ACCENT, linewidth=1.3)
    axes.fill_between(seconds, -0.3, -0.12, where=face.label == 1, step="mid", color=INK, linewidth=0)
    for frame in at:
        axes.axvline(frame / FRAMES_PER_SECOND, color=LINE, linewidth=0.8)
    axes.set(xlim=(0, last / FRAMES_PER_SECOND), ylim=(-0.34, 1.02), yticks=[])


def main() -> None:
    run, work = Path(sys.argv[1]), Path(sys.argv[2])
    table = scored(run, work)
    clip = sys.argv[3] if len(sys.argv) > 3 else choose(table)
    faces = table[table["clip"] == clip]
    print(f"clip {clip}: {len(faces)} faces of {faces.track.nunique()} people, {(faces.label == 1).mean():.0%} "
          f"looking, {faces.right.mean():.0%} scored right; of all {table['clip'].nunique()} clips "
          f"{table.right.mean():.0%}")
    Path("docs/figure.png").write_bytes(png(lambda: draw(faces, work / "world" / "videos" / f"{clip}.mp4")))


if __name__ == "__main__":
    main()
