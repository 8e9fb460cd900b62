"""Plans: an experiment file (TOML) becomes runs, each named by the fingerprint of its configuration.

Nothing is run here. Two experiments that need the same run share it.
"""

import functools
import hashlib
import json
import shlex
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from gazepose.evaluation.predictions import FLIPPED, PLAIN
from gazepose.io import is_id, sha256_of
from gazepose.text import read_text
from gazepose.training.checkpoint import WEIGHTS, from_json, weights_folder
from gazepose.training.provenance import NOT_RESUMED
from gazepose.training.run_config import ONE_START, takes_package
from gazepose.training.shipped_start import start_card

POOL = Path("runs/sweep")
FILES = Path(__file__).parent / "files"
"""the experiments of the package"""
MAX_EXPERIMENT = 4 << 20      # bytes of an experiment file
NOT_IN_A_FILE = {*ONE_START, "train_path", *(name for names in NOT_RESUMED.values() for name in names)} - {"pretrained"}
"""flags of places, workers, machines and trackers: who runs a file of others gives them; no text of it is a command"""
NOT_COUNTED = {"run": ("exp_path", "resume", "processes", "save_every", "log_with", "checkpoint", "config"),
               "prepare": ("data_disk", "decoder"), "data": ("num_workers",), "model": ("image_size", "low_pass")}
"""section -> values that do not change what a run learns, or that follow from the others"""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table: the flags that differ from those of the other lines."""

    name: str
    flags: str = ""
    """of train.py, added to the setting's"""
    start_flags: str = ""
    """of train.py, for the runs that this row starts from"""
    infer: str = ""
    """flags of infer.py"""
    published: dict[str, float] = field(default_factory=dict)
    """mAP and accuracy on Ego4D in percent, if they are published"""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How an experiment is run on one kind of data."""

    flags: str = ""
    """of train.py, for all rows"""
    worlds: tuple[str, ...] = ()
    """presets of the embedded world; empty: the data set of --data or data/"""
    seeds: tuple[int, ...] = (0, 1, 2)
    split: Literal["val", "test"] = "val"
    """scored for the table; it needs labels, and Ego4D's test set has none"""
    note: str = ""
    """facts that the reader of the table needs"""
    start: tuple[str, ...] = ()
    """flags of pre-training runs; each starts from the one before, and all rows start from the last"""


@dataclass(frozen=True, kw_only=True)
class Experiment:
    name: str
    title: str
    question: str
    claim: str = ""
    """the paper's answer"""
    against: str
    """name of the row that the others are compared with"""
    row: tuple[Row, ...]
    embedded: Setting
    ego4d: Setting


@dataclass(frozen=True)
class Run:
    """One training."""

    flags: tuple[str, ...]
    """of train.py, without --exp_path and --checkpoint"""
    folder: Path
    start: "Run | Path | None" = None
    """the run or the file whose weights it starts from"""
    data: tuple[str, ...] = ()
    """flags of infer.py for the data set that it is trained on here; a copied run does not name its own"""
    version: int | None = None
    """of the embedded world that it is trained on; None: another data set"""


@dataclass(frozen=True)
class Prediction:
    """The scores of a run on a split: one seed of a row."""

    row: str
    seed: int
    run: Run
    split: str
    infer: tuple[str, ...] = ()
    """flags of infer.py"""

    @property
    def folder(self) -> Path:
        return self.run.folder / f"infer-{digest(self.infer)[:6]}" if self.infer else self.run.folder

    @property
    def file(self) -> Path:
        return self.folder / (FLIPPED if "--flip_average" in self.infer else PLAIN) / f"{self.split}.npz"


def read_experiment(path: Path) -> Experiment:
    """An experiment, by its file or by the name of one of FILES.

    Raises:
        FileNotFoundError: neither. ValueError: not an experiment, or with flags in NOT_IN_A_FILE, naming the fault.
    """
    if not path.exists():
        names = sorted(file.stem for file in FILES.glob("*.toml"))
        if str(path) not in names:
            raise FileNotFoundError(f"{path}: no such experiment file -> give its path, or one of {', '.join(names)}")
        path = FILES / f"{path}.toml"
    try:
        facts = tomllib.loads(read_text(path, "experiment file", MAX_EXPERIMENT))
        experiment = _built(Experiment, {"name": path.stem, **facts}, path)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ValueError(f"{path}: not TOML ({error}) -> see {FILES} for examples") from None
    if not is_id(experiment.name):
        raise ValueError(f"{path}: name = {experiment.name!r:.140} becomes the name of files -> give letters, digits, "
                         "_ . - only")
    names = [row.name for row in experiment.row]
    if wrong := [name for name in names if not name.isprintable() or name.startswith(("=", "+", "@", "-"))]:
        raise ValueError(f"{path}: the row {wrong[0]!r:.140} would be a formula in a spreadsheet, or controls a "
                         "terminal -> begin with a letter or a digit")
    if repeated := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"{path}: several rows are named {', '.join(sorted(repeated))} -> give each row its own name")
    if experiment.against not in names:
        raise ValueError(f"{path}: against = {experiment.against!r} is not a row -> give one of {', '.join(names)}")
    settings = (experiment.embedded, experiment.ego4d)
    texts = [text for row in experiment.row for text in (row.flags, row.start_flags, row.infer)]
    for text in (*texts, *(text for setting in settings for text in (setting.flags, *setting.start, *setting.worlds))):
        try:
            flags = [word[2:].partition("=")[0].replace("-", "_") for word in shlex.split(text) if word[:2] == "--"]
        except ValueError as error:
            raise ValueError(f"{path}: {text!r:.140} is not a line of flags ({error}) -> close the quotation") from None
        if refused := [flag for flag in flags if flag.removeprefix("no_") in NOT_IN_A_FILE]:
            raise ValueError(f"{path}: --{refused[0]} names a place, workers, a machine or a tracker, which an "
                             "experiment does not -> leave it out, and give it to sweep: --data, --start or --flags")
    return experiment


def _built(kind: type, facts: Any, path: Path) -> Any:
    """A dataclass from a table of the file; lists become tuples, tables become dataclasses."""
    if not isinstance(facts, dict):
        raise ValueError(f"{path}: {kind.__name__} is {facts!r:.80}, not a table -> see {FILES}")
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in facts.items()}
    if kind is Experiment:
        rows = facts.get("row", [])
        values["row"] = tuple(_built(Row, row, path) for row in (rows if isinstance(rows, list) else [rows]))
        values |= {key: _built(Setting, facts.get(key, {}), path) for key in ("embedded", "ego4d")}
    return from_json(kind, values, path, f"see {FILES} for examples")


def plan(experiment: Experiment, setting: Setting, world: str | None, extra: Sequence[str] = (),
         start: Path | None = None) -> list[Prediction]:
    """All predictions of an experiment on one world, seed by seed, rows in their order.

    Args:
        world: preset of the embedded world; None: the data set that `extra` or data/ gives.
        extra: flags of train.py for every run.
        start: weights that replace the setting's own start, such as a Gaze360 file.

    Raises:
        ValueError: two rows are the same run.
    """
    data = ("--preset", world) if world else ()
    predictions: dict[Path, Prediction] = {}
    for seed in setting.seeds:
        for row in experiment.row:
            before: Run | Path | None = start
            for flags in () if start else setting.start:
                # without the row's seed, so that all rows and seeds share it
                before = _run((*data, *shlex.split(flags), *shlex.split(row.start_flags), *extra), before)
            flags = (*data, "--seed", str(seed), *shlex.split(setting.flags), *shlex.split(row.flags), *extra)
            new = Prediction(row.name, seed, _run(flags, before), setting.split, tuple(shlex.split(row.infer)))
            if new.file in predictions:
                raise ValueError(f"{experiment.name}: rows {predictions[new.file].row!r} and {row.name!r} are the same "
                                 "run under these flags -> change or remove one of them")
            predictions[new.file] = new
    return list(predictions.values())


@functools.cache                                                     # many rows share their start
def _run(flags: tuple[str, ...], start: Run | Path | None) -> Run:
    from gazepose.config import asdict, parse_train

    config, source = parse_train(flags)
    version = source.version()
    name = f"{config.model.model}-{fingerprint(asdict(config), start_name(start), version)[:10]}"
    pictures = config.prepare.crops_from                # with --data, infer.py would take the first that exists
    data = ("--data", str(source.root), *(("--crops_from", pictures) if pictures else ()))
    return Run(flags, POOL / name, start, data, version)


def start_name(start: Run | Path | None) -> str | None:
    """The name of a start in a fingerprint: a run's folder, whose name has a fingerprint too, or a file's SHA-256."""
    if isinstance(start, Run):
        return start.folder.name
    if start is None:
        return None
    return sha256_of(weights_folder(start) / WEIGHTS if start.is_dir() else start)


def fingerprint(config: Mapping[str, Any], start: str | None, version: int | None = None) -> str:
    """SHA-256 of a run's start, its world's version, and the values in its configuration that change what it learns.

    Without a start of its own a run has the package's weights, where its flags allow them. A value at its default is
    not counted, so that a new flag does not rename older runs. Nor is a flag that no longer exists: if an older run had
    changed it, the run's name, which counted it, differs from this fingerprint.

    Args:
        config: `asdict` of a TrainConfig, or a run's config.json.
    """
    from gazepose.config import TrainConfig, asdict

    differing = {}
    for section, default in asdict(TrainConfig()).items():
        content = config.get(section)
        recorded = content if isinstance(content, dict) else {}          # a damaged record has another fingerprint
        if recorded.get("pretrained") is False:                          # how older runs wrote its default
            recorded = {**recorded, "pretrained": None}
        differing[section] = {name: value for name, value in recorded.items()
                              if name in default and name not in NOT_COUNTED.get(section, ())
                              and json.dumps(value) != json.dumps(default[name])}
    return digest([differing, start or package_start(config), *(() if version is None else (version,))])


def package_start(config: Mapping[str, Any]) -> str | None:
    """SHA-256 of the package's start weights, and how their crops are smoothed, if a run with this configuration takes
    them; None if not."""
    run, model = (value if isinstance(value := config.get(name), dict) else {} for name in ("run", "model"))
    takes = takes_package(run.get("checkpoint"), run.get("pretrained"), model.get("behaviour"))
    card = start_card(str(model.get("backbone"))) if takes else None
    return (f"{card.sha256} {card.low_pass}" if card.low_pass else card.sha256) if card else None


def digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
