"""Report: what a run left behind, as pictures and one page that people look at.

Reads config.json, metrics.jsonl, status.json and pred/*.npz of a run's folder; writes report/. Whatever is not there
becomes a sentence. Nothing is computed here that metrics.py does not define.
"""

import base64
import io
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from gazepose.metrics import THRESHOLD, evaluate, interval

FRAMES_PER_SECOND = 30  # of every Ego4D clip and of the embedded world
WIDTH = 4.1  # inches; a picture of this width keeps its letters legible on a phone
DPI = 170
Crops = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Theme:
    name: str
    paper: str
    ink: str
    muted: str
    line: str
    accent: str


LIGHT = Theme("light", "#ffffff", "#1d2327", "#6a747c", "#d9dee2", "#0b7a75")
DARK = Theme("dark", "#1b2024", "#e8ecef", "#98a3ab", "#3a4248", "#45c7bd")


# ---------------------------------------------------------------- records

@dataclass
class Records:
    """What the run's folder holds; empty where it holds nothing, and `notes` says so in sentences."""

    run: Path
    config: dict[str, Any]
    status: dict[str, Any]
    train: dict[str, np.ndarray]  # columns by step: step, loss, lr, samples_per_s
    val: list[dict[str, Any]]  # lines of kind "val" by step
    scores: dict[str, np.ndarray]  # pred/val.npz, rows of known label only
    timeline: dict[str, np.ndarray]  # frame, score, label of one track; crops [k, h, w, 3] and crop_at [k] into them
    partial: bool
    notes: list[str]


def read_records(run: Path, crops: Crops | None = None) -> Records:
    """Raises FileNotFoundError for a folder that holds no record at all, ValueError for one that is damaged."""
    records = Records(run, {}, {}, {}, [], {}, {}, False, [])
    for name in ("config", "status"):
        path = run / f"{name}.json"
        if path.exists():
            setattr(records, name, _json(path))
        else:
            records.notes.append(f"{path.name} is missing, so the table of facts is short.")
    lines = _lines(run / "metrics.jsonl", records.notes)
    train = [line for line in lines if line.get("kind") == "train"]
    for key in ("step", "loss", "lr", "samples_per_s"):
        if train:
            records.train[key] = np.array([np.nan if line.get(key) is None else line[key] for line in train], float)
    records.val = [line for line in lines if line.get("kind") == "val"]
    found = sorted((run / "pred").glob("val*.npz"), key=lambda path: path.name != "val.npz")
    if found:
        everything = _arrays(found[0], ("row", "score", "label"))
        known = everything["label"] >= 0
        records.scores = {name: column[known] for name, column in everything.items() if len(column) == len(known)}
        records.partial = "partial" in found[0].name
        if not known.all():
            records.notes.append(f"{(~known).sum():,} of {len(known):,} validation rows have no label and are left "
                                 "out.")
    if not (records.config or records.status or lines or found):
        raise FileNotFoundError(f"{run}: no config.json, metrics.jsonl, status.json or pred/val.npz -> give the folder "
                                "of a training run (runs/<name>)")
    _choose_timeline(records, crops)
    return records


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error}) -> the file is damaged; remove it and report again") from None


def _lines(path: Path, notes: list[str]) -> list[dict[str, Any]]:
    """Lines by (kind, step); a resumed run repeats steps, and the last word counts."""
    if not path.exists():
        return []
    kept: dict[tuple[str, float], dict[str, Any]] = {}
    broken = 0
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            line = json.loads(text)
            kept[line["kind"], line["step"]] = line
        except (ValueError, KeyError, TypeError):
            broken += 1
    if broken:
        notes.append(f"{broken} lines of {path.name} could not be read (a run that is stopped may leave one) and are "
                     "left out.")
    return [kept[key] for key in sorted(kept)]


def _arrays(path: Path, wanted: Sequence[str]) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as archive:
        columns = {name: archive[name] for name in archive.files}
    lost = [name for name in wanted if name not in columns]
    if lost:
        raise ValueError(f"{path}: no column {', '.join(lost)} -> predict again with infer.py --split val")
    return columns


def _choose_timeline(records: Records, crops: Crops | None, longest: int = 300, shown: int = 12) -> None:
    path = records.run / "pred" / "timeline.npz"
    if path.exists():
        line = _arrays(path, ("frame", "score", "label"))
        order = np.argsort(line["frame"], kind="stable")
        records.timeline = {name: line[name][order] for name in ("frame", "score", "label")}
        if "crops" in line:
            at = _spread(records.timeline["frame"], records.timeline["label"], shown)
            records.timeline |= {"crops": line["crops"][order][at], "crop_at": at}
        return
    scores = records.scores
    if not {"clip", "track", "frame"} <= scores.keys() or not len(scores["row"]):
        return
    _, track, count = np.unique(np.stack([scores["clip"], scores["track"]]), axis=1, return_inverse=True,
                                return_counts=True)
    looking = np.bincount(track, weights=scores["label"])
    both = np.minimum(looking, count - looking)  # the track that has most of both classes tells most
    rows = np.flatnonzero(track == np.lexsort((count, both))[-1])
    rows = rows[np.argsort(scores["frame"][rows], kind="stable")]
    change = np.flatnonzero(np.diff(scores["label"][rows]))
    first = min(max(0, (int(change[0]) if len(change) else 0) - longest // 3), max(0, len(rows) - longest))
    rows = rows[first:first + longest]
    records.timeline = {name: scores[name][rows] for name in ("frame", "score", "label")}
    if crops is not None:
        at = _spread(records.timeline["frame"], records.timeline["label"], shown)
        records.timeline |= {"crops": np.asarray(crops(scores["row"][rows[at]])), "crop_at": at}


def _spread(frame: np.ndarray, label: np.ndarray, count: int) -> np.ndarray:
    """One row of each of `count` equal stretches of time, int64 [k]: near its middle, a looking one if there is one."""
    place = (frame - frame[0]) / max(1, frame[-1] - frame[0]) * count
    cell = np.minimum(place.astype(int), count - 1)
    order = np.lexsort((np.abs(place - cell - 0.5), label != 1, cell))
    return order[np.unique(cell[order], return_index=True)[1]]


# ---------------------------------------------------------------- pictures

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


def _figure(height: float, rows: Sequence[float] = (1,), **space: float) -> tuple[Figure, list[Axes]]:
    figure = Figure((WIDTH, height))
    grid = figure.add_gridspec(len(rows), 1, height_ratios=rows, **space)
    return figure, [figure.add_subplot(cell) for cell in grid]


def _title(axes: Axes, text: str, theme: Theme) -> None:
    axes.text(0, 1.03, text, transform=axes.transAxes, color=theme.ink, fontsize=8.5, va="bottom")


def _empty(axes: Axes, reason: str, theme: Theme) -> None:
    axes.text(0.5, 0.5, reason, transform=axes.transAxes, ha="center", color=theme.muted)
    axes.set_yticks([])


def _thin(values: np.ndarray, limit: int = 1500) -> np.ndarray:
    return np.unique(np.linspace(0, len(values) - 1, min(len(values), limit)).astype(int))


def draw_learning(records: Records, theme: Theme) -> Figure:
    """Training loss, validation mAP beside the baselines, learning rate; one time axis."""
    figure, (loss, score, rate) = _figure(5.0, (3, 3, 1.2), left=0.12, right=0.95, top=0.94, bottom=0.085, hspace=0.42)
    train, val = records.train, records.val
    last = max([line["step"] for line in val] + list(train.get("step", [])[-1:]))
    if train:
        keep = np.isfinite(train["loss"])
        step, value = train["step"][keep], train["loss"][keep]
        if len(step):
            span = max(1, len(value) // 40)
            summed = np.concatenate([[0.0], np.cumsum(value)])
            smooth = (summed[span:] - summed[:-span]) / span
            some, few = _thin(value), _thin(smooth)
            loss.plot(step[some], value[some], color=theme.muted, linewidth=0.7, alpha=0.45)
            loss.plot(step[span - 1:][few], smooth[few], color=theme.accent)
            top = np.percentile(value, 99.5) * 1.1
            loss.set_ylim(min(0.0, float(value.min())), top if top > 0 else 1)
            mean = f" (line: mean of {span} steps)" if span > 1 else ""
            _title(loss, f"training loss{mean}, at the end {smooth[-1]:.3f}", theme)
        else:
            _empty(loss, "no loss is a finite number", theme)
        rate.plot(train["step"], train["lr"], color=theme.muted)
        peak = np.nanmax(train["lr"]) if np.isfinite(train["lr"]).any() else 0.0
        rate.set_ylim(0, 1.15 * peak or 1)
        rate.set_yticks(*(([0, peak], ["0", f"{peak:.0e}".replace("e-0", "e-")]) if peak > 0 else ([0], ["0"])))
    else:
        _empty(loss, "no training records", theme)
        _empty(rate, "", theme)
    _title(rate, "learning rate", theme)
    points = [(line["step"], 100 * line["mAP"]) for line in val if line.get("mAP") is not None]
    levels = {"chance": 50.0}
    head_pose = (_baselines(records).get("head_pose") or {}).get("mAP")
    if head_pose is not None:
        levels["head pose alone"] = 100 * head_pose
    for name, level in levels.items():
        score.axhline(level, color=theme.muted, linewidth=1, linestyle=(0, (4, 3)))
        score.annotate(f"{name} {level:.1f}", (0, level), (2, 2), xycoords=("axes fraction", "data"),
                       textcoords="offset points", color=theme.muted, fontsize=7.5)
    if points:
        x, y = map(np.array, zip(*points, strict=True))
        score.plot(x, y, color=theme.accent, marker="o", markersize=3.5, clip_on=False)
        best = int(y.argmax())
        score.annotate(f"{y[best]:.1f}", (x[best], y[best]), (0, 6), textcoords="offset points", ha="center",
                       color=theme.accent, fontweight="bold")
    else:
        score.text(0.5, 0.7, "no validation with both classes", transform=score.transAxes, ha="center",
                   color=theme.muted)
    values = [*levels.values(), *(y for _, y in points)]
    score.set_ylim(min(values) - 4, min(103, max(values) + 9))
    _title(score, "validation mAP, %", theme)
    for axes in (loss, score, rate):
        axes.set_xlim(0, max(1, last) * 1.02)
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    for axes in (loss, score):
        axes.tick_params(labelbottom=False)
    rate.set_xlabel("optimiser steps")
    return figure


def _curve(hit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Recall and the envelope of precision at each hit of a ranked list, from recall 0."""
    rank = np.flatnonzero(hit) + 1
    precision = np.arange(1, len(rank) + 1) / rank
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    recall = np.arange(len(rank) + 1) / len(rank)
    keep = _thin(recall)
    return recall[keep], np.concatenate([envelope[:1], envelope])[keep]


def _free_place(grid: np.ndarray, own: np.ndarray, lines: list[np.ndarray], taken: list[tuple[float, float]],
                half_width: int = 19, half_height: float = 4.5) -> tuple[float, float]:
    """Centre of a label near its own line that touches no line and no other label."""
    best = (np.inf, (50.0, 50.0))
    for x in range(40, 101 - half_width, 3):
        under = slice(x - half_width, x + half_width + 1)
        for y in np.arange(5.0, 108.0, 1.5):
            free = min(np.abs(line[under] - y).min() for line in lines) > half_height or y > 104.5
            apart = all(abs(y - other) > 2 * half_height for _, other in taken)
            cost = np.abs(own[under] - y).min() + 0.02 * abs(x - 60)
            if free and apart and cost < best[0]:
                best = (cost, (float(grid[x]), float(y)))
    return best[1]


def draw_precision_recall(records: Records, theme: Theme) -> Figure:
    """Both classes, each with the precision of guessing."""
    figure, (axes,) = _figure(3.7, left=0.11, right=0.96, top=0.92, bottom=0.13)
    label, score = records.scores["label"] == 1, records.scores["score"].astype(float)
    result = evaluate(label.astype(int), score)
    grid, curves, words = np.arange(101.0), [], []
    for name, positive, value, color in (("looking", label, score, theme.accent),
                                         ("not looking", ~label, 1 - score, theme.ink)):
        recall, precision = _curve(positive[np.argsort(-value, kind="stable")])
        axes.plot(100 * recall, 100 * precision, color=color, clip_on=False)
        share = 100 * positive.mean()
        axes.axhline(share, color=color, linewidth=1, linestyle=(0, (2, 3)), alpha=0.8)
        axes.annotate(f"chance {share:.1f}", (0, share), (2, -3 if share > 50 else 3), textcoords="offset points",
                      color=color, fontsize=7.5, va="top" if share > 50 else "bottom", alpha=0.9)
        curves.append((np.interp(grid, 100 * recall, 100 * precision), np.full(len(grid), share)))
        words.append((f"{name}, AP {100 * result['ap_' + name.replace(' ', '_')]:.1f}", color))
    taken: list[tuple[float, float]] = []
    for (own, _), (text, color) in zip(curves, words, strict=True):
        taken.append(_free_place(grid, own, [line for pair in curves for line in pair], taken))
        axes.text(*taken[-1], text, color=color, ha="center", va="center", fontweight="bold")
    axes.set(xlim=(0, 100), ylim=(0, 112), xlabel="recall, %")
    axes.set_yticks([0, 25, 50, 75, 100])
    _title(axes, "precision, %", theme)
    return figure


def draw_confusion(records: Records, theme: Theme) -> Figure:
    """Counts at a score of one half; the shade is the share of the annotated class."""
    figure, (axes,) = _figure(2.8, left=0.24, right=0.98, top=0.83, bottom=0.03)
    counts = evaluate(records.scores["label"], records.scores["score"])["confusion"]
    names = ["looking", "not looking"]
    table = np.array([[counts["tp"], counts["fn"]], [counts["fp"], counts["tn"]]])
    for y, row in enumerate(table):
        for x, count in enumerate(row):
            share = count / max(1, row.sum())
            axes.fill([x + 0.02, x + 0.98, x + 0.98, x + 0.02], [y + 0.03, y + 0.03, y + 0.97, y + 0.97],
                      color=theme.accent if x == y else theme.muted, alpha=0.08 + 0.55 * share, linewidth=0)
            axes.text(x + 0.5, y + 0.44, f"{100 * share:.1f} %", ha="center", va="center", fontsize=14)
            axes.text(x + 0.5, y + 0.72, f"{count:,} of {row.sum():,}", ha="center", va="center", fontsize=8)
    axes.set(xlim=(0, 2), ylim=(2, 0))
    axes.set_xticks([0.5, 1.5], names)
    axes.set_yticks([0.5, 1.5], names)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.text(1, -0.24, f"said (score {THRESHOLD:g} and above is looking)", ha="center", color=theme.muted, fontsize=8)
    axes.text(-0.045, -0.09, "annotated", ha="right", color=theme.muted, fontsize=8)
    return figure


def draw_calibration(records: Records, theme: Theme) -> Figure:
    """How often a score of p is right, and where the scores of each class lie."""
    figure, (curve, counts) = _figure(4.1, (2.4, 1), left=0.11, right=0.96, top=0.93, bottom=0.12, hspace=0.34)
    label, score = records.scores["label"] == 1, records.scores["score"].astype(float)
    edges = np.linspace(0, 1, 11)
    place = np.clip(np.digitize(score, edges) - 1, 0, 9)
    n = np.bincount(place, minlength=10)
    has = n > 0
    mean = np.bincount(place, score, 10)[has] / n[has]
    share = np.bincount(place, label, 10)[has] / n[has]
    gap = float((n[has] * np.abs(mean - share)).sum() / n.sum())
    curve.plot([0, 100], [0, 100], color=theme.muted, linewidth=1, linestyle=(0, (4, 3)))
    above = np.interp(0.24, mean, share) < 0.24  # the words go where the curve does not
    curve.text(24, 26 if above else 22, "as often as said", color=theme.muted, fontsize=7.5, ha="center", rotation=45,
               va="bottom" if above else "top", rotation_mode="anchor", transform_rotates_text=True)
    curve.plot(100 * mean, 100 * share, color=theme.accent, clip_on=False)
    curve.scatter(100 * mean, 100 * share, s=12 + 120 * n[has] / n.max(), color=theme.accent, clip_on=False, zorder=3,
                  linewidths=0)
    curve.set(xlim=(0, 100), ylim=(0, 100))
    _title(curve, f"looking among faces of that score, %; mean gap {100 * gap:.1f}", theme)
    for positive, color in ((label, theme.accent), (~label, theme.ink)):
        bins = np.histogram(score[positive], bins=np.linspace(0, 1, 31))[0]
        height = 100 * bins / max(1, bins.sum())
        counts.stairs(height, np.linspace(0, 100, 31), color=color, fill=positive is label,
                      alpha=0.55 if positive is label else 1.0, linewidth=1.2)
    counts.set(xlim=(0, 100), xlabel="score, %")
    _title(counts, "share of each class, %:", theme)
    for x, name, color in ((0.40, "looking", theme.accent), (0.56, "not looking", theme.ink)):
        counts.text(x, 1.03, name, transform=counts.transAxes, color=color, fontweight="bold", va="bottom")
    for axes in (curve, counts):
        axes.set_xticks([0, 25, 50, 75, 100])
    curve.set_yticks([0, 25, 50, 75, 100])
    return figure


def slices(scores: Mapping[str, np.ndarray]) -> dict[str, list[tuple[str, np.ndarray]]]:
    """Title -> (name, bool [N]): faces by height in pixels, head turn from the line of sight, sharpness."""
    found: dict[str, list[tuple[str, np.ndarray]]] = {}
    if "size" in scores:
        found["face height"] = _quarters(scores["size"], lambda low, high: f"{low:.0f} to {high:.0f} px")
    if "head_pose" in scores:
        yaw, pitch = np.radians(scores["head_pose"][:, :2].astype(float)).T
        turn = np.degrees(np.arccos(np.clip(np.cos(yaw) * np.cos(pitch), -1, 1)))
        cuts = [("under 15°", turn < 15), ("15° to 30°", (turn >= 15) & (turn < 30)),
                ("30° to 60°", (turn >= 30) & (turn < 60)), ("60° and more", turn >= 60), ("unknown", np.isnan(turn))]
        found["head turn"] = [(name, inside) for name, inside in cuts if inside.any()]
    if "quality" in scores:
        words = iter(("blurriest quarter", "second quarter", "third quarter", "sharpest quarter"))
        found["sharpness"] = _quarters(scores["quality"], lambda low, high: next(words))
    return {title: parts for title, parts in found.items() if parts}


def _quarters(value: np.ndarray, name: Callable[[float, float], str]) -> list[tuple[str, np.ndarray]]:
    known = np.isfinite(value)
    if not known.any():
        return []
    edges = np.quantile(value[known], [0, 0.25, 0.5, 0.75, 1])
    part = np.searchsorted(edges[1:4], value, side="left")  # 0..3; NaN sorts last and is cut by `known`
    return [(words, inside) for k in range(4)
            for words, inside in [(name(edges[k], edges[k + 1]), known & (part == k))] if inside.any()]


def draw_slices(records: Records, theme: Theme) -> Figure:
    """mAP where faces are small, turned away or blurred; guessing gives 50 in each."""
    groups = slices(records.scores)
    bars = sum(map(len, groups.values()))
    height = 0.75 + 0.235 * bars + 0.3 * len(groups)
    figure, (axes,) = _figure(height, left=0.27, right=0.725, top=1 - 0.12 / height, bottom=0.42 / height)
    y, ticks = 0.0, []

    def column(x: float, y: float, words: str) -> None:
        axes.text(x, y, words, transform=axes.get_yaxis_transform(), va="center", ha="right", color=theme.muted,
                  fontsize=7.5)

    column(1.22, 0, "faces")
    column(1.47, 0, "looking")
    for title, parts in groups.items():
        axes.text(-0.02, y, title, transform=axes.get_yaxis_transform(), fontweight="bold", va="center", ha="right",
                  fontsize=8.5)
        y += 1
        for name, inside in parts:
            result = evaluate(records.scores["label"][inside], records.scores["score"][inside])
            ticks.append((y, name))
            column(1.22, y, f"{result['n']:,}")
            column(1.47, y, f"{100 * result['prevalence']:.1f} %")
            if result["mAP"] is None:
                axes.text(2, y, "one class only", va="center", color=theme.muted, fontsize=7.5)
            else:
                axes.barh(y, 100 * result["mAP"], height=0.66, color=theme.accent, alpha=0.85)
                axes.text(100 * result["mAP"] - 2, y, f"{100 * result['mAP']:.1f}", va="center", ha="right",
                          color=theme.paper, fontsize=7.5, fontweight="bold")
            y += 1
        y += 0.3
    axes.set(xlim=(0, 100), ylim=(y - 0.6, -0.6))
    axes.axvline(50, color=theme.ink, linewidth=1, linestyle=(0, (4, 3)))
    axes.set_xticks([0, 50, 100], ["0", "50 chance", "100"])
    axes.set_yticks([at for at, _ in ticks], [name for _, name in ticks])
    axes.grid(False)
    axes.set_xlabel("mAP, %")
    return figure


def draw_timeline(records: Records, theme: Theme, narrow: bool = False) -> Figure:
    """One track: the score as it runs, the annotated stretches shaded, the faces under it."""
    line = records.timeline
    frame, label = line["frame"].astype(float), line["label"] == 1
    second = (frame - frame[0]) / FRAMES_PER_SECOND
    width = WIDTH if narrow else 2.1 * WIDTH
    at, faces = line.get("crop_at", np.zeros(0, int)), line.get("crops", np.zeros((0, 1, 1, 3), np.uint8))
    if narrow and len(at):
        some = _spread(frame[at], line["label"][at], 6)
        at, faces = at[some], faces[some]
    side = (0.94 - 0.05) * width / max(1, len(at)) if len(at) else 0.0  # inches of one face
    plot = 1.6
    height = 0.34 + plot + 0.45 + (side + 0.22 if len(at) else 0)
    figure = Figure((width, height))
    left, right = 0.4 / width, 1 - 0.12 / width
    axes = figure.add_axes((left, 1 - (0.34 + plot) / height, right - left, plot / height))
    usual = np.median(np.diff(second)) if len(second) > 1 else 1.0
    holes = np.flatnonzero(np.diff(second) > 3.5 * usual) + 1  # a line across missing frames would be invented
    axes.plot(np.insert(second, holes, np.nan), 100 * np.insert(line["score"].astype(float), holes, np.nan),
              color=theme.accent, clip_on=False)
    start = np.flatnonzero(np.diff(np.concatenate([[False], label]).astype(int)) == 1)
    end = np.flatnonzero(np.diff(np.concatenate([label, [False]]).astype(int)) == -1)
    for low, high in zip(start, end, strict=True):
        axes.axvspan(second[low] - usual / 2, second[high] + usual / 2, color=theme.accent, alpha=0.16, linewidth=0)
    axes.axhline(100 * THRESHOLD, color=theme.muted, linewidth=1, linestyle=(0, (2, 3)))
    axes.set(ylim=(0, 100), xlim=(-usual / 2, max(second[-1], usual) + usual / 2))
    axes.set_yticks([0, 50, 100])
    _title(axes, "score, %; shaded where annotated as looking", theme)
    figure.text(right, (0.1 + (side + 0.22 if len(at) else 0)) / height, "seconds", ha="right", color=theme.muted,
                fontsize=8)
    cell = (right - left) / max(1, len(at))
    for k, (row, face) in enumerate(zip(at, faces, strict=False)):
        box = (left + (k + 0.04) * cell, 0.2 / height, 0.92 * cell, 0.92 * cell * width / height)
        picture = figure.add_axes(box)
        picture.imshow(face, interpolation="bilinear", aspect="auto")
        picture.set(xticks=[], yticks=[])
        picture.grid(False)
        picture.spines[:].set(visible=bool(label[row]), color=theme.accent, linewidth=2.2)
        figure.text(box[0] + box[2] / 2, 0.05 / height, f"{100 * line['score'][row]:.0f}", ha="center", fontsize=8,
                    color=theme.accent if label[row] else theme.muted, fontweight="bold" if label[row] else "normal")
        axes.plot(second[row], 100 * line["score"][row], "o", color=theme.accent, markersize=3.2, clip_on=False)
    return figure


def _png(draw: Callable[..., Figure], records: Records, theme: Theme, **options: Any) -> bytes:
    with rc_context(_style(theme)):
        figure = draw(records, theme, **options)
        drawn = io.BytesIO()
        figure.savefig(drawn, dpi=DPI)
    small = io.BytesIO()
    picture = Image.open(drawn).convert("RGB")
    if draw is not draw_timeline:  # flat colours: 64 of them look the same at a third of the size
        picture = picture.quantize(64, dither=Image.Dither.NONE)
    picture.save(small, "PNG", optimize=True)
    return small.getvalue()


# ---------------------------------------------------------------- page

def _baselines(records: Records) -> dict[str, Any]:
    return next((line["baselines"] for line in reversed(records.val) if line.get("baselines")), {})


def _find(record: Any, name: str) -> Any:
    """The first value of that name, however deep."""
    if isinstance(record, dict):
        if record.get(name) is not None:
            return record[name]
        return next((found for value in record.values() if (found := _find(value, name)) is not None), None)
    return None


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _results(records: Records) -> list[tuple[str, dict[str, Any]]]:
    """Rows of the table of results, the run's own first."""
    rows: list[tuple[str, dict[str, Any]]] = []
    if len(records.scores.get("label", ())):
        rows.append(("this run, saved predictions", evaluate(records.scores["label"], records.scores["score"])))
    scored = [line for line in records.val if line.get("mAP") is not None]
    if scored:
        best = max(scored, key=lambda line: line["mAP"])
        if best is not scored[-1]:
            rows.append((f"this run, best of {len(scored)} validations (step {best['step']:,})", best))
        rows.append((f"this run, last validation (step {scored[-1]['step']:,})", scored[-1]))
    baselines = _baselines(records)
    names = {"head_pose": "head pose alone (no picture)", "prevalence": "same score for every face"}
    rows += [(words, baselines[name]) for name, words in names.items() if baselines.get(name)]
    return rows


def _facts(records: Records) -> list[tuple[str, str]]:
    both = {"status": records.status, "config": records.config}
    facts: list[tuple[str, str]] = []

    def fact(title: str, *names: str, form: Callable[[Any], str] = str) -> None:
        value = next((found for name in names if (found := _find(both, name)) is not None), None)
        if value is not None:
            facts.append((title, form(value)))

    def flat(value: Any) -> str:
        if isinstance(value, dict):
            return ", ".join(f"{key} {flat(entry)}" for key, entry in value.items() if entry is not None)
        return " ".join(map(str, value)) if isinstance(value, list) else str(value)

    fact("state", "state")
    fact("reason", "reason")
    fact("command", "command", "argv", form=flat)
    model = records.config.get("model")
    if isinstance(model, dict):
        on = [name for name in ("prior_head", "prior_landmark", "gaze_head") if model.get(name)]
        facts.append(("model", ", ".join([str(model.get("model", "?")), str(model.get("backbone", "?")), *on])))
    elif model:
        facts.append(("model", str(model)))
    fact("data", "root", "data_root", "data", form=flat)
    fact("annotation policy", "policy")
    fact("data fingerprint", "fingerprint", form=lambda value: flat(
        {k: str(v)[:12] for k, v in value.items()} if isinstance(value, dict) else str(value)[:12]))
    fact("world size", "world_size", form=lambda count: f"{count} process{'es' if count != 1 else ''}")
    fact("device", "device_name", "device")
    fact("mixed precision", "mixed_precision")
    fact("time", "seconds", form=_duration)
    speed = records.train.get("samples_per_s", np.zeros(0))
    if np.isfinite(speed).any():
        facts.append(("speed", f"{np.nanmedian(speed):,.0f} windows/s (median of the steps)"))
    if records.train:
        facts.append(("steps", f"{int(records.train['step'][-1]):,}"))
    if records.val and records.val[-1].get("gaze_degrees") is not None:
        facts.append(("gaze", f"{records.val[-1]['gaze_degrees']:.1f}° off at the last validation"))
    fact("versions", "versions", form=flat)
    return facts


def _no_scores(records: Records) -> str | None:
    if not len(records.scores.get("label", ())):
        return "There are no saved predictions with labels (pred/val.npz); infer.py --split val writes them."
    label = records.scores["label"]
    return None if label.min() != label.max() else f"All {len(label):,} predicted faces are of one class."


def _no_learning(records: Records) -> str | None:
    return None if records.train or records.val else "metrics.jsonl has no lines, so there are no learning curves."


def _no_slices(records: Records) -> str | None:
    none = "pred/val.npz has no face sizes, head poses or sharpness to slice by."
    return _no_scores(records) or (None if slices(records.scores) else none)


def _no_timeline(records: Records) -> str | None:
    none = "There is no track to draw (pred/timeline.npz, or clip, track and frame in pred/val.npz)."
    return None if records.timeline else none


# name, title, picture, the sentence where it cannot be drawn, caption
PICTURES = [
    ("learning", "Learning", draw_learning, _no_learning,
     "Training loss, validation mAP and learning rate over the run. Above the dashed lines the model knows more than "
     "where the head points."),
    ("slices", "Where it works", draw_slices, _no_slices,
     "mAP within slices of the validation faces. Differences between slices of few faces mean little."),
    ("precision-recall", "Precision and recall", draw_precision_recall, _no_scores,
     "The envelope whose area is the AP; mAP is the mean of the two. Dotted: the class's share, which guessing gives."),
    ("confusion", "Confusion", draw_confusion, _no_scores,
     "Each row is one annotated class and sums to 100 %. Accuracy is dominated by the frequent class."),
    ("calibration", "Calibration", draw_calibration, _no_scores,
     "Training with class weights moves scores away from frequencies; the order, and so mAP, does not mind."),
    ("timeline", "One track", draw_timeline, _no_timeline, ""),
]


def _card(records: Records, folder: Path, picture: tuple) -> str:
    name, title, draw, lacks, caption = picture
    missing = lacks(records)
    if missing:
        return f"<figure><h2>{title}</h2><p class=missing>{escape(missing)}</p></figure>"
    sources = ""
    if name == "timeline":
        count = len(records.timeline["frame"])
        first, last = records.timeline["frame"][[0, -1]]
        caption = (f"{count:,} scored frames, {first} to {last}, of one face at {FRAMES_PER_SECOND} frames per second. "
                   + ("Framed faces are annotated as looking; the number is the score in %. A stretch "
                      "with any looking frame shows one."
                      if "crops" in records.timeline else "No crops were kept, so the faces are not shown."))
        phone = "(max-width: 720px)"
        for theme, query in ((DARK, f"(prefers-color-scheme: dark) and {phone}"), (LIGHT, phone)):
            data = _png(draw, records, theme, narrow=True)
            (folder / f"timeline-narrow{'-dark' if theme is DARK else ''}.png").write_bytes(data)
            sources += f'<source media="{query}" srcset="{_inline(data)}">'
    light, dark = _png(draw, records, LIGHT), _png(draw, records, DARK)
    (folder / f"{name}.png").write_bytes(light)
    (folder / f"{name}-dark.png").write_bytes(dark)
    sources += f'<source media="(prefers-color-scheme: dark)" srcset="{_inline(dark)}">'
    return (f"<figure><h2>{title}</h2><picture>{sources}<img alt=\"{title}: {escape(caption)}\" "
            f"src=\"{_inline(light)}\"></picture><figcaption>{escape(caption)}</figcaption></figure>")


def _inline(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _lede(records: Records, rows: list[tuple[str, dict[str, Any]]]) -> str:
    own = [entry for words, entry in rows if words.startswith("this run")]
    if not own:
        return "<p class=lede>No validation result was recorded.</p>"
    result, baselines = own[0], _baselines(records)
    spread = None
    if "clip" in records.scores and result.get("mAP") is not None and own[0] is rows[0][1]:
        draws = 200 if len(records.scores["row"]) < 50_000 else 50
        spread = interval(records.scores["label"], records.scores["score"], records.scores["clip"], draws)
    tiles = []
    for name, words in (("mAP", "mAP"), ("accuracy", "accuracy"), ("auroc", "AUROC")):
        if result.get(name) is None:
            continue
        beside = [f"{title} {_percent(baselines[key][name])}" for key, title in
                  (("head_pose", "head pose alone"), ("prevalence", "constant"))
                  if (baselines.get(key) or {}).get(name) is not None]
        if name == "mAP" and spread:
            beside.insert(0, f"95 % interval over clips {_percent(spread[0])} to {_percent(spread[1])}")
        tiles.append(f"<div><b>{_percent(result[name])}<i> %</i></b><span>{words}</span>"
                     f"<small>{'<br>'.join(map(escape, beside))}</small></div>")
    size = ""
    if result.get("n") and result.get("prevalence") is not None:
        clips = f" of {len(np.unique(records.scores['clip'])):,} clips" if "clip" in records.scores else ""
        size = f"{result['n']:,} validation faces{clips}, {_percent(result['prevalence'])} % of them looking. "
    if result.get("reason"):
        size += f"Some metrics are not defined: {escape(str(result['reason']))}."
    return f"<p class=lede>{size}</p>" + f"<div class=tiles>{''.join(tiles)}</div>"


def _page(records: Records, cards: list[str]) -> str:
    rows = _results(records)
    columns = {"mAP": "mAP", "ap_looking": "AP looking", "ap_not_looking": "AP not looking", "accuracy": "accuracy",
               "balanced_accuracy": "balanced accuracy", "auroc": "AUROC"}
    head = "".join(f"<th>{words}" for words in columns.values())
    body = "".join(f"<tr{' class=own' if words.startswith('this run') else ''}><th>{escape(words)}"
                   + "".join(f"<td>{_percent(entry.get(name))}" for name in columns) for words, entry in rows)
    table = f"<div class=scroll><table><tr><th>%{head}{body}</table></div>" if rows else ""
    notes = list(records.notes)
    if not _baselines(records):
        notes.append("No baselines were recorded, so the result stands without its comparison.")
    if records.partial:
        notes.insert(0, "The predictions cover a limited part of the split (--limit); they do not compare with others.")
    if records.status.get("state") not in (None, "finished"):
        notes.insert(0, f"The run is not finished: its state is “{records.status['state']}”.")
    scored = [line for line in records.val if line.get("mAP") is not None]
    if len(scored) > 1:
        notes.append("The best of several validations is chosen on the faces it is scored on, which flatters it.")
    facts = "".join(f"<tr><th>{escape(name)}<td>{escape(value)}" for name, value in _facts(records))
    absent = [name for name in ("command", "versions", "seconds", "world_size", "device")
              if _find({"s": records.status, "c": records.config}, name) is None]
    if absent and (records.config or records.status):
        facts += f"<tr><th>not recorded<td>{escape(', '.join(absent).replace('_', ' '))}"
    text = escape(json.dumps(records.config, indent=1))
    config = f"<details><summary>Whole configuration</summary><pre>{text}</pre></details>" if records.config else ""
    name = records.run.resolve().name
    return PAGE.format(
        name=escape(name), lede=_lede(records, rows), table=table, cards="".join(cards[:-1]), wide=cards[-1],
        facts=facts, config=config, notes="".join(f"<p class=note>{escape(note)}</p>" for note in notes))


def make_report(run: Path | str, crops: Crops | None = None) -> Path:
    """Pictures and one page of a run: RUN/report/*.png and report.html, which opens offline and needs no script.

    Args:
        run: the run's folder: any of config.json, metrics.jsonl (kinds train and val), status.json, pred/val.npz
            (row, score, label; optional frame, track, clip, head_pose [n, 3] degrees, quality [n], size [n] px) and
            pred/timeline.npz (frame, score, label of one track, optional crops uint8 [n, h, w, 3]).
        crops: rows int64 [k] -> uint8 [k, h, w, 3]; asked for a dozen faces of one track where timeline.npz is absent.

    Returns:
        The page's path. The folder is replaced as a whole; nothing half written is ever seen under its name.

    Raises:
        FileNotFoundError: the folder holds no record of a run.
        ValueError: a record is damaged; the message names it.
    """
    run = Path(run)
    records = read_records(run, crops)
    final, staging, old = (run / f"{prefix}report" for prefix in ("", f".{os.getpid()}-", f".old-{os.getpid()}-"))
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    try:
        page = _page(records, [_card(records, staging, picture) for picture in PICTURES])
        (staging / "report.html").write_text(page, encoding="utf-8")
        for path in staging.iterdir():
            with open(path, "rb") as file:
                os.fsync(file.fileno())
        if final.exists():
            final.rename(old)
        staging.rename(final)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
    return final / "report.html"


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>{name} · Looking At Me</title>
<style>
:root {{ --back: #f3f5f6; --paper: #ffffff; --ink: #1d2327; --muted: #5d676f; --line: #d9dee2; --accent: #0b7a75; }}
@media (prefers-color-scheme: dark) {{
  :root {{ --back: #121619; --paper: #1b2024; --ink: #e8ecef; --muted: #98a3ab; --line: #3a4248;
    --accent: #45c7bd; }} }}
* {{ box-sizing: border-box; }}
body {{ margin: 0 auto; padding: 2.2rem 1rem 3rem; max-width: 66rem; background: var(--back); color: var(--ink);
  font: 16px/1.5 system-ui, "DejaVu Sans", sans-serif; }}
h1 {{ font-size: 1.7rem; line-height: 1.2; margin: 0 0 .6rem; overflow-wrap: anywhere; }}
h2 {{ font-size: 1.02rem; margin: 0 0 .6rem; }}
.eyebrow {{ margin: 0; color: var(--accent); font-weight: 600; font-size: .9rem; }}
.lede {{ margin: 0 0 1rem; color: var(--muted); }}
.tiles {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: 1rem; margin: 0 0 1.2rem; }}
.tiles div, figure, section {{ background: var(--paper); border: 1px solid var(--line); border-radius: 10px;
  padding: 1rem; }}
.tiles b {{ display: block; font-size: 2rem; line-height: 1.1; font-weight: 650; font-variant-numeric: tabular-nums; }}
.tiles div:first-child b {{ color: var(--accent); }}
.tiles i {{ font-style: normal; font-size: 1rem; font-weight: 400; color: var(--muted); }}
.tiles span {{ font-weight: 600; }}
.tiles small {{ display: block; margin-top: .3rem; color: var(--muted); font-size: .82rem; line-height: 1.4; }}
.columns {{ columns: 25rem; column-gap: 1rem; margin: 1rem 0; }}
figure {{ margin: 0; break-inside: avoid; }}
figure + figure, figure + section {{ margin-top: 1rem; }}
picture img {{ display: block; width: 100%; height: auto; }}
figcaption, .note, .missing {{ color: var(--muted); font-size: .88rem; }}
figcaption {{ margin-top: .5rem; }}
.note, .missing {{ margin: .5rem 0 0; padding-left: .7rem; border-left: 3px solid var(--line); }}
.scroll {{ overflow-x: auto; }}
table {{ border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .38rem .6rem; border-bottom: 1px solid var(--line); text-align: right; vertical-align: top; }}
th:first-child {{ text-align: left; padding-left: 0; }}
tr:last-child > * {{ border-bottom: 0; }}
th {{ font-weight: 500; color: var(--muted); }}
.own > * {{ color: var(--ink); font-weight: 600; }}
.facts td {{ text-align: left; overflow-wrap: anywhere; }}
.facts th {{ white-space: nowrap; }}
details {{ margin-top: .8rem; }}
summary {{ cursor: pointer; color: var(--accent); }}
pre {{ overflow-x: auto; font-size: .8rem; line-height: 1.4; }}
@media (max-width: 720px) {{ body {{ padding: 1.2rem .7rem 2rem; }} figure, section, .tiles div {{ padding: .8rem; }}
  .tiles {{ grid-template-columns: 1fr 1fr; gap: .6rem; }} .tiles div:first-child {{ grid-column: 1 / -1; }}
  .scroll th:first-child {{ min-width: 9.5rem; }}
  .facts th {{ white-space: normal; }} }}
</style></head><body>
<p class="eyebrow">Is the camera wearer looked at?</p>
<h1>{name}</h1>
{lede}
<section>{table}{notes}</section>
<div class="columns">{cards}</div>
{wide}
<section><h2>The run</h2><table class="facts">{facts}</table>{config}</section>
</body></html>
"""
