"""Codings: looks as files for the programs in which people code videos: ELAN, a video player, BORIS, a spreadsheet.

coding_files.py reads them again. Packages that write these files are imported inside functions.
"""

import mimetypes
import os
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any, Literal

import numpy as np

from gazepose.io import writing, writing_bytes, writing_path
from gazepose.machine import needed
from gazepose.text import printable
from gazepose.watch.bouts import LOOKS, NOT_CODABLE, PAIRS, PEOPLE, count_pairs, times_not_codable
from gazepose.watch.table import REASONS, Table, Video
from gazepose.watch.tables import DIGITS

Format = Literal["eaf", "vtt", "boris", "xlsx"]
LOOKING, UNCODABLE = "looking", "not codable"
"""the two codes of all files"""
WORKBOOK = "watch.xlsx"
SUMMARY = {"video": "str", "person": "str", "faces": "int64", "codable": "int64", "mean_height": "float64",
           "mean_looking": "float64", **{reason: "int64" for reason in REASONS}}
"""Columns of the workbook's first sheet: faces of each person, codable ones, how many are not and why. mean_height: of
the boxes, pixels. mean_looking: mean probability of the codable faces."""


def write(folder: Path, formats: Sequence[Format], videos: Sequence[Video], table: Table, looks: Table,
          people: Table) -> list[Path]:
    """Write the files of these formats, each atomically; returns their paths.

    Each video gets NAME.eaf, NAME.vtt and NAME.boris.tsv, where NAME is its name in the tables; watch.xlsx has all.

    Raises:
        ImportError: a package of the extra `watch` is missing; says which command installs it.
    """
    written: list[Path] = []
    hidden = times_not_codable(table, videos)
    one_each: dict[str, tuple[str, Callable[[Path, Video, Table, Table, list[str]], None]]] = {
        "eaf": (".eaf", write_eaf), "vtt": (".vtt", write_vtt), "boris": (".boris.tsv", write_boris)}
    for kind in dict.fromkeys(formats):
        if kind == "xlsx":
            write_workbook(folder / WORKBOOK, table, looks, people, videos)
            written.append(folder / WORKBOOK)
            continue
        suffix, write_one = one_each[kind]
        for video in videos:
            names = people["person"][people["video"] == video.name].tolist()
            path = folder / f"{video.name}{suffix}"
            write_one(path, video, looks[looks["video"] == video.name], hidden[hidden["video"] == video.name], names)
            written.append(path)
    return written


def write_eaf(path: Path, video: Video, looks: Table, hidden: Table, people: list[str]) -> None:
    """ELAN (EAF 3.0): for each person a tier with the looks, and one with the times that are not codable and why.

    The video is linked by its path relative to the file, so that both can be moved together.
    """
    elan = needed("pympi", "watch", "pympi-ling")
    document = elan.Eaf(author="gazepose")
    document.adocument |= {
        "VERSION": "3.0", "FORMAT": "3.0", "DATE": _date_of(video.path).isoformat(timespec="seconds"),
        "xsi:noNamespaceSchemaLocation": "http://www.mpi.nl/tools/elan/EAFv3.0.xsd"}
    document.header |= {"MEDIA_FILE": "", "TIME_UNITS": "milliseconds"}
    document.remove_tier("default")
    link = _relative(video.path, path.parent)
    kind = mimetypes.guess_type(video.path.name)[0] or "video/mp4"
    document.add_linked_file(link, relpath=link, mimetype=kind)
    for person in people:
        name = one_line(person)
        for tier, rows, text in ((name, looks, None), (f"{name} {UNCODABLE}", hidden, "reason")):
            while tier in document.tiers:                  # two names that differ in a control character only
                tier += "*"
            document.add_tier(tier, part=name)
            for row in rows[rows["person"] == person].to_dict("records"):
                start, end = milliseconds(row["start"]), milliseconds(row["end"])
                document.add_annotation(tier, start, max(end, start + 1), row[text] if text else LOOKING)
    _sort_slots(document)
    with writing_path(path) as part:
        elan.Elan.to_eaf(str(part), document)


def _sort_slots(document: Any) -> None:
    """Number the points in time of an ELAN document in their order, as ELAN does; pympi numbers them as they come."""
    slots = document.timeslots
    new = {slot: f"ts{number}" for number, slot in enumerate(sorted(slots, key=slots.__getitem__), 1)}
    document.timeslots = {new[slot]: time for slot, time in slots.items()}
    for tier, (annotations, *rest) in document.tiers.items():
        document.tiers[tier] = ({name: (new[start], new[end], *more)
                                 for name, (start, end, *more) in annotations.items()}, *rest)


def write_vtt(path: Path, video: Video, looks: Table, hidden: Table, people: list[str]) -> None:
    """WebVTT: a subtitle for each look, spoken by its person; players show them over the video."""
    vtt = needed("webvtt", "watch", "webvtt-py")
    captions = vtt.WebVTT()
    for row in looks.sort_values(["start", "end", "person"]).to_dict("records"):
        name = escape(one_line(row["person"]), quote=False)
        text = f"<v {name}>{name} is {LOOKING}"
        captions.captions.append(vtt.Caption(_clock(row["start"]), _clock(row["end"]), text))
    with writing(path, newline="\n") as file:
        file.write(captions.content + "\n")


def write_boris(path: Path, video: Video, looks: Table, hidden: Table, people: list[str]) -> None:
    """BORIS: the table that "Paste events" of its event list takes: time, subject, code, modifier, comment, frame.

    Each look is two state events, its start and its end. The comment says which, because BORIS leaves out an event that
    equals another one. The file has no header and no line end behind its last line: BORIS refuses a shorter line.
    """
    events = [(row[side], order, one_line(row["person"]), code, comment)
              for rows, code in ((looks, LOOKING), (hidden, UNCODABLE)) for row in rows.to_dict("records")
              for side, order, comment in (("end", 0, "STOP"), ("start", 1, "START"))]
    with writing(path, newline="\n") as file:
        file.write("\n".join(f"{time:.3f}\t{person}\t{code}\t\t{comment}\tNA"
                             for time, _, person, code, comment in sorted(events)))


def write_workbook(path: Path, table: Table, looks: Table, people: Table, videos: Sequence[Video]) -> None:
    """A workbook with the sheets faces (a summary for each person), people, pairs, looks and not codable."""
    excel, styles = needed("openpyxl", "watch"), needed("openpyxl.styles", "watch", "openpyxl")
    book = excel.Workbook()
    book.remove(book.active)
    sheets = (("faces", summary(table), SUMMARY), ("people", people, PEOPLE),
              ("pairs", count_pairs(table, looks, videos), PAIRS), ("looks", looks, LOOKS),
              (UNCODABLE, times_not_codable(table, videos), NOT_CODABLE))
    for title, content, columns in sheets:
        sheet = book.create_sheet(title)
        sheet.append(list(columns))
        for row in content[list(columns)].itertuples(index=False, name=None):
            sheet.append([_cell(value, name) for name, value in zip(columns, row, strict=True)])
        for cells in sheet.iter_rows(min_row=2):
            for cell in cells:
                if isinstance(cell.value, str):
                    cell.data_type = "s"                   # a name that begins with = is no formula
        for cell in sheet[1]:
            cell.font = styles.Font(bold=True)
            sheet.column_dimensions[cell.column_letter].width = max(10, len(str(cell.value)) + 2)
        sheet.freeze_panes = "A2"
    with writing_bytes(path) as file:
        book.save(file)


def summary(table: Table) -> Table:
    """Faces of each person of each video; see SUMMARY."""
    import pandas as pd
    lines = []
    for (video, person), own in table.groupby(["video", "person"]):
        known = own["codable"] == 1
        why = own["reason"][~known].value_counts()
        lines.append((video, person, len(own), int(known.sum()), own["height"].mean(), own["looking"][known].mean(),
                      *(int(why.get(reason, 0)) for reason in REASONS)))
    return pd.DataFrame(lines, columns=list(SUMMARY))


# ---- cells and times

def milliseconds(seconds: float) -> int:
    return round(1000 * seconds)


def one_line(name: str) -> str:
    """A name without tabs, line ends and control characters, as ELAN, WebVTT and BORIS need it."""
    return printable(re.sub(r"\s+", " ", name)).strip() or "?"


def _clock(seconds: float) -> str:
    """00:01:02.345"""
    rest = milliseconds(seconds)
    return f"{rest // 3_600_000:02}:{rest // 60_000 % 60:02}:{rest // 1000 % 60:02}.{rest % 1000:03}"


def _cell(value: Any, column: str) -> Any:
    if isinstance(value, str):
        return printable(value)
    return None if np.isnan(value) else round(value, DIGITS.get(column, 4))


def _relative(path: Path, folder: Path) -> str:
    """The path of a video as ELAN links it: ./../video.mp4; the whole address if it is on another drive."""
    try:
        return f"./{Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()}"
    except ValueError:                                     # Windows: another drive
        return path.resolve().as_uri()


def _date_of(path: Path) -> datetime:
    """When the video was written, so that the same video always gives the same file."""
    try:
        return datetime.fromtimestamp(int(path.stat().st_mtime), UTC)
    except OSError:
        return datetime.fromtimestamp(0, UTC)


