"""Slices: where the model works: by face size, head turn, sharpness and clip, with head pose alone beside it."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from gazepose.evaluation.metrics import evaluate
from gazepose.report.drawing import Theme, panels
from gazepose.report.kept import clip_name
from gazepose.report.records import Records
from gazepose.report.scores import lacks as lacks_scores

CLIPS = 6  # the weakest, and as many of the strongest
FEW = 10  # faces of a class; a clip with fewer is no evidence
Part = tuple[str, np.ndarray]


def lacks(records: Records) -> str | None:
    """The sentence where there is nothing to draw."""
    none = "pred/val.npz has no face sizes, head poses, sharpness or clips to slice by."
    return lacks_scores(records) or (None if slices_of(records.scores, records.clips) else none)


def caption(records: Records) -> str:
    """What the picture shows, in words."""
    beside = "pred/val.npz has no column head_pose_score (made by an earlier version), so no baseline is beside it."
    if records.head_pose is not None:
        beside = "Hollow: head pose alone, on the same faces."
    return f"mAP within slices of the validation faces. {beside} Differences between slices of few faces mean little."


def slices_of(scores: Mapping[str, np.ndarray], clips: Sequence[str] = ()) -> dict[str, list[Part]]:
    """Title -> (name, bool [N]): faces by height in pixels, head turn from the line of sight, sharpness, and clip."""
    found: dict[str, list[Part]] = {}
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
    if "clip" in scores:
        found |= _by_clip(scores, clips)
    return {title: parts for title, parts in found.items() if parts}


def _quarters(value: np.ndarray, name: Callable[[float, float], str]) -> list[Part]:
    known = np.isfinite(value)
    if not known.any():
        return []
    edges = np.quantile(value[known], [0, 0.25, 0.5, 0.75, 1])
    part = np.searchsorted(edges[1:4], value, side="left")  # 0..3; NaN sorts last and is cut by `known`
    return [(words, inside) for k in range(4)
            for words, inside in [(name(edges[k], edges[k + 1]), known & (part == k))] if inside.any()]


def _by_clip(scores: Mapping[str, np.ndarray], clips: Sequence[str]) -> dict[str, list[Part]]:
    """Clips with enough faces of both classes, the weakest first; of many, those at both ends."""
    label, score = scores["label"], scores["score"]
    numbers, inverse, count = np.unique(scores["clip"], return_inverse=True, return_counts=True)
    looking = np.bincount(inverse, weights=label == 1, minlength=len(numbers))
    told = np.flatnonzero(np.minimum(looking, count - looking) >= FEW)
    reached = {k: evaluate(label[inverse == k], score[inverse == k])["mAP"] for k in told.tolist()}
    order = sorted(reached, key=lambda k: reached[k])
    shown, title = order, "clip"
    if len(order) > 2 * CLIPS:
        shown, title = order[:CLIPS] + order[-CLIPS:], f"clip, ends of {len(order)}"
    names = [clip_name(clips, int(numbers[k])) for k in shown]
    return {title: [(name if len(name) < 16 else f"{name[:13]}…", inverse == k)
                    for name, k in zip(names, shown, strict=True)]}


def draw_slices(records: Records, theme: Theme) -> Figure:
    """mAP where faces are small, turned away or blurred, and of each clip; guessing gives 50 in each."""
    label, score, alone = records.scores["label"], records.scores["score"], records.head_pose
    groups = slices_of(records.scores, records.clips)
    parts = [(evaluate(label[inside], score[inside]),
              None if alone is None else evaluate(label[inside], alone[inside])["mAP"])
             for group in groups.values() for _, inside in group]
    values = [value for own, other in parts for value in (own["mAP"], other) if value is not None]
    least = 10 * np.floor(10 * min([0.5, *values]) - 0.3)  # left of every dot
    height = 0.8 + 0.235 * len(parts) + 0.3 * len(groups)
    figure, (axes,) = panels(height, left=0.27, right=0.615, top=1 - 0.12 / height, bottom=0.42 / height)

    def column(x: float, y: float, words: str, color: str = theme.muted, weight: str = "normal") -> None:
        axes.text(x, y, words, transform=axes.get_yaxis_transform(), va="center", ha="right",
                  color=color, fontsize=7.5, fontweight=weight)

    column(1.22, 0, "mAP")
    column(1.46, 0, "pose" if alone is not None else "")
    column(1.76, 0, "faces")
    column(2.11, 0, "looking")
    y, ticks, rest = 0.0, [], iter(parts)
    for title, group in groups.items():
        axes.text(-0.02, y, title, transform=axes.get_yaxis_transform(), fontweight="bold", va="center", ha="right",
                  fontsize=8.5)
        y += 1
        for name, _ in group:
            own, other = next(rest)
            ticks.append((y, name))
            column(1.76, y, f"{own['n']:,}")
            column(2.11, y, f"{100 * own['prevalence']:.1f} %")
            if own["mAP"] is None:
                axes.text(52, y, "one class only", va="center", color=theme.muted, fontsize=7.5)
            else:
                column(1.22, y, f"{100 * own['mAP']:.1f}", theme.accent, "bold")
                if other is not None:
                    column(1.46, y, f"{100 * other:.1f}")
                    axes.plot([100 * other, 100 * own["mAP"]], [y, y], color=theme.line, linewidth=1.4, zorder=1)
                    axes.scatter(100 * other, y, s=22, facecolors=theme.paper, edgecolors=theme.muted, linewidths=1.1,
                                 zorder=2)
                axes.scatter(100 * own["mAP"], y, s=30, color=theme.accent, linewidths=0, zorder=3, clip_on=False)
            y += 1
        y += 0.3
    axes.set(xlim=(least, 104), ylim=(y - 0.6, -0.6))
    axes.axvline(50, color=theme.muted, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
    axes.set_xticks([50, 75, 100], ["50\nchance", "75", "100"])
    axes.set_yticks([at for at, _ in ticks], [name for _, name in ticks])
    axes.grid(False)
    axes.set_xlabel("mAP, %", loc="right", labelpad=-7)
    return figure
