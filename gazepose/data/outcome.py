"""What became of the clips of a split: what was left out, and why, in a line and in report.json."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gazepose.data.clip_files import ClipCrops, ClipRows
from gazepose.data.index import Index
from gazepose.io import write_json
from gazepose.text import counted

REPORT = "report.json"       # for people; nothing reads it back
EXAMPLES = 3                 # of clips or files that a message or the report names
LEFT_OUT = ("record dropped", "row left out", "segment dropped", "track dropped", "file left out")


def some(names: list[str]) -> str:
    """The first names, and how many there are beside."""
    return ", ".join(names[:EXAMPLES]) + (f" and {len(names) - EXAMPLES} more" if len(names) > EXAMPLES else "")


class Outcome:
    """What became of the clips of a split; the same on every rank.

    Args:
        bad: clip -> why it cannot be used. facts: the split, and settings and sources of the index.

    Raises:
        RuntimeError: a clip was neither cut nor refused, so the processes do not see one disk.
    """

    def __init__(self, clips: list[ClipCrops], bad: Mapping[str, str], facts: Mapping[str, Any],
                 max_bad_fraction: float) -> None:
        self.clips, self.facts, self.max_bad_fraction = clips, facts, max_bad_fraction
        self.bad = {clip.uid: bad[clip.uid] for clip in clips if clip.uid in bad}
        self.used = [clip for clip in clips if clip.uid not in bad]
        if missing := [clip.uid for clip in self.used if not clip.table.is_file()]:
            raise RuntimeError(f"{clips[0].path.parent}: {counted(len(missing), 'clip')} not cut, {missing[0]} first "
                               "-> the processes do not see one disk: give --data_disk local where each machine has "
                               "its own; finished clips are kept")
        self.rows: dict[str, ClipRows] = {clip.uid: clip.rows(columns=False) for clip in self.used}
        self.counts = sum((rows.counts for rows in self.rows.values()), Counter())

    def noted(self, what: str) -> dict[str, str]:
        """Clip -> its note of that name."""
        return {uid: rows.notes[what] for uid, rows in self.rows.items() if what in rows.notes}

    def check(self, folder: Path, details: str) -> None:
        """Raises ValueError: too many clips are bad or cut short, or no clip has a row."""
        check_bad_clips(folder, {**self.bad, **self.noted("short")}, len(self.clips), self.max_bad_fraction, details)
        if not any(rows.sizes.sum() for rows in self.rows.values()):
            reasons = "; ".join(f"{rule}: {count}" for rule, count in self.counts.most_common(5))
            raise ValueError(f"{folder}: the split is empty, none of its {counted(len(self.clips), 'clip')} has a "
                             "usable face "
                             f"({reasons or 'no record at all'}) -> check that split list and annotations belong "
                             "together, or try the other policy")

    def write(self, folder: Path, state: str) -> None:
        """Write FOLDER/report.json."""
        touched: dict[str, Counter[str]] = {}                          # rule -> clip -> how often
        for uid, rows in self.rows.items():
            for rule, count in rows.counts.items():
                touched.setdefault(rule, Counter())[uid] = count
        write_json(folder / REPORT, {
            "state": state, **self.facts,
            "clips": {"listed": len(self.clips), "used": len(self.used), "bad": len(self.bad),
                      "max_bad_fraction": self.max_bad_fraction},
            "rows": {"wanted": sum(clip.faces for clip in self.used),
                     "made": sum(int(rows.sizes.sum()) for rows in self.rows.values())},
            "bad_clips": self.bad, "cut_short": self.noted("short"), "decoded_by_pyav": self.noted("decoder"),
            "counts": {rule: {"count": clips.total(), "clips": dict(clips.most_common(EXAMPLES))}
                       for rule, clips in sorted(touched.items())}})


def check_bad_clips(folder: Path, bad: Mapping[str, str], clips: int, most: float, details: str) -> None:
    """Raises ValueError with the first reasons: more than the fraction `most` of the clips cannot be used."""
    if len(bad) > most * clips:
        reasons = "\n  ".join(list(bad.values())[:5])
        raise ValueError(f"{folder}: {len(bad)} of {counted(clips, 'clip')} cannot be used, more than {most:.1%}:\n  "
                         f"{reasons}\n-> add the missing files, remove the clips from the split list, or continue "
                         f"without them by a larger --max_bad_fraction; {details}")


def skipped(index: Index) -> str:
    """What was left out of an index in half a line, and where to read more; empty where nothing was."""
    bad = len(index.facts.get("bad_clips", ()))
    dropped = sum(count for rule, count in index.facts.get("counts", {}).items() if rule.startswith(LEFT_OUT))
    parts = [counted(bad, "clip")] * bool(bad)
    parts += [counted(dropped, "record, row or track", "records, rows or tracks")] * bool(dropped)
    return f"left out: {', '.join(parts)}, see {index.folder / REPORT}" if parts else ""


def summary(index: Index, before: Index | None, seconds: float) -> str:
    facts, size = index.facts, int(index.length.sum(dtype=np.int64))
    where = f"{size / 1e6:.1f} MB" if index.corners is None else "cut while they are used"
    counts = "; ".join(f"{rule}: {count}" for rule, count in facts["counts"].items())
    tracks, clips = counted(len(index.track_name), "track"), counted(len(index.clips), "clip")
    left_out = skipped(index)
    decoders = facts.get("decoders") or []
    where += f", read by {' and '.join(decoders)}" if decoders else ""
    again = ""
    if before is not None:
        old = {shard["file"] for shard in before.contents["shards"]}
        new = sum(shard["file"] not in old for shard in index.contents["shards"])
        again = f", {new} of them made again"
    return (f"prepared {facts['split']} ({facts['policy']}, {facts['crop_size']} px): {counted(len(index), 'crop')} of "
            f"{tracks} in {clips}{again}, {where}, {seconds:.0f} s"
            + (f"; {left_out}" if left_out else "") + (f". {counts}" if counts else ""))
