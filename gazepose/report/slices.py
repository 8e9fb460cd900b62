"""Slices: where the model works: faces by size, head turn and sharpness."""

from collections.abc import Callable, Mapping

import numpy as np
from matplotlib.figure import Figure

from gazepose.metrics import evaluate
from gazepose.report.drawing import Theme, panels
from gazepose.report.records import Records
from gazepose.report.scores import lacks as lacks_scores


def lacks(records: Records) -> str | None:
    """The sentence where there is nothing to draw."""
    none = "pred/val.npz has no face sizes, head poses or sharpness to slice by."
    return lacks_scores(records) or (None if slices_of(records.scores) else none)


def slices_of(scores: Mapping[str, np.ndarray]) -> dict[str, list[tuple[str, np.ndarray]]]:
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
    groups = slices_of(records.scores)
    bars = sum(map(len, groups.values()))
    height = 0.75 + 0.235 * bars + 0.3 * len(groups)
    figure, (axes,) = panels(height, left=0.27, right=0.725, top=1 - 0.12 / height, bottom=0.42 / height)
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
