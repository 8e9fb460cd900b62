"""Ensembling: from the scores of one or more runs to a submission, step by step, each with its gain.

single run -> flip averaging -> median over the track -> temperature -> temperature and bias -> mean of the runs ->
boosting. Everything is chosen and fitted on val and applied to test unchanged. Test labels, if there are any, are only
used for the table.

The rule: a step is used if val mAP is higher with it than without. The two calibrations keep the order of the scores,
and so the mAP. They are used if they raise the likelihood of labels of clips that they were not fitted to. A step that
is not used is in the table and not in the submission, and the next step starts from the scores before it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import Any, NamedTuple

import numpy as np

from gazepose.evaluation import submission
from gazepose.evaluation.comparison import Entry, Row, between, compare, difference, markdown
from gazepose.evaluation.metrics import calibration_error, evaluate, percent
from gazepose.evaluation.predictions import read_scores, record_of
from gazepose.evaluation.submission import Face, read_test_csv
from gazepose.experiments import postprocessing
from gazepose.experiments.postprocessing import Calibration, Faces, Scores, folds_of, likelihood
from gazepose.io import write_json, writing
from gazepose.text import counted

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

def read_run(folder: Path) -> Faces:
    """The records of a run's val and test.

    Raises:
        FileNotFoundError: a record is missing; the message has the command that makes it. ValueError: one is damaged.
    """
    faces = {}
    for split in SPLITS:
        path = record_of(folder, split)
        remedy = _scoring(folder, split)
        if not path.is_file():
            part = " of the whole split" if path.with_name(f"{split}.partial.npz").is_file() else ""
            raise FileNotFoundError(f"{path}: no record of the scores{part} -> {remedy}")
        faces[split] = read_scores(path, COLUMNS, remedy)
    return faces


def _scoring(folder: Path, split: str) -> str:
    """The remedy for a record that is missing or unusable."""
    return f"run `python -m gazepose infer --checkpoint {quote(str(folder))} --split {split} --flip_average`"


def read_runs(folders: Sequence[Path]) -> list[Faces]:
    """As `read_run`, of several. Raises ValueError naming a record whose faces are not those of the first run's."""
    runs = [read_run(folder) for folder in folders]
    for folder, run in zip(folders, runs, strict=True):
        for split in SPLITS:
            ours, others = runs[0][split], run[split]
            first, path = record_of(folders[0], split), record_of(folder, split)
            if len(ours["row"]) != len(others["row"]):
                raise ValueError(f"{path}: {counted(len(others['row']), 'face')}, but {first} has "
                                 f"{len(ours['row'])} -> {REMEDY}")
            for name in SAME:
                if len(differing := np.flatnonzero(ours[name] != others[name])):
                    at = differing[0]
                    raise ValueError(f"{path}: face {at} has {name} {others[name][at]}, but {ours[name][at]} in "
                                     f"{first} ({len(differing)} differ) -> {REMEDY}")
    return runs


def scores_of(faces: Faces, flipped: bool) -> Scores:
    """The scores of a run: of the plain face, or (flipped) their mean with those of the mirrored face, if recorded."""
    names = {split: "score_plain" if "score_plain" in faces[split] and not flipped else "score" for split in SPLITS}
    return {split: np.asarray(faces[split][name], np.float64) for split, name in names.items()}


def names_of_test(folder: Path, faces: Faces) -> list[Face]:
    """Names of a run's test faces in the order of its record, from the pred.csv that infer.py wrote with it.

    Raises:
        ValueError: the scores in the table are not those in the record.
    """
    path = record_of(folder, "test").with_suffix("") / "pred.csv"
    table = read_test_csv(path)
    if [row[3] for row in table] != faces["test"]["score"].tolist():
        raise ValueError(f"{path}: {counted(len(table), 'face')} with other scores than {record_of(folder, 'test')} has"
                         f" -> {_scoring(folder, 'test')}")
    return [row[:3] for row in table]


# ---- the steps

class Step(NamedTuple):
    name: str
    scores: Scores | None
    """None: it could not be tried, and `note` says why"""
    against: str | None
    """name of the last step that is used before it; None: it is the first"""
    use: bool
    note: str


class Ensemble:
    """The steps and their scores: `each` has one set per run, or one of their mean; the table shows number `best`."""

    def __init__(self, folders: Sequence[Path], runs: Sequence[Faces]) -> None:
        self.faces = runs[0]
        self.label, self.clip = self.faces["val"]["label"], self.faces["val"]["clip"]
        self.each = [scores_of(run, flipped=False) for run in runs]
        self.best = int(np.argmax([self.mAP(scores) for scores in self.each]))
        note = f"{folders[self.best]}" + (f", on val the best of {len(runs)}" if len(runs) > 1 else "")
        self.steps = [Step("single run", self.each[self.best], None, True, note)]
        self.width = 1
        self.calibration = [Calibration()] * len(runs)
        self.features: dict[str, list[str]] = {"names": [], "left_out": []}

    def mAP(self, scores: Scores) -> float:
        """On val."""
        return evaluate(self.label, scores["val"])["mAP"]

    def attempt(self, name: str, each: list[Scores] | None, note: str = "", better: bool | None = None) -> bool:
        """Add a step and use it if it is better: by mAP, unless `better` says so. No scores: it is not tried."""
        best = self.best if each and len(each) > 1 else 0
        if each and better is None:
            better = self.mAP(each[best]) > self.mAP(self.each[self.best])
        last = next(step.name for step in reversed(self.steps) if step.use)
        self.steps.append(Step(name, each[best] if each else None, last, bool(better), note))
        if each and better:
            self.each, self.best = each, best
        return bool(better)

    def median(self, causal: bool) -> list[Scores]:
        """Smooth with the width that is best for the mean over the runs; returns the smoothed scores, used or not.

        A stride thins the faces within a width. So val has to be scored at test's stride for the width to fit test.
        """
        def smoothed(width: int, splits: Sequence[str] = SPLITS) -> list[Scores]:
            return [{split: postprocessing.smooth(scores[split], self.faces[split]["track"], self.faces[split]["frame"],
                                                  width, causal) for split in splits} for scores in self.each]
        width = max(WIDTHS, key=lambda w: sum(self.mAP(scores) for scores in smoothed(w, ["val"])))
        each = smoothed(width)
        frames = f"the last {counted(width, 'frame')}" if causal else f"+- {counted(width // 2, 'frame')}"
        if self.attempt("median", each, f"{frames} of the track"):
            self.width = width
        return each

    def calibrate(self) -> None:
        """Try both forms on the same scores; each is compared with the scores in use, by the labels of other clips."""
        start, score = self.each, self.each[self.best]["val"]
        now = likelihood(self.label, score)
        for name, bias in (("temperature", False), ("temperature and bias", True)):
            fits = [postprocessing.calibrate(self.label, scores["val"], bias) for scores in start]
            each = [{split: fit.apply(scores[split]) for split in SPLITS}
                    for fit, scores in zip(fits, start, strict=True)]
            then = postprocessing.cross_fitted_likelihood(self.label, score, self.clip, bias)
            shown = fits[self.best]
            note = f"T = {shown.temperature:.2f}" + (f", b = {shown.bias:+.2f}" if bias else "") + \
                f"; -log likelihood of other clips {now:.3f} -> {then:.3f}"
            if self.attempt(name, each, note, better=then < now):
                now, self.calibration = then, fits

    def boost(self, unsmoothed: list[Scores], smoothed: list[Scores]) -> None:
        """Trees over the scores of every run before and after the median, head pose, quality and size."""
        scores = {f"{name} {run}": each[run] for name, each in (("score", unsmoothed), ("median", smoothed))
                  for run in range(len(each))}
        tables, left_out = postprocessing.features(scores, self.faces)
        note = f"known in one split only, so left out: {', '.join(left_out)}" if left_out else ""
        self.attempt("boosting", [postprocessing.boost(tables, scores, self.label, self.clip)], note)
        self.features = {"names": list(tables["val"]), "left_out": left_out}


def take_steps(folders: Sequence[Path], runs: Sequence[Faces], causal: bool) -> Ensemble:
    """All steps, in their order; arguments as of `make_submission`."""
    ensemble = Ensemble(folders, runs)
    plain = [folder for folder, run in zip(folders, runs, strict=True)
             if not all("score_plain" in run[split] for split in SPLITS)]
    ensemble.attempt("flip averaging", None if plain else [scores_of(run, flipped=True) for run in runs],
                     f"{plain[0]} was scored without --flip_average" if plain else "")
    unsmoothed = ensemble.each
    smoothed = ensemble.median(causal)
    too_few = "" if folds_of(ensemble.label, ensemble.clip) else (
        f"val has {counted(len(np.unique(ensemble.clip)), 'clip')}, too few to fit anything: without a fold of them "
        "one class is missing")
    if too_few:
        ensemble.attempt("temperature", None, too_few)
    else:
        ensemble.calibrate()
    mean = {split: np.mean([scores[split] for scores in ensemble.each], 0) for split in SPLITS}
    ensemble.attempt("mean of the runs", [mean] if len(runs) > 1 else None,
                     f"of the probabilities of {len(runs)} runs" if len(runs) > 1 else "there is one run")
    if too_few:
        ensemble.attempt("boosting", None, too_few)
    else:
        ensemble.boost(unsmoothed, smoothed)
    return ensemble


def make_submission(folders: Sequence[Path], out: Path, causal: bool = False) -> str:
    """Apply the steps to the records of some runs; write OUT/chain.json, chain.md, pred.csv and submission.json.

    Args:
        folders: each with val.npz, test.npz and test/pred.csv of infer.py, in pred-flip/ or else in pred/.
        causal: the median uses past frames only, as for live video.

    Returns:
        The table with its notes, as in chain.md.

    Raises:
        FileNotFoundError, ValueError: a record that is missing, damaged, or of other faces than the first run's; val
            without labels of both classes; a submission that would be refused.
    """
    runs = read_runs(folders)
    names = names_of_test(folders[0], runs[0])
    label = runs[0]["val"]["label"]
    if not {0, 1} <= {*label.tolist()}:
        raise ValueError(f"{folders[0]}: val has {counted((label == 1).sum(), 'face')} that look and "
                         f"{(label == 0).sum()} that do "
                         "not -> the steps are chosen on val, which needs labels of both")
    ensemble = take_steps(folders, runs, causal)
    table, results = out / "pred.csv", out / "submission.json"
    submission.write_test_csv(table, [(*name, score) for name, score in zip(
        names, ensemble.each[ensemble.best]["test"].tolist(), strict=True)])
    submission.csv_to_json(table, results)
    submission.check(results, names)
    measured = {split: measure(ensemble.steps, ensemble.faces[split], split) for split in SPLITS}
    steps = [{"name": step.name, "kept": step.use, "note": step.note,
              **{split: as_json(step, split, measured, ensemble.faces) for split in SPLITS}} for step in ensemble.steps]
    write_json(out / "chain.json", {
        "runs": [str(folder) for folder in folders], "causal": causal, "width": ensemble.width,
        "calibration": [fit._asdict() for fit in ensemble.calibration], "features": ensemble.features,
        "kept": [step.name for step in ensemble.steps if step.use], "steps": steps})
    text = as_text(ensemble, measured, steps, results)
    with writing(out / "chain.md") as file:
        file.write(text + "\n")
    return text


# ---- the table

Measured = dict[str, dict[str, Row]]
"""split -> name of a step -> its metrics, and its gain over the step before it that is used"""


def measure(steps: Sequence[Step], columns: Mapping[str, np.ndarray], split: str) -> dict[str, Row]:
    """By name, all steps that could be tried, on one split; without labels of both classes none can be measured."""
    entries = [Entry(step.name, {0: step.scores[split]}, step.against) for step in steps if step.scores]
    if not {0, 1} <= {*columns["label"].tolist()}:
        return {}
    return {row.name: row for row in compare(columns["label"], columns["clip"], entries, COMPARED, DRAWS)}


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


def as_text(ensemble: Ensemble, measured: Measured, facts: Sequence[dict[str, Any]], results: Path) -> str:
    """The table of the steps and its notes, in Markdown that reads in a terminal too; facts: of each step, as JSON."""
    body, faces = [], {}
    for step, fact in zip(ensemble.steps, facts, strict=True):
        val, test = (measured[split].get(step.name) for split in SPLITS)
        cells = [step.name, *([""] * 2 if val is None else [percent(val.mean["mAP"]), difference(val.gain.get("mAP"))])]
        for metric in COMPARED:
            cells += [""] * 2 if test is None else [between(test, metric), difference(test.gain.get(metric))]
        cells += [f"{fact[split]['ece']:.3f}" if fact[split] else "" for split in SPLITS]
        use = "yes" if step.use else "no"
        body.append([*cells, use if step.scores else "not tried"])
    for split in SPLITS:
        clips = len(np.unique(ensemble.faces[split]["clip"]))
        first = facts[0][split]
        labelled = first and counted(first["n"], "labelled face", form=",")
        faces[split] = f"{labelled} of {counted(clips, 'clip')}" if first else "no labels"
    return "\n".join([
        markdown(HEADER, body), "", f"val: {faces['val']}; test: {faces['test']}. Percent; gains in points.",
        "Gains are over the last step that is used; their intervals are paired, over clips. All is chosen on val;",
        "boosting scores val by trees that saw no face of the same clip.", "",
        *[f"- {step.name}: {step.note}" for step in ensemble.steps if step.note], "",
        f"submission: {' -> '.join(step.name for step in ensemble.steps if step.use)}; "
        f"{counted(len(ensemble.faces['test']['row']), 'face', form=',')}, every one once -> {results}"])
