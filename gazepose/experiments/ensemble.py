"""Ensembling: from the scores of one or more runs to a submission, step by step, each with its gain.

single run -> flip averaging -> median over the track -> temperature -> temperature and bias -> mean of the runs ->
boosting. Everything is chosen and fitted on val and applied to test unchanged. Test labels, if there are any, are only
used for the table.

The rule: a step is used if val mAP is higher with it than without. The two calibrations keep the order of the scores,
and so the mAP. They are used if they raise the likelihood of labels of clips that they were not fitted to. A step that
is not used is in the table and not in the submission, and the next step starts from the scores before it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gazepose.evaluation import submission
from gazepose.evaluation.comparison import Entry, Row, between, compare, difference, markdown
from gazepose.evaluation.metrics import calibration_error, evaluate, percent
from gazepose.evaluation.submission import Face, read_test_csv
from gazepose.experiments.postprocessing import (
    Calibration,
    Faces,
    Scores,
    boost,
    calibrate,
    cross_fitted_likelihood,
    features,
    folds_of,
    likelihood,
    smooth,
)
from gazepose.io import read_arrays, write_json, writing

SPLITS = ("val", "test")
SAME = ("row", "track", "clip", "frame", "label")
COLUMNS = (*SAME, "score", "head_pose", "quality", "size")
REMEDY = "infer both with the same data, policy and stride"
COMPARED = ("mAP", "accuracy")
DRAWS = 200             # of clips, for the intervals
HEADER = ["step", "val mAP", "gain [95 %]", "test mAP [95 %]", "gain [95 %]", "test accuracy [95 %]", "gain [95 %]",
          "ECE val", "test", "used"]
WIDTHS = (3, 5, 7, 9, 13, 21, 31, 45, 61)     # frames, 30 a second


# ---- the scores of the runs

class Run(NamedTuple):
    folder: Path
    faces: Faces
    plain: Scores
    averaged: Scores | None
    """mean with the mirrored face; None without infer.py --flip_average"""


def record_of(folder: Path, split: str) -> Path:
    return folder / "pred" / f"{split}.npz"


def read_run(folder: Path) -> Run:
    """The records of a run's val and test.

    Raises:
        FileNotFoundError: a record is missing; the message has the command that makes it. ValueError: one is damaged.
    """
    faces = {}
    for split in SPLITS:
        path = record_of(folder, split)
        remedy = f"run `python infer.py --checkpoint {folder} --split {split} --flip_average`"
        if not path.is_file():
            part = " of the whole split" if path.with_name(f"{split}.partial.npz").is_file() else ""
            raise FileNotFoundError(f"{path}: no record of the scores{part} -> {remedy}")
        columns = read_arrays(path)
        if missing := [name for name in COLUMNS if name not in columns]:
            raise ValueError(f"{path}: no column {', '.join(missing)} -> {remedy}")
        if any(len(column) != len(columns["row"]) for column in columns.values()):
            raise ValueError(f"{path}: columns of different lengths -> {remedy}")
        for name in ("score", "score_plain"):
            if name in columns and not ((columns[name] >= 0) & (columns[name] <= 1)).all():      # false for NaN too
                raise ValueError(f"{path}: scores that are no numbers from 0 to 1 -> {remedy}")
        faces[split] = columns
    shown = {split: np.asarray(faces[split]["score"], np.float64) for split in SPLITS}
    plain = {split: np.asarray(faces[split].get("score_plain", shown[split]), np.float64) for split in SPLITS}
    flipped = all("score_plain" in faces[split] for split in SPLITS)
    return Run(folder, faces, plain, shown if flipped else None)


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """As `read_run`, of several. Raises ValueError naming a record whose faces are not those of the first run's."""
    runs = [read_run(folder) for folder in folders]
    for run in runs[1:]:
        for split in SPLITS:
            ours, others = runs[0].faces[split], run.faces[split]
            first, path = record_of(runs[0].folder, split), record_of(run.folder, split)
            if len(ours["row"]) != len(others["row"]):
                raise ValueError(f"{path}: {len(others['row'])} faces, but {first} has {len(ours['row'])} -> {REMEDY}")
            for name in SAME:
                if len(differing := np.flatnonzero(ours[name] != others[name])):
                    at = differing[0]
                    raise ValueError(f"{path}: face {at} has {name} {others[name][at]}, but {ours[name][at]} in "
                                     f"{first} ({len(differing)} differ) -> {REMEDY}")
    return runs


def names_of_test(run: Run) -> list[Face]:
    """Names of a run's test faces in the order of its record, from the pred.csv that infer.py wrote with it.

    Raises:
        ValueError: the scores in the table are not those in the record.
    """
    path = run.folder / "pred" / "test" / "pred.csv"
    table = read_test_csv(path)
    if [row[3] for row in table] != run.faces["test"]["score"].tolist():
        raise ValueError(f"{path}: {len(table)} faces with other scores than {record_of(run.folder, 'test')} has -> "
                         f"run `python infer.py --checkpoint {run.folder} --split test --flip_average`")
    return [row[:3] for row in table]


# ---- the steps

class Step(NamedTuple):
    name: str
    scores: Scores | None = None
    """None: it could not be tried, and `note` says why"""
    against: str | None = None
    """name of the last step that is used before it; None: it is the first"""
    use: bool = False
    note: str = ""


class Ensemble:
    """The steps and their scores: `each` has one set per run, or one of their mean; the table shows number `best`."""

    def __init__(self, runs: Sequence[Run], causal: bool) -> None:
        self.faces, self.causal = runs[0].faces, causal
        self.label, self.clip = self.faces["val"]["label"], self.faces["val"]["clip"]
        self.each = [run.plain for run in runs]
        self.best = int(np.argmax([self.mAP(scores) for scores in self.each]))
        note = f"{runs[self.best].folder}" + (f", on val the best of {len(runs)}" if len(runs) > 1 else "")
        self.steps = [Step("single run", self.each[self.best], use=True, note=note)]
        self.width = 1
        self.calibration = [Calibration()] * len(runs)

    @property
    def now(self) -> Scores:
        """Scores after the last step that is used."""
        return self.each[self.best]

    def mAP(self, scores: Scores) -> float:
        """On val."""
        return evaluate(self.label, scores["val"])["mAP"]

    def attempt(self, name: str, each: list[Scores], note: str = "", better: bool | None = None) -> bool:
        """Add a step and use it if it is better: by mAP, unless `better` says so."""
        best = self.best if len(each) > 1 else 0
        use = self.mAP(each[best]) > self.mAP(self.now) if better is None else better
        last = next(step.name for step in reversed(self.steps) if step.use)
        self.steps.append(Step(name, each[best], last, use, note))
        if use:
            self.each, self.best = each, best
        return use

    def skip(self, name: str, why: str) -> None:
        self.steps.append(Step(name, note=why))

    def flip(self, runs: Sequence[Run]) -> None:
        averaged = [run.averaged for run in runs if run.averaged is not None]
        if len(averaged) == len(runs):
            self.attempt("flip averaging", averaged)
        else:
            without = next(run.folder for run in runs if run.averaged is None)
            self.skip("flip averaging", f"{without} was scored without --flip_average")

    def median(self) -> list[Scores]:
        """Smooth with the width that is best for the mean over the runs; returns the smoothed scores, used or not.

        A stride thins the faces within a width. So val has to be scored at test's stride for the width to fit test.
        """
        def smoothed(width: int, splits: Sequence[str] = SPLITS) -> list[Scores]:
            return [{split: smooth(scores[split], self.faces[split]["track"], self.faces[split]["frame"], width,
                                   self.causal) for split in splits} for scores in self.each]
        width = max(WIDTHS, key=lambda w: sum(self.mAP(scores) for scores in smoothed(w, ["val"])))
        each = smoothed(width)
        frames = f"the last {width}" if self.causal else f"+- {width // 2}"
        if self.attempt("median", each, f"{frames} frames of the track"):
            self.width = width
        return each

    def calibrate(self) -> None:
        """Try both forms on the same scores; each is compared with the scores in use, by the labels of other clips."""
        start, score = self.each, self.now["val"]
        now = likelihood(self.label, score)
        for name, bias in (("temperature", False), ("temperature and bias", True)):
            fits = [calibrate(self.label, scores["val"], bias) for scores in start]
            each = [{split: fit.apply(scores[split]) for split in SPLITS}
                    for fit, scores in zip(fits, start, strict=True)]
            then = cross_fitted_likelihood(self.label, score, self.clip, bias)
            shown = fits[self.best]
            note = f"T = {shown.temperature:.2f}" + (f", b = {shown.bias:+.2f}" if bias else "") + \
                f"; -log likelihood of other clips {now:.3f} -> {then:.3f}"
            if self.attempt(name, each, note, better=then < now):
                now, self.calibration = then, fits

    def mean(self) -> None:
        if len(self.each) == 1:
            return self.skip("mean of the runs", "there is one run")
        self.attempt("mean of the runs", [{split: np.mean([scores[split] for scores in self.each], 0)
                                           for split in SPLITS}], f"of the probabilities of {len(self.each)} runs")

    def boosting(self, unsmoothed: list[Scores], smoothed: list[Scores]) -> dict[str, list[str]]:
        """Trees over the scores of every run before and after the median, head pose, quality and size."""
        scores = {f"{name} {run}": each[run] for name, each in (("score", unsmoothed), ("median", smoothed))
                  for run in range(len(each))}
        tables, left_out = features(scores, self.faces)
        note = f"known in one split only, so left out: {', '.join(left_out)}" if left_out else ""
        self.attempt("boosting", [boost(tables, scores, self.label, self.clip)], note)
        return {"names": list(tables["val"]), "left_out": left_out}


def make_submission(folders: Sequence[Path], out: Path, causal: bool = False) -> str:
    """Apply the steps to the records of some runs; write OUT/chain.json, chain.md, pred.csv and submission.json.

    Args:
        folders: each with pred/val.npz, pred/test.npz and pred/test/pred.csv of infer.py.
        causal: the median uses past frames only, as for live video.

    Returns:
        The table with its notes, as in chain.md.

    Raises:
        FileNotFoundError, ValueError: a record that is missing, damaged, or of other faces than the first run's; val
            without labels of both classes; a submission that would be refused.
    """
    runs = read_runs(folders)
    names = names_of_test(runs[0])
    label = runs[0].faces["val"]["label"]
    if evaluate(label, runs[0].plain["val"])["mAP"] is None:
        raise ValueError(f"{folders[0]}: val has {(label == 1).sum()} faces that look and {(label == 0).sum()} that do "
                         "not -> the steps are chosen on val, which needs labels of both")
    ensemble = Ensemble(runs, causal)
    ensemble.flip(runs)
    unsmoothed = ensemble.each
    smoothed = ensemble.median()
    columns = {"names": [], "left_out": []}
    if folds_of(label, ensemble.clip):
        ensemble.calibrate()
        ensemble.mean()
        columns = ensemble.boosting(unsmoothed, smoothed)
    else:
        why = (f"val's {len(np.unique(ensemble.clip))} clips are too few to fit anything: without a fold of them one "
               "class is missing")
        ensemble.skip("temperature", why)
        ensemble.mean()
        ensemble.skip("boosting", why)

    table, results = out / "pred.csv", out / "submission.json"
    submission.write_test_csv(table, [(*name, score) for name, score in
                                      zip(names, ensemble.now["test"].tolist(), strict=True)])
    submission.csv_to_json(table, results)
    submission.check(results, names)
    measured = measure(ensemble.steps, ensemble.faces)
    text = as_text(ensemble, measured, results, len(names))
    write_json(out / "chain.json", {
        "runs": [str(run.folder) for run in runs], "causal": causal, "width": ensemble.width,
        "calibration": [fit._asdict() for fit in ensemble.calibration], "features": columns,
        "kept": [step.name for step in ensemble.steps if step.use],
        "steps": [{"name": step.name, "kept": step.use, "note": step.note,
                   **{split: as_json(step, split, measured, ensemble.faces) for split in SPLITS}}
                  for step in ensemble.steps]})
    with writing(out / "chain.md") as file:
        file.write(text + "\n")
    return text


# ---- the table

Measured = dict[str, dict[str, Row]]
"""split -> name of a step -> its metrics, and its gain over the step before it that is used"""


def measure(steps: Sequence[Step], faces: Faces) -> Measured:
    """Measure all steps that could be tried; a split without labels of both classes has none."""
    measured: Measured = {}
    for split in SPLITS:
        label = faces[split]["label"]
        entries = [Entry(step.name, {0: step.scores[split]}, step.against) for step in steps if step.scores]
        if not {0, 1} <= set(label.tolist()):
            entries = []
        measured[split] = {row.name: row for row in compare(label, faces[split]["clip"], entries, COMPARED, DRAWS)}
    return measured


def as_json(step: Step, split: str, measured: Measured, faces: Faces) -> dict[str, Any] | None:
    """n, mAP and accuracy, both with their interval, ece, nll, gain {mAP, accuracy: {value, interval}}; None where the
    step could not be measured. An interval (95 %, over clips) is None with fewer than five clips."""
    row, label = measured[split].get(step.name), faces[split]["label"]
    if row is None or step.scores is None:
        return None
    facts: dict[str, Any] = {"n": row.results[0]["n"]}
    for metric in COMPARED:
        facts |= {metric: row.mean[metric], f"{metric}_interval": row.interval[metric]}
    gain = {metric: {"value": gain.mean, "interval": gain.interval} for metric, gain in row.gain.items()}
    return facts | {"ece": calibration_error(label, step.scores[split]),
                    "nll": likelihood(label, step.scores[split]), "gain": gain or None}


def as_text(ensemble: Ensemble, measured: Measured, results: Path, faces: int) -> str:
    """The table of the steps and its notes, in Markdown that reads in a terminal too."""
    body, known = [], {}
    for step in ensemble.steps:
        val, test = (measured[split].get(step.name) for split in SPLITS)
        cells = [step.name, *([""] * 2 if val is None else [percent(val.mean["mAP"]), difference(val.gain.get("mAP"))])]
        for metric in COMPARED:
            cells += [""] * 2 if test is None else [between(test, metric), difference(test.gain.get(metric))]
        for split in SPLITS:
            ece = ""
            if step.scores and step.name in measured[split]:
                ece = f"{calibration_error(ensemble.faces[split]['label'], step.scores[split]):.3f}"
            cells.append(ece)
        use = "yes" if step.use else "no"
        body.append([*cells, use if step.scores else "not tried"])
    for split in SPLITS:
        first = measured[split].get(ensemble.steps[0].name)
        clips = len(np.unique(ensemble.faces[split]["clip"]))
        known[split] = f"{first.results[0]['n']:,} labelled faces of {clips} clips" if first else "no labels"
    return "\n".join([
        markdown(HEADER, body), "", f"val: {known['val']}; test: {known['test']}. Percent; gains in points.",
        "Gains are over the last step that is used; their intervals are paired, over clips. All is chosen on val;",
        "boosting scores val by trees that saw no face of the same clip.", "",
        *[f"- {step.name}: {step.note}" for step in ensemble.steps if step.note], "",
        f"submission: {' -> '.join(step.name for step in ensemble.steps if step.use)}; {faces:,} faces, every one once "
        f"-> {results}"])
