"""The chain's table: what each step does on val and test, with its gain and how sure that is."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from gazepose.evaluation.comparison import Entry, compare
from gazepose.evaluation.metrics import calibration_error
from gazepose.experiments.ensemble.calibration import likelihood
from gazepose.experiments.ensemble.runs import SPLITS, Scores

HEADER = ["step", "val mAP", "gain [95 %]", "test mAP [95 %]", "gain [95 %]", "test accuracy [95 %]", "gain [95 %]",
          "ECE val", "test", "kept"]


class Step(NamedTuple):
    name: str
    scores: Scores | None = None
    """None: it could not be tried, and `note` says why"""
    before: Scores | None = None
    """of the last step that was kept; None: it is the first"""
    kept: bool = False
    note: str = ""


def figures(step: Step, faces: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, Any]:
    """JSON values of a step: name, kept, note, and of val and test n, mAP and accuracy, both with their interval, ece,
    nll, gain {mAP, accuracy: {value, interval}} over the last step that was kept.

    A split without labels of both classes is None. An interval (95 %, over clips) is None with fewer than five clips.
    """
    found: dict[str, Any] = {"name": step.name, "kept": step.kept, "note": step.note}
    for split in SPLITS:
        label, clip = faces[split]["label"], faces[split]["clip"]
        found[split] = None
        if step.scores is None or not {0, 1} <= set(np.unique(label).tolist()):
            continue
        score = step.scores[split]
        entries = [Entry(step.name, {0: score}, against=None if step.before is None else "before")]
        if step.before is not None:
            entries.append(Entry("before", {0: step.before[split]}))
        row = compare(label, clip, entries, ("mAP", "accuracy"), draws=200)[0]
        gain = {key: {"value": each.mean, "interval": each.interval} for key, each in row.gain.items()}
        found[split] = {"n": row.results[0]["n"], "mAP": row.mean["mAP"], "mAP_interval": row.interval["mAP"],
                        "accuracy": row.mean["accuracy"], "accuracy_interval": row.interval["accuracy"],
                        "ece": calibration_error(label, score), "nll": likelihood(label, score), "gain": gain or None}
    return found


def as_table(steps: Sequence[Mapping[str, Any]]) -> str:
    """A Markdown table of `figures`, one row a step; columns are padded, so that it reads in a terminal too."""
    rows = [HEADER]
    for step in steps:
        val, test = (step[split] for split in SPLITS)
        cells = [step["name"], *([""] * 2 if val is None else [f"{val['mAP']:.3f}", _gain(val["gain"], "mAP")])]
        for metric in ("mAP", "accuracy"):
            cells += [""] * 2 if test is None else [f"{test[metric]:.3f}{_sure(test[f'{metric}_interval'], '.3f')}",
                                                    _gain(test["gain"], metric)]
        cells += ["" if found is None else f"{found['ece']:.3f}" for found in (val, test)]
        rows.append([*cells, "not tried" if val is None else "yes" if step["kept"] else "no"])
    width = [max(len(row[column]) for row in rows) for column in range(len(HEADER))]
    lines = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(row, width, strict=True)) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "|".join("-" * (w + 2) for w in width) + "|", *lines[1:]])


def _gain(gain: Mapping[str, Any] | None, metric: str) -> str:
    return "" if gain is None else f"{gain[metric]['value']:+.3f}{_sure(gain[metric]['interval'], '+.3f')}"


def _sure(interval: Sequence[float] | None, form: str) -> str:
    return "" if interval is None else f" [{interval[0]:{form}}, {interval[1]:{form}}]"
