"""What `agree` writes: agreement.csv, timeline.csv, and agreement.html with who looked when.

The page is one file without scripts, for light and dark, and needs no network.
"""

import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from gazepose.evaluation.comparison import markdown
from gazepose.io import writing
from gazepose.text import counted, printable
from gazepose.watch.agree import MEASURES, STATES, Agreement, Unit, measures
from gazepose.watch.tables import write_table

EVERYBODY = "all"
COUNTS = ("videos", "people", "looks_mine", "looks_theirs", "looks_left_out")
AMOUNTS = ("seconds_mine", "seconds_theirs", "seconds_codable", "seconds_not_codable_mine",
           "seconds_not_codable_theirs")
AGREEMENT = {"person": "str", **dict.fromkeys(COUNTS, "int64"), **dict.fromkeys(AMOUNTS, "float64"),
             **{f"{name}{end}": "float64" for name in MEASURES for end in ("", "_low", "_high")}}
"""Columns of agreement.csv: a row for everybody, then one for each person. people: persons of videos."""
TIMELINE = {"video": "str", "person": "str", "start": "float64", "end": "float64", "state": "str"}
"""Columns of timeline.csv: who looked when; state is one of agree.STATES."""
BARS: dict[str, tuple[str, float, float]] = dict(zip(STATES, (
    ("both", 0, 1), ("nobody", 0, 1), ("mine", 0, .5), ("theirs", .5, .5), ("hidden", .4, .2)), strict=True))
"""state -> class, top and height of its bar, so that states differ without their colours too"""
STYLE = """
:root { --paper: #fff; --ink: #1d2327; --muted: #5d676f; --both: #0b7a75; --nobody: #dfe4e7; --mine: #c2511a;
  --theirs: #5a54c9; --hidden: #aab2b8; }
@media (prefers-color-scheme: dark) { :root { --paper: #121619; --ink: #e8ecef; --muted: #98a3ab; --both: #45c7bd;
  --nobody: #2b3237; --mine: #f0894f; --theirs: #a29bff; --hidden: #59636a; } }
body { background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto;
  max-width: 60rem; padding: 0 1rem; }
table { border-collapse: collapse; display: block; overflow-x: auto; } th, td { padding: .2rem .7rem; text-align: left;
  border-bottom: 1px solid var(--nobody); white-space: nowrap; }
svg { width: 100%; height: 2.2rem; display: block; } .hidden { fill: var(--hidden); } p, .key { color: var(--muted); }
.both { fill: var(--both); } .nobody { fill: var(--nobody); } .mine { fill: var(--mine); }
.theirs { fill: var(--theirs); } h3 { margin: 1rem 0 0; font-size: 1rem; } .key svg { width: 1rem; height: 1rem;
  display: inline; vertical-align: -2px; margin-left: 1rem; }
"""


def write(folder: Path, agreement: Agreement) -> str:
    """Write the three files into a folder, each atomically; returns the text for the terminal."""
    import pandas as pd
    units = agreement.units
    people = list(dict.fromkeys(unit.person for unit in units))
    rows = [{"person": EVERYBODY, **measures(units)}]
    if len(people) > 1:
        rows += [{"person": person, **measures([unit for unit in units if unit.person == person])}
                 for person in people]
    write_table(folder / "agreement.csv", pd.DataFrame(rows), AGREEMENT)
    states = [(unit.video, unit.person, *state) for unit in units for state in unit.states]
    write_table(folder / "timeline.csv", pd.DataFrame(states, columns=list(TIMELINE)), TIMELINE)
    with writing(folder / "agreement.html") as file:
        file.write(_page(rows, units, agreement.remarks))
    head, cells = _cells(rows)
    return printable("\n".join([markdown(head, cells), "", *_amounts(rows[0]), *agreement.remarks]))


def _cells(rows: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    head = ["person", *(words for words, _ in MEASURES.values()), "looks, mine / theirs", "s looking", "s codable"]
    return head, [[row["person"], *(_number(row, name) for name in MEASURES),
                   f"{row['looks_mine']} / {row['looks_theirs']}",
                   f"{row['seconds_mine']:.1f} / {row['seconds_theirs']:.1f}", f"{row['seconds_codable']:.1f}"]
                  for row in rows]


def _number(row: dict[str, Any], name: str) -> str:
    """.83 [.71, .90]; a dash where it is not defined."""
    if math.isnan(row[name]):
        return "–"
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return f"{row[name]:.2f}" + ("" if math.isnan(low) else f" [{low:.2f}, {high:.2f}]")


def _amounts(row: dict[str, Any]) -> list[str]:
    """What was compared and what was left out, in words."""
    lines = [f"{counted(row['people'], 'person', 'people')} of {counted(row['videos'], 'video')}; "
             f"{row['seconds_codable']:.1f} s compared. Left out: "
             f"{row['seconds_not_codable_mine']:.1f} s not codable in MINE, "
             f"{row['seconds_not_codable_theirs']:.1f} s in THEIRS, with {counted(row['looks_left_out'], 'look')}."]
    if math.isnan(row["kappa_frames_low"]):
        lines.append("Intervals are over videos and need five of them." if row["videos"] < 5 else
                     "No interval of kappa: it is not defined in most draws of the videos.")
    return lines


def _page(rows: Sequence[dict[str, Any]], units: Sequence[Unit], remarks: Sequence[str]) -> str:
    def text(words: object) -> str:
        return escape(printable(words))

    head, cells = _cells(rows)
    parts = ["<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>",
             f"<title>Agreement</title><style>{STYLE}</style><h1>Agreement</h1>",
             "<table><tr>", *(f"<th>{text(name)}" for name in head)]
    for line in cells:
        parts += ["<tr>", *(f"<td>{text(cell)}" for cell in line)]
    parts += ["</table>", *(f"<p>{text(line)}</p>" for line in [*_amounts(rows[0]), *remarks]), "<p class=key>"]
    parts += [f"<svg viewBox='0 0 1 1'><rect y={top} width=1 height={height} class={name} /></svg> {state}"
              for state, (name, top, height) in BARS.items()]
    for unit in units:
        length = unit.states[-1][1] if unit.states else 1.0
        parts += [f"<h3>{text(unit.person)} <small>{text(unit.video)}, {length:.1f} s</small></h3>",
                  f"<svg viewBox='0 0 {length:.3f} 1' preserveAspectRatio=none role=img "
                  f"aria-label='{text(unit.person)}: who looked when'>"]
        for start, end, state in unit.states:
            name, top, height = BARS[state]
            parts.append(f"<rect x={start:.3f} y={top} width={end - start:.3f} height={height} class={name}>"
                         f"<title>{start:.2f} to {end:.2f} s: {state}</title></rect>")
        parts.append("</svg>")
    return "\n".join([*parts, ""])
