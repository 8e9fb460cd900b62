"""Results: the predictions of an experiment become a record, and records become tables, plots and docs/results.md.

A record is a dict of JSON values; tables and plots are made of records only. evaluation/comparison.py compares rows.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np

from gazepose.evaluation.comparison import Entry, Gain, Row, compare, difference, spread
from gazepose.evaluation.comparison import markdown as markdown_table
from gazepose.evaluation.metrics import METRICS, percent
from gazepose.evaluation.predictions import read_scores
from gazepose.experiments.plan import Experiment, Prediction, Run
from gazepose.io import read_object, write_json, writing, writing_path
from gazepose.text import counted, read_json_lines, read_text

DRAWS = 1000
COMPARED = ("mAP", "accuracy")
AGAIN = "remove it; the sweep makes it again"
BASELINES = {"prevalence": "the same score for every face", "head_pose": "head pose alone"}
MEASURED = "## Measured here\n"
"""heading of docs/results.md: the text above it is written by hand, the rest is made of the records"""
ENSEMBLE = """
### Ensembling, embedded world

What flip averaging, smoothing, calibration and ensembles add to three runs of the demo, step by step
(`bash launch/submit.sh`). Everything is chosen on val.

"""


# ---- the record

def record_of(experiment: Experiment, predictions: Sequence[Prediction], world: str | None, command: str,
              draws: int = DRAWS) -> dict[str, Any]:
    """Compare the rows of an experiment on one world. Predictions that do not exist yet are listed as missing.

    Returns:
        experiment, title, question, claim, note, world, version (of that world), split, faces, clips, prevalence,
        baselines (name -> mAP without a model, on the validation split), command, against, missing, and rows. Each row
        has name, flags, infer, published, runs (each with every metric, seconds, commit, world size and device), mean
        and sd per metric, and gain: mAP and accuracy compared with the row `against` (comparison.Gain as a dict), or
        None.

    Raises:
        ValueError: predictions of one experiment that are not of the same faces.
    """
    existing = [prediction for prediction in predictions if prediction.file.exists()]
    record: dict[str, Any] = {
        "experiment": experiment.name, "title": experiment.title, "question": experiment.question,
        "claim": experiment.claim, "note": (experiment.embedded if world else experiment.ego4d).note, "world": world,
        "split": predictions[0].split, "command": command, "against": experiment.against,
        "missing": [f"{p.row}, seed {p.seed}" for p in predictions if p not in existing]}
    if not existing:
        return record | {"faces": 0, "clips": 0, "prevalence": None, "baselines": {}, "rows": []}
    columns = {prediction: read_scores(prediction.file, ("row", "label", "clip", "score"), AGAIN)
               for prediction in existing}
    first = columns[existing[0]]
    for prediction, column in columns.items():
        if not all(np.array_equal(column[name], first[name]) for name in ("row", "label")):
            raise ValueError(f"{prediction.file}: other faces than in {existing[0].file} -> the data set was prepared "
                             "again between the runs; remove the older predictions, then the sweep makes them again")
    label, clip = first["label"], first["clip"]
    known = label >= 0
    entries = [Entry(row.name, {p.seed: columns[p]["score"] for p in existing if p.row == row.name},
                     against=experiment.against) for row in experiment.row]
    rows = []
    for row, result in zip(experiment.row, compare(label, clip, entries, COMPARED, draws), strict=True):
        runs = [{"seed": p.seed, "run": p.folder.as_posix(), **_facts(p.run),
                 **{name: result.results[p.seed][name] for name in METRICS}} for p in existing if p.row == row.name]
        rows.append({"name": row.name, "flags": row.flags, "infer": row.infer, "published": row.published, "runs": runs,
                     "mean": result.mean, "sd": result.sd,
                     "gain": {name: asdict(gain) for name, gain in result.gain.items()} or None})
    return record | {"version": existing[0].run.version, "faces": int(known.sum()),
                     "clips": len(np.unique(clip[known])),
                     "prevalence": float((label[known] == 1).mean()),
                     "baselines": _baselines(existing[0].run) if existing[0].split == "val" else {}, "rows": rows}


def _baselines(run: Run) -> dict[str, float]:
    """mAP of the trivial baselines, as the run's last validation recorded them."""
    baselines: dict[str, Any] = {}
    for line in read_json_lines(run.folder / "metrics.jsonl")[0]:
        baselines = line.get("baselines") or baselines
    return {name: entry["mAP"] for name, entry in baselines.items() if entry and entry["mAP"]}


def _facts(run: Run) -> dict[str, Any]:
    """The circumstances of a run. The seconds of a resumed run are those since its last start."""
    config, status = read_object(run.folder / "config.json"), read_object(run.folder / "status.json")
    return {"seconds": status.get("seconds"), "commit": (config.get("versions") or {}).get("commit"),
            "world_size": config.get("world_size"), "device": config.get("device"), "epochs": config["run"]["epochs"]}


def rows_of(record: Mapping[str, Any]) -> list[Row]:
    """The rows of a comparison that a record holds."""
    return [Row(row["name"], {run["seed"]: run for run in row["runs"]}, row["mean"], row["sd"],
                gain={name: Gain(**gain) for name, gain in (row["gain"] or {}).items()}, against=record["against"])
            for row in record["rows"]]


# ---- tables

def verdict(gain: Gain | None, published: Mapping[str, float], reference: Mapping[str, float]) -> str:
    """Whether a gain in mAP is seen here, and whether the published one has the same sign, in words."""
    if gain is None or gain.sign is None:
        return ""
    seen = {1: "gains", -1: "loses", 0: "no difference seen"}[gain.sign]
    if "mAP" not in published or "mAP" not in reference:
        return seen
    theirs = published["mAP"] - reference["mAP"]
    if not theirs:                               # one method twice, so nothing was published of their difference
        return seen
    agrees = ""
    if gain.sign:
        agrees = ", confirmed" if (theirs > 0) == (gain.sign > 0) else ", the contrary"
    return f"{seen}; published {theirs:+.1f}{agrees}"


def markdown(record: Mapping[str, Any]) -> str:
    """The table as Markdown, with the facts that its reader needs."""
    if not record["rows"]:
        return f"{record['title']}: nothing has been scored yet.\n"
    published = {row["name"]: row["published"] for row in record["rows"]}
    columns = ["published"] if any(published.values()) else []
    head = ["", "mAP", "accuracy", "AUROC", f"mAP against “{record['against']}”", *columns, "seen"]
    body = []
    for row in rows_of(record):
        theirs, gain = published[row.name], row.gain.get("mAP")
        cells = [row.name, *(spread(row, name) for name in ("mAP", "accuracy", "auroc")), difference(gain)]
        if columns:
            cells.append(" / ".join(f"{theirs[name]:.2f}" for name in COMPARED if name in theirs) or "–")
        body.append([*cells, verdict(gain, theirs, published[record["against"]])])
    seeds = sorted({run["seed"] for row in record["rows"] for run in row["runs"]})
    notes = (f"{counted(record['faces'], record['split'] + ' face', form=',')} of {counted(record['clips'], 'clip')}, "
             f"{percent(record['prevalence'])} % looking; percent, mean ± sd over seeds {', '.join(map(str, seeds))}; "
             "differences in points, mean over the seeds, with the 95 % interval over clips (paired bootstrap).")
    if record["baselines"]:
        notes += " Without a model: " + ", ".join(f"{BASELINES.get(name, name)} {percent(value)}"
                                                  for name, value in record["baselines"].items()) + " mAP."
    missing = f"\n\nMissing: {'; '.join(record['missing'])}." if record["missing"] else ""
    return f"{markdown_table(head, body)}\n\n{notes}{missing}\n"


def table_csv(record: Mapping[str, Any]) -> str:
    """One line per run."""
    text = io.StringIO()
    names = ["experiment", "world", "split", "row", "seed", *METRICS, "seconds", "world_size", "device", "commit",
             "run"]
    writer = csv.DictWriter(text, names, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows({**record, **run, "row": row["name"]} for row in record["rows"] for run in row["runs"])
    return text.getvalue()


# ---- files

def name_of(record: Mapping[str, Any]) -> str:
    """<experiment>-<world>, the name of all its files."""
    return f"{record['experiment']}-{record['world'] or 'ego4d'}"


def write_record(folder: Path, record: Mapping[str, Any]) -> Path:
    """Write <experiment>-<world>.json, .md, .csv and .png; the Markdown's path."""
    name = name_of(record)
    for end, text in ((".md", markdown(record)), (".csv", table_csv(record))):
        with writing(folder / f"{name}{end}") as file:
            file.write(text)
    if rows := [row for row in rows_of(record) if row.results]:
        from gazepose.experiments.drawing import draw_rows
        from gazepose.report.style import png  # matplotlib is slow to import

        with writing_path(folder / f"{name}.png") as part:
            part.write_bytes(png(lambda: draw_rows(rows)))
    write_json(folder / f"{name}.json", record)
    return folder / f"{name}.md"


def read_records(folder: Path) -> list[dict[str, Any]]:
    """The records of a folder, by name. Raises FileNotFoundError if there is none."""
    files = sorted(folder.glob("*.json"))
    if not files:
        raise FileNotFoundError(f"{folder}: no record -> python -m gazepose sweep modules --out {quote(str(folder))}")
    return [read_object(file) for file in files]


def section(record: Mapping[str, Any]) -> str:
    """A record's section of the page; its plot is expected as results/NAME.png beside the page."""
    where = f"embedded world “{record['world']}”" if record["world"] else "the data set at hand"
    if record.get("version"):
        where += f", version {record['version']}"
    claim = f"The paper: {record['claim']}" if record["claim"] else ""
    about = " ".join(filter(None, (record["question"], claim, record["note"])))
    text = (f"### {record['title']}, {where}\n\n{about}\n\n"
            f"![{record['title']}](results/{name_of(record)}.png)\n\n{markdown(record)}\n`{record['command']}`")
    if runs := [run for row in record["rows"] for run in row["runs"]]:
        commits = sorted({str(run["commit"]) for run in runs})
        devices = sorted({f"{run['world_size']} process on {run['device']}" for run in runs})
        seconds = sum({run["run"]: run["seconds"] or 0 for run in runs}.values())
        text += (f": {counted(len(runs), 'run')}, {seconds / 60:.0f} minutes of training in all, {', '.join(devices)}, "
                 f"commit {', '.join(commits)}.")
    return f"{text}\n"


def write_results(folder: Path, page: Path) -> None:
    """Write the page of a folder's records, and of its chain.md, if there is one (from `python -m gazepose chain`)."""
    head = read_text(page).partition(MEASURED)[0] if page.is_file() else "# Results\n\n"
    text = "\n".join([head + MEASURED, *map(section, read_records(folder))])
    ensemble = folder / "chain.md"
    if ensemble.is_file():
        text += ENSEMBLE + read_text(ensemble)
    with writing(page) as file:
        file.write(text)
