"""From finished passes to the files of the folder: tables, boxes, files for coders, drawn videos, the page."""

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

import gazepose
from gazepose.data.crops import as_cut
from gazepose.data.video_times import VIDEO_SUFFIXES
from gazepose.io import is_id, sha256_of, writing
from gazepose.text import counted, printable
from gazepose.watch import bouts, page, tables
from gazepose.watch.dataset import write_dataset
from gazepose.watch.draw import drawn_name
from gazepose.watch.faces import LANDMARKS, faces_of, read_pass, video_of
from gazepose.watch.jobs import Drawing
from gazepose.watch.many import Outcome, run_all
from gazepose.watch.results import PARTS, Results
from gazepose.watch.sources import Boxes
from gazepose.watch.table import SIDES, Table, Video

BOXES = "boxes/val.csv"
NOT_OF_RESULTS = ("jobs", "replace", "dataset", "small")
PACKAGES = ("numpy", "scipy", "pandas", "opencv-python-headless", "av", "ai-edge-litert", "torch")


@dataclass
class Writer:
    """Everything after the passes: from their parts to the files of the folder."""

    results: Results
    config: Any
    """of watch/config.py"""
    notify: Callable[[str], None]

    def write(self, sources: Mapping[str, Path], passes: Mapping[str, Outcome], scorers: Sequence[str],
              own: Mapping[str, tuple[list[str], Boxes]] | None) -> dict[str, str]:
        """As `watch`, of finished passes."""
        config, out = self.config, self.results.folder
        problems = {name: outcome.problem for name, outcome in passes.items() if outcome.problem}
        for problem in problems.values():
            self._say(f"left out: {problem}")
        if len(problems) == len(sources):
            raise ValueError(f"none of the videos can be watched ({len(sources)}) -> give others"
                             if len(sources) > 1 else next(iter(problems.values())))
        videos, table = self._faces(sources, passes, scorers, own)
        written = [self._write_boxes(table, videos, own is not None)]
        table = tables.rounded(self._smoothed(table, videos))
        looks = bouts.find_looks(table, videos, config.looks)
        if config.corrections is not None:
            corrected = tables.apply_corrections(table, looks, tables.read_corrections(config.corrections), videos,
                                                 config.looks)
            table, looks = corrected.table, corrected.looks
            for remark in corrected.remarks:
                self._say(remark)
        people = bouts.count_people(table, looks, videos)
        written += tables.write(out, table, looks, people)
        written += self._export(videos, table, looks, people)
        written += self._draw(videos, table, looks)
        written += self._page(videos, table, looks, people)
        earlier = self.results.finish(written, [each.value.folder for each in passes.values() if each.value],
                                      **self._facts(videos, passes, problems))
        if earlier:
            self._say(f"of an earlier run, not written again: {', '.join(earlier)} -> to bring them up to date, give "
                      "the flags that made them, such as --to")
        if config.dataset is not None:
            write_dataset(config.dataset, videos, table, origin=self._origin(scorers[0]), own_boxes=own is not None,
                          small=config.small, notify=self._say)
        found = ((videos, "video", ""), (people, "person", "people"), (table, "face", ""), (looks, "look", ""))
        self._say(", ".join(counted(len(rows), *words) for rows, *words in found) + f" -> {out}")
        return problems

    def _say(self, line: str) -> None:
        self.notify(printable(line))

    def _faces(self, sources: Mapping[str, Path], passes: Mapping[str, Outcome], scorers: Sequence[str],
               own: Mapping[str, tuple[list[str], Boxes]] | None) -> tuple[list[Video], Table]:
        import pandas as pd
        videos, faces = [], []
        for name, outcome in passes.items():
            if outcome.problem:
                continue
            done = read_pass(outcome.value.folder, [other for other in scorers if other != LANDMARKS])
            for note in done.notes:
                self._say(note)
            videos.append(video_of(name, sources[name], done))
            faces.append(faces_of(name, done, scorers, own[name][0] if own else None))
            if not len(faces[-1]):
                self._say(f"{sources[name]}: no face in it")
        return videos, pd.concat(faces, ignore_index=True)

    def _smoothed(self, table: Table, videos: Sequence[Video]) -> Table:
        for column in [name for name in table if name.startswith("looking")]:
            smooth = bouts.smooth(table.assign(looking=table[column]), self.config.smooth, self.config.causal, videos)
            table = table.assign(**{column: smooth["looking"]})
        return table

    def _write_boxes(self, table: Table, videos: Sequence[Video], own_boxes: bool) -> Path:
        """The boxes as `prepare` and train.py take them, so the detector's as crops lie on a face; of videos only, and
        of those whose names can be ids."""
        path = self.results.folder / BOXES
        usable = [video for video in videos if video.path.suffix.lower() in VIDEO_SUFFIXES]
        ids = [video.name for video in usable if is_id(video.name)]
        for video in usable:
            if video.name not in ids:
                self._say(f"{BOXES}: has no boxes of {video.name}, since this is no id -> rename the video to letters, "
                          "digits, _ . -")
        rows = table[table["video"].isin(ids)]
        if not own_boxes:
            rows = rows.assign(**dict(zip(SIDES, as_cut(rows[SIDES].to_numpy(np.float64)).T, strict=True)))
        columns = {"video": "clip", "person": "track", "frame": "frame", "x": "x", "y": "y", "width": "width",
                   "height": "height"}
        with writing(path, newline="") as file:
            rows[list(columns)].rename(columns=columns).to_csv(file, index=False, float_format="%.2f",
                                                               lineterminator="\n")
        return path

    def _origin(self, scorer: str) -> str:
        """Who made the labels of a data set."""
        what = "landmark score" if scorer == LANDMARKS else f"scores of {scorer}"
        corrected = ", with corrections by hand" if self.config.corrections is not None else ""
        return f"{what} of gazepose watch {gazepose.__version__}{corrected}"

    def _export(self, videos: Sequence[Video], table: Table, looks: Table, people: Table) -> list[Path]:
        if not self.config.to:
            return []
        from gazepose.watch import coding  # not every run needs the packages that write these files
        return coding.write(self.results.folder, self.config.to, videos, table, looks, people)

    def _draw(self, videos: Sequence[Video], table: Table, looks: Table) -> list[Path]:
        """Draw the videos that are not drawn yet, or were drawn from other faces."""
        if not self.config.video:
            return []
        jobs, written = [], []
        for video in videos:
            faces, own = (each[each["video"] == video.name].reset_index(drop=True) for each in (table, looks))
            job = Drawing(video.name, video, faces, own, self.results.folder / drawn_name(video), self.config.blur,
                          self.results.folder / PARTS / f"{video.name}.drawn")
            if job.is_done():
                written.append(job.out)
            else:
                jobs.append(job)
        lengths = {job.name: job.video.seconds for job in jobs}
        for job, outcome in zip(jobs, run_all("drawing", jobs, lengths, self.config.jobs, self.notify).values(),
                                strict=True):
            for note in [f"not drawn: {outcome.problem}"] if outcome.problem else outcome.value:
                self._say(note)
            if not outcome.problem:
                written.append(job.out)
        return written

    def _page(self, videos: Sequence[Video], table: Table, looks: Table, people: Table) -> list[Path]:
        return [page.write_page(self.results.folder, list(videos), table, looks, people)]

    def _facts(self, videos: Sequence[Video], passes: Mapping[str, Outcome], problems: Mapping[str, str]
               ) -> dict[str, Any]:
        watched = {video.name: {**asdict(video), "path": str(video.path), "sha256": passes[video.name].value.sha256}
                   for video in videos}
        settings = {name: value for name, value in asdict(self.config).items() if name not in NOT_OF_RESULTS}
        for name in ("boxes", "corrections"):
            path = getattr(self.config, name)
            settings[name] = None if path is None else {"file": path.name, "sha256": sha256_of(path)}
        return {"watched": watched, "problems": dict(problems), "options": settings, "versions": versions()}


def versions() -> dict[str, str]:
    """Versions of the package, of Python and of what scores depend on."""
    found = {"gazepose": gazepose.__version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
