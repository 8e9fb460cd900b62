"""Page: docs/results.md, made of the records of all sweeps; nothing in it is written by hand but what frames them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gazepose.experiments.sweep.table import markdown
from gazepose.experiments.sweep.write import name_of
from gazepose.io import read_object, writing

FRAME = """# Results

Every table here is made of the records beside it (`docs/results/*.json`) by `python -m gazepose results`; none is
written by hand. Nil and negative results stand like any other. A difference whose interval holds zero is no difference.
Intervals are over clips and tell nothing of the luck of a training: that is the ± over seeds.

The embedded world is rendered: its numbers say how parts of the method compare **there**, with small models on small
crops, and nothing about Ego4D. They stand beside published numbers on Ego4D only so that signs can be compared.

## Published on Ego4D LAM

| method | mAP | accuracy | split | source |
|---|---|---|---|---|
| Ego4D baseline from scratch | 78.07 | 87.97 | val | Ego4D |
| Ego4D baseline from Gaze360 weights (GazeLSTM) | 79.90 | 91.78 | val | Ego4D |
| Ego4D baseline | 66.07 | 75.38 | test | Ego4D |
| GazeLSTM | 71.92 | 85.98 | test | GazePose report |
| spatial refinement only | 76.31 | 87.02 | test | GazePose report |
| temporal refinement only | 73.85 | 86.18 | test | GazePose report |
| both, one run | 77.51 | 88.11 | test | GazePose report |
| GazePose, five runs | 77.02 ± 0.78 | 87.35 ± 2.09 | test | GazePose report |
| GazePose, ensemble | 78.80 | 92.47 | test | GazePose report |
| InternLSTM (frozen InternViT, smoothing, flip averaging, ensemble) | 81 | 93 | test | 2024 challenge |

## Measured here
"""


def results_page(records: Sequence[Mapping[str, Any]]) -> str:
    """The whole page; a record's plot is expected beside it under the record's name."""
    parts = [FRAME]
    for record in records:
        where = f"embedded world “{record['world']}”" if record["world"] else "the data set that is there"
        parts.append(f"### {record['title']}, {where}\n\n{record['question']} {_claim(record)} {record['note']}"
                     "\n\n"
                     f"![{record['title']}](results/{name_of(record)}.png)\n\n{markdown(record)}\n`{record['command']}`"
                     f"{_made(record)}\n")
    return "\n".join(parts)


def chain_part(said: str) -> str:
    """The part of the page on the chain of a submission; `said` is the chain.md that launch/submit.sh wrote."""
    return ("### The chain of a submission, embedded world\n\nWhat flip averaging, smoothing, calibration and "
            "ensembles add to three runs of the demo, step by step (`bash launch/submit.sh`). Everything is chosen on "
            "val.\n\n" + said)


def write_results(folder: Path, page: Path) -> None:
    """Write the page of a folder's records, and of its chain.md, where there is one."""
    chain = folder / "chain.md"
    text = results_page(read_records(folder))
    if chain.is_file():
        text += "\n" + chain_part(chain.read_text(encoding="utf-8"))
    with writing(page) as file:
        file.write(text)


def _claim(record: Mapping[str, Any]) -> str:
    return f"The paper: {record['claim']}" if record["claim"] else ""


def _made(record: Mapping[str, Any]) -> str:
    """Under which commits, on what, in how long."""
    runs = [run for row in record["rows"] for run in row["runs"]]
    if not runs:
        return ""
    commits = sorted({str(run["commit"]) for run in runs})
    devices = sorted({f"{run['world_size']} process on {run['device']}" for run in runs})
    seconds = sum({run["run"]: run["seconds"] or 0 for run in runs}.values())
    return (f": {len(runs)} runs, {seconds / 60:.0f} minutes of training in all, {', '.join(devices)}, "
            f"commit {', '.join(commits)}.")


def read_records(folder: Path) -> list[dict[str, Any]]:
    """The records of a folder, by name.

    Raises:
        FileNotFoundError: there is none.
    """
    files = sorted(folder.glob("*.json"))
    if not files:
        raise FileNotFoundError(f"{folder}: no record -> python -m gazepose sweep launch/experiments/modules.toml "
                                f"--out {folder}")
    return [read_object(file) for file in files]
