"""Report: what a run left behind, as pictures and one page that people look at.

records.py reads the run's folder; tables.py, learning.py, slices.py, scores.py and timeline.py say and draw what is in
it; page.py makes the page of them. Whatever is not there becomes a sentence. Nothing is computed here that metrics.py
does not define.
"""

import os
import shutil
from pathlib import Path

from gazepose.report.records import Crops, read_records


def make_report(run: Path | str, crops: Crops | None = None) -> Path:
    """Pictures and one page of a run: RUN/report/*.png and report.html, which opens offline and needs no script.

    Args:
        run: the run's folder: any of config.json, metrics.jsonl (kinds train and val), status.json, pred/val.npz
            (row, score, label; optional frame, track, clip, head_pose [n, 3] degrees, quality [n], size [n] px) or
            pred/val.partial.npz of a run with --limit, and pred/timeline.npz (frame, score, label of one track,
            optional crops uint8 [n, h, w, 3]).
        crops: rows int64 [k] -> uint8 [k, h, w, 3]; asked for a dozen faces of one track where timeline.npz is absent.

    Returns:
        The page's path. The folder is replaced as a whole; nothing half written is ever seen under its name.

    Raises:
        FileNotFoundError: the folder holds no record of a run.
        ValueError: a record is damaged; the message names it.
    """
    from gazepose.report.page import write_page  # matplotlib is loaded when a report is made, not by every command

    run = Path(run)
    records = read_records(run, crops)
    final, staging, old = (run / f"{prefix}report" for prefix in ("", f".{os.getpid()}-", f".old-{os.getpid()}-"))
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    try:
        write_page(records, staging)
        for path in staging.iterdir():
            with open(path, "rb") as file:
                os.fsync(file.fileno())
        if final.exists():
            final.rename(old)
        staging.rename(final)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
    return final / "report.html"
