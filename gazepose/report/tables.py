"""Tables: the run's results beside the baselines, and the facts under which they were made; words and numbers only."""

from collections.abc import Callable
from typing import Any

import numpy as np

from gazepose.evaluation.metrics import evaluate
from gazepose.report.records import Records


def results(records: Records) -> list[tuple[str, dict[str, Any]]]:
    """Rows of the table of results, the run's own first; their names begin with "this run"."""
    rows: list[tuple[str, dict[str, Any]]] = []
    if len(records.scores.get("label", ())):
        limited = " (limited)" if records.limited else ""
        rows.append((f"this run, saved predictions{limited}",
                     evaluate(records.scores["label"], records.scores["score"])))
    scored = [line for line in records.val if line.get("mAP") is not None]
    if scored:
        best = max(scored, key=lambda line: line["mAP"])
        if best is not scored[-1]:
            rows.append((f"this run, best of {len(scored)} validations (step {best['step']:,})", best))
        rows.append((f"this run, last validation (step {scored[-1]['step']:,})", scored[-1]))
    names = {"head_pose": "head pose alone (no picture)", "prevalence": "same score for every face"}
    baselines = records.baselines
    return rows + [(words, baselines[name]) for name, words in names.items() if baselines.get(name)]


def facts(records: Records) -> list[tuple[str, str]]:
    """(name, value) of what is recorded; the last one names what is not."""
    both = {"status": records.status, "config": records.config}
    found: list[tuple[str, str]] = []
    absent: list[str] = []

    def fact(title: str, name: str, form: Callable[[Any], str] = _flat, expected: bool = False) -> None:
        value = find(both, name)
        if value is not None:
            found.append((title, form(value)))
        elif expected:
            absent.append(title)

    fact("state", "state")
    fact("reason", "reason")
    fact("command", "command", expected=True)
    model = records.config.get("model")
    if isinstance(model, dict):
        on = [name for name in ("prior_head", "prior_landmark", "gaze_head") if model.get(name)]
        found.append(("model", ", ".join([str(model.get("model", "?")), str(model.get("backbone", "?")), *on])))
    fact("data", "root")
    fact("annotation policy", "policy")
    fact("data fingerprint", "fingerprint", _short)
    fact("world size", "world_size", lambda count: f"{count} process{'es' if count != 1 else ''}", expected=True)
    fact("device", "device_name" if find(both, "device_name") else "device", expected=True)
    fact("mixed precision", "mixed_precision")
    fact("time", "seconds", duration, expected=True)
    if find(both, "device") == "cuda" and find(both, "seconds") is not None:
        found.append(("cost", f"{find(both, 'seconds') / 3600 * (find(both, 'world_size') or 1):.2f} GPU-hours"))
    if (median := speed(records)) is not None:
        waited = records.train["waited"]
        idle = f", {100 * np.nanmean(waited):.0f} % of the time waiting for data" if np.isfinite(waited).any() else ""
        found.append(("speed", f"{median:,.0f} windows/s (median of the steps){idle}"))
    if records.train:
        found.append(("steps", f"{int(records.train['step'][-1]):,}"))
    if records.val and records.val[-1].get("gaze_degrees") is not None:
        found.append(("gaze", f"{records.val[-1]['gaze_degrees']:.1f}° off at the last validation"))
    fact("versions", "versions", expected=True)
    if absent and (records.config or records.status):
        found.append(("not recorded", ", ".join(absent)))
    return found


def speed(records: Records) -> float | None:
    """Windows per second of all processes together, median of the steps."""
    values = records.train.get("samples_per_s", np.zeros(0))
    return float(np.nanmedian(values)) if np.isfinite(values).any() else None


def find(record: Any, name: str) -> Any:
    """The first value of that name, however deep; None where there is none."""
    if isinstance(record, dict):
        if record.get(name) is not None:
            return record[name]
        return next((found for value in record.values() if (found := find(value, name)) is not None), None)
    return None


def _flat(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_flat(entry)}" for key, entry in value.items() if entry is not None)
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _short(fingerprint: Any) -> str:
    if isinstance(fingerprint, dict):
        return ", ".join(f"{split} {str(digest)[:12]}" for split, digest in fingerprint.items())
    return str(fingerprint)[:12]


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
