"""The start weights of the package: FaceGaze, trained on rendered faces by launch/pretrain.sh; and their card.

A training starts from them where it has no other start (gazepose/train.py). Importing this needs no torch.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gazepose.io import read_object, sha256_of, write_json, writing_path
from gazepose.models.config import ModelConfig
from gazepose.records import from_json
from gazepose.training.learnt_from import LearntFrom, learnt_from
from gazepose.training.run_config import RunConfig, takes_package

FOLDER = Path(__file__).resolve().parents[1] / "weights"
WEIGHTS, CARD = "start.safetensors", "start.json"
MAX_BYTES = 25_000_000
FIGURES = ("mAP", "auroc", "accuracy", "gaze_degrees")
REMEDY = "install the package again, or give --checkpoint or --pretrained no"


@dataclass(frozen=True, kw_only=True)
class StartCard:
    """What start.json holds."""

    file: str
    sha256: str
    licence: str
    model: str
    backbone: str
    crop_size: int
    output_stride: int
    low_pass: float = 0.0
    """of models that start from them (ModelConfig)"""
    states: int
    """rendered faces, each a state of its own"""
    command: str
    """of the training"""
    commit: str | None
    figures: dict[str, float]
    """of the validation clips of its world"""
    learnt_from: dict[str, Any]

    @property
    def name(self) -> str:
        """File, checksum and licence in short."""
        return f"{self.file} (sha256 {self.sha256[:16]}, licence {self.licence})"

    def record(self) -> LearntFrom:
        """What these weights have learnt from, themselves included."""
        return LearntFrom(start=(self.name,)) + learnt_from({"learnt_from": self.learnt_from}, FOLDER / CARD)


def start_card(backbone: str, folder: Path | None = None) -> StartCard | None:
    """The card of the package's start weights; None if it has none, or if they are of another backbone.

    Args:
        folder: of the weights; None: the package's.

    Raises:
        ValueError: the card is damaged.
    """
    file = (folder or FOLDER) / CARD
    if not file.is_file():
        return None
    card = from_json(StartCard, read_object(file, remedy=REMEDY), file, REMEDY)
    return card if card.backbone == backbone else None


def default_card(run: RunConfig, model: ModelConfig) -> StartCard | None:
    """The card of the package's weights, if a training with these flags may start from them.

    Raises:
        ValueError: --pretrained package with a backbone that the package has no weights of.
    """
    card = start_card(model.backbone) if takes_package(run.checkpoint, run.pretrained, model.behaviour) else None
    if card is None and run.pretrained == "package":
        raise ValueError(f"--pretrained package: the package has no weights of {model.backbone} -> give --checkpoint, "
                         "or --pretrained no to train from random weights")
    return card


def start_weights(card: StartCard, folder: Path | None = None) -> Path:
    """The file of weights, after a comparison of its checksum.

    Raises:
        FileNotFoundError, ValueError: it is missing or was changed.
    """
    file = (folder or FOLDER) / card.file
    if not file.is_file():
        raise FileNotFoundError(f"{file}: missing, though {CARD} names it -> {REMEDY}")
    if sha256_of(file) != card.sha256:
        raise ValueError(f"{file}: its SHA-256 differs from {CARD} -> {REMEDY}")
    return file


def write_start(run: Path, command: str, folder: Path | None = None, low_pass: float = 0.0) -> StartCard:
    """Write the best weights of a finished FaceGaze run as the package's start, float16, and their card.

    Args:
        command: how the weights were made. low_pass: of models that start from them (ModelConfig).

    Raises:
        FileNotFoundError, ValueError: there is no such run; another model; weights that have seen more than rendered
            faces, or another start than the package's present one; a file of more than MAX_BYTES; a bad `low_pass`.
    """
    from gazepose.data.index import Index  # torch takes seconds, and the card needs none of these
    from gazepose.tensor_files import save_tensors
    from gazepose.training.checkpoint import read_model

    ModelConfig(low_pass=low_pass)
    model, config = read_model(run)
    network, learnt, out = config["model"], learnt_from(config, run), folder or FOLDER
    before = start_card(network["backbone"])             # which saw rendered faces alone
    before = before if before is not None and set(learnt.start) == set(before.record().start) else None
    start = learnt.start if before else ()
    rendered = LearntFrom(rendered=learnt.rendered, boxes=learnt.boxes, start=start)
    if network["model"] != "FaceGaze" or learnt != rendered:
        raise ValueError(f"{run}: {network['model']}, learnt from {learnt} -> give a run of FaceGaze that has learnt "
                         "from rendered faces alone: --task gaze --label_loss 1 --pretrained no")
    # vectors are a thousandth of the file, and the variances of BatchNorm are beyond what float16 holds
    state = {name: (value.half() if value.is_floating_point() and value.ndim > 1 else value).contiguous()
             for name, value in model.state_dict().items()}
    crop_size = config["prepare"]["crop_size"]
    stills = Index.open(Path(config["root"]) / "stills" / str(crop_size))
    with writing_path(out / WEIGHTS) as part:
        save_tensors(state, part)
        if part.stat().st_size > MAX_BYTES:
            raise ValueError(f"{run}: {part.stat().st_size:,} bytes of weights, more than {MAX_BYTES:,} -> train a "
                             "smaller --backbone")
    card = StartCard(
        file=WEIGHTS, sha256=sha256_of(out / WEIGHTS), licence="MIT", model="FaceGaze", backbone=network["backbone"],
        crop_size=crop_size, output_stride=network["output_stride"], command=command,
        low_pass=low_pass,
        states=len(stills) + (before.states if before else 0),
        commit=config["versions"]["commit"], figures=best_figures(run),
        learnt_from={name: [*values] for name, values in asdict(learnt).items()})
    write_json(out / CARD, asdict(card))
    return card


def best_figures(run: Path) -> dict[str, float]:
    """The numbers of a run's best validation."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    best = max((line for line in lines if line["kind"] == "val"), key=lambda line: line["mAP"] or 0)
    return {name: round(best[name], 4) for name in FIGURES if best.get(name) is not None}
