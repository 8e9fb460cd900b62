"""Report: what runs left behind, as pictures and pages that people look at.

chosen.py says which tracks and mistakes are worth a look; records.py and kept.py read a run's folder; tables.py,
learning.py, slices.py, scores.py, calibration.py, timeline.py and mistakes.py say and draw what is in it; page.py makes
the page of them. entries.py, overlays.py and comparison.py do so for several runs. Whatever is not there becomes a
sentence. Nothing is computed here that metrics.py does not define.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from gazepose.report.records import Records, read_records


def make_report(run: Path | str) -> Path:
    """Pictures and one page of a run: RUN/report/*.png and report.html, which opens offline and needs no script.

    Args:
        run: the run's folder: any of config.json, metrics.jsonl (kinds train and val), status.json, pred/val.npz
            (row, score, label; optional frame, track, clip, head_pose [n, 3] degrees, quality [n], size [n] px,
            head_pose_score [n]), pred/timeline.npz and pred/mistakes.npz, or those of a run with --limit
            (pred/val.partial.npz, ...); see predictions.write_records.

    Returns:
        The page's path. The folder is replaced as a whole; nothing half written is ever seen under its name.

    Raises:
        FileNotFoundError: the folder holds no record of a run.
        ValueError: a record is damaged; the message names it.
    """
    return _make_page(read_records(Path(run)))


def make_comparison(runs: Sequence[Path | str], out: Path | str | None = None) -> Path:
    """The reports of several runs, and a page that compares them with the first: comparison.html and its pictures.

    Args:
        runs: two or more folders as of `make_report`.
        out: the page's folder; default: comparison/ beside the first run.

    Raises:
        FileNotFoundError, ValueError: as of `make_report`; a run is named twice; `out` holds other files. Nothing has
            been written then.
    """
    from gazepose.report.comparison import write_comparison  # matplotlib is loaded when a report is made

    folders = [Path(run) for run in runs]
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise ValueError(f"{', '.join(map(str, folders))}: a run is named twice -> name each run once")
    final = Path(out) if out is not None else folders[0].resolve().parent / "comparison"
    if final.exists() and not (final / "comparison.html").is_file() and (final.is_file() or any(final.iterdir())):
        raise ValueError(f"{final}: holds other files, which a comparison would replace -> give --out a new folder")
    records = [read_records(folder) for folder in folders]
    pages = [_make_page(each) for each in records]
    final.parent.mkdir(parents=True, exist_ok=True)
    with _replaced(final) as staging:
        write_comparison(records, pages, final, staging)
    return final / "comparison.html"


def _make_page(records: Records) -> Path:
    from gazepose.report.page import write_page  # matplotlib is loaded when a report is made, not by every command

    with _replaced(records.run / "report") as staging:
        write_page(records, staging)
    return records.run / "report" / "report.html"


@contextmanager
def _replaced(final: Path) -> Iterator[Path]:
    """A folder to fill that takes the place of `final` when the block ends well."""
    staging, old = (final.with_name(f".{prefix}{os.getpid()}-{final.name}") for prefix in ("", "old-"))
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    try:
        yield staging
        for path in staging.iterdir():
            with open(path, "rb") as file:
                os.fsync(file.fileno())
        if final.exists():
            final.rename(old)
        staging.rename(final)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
