"""Goal 6: the metric on a million rows, against merging two tables and walking down the ranking in Python."""

import argparse
from typing import Any

import numpy as np
import pandas

from benchmarks.measure import Aim, Goal, both_clocks, interleaved, main, summaries
from benchmarks.reference import metric as reference
from gazepose.evaluation.metrics import average_precision, evaluate

RATIO = "evaluate against merge and loop, per CPU-second"
DIFFERENCE = "largest difference of mAP, both AP and accuracy"
GOAL = Goal(6, "the metric on a million rows", (Aim(RATIO, least=30), Aim(DIFFERENCE, most=1e-9, unit="")),
    how="Two tables merged with pandas, then a loop over the ranking.")


def tables(rows: int) -> tuple[pandas.DataFrame, pandas.DataFrame]:
    """Truth and prediction, in two orders, as the reference reads them from CSV; one face in ten looks."""
    random = np.random.default_rng(0)
    track = np.arange(rows) // 300
    label = (random.random(rows) < 0.1).astype(int)
    truth = pandas.DataFrame({"clip": [f"clip-{n // 30:04d}" for n in track], "track": [f"track-{n}" for n in track],
                              "frame": np.arange(rows) % 300, "label": label})
    prediction = truth.drop(columns="label").assign(score=np.clip(random.normal(0.3 + 0.25 * label, 0.2), 0, 1))
    return truth, prediction.sample(frac=1, random_state=0, ignore_index=True)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    rows = 20_000 if options.quick else 1_000_000
    truth, prediction = tables(rows)
    # ours never needs the names: a score carries its row
    score = truth.merge(prediction, on=["clip", "track", "frame"], how="left")["score"].to_numpy()
    label = truth["label"].to_numpy()
    found: dict[str, dict[str, Any]] = {}

    def ours() -> int:
        found["ours"] = evaluate(label, score)
        return rows

    def plain() -> int:
        found["reference"] = reference.score_tables(truth, prediction)
        return rows

    timings = interleaved({"reference": plain, "ours": ours}, options.repeats, warm_up=not options.quick)
    ratio = both_clocks(timings["reference"], timings["ours"])
    in_order = {"mAP": found["ours"]["mAP_in_order"], "accuracy": found["ours"]["accuracy"],         # as the reference
                "ap_looking": average_precision(label == 1, score),
                "ap_not_looking": average_precision(label == 0, 1.0 - score)}
    apart = max(abs(value - found["reference"][name]) for name, value in in_order.items())
    return {"measured": {RATIO: ratio["cpu"], DIFFERENCE: apart}, "rows": rows, "ratio": ratio,
            "seconds_per_row": summaries(timings)}


if __name__ == "__main__":
    main("metric", GOAL, measure)
