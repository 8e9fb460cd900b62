"""Tables: a run's results beside the baselines, where it works, its facts; and several runs compared with the first."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from shlex import quote
from typing import Any

import numpy as np

from gazepose.evaluation.comparison import Entry, Row, compare, reason_not_paired
from gazepose.evaluation.metrics import BASELINES, evaluate
from gazepose.report.records import Records, clip_name

CLIPS = 6  # the weakest, and as many of the strongest
FEW = 10  # faces of a class; a clip with fewer is no evidence
NOT_COMPARED = ("exp_path", "command", "root", "head_pose_fit", "face_heights", "versions", "fingerprint",
                "priors_read", "learnt_from", "changes")
Part = tuple[str, np.ndarray]


# ---- one run

@dataclass(frozen=True)
class Result:
    """A line of the table of results."""

    name: str
    metrics: Mapping[str, Any]
    """as `metrics.evaluate`"""
    own: bool = True
    """of the run, not of a baseline"""


def results(records: Records) -> list[Result]:
    """The run's saved predictions, its best and last validation, then the baselines; those that are recorded."""
    rows = []
    if len(records.scores.get("label", ())):
        rows.append(Result(f"this run, saved predictions{' (limited)' if records.limited else ''}",
                           evaluate(records.scores["label"], records.scores["score"])))
    scored = [line for line in records.val if line.get("mAP") is not None]
    if scored:
        best, last = max(scored, key=lambda line: line["mAP"]), scored[-1]
        if best is not last:
            rows.append(Result(f"this run, best of {len(scored)} validations (step {best['step']:,})", best))
        rows.append(Result(f"this run, last validation (step {last['step']:,})", last))
    return rows + [Result(words, records.baselines[name], own=False) for name, words in BASELINES.items()
                   if records.baselines.get(name)]


def facts(records: Records) -> list[tuple[str, str]]:
    """(name, value) of what is recorded of the run; the last line names what is not."""
    both = {"status": records.status, "config": records.config}

    def fact(name: str, form: Callable[[Any], str] = _flat) -> str | None:
        value = find(both, name)
        return None if value is None else form(value)

    values = {"state": fact("state"), "reason": fact("reason"), "command": fact("command")}
    model = records.config.get("model")
    if isinstance(model, dict):
        on = [name for name in ("prior_head", "prior_landmark", "gaze_head") if model.get(name)]
        values["model"] = ", ".join([str(model.get("model", "?")), str(model.get("backbone", "?")), *on])
    if decay := find(records.config, "ema"):
        values["weights"] = f"running average (--ema {decay:g}), which is validated, saved in best/ and scored"
    learnt = records.config.get("learnt_from")
    if isinstance(learnt, dict):
        values["learnt from"] = "; ".join(f"{kind}: {_flat(names)}" for kind, names in learnt.items() if names)
    values |= {"data": fact("root"), "annotation policy": fact("policy"),
               "data fingerprint": fact("fingerprint", _short),
               "world size": fact("world_size", lambda count: f"{count} process{'es' if count != 1 else ''}"),
               "device": fact("device_name") or fact("device"), "mixed precision": fact("mixed_precision"),
               "time": fact("seconds", duration)}
    if find(both, "device") == "cuda" and find(both, "seconds") is not None:
        values["cost"] = f"{find(both, 'seconds') / 3600 * (find(both, 'world_size') or 1):.2f} GPU-hours"
    if (median := speed(records)) is not None:
        waited = records.train["waited"]
        idle = f", {100 * np.nanmean(waited):.0f} % of the time waiting for data" if np.isfinite(waited).any() else ""
        values["speed"] = f"{median:,.0f} windows/s (median of the steps){idle}"
    if records.train:
        values["steps"] = f"{int(records.train['step'][-1]):,}"
    if records.val and records.val[-1].get("gaze_degrees") is not None:
        values["gaze error"] = f"{records.val[-1]['gaze_degrees']:.1f}° (median at the last validation)"
    values["versions"] = fact("versions")
    absent = [name for name in ("command", "world size", "device", "time", "versions") if values[name] is None]
    if absent and (records.config or records.status):
        values["not recorded"] = ", ".join(absent)
    return [(name, value) for name, value in values.items() if value is not None]


def speed(records: Records) -> float | None:
    """Windows per second of all processes together, median of the steps."""
    values = records.train.get("samples_per_s", np.zeros(0))
    return float(np.nanmedian(values)) if np.isfinite(values).any() else None


def find(record: Any, name: str) -> Any:
    """The first value of that name, however deep; None where there is none."""
    if not isinstance(record, dict):
        return None
    if record.get(name) is not None:
        return record[name]
    values = (find(value, name) for value in record.values())
    return next((value for value in values if value is not None), None)


def duration(seconds: float) -> str:
    """Seconds as "2 h 5 min", "3 min 7 s" or "12 s"."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _flat(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_flat(entry)}" for key, entry in value.items() if entry is not None)
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _short(fingerprint: Any) -> str:
    if isinstance(fingerprint, dict):
        return ", ".join(f"{split} {str(digest)[:12]}" for split, digest in fingerprint.items())
    return str(fingerprint)[:12]


# ---- where it works

def slices(records: Records) -> list[tuple[str, list[tuple[str, dict[str, Any], float | None]]]]:
    """(title, [(name, metrics of the model, mAP of head pose alone)]) of every way to part the faces."""
    label, score, alone = records.scores["label"], records.scores["score"], records.head_pose
    return [(title, [(name, evaluate(label[inside], score[inside]),
                      None if alone is None else evaluate(label[inside], alone[inside])["mAP"])
                     for name, inside in parts])
            for title, parts in parts_of(records.scores, records.clips).items()]


def parts_of(scores: Mapping[str, np.ndarray], clips: Sequence[str] = ()) -> dict[str, list[Part]]:
    """Title -> (name, bool [N]): faces by height in pixels, head turn from the line of sight, sharpness, and clip."""
    parts: dict[str, list[Part]] = {}
    if "size" in scores:
        parts["face height"] = [(f"{low:.0f} to {high:.0f} px", inside) for _, low, high, inside in
                                _quarters(scores["size"])]
    if "head_pose" in scores:
        yaw, pitch = np.radians(scores["head_pose"][:, :2].astype(float)).T
        turn = np.degrees(np.arccos(np.clip(np.cos(yaw) * np.cos(pitch), -1, 1)))
        cuts = [("under 15°", turn < 15), ("15° to 30°", (turn >= 15) & (turn < 30)),
                ("30° to 60°", (turn >= 30) & (turn < 60)), ("60° and more", turn >= 60), ("unknown", np.isnan(turn))]
        parts["head turn"] = [(name, inside) for name, inside in cuts if inside.any()]
    if "quality" in scores:
        words = ("blurriest quarter", "second quarter", "third quarter", "sharpest quarter")
        parts["sharpness"] = [(words[k], inside) for k, _, _, inside in _quarters(scores["quality"])]
    if "clip" in scores:
        parts |= _by_clip(scores, tuple(clips))
    return {title: some for title, some in parts.items() if some}


def _quarters(value: np.ndarray) -> list[tuple[int, float, float, np.ndarray]]:
    """(number, lowest, highest, bool [N]) of the quarters of the known values that hold any."""
    known = np.isfinite(value)
    if not known.any():
        return []
    edges = np.quantile(value[known], [0, 0.25, 0.5, 0.75, 1])
    quarter = np.searchsorted(edges[1:4], value, side="left")  # 0..3; NaN sorts last and is cut by `known`
    return [(k, edges[k], edges[k + 1], known & (quarter == k)) for k in range(4) if (known & (quarter == k)).any()]


def _by_clip(scores: Mapping[str, np.ndarray], clips: tuple[str, ...]) -> dict[str, list[Part]]:
    """Clips with enough faces of both classes, the weakest first; of many, those at both ends."""
    label, score = scores["label"], scores["score"]
    numbers, inverse, count = np.unique(scores["clip"], return_inverse=True, return_counts=True)
    looking = np.bincount(inverse, weights=label == 1, minlength=len(numbers))
    enough = np.flatnonzero(np.minimum(looking, count - looking) >= FEW)
    reached = {k: evaluate(label[inverse == k], score[inverse == k])["mAP"] for k in enough.tolist()}
    order, title = sorted(reached, key=lambda k: reached[k]), "clip"
    if len(order) > 2 * CLIPS:
        order, title = order[:CLIPS] + order[-CLIPS:], f"clip (weakest and strongest of {len(order)})"
    return {title: [(clip_name(clips, int(numbers[k])), inverse == k) for k in order]}


# ---- several runs

@dataclass(frozen=True)
class Line:
    """A line of the comparison of runs."""

    name: str
    metrics: Mapping[str, Any]
    """as `metrics.evaluate`; empty where nothing is known"""
    row: Row | None = None
    """with intervals, and the gain on the first run where both scored the same faces"""
    records: Records | None = None
    """None of a baseline"""


def compare_runs(runs: Sequence[Records]) -> tuple[list[Line], list[str]]:
    """One line per run, then the baselines that the first run with any recorded; and sentences on what is missing."""
    names, first, notes, paired = names_of(runs), runs[0], [], []
    rows: dict[str, Row] = {}
    for name, records in zip(names, runs, strict=True):
        if not len(records.scores.get("label", ())):
            continue
        alone = Entry(name, {0: records.scores["score"]})
        if records is first:
            paired.append(alone)
        elif reason := reason_not_comparable(first, records):
            notes.append(f"{name} and {names[0]} cannot be compared: {reason}.")
            rows[name] = compare(records.scores["label"], records.scores.get("clip"), [alone])[0]
        else:
            paired.append(replace(alone, against=names[0]))
    if paired and first.head_pose is not None:
        paired.append(Entry(BASELINES["head_pose"], {0: first.head_pose}, names[0]))
    if paired:
        rows |= {row.name: row for row in compare(first.scores["label"], first.scores.get("clip"), paired)}
    lines = []
    for name, records in zip(names, runs, strict=True):
        own = [result for result in results(records) if result.own]
        lines.append(Line(name, own[0].metrics if own else {}, rows.get(name), records))
        if not own:
            notes.append(f"{name}: no validation result was recorded.")
        elif name not in rows:
            notes.append(f"{name}: no predictions were saved, so the table shows its best validation, without an "
                         f"interval. `python -m gazepose infer --checkpoint {quote(str(records.run))} --split val` "
                         "saves them.")
        if records.limited:
            notes.insert(0, f"{name}: its predictions cover a limited part of the split (--limit).")
    recorded = next((records.baselines for records in runs if records.baselines), {})
    for key, words in BASELINES.items():
        if words in rows:
            lines.append(Line(words, rows[words].results[0], rows[words]))
        elif recorded.get(key):
            lines.append(Line(words, recorded[key]))
    return lines, notes


def names_of(runs: Sequence[Records]) -> list[str]:
    """Folder names, with their parents' where two are alike."""
    paths = [records.run.resolve().parts for records in runs]
    depth = 1
    while len({path[-depth:] for path in paths}) < len(paths) and depth < max(map(len, paths)):
        depth += 1
    return ["/".join(path[-depth:]) for path in paths]


def reason_not_comparable(first: Records, other: Records) -> str:
    """Why two runs' saved scores are not of the same faces; empty where they are."""
    digests = [(records.config.get("fingerprint") or {}).get("val") for records in (first, other)]
    if all(digests) and digests[0] != digests[1]:
        return "their validation data differ (fingerprint)"
    if not len(first.scores.get("row", ())):
        return f"{first.name} has no saved predictions"
    reason = reason_not_paired(first.scores, other.scores)
    return f"they {reason}" if reason else ""


def differing(runs: Sequence[Records]) -> list[tuple[str, list[str]]]:
    """(setting, its value in each run) of the settings that are not alike in all of them."""
    settings = [_settings(records.config) for records in runs]
    for own, records in zip(settings, runs, strict=True):
        for name in ("commit", "torch"):
            if (value := find(records.config.get("versions"), name)) is not None:
                own[name] = str(value)
        if (digest := (records.config.get("fingerprint") or {}).get("train")) is not None:
            own["training data"] = str(digest)[:12]
    keys = dict.fromkeys(key for own in settings for key in own)
    table = [(key, [own.get(key, "–") for own in settings]) for key in keys]
    return [(key, values) for key, values in table if len(set(values)) > 1]


def _settings(config: Mapping[str, Any]) -> dict[str, str]:
    """Settings by name, sections opened."""
    flat: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, dict) and key not in NOT_COMPARED:
            flat |= _settings(value)
        elif key not in NOT_COMPARED:
            numbers = isinstance(value, list) and all(isinstance(part, float) for part in value)
            flat[key] = " ".join(f"{part:.3g}" for part in value) if numbers else str(value)
    return flat
