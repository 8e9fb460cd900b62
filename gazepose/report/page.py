"""Page: a run's pictures, tables and sentences become one HTML file that needs nothing but itself; so do several runs'.

What stands where is in page.html, a jinja2 template.
"""

import base64
import io
import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import jinja2
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from PIL import Image

from gazepose.evaluation.comparison import Entry, between, compare, difference
from gazepose.evaluation.examples import CANDIDATES, distance
from gazepose.evaluation.metrics import BASELINES, METRICS, THRESHOLD, evaluate, percent
from gazepose.report import figures, style, tables
from gazepose.report.records import Records, Track
from gazepose.text import counted

FACE = 144  # most pixels per side of a face in the page
HEADLINES = ("mAP", "accuracy", "auroc")
PAGE = jinja2.Environment(loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True,
                          lstrip_blocks=True, undefined=jinja2.StrictUndefined).get_template("page.html")


class Picture(NamedTuple):
    """A picture with its words, or the sentence that says why there is none."""

    title: str
    caption: str = ""
    svg: str = ""
    missing: str = ""


def _picture(folder: Path, name: str, title: str, caption: str, draw: Callable[[], Figure], missing: str = ""
             ) -> Picture:
    """Draw it, write it as name.svg, which follows light and dark themes too, and return it for the page.

    Args:
        missing: why it cannot be drawn; then nothing is written.
    """
    if missing:
        return Picture(title, missing=missing)
    element = style.svg(draw, name)
    (folder / f"{name}.svg").write_text(element.replace("<defs>", f"<style>{style.colours_css()}</style><defs>", 1),
                                        encoding="utf-8")
    return Picture(title, caption, Markup(re.sub(r' xmlns(:xlink)?="[^"]*"', "", element)))  # HTML has no namespaces


def _write(path: Path, **content: Any) -> None:
    text = PAGE.render(colours=style.colours_css(), metrics=METRICS, percent=percent, **content)
    path.write_text(text, encoding="utf-8")


def _jpeg(crop: np.ndarray) -> str:
    """A crop, uint8 [h, w, 3], as the address of a picture in the page."""
    picture = Image.fromarray(crop)
    picture.thumbnail((FACE, FACE))
    packed = io.BytesIO()
    picture.save(packed, "JPEG", quality=85, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(packed.getvalue()).decode()}"


# ---- one run

def write_page(records: Records, folder: Path) -> None:
    """Write report.html and its pictures, each also as an SVG file of its own, into an existing folder."""
    results = tables.results(records)
    scores = records.scores
    missing = _missing_scores(records)
    _write(folder / "report.html", title=records.name, runs=None, results=results, size=_size(records, results),
           tiles=_tiles(records, results), notes=_notes(records), pictures=_pictures(records, folder, missing),
           missing=missing, threshold=THRESHOLD, has_head_pose=records.head_pose is not None,
           slices=[] if missing else tables.slices(records),
           confusion=None if missing else _confusion(scores["label"], scores["score"]),
           head_pose_confusion=None if missing or records.head_pose is None else
           _confusion(scores["label"], records.head_pose),
           tracks=[_track(track, k, folder) for k, track in enumerate(records.tracks, 1)], candidates=CANDIDATES,
           mistakes=[[(mistake, _jpeg(mistake.crop)) for mistake in records.mistakes if mistake.label == label]
                     for label in (0, 1)],
           facts=tables.facts(records), config=json.dumps(records.config, indent=1) if records.config else "")


def _missing_scores(records: Records) -> str:
    """Why nothing can be drawn from the scores; empty where it can."""
    label = records.scores.get("label", ())
    if not len(label):
        return "No labelled predictions were saved (pred/val.npz). `python -m gazepose infer --split val` saves them."
    return "" if records.has_both_classes else f"All {len(label):,} predicted faces are of one class."


def _pictures(records: Records, folder: Path, missing: str) -> list[Picture]:
    pose = "" if records.head_pose is None else "Grey: head pose alone. "
    no_lines = "" if records.train or records.val else "metrics.jsonl has no lines, so there are no learning curves."
    return [_picture(folder, "learning", "Learning",
                     "Training loss, validation mAP and learning rate over the run. Above the dashed lines the model "
                     "knows more than where the head points.",
                     lambda: figures.draw_learning([records], ["this run"]), no_lines),
            _picture(folder, "precision-recall", "Precision and recall",
                     "How many of the faces found are right (precision) while more and more are found (recall). AP is "
                     f"the area under a curve; mAP is the mean of both classes. {pose}Dotted: guessing.",
                     lambda: figures.draw_precision_recall([records], ["this run"]), missing),
            _picture(folder, "calibration", "Calibration",
                     f"On the dashed line, a score of 70 % is right for 70 of 100 faces. {pose}Training with class "
                     "weights moves scores away from it; the ranking, and so mAP, is not affected.",
                     lambda: figures.draw_calibration(records), missing)]


def _size(records: Records, results: Sequence[tables.Result]) -> str:
    """What was scored, in one sentence."""
    if not results or not results[0].own:
        return "No validation result was recorded."
    result, clips = results[0].metrics, len(np.unique(records.scores.get("clip", ())))
    words = ""
    if result.get("n") and result.get("prevalence") is not None:
        of_clips = f" of {counted(clips, 'clip', form=',')}" if clips else ""
        words = (f"{counted(result['n'], 'validation face', form=',')}{of_clips}, "
                 f"{percent(result['prevalence'])} % of them looking at the camera wearer.")
    if result.get("reason"):
        words += f" Some metrics are not defined: {result['reason']}."
    if result.get("collapsed"):
        words += f" The model has {result['collapsed']}."
    return words


def _tiles(records: Records, results: Sequence[tables.Result]) -> list[tuple[str, str, list[str]]]:
    """(name, value in percent, what to compare it with) of the main figures."""
    if not results or not results[0].own:
        return []
    tiles, scores = [], records.scores
    for key in HEADLINES:
        value = results[0].metrics.get(key)
        if value is None:
            continue
        beside = [f"{words} {percent(records.baselines[name][key])}" for name, words in BASELINES.items()
                  if (records.baselines.get(name) or {}).get(key) is not None]
        if key == "mAP" and "clip" in scores:
            interval = compare(scores["label"], scores["clip"], [Entry("", {0: scores["score"]})])[0].interval["mAP"]
            if interval:
                beside.insert(0, f"95 % interval over clips {percent(interval[0])} to {percent(interval[1])}")
        in_order = results[0].metrics.get("mAP_in_order")
        if key == "mAP" and in_order is not None and percent(in_order) != percent(value):
            beside.append(f"equal scores as the rows lie, as the challenge counts: {percent(in_order)}")
        tiles.append((METRICS[key].label, percent(value), beside))
    return tiles


def _notes(records: Records) -> list[str]:
    """Sentences under the table of results, the most serious first."""
    notes = list(records.notes)
    if not records.baselines:
        notes.append("No baselines were recorded, so the result stands without its comparison.")
    if limit := tables.find(records.config, "limit"):
        notes.insert(0, f"Training and validation saw at most {limit:,} rows of each split (--limit). The results "
                        "cannot be compared with those of whole splits.")
    if records.limited:
        notes.insert(0, "The predictions cover a limited part of the split (--limit). They cannot be compared with "
                        "those of the whole split.")
    if records.status.get("state") not in (None, "finished"):
        notes.insert(0, f"The run is not finished: its state is “{records.status['state']}”.")
    if sum(line.get("mAP") is not None for line in records.val) > 1:
        notes.append("The best validation was chosen on the same faces that it is scored on, so its value is too "
                     "high.")
    return notes


def _confusion(label: np.ndarray, score: np.ndarray) -> list[list[tuple[float, int, int]]]:
    """Rows looking and not looking as annotated, columns as predicted: (share of the row, faces, faces of the row)."""
    counts = evaluate(label, score)["confusion"]
    table = [[counts["tp"], counts["fn"]], [counts["fp"], counts["tn"]]]
    return [[(count / max(1, sum(row)), count, sum(row)) for count in row] for row in table]


def _track(track: Track, number: int, folder: Path) -> tuple[Picture, list[dict[str, Any]]]:
    """The score along a track, and the faces under it."""
    frame, label, score = (track.columns[name] for name in ("frame", "label", "score"))
    caption = f"{counted(len(frame), 'scored frame', form=',')}, {frame[0]} to {frame[-1]}"
    if (label >= 0).any():
        caption += f"; on average the score is {100 * distance(label, score):.0f} points off the label"
    picture = _picture(folder, f"track-{number}", f"Track {track.name} of clip {track.clip}", f"{caption}.",
                       lambda: figures.draw_timeline(track))
    return picture, [{"src": _jpeg(crop), "score": f"{100 * score[place]:.0f}", "looking": bool(label[place] == 1),
                      "frame": int(frame[place])} for place, crop in track.faces]


# ---- several runs

def write_comparison(runs: Sequence[Records], pages: Sequence[Path], final: Path, folder: Path) -> None:
    """Write comparison.html and its pictures into an existing folder.

    Args:
        pages: each run's own report.
        final: where the folder will lie; links are relative to it.
    """
    lines, notes = tables.compare_runs(runs)
    names = tables.names_of(runs)
    links = [quote(Path(os.path.relpath(page.resolve(), final.resolve())).as_posix()) for page in pages]
    no_lines = "" if any(records.train or records.val for records in runs) else "No run has a metrics.jsonl."
    no_scores = ("" if any(records.has_both_classes for records in runs)
                 else "No run has saved predictions of both classes.")
    pictures = [_picture(folder, "learning", "Learning",
                         "Losses can be compared only where their weights and labels are the same.",
                         lambda: figures.draw_learning(runs, names), no_lines),
                _picture(folder, "precision-recall", "Precision and recall",
                         "AP is the area under a curve. Dotted: guessing.",
                         lambda: figures.draw_precision_recall(runs, names), no_scores)]
    _write(folder / "comparison.html", title=f"{counted(len(runs), 'run')} compared", runs=names, lines=lines,
           links=links,
           notes=notes, pictures=pictures, best=_best(lines), low=_low(lines), between=between, difference=difference,
           swatches=["accent", *(f"run{k}" for k in range(1, len(style.RUNS)))],
           costs=[_cost(records) for records in runs], differing=tables.differing(runs))


def _best(lines: Sequence[tables.Line]) -> str:
    """The highest validation mAP of a run, and how certain its gain on the first is, in one sentence."""
    scored = [line for line in lines if line.records is not None and line.metrics.get("mAP") is not None]
    if not scored:
        return "No run has a validation result."
    best = max(scored, key=lambda line: line.metrics["mAP"])
    words = f"Highest validation mAP: {percent(best.metrics['mAP'])} % ({best.name})"
    gain = best.row.gain.get("mAP") if best.row else None
    if gain is None or gain.mean is None:
        return f"{words}."
    words += f", {percent(gain.mean, signed=True)} points against {lines[0].name}"
    if gain.interval is None:
        return f"{words}."
    low, high = (percent(end, signed=True) for end in gain.interval)
    return f"{words} (95 % interval {low} to {high}, which {'excludes' if gain.sign else 'includes'} 0)."


def _low(lines: Sequence[tables.Line]) -> float:
    """Left end of the scale on which the runs' mAP is drawn: below every value and interval, and below chance."""
    ends = [0.5, *(line.metrics["mAP"] for line in lines if line.metrics.get("mAP") is not None)]
    ends += [line.row.interval["mAP"][0] for line in lines if line.row and line.row.interval["mAP"]]
    return max(0.0, min(ends) - 0.02)


def _cost(records: Records) -> list[str]:
    """Training time, and windows a second."""
    seconds, median = tables.find(records.status, "seconds"), tables.speed(records)
    return ["–" if seconds is None else tables.duration(seconds), "–" if median is None else f"{median:,.0f}"]
