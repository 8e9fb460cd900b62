"""metrics.json: tables of predictions and the published evaluation's results.

Not compared: `default_sort`, the order in which one machine happened to leave equal scores, and the counts of
repeated scores beside it. In three corner cases the original fails and ours is to give a number instead; each is
recognised by what its table holds.
"""

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gazepose.evaluation.metrics import THRESHOLD, average_precision, evaluate
from golden import Result, apart, read, same, some

TOLERANCE = 1e-9
AVERAGES = ("mAP", "ap_looking", "ap_not_looking", "accuracy")


def check(folder: Path) -> Iterator[Result]:
    recorded = read(folder / "metrics.json")
    yield Result("threshold", same(THRESHOLD, recorded["threshold"]), 0)
    for table in some("tables", recorded["tables"]):
        for what, difference, tolerance in check_table(table, recorded):
            yield Result(f"{table['name']}: {what}", difference, tolerance)
    for case in some("corner_cases", recorded["corner_cases"]):
        for what, difference, tolerance in check_corner(case):
            yield Result(f"{case['name']}: {what}", difference, tolerance)


def score(truth: list[list[Any]], predictions: list[list[Any]]) -> dict[str, Any]:
    """Join the two tables as the original does: by clip, frame and track, of each face its first row."""
    labels = first_rows([row[0], row[1], str(row[6])] for row in truth)
    measured = first_rows([row[0], row[1], str(row[6])] for row in predictions)
    if labels.keys() != measured.keys():
        raise ValueError("the tables hold different faces")
    if any(abs(x - y) > 1e-9 for key, row in labels.items()
           for x, y in zip(truth[row][2:6], predictions[measured[key]][2:6], strict=True)):
        raise ValueError("the tables hold different boxes")
    if any(row[7] != 1 for row in predictions):
        raise ValueError("the label of a prediction is 1, the class of its score")
    return evaluate(np.array([truth[row][7] for row in labels.values()]),
                    np.array([predictions[measured[key]][8] for key in labels], float))


def agrees(got: dict[str, Any], expected: dict[str, Any]) -> Iterator[Result]:
    yield Result("averages", apart([got[name] for name in AVERAGES], [expected[name] for name in AVERAGES]), TOLERANCE)
    yield Result("confusion", same({key.upper(): count for key, count in got["confusion"].items()},
                                   expected["confusion"]), 0)
    yield Result("rows", same(got["n"], expected["rows_after_duplicates"]), 0)


def check_table(table: dict, recorded: dict) -> Iterator[Result]:
    label, looking = np.array(some("rows", table["label"])), np.array(table["score"])
    boxes = table.get("box") or [recorded["box_when_absent"]] * len(label)
    truth, predictions = [], []
    for row, box in enumerate(boxes):
        named = {"video_id": table["videos"][table["video"][row]], "frame_id": table["frame"][row],
                 **{f"entity_box_{corner}": value for corner, value in zip(("x1", "y1", "x2", "y2"), box, strict=True)},
                 "track_id": table["tracks"][table["track"][row]]}
        truth.append([{**named, "label": table["label"][row]}[column] for column in recorded["gt_columns"]])
        predictions.append([{**named, "label": 1, "score": table["score"][row]}[column]
                            for column in recorded["prediction_columns"]])
    result = score(truth, predictions)
    yield from agrees(result, table["expected"])
    for name, value in some("through_csv_files", table["through_csv_files"]).items():
        yield Result(f"{name} through files", apart(result[name], value), TOLERANCE)
    yield from printed(result, table["printed"])
    first_row = list(first_rows(row[:2] + row[6:7] for row in truth).values())
    for bound in ("worst", "best"):
        measured = bounds(label[first_row] == 1, looking[first_row], best=bound == "best")
        expected = table["ties"][f"{bound}_order"]
        yield Result(f"{bound} order", apart([measured[name] for name in expected], list(expected.values())), TOLERANCE)
        over = max((measured[name] - result[name]) * (1 if bound == "worst" else -1) for name in expected)
        yield Result(f"within the {bound} order", max(0.0, over), TOLERANCE)


def first_rows(keys: Iterable[Sequence[Any]]) -> dict[tuple, int]:
    """Where each key occurs first."""
    first: dict[tuple, int] = {}
    for row, key in enumerate(keys):
        first.setdefault(tuple(key), row)
    return first


def bounds(looking: np.ndarray, score: np.ndarray, best: bool) -> dict[str, float]:
    """Average precision of both classes when equal scores stand in their best or worst order (hits first or last)."""
    measured = {}
    for name, hit, rank in (("ap_looking", looking, score), ("ap_not_looking", ~looking, 1.0 - score)):
        order = np.argsort(~hit if best else hit, kind="stable")          # ties keep this order
        measured[name] = average_precision(hit[order], rank[order])
    return measured


def printed(result: dict[str, Any], text: str) -> Iterator[Result]:
    """mAP, accuracy in percent, and the confusion by rows of ground truth in percent, as the original prints them."""
    tp, fn, fp, tn = (result["confusion"][name] for name in ("tp", "fn", "fp", "tn"))
    ours = [result["mAP"], *(100 * part for part in (result["accuracy"], tp / (tp + fn), fn / (tp + fn), fp / (fp + tn),
                                                     tn / (fp + tn)))]
    numbers = re.findall(r"\d+\.(\d+)", text)
    if len(numbers) != len(ours):
        yield Result("printed numbers", math.inf, 0)
    for ours_, number, digits in zip(ours, re.findall(r"\d+\.\d+", text), numbers, strict=False):
        rounding = 0.5 * 10.0 ** -len(digits)
        yield Result("printed", max(0.0, apart(ours_, float(number)) - rounding), TOLERANCE)


def check_corner(case: dict) -> Iterator[Result]:
    truth, predictions = case["groundtruth"], case["predictions"]
    classes = {row[7] for row in truth}
    try:
        result = score(truth, predictions)
    except ValueError:
        yield Result("refused as by the original", same("error" in case["outcome"], True), 0)
        return
    if "result" in case["outcome"]:
        yield from agrees(result, case["outcome"]["result"])
    elif len(classes) == 1:                                               # ours: no number, and a reason
        expected = f"all {len(truth)} labelled rows are {'looking' if classes == {1} else 'not looking'}"
        yield Result("one class", same((result["mAP"], result["reason"]), (None, expected)), 0)
    elif not any(isinstance(row[6], str) for row in truth):               # ours: ids are text
        lettered = [[[*row[:6], f"t{row[6]}", *row[7:]] for row in rows] for rows in (truth, predictions)]
        yield Result("ids of digits", same(result, score(lettered[0], lettered[1])), 0)
    else:
        yield Result(f"the original refuses this with a {case['outcome']['error']}", math.inf, 0)
