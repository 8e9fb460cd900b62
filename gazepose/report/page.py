"""Page: a run's pictures, tables and sentences become one HTML file that needs nothing but itself."""

import json
from collections.abc import Callable
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from gazepose.evaluation.comparison import Entry, compare
from gazepose.evaluation.metrics import percent
from gazepose.report import calibration, learning, mistakes, scores, slices, timeline
from gazepose.report.cards import card, lacking
from gazepose.report.drawing import LIGHT, png
from gazepose.report.records import Records
from gazepose.report.tables import facts, find, results
from gazepose.report.template import PAGE, STYLE

Draw = Callable[..., Figure]
Words = Callable[[Records], str]

# name, title, picture, the sentence where it cannot be drawn, caption
PICTURES: list[tuple[str, str, Draw, Callable[[Records], str | None], Words]] = [
    ("learning", "Learning", learning.draw_learning, learning.lacks, learning.caption),
    ("slices", "Where it works", slices.draw_slices, slices.lacks, slices.caption),
    ("precision-recall", "Precision and recall", scores.draw_precision_recall, scores.lacks,
     scores.precision_recall_caption),
    ("confusion", "Confusion", scores.draw_confusion, scores.lacks, scores.confusion_caption),
    ("calibration", "Calibration", calibration.draw_calibration, scores.lacks, calibration.caption),
]
COLUMNS = {"mAP": "mAP", "ap_looking": "AP looking", "ap_not_looking": "AP not looking", "accuracy": "accuracy",
           "balanced_accuracy": "balanced accuracy", "auroc": "AUROC"}


def write_page(records: Records, folder: Path) -> None:
    """Write report.html and its pictures, each also as a PNG of its own, into a folder that is there."""
    cards = "".join(lacking(title, missing) if (missing := lacks(records)) else
                    card(folder, name, title, caption(records), partial(draw, records))
                    for name, title, draw, lacks, caption in PICTURES)
    rows = results(records)
    head = "".join(f"<th>{words}" for words in COLUMNS.values())
    body = "".join(f"<tr{' class=own' if words.startswith('this run') else ''}><th>{escape(words)}"
                   + "".join(f"<td>{percent(entry.get(name))}" for name in COLUMNS) for words, entry in rows)
    text = escape(json.dumps(records.config, indent=1))
    page = PAGE.format(
        name=escape(records.name), style=STYLE, lede=_lede(records, rows), cards=cards,
        tracks=_tracks(records, folder), mistakes=_mistakes(records, folder),
        table=f"<div class=scroll><table><tr><th>%{head}{body}</table></div>" if rows else "",
        facts="".join(f"<tr><th>{escape(name)}<td>{escape(value)}" for name, value in facts(records)),
        config=f"<details><summary>Whole configuration</summary><pre>{text}</pre></details>" if records.config else "",
        notes="".join(f"<p class=note>{escape(note)}</p>" for note in _notes(records)))
    (folder / "report.html").write_text(page, encoding="utf-8")


def _tracks(records: Records, folder: Path) -> str:
    """A card for each track, under one explanation."""
    if missing := timeline.lacks(records):
        return lacking(timeline.TITLE, missing)
    cards = "".join(card(folder, f"track-{k}", timeline.title(track), timeline.caption(track),
                         partial(timeline.draw_timeline, track), 256) for k, track in enumerate(records.tracks, 1))
    return (f"<h2 class=part>{timeline.TITLE}</h2><p class=lede>{escape(timeline.explained(records))}</p>"
            f"<div class=pairs>{cards}</div>")


def _mistakes(records: Records, folder: Path) -> str:
    if missing := mistakes.lacks(records):
        return lacking(mistakes.TITLE, missing)
    (folder / "mistakes.png").write_bytes(png(partial(mistakes.draw_mistakes, records), LIGHT, 256))
    return mistakes.gallery(records)


def _lede(records: Records, rows: list[tuple[str, dict[str, Any]]]) -> str:
    """The main figures in large, with what they have to be compared with."""
    if not rows or not rows[0][0].startswith("this run"):
        return "<p class=lede>No validation result was recorded.</p>"
    result, own, baselines = rows[0][1], records.scores, records.baselines
    clips = len(np.unique(own["clip"])) if "clip" in own else 0
    spread = compare(own["label"], own["clip"], [Entry("", {0: own["score"]})])[0].interval["mAP"] if clips else None
    tiles = ""
    for name, words in (("mAP", "mAP"), ("accuracy", "accuracy"), ("auroc", "AUROC")):
        if result.get(name) is None:
            continue
        beside = [f"{title} {percent(baselines[key][name])}"
                  for key, title in (("head_pose", "head pose alone"), ("prevalence", "constant"))
                  if (baselines.get(key) or {}).get(name) is not None]
        if name == "mAP" and spread:
            beside.insert(0, f"95 % interval over clips {percent(spread[0])} to {percent(spread[1])}")
        tiles += (f"<div><b>{percent(result[name])}<i> %</i></b><span>{words}</span>"
                  f"<small>{'<br>'.join(map(escape, beside))}</small></div>")
    size = ""
    if result.get("n") and result.get("prevalence") is not None:
        of_clips = f" of {clips:,} clips" if clips else ""
        size = f"{result['n']:,} validation faces{of_clips}, {percent(result['prevalence'])} % of them looking. "
    if result.get("reason"):
        size += f"Some metrics are not defined: {escape(str(result['reason']))}."
    return f"<p class=lede>{size}</p><div class=tiles>{tiles}</div>"


def _notes(records: Records) -> list[str]:
    """Sentences under the table of results, the gravest first."""
    notes = list(records.notes)
    if not records.baselines:
        notes.append("No baselines were recorded, so the result stands without its comparison.")
    if limit := find(records.config, "limit"):
        notes.insert(0, f"Training and validation saw at most {limit:,} rows of each split (--limit); the results do "
                        "not compare with others.")
    if records.limited:
        notes.insert(0, "The predictions cover a limited part of the split (--limit); they do not compare with others.")
    if records.status.get("state") not in (None, "finished"):
        notes.insert(0, f"The run is not finished: its state is “{records.status['state']}”.")
    if sum(line.get("mAP") is not None for line in records.val) > 1:
        notes.append("The best of several validations is chosen on the faces it is scored on, which flatters it.")
    return notes
