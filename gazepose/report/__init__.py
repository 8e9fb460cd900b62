"""Report: what runs left behind, as pages that people look at.

records.py reads a run's folder, tables.py computes what is shown as numbers, figures.py draws, page.py and page.html
make the page. style.py has the colours and is used for every picture of the package. Something that was not recorded
becomes a sentence.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from gazepose.io import writing_folder
from gazepose.manifest import copy_others, write_manifest
from gazepose.report.records import Records, read_records


def make_report(run: Path | str) -> Path:
    """Write RUN/report: report.html, which opens offline and needs no script, and its pictures as SVG files.

    Args:
        run: the run's folder with any of config.json, status.json, metrics.jsonl (kinds train and val), pred/val.npz
            and val.source.json (predictions.save_scores); of a run with --limit, pred/val.partial.npz; where these are
            missing, those in pred-flip/. Faces are taken from the index that val.source.json names, and copied to
            val.faces.npz beside it.

    Returns:
        The page's path. The folder is replaced as a whole; files in it that no report wrote stay.

    Raises:
        FileNotFoundError: the folder holds no record of a run.
        ValueError: a record is damaged, or RUN/report is a link; the message names it.
    """
    return _make_page(read_records(Path(run)))


def make_comparison(runs: Sequence[Path | str], out: Path | str | None = None) -> Path:
    """Write the reports of several runs, and comparison.html, which compares them with the first.

    Args:
        runs: two or more folders as for `make_report`.
        out: the page's folder; default: comparison/ beside the first run.

    Raises:
        FileNotFoundError, ValueError: as `make_report`; a run is named twice; `out` holds other files. Nothing has been
            written then.
    """
    from gazepose.report.page import write_comparison  # matplotlib is loaded when a report is made

    folders = [Path(run) for run in runs]
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise ValueError(f"{', '.join(map(str, folders))}: a run is named twice -> name each run once")
    final = Path(out) if out is not None else folders[0].resolve().parent / "comparison"
    if final.exists() and not (final / "comparison.html").is_file() and (final.is_file() or any(final.iterdir())):
        raise ValueError(f"{final}: it holds other files, which a comparison would replace -> give --out a new folder")
    records = [read_records(folder) for folder in folders]
    pages = [_make_page(each) for each in records]
    with _replacing(final) as folder:
        write_comparison(records, pages, final, folder)
    return final / "comparison.html"


def _make_page(records: Records) -> Path:
    from gazepose.report.page import write_page  # matplotlib is loaded when a report is made

    final = records.run / "report"
    with _replacing(final) as folder:
        write_page(records, folder)
    return final / "report.html"


@contextmanager
def _replacing(final: Path) -> Iterator[Path]:
    """Write a folder in place of an older one, in which a user's own files stay."""
    if final.is_symlink():
        raise ValueError(f"{final}: is a link, and a report is not written through one -> remove the link")
    with writing_folder(final, replace=True) as folder:
        yield folder
        write_manifest(folder)
        if final.is_dir():
            copy_others(final, folder)
