"""Comparison: several runs beside each other on one page; each run's own page is linked from it."""

import os
from functools import partial
from html import escape
from pathlib import Path
from urllib.parse import quote

from gazepose.evaluation.metrics import percent
from gazepose.report import overlays
from gazepose.report.cards import card, lacking
from gazepose.report.drawing import DARK, LIGHT
from gazepose.report.entries import Entry, differing, entries_of, names_of
from gazepose.report.records import Records
from gazepose.report.tables import duration, find, speed
from gazepose.report.template import COMPARISON, STYLE

COLUMNS = {"ap_looking": "AP looking", "ap_not_looking": "AP not looking", "accuracy": "accuracy", "auroc": "AUROC"}
HOW_SURE = ("Intervals are over whole clips, five or more, drawn with replacement; differences are on the same draws, "
            "so they are surer than two intervals beside each other. They tell nothing of the luck of a training: for "
            "that, train with several seeds.")


def write_comparison(runs: list[Records], pages: list[Path], final: Path, folder: Path) -> None:
    """Write comparison.html and its pictures into a folder that is there.

    Args:
        pages: of each run, its own report.
        final: where the folder will lie; links are relative to it.
    """
    entries, notes = entries_of(runs)
    links = [quote(Path(os.path.relpath(page.resolve(), final.resolve())).as_posix()) for page in pages]
    page = COMPARISON.format(
        name=f"{len(runs)} runs compared", style=STYLE + _swatches(), lede=_lede(entries),
        table=_table(entries, links), notes="".join(f"<p class=note>{escape(note)}</p>" for note in [*notes, HOW_SURE]),
        cards=_cards(entries, folder), differing=_differing(runs))
    (folder / "comparison.html").write_text(page, encoding="utf-8")


def _cards(entries: list[Entry], folder: Path) -> str:
    told = any(entry.result.get("mAP") is not None for entry in entries)
    learnt = any(entry.records and (entry.records.train or entry.records.val) for entry in entries)
    scored = any(entry.records and len(entry.records.scores.get("label", ())) for entry in entries)
    pictures = [
        ("results", "Results", overlays.draw_results, told, "No run has a result with both classes.",
         "mAP with its 95 % interval over clips; hollow: trivial baselines. Dashed: chance."),
        ("learning", "Learning", overlays.draw_learning, learnt, "No run has a metrics.jsonl.",
         "Losses compare only where their weights, their labels and what they sum are alike."),
        ("precision-recall", "Precision and recall", overlays.draw_precision_recall, scored,
         "No run has saved predictions.",
         "Before each name the AP, the area under its curve. Dotted: what guessing gives."),
    ]
    return "".join(card(folder, name, title, caption, partial(draw, entries)) if there else lacking(title, missing)
                   for name, title, draw, there, missing, caption in pictures)


def _lede(entries: list[Entry]) -> str:
    runs = [entry for entry in entries if entry.records is not None and entry.result.get("mAP") is not None]
    if not runs:
        return "<p class=lede>No run has a validation result.</p>"
    best = max(runs, key=lambda entry: entry.result["mAP"])
    words = f"Highest validation mAP: {percent(best.result['mAP'])} % of {best.name}"
    if best.gain is not None:
        words += f", {_points(best.gain)} points against {entries[0].name}"
        if best.gain_interval:
            zero = "excludes" if best.gain_interval[0] * best.gain_interval[1] > 0 else "holds"
            low, high = map(_points, best.gain_interval)
            words += f" (95 % interval {low} to {high}, which {zero} 0)"
    return f"<p class=lede>{escape(words)}.</p>"


def _points(value: float) -> str:
    return f"{100 * value:+.1f}".replace("-", "−")


def _table(entries: list[Entry], links: list[str]) -> str:
    head = "".join(f"<th>{words}" for words in ("mAP", "95 % interval", "against the first", *COLUMNS.values(), "time",
                                                 "windows/s"))
    body = ""
    for k, entry in enumerate(entries):
        name, cost = escape(entry.name), ["–"] * 2
        if entry.records is not None:
            name = f'<i class="swatch run{k % len(LIGHT.runs)}"></i><a href="{links[k]}">{name}</a>'
            cost = _cost(entry.records)
        sure = f"{percent(entry.interval[0])} to {percent(entry.interval[1])}" if entry.interval else "–"
        gain = "–"
        if entry.gain is not None:
            gain = f"<b>{_points(entry.gain)}</b>"
            if entry.gain_interval:
                gain += f" ({_points(entry.gain_interval[0])} to {_points(entry.gain_interval[1])})"
        cells = [percent(entry.result.get("mAP")), sure, gain,
                 *(percent(entry.result.get(key)) for key in COLUMNS), *cost]
        body += f"<tr{' class=own' if entry.records else ''}><th>{name}" + "".join(f"<td>{cell}" for cell in cells)
    return f"<div class=scroll><table class=wide><tr><th>%{head}{body}</table></div>"


def _cost(records: Records) -> list[str]:
    """Time and windows/s."""
    seconds, median = find(records.status, "seconds"), speed(records)
    return ["–" if seconds is None else duration(seconds), "–" if median is None else f"{median:,.0f}"]


def _differing(runs: list[Records]) -> str:
    rows = differing(runs)
    if not rows:
        return "<p class=missing>No setting that was recorded differs.</p>"
    head = "".join(f"<th>{escape(name)}" for name in names_of(runs))
    body = "".join(f"<tr><th>{escape(key)}" + "".join(f"<td>{escape(value)}" for value in values)
                   for key, values in rows)
    return f"<div class=scroll><table><tr><th>{head}{body}</table></div>"


def _swatches() -> str:
    """Style of the runs' colours in both themes."""
    light, dark = ("".join(f".run{k} {{ background: {color}; }}" for k, color in enumerate(theme.runs))
                   for theme in (LIGHT, DARK))
    return f"{light}\n@media (prefers-color-scheme: dark) {{ {dark} }}\n"
