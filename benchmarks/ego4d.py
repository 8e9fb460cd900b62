"""How many cores, how much disk and how many hours Ego4D takes on some GPUs: arithmetic on the results that are there.

A figure that was not measured is taken from the goals, and the text says which.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CROPS = 3_500_000                # face-frames of the training and validation clips, about
CLIPS = 385 + 50                 # training and validation clips of the published lists
MINUTES = 5                      # of a clip
STRIDE, EPOCHS = 3, 10           # the published training


@dataclass(frozen=True)
class Fact:
    """A number, and where it is from."""

    what: str
    value: float | None
    measured: bool
    source: str

    @property
    def words(self) -> str:
        if self.value is None:
            return f"{self.what}: not known ({self.source})"
        return f"{self.what}: {self.value:,.0f} ({self.source})"


def read_result(results: Path, name: str) -> dict[str, Any] | None:
    """The JSON of a benchmark; None where it is not there or was a quick run."""
    path = results / f"{name}.json"
    result = json.loads(path.read_text()) if path.is_file() else None
    return None if result is None or result["quick"] else result


def facts(results: Path) -> dict[str, Fact]:
    """What the estimate rests on, each from a result or else from a goal."""
    found = {name: read_result(results, name) for name in ("gpu", "loader", "prepare", "index")}

    def fact(what: str, name: str, measured: float | None, goal: float | None, words: str) -> Fact:
        if measured is not None:
            result = found[name]
            assert result is not None
            where = result["machine"]["gpu"] if name == "gpu" else result["machine"]["cpu"]
            return Fact(what, measured, True, f"measured: {name}.json, {where}")
        return Fact(what, goal, False, words)

    def figure(name: str, what: str) -> float | None:
        result = found[name]
        return None if result is None else result["measured"].get(what)

    loader, prepare = found["loader"], found["prepare"]
    spent = None if prepare is None else min(
        prepare["seconds_per_minute_of_video"][decoder]["cpu_s"] for decoder in ("decord", "pyav"))
    return {
        "rate": fact("GazePose windows a second and GPU", "gpu",
                     figure("gpu", "GazePose training in bf16 from shards"), 5000, "not measured: goal 8"),
        "fed": fact("windows a core's loader feeds a second", "loader",
                    None if loader is None else 1 / loader["seconds_per_window"]["segments, stride 3"]["cpu_s"],
                    5000 / 4, "not measured: goal 8, 5,000 windows/s from 4 cores"),
        "crop": fact("bytes a crop", "prepare", figure("prepare", "bytes a crop"), 12 * 1024, "not measured: goal 1"),
        "row": fact("bytes a row of the index with all priors", "index",
                    figure("index", "bytes a row with all priors"), 110, "not measured: goal 5"),
        "spent": fact("CPU-seconds a minute of video to prepare", "prepare", spent, None,
                      "not measured, and no goal says it alone"),
    }


def estimate(known: dict[str, Fact], gpus: int, crops: int = CROPS) -> dict[str, float | None]:
    """Hours of training, cores, hours of preparing on these cores, GB on disk."""
    value = {name: fact.value for name, fact in known.items()}
    rate, fed, crop, row = (value[name] or 0.0 for name in ("rate", "fed", "crop", "row"))
    cores = gpus * (1 + math.ceil(rate / fed))                         # one for the training process itself
    spent = value["spent"]
    return {"training": EPOCHS * crops / STRIDE / (gpus * rate) / 3600, "cores": cores,
            "preparing": None if spent is None else CLIPS * MINUTES * spent / cores / 3600,
            "disk": crops * (crop + row) / 1e9}


def section(results: Path, gpus: Sequence[int] = (1, 4, 8)) -> str:
    """The estimate as Markdown."""
    known = facts(results)
    columns = [estimate(known, count) for count in gpus]
    rows = {"hours of training": "training", "CPU cores": "cores", "GB of shards and index": "disk",
            "hours of preparing, once, on these cores": "preparing"}
    lines = ["| " + " | ".join(["", *(f"{count} GPU{'s' if count > 1 else ''}" for count in gpus)]) + " |",
             "|---" * (len(gpus) + 1) + "|"]
    for words, key in rows.items():
        entries = [column[key] for column in columns]
        shown = ["not measured" if entry is None else f"{entry:.0f}" if key in ("cores", "disk") else f"{entry:.1f}"
                 for entry in entries]
        lines.append("| " + " | ".join([words, *shown]) + " |")
    lines += ["", f"For {EPOCHS} epochs of GazePose on every {STRIDE}rd of about {CROPS:,} face-frames out of {CLIPS} "
              f"clips of {MINUTES} minutes. Validation, the videos themselves and the exchange of gradients between "
              "GPUs are not counted: more GPUs are taken to be as many times faster. It rests on:", ""]
    return "\n".join([*lines, *(f"- {fact.words}" for fact in known.values())])
