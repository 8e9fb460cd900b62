"""Page: pictures, tables and sentences become one HTML file that needs nothing but itself."""

import base64
import json
from collections.abc import Callable
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from gazepose.metrics import interval
from gazepose.report import learning, scores, slices, timeline
from gazepose.report.drawing import DARK, LIGHT, png
from gazepose.report.records import Records
from gazepose.report.tables import facts, find, percent, results
from gazepose.report.template import PAGE

Draw = Callable[..., Figure]
Lacks = Callable[[Records], str | None]

# name, title, picture, the sentence where it cannot be drawn, caption
PICTURES: list[tuple[str, str, Draw, Lacks, str]] = [
    ("learning", "Learning", learning.draw_learning, learning.lacks,
     "Training loss, validation mAP and learning rate over the run. Above the dashed lines the model knows more than "
     "where the head points."),
    ("slices", "Where it works", slices.draw_slices, slices.lacks,
     "mAP within slices of the validation faces. Differences between slices of few faces mean little."),
    ("precision-recall", "Precision and recall", scores.draw_precision_recall, scores.lacks,
     "The envelope whose area is the AP; mAP is the mean of the two. Dotted: the class's share, which guessing gives."),
    ("confusion", "Confusion", scores.draw_confusion, scores.lacks,
     "Each row is one annotated class and sums to 100 %. Accuracy is dominated by the frequent class."),
    ("calibration", "Calibration", scores.draw_calibration, scores.lacks,
     "Training with class weights moves scores away from frequencies; the order, and so mAP, does not mind."),
]
COLUMNS = {"mAP": "mAP", "ap_looking": "AP looking", "ap_not_looking": "AP not looking", "accuracy": "accuracy",
           "balanced_accuracy": "balanced accuracy", "auroc": "AUROC"}


def write_page(records: Records, folder: Path) -> None:
    """Write report.html and its pictures, each also as a PNG of its own, into a folder that is there."""
    cards = "".join(_card(records, folder, *picture) for picture in PICTURES)
    wide = _card(records, folder, "timeline", "One track", timeline.draw_timeline, timeline.lacks,
                 timeline.caption(records), wide=True)
    rows = results(records)
    head = "".join(f"<th>{words}" for words in COLUMNS.values())
    body = "".join(f"<tr{' class=own' if words.startswith('this run') else ''}><th>{escape(words)}"
                   + "".join(f"<td>{percent(entry.get(name))}" for name in COLUMNS) for words, entry in rows)
    text = escape(json.dumps(records.config, indent=1))
    page = PAGE.format(
        name=escape(records.run.resolve().name), lede=_lede(records, rows), cards=cards, wide=wide,
        table=f"<div class=scroll><table><tr><th>%{head}{body}</table></div>" if rows else "",
        facts="".join(f"<tr><th>{escape(name)}<td>{escape(value)}" for name, value in facts(records)),
        config=f"<details><summary>Whole configuration</summary><pre>{text}</pre></details>" if records.config else "",
        notes="".join(f"<p class=note>{escape(note)}</p>" for note in _notes(records)))
    (folder / "report.html").write_text(page, encoding="utf-8")


def _card(records: Records, folder: Path, name: str, title: str, draw: Draw, lacks: Lacks, caption: str,
          wide: bool = False) -> str:
    """One picture in light and dark, a wide one also for narrow screens; the browser takes the first that fits."""
    if missing := lacks(records):
        return f"<figure><h2>{title}</h2><p class=missing>{escape(missing)}</p></figure>"
    picture = ""
    for narrow in (True, False) if wide else (False,):
        for theme in (DARK, LIGHT):
            drawn = png(partial(draw, records, **({"narrow": narrow} if wide else {})), theme, flat=not wide)
            (folder / f"{name}{'-narrow' * narrow}{'-dark' * (theme is DARK)}.png").write_bytes(drawn)
            queries = ["(prefers-color-scheme: dark)"] * (theme is DARK) + ["(max-width: 720px)"] * narrow
            inline = "data:image/png;base64," + base64.b64encode(drawn).decode()
            picture += (f'<source media="{" and ".join(queries)}" srcset="{inline}">' if queries else
                        f'<img alt="{title}: {escape(caption)}" src="{inline}">')
    return (f"<figure><h2>{title}</h2><picture>{picture}</picture>"
            f"<figcaption>{escape(caption)}</figcaption></figure>")


def _lede(records: Records, rows: list[tuple[str, dict[str, Any]]]) -> str:
    """The main figures in large, with what they have to be compared with."""
    if not rows or not rows[0][0].startswith("this run"):
        return "<p class=lede>No validation result was recorded.</p>"
    result, own, baselines = rows[0][1], records.scores, records.baselines
    clips = len(np.unique(own["clip"])) if "clip" in own else 0
    draws = 200 if len(own.get("row", ())) < 50_000 else 50
    spread = interval(own["label"], own["score"], own["clip"], draws) if clips else None
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
