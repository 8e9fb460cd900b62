"""Write: a record becomes four files that belong together: JSON, Markdown, CSV and the plot."""

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from gazepose.experiments.sweep.table import markdown, table_csv
from gazepose.io import write_json


def name_of(record: Mapping[str, Any]) -> str:
    """<experiment>-<world>, by which all its files are called."""
    return f"{record['experiment']}-{record['world'] or 'ego4d'}"


def write_record(folder: Path, record: Mapping[str, Any]) -> Path:
    """Write <experiment>-<world>.json, .md, .csv and .png, each under its name only when whole; the Markdown's path."""
    from gazepose.experiments.sweep.drawing import draw_rows
    from gazepose.report.style import png  # matplotlib is loaded when something is drawn

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name_of(record)
    files = {".md": markdown(record).encode(), ".csv": table_csv(record).encode()}
    if any(row["runs"] for row in record["rows"]):
        files[".png"] = png(partial(draw_rows, record))
    for end, content in files.items():
        staged = folder / f".{os.getpid()}-{path.name}{end}"
        staged.write_bytes(content)
        staged.replace(path.with_name(path.name + end))
    write_json(path.with_name(path.name + ".json"), record)
    return path.with_name(path.name + ".md")
