"""Plan: an experiment file (TOML) becomes the runs it asks for, each known by the fingerprint of its configuration.

Nothing is run here. Two experiments that ask for the same run share it.
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

from gazepose.config import TrainConfig, asdict, parse_train
from gazepose.training.checkpoint import WEIGHTS, built, weights_folder

POOL = Path("runs/sweep")
PASSING = {"run": ("exp_path", "resume", "elastic", "save_every", "save_minutes", "log_with", "expect_world",
                   "checkpoint"),
           "prepare": ("data_disk", "decoder"), "data": ("num_workers",), "model": ("image_size",)}
"""what a configuration says that does not change what is learnt, or that follows from the rest"""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table: what differs from the other lines."""

    name: str
    flags: str = ""
    """of train.py, behind the setting's"""
    start_flags: str = ""
    """the same for the runs it starts from"""
    infer: str = ""
    """flags of infer.py"""
    published: dict[str, float] = field(default_factory=dict)
    """mAP and accuracy in percent on Ego4D, where they are published"""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How an experiment is run on one kind of data."""

    flags: str = ""
    """of train.py, for all rows"""
    worlds: tuple[str, ...] = ()
    """presets of the embedded world; empty: the data set that is there"""
    seeds: tuple[int, ...] = (0, 1, 2)
    split: Literal["val", "test"] = "val"
    """scored for the table; it needs labels, which Ego4D's test set does not have"""
    note: str = ""
    """what has to be known to read the table"""
    start: tuple[str, ...] = ()
    """flags of runs, each starting from the one before; all rows start from the last"""


@dataclass(frozen=True, kw_only=True)
class Experiment:
    name: str
    title: str
    question: str
    """what it is to answer"""
    claim: str = ""
    """what the paper says"""
    against: str
    """the row the others are compared with"""
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
    """the run, or the file, whose weights it starts from"""


@dataclass(frozen=True)
class Prediction:
    """A split scored with a run: one seed of a row."""

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
        return self.folder / "pred" / f"{self.split}.npz"


def read_experiment(path: Path) -> Experiment:
    """Raises ValueError for a file that is no experiment, naming what is wrong with it."""
    try:
        facts = tomllib.loads(path.read_text(encoding="utf-8"))
        experiment = _built(Experiment, {"name": path.stem, **facts}, path)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not TOML ({error}) -> see launch/experiments/ for examples") from None
    names = [row.name for row in experiment.row]
    if repeated := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"{path}: several rows are named {', '.join(sorted(repeated))} -> a name of its own for each")
    if experiment.against not in names:
        raise ValueError(f"{path}: against = {experiment.against!r} is no row -> one of {', '.join(names)}")
    return experiment


def _built(kind: type, facts: Mapping[str, Any], path: Path) -> Any:
    """A dataclass of a table of the file; lists become tuples, tables become dataclasses."""
    made = {key: tuple(value) if isinstance(value, list) else value for key, value in facts.items()}
    if kind is Experiment:
        made |= {"row": tuple(_built(Row, row, path) for row in facts.get("row", ())),
                 **{key: _built(Setting, facts.get(key, {}), path) for key in ("embedded", "ego4d")}}
    return built(kind, made, path, "see launch/experiments/ for examples")


def plan(experiment: Experiment, setting: Setting, world: str | None, extra: Sequence[str] = (),
         start: Path | None = None) -> list[Prediction]:
    """All predictions that an experiment wants on one world, seed by seed, rows in their order.

    Args:
        world: preset of the embedded world; None: the data set that `extra` or data/ gives.
        extra: flags of train.py for every run.
        start: weights that replace the setting's own start, such as a Gaze360 file.

    Raises:
        ValueError: two rows ask for the same thing.
    """
    data = ("--preset", world) if world else ()
    wanted: dict[Path, Prediction] = {}
    for seed in setting.seeds:
        for row in experiment.row:
            before: Run | Path | None = start
            for flags in () if start else setting.start:
                # of the first seed, whatever the row's: all rows and seeds share it
                before = _run((*data, *shlex.split(flags), *shlex.split(row.start_flags), *extra), before)
            flags = (*data, "--seed", str(seed), *shlex.split(setting.flags), *shlex.split(row.flags), *extra)
            made = Prediction(row.name, seed, _run(flags, before), setting.split, tuple(shlex.split(row.infer)))
            if made.file in wanted:
                raise ValueError(f"{experiment.name}: rows {wanted[made.file].row!r} and {row.name!r} are the same run "
                                 "under these flags -> change or remove one of them")
            wanted[made.file] = made
    return list(wanted.values())


@functools.cache                                                     # many rows share their start
def _run(flags: tuple[str, ...], start: Run | Path | None) -> Run:
    config, _ = parse_train(flags)
    name = f"{config.model.model}-{fingerprint(asdict(config), start_name(start))[:10]}"
    return Run(flags, POOL / name, start)


def start_name(start: Run | Path | None) -> str | None:
    """What a start is called in a fingerprint: a run by its folder's name, which holds its own, a file by its bytes."""
    if isinstance(start, Run):
        return start.folder.name
    if start is None:
        return None
    file = weights_folder(start) / WEIGHTS if start.is_dir() else start
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def fingerprint(config: Mapping[str, Any], start: str | None) -> str:
    """SHA-256 of everything in a run's configuration that changes what it learns, and of what it starts from.

    What is at the default of its class is not counted, so that a flag which comes later leaves older runs what they
    are.

    Args:
        config: as `asdict` of a TrainConfig gives it, or a run's config.json holds it.
    """
    plain = asdict(TrainConfig())
    said = {section: {key: value for key, value in config.get(section, {}).items()
                      if key not in PASSING.get(section, ())
                                            and json.dumps(value) != json.dumps(values.get(key))} for section, values in plain.items()}
    return digest([said, start])


def digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
