"""The doctor's facts as something to read: nothing is measured or judged here."""

import textwrap
from collections.abc import Sequence
from typing import Any

from gazepose.data.prepare import FOLDERS
from gazepose.doctor.checks import Place

WIDTH = 118
LEVELS = {"must": "MUST BE MENDED", "look": "WORTH A LOOK (faces are lost or doubtful)",
          "note": "GOOD TO KNOW (the policies deal with it)"}
RULES = {
    "drop_frame_zero": "records of frame 0 are dropped", "drop_outside": "faces outside the picture are dropped",
    "negative_corner": "x or y below 0: the box is moved or cut", "max_gap": "longest gap that is filled, frames",
    "keep_repeats": "repeated frame numbers are kept", "honour_flags": "suspect tracks, unmapped frames are left out",
    "end_inclusive": "the end frame of a segment is looking", "empty_is_negative": "no segments: all negative, "
    "not left out", "wearer": "the wearer: first of the list or by flag", "first_number": "number of the first picture"}


def as_text(facts: dict[str, Any]) -> str:
    """The whole report; it ends with what to do."""
    trained = {split: facts["splits"][split] for split in ("train", "val") if facts["splits"][split]["annotated"]}
    source = FOLDERS[facts["crops_from"]]
    parts = [f"Data set  {facts['data']}" + (f"  (crops from {source}/)" if source != "videos" else ""),
             _overview(facts, trained)]
    parts += [_level(facts, level) for level in LEVELS]
    if trained:
        parts += [_rules(trained), _difference(trained), _faces(trained)]
    parts += [_tables(facts), _remedies(facts)]
    return "\n\n".join(part for part in parts if part)


def _overview(facts: dict[str, Any], trained: dict[str, Any]) -> str:
    rows = []
    for split, known in trained.items():
        clean = known["policies"]["clean"]
        rows.append([split, known["listed"] if known["listed"] is not None else "no list", known["annotated"],
                     clean["clips"], known["persons"], clean["tracks"], clean["rows"], clean["rows_with_picture"],
                     clean["looking"], _percent(clean["rate"])])
    test = facts["splits"]["test"]
    if test:
        rows.append(["test", "", "", test["videos"], "", test["tracks"], test["crops"], "", "", "hidden"])
    if not rows:
        return ""
    head = ["", "clips listed", "annotated", "with faces", "persons", "tracks", "faces", "with a picture", "looking",
            "looking rate"]
    note = ("A face is one person in one frame, under the policy clean; tracks are counted after long gaps split them."
            if trained else "A face is one crop.")
    return f"{_table(head, rows)}\n{note}"


def _level(facts: dict[str, Any], level: str) -> str:
    lines = []
    listed = sum(facts["splits"][split]["listed"] or 0 for split in ("train", "val"))
    for found in (found for found in facts["findings"].values() if found["level"] == level):
        lines += _found(found["title"], found, listed)
    if level == "note":
        for split in ("train", "val"):
            for name, states in facts["splits"][split]["collections"].items():
                for state, found in states.items():
                    lines += _found(f"{split}: `{name}` {'is ' if state != 'missing' else ''}{state}", found, listed)
    return "\n".join([LEVELS[level], *(lines or ["  nothing"])])


def _found(title: str, found: dict[str, Any], listed: int) -> list[str]:
    """A finding with its examples; of a listing kind every clip, unless it is all clips there are."""
    clips = [clip for clip in found.get("clips", ()) if clip]
    if len(clips) > 1 and len(clips) == listed:
        return [f"  {found['count']:>8,}  {title}: of every listed clip, {clips[0]} first"]
    lines = [f"  {found['count']:>8,}  {title}"]
    shown = [_where(place) for place in found["examples"]]
    lines += [f"            {where}" for where in shown if where]
    if len(clips) > len(shown):
        lines += textwrap.wrap("all clips: " + " ".join(clips), WIDTH, initial_indent=" " * 12,
                               subsequent_indent=" " * 12, break_long_words=False, break_on_hyphens=False)
    elif found["count"] > len(shown):
        lines.append(f"            and {found['count'] - len(shown):,} more" if len(shown) else "")
    return [line for line in lines if line]


def _rules(trained: dict[str, Any]) -> str:
    names = sorted({rule for known in trained.values() for preset in known["policies"].values()
                    for rule in preset["rules"]})
    rows = []
    for rule in names:
        entries = [known["policies"][preset]["rules"].get(rule) for known in trained.values()
                   for preset in ("baseline", "clean")]
        first = next(entry for entry in entries if entry)["examples"][0]
        rows.append([rule, *(entry["count"] if entry else "-" for entry in entries), _where(first)])
    head = ["rule", *(f"{split} {preset}" for split in trained for preset in ("baseline", "clean")), "for example"]
    title = "WHAT THE POLICIES' RULES TOUCH (as `prepare` counts; baseline: as published, clean: for training)"
    return f"{title}\n{_table(head, rows, last_left=True) if rows else '  nothing'}"


def _difference(trained: dict[str, Any]) -> str:
    rows: list[list[Any]] = []
    for title, value in (
            ("faces, baseline", lambda known: known["policies"]["baseline"]["rows"]),
            ("faces, clean", lambda known: known["policies"]["clean"]["rows"]),
            ("in both", lambda known: known["difference"]["both"]),
            ("in baseline only", lambda known: known["difference"]["baseline_only"]),
            ("in clean only", lambda known: known["difference"]["clean_only"]),
            ("in both, with another label", lambda known: known["difference"]["other_label"]),
            ("in both, with another box", lambda known: known["difference"]["other_box"]),
            ("looking, baseline", lambda known: _percent(known["policies"]["baseline"]["rate"])),
            ("looking, clean", lambda known: _percent(known["policies"]["clean"]["rate"]))):
        rows.append([title, *(value(known) for known in trained.values())])
    text = ["HOW THE TWO POLICIES DIFFER", _table(["", *trained], rows), "",
            "  What each rule alone would change: clean, with this one rule as in baseline (their effects overlap)"]
    rules = [[RULES.get(rule, rule), _setting(change["baseline"]), _setting(change["clean"]),
              *(cell for known in trained.values() for cell in (
                  _signed(known["difference"]["rules"][rule]["rows"]),
                  _signed(known["difference"]["rules"][rule]["looking"])))]
             for rule, change in next(iter(trained.values()))["difference"]["rules"].items()]
    head = ["rule", "baseline", "clean", *(f"{split} {what}" for split in trained for what in ("faces", "looking"))]
    return "\n".join([*text, _table(head, rules)])


def _faces(trained: dict[str, Any]) -> str:
    first = next(iter(trained.values()))
    names = list(next((known["face_size"]["pixels"] for known in trained.values() if known["face_size"]["pixels"]), {}))
    sizes = [[split, *(f"{(known['face_size']['pixels'] or {}).get(name, 0):.0f}" for name in names),
              known["face_size"]["small"]] for split, known in trained.items()]
    lengths = list(first["gaps"]["by_length"])
    missing = [[split, known["gaps"]["count"], known["gaps"]["frames"],
                *(known["gaps"]["by_length"][length] for length in lengths), _longest(known["gaps"]["longest"])]
               for split, known in trained.items()]
    return "\n".join([
        "FACE SIZES (shorter side of the annotated box, pixels)",
        _table(["", *names, f"under {first['face_size']['limit']}"], sizes), "",
        "GAPS IN TRACKS (runs of frames without a usable record)",
        _table(["", "gaps", "frames", *(f"of {length}" for length in lengths), "longest"], missing, last_left=True)])


def _tables(facts: dict[str, Any]) -> str:
    rows = []
    for split, kinds in facts["tables"].items():
        for kind, table in kinds.items():
            if table:
                rows += [[f"{kind}/{split}.npz", name, table["rows"], table["joined"], column["known"],
                          column["faces"], _percent(column["coverage"])] for name, column in table["columns"].items()]
    head = ["table", "column", "rows", "of a face", "known", "faces (clean)", "covered"]
    return f"PRIORS\n{_table(head, rows, left=2)}" if rows else ""


def _remedies(facts: dict[str, Any]) -> str:
    lines = ["WHAT TO DO"]
    for number, step in enumerate(facts["remedies"], 1):
        found = facts["findings"].get(step["finding"])
        title = f"{found['title']} ({found['count']:,}): " if found else ""
        lines += textwrap.wrap(f"{title}{step['do']}", WIDTH, initial_indent=f"  {number:>2}. "
                               f"{'MUST  ' if step['level'] == 'must' else ''}", subsequent_indent=" " * 6,
                               break_long_words=False, break_on_hyphens=False)
    must = sum(step["level"] == "must" for step in facts["remedies"])
    if must:
        lines.append(f"{must} of these must be mended before training or a submission can be trusted.")
    elif facts["remedies"]:
        lines.append("Nothing hinders training; these are worth a look.")
    else:
        lines.append("  nothing: the data set is ready for training.")
    return "\n".join(lines)


def _where(place: Place) -> str:
    parts = [f"{name} {place[name]}" for name in ("clip", "track", "frame") if place.get(name) is not None]
    if place.get("file"):
        parts.insert(0, str(place["file"]))
    elif place.get("split") and not place.get("clip"):
        parts.insert(0, str(place["split"]))
    text = " ".join(parts) + (f": {place['detail']}" if place.get("detail") else "")
    return text if len(text) <= 300 else text[:297] + "..."


def _longest(longest: dict[str, Any]) -> str:
    return f"{longest['length']} after {_where(longest)}" if longest["length"] else "-"


def _setting(value: Any) -> str:
    return {True: "yes", False: "no", None: "any"}.get(value, str(value)) if not isinstance(value, int) or isinstance(
        value, bool) else str(value)


def _signed(number: int) -> str:
    return f"{number:+,}" if number else "0"


def _percent(rate: float | None) -> str:
    return "-" if rate is None else f"{100 * rate:.1f} %"


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]], last_left: bool = False, left: int = 1) -> str:
    """Columns as wide as they need; the first `left` (and the last, if asked) to the left, numbers to the right."""
    cells = [list(head)] + [[f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row] for row in rows]
    width = [max(len(row[column]) for row in cells) for column in range(len(head))]
    lines = []
    for row in cells:
        line = "  ".join(cell.ljust(width[column]) if column < left or last_left and column == len(head) - 1
                         else cell.rjust(width[column]) for column, cell in enumerate(row))
        lines.append(f"  {line}".rstrip())
    return "\n".join(lines)
