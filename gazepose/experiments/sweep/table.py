"""Table: the predictions of an experiment side by side: mean and spread over seeds, paired differences over clips.

The record it makes (a dict of JSON values) is all that Markdown, CSV, the plot and the results page are made of.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gazepose.evaluation.comparison import resampled
from gazepose.evaluation.metrics import evaluate, percent
from gazepose.experiments.sweep.plan import Experiment, Prediction, Run
from gazepose.io import read_arrays, read_object
from gazepose.report.records import read_records

METRICS = ("mAP", "ap_looking", "ap_not_looking", "accuracy", "balanced_accuracy", "auroc")
DRAWS = 1000


def record_of(experiment: Experiment, predictions: Sequence[Prediction], world: str | None, command: str,
              draws: int = DRAWS) -> dict[str, Any]:
    """Everything there is to say of an experiment on one world. Predictions that are not there yet are named.

    Returns:
        experiment, title, question, claim, note, world, split, faces, clips, prevalence, baselines (name -> mAP of what
        needs no model, on the validation split), command, against, missing, and rows: each name, published, seeds, runs
        (with every metric, their seconds, commit, world size and device), mean and sd per metric, and gain: for mAP and
        accuracy the mean difference from `against` over the seeds both have, with its 95 % interval over clips (None
        where there is none).

    Raises:
        ValueError: predictions of one experiment that are not of the same faces.
    """
    there = [prediction for prediction in predictions if prediction.file.exists()]
    columns = {prediction.file: read_arrays(prediction.file) for prediction in there}
    first = columns[there[0].file] if there else None
    for file, column in columns.items():
        if first is not None and not (np.array_equal(column["row"], first["row"]) and
                                      np.array_equal(column["label"], first["label"])):
            raise ValueError(f"{file}: other faces than in {there[0].file} -> the data set was prepared anew between "
                             "the runs; remove the older predictions, they are made again")
    found: dict[str, Any] = {
        "experiment": experiment.name, "title": experiment.title, "question": experiment.question,
        "claim": experiment.claim, "note": (experiment.embedded if world else experiment.ego4d).note, "world": world,
        "split": predictions[0].split, "command": command, "against": experiment.against,
        "missing": [f"{p.row}, seed {p.seed}" for p in predictions if p not in there]}
    if first is None:
        return found | {"faces": 0, "clips": 0, "prevalence": None, "baselines": {}, "rows": []}
    label, clip = first["label"], first["clip"]
    known = label >= 0
    scores = {(p.row, p.seed): columns[p.file]["score"] for p in there}
    rows = []
    for row in experiment.row:
        own = [p for p in there if p.row == row.name]
        results = [{"seed": p.seed, "run": p.folder.as_posix(), **_facts(p.run),
                    **{name: evaluate(label, scores[row.name, p.seed])[name] for name in METRICS}} for p in own]
        mean, sd = ({name: _over_seeds(results, name, how) for name in METRICS} for how in (np.mean, _sd))
        pairs = [(scores[experiment.against, p.seed], scores[p.row, p.seed]) for p in own
                 if row.name != experiment.against and (experiment.against, p.seed) in scores]
        gain = {name: _gain(label, clip, pairs, name, draws) for name in ("mAP", "accuracy")} if pairs else None
        rows.append({"name": row.name, "flags": row.flags, "infer": row.infer, "published": row.published,
                     "runs": results, "mean": mean, "sd": sd, "gain": gain})
    return found | {"faces": int(known.sum()), "clips": len(np.unique(clip[known])),
                    "prevalence": float((label[known] == 1).mean()),
                    "baselines": _baselines(there[0].run.folder) if there[0].split == "val" else {}, "rows": rows}


def _baselines(run: Path) -> dict[str, float]:
    """mAP of the trivial baselines, as the run's last validation recorded them."""
    return {name: entry["mAP"] for name, entry in read_records(run).baselines.items() if entry and entry["mAP"]}


def _facts(run: Run) -> dict[str, Any]:
    """Under what a run was made; its cost is that of its last start where it was resumed."""
    config, status = read_object(run.folder / "config.json"), read_object(run.folder / "status.json")
    return {"seconds": status.get("seconds"), "commit": (config.get("versions") or {}).get("commit"),
            "world_size": config.get("world_size"), "device": config.get("device"), "epochs": config["run"]["epochs"]}


def _sd(values: Sequence[float]) -> float | None:
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def _over_seeds(results: Sequence[Mapping[str, Any]], name: str, how: Any) -> float | None:
    values = [result[name] for result in results]
    if not values or None in values:
        return None
    value = how(values)
    return None if value is None else float(value)


def _gain(label: np.ndarray, clip: np.ndarray, pairs: Sequence[tuple[np.ndarray, np.ndarray]], metric: str,
          draws: int) -> dict[str, Any]:
    """Mean difference over seeds, and its interval over clips with the same draws for all of them."""
    values = [(evaluate(label, first)[metric], evaluate(label, second)[metric]) for first, second in pairs]
    if any(None in pair for pair in values):
        return {"mean": None, "interval": None, "seeds": len(pairs)}
    found = resampled(label, [score for pair in pairs for score in pair], clip, [metric], draws).get(metric)
    spread = None if found is None else np.percentile((found[:, 1::2] - found[:, ::2]).mean(1), (2.5, 97.5)).tolist()
    return {"mean": float(np.mean([second - first for first, second in values])), "interval": spread,
            "seeds": len(pairs)}


def verdict(row: Mapping[str, Any], reference: Mapping[str, Any]) -> str:
    """What is published of a row's gain in mAP, and whether it is seen here, in words."""
    gain = (row.get("gain") or {}).get("mAP") or {}
    if gain.get("interval") is None:
        return ""
    low, high = gain["interval"]
    seen = "gains" if low > 0 else "loses" if high < 0 else "no difference seen"
    said = None
    if "mAP" in row["published"] and "mAP" in reference["published"]:
        said = row["published"]["mAP"] - reference["published"]["mAP"]
    if said is None:
        return seen
    held = "" if low <= 0 <= high else ", confirmed" if (said > 0) == (low > 0) else ", the contrary"
    return f"{seen}; published {said:+.1f}{held}"


def _spread(value: float | None, sd: float | None) -> str:
    return percent(value) + ("" if sd is None else f" ± {percent(sd)}")


def points(gain: Mapping[str, Any] | None) -> str:
    """A difference in percentage points with its interval."""
    if gain is None or gain["mean"] is None:
        return "–"
    spread = gain["interval"]
    return f"{100 * gain['mean']:+.1f}" + ("" if spread is None else
                                           f" [{100 * spread[0]:+.1f}, {100 * spread[1]:+.1f}]")


def markdown(record: Mapping[str, Any]) -> str:
    """The table as Markdown, with the sentence under which it has to be read."""
    if not record["rows"]:
        return f"{record['title']}: nothing has been scored yet.\n"
    reference = next(row for row in record["rows"] if row["name"] == record["against"])
    published = any(row["published"] for row in record["rows"])
    head = ["", "mAP", "accuracy", "AUROC", f"mAP against “{record['against']}”", *(["published"] * published), "seen"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in record["rows"]:
        cells = [row["name"], *(_spread(row["mean"][name], row["sd"][name]) for name in ("mAP", "accuracy", "auroc")),
                 points((row["gain"] or {}).get("mAP"))]
        if published:
            said = row["published"]
            cells.append(" / ".join(f"{said[name]:.2f}" for name in ("mAP", "accuracy") if name in said) or "–")
        lines.append("| " + " | ".join([*cells, verdict(row, reference)]) + " |")
    seeds = sorted({run["seed"] for row in record["rows"] for run in row["runs"]})
    said = (f"{record['faces']:,} {record['split']} faces of {record['clips']} clips, "
            f"{percent(record['prevalence'])} % looking; percent, mean ± sd over seeds {', '.join(map(str, seeds))}; "
            "differences in points, mean over the seeds, with the 95 % interval over clips (paired bootstrap).")
    if record["baselines"]:
        names = {"prevalence": "the same score for every face", "head_pose": "head pose alone"}
        said += " Without a model: " + ", ".join(f"{names.get(name, name)} {percent(value)}"
                                                 for name, value in record["baselines"].items()) + " mAP."
    missing = f"\n\nNot there yet: {'; '.join(record['missing'])}." if record["missing"] else ""
    return "\n".join(lines) + f"\n\n{said}{missing}\n"


def table_csv(record: Mapping[str, Any]) -> str:
    """One line per run."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    facts = ("seed", *METRICS, "seconds", "world_size", "device", "commit", "run")
    writer.writerow(["experiment", "world", "split", "row", *facts])
    for row in record["rows"]:
        for run in row["runs"]:
            writer.writerow([record["experiment"], record["world"] or "", record["split"], row["name"],
                             *(run[name] for name in facts)])
    return text.getvalue()
