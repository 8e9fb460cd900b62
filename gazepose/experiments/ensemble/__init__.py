"""The chain: from the scores of one or more runs to the submission, step by step, each with what it gains.

single run -> flip averaging -> median over the track -> temperature -> temperature and bias -> mean of the runs ->
boosting. Everything is chosen and fitted on val and applied to test unchanged, whose labels, where there are any, are
only looked at for the table. runs.py reads, smoothing.py, calibration.py and boosting.py compute, table.py measures.

The rule: a step stays if val mAP is higher with it than without; the two that keep the order of the scores, and so the
mAP, stay if they make labels of clips that they were not fitted to likelier. What does not stay is in the table and not
in the submission, and the next step starts from what was before it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gazepose.evaluation import submission
from gazepose.evaluation.metrics import evaluate
from gazepose.experiments.ensemble.boosting import boost, features
from gazepose.experiments.ensemble.calibration import Calibration, cross_fitted_likelihood, likelihood, temperature
from gazepose.experiments.ensemble.folds import lacks
from gazepose.experiments.ensemble.runs import SPLITS, Run, Scores, names_of_test, read_runs
from gazepose.experiments.ensemble.smoothing import smooth
from gazepose.experiments.ensemble.table import Step, as_table, figures
from gazepose.io import write_json, writing

WIDTHS = (3, 5, 7, 9, 13, 21, 31, 45, 61)     # frames, 30 a second


class Chain:
    """The steps so far. `each` holds the scores of every run, or one of them all; `best` is the one that is shown."""

    def __init__(self, runs: Sequence[Run], causal: bool) -> None:
        self.faces, self.causal = runs[0].faces, causal
        self.label, self.clip = self.faces["val"]["label"], self.faces["val"]["clip"]
        self.each = [run.plain for run in runs]
        value = [self.mAP(scores) for scores in self.each]
        self.best = int(np.argmax(value))
        note = f"{runs[self.best].folder}" + (f", on val the best of {len(runs)}" if len(runs) > 1 else "")
        self.steps = [Step("single run", self.each[self.best], kept=True, note=note)]
        self.width = 1
        self.calibration = [Calibration()] * len(runs)

    @property
    def now(self) -> Scores:
        """Scores after the last step that was kept."""
        return self.each[self.best]

    def mAP(self, scores: Scores) -> float:
        """On val."""
        return evaluate(self.label, scores["val"])["mAP"]

    def tried(self, name: str, each: list[Scores], note: str = "", better: bool | None = None) -> bool:
        """Add a step and keep it if it is better: by mAP, unless `better` says so."""
        best = self.best if len(each) > 1 else 0
        kept = self.mAP(each[best]) > self.mAP(self.now) if better is None else better
        self.steps.append(Step(name, each[best], self.now, kept, note))
        if kept:
            self.each, self.best = each, best
        return kept

    def cannot(self, name: str, why: str) -> None:
        self.steps.append(Step(name, note=why))

    def flip(self, runs: Sequence[Run]) -> None:
        averaged = [run.averaged for run in runs if run.averaged is not None]
        if len(averaged) == len(runs):
            self.tried("flip averaging", averaged)
        else:
            without = next(run.folder for run in runs if run.averaged is None)
            self.cannot("flip averaging", f"{without} was scored without --flip_average")

    def median(self) -> list[Scores]:
        """The width that is best for the mean over the runs; returns the smoothed scores, kept or not.

        A width sees as many faces as val's stride leaves it: chosen at the stride of test it means the same there.
        """
        def smoothed(width: int, splits: Sequence[str] = SPLITS) -> list[Scores]:
            return [{split: smooth(scores[split], self.faces[split]["track"], self.faces[split]["frame"], width,
                                   self.causal) for split in splits} for scores in self.each]
        width = max(WIDTHS, key=lambda w: sum(self.mAP(scores) for scores in smoothed(w, ["val"])))
        found = smoothed(width)
        kind = "the last" if self.causal else "+-"
        if self.tried("median", found, f"{kind} {width if self.causal else width // 2} frames of the track"):
            self.width = width
        return found

    def calibrate(self) -> None:
        """Both forms start from the same scores; each is judged against what was before, by labels of other clips."""
        start, score = self.each, self.now["val"]
        now = likelihood(self.label, score)
        for name, bias in (("temperature", False), ("temperature and bias", True)):
            fits = [temperature(self.label, scores["val"], bias) for scores in start]
            each = [{split: fit.apply(scores[split]) for split in SPLITS}
                    for fit, scores in zip(fits, start, strict=True)]
            found = cross_fitted_likelihood(self.label, score, self.clip, bias)
            shown = fits[self.best]
            note = f"T = {shown.temperature:.2f}" + (f", b = {shown.bias:+.2f}" if bias else "") + \
                f"; -log likelihood of other clips {now:.3f} -> {found:.3f}"
            if self.tried(name, each, note, better=found < now):
                now, self.calibration = found, fits

    def mean(self) -> None:
        if len(self.each) == 1:
            return self.cannot("mean of the runs", "there is one run")
        self.tried("mean of the runs", [{split: np.mean([scores[split] for scores in self.each], 0)
                                         for split in SPLITS}], f"of the probabilities of {len(self.each)} runs")

    def boosting(self, unsmoothed: list[Scores], smoothed: list[Scores]) -> dict[str, list[str]]:
        """Trees over the scores of every run before and after the median, head pose, quality and size."""
        columns = features({f"{name} {run}": scores for name, each in (("score", unsmoothed), ("median", smoothed))
                            for run, scores in enumerate(each)}, self.faces)
        note = f"known in one split only, so left out: {', '.join(columns.left_out)}" if columns.left_out else ""
        self.tried("boosting", [boost(columns, self.label, self.clip)], note)
        return {"names": columns.names, "left_out": columns.left_out}


def make_chain(folders: Sequence[Path], out: Path, causal: bool = False) -> str:
    """Apply the chain to the records of some runs; write OUT/chain.json, chain.md, pred.csv and submission.json.

    Args:
        folders: each with pred/val.npz, pred/test.npz and pred/test/pred.csv of infer.py.
        causal: the median looks at the past only, as where people are watched live.

    Returns:
        The table with its notes, as in chain.md.

    Raises:
        FileNotFoundError, ValueError: a record that is not there, damaged, or of other faces than the first run's; val
            without labels of both classes; a submission that would be refused.
    """
    runs = read_runs(folders)
    names = names_of_test(runs[0])
    label = runs[0].faces["val"]["label"]
    if evaluate(label, runs[0].plain["val"])["mAP"] is None:
        raise ValueError(f"{folders[0]}: val has {(label == 1).sum()} faces that look and {(label == 0).sum()} that do "
                         "not -> the chain is chosen on val, which needs labels of both")
    chain = Chain(runs, causal)
    chain.flip(runs)
    unsmoothed = chain.each
    smoothed = chain.median()
    used = {"names": [], "left_out": []}
    if why := lacks(label, chain.clip):
        chain.cannot("temperature", why)
        chain.mean()
        chain.cannot("boosting", why)
    else:
        chain.calibrate()
        chain.mean()
        used = chain.boosting(unsmoothed, smoothed)

    out.mkdir(parents=True, exist_ok=True)
    table, made = out / "pred.csv", out / "submission.json"
    submission.write_test_csv(table, [(*name, score) for name, score in
                                      zip(names, chain.now["test"].tolist(), strict=True)])
    submission.csv_to_json(table, made)
    submission.check(made, names)
    steps = [figures(step, chain.faces) for step in chain.steps]
    said = _words(chain, steps, made, len(names))
    facts: dict[str, Any] = {"runs": [str(run.folder) for run in runs], "causal": causal, "width": chain.width,
                             "calibration": [fit._asdict() for fit in chain.calibration], "features": used,
                             "kept": [step.name for step in chain.steps if step.kept], "steps": steps}
    write_json(out / "chain.json", facts)
    with writing(out / "chain.md") as file:
        file.write(said + "\n")
    return said


def _words(chain: Chain, steps: Sequence[dict[str, Any]], made: Path, faces: int) -> str:
    n = {split: f"{steps[0][split]['n']:,} labelled faces of {len(np.unique(chain.faces[split]['clip']))} clips"
         if steps[0][split] else "no labels" for split in SPLITS}
    kept = " -> ".join(step["name"] for step in steps if step["kept"])
    notes = [f"- {step['name']}: {step['note']}" for step in steps if step["note"]]
    return "\n".join([
        as_table(steps), "", f"val: {n['val']}; test: {n['test']}.",
        "Gains are over the last step that was kept; their intervals are paired, over clips. All is chosen on val;",
        "boosting scores val by trees that saw no face of the same clip.", "", *notes, "",
        f"submission: {kept}; {faces:,} faces, every one once -> {made}"])
