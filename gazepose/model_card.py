"""The model card of a run that is published: README.md of a repository on the hub, made from the run's records."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np

import gazepose
from gazepose.evaluation.comparison import Entry, Row, between, compare, markdown
from gazepose.evaluation.metrics import BASELINES, METRICS
from gazepose.evaluation.predictions import FLIPPED, PLAIN, read_scores
from gazepose.io import read_object
from gazepose.text import read_json_lines
from gazepose.training.checkpoint import BEST, CHECKPOINTS, STEP
from gazepose.training.learnt_from import LearntFrom

SHOWN = ("mAP", "accuracy", "auroc")
OWN_LICENCE = ("Ego4D", "Gaze360")
"""data sets of real faces with a licence that each user signs or accepts"""
UNKNOWN = "**not known**"
RULES = {"annotated": "as annotated ones lie", "detector": "as those of a face detector lie"}
LIMITS = (
    "- Boxes that lie otherwise on the face, such as taller ones, lower the quality of the scores.",
    "- Scores are not calibrated for other cameras than those of its data.",
    "- How it differs between groups of people was not measured.",
    "- It scores pictures of a face, not what a person thinks or feels. Do not decide about people by it alone.")
AGAIN = "score the run again with `python -m gazepose infer`"
PLACES = (BEST, CHECKPOINTS)


@dataclass(frozen=True)
class Figures:
    """What a model reached on one split."""

    split: str
    data: str
    """name of the data set"""
    faces: int
    clips: int
    """0: unknown"""
    rows: list[Row]
    """the model first, then what needs no model"""
    note: str = ""


@dataclass(frozen=True)
class Licences:
    """What the user says of licences; None: what the run's records allow to say."""

    weights: str | None = None
    """as the hub writes it: mit, cc-by-nc-4.0"""
    data: str | None = None


def without_path(name: str) -> str:
    """The name of a data set or of weights without the folders around it: runs/mine/best/step-00000100 -> mine."""
    if name.startswith("hf:") or not any(slash in name.partition(" (")[0] for slash in "/\\"):
        return name
    parts = [part for part in PureWindowsPath(name).parts if part not in PLACES and not STEP.fullmatch(part)]
    return parts[-1].replace("|", "-") if parts and not parts[-1].endswith(("/", "\\")) else "a folder without a name"


def data_name(root: str) -> str:
    """A data set by its folder's name; data/ is where Ego4D lies."""
    return "Ego4D" if root == "data" else without_path(root)


def public(learnt: LearntFrom) -> LearntFrom:
    """What weights have learnt from, without paths of this machine."""
    def plain(names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(map(without_path, names)))
    return replace(learnt, real=tuple(dict.fromkeys(map(data_name, learnt.real))), unknown=plain(learnt.unknown),
                   labels=plain(learnt.labels), start=plain(learnt.start))


# ---- figures

def figures_of(run: Path, weights: Path) -> list[Figures]:
    """The figures of a run's weights: of its own predictions, with intervals; without any, of its last validation.

    Args:
        weights: folder of the checkpoint. Predictions of other weights are left out.
    """
    found = [figures for split in ("val", "test") if (figures := _of_predictions(run, split, weights))]
    if found or not (run / "metrics.jsonl").is_file():
        return found
    step = STEP.fullmatch(weights.name)
    lines = [line for line in read_json_lines(run / "metrics.jsonl")[0] if line.get("kind") == "val"
             and step is not None and line.get("step") == int(step[1]) and line.get("mAP") is not None]
    if not lines:
        return []
    results = {"this model": lines[-1], **{BASELINES[name]: entry for name, entry in lines[-1]["baselines"].items()
                                           if entry and name in BASELINES}}
    rows = [Row(name, {}, {key: result.get(key) for key in METRICS}, dict.fromkeys(METRICS))
            for name, result in results.items()]
    return [Figures("val", "its own data", lines[-1]["n"], 0, rows,
                    "From the validation during training, so without intervals.")]


def _of_predictions(run: Path, split: str, weights: Path) -> Figures | None:
    folder = run / (PLAIN if (run / PLAIN / f"{split}.npz").is_file() else FLIPPED)
    if not (folder / f"{split}.npz").is_file() or not (folder / split / "about.json").is_file():
        return None
    about = read_object(folder / split / "about.json", remedy=AGAIN)
    if Path(str(about.get("checkpoint"))).parts[-2:] != weights.parts[-2:]:
        return None
    columns = read_scores(folder / f"{split}.npz", ("score", "label", "clip"), AGAIN)
    columns = {name: column[columns["label"] >= 0] for name, column in columns.items()}
    label, clip = columns["label"], columns["clip"]
    if len(np.unique(label)) < 2:
        return None
    entries = [Entry("this model", {0: columns["score"]})]
    if "head_pose_score" in columns:
        entries.append(Entry(BASELINES["head_pose"], {0: columns["head_pose_score"]}))
    entries.append(Entry(BASELINES["prevalence"], {0: np.full(len(label), label.mean())}))
    flipped = "Averages of each picture and its mirror image. " if folder.name == FLIPPED else ""
    return Figures(split, data_name(str(about.get("data"))), len(label), len(np.unique(clip)),
                   compare(label, clip, entries, SHOWN), flipped + str(about.get("warning") or ""))


def _figures(figures: Sequence[Figures]) -> str:
    if not figures:
        return "**This model has not been validated**: its records hold no figures."
    head = ["on", "faces", "clips", "what", *(METRICS[key].label for key in SHOWN)]
    body = [[f"{each.split} of {each.data}", f"{each.faces:,}", f"{each.clips or '–'}", row.name,
             *(between(row, key) for key in SHOWN)] for each in figures for row in each.rows]
    notes = list(dict.fromkeys(each.note for each in figures if each.note))
    return "\n".join([
        markdown(head, body), "", "Percent; in brackets 95 % intervals over whole clips, where there are five clips or "
        "more. mAP is the mean of the average precisions of both classes.", *notes])


# ---- the card

def front_matter(name: str, learnt: LearntFrom, licences: Licences, figures: Sequence[Figures]) -> str:
    """What the hub reads of a card, as YAML."""
    from huggingface_hub import EvalResult, ModelCardData
    results = [EvalResult(task_type="video-classification", task_name="looking at the camera", dataset_name=each.data,
                          dataset_type="".join(c if c.isascii() and c.isalnum() else "-" for c in each.data),
                          dataset_split=each.split, metric_type=key, metric_name=METRICS[key].label,
                          metric_value=round(value, 4))
               for each in figures for key in SHOWN if (value := each.rows[0].mean[key]) is not None]
    licence = licences.weights or ("mit" if is_free(learnt) else None)
    return ModelCardData(
        library_name="gazepose", pipeline_tag="video-classification", license=licence or "other",
        license_name=None if licence else "see-the-card", model_name=name, eval_results=results or None,
        tags=["gazepose", "gaze", "eye-contact", "egocentric-video", "pytorch", "safetensors"]).to_yaml()


def is_free(learnt: LearntFrom) -> bool:
    """Whether weights have learnt from this package's rendered faces alone, from random weights or the package's."""
    return bool(learnt.rendered) and not (learnt.real or learnt.unknown) and all(
        name.endswith("licence MIT)") for name in learnt.start)


def _origin(learnt: LearntFrom, licences: Licences) -> list[list[str]]:
    lines = [["rendered faces", name, "MIT, made by this package"] for name in learnt.rendered]
    for name in learnt.real:
        own = "its own, which each user accepts" if name in OWN_LICENCE else UNKNOWN
        lines.append(["real faces", name, licences.data or own])
    lines += [["unknown", name, licences.data or UNKNOWN] for name in learnt.unknown]
    lines += [["start weights", name, "see its name, or its own card"] for name in learnt.start]
    people = "people, in the annotations of the data" if learnt.real or learnt.unknown else "geometry of the scene"
    lines += [["labels", name, "no person gave them"] for name in learnt.labels or ()] or [["labels", people, ""]]
    if not learnt.start:
        lines.append(["start weights", "random", ""])
    return lines


def model_card(repository: str, revision: str | None, facts: Mapping[str, Any], learnt: LearntFrom, size: int,
               figures: Sequence[Figures], licences: Licences) -> str:
    """README.md of a repository.

    Args:
        facts: rules of crop, box and window, as deploy.facts_of. learnt: as `public` returns it.
        size: how many numbers the model has.
    """
    place, name = f"hf:{repository}" + (f"@{revision}" if revision else ""), repository.partition("/")[2]
    crop, box, window = facts["crop"], facts["box"], facts["window"]
    priors = {"head_pose": "head pose in degrees", "landmarks": "five landmarks in 0..1 of the crop"}
    takes = [f"{window['frames']} crops of a face {window['seconds_apart']:.4f} s apart, RGB, {crop['size']} pixels",
             *(priors[prior] for prior in facts["priors"])]
    licence = licences.weights or ("MIT" if is_free(learnt) else "not stated; it depends on the data below")
    about = [["what", f"{facts['model']}, backbone {facts['backbone']}, {size / 1e6:.1f} million numbers"],
             ["takes", "; ".join(takes) + ". Unknown priors are NaN" * bool(facts["priors"])],
             ["gives", "the probability that the person looks at the camera in the middle frame"],
             ["made by", f"gazepose {gazepose.__version__}"], ["licence of the weights", licence]]
    limits = [f"- {learnt.warning(rendered=False)}."] if learnt.warning(rendered=False) else []
    limits += [f"- Labels come from the {maker}, so its errors are in the weights." for maker in learnt.labels]
    if facts["least_height"]:
        limits.append(f"- It was hardly trained on faces lower than {facts['least_height']:.0f} pixels.")
    return f"""---
{front_matter(name, learnt, licences, figures)}
---

# {name}

Does the person in this egocentric video look at the camera? A model of the package gazepose.

{markdown(["", ""], about)}

## Load it

```python
import gazepose
scorer = gazepose.load("{place}")
faces, looks, people = scorer.video("visit.mp4")
```

```
gazepose watch visit.mp4 --out watched --scorer {place}
gazepose infer --checkpoint {place} --data DATA --exp_path runs/{name}
gazepose train --checkpoint {place} --data DATA
```

Only safetensors and JSON are read; the repository holds no code.

## What it has learnt from

{markdown(["", "name", "licence"], _origin(learnt, licences))}

## Figures

{_figures(figures)}

## How crops lie on a face

- A crop: {crop["rule"]} Here size is {crop["size"]}, and the JPEG quality is {crop["jpeg"]["quality"]}.
- A box: {box["rule"]} Here left is {box["left"]:g}, top {box["top"]:g}, width {box["width"]:g},
  height {box["height"]:g}, least_height {box["least_height"]:g} and box_scale {crop["box_scale"]:g}.
- A window: {window["rule"]}
- Boxes of rendered faces in the training: {" and ".join(RULES.get(rule, rule) for rule in learnt.boxes) or "none"}.

`gazepose watch`, `infer` and `export` follow these rules by themselves.

## Limits

{chr(10).join([*limits, *LIMITS])}
"""
