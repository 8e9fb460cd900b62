"""The doctor's facts as a report to read: nothing is measured or judged here."""

import textwrap
from typing import Any

from gazepose.data.prepare import FOLDERS
from gazepose.doctor.checks import Place

WIDTH = 118
LEVELS = {"must": "MUST BE REPAIRED", "look": "WORTH A LOOK (faces are lost or doubtful)",
          "note": "GOOD TO KNOW (the policies handle it)"}
DIFFERENCE = {"both": "in both", "baseline_only": "in baseline only", "clean_only": "in clean only",
              "other_label": "in both, with another label", "other_box": "in both, with another box"}


def as_text(facts: dict[str, Any]) -> str:
    """The whole report; it ends with what to do."""
    trained = {split: facts["splits"][split] for split in ("train", "val") if facts["splits"][split]["annotated"]}
    source = FOLDERS[facts["crops_from"]]
    parts = [f"Data set  {facts['data']}" + (f"  (crops from {source}/)" if source != "videos" else ""),
             _overview(facts["splits"]["test"], trained)]
    listed = sum(facts["splits"][split]["listed"] or 0 for split in ("train", "val"))
    for level, title in LEVELS.items():
        lines = [line for finding in facts["findings"].values() if finding["level"] == level
                 for line in _finding(finding, listed)]
        parts.append("\n".join([title, *(lines or ["  nothing"])]))
    if trained:
        parts += [_policies(trained), _faces(trained)]
    parts += [_priors(facts["tables"], facts["prepared"]), _remedies(facts)]
    return "\n\n".join(part for part in parts if part)


def _overview(test: dict[str, Any], trained: dict[str, Any]) -> str:
    rows = {}
    for split, summary in trained.items():
        clean = summary["policies"]["clean"]
        rows[split] = {"clips listed": "no list" if summary["listed"] is None else summary["listed"],
                       "annotated": summary["annotated"], "with faces": clean["clips"], "persons": summary["persons"],
                       "tracks": clean["tracks"], "faces": clean["rows"], "with a picture": clean["rows_with_picture"],
                       "looking": clean["looking"], "looking rate": _percent(clean["rate"])}
    if test:
        rows["test"] = {"with faces": test["videos"], "tracks": test["tracks"], "faces": test["crops"],
                        "looking rate": "hidden"}
    note = ("A face is one person in one frame, under the policy clean; tracks are counted after long gaps split them."
            if trained else "A face is one crop.")
    return f"{_table(rows)}\n{note}" if rows else ""


def _finding(finding: dict[str, Any], listed: int) -> list[str]:
    """A finding with its parts and examples; of a listing kind every clip, unless it is all clips there are."""
    clips = [clip for clip in finding.get("clips", ()) if clip]
    title = f"  {finding['count']:>8,}  {finding['title']}"
    if len(clips) > 1 and len(clips) == listed:
        return [f"{title}: of every listed clip, {clips[0]} first"]
    lines = [title]
    if len(finding["parts"]) > 1:
        lines.append(" " * 12 + ", ".join(f"{part}: {count:,}" for part, count in finding["parts"].items()))
    examples = [where for where in map(_where, finding["examples"]) if where]
    lines += [" " * 12 + where for where in examples]
    if len(clips) > len(examples):
        lines += _wrapped("all clips: " + " ".join(clips), " " * 12, 12)
    elif examples and finding["count"] > len(examples):
        lines.append(f"            and {finding['count'] - len(examples):,} more")
    return lines


def _policies(trained: dict[str, Any]) -> str:
    """What the rules touched under either policy, and how the rows differ."""
    rules: dict[str, dict[str, Any]] = {}
    columns = [(f"{split} {policy}", summary["policies"][policy]) for split, summary in trained.items()
               for policy in ("baseline", "clean")]
    for rule in sorted({rule for _, policy in columns for rule in policy["rules"]}):
        entries = {column: policy["rules"].get(rule) for column, policy in columns}
        rules[rule] = {column: entry["count"] if entry else "-" for column, entry in entries.items()}
        rules[rule]["for example"] = _where(next(entry for entry in entries.values() if entry)["examples"][0])
    rows: dict[str, dict[str, Any]] = {}
    for split, summary in trained.items():
        policies, difference = summary["policies"], summary["difference"]
        values = {**{f"faces, {name}": policies[name]["rows"] for name in ("baseline", "clean")},
                  **{title: difference[name] for name, title in DIFFERENCE.items()},
                  **{f"looking, {name}": _percent(policies[name]["rate"]) for name in ("baseline", "clean")}}
        for title, value in values.items():
            rows.setdefault(title, {})[split] = value
    return "\n".join(["WHAT THE POLICIES' RULES TOUCH (as `prepare` counts; baseline: as published, clean: for "
                      "training)", _table(rules), "", "HOW THE TWO POLICIES DIFFER", _table(rows)])


def _faces(trained: dict[str, Any]) -> str:
    sizes, gaps = {}, {}
    for split, summary in trained.items():
        size, gap, longest = summary["face_size"], summary["gaps"], summary["gaps"]["longest"]
        sizes[split] = {**{name: f"{value:.0f}" for name, value in (size["pixels"] or {}).items()},
                        f"under {size['limit']}": size["small"]}
        gaps[split] = {"gaps": gap["count"], "frames": gap["frames"],
                       **{f"of {length}": number for length, number in gap["by_length"].items()},
                       "longest": f"{longest['length']} after {_where(longest)}" if longest["length"] else "-"}
    return "\n".join(["FACE SIZES (shorter side of the annotated box, pixels)", _table(sizes), "",
                      "GAPS IN TRACKS (runs of frames without a usable record)", _table(gaps)])


def _priors(tables: dict[str, Any], prepared: list[dict[str, Any]]) -> str:
    rows = {f"{kind}/{split}.npz {name}": {
        "rows": table["rows"], "of a face": table["joined"], "known": column["known"], "faces (clean)": column["faces"],
        "covered": _percent(column["coverage"])} for split, kinds in tables.items() for kind, table in kinds.items()
        if table for name, column in table["columns"].items()}
    rows |= {f"{entry['folder']} {name}": {"rows": entry["rows"], "known": known}
             for entry in prepared for name, known in entry["priors"].items()}
    return f"PRIORS\n{_table(rows)}" if rows else ""


def _remedies(facts: dict[str, Any]) -> str:
    lines = ["WHAT TO DO"]
    for number, step in enumerate(facts["remedies"], 1):
        finding = facts["findings"].get(step["finding"])
        title = f"{finding['title']} ({finding['count']:,}): " if finding else ""
        lines += _wrapped(f"{title}{step['do']}", f"  {number:>2}. {'MUST  ' if step['level'] == 'must' else ''}", 6)
    must = sum(step["level"] == "must" for step in facts["remedies"])
    if must:
        lines.append(f"{must} of these must be repaired before training or a submission can be trusted.")
    elif facts["remedies"]:
        lines.append("Nothing prevents training; these are worth a look.")
    else:
        lines.append("  nothing: the data set is ready for training.")
    return "\n".join(lines)


def _where(place: Place) -> str:
    parts = [f"{name} {place[name]}" for name in ("clip", "track", "frame") if place.get(name) is not None]
    if place.get("file"):
        parts.insert(0, str(place["file"]))
    elif place.get("split") and not place.get("clip"):
        parts.insert(0, str(place["split"]))
    text = ": ".join(part for part in (" ".join(parts), place.get("what"), place.get("detail")) if part)
    return text if len(text) <= 300 else text[:297] + "..."


def _wrapped(text: str, first: str, indent: int) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=first, subsequent_indent=" " * indent, break_long_words=False,
                         break_on_hyphens=False)


def _percent(rate: float | None) -> str:
    return "-" if rate is None else f"{100 * rate:.1f} %"


def _table(rows: dict[str, dict[str, Any]]) -> str:
    """Rows by name, their cells by column; numbers to the right, names and places to the left."""
    import pandas as pd
    if not rows:
        return "  nothing"
    table = pd.DataFrame.from_dict({name: {column: f"{cell:,}" if isinstance(cell, int) else str(cell)
                                           for column, cell in row.items()} for name, row in rows.items()}, "index")
    table = table.fillna("")
    for column in {"for example", "longest"} & {*table}:
        width = max(table[column].str.len().max(), len(column))
        table[column] = table[column].str.ljust(width)
        table = table.rename(columns={column: column.ljust(width)})
    width_of = {column: len(column) + 1 for column in table}           # two spaces between columns: names have one
    return "\n".join(f"  {line}".rstrip() for line in table.to_string(col_space=width_of).splitlines())
