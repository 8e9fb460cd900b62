"""What preparation left out, counted by rule with clips and reasons: report.json, which people read.

It lies beside index.json, or with the finished clips when preparation stopped because of too many faults. It is made
from what the pieces (data/pieces.py) say of themselves; nothing reads it back.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gazepose.data.index import Index
from gazepose.data.pieces import Piece

REPORT = "report.json"
EXAMPLES = 3                 # clips named per rule, those with most of it
LEFT_OUT = ("record dropped", "row left out", "segment dropped", "track dropped", "file left out")


def write_report(folder: Path, split: str, pieces: Sequence[Piece], bad: Mapping[str, str], max_bad_fraction: float,
                 facts: Mapping[str, Any], stopped: bool) -> Path:
    """Write FOLDER/report.json.

    Args:
        pieces: all of the split, made or not; bad: clip -> why it could not be used.
        facts: what the index is made from (policy, crop size, decoder, ...).

    Returns:
        Its path.
    """
    rules: dict[str, dict[str, int]] = {}                              # rule -> clip -> how often
    made = [piece for piece in pieces if piece.uid not in bad and piece.table.is_file()]
    wanted, rows, told = 0, 0, {}
    for piece in made:
        counts, rows_made, told[piece.uid] = piece.outcome()
        wanted, rows = wanted + piece.rows, rows + rows_made
        for rule, count in counts.items():
            rules.setdefault(rule, {})[piece.uid] = count
    report = {
        "state": "stopped: too many clips cannot be used" if stopped else "prepared", "split": split, **facts,
        "clips": {"listed": len(pieces), "used": len(made), "bad": len(bad), "max_bad_fraction": max_bad_fraction},
        "rows": {"wanted": wanted, "made": rows},
        "bad_clips": dict(bad),
        "cut_short": {uid: said["short"] for uid, said in told.items() if "short" in said},
        "decoded_by_pyav": {uid: said["decoder"] for uid, said in told.items() if "decoder" in said},
        "counts": {rule: {"count": sum(clips.values()), "clips": dict(Counter(clips).most_common(EXAMPLES))}
                   for rule, clips in sorted(rules.items())}}
    path = folder / REPORT
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return path


def skipped(index: Index) -> str:
    """What was left out of an index in half a line, and where to read more; empty where nothing was."""
    bad = len(index.facts.get("bad_clips", ()))
    left = sum(count for rule, count in index.facts.get("counts", {}).items() if rule.startswith(LEFT_OUT))
    parts = [f"{bad} clips"] * bool(bad) + [f"{left} records, rows or tracks"] * bool(left)
    told = next(name for name in (REPORT, "index.json") if (index.folder / name).is_file())   # --crops video has none
    return f"left out: {', '.join(parts)}, see {index.folder / told}" if parts else ""
