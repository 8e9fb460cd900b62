"""The flags of training and inference: dataclasses whose strings are the help; their defaults; parsing.

A section lives beside its owner (models/config.py, data/config.py, training/config.py and run_config.py, the guide's
flags in compat/flags.py); the rest is here. None of them imports torch, so that --help and wrong flags need no seconds.
"""

import dataclasses
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
import tyro

from gazepose.compat.flags import GuideInference, GuideTraining, older_record, translate
from gazepose.data.clip_files import CropsFrom
from gazepose.data.config import Decoder, Disk, PrepareConfig, Scale, WindowConfig
from gazepose.data.index import Index
from gazepose.errors import UsageError, readable_errors
from gazepose.io import read_object
from gazepose.machine import has_gpu
from gazepose.models.config import ModelConfig, ModelName
from gazepose.output import quiet_in_help, take_quiet
from gazepose.records import from_json
from gazepose.source import Source, find_source
from gazepose.startup import called
from gazepose.training.config import EMBEDDED_RATES, GAZE_TASKS, KEEPING_RATES, LEARNING_RATES, OptimConfig
from gazepose.training.provenance import check_copy, is_own_run, of_copy
from gazepose.training.run_config import CONFIG, MAY_CHANGE, ONE_START, SECTIONS, RunConfig, differing
from gazepose.training.shipped_start import default_card

PLAIN_FLAGS = (tyro.conf.OmitArgPrefixes, tyro.conf.UseAppendAction)
"""flags without the name of their section; --rule may be given several times"""
Value = TypeVar("Value")
NotAFlag = tyro.conf.Suppress[tyro.conf.Fixed[Value]]    # type: ignore[valid-type]
"""a setting that follows from other flags or from the data: not in --help, refused on the command line"""
def as_trained(flag: str) -> Any:
    """A boolean flag of inference that is None, as in training, until --flag or --no_flag is given."""
    return tyro.conf.arg(metavar="", aliases=[f"--no_{flag}"], help_behavior_hint="(default: as in training)")


Config = TypeVar("Config", "TrainConfig", "InferConfig")
Preset = Literal["tiny", "default", "hard", "lowquality", "temporal"]


@dataclass(frozen=True, kw_only=True)
class DataConfig(WindowConfig):
    """Which rows, and how they become windows."""

    data: Path | None = None
    """data set in the Ego4D layout; default: data/ if Ego4D is there, else the embedded world"""
    preset: Preset = "default"
    """which embedded world, if there is no other data"""
    train_stride: int = 3
    """train on every n-th position of a track"""
    val_stride: int = 13
    """score every n-th position of a validation track"""
    test_stride: int = 1
    """score every n-th crop of a test track; inference takes it from the checkpoint"""
    quality_from: NotAFlag[Literal["train", "split"]] = "train"
    """whose Gaussian fit turns quality into p in validation and test: of train"""
    cache_features: bool = False
    """with --freeze_backbone: compute the backbone's features of each crop once and store them in the prepared folder's
    features/ (you may delete it), and train and score from them. Features are made from whole, unmirrored crops, so
    --flip and --random_crop are off"""
    limit: int | None = None
    """use only this many rows of each split, evenly spread"""
    num_workers: int = 0
    """loader processes of each training process; 0: batches are loaded in the training process"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.train_stride, self.val_stride, self.test_stride) < 1:
            raise ValueError("a stride is below 1 -> give 1 or more")
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"--limit {self.limit} -> give 1 or more rows")


@dataclass(frozen=True, kw_only=True)
class ModelFlags(ModelConfig):
    """The network."""

    image_size: NotAFlag[int | None] = None
    """--crop_size"""
    low_pass: NotAFlag[float] = 0.0
    """that of the start weights"""
    gaze_head: NotAFlag[bool] = False
    """on with a gaze loss: without its head there is none, and a head without a loss has no gradient"""
    unsigned_pose: NotAFlag[bool] = False
    dropout: NotAFlag[float] = 0.1
    reach: NotAFlag[int] = 3
    reader: NotAFlag[bool] = False
    window_reader: NotAFlag[bool] = False
    """both on for GazePose with behaviour intended"""


@dataclass(frozen=True, kw_only=True)
class OptimFlags(OptimConfig):
    """Optimisation."""

    backbone_lr: NotAFlag[float] = 1.0
    schedule: NotAFlag[Literal["step", "epoch"]] = "step"
    """epoch with --behaviour published"""
    warmup: NotAFlag[float] = 0.0
    """a tenth of the steps on the embedded world"""
    weight_decay: NotAFlag[float] = 0.0
    """0.05 on the embedded world"""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Train GazePose or a baseline to tell who looks at the camera wearer."""

    model: ModelFlags = field(default_factory=ModelFlags)
    prepare: PrepareConfig = field(default_factory=PrepareConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimFlags = field(default_factory=OptimFlags)
    run: RunConfig = field(default_factory=RunConfig)
    guide: GuideTraining = field(default_factory=GuideTraining)

    def __post_init__(self) -> None:
        if self.data.cache_features and not self.optim.freeze_backbone:
            raise ValueError("--cache_features: the features change when the backbone is trained -> add "
                             "--freeze_backbone")
        if self.data.cache_features and self.prepare.crops == "video":
            raise ValueError("--cache_features needs prepared crops -> give --crops shards")


@dataclass(frozen=True, kw_only=True)
class InferConfig:
    """Score every face of a split with a trained model; write pred.csv and the submission JSON."""

    split: str | None = None
    """val (the default) or test; with --val or --eval it may be the guide's number of degrees per head pose bin"""
    to_json: bool = False
    """also write the evaluation server's JSON (test)"""
    checkpoint: Path | None = None
    """a run, one of its checkpoints, a published file, or hf:OWNER/NAME[@REVISION]; default: the newest finished run
    under runs/"""
    exp_path: Path | None = None
    """folder in which pred/ is written; default: the run's folder"""
    data: Path | None = None
    """data set; default: the one the checkpoint was trained on, if the checkpoint was written here; a copy from
    elsewhere names no folder outside data/"""
    policy: Literal["clean", "baseline"] | None = None
    """annotation policy; default: the checkpoint's, with the rules of its training"""
    rule: tuple[str, ...] = ()
    """NAME=VALUE: change one rule of the policy; may be given several times"""
    crops_from: CropsFrom | None = None
    """videos/, video_imgs/ or face_imgs/; default: as in training, or with --data the first of them that exists"""
    crops: Literal["shards", "video"] | None = None
    """shards: prepared crops; video: cut out of the clips while they are scored; default: as in training"""
    decoder: Decoder | None = None
    """library that reads the videos; default: as in training, but pyav where decord cannot be loaded"""
    gaussian_drop: Annotated[bool | None, as_trained("gaussian_drop")] = None
    """Gaussian Temporal Dropout (--Gaussiandrop)"""
    allow_unknown_priors: Annotated[bool | None, as_trained("allow_unknown_priors")] = None
    """score with a model that uses priors also on data without them, as unknown"""
    stride: int | None = None
    """score every n-th position of a track; default: the checkpoint's for its own data set, and 1 for other data"""
    batch_size: int = 64
    """windows per batch and process"""
    quality_scale: Scale | None = None
    """fit the Gaussian to the Laplacian variance or to its log; given: use the imported p; default: the checkpoint's"""
    quality_from: Literal["train", "split"] | None = None
    """whose Gaussian fit turns quality into p: of train, or of the split that is scored; default: the checkpoint's"""
    num_workers: int | None = None
    """loader processes; default: the checkpoint's; of a copy from elsewhere, none"""
    cache_features: Annotated[bool | None, as_trained("cache_features")] = None
    """compute the backbone's features of these faces once and store them; without the flag, stored features are used if
    the checkpoint was trained on features"""
    data_disk: Disk | None = None
    """shared: all machines see one disk; local: each has its own; default: the checkpoint's"""
    max_bad_fraction: float | None = None
    """stop if more than this part of a split's clips is missing, damaged or cut short; default: the checkpoint's"""
    limit: int | None = None
    """score only this many rows; outputs are marked partial"""
    flip_average: bool = False
    """average the scores of each picture and its mirror image; the model takes twice the time"""
    mixed_precision: Literal["no", "fp16", "bf16"] | None = None
    """precision of the model; default: that of `accelerate launch`"""
    report: bool = False
    """also write the report of the run: curves, precision and recall, a timeline of one track"""

    guide: tyro.conf.FlagCreatePairsOff[GuideInference] = field(default_factory=GuideInference)

    def __post_init__(self) -> None:
        for name in ("stride", "batch_size", "limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"--{name} {value} -> give 1 or more")
        self.guide.split_name(self.split)
        if self.cache_features and self.flip_average:
            raise ValueError("--cache_features --flip_average: features of mirrored crops are not stored -> leave one "
                             "of the flags out")
        if not 0 <= (self.max_bad_fraction or 0) <= 1:
            raise ValueError(f"--max_bad_fraction {self.max_bad_fraction} -> give 0 to 1")

    def preparation(self, trained: PrepareConfig) -> PrepareConfig:
        """How the rows to score are prepared: as for the training, with the flags given here in place.

        Rules belong to their policy: with another --policy, the checkpoint's rules are not used.
        """
        names = ("policy", "crops", "decoder", "data_disk", "max_bad_fraction")
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        if self.decoder is None and trained.decoder == "decord":         # the default of earlier versions
            given["decoder"] = "auto"
        rules = () if self.policy else trained.rule
        crops_from = self.crops_from or (None if self.data else trained.crops_from)
        return replace(trained, **given, rule=(*rules, *self.rule), crops_from=crops_from)

    def windows(self, trained: DataConfig) -> DataConfig:
        """How rows become windows: as for the training, with the flags given here in place."""
        drop = trained.gaussian_drop if self.gaussian_drop is None else self.gaussian_drop
        return replace(trained, gaussian_drop=drop,
                       quality_scale=self.quality_scale or trained.quality_scale,
                       quality_from=self.quality_from or trained.quality_from)


SWITCHES = {f"--{no}{name}": (f"--{no}{name}", str(not no)) for no in ("", "no_")
            for name in ("gaussian_drop", "allow_unknown_priors", "cache_features")}
"""flags as they are given -> as tyro reads them"""
DAMAGED = "written by another version, or damaged: copy the file from a checkpoint of the run"


def read_config(file: Path) -> tuple[TrainConfig, dict[str, Any]]:
    """The flags of a run, without those of one start only (ONE_START), and all of its config.json.

    Raises:
        FileNotFoundError, ValueError: there is no such file, or it is damaged.
    """
    record = read_object(file, missing="name a run, or its config.json", remedy=DAMAGED)
    if "run" in record:
        record["run"] = older_record(record["run"])
    kinds = {"model": ModelFlags, "prepare": PrepareConfig, "data": DataConfig, "optim": OptimFlags, "run": RunConfig}
    sections: dict[str, Any] = {name: from_json(kind, record.get(name), file, DAMAGED) for name, kind in kinds.items()}
    for name, form in (("root", str), ("fingerprint", dict), ("priors_read", dict), ("changes", list)):
        if not isinstance(record.get(name, form()), form):
            raise ValueError(f"{file}: {name} {record[name]!r:.60} is not of its kind -> {DAMAGED}")
    one_start = {name: getattr(RunConfig(), name) for name in ONE_START}
    return TrainConfig(**{**sections, "run": replace(sections["run"], **one_start)}), record


def source_of(given: Path | None, trained: DataConfig, record: Mapping[str, Any], file: Path) -> Source:
    """The data set that was given, or the one of a run.

    Args:
        trained: the run's flags of data; record: all of its config.json, whose path is `file`.

    Raises:
        FileNotFoundError: it is not where it was.
    """
    data, root = given or trained.data, record.get("root")
    if data is None:                             # the default may have changed since: Ego4D has come
        default = find_source(None, trained.preset)
        if not isinstance(root, str) or str(default.root) == root:
            return default
        data = Path(root)
    if given is None and not data.is_dir():
        raise FileNotFoundError(f"{data}: no such folder, but {file} names it as its data set -> give the data set's "
                                "place now with --data")
    return find_source(data, trained.preset)


def check_resumed(folder: Path, now: TrainConfig, *allowed: TrainConfig) -> None:
    """Refuse to resume a run with other flags than it has, except those in MAY_CHANGE.

    Args:
        allowed: configurations of the run; each flag must be as in one of them.

    Raises:
        UsageError: naming the flags that differ.
    """
    changes = [differing(asdict(before), asdict(now)) for before in allowed]
    refused = {name: values for name, values in changes[0].items()
               if name not in MAY_CHANGE and all(name in change for change in changes)}
    if refused:
        text = ", ".join(f"--{name} {new}, but the run has {old}" for name, (old, new) in refused.items())
        raise UsageError(f"{folder}: {text} -> leave these flags out to resume it, or start a new run: --config "
                         f"{folder} instead of --resume --exp_path {folder}")


def train_defaults(first: TrainConfig, embedded: bool, gpu: bool) -> TrainConfig:
    """Defaults that depend on the data, the device, the task, the model and its behaviour (README, Defaults)."""
    gaze = first.run.task in GAZE_TASKS
    name: ModelName = "FaceGaze" if gaze and first.model.model == "GazePose" else first.model.model
    lr, published, pixels = LEARNING_RATES[name], first.model.behaviour == "published", not first.data.cache_features
    schedule = "epoch" if published else "step"
    reads = name == "GazePose" and not published
    model = ModelFlags(model=name, reader=reads, window_reader=reads, output_stride=16 if embedded else 32)
    alone = not pixels and name.endswith("LSTM")         # batches of few tracks leave some at chance (docs/tried.md)
    data = DataConfig(flip=pixels, random_crop=pixels, windows_per_segment=1 if alone else 8)
    if not embedded:
        return TrainConfig(model=model, data=replace(data, num_workers=8 if gpu else 2),
                           optim=OptimFlags(lr=lr, schedule=schedule))
    shipped = default_card(first.run, first.model) is not None
    gentle = shipped and not first.optim.freeze_backbone             # a higher rate unlearns what the start has learnt
    rate = KEEPING_RATES[not gentle] if shipped and reads and pixels else lr if gentle else EMBEDDED_RATES[name]
    optim = OptimFlags(lr=rate, schedule=schedule, warmup=0.0 if published else 0.1, weight_decay=0.05, clip=1.0)
    data = replace(data, val_stride=3, augment="standard" if shipped and pixels else "off")
    if gpu:
        return TrainConfig(model=model, optim=optim, run=RunConfig(epochs=10), prepare=PrepareConfig(crop_size=96),
                           data=replace(data, num_workers=4))
    model = replace(model, num_encoder_layers=1, num_decoder_layers=1, dmodel=256, dim_feedforward=512)
    return TrainConfig(model=model, prepare=PrepareConfig(crop_size=64), data=data, optim=optim,
                       run=RunConfig(epochs=1 if gentle else 2, batch_size=32))


@readable_errors(usage=ValueError)
def parse(kind: type[Config], args: Sequence[str] | None = None, default: Config | None = None,
          first: bool = False) -> Config:
    """Flags to a configuration; a mistyped flag ends the program with the nearest names. first: that comes later."""
    program: Literal["train", "infer"] = "infer" if kind is InferConfig else "train"
    args, notes = translate(take_quiet(sys.argv[1:] if args is None else args), program)
    if os.environ.get("RANK", "0") == "0":
        for line in notes:
            print(line, file=sys.stderr)
    if kind is InferConfig:                      # tyro has no pair of flags whose default is None
        args = [word for arg in args for word in SWITCHES.get(f"--{arg[2:].replace('-', '_')}", (arg,))]
    file = Path(sys.argv[0])
    prog = f"{called()} {program}" if file.stem in ("gazepose", "__main__") else file.name
    options: dict[str, Any] = {"default": default, "return_unknown_args": first}
    with quiet_in_help(args):
        parsed = tyro.cli(kind, prog=prog, args=args, config=PLAIN_FLAGS, use_underscores=True, **options)
    return parsed[0] if first else parsed


@readable_errors()
def parse_train(args: Sequence[str] | None = None) -> tuple[TrainConfig, Source]:
    """Flags of training and the data set they mean; --help shows the defaults that hold here and now."""
    args = list(sys.argv[1:] if args is None else args)
    # read twice: the run, or the data set, the model and the task decide the defaults of the other flags
    first = parse(TrainConfig, [arg for arg in args if arg not in ("-h", "--help")], first=True)
    args, _ = translate(args, "train")                               # its notes are on the terminal already
    run = first.run.exp_path if first.run.resume else first.run.config
    file = run / CONFIG if run is not None and run.is_dir() else run
    if first.run.resume and run is not None and run.is_dir() and not is_own_run(run):
        check_copy(run)
    if file is None or (first.run.resume and not file.exists()):     # RunLog says what is wrong with such a run
        source = find_source(first.data.data, first.data.preset)
        config = parse(TrainConfig, args, train_defaults(first, source.preset is not None, has_gpu()))
    else:
        stated, record = read_config(file)
        before = stated if is_own_run(file.parent) else TrainConfig(**of_copy(
            {name: getattr(stated, name) for name in SECTIONS}, record, file, first.run.resume, first.data.data))
        config = parse(TrainConfig, args, before)
        if first.run.resume:
            check_resumed(file.parent, config, before, stated)
        source = source_of(first.data.data, config.data, record if config.data.preset == before.data.preset else {},
                           file)
    data = config.data
    if data.cache_features and (data.flip or data.random_crop or data.augment != "off"):
        raise UsageError("--cache_features with --flip, --random_crop or --augment: features are made from whole, "
                         "unmirrored crops -> leave --flip, --random_crop and --augment out")
    model = replace(config.model, gaze_head=config.run.gaze_weight > 0, image_size=config.prepare.crop_size)
    return replace(config, model=model), source


def check_priors(model: ModelConfig, index: Index, rows: np.ndarray, allow_unknown: bool) -> None:
    """Refuse to query with a prior that the data does not have: each of its faces would be the same unknown one.

    Raises:
        ValueError: `rows` have no known head pose with --prior_head, or no known landmark with --prior_landmark.
    """
    queries = (("head_pose", model.prior_head, index.head_pose, "--prior_head"),
               ("landmarks", model.prior_landmark, index.landmarks, "--prior_landmark"))
    for name, queried, column, flag in queries:
        if queried and len(rows) and not allow_unknown and not np.isfinite(column[rows]).any():
            raise ValueError(f"{flag}: {index.folder} has no {name.replace('_', ' ')} of these faces -> import it "
                             f"with `python -m gazepose priors import {name} FILE --data {index.folder}`, or add "
                             "--allow_unknown_priors")


def asdict(config: Any) -> dict[str, Any]:
    """A configuration as JSON values, without the guide's section: its flags change nothing."""
    return dataclasses.asdict(config, dict_factory=lambda items: {
        name: str(value) if isinstance(value, Path) else value for name, value in items if name != "guide"})
