"""What preparing or listing left out, counted by rule with clips and reasons: report.json, which people read.

It lies beside index.json, or with the finished clips when preparation stopped because of too many faults. Nothing reads
it back.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gazepose.data.clip_crops import Piece
from gazepose.data.index import Index

REPORT = "report.json"
EXAMPLES = 3                 # clips named per rule, those with most of it
LEFT_OUT = ("record dropped", "row left out", "segment dropped", "track dropped", "file left out")


@dataclass(frozen=True)
class Outcome:
    """What became of the rows of a clip that can be used."""

    wanted: int
    made: int
    counts: Mapping[str, int]
    """rule -> how often it touched a record"""
    told: Mapping[str, str]
    """as of pieces.Piece"""


def outcomes(pieces: Sequence[Piece], bad: Mapping[str, str]) -> dict[str, Outcome]:
    """Clip -> outcome, of the pieces that are made."""
    found = {}
    for piece in pieces:
        if piece.uid not in bad and piece.table.is_file():
            counts, made, told = piece.outcome()
            found[piece.uid] = Outcome(piece.rows, made, counts, told)
    return found


def write_report(folder: Path, split: str, state: str, clips: int, used: Mapping[str, Outcome], bad: Mapping[str, str],
                 max_bad_fraction: float, facts: Mapping[str, Any]) -> Path:
    """Write FOLDER/report.json.

    Args:
        clips: how many the split lists; used: clip -> outcome; bad: clip -> why it could not be used.
        facts: what the index is made from (policy, crop size, decoder, ...).

    Returns:
        Its path.
    """
    rules: dict[str, dict[str, int]] = {}                              # rule -> clip -> how often
    for uid, outcome in used.items():
        for rule, count in outcome.counts.items():
            if count:
                rules.setdefault(rule, {})[uid] = count
    report = {
        "state": state, "split": split, **facts,
        "clips": {"listed": clips, "used": len(used), "bad": len(bad), "max_bad_fraction": max_bad_fraction},
        "rows": {"wanted": sum(outcome.wanted for outcome in used.values()),
                 "made": sum(outcome.made for outcome in used.values())},
        "bad_clips": dict(bad),
        "cut_short": {uid: outcome.told["short"] for uid, outcome in used.items() if "short" in outcome.told},
        "decoded_by_pyav": {uid: outcome.told["decoder"] for uid, outcome in used.items() if "decoder" in outcome.told},
        "counts": {rule: {"count": sum(touched.values()), "clips": dict(Counter(touched).most_common(EXAMPLES))}
                   for rule, touched in sorted(rules.items())}}
    path = folder / REPORT
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return path


def skipped(index: Index) -> str:
    """What was left out of an index in half a line, and where to read more; empty where nothing was."""
    bad = len(index.facts.get("bad_clips", ()))
    left = sum(count for rule, count in index.facts.get("counts", {}).items() if rule.startswith(LEFT_OUT))
    parts = [f"{bad} clips"] * bool(bad) + [f"{left} records, rows or tracks"] * bool(left)
    return f"left out: {', '.join(parts)}, see {index.folder / REPORT}" if parts else ""
