"""Entries: the lines of a comparison: each run and each trivial baseline with its result, how sure it is, and what it
gains on the first run; numbers and words only."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gazepose.evaluation import comparison
from gazepose.evaluation.metrics import evaluate
from gazepose.report.records import Records
from gazepose.report.tables import find, results

NOT_COMPARED = ("exp_path", "command", "root", "head_pose_fit", "versions", "fingerprint")


@dataclass(frozen=True)
class Entry:
    """A line of the comparison."""

    name: str
    result: Mapping[str, Any]
    """as of metrics.evaluate; empty where nothing is known"""
    interval: tuple[float, float] | None = None
    """95 % interval of mAP over clips"""
    gain: float | None = None
    """mAP less that of the first run, on the same faces"""
    gain_interval: tuple[float, float] | None = None
    records: Records | None = None
    """None of a baseline"""


def entries_of(runs: list[Records]) -> tuple[list[Entry], list[str]]:
    """One entry per run, then the baselines that the first run with any recorded; and sentences on what is lacking."""
    names = names_of(runs)
    first, entries, notes = runs[0], [], []
    for name, records in zip(names, runs, strict=True):
        own = records.scores
        told = [(words, result) for words, result in results(records) if words.startswith("this run")]
        if not told:
            entries.append(Entry(name, {}, records=records))
            notes.append(f"{name}: no validation result was recorded.")
        elif not len(own.get("label", ())):
            entries.append(Entry(name, told[0][1], records=records))
            notes.append(f"{name}: no saved predictions, so its best validation stands in the table, without an "
                         f"interval; python infer.py --checkpoint {records.run} --split val writes them.")
        else:
            gain, sure = None, None
            if records is not first and not (why := disagreement(first, records)):
                gain, sure = _gain(first, own["score"])
            elif records is not first:
                notes.append(f"{name} and {names[0]} cannot be paired, and their figures do not compare: {why}.")
            entries.append(Entry(name, told[0][1], _interval(own, own["score"]), gain, sure, records))
        if records.limited:
            notes.insert(0, f"{name}: its predictions cover a limited part of the split (--limit).")
    return entries + _baselines(first, runs), notes


def names_of(runs: list[Records]) -> list[str]:
    """Folder names, with their parents' where two are alike."""
    names = [records.name for records in runs]
    if len(set(names)) < len(names):
        names = ["/".join(records.run.resolve().parts[-2:]) for records in runs]
    return names


def disagreement(first: Records, other: Records) -> str:
    """Why two runs' saved scores do not speak of the same faces; empty where they do."""
    digests = [(records.config.get("fingerprint") or {}).get("val") for records in (first, other)]
    if all(digests) and digests[0] != digests[1]:
        return "their validation data differ (fingerprint)"
    if not len(first.scores.get("row", ())):
        return "the first has no saved predictions"
    for name in ("row", "label", "frame"):
        if name in first.scores and name in other.scores and not np.array_equal(first.scores[name], other.scores[name]):
            return "they scored other faces" if name != "label" else "the same faces have other labels"
    return ""


def _interval(own: Mapping[str, np.ndarray], score: np.ndarray) -> tuple[float, float] | None:
    return comparison.compare(own["label"], own.get("clip"), [comparison.Entry("", {0: score})])[0].interval["mAP"]


def _gain(first: Records, score: np.ndarray) -> tuple[float | None, tuple[float, float] | None]:
    own = first.scores
    entries = [comparison.Entry("first", {0: own["score"]}), comparison.Entry("own", {0: score}, "first")]
    gain = comparison.compare(own["label"], own.get("clip"), entries)[1].gain["mAP"]
    return gain.mean, gain.interval


def _baselines(first: Records, runs: list[Records]) -> list[Entry]:
    entries = []
    if first.head_pose is not None and len(first.head_pose):
        gain, sure = _gain(first, first.head_pose)
        entries.append(Entry("head pose alone", evaluate(first.scores["label"], first.head_pose),
                             _interval(first.scores, first.head_pose), gain, sure))
    recorded = next((records.baselines for records in runs if records.baselines), {})
    return entries + [Entry(words, recorded[name]) for name, words in
                      (("head_pose", "head pose alone"), ("prevalence", "same score for every face"))
                      if recorded.get(name) and not (entries and name == "head_pose")]


def differing(runs: list[Records]) -> list[tuple[str, list[str]]]:
    """(setting, its value in each run) of the settings that are not alike in all of them."""
    flat = [_flat(records.config) for records in runs]
    for settings, records in zip(flat, runs, strict=True):
        for name in ("commit", "torch"):
            if (value := find(records.config.get("versions"), name)) is not None:
                settings[name] = str(value)
        if (digest := (records.config.get("fingerprint") or {}).get("train")) is not None:
            settings["training data"] = str(digest)[:12]
    keys = dict.fromkeys(key for settings in flat for key in settings)
    table = [(key, [settings.get(key, "–") for settings in flat]) for key in keys]
    return [(key, values) for key, values in table if len(set(values)) > 1]


def _flat(config: Mapping[str, Any]) -> dict[str, str]:
    """Settings by name, sections opened."""
    found: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, dict) and key not in NOT_COMPARED:
            found |= _flat(value)
        elif key not in NOT_COMPARED:
            long = isinstance(value, list) and all(isinstance(part, float) for part in value)
            found[key] = " ".join(f"{part:.3g}" for part in value) if long else str(value)
    return found
