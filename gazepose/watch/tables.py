"""Tables: faces.csv, looks.csv and people.csv, written with few digits and read back exactly.

All are CSV in UTF-8, with commas and a header. A name that a spreadsheet would compute gets an apostrophe in front,
which the readers take away again. A number that is not defined is an empty cell.
"""

import io
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gazepose.evaluation.submission import FORMULA
from gazepose.io import is_id, open_regular, writing
from gazepose.watch.bouts import LOOKS, PEOPLE, in_order
from gazepose.watch.corrections import ACTIONS, CORRECTIONS, IN_TIME
from gazepose.watch.corrections import apply_corrections as apply_corrections
from gazepose.watch.table import FACES, REASONS, Table

DIGITS = {"seconds": 4, "x": 1, "y": 1, "width": 1, "height": 1, "yaw": 2, "pitch": 2, "eye_x": 3, "eye_y": 3,
          "blink": 3, "looking": 4, "start": 4, "end": 4, "duration": 4, "probability": 4, "looks_per_minute": 3,
          "share_looking": 4}
"""digits behind the point; other numbers have four"""
OTHER_SCORES = "looking_"    # begins the names of further columns of faces.csv: the scores of other scorers
SORTED = {"faces.csv": ["video", "frame", "person"], "looks.csv": ["video", "person", "start"],
          "people.csv": ["video", "person"]}
SOURCES = ("score", "correction")
MOST = 8 << 30               # bytes of a table: about 60 million faces
NUMBER = r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?"


# ---- writing

def write(folder: Path, table: Table, looks: Table, people: Table) -> list[Path]:
    """Write faces.csv, looks.csv and people.csv into a folder, each atomically; returns their paths."""
    written = []
    others = {name: "float64" for name in table if name.startswith(OTHER_SCORES)}
    for name, content, columns in (("faces.csv", table, {**FACES, **others}), ("looks.csv", looks, LOOKS),
                                   ("people.csv", people, PEOPLE)):
        write_table(folder / name, in_order(content, SORTED[name]), columns)
        written.append(folder / name)
    return written


def write_table(path: Path, table: Table, columns: Mapping[str, str]) -> None:
    """Write a table atomically, with these columns in their order, rounded; see the head of this file.

    Raises:
        ValueError: a column is missing.
    """
    import pandas as pd
    if missing := [name for name in columns if name not in table]:
        raise ValueError(f"{path}: the table has no column {', '.join(missing)}")
    cells = {}
    for name, kind in columns.items():
        values = table[name]
        if kind == "str":
            cells[name] = values.map({text: without_formula(text) for text in values.unique()})
        elif kind == "float64":
            cells[name] = [text_of(value, name) for value in values.tolist()]
        else:
            cells[name] = values.astype(np.int64)
    with writing(path, newline="") as file:
        pd.DataFrame(cells, columns=list(columns)).to_csv(file, index=False, lineterminator="\n")


def text_of(number: float, column: str) -> str:
    """A number as a column has it; without zeros at its end, empty for NaN."""
    if math.isnan(number):
        return ""
    digits = f"{number:.{DIGITS.get(column, 4)}f}".rstrip("0").rstrip(".")
    return "0" if digits == "-0" else digits


def rounded(table: Table) -> Table:
    """The table with the numbers that its file will hold, so that what is made from both is the same."""
    return table.assign(**{name: table[name].astype(np.float64).round(DIGITS.get(name, 4))
                           for name in table.columns if table[name].dtype.kind == "f"})


def without_formula(name: str) -> str:
    """A name as a spreadsheet leaves it: an apostrophe stands before what it would compute."""
    return f"'{name}" if _is_formula(name) else name


def with_formula(cell: str) -> str:
    """The name of a cell that `without_formula` made."""
    return cell[1:] if cell.startswith("'") and _is_formula(cell) else cell


def _is_formula(text: str) -> bool:
    plain = text.lstrip("'")
    return plain.startswith(FORMULA) and not is_id(plain)


# ---- reading

def read_faces(path: Path) -> Table:
    """The table of faces as it was written, with the columns of other scorers after the others.

    Raises:
        FileNotFoundError; ValueError naming the file, the line and the column of the first cell that does not fit.
    """
    return read_table(path, FACES, empty=("looking", "yaw", "pitch", "eye_x", "eye_y", "blink", "reason"),
                      allowed={"codable": ("0", "1"), "reason": ("", *REASONS)}, bounds={"looking": (0, 1)},
                      more=OTHER_SCORES)


def read_looks(path: Path) -> Table:
    """The table of looks as it was written. Errors as in `read_faces`."""
    return read_table(path, LOOKS, empty=("probability",), allowed={"source": SOURCES}, bounds={"probability": (0, 1)})


def read_people(path: Path) -> Table:
    """The table of people as it was written. Errors as in `read_faces`."""
    return read_table(path, PEOPLE, empty=[name for name in PEOPLE if name not in ("video", "person")])


def read_corrections(path: Path) -> Table:
    """The table of corrections, see corrections.CORRECTIONS, with the number of each line in the column `line`.

    Raises:
        FileNotFoundError; ValueError naming the file, the line and the column: as in `read_faces`; a correction
            without what its action needs; an end before its start.
    """
    table = read_table(path, CORRECTIONS, empty=("start", "end", "value"), allowed={"action": ACTIONS})
    in_time = table["action"].isin(IN_TIME)
    for name, needed in (("start", in_time), ("end", in_time), ("value", ~in_time)):
        lacking = table[needed & ((table[name] == "") if name == "value" else table[name].isna())]
        if len(lacking):
            line = lacking.iloc[0]
            raise ValueError(f"{path}: line {line['line']}: {name}: is empty, but {line['action']} needs it -> "
                             + ("give a name" if name == "value" else "give seconds, as 12.5"))
    if len(wrong := table[in_time & (table["end"] < table["start"])]):
        line = wrong.iloc[0]
        raise ValueError(f"{path}: line {line['line']}: end: {line['end']:g} is before the start {line['start']:g} -> "
                         "exchange them")
    return table


def read_table(path: Path, columns: Mapping[str, str], empty: Iterable[str] = (),
               allowed: Mapping[str, Iterable[str]] | None = None,
               bounds: Mapping[str, tuple[float, float]] | None = None, more: str = "") -> Table:
    """Read a CSV file with these columns, in any order, and no others; blank lines are left out.

    Args:
        columns: name -> str, int64 or float64. empty: columns whose cells may be empty, in numbers NaN; text may be
            empty in these only. allowed: the values of a column. bounds: lowest and highest number of a column.
        more: further columns whose names begin so hold numbers, or nothing.

    Returns:
        The columns in their order, and `line`: the number of each line in the file.

    Raises:
        FileNotFoundError; ValueError naming the file, the line and the column of the first cell that does not fit.
    """
    cells = read_cells(path)
    header, cells = cells.iloc[0].tolist(), cells.iloc[1:]
    others = {name: "float64" for name in header if more and name.startswith(more)}
    columns, empty = {**columns, **others}, [*empty, *others]
    faults = [f"there is no column {name!r}" for name in columns if name not in header]
    faults += [f"the column {name!r:.140} is unknown" for name in header if name not in columns]
    faults += [f"the column {name!r} occurs twice" for name in columns if header.count(name) > 1]
    if faults:
        raise ValueError(f"{path}: line 1: {faults[0]} -> the columns are {','.join(columns)}")
    cells = cells.set_axis(header, axis=1)
    cells = cells[(cells != "").any(axis=1)]
    worst: tuple[int, str, str] | None = None
    values: dict[str, Any] = {}
    for name, kind in columns.items():
        values[name], right, wish = _parsed(cells[name], kind, name in empty, (allowed or {}).get(name),
                                            (bounds or {}).get(name, (-math.inf, math.inf)))
        if not right.all():
            row = int(np.argmin(right))
            if worst is None or row < worst[0]:
                worst = row, name, wish
    if worst is not None:
        row, name, wish = worst
        raise ValueError(f"{path}: line {cells.index[row]}: {name}: {cells[name].iloc[row]!r:.140} -> {wish}")
    import pandas as pd
    return pd.DataFrame(values).assign(line=cells.index.to_numpy(np.int64)).reset_index(drop=True)


def _parsed(cells: Any, kind: str, may_be_empty: bool, allowed: Iterable[str] | None,
            bounds: tuple[float, float]) -> tuple[Any, np.ndarray, str]:
    """The values of a column, which of its cells are right, and what is wanted in it."""
    is_empty = (cells == "").to_numpy()
    if allowed is not None and kind == "str":
        return cells, cells.isin(list(allowed)).to_numpy(), f"one of {', '.join(filter(None, allowed))} is wanted"
    if kind == "str":
        return cells.map(with_formula), ~is_empty | may_be_empty, "a name is wanted"
    fits = cells.str.fullmatch(NUMBER if kind == "float64" else "[0-9]{1,15}").to_numpy(bool)
    numbers = cells.where(fits, "nan").astype(np.float64).to_numpy()
    right = (fits & (numbers >= bounds[0]) & (numbers <= bounds[1])) | (is_empty & may_be_empty)
    if allowed is not None:
        right &= cells.isin(list(allowed)).to_numpy()
        return numbers.astype(np.int64) if right.all() else numbers, right, f"{' or '.join(allowed)} is wanted"
    if kind == "int64":
        return numbers.astype(np.int64) if right.all() else numbers, right, "a whole number of 0 or more is wanted"
    span = "" if math.isinf(bounds[1]) else f" from {bounds[0]:g} to {bounds[1]:g}"
    return numbers, right & ~np.isinf(numbers), f"a number{span} with a point is wanted, as 0.5"


def read_cells(path: Path, separator: str = ",") -> Table:
    """All cells of a CSV file as text; its index has the numbers of the lines, the header is line 1.

    Raises:
        FileNotFoundError; ValueError naming the file and the line: not UTF-8, not CSV, or a longer line than the first.
    """
    import pandas as pd
    with open_regular(path, "table", MOST) as file:
        content = file.read()
    try:
        text = content.decode("utf-8-sig")                             # Excel begins with a byte order mark
        if "\0" in text:                                               # pandas would end the cell there
            raise UnicodeDecodeError("utf-8", content, content.index(0), content.index(0) + 1, "a NUL character")
    except UnicodeDecodeError as error:
        line = content[:error.start].count(b"\n") + 1
        raise ValueError(f"{path}: line {line}: not UTF-8 text -> save it as UTF-8") from None
    try:
        cells = pd.read_csv(io.StringIO(text), sep=separator, header=None, dtype=str, keep_default_na=False,
                            skip_blank_lines=False)
    except pd.errors.EmptyDataError:
        raise ValueError(f"{path}: is empty -> it needs a first line with the names of the columns") from None
    except ValueError as error:
        raise ValueError(f"{path}: not CSV: {str(error).strip()} -> give every line as many cells as the first") \
            from None
    return cells.set_axis(np.arange(1, len(cells) + 1), axis=0)
