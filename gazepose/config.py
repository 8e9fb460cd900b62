"""The flags of train.py and infer.py: dataclasses whose strings are the help; their defaults; parsing.

A section lives beside its owner (ModelConfig in models/gazepose.py, OptimConfig in optim.py); the rest is here.
"""

import dataclasses
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import torch
import tyro

from gazepose.compat.flags import translate
from gazepose.data.clip_crops import CropsFrom
from gazepose.data.prepare import Disk, PrepareConfig
from gazepose.data.quality import Scale
from gazepose.models.gazepose import ModelConfig, ModelName
from gazepose.source import Source, find_source
from gazepose.training.optim import OptimConfig

PLAIN_FLAGS = (tyro.conf.OmitArgPrefixes, tyro.conf.UseAppendAction)
"""flags without the name of their section; --rule may be given several times"""
Preset = Literal["tiny", "default", "hard", "lowquality"]
LEARNING_RATES = {"GazePose": 1e-4, "GazeLSTM": 5e-5, "BaselineLSTM": 5e-4, "FaceGaze": 1e-3}
"""the published settings, and what was measured for the embedded world's own pre-training"""


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which rows, and how they become windows."""

    data: Path | None = None
    """data set in the Ego4D layout; default: data/ if Ego4D is there, else the embedded world"""
    preset: Preset = "default"
    """which embedded world"""
    world_seed: int = 0
    """seed of the embedded world"""
    train_stride: int = 3
    """every how many positions of a track are learnt from"""
    val_stride: int = 13
    """every how many positions of a validation track are scored"""
    test_stride: int = 1
    """every how many crops of a test track are scored"""
    windows_per_segment: int = 8
    """neighbouring windows of a track that share their frames in training; 1: the ordinary pipeline, as behaviour
    published has it always"""
    gaussian_drop: Annotated[bool, tyro.conf.arg(aliases=["--Gaussiandrop"])] = False
    """Gaussian Temporal Dropout: leave out neighbouring frames of low quality"""
    quality_scale: Scale = "variance"
    """what the Gaussian is fitted to: the Laplacian variance (published) or its log; given: imported p, no fit"""
    quality_from: Literal["train", "split"] = "train"
    """whose fit turns quality into p in validation and test: the training split's, or the scored split's own"""
    flip: bool = True
    """mirror half of the training segments, with their priors"""
    random_crop: bool = True
    """cut training segments at random (80 to 100 % of the area), with their landmarks"""
    cache_features: bool = False
    """with --freeze_backbone: compute what the backbone gives for each crop once, keep it beside the prepared crops (in
    features/, which may be deleted), and train and score from there. It is of whole, unmirrored crops, so --flip and
    --random_crop, which are of pixels, are off"""
    limit: int | None = None
    """use only this many rows of each split, evenly spread; outputs are marked partial"""
    num_workers: int = 0
    """loader processes beside each training process"""

    def __post_init__(self) -> None:
        if min(self.train_stride, self.val_stride, self.test_stride, self.windows_per_segment) < 1:
            raise ValueError("strides and --windows_per_segment -> give 1 or more")
        if not 0 <= self.world_seed < 1 << 63:
            raise ValueError(f"--world_seed {self.world_seed} -> give 0 to 2**63 - 1")
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"--limit {self.limit} -> give 1 or more rows")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One training run."""

    task: Literal["lam", "gaze"] = "lam"
    """lam: is the camera wearer looked at; gaze: where the person looks (pre-training)"""
    gaze_loss: float | None = None
    """weight of the gaze loss over rows whose gaze is known; default 0 for lam, 1 for gaze"""
    label_loss: float | None = None
    """weight of the label's loss; default 1 for lam, 0 for gaze"""
    train_on: Literal["train", "stills"] | None = None
    """rows to learn from; default: stills (embedded world) for gaze, else the training clips"""
    mesh: bool = False
    """load the landmark prior; implied by --prior_landmark, kept for the guide's commands"""
    weights: tuple[float, float] | None = None
    """class weights of not looking and looking; default: from the training labels"""
    epochs: int = 10
    """times every training row is used"""
    batch_size: int = 64
    """windows per step and process; the global size is printed"""
    gradient_accumulation_steps: int = 1
    """batches per optimiser step"""
    checkpoint: Path | None = None
    """start from these weights: one of our runs or checkpoint folders, or a published file"""
    exp_path: Annotated[Path | None, tyro.conf.arg(aliases=["--train_path"])] = None
    """run folder; default runs/<model>-<time>"""
    resume: bool = False
    """continue the run of --exp_path from its newest whole checkpoint, in the middle of an epoch too"""
    elastic: bool = False
    """resume on another number of processes: every window is still learnt from once per epoch, with other sums"""
    save_every: int | None = None
    """also save after every so many steps"""
    save_minutes: float = 15.0
    """also save after so many minutes; 0: only at the end of an epoch and when asked to stop"""
    seed: int = 0
    """of everything random"""
    mixed_precision: Literal["no", "fp16", "bf16"] | None = None
    """default: what `accelerate launch` says"""
    compile: bool = False
    """torch.compile the model"""
    sync_batchnorm: bool = False
    """BatchNorm over the windows of all processes together (GPUs only); off: each takes its own"""
    gradient_compression: Literal["no", "fp16", "bf16", "powersgd"] = "no"
    """exchange gradients in fewer bytes: half of them, or rank 1 after 1,000 whole steps (powersgd, which a resumed run
    starts anew)"""
    log_with: Literal["tensorboard", "wandb", "trackio"] | None = None
    """also log there, through Accelerate's trackers; metrics.jsonl is always written"""
    expect_world: int | None = None
    """refuse to run unless this many processes were started"""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "gradient_accumulation_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name} {getattr(self, name)} -> give 1 or more")
        if not 0 <= self.seed < 1 << 63:
            raise ValueError(f"--seed {self.seed} -> give 0 to 2**63 - 1")
        if not all(math.isfinite(weight) for weight in (self.gaze_weight, self.label_weight, *(self.weights or ()))):
            raise ValueError("--gaze_loss, --label_loss, --weights -> give finite weights")
        if self.label_weight <= 0 and self.gaze_weight <= 0:
            raise ValueError("--label_loss 0 --gaze_loss 0 -> nothing to learn; give one of them a weight")
        if self.weights is not None and min(self.weights) < 0:
            raise ValueError(f"--weights {self.weights} -> give two weights of 0 or more")
        if self.save_every is not None and self.save_every < 1:
            raise ValueError(f"--save_every {self.save_every} -> give 1 or more steps")
        if self.save_minutes < 0:
            raise ValueError(f"--save_minutes {self.save_minutes} -> give minutes, or 0")
        if self.resume and self.exp_path is None:
            raise ValueError("--resume -> name the run's folder with --exp_path")
        if self.elastic and not self.resume:
            raise ValueError("--elastic -> it goes with --resume")

    @property
    def gaze_weight(self) -> float:
        return self.gaze_loss if self.gaze_loss is not None else float(self.task == "gaze")

    @property
    def label_weight(self) -> float:
        return self.label_loss if self.label_loss is not None else float(self.task == "lam")

    @property
    def rows_of(self) -> str:
        return self.train_on or ("stills" if self.task == "gaze" else "train")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Train GazePose or a baseline to tell who looks at the camera wearer."""

    model: ModelConfig = field(default_factory=ModelConfig)
    prepare: PrepareConfig = field(default_factory=PrepareConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    run: RunConfig = field(default_factory=RunConfig)

    def __post_init__(self) -> None:
        if self.data.cache_features and not self.optim.freeze_backbone:
            raise ValueError("--cache_features: what a backbone gives changes while it learns -> add --freeze_backbone")
        if self.data.cache_features and self.prepare.crops == "video":
            raise ValueError("--cache_features wants crops that are there -> give --crops shards")


@dataclass(frozen=True, kw_only=True)
class ExpectedModel:
    """The model options that the guide repeats at inference: the checkpoint decides, what is given must agree."""

    model: ModelName | None = None
    """the network"""
    backbone: str | None = None
    """its timm network"""
    prior_head: tyro.conf.FlagCreatePairsOff[bool] = False
    """whether the head pose is a query; without the flag whatever the checkpoint has"""
    prior_landmark: tyro.conf.FlagCreatePairsOff[bool] = False
    """whether the landmarks are queries; without the flag whatever the checkpoint has"""
    mesh: tyro.conf.FlagCreatePairsOff[bool] = False
    """load the landmark prior; implied by --prior_landmark, kept for the guide's commands"""
    dsplit: float | None = None
    """crop widths per landmark cell"""
    csplit: float | None = None
    """landmark confidence per bin"""
    num_encoder_layers: int | None = None
    """transformer layers that read the feature map"""
    num_decoder_layers: int | None = None
    """transformer layers that answer the queries"""
    dmodel: int | None = None
    """width of the transformer"""
    dim_feedforward: int | None = None
    """width of its feed-forward layers"""
    nheads: int | None = None
    """attention heads"""

    def given(self) -> dict[str, Any]:
        """Options that were given, by their names in ModelConfig."""
        return {name: value for name, value in vars(self).items() if name != "mesh" and value not in (None, False)}


@dataclass(frozen=True, kw_only=True)
class InferConfig:
    """Score every face of a split with a trained model; write pred.csv and the submission JSON."""

    split: str | None = None
    """val (the default) or test; beside --val or --eval also the guide's degrees per head pose bin"""
    val: bool = False
    """the guide's name for --split val"""
    eval: bool = False
    """the guide's name for --split test"""
    to_json: bool = False
    """also write the evaluation server's JSON (test)"""
    checkpoint: Path | None = None
    """a run, one of its checkpoints, or a published file; default: the newest finished run under runs/"""
    exp_path: Path | None = None
    """where pred/ goes; default: the run's folder"""
    data: Path | None = None
    """data set; default: the one the checkpoint was trained on"""
    policy: Literal["clean", "baseline"] | None = None
    """annotation policy; default: the checkpoint's, with the rules it was trained under"""
    rule: tuple[str, ...] = ()
    """NAME=VALUE: change one rule of the policy; may be given several times"""
    crops_from: CropsFrom | None = None
    """faces from videos/, video_imgs/ or face_imgs/; default: as in training, with --data the first that is there"""
    crops: Literal["shards", "video"] | None = None
    """shards, or video: cut out of the clips while they are scored; default: as in training"""
    decoder: Literal["decord", "pyav"] | None = None
    """what reads the videos; default: as in training"""
    gaussian_drop: Annotated[bool, tyro.conf.arg(aliases=["--Gaussiandrop"])] = False
    """Gaussian Temporal Dropout, also where the checkpoint was trained without"""
    stride: int | None = None
    """every how many positions are scored; default: the checkpoint's for that split"""
    val_stride: int | None = None
    """the same where val is scored"""
    test_stride: int | None = None
    """the same where test is scored; above 1 the outputs are marked partial"""
    batch_size: int = 64
    """windows per batch and process"""
    quality_from: Literal["train", "split"] | None = None
    """whose fit turns quality into p: the training split's or the scored split's own; default: the checkpoint's"""
    num_workers: int | None = None
    """loader processes; default: the checkpoint's"""
    cache_features: bool = False
    """compute the backbone's features of these faces once and keep them, as in training; without the flag, those that a
    training with it has left are used"""
    data_disk: Disk | None = None
    """whether all machines see one disk; default: the checkpoint's"""
    max_bad_fraction: float | None = None
    """of a split's clips whose video is missing, damaged or cut short; default: the checkpoint's"""
    limit: int | None = None
    """score only this many rows; outputs are marked partial"""
    flip_average: bool = False
    """the score is the mean over a picture and its mirror; costs twice the model's time"""
    mixed_precision: Literal["no", "fp16", "bf16"] | None = None
    """default: what `accelerate launch` says"""
    report: bool = False
    """also write the run's report: curves, precision-recall, a timeline of one track"""

    expected: ExpectedModel = field(default_factory=ExpectedModel)

    def __post_init__(self) -> None:
        for name in ("stride", "val_stride", "test_stride", "batch_size", "limit"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"--{name} {value} -> give 1 or more")
        if self.cache_features and self.flip_average:
            raise ValueError("--cache_features --flip_average -> give one of them: features have no mirror")
        if not 0 <= (self.max_bad_fraction or 0) <= 1:
            raise ValueError(f"--max_bad_fraction {self.max_bad_fraction} -> give 0 to 1")

    @property
    def split_name(self) -> str:
        """val or test.

        Raises:
            ValueError: neither, or two that contradict each other.
        """
        named = {name for name, on in (("val", self.val), ("test", self.eval)) if on}
        if self.split is not None and self.bins is None:
            named.add(self.split)
        if self.bins is not None and not named:
            raise ValueError(f"--split {self.split} -> give val or test, or --val or --eval beside the number")
        if not named <= {"val", "test"}:
            raise ValueError(f"--split {self.split} -> give val or test")
        if len(named) > 1:
            given = [f"--{name}" for name in ("val", "eval") if getattr(self, name)]
            given += [] if self.split is None or self.bins is not None else [f"--split {self.split}"]
            raise ValueError(f"{' and '.join(given)} contradict each other -> give one split (--eval is the test set)")
        return named.pop() if named else "val"

    def stride_of(self, split: str) -> int | None:
        """The stride asked for; one for the other split says nothing."""
        return self.stride or {"val": self.val_stride, "test": self.test_stride}[split]

    def preparation(self, trained: PrepareConfig) -> PrepareConfig:
        """How the rows to score are prepared: as for the training, with what was given here changed.

        Rules are those of the policy: with another --policy, the checkpoint's rules are not used.
        """
        given = {name: value for name in ("policy", "crops", "decoder", "data_disk", "max_bad_fraction")
                 if (value := getattr(self, name)) is not None}
        rules = () if self.policy else trained.rule
        crops_from = self.crops_from or (None if self.data else trained.crops_from)
        return replace(trained, **given, rule=(*rules, *self.rule), crops_from=crops_from)

    @property
    def bins(self) -> float | None:
        """Degrees per head pose bin, where the guide's number was given."""
        try:
            return None if self.split is None else float(self.split)
        except ValueError:
            return None

    def must_agree(self, trained: Mapping[str, Any], start: Path) -> None:
        """Model options given on the command line against those of the checkpoint.

        Raises:
            ValueError: naming those that differ.
        """
        given = self.expected.given() | ({} if self.bins is None else {"split": self.bins})
        differing = {name: value for name, value in given.items() if trained[name] != value}
        if differing:
            asked = " ".join(f"--{name}" if value is True else f"--{name} {value}" for name, value in differing.items())
            has = ", ".join(f"{name} {trained[name]}" for name in differing)
            raise ValueError(f"{asked}, but {start} has {has} -> leave the flags out: the checkpoint knows its model; "
                             "or give another --checkpoint")


def train_defaults(asked: TrainConfig, embedded: bool, gpu: bool) -> TrainConfig:
    """Defaults that depend on the data, the device, the task, the model and its behaviour (README, Defaults)."""
    gaze = asked.run.task == "gaze"
    name: ModelName = "FaceGaze" if gaze and asked.model.model == "GazePose" else asked.model.model
    lr, published = LEARNING_RATES[name], asked.model.behaviour == "published"
    schedule = "epoch" if published else "step"
    if not embedded:
        return TrainConfig(model=ModelConfig(model=name), data=DataConfig(num_workers=8 if gpu else 2),
                           optim=OptimConfig(lr=lr, schedule=schedule))
    optim = OptimConfig(lr=lr if gaze else 5 * lr, schedule=schedule, warmup=0.0 if published else 0.1,
                        weight_decay=0.05, clip=1.0)
    if gpu:
        return TrainConfig(model=ModelConfig(model=name, output_stride=16), optim=optim, run=RunConfig(epochs=10),
                           prepare=PrepareConfig(crop_size=96), data=DataConfig(val_stride=3, num_workers=4))
    small = ModelConfig(model=name, output_stride=16, num_encoder_layers=1, num_decoder_layers=1, dmodel=256,
                        dim_feedforward=512)
    return TrainConfig(model=small, prepare=PrepareConfig(crop_size=64), data=DataConfig(val_stride=3), optim=optim,
                       run=RunConfig(epochs=2, batch_size=32))


Config = TypeVar("Config", TrainConfig, InferConfig)


@contextmanager
def readable_errors() -> Iterator[None]:
    """Faults of flags, files and data end the program with their message alone; other errors keep their traceback."""
    try:
        yield
    except ConnectionError:                      # between our own processes: the traceback says where
        raise
    except (ValueError, OSError, EOFError, ImportError) as error:
        raise SystemExit(f"error: {error}") from None


def parse(kind: type[Config], args: Sequence[str] | None = None, default: Config | None = None) -> Config:
    """Flags to a configuration; a mistyped flag ends the program with the nearest names."""
    try:
        args, said = translate(sys.argv[1:] if args is None else args, "infer" if kind is InferConfig else "train")
        for line in said if os.environ.get("RANK", "0") == "0" else ():
            print(line, file=sys.stderr)
        parsed = tyro.cli(kind, args=args, default=default, config=PLAIN_FLAGS, use_underscores=True)
    except ValueError as error:
        raise SystemExit(f"error: {error}") from None
    assert parsed is not None
    return parsed


def parse_train(args: Sequence[str] | None = None) -> tuple[TrainConfig, Source]:
    """Flags of train.py and the data set they mean; --help shows the defaults that hold here and now."""
    args = list(sys.argv[1:] if args is None else args)
    asked = parse(TrainConfig, [arg for arg in args if arg not in ("-h", "--help")])
    with readable_errors():
        source = find_source(asked.data.data, asked.data.preset, asked.data.world_seed)
        args, _ = translate(args, "train")                           # what it left out has been said once
    config = parse(TrainConfig, args, train_defaults(asked, source.preset is not None, torch.cuda.is_available()))
    data = config.data
    if data.cache_features:                                              # flips and crops are of pixels
        data = replace(data, flip=False, random_crop=False)
    # a loss on the gaze needs its head, and a head without a loss would have no gradient
    model = replace(config.model, gaze_head=config.run.gaze_weight > 0, image_size=config.prepare.crop_size)
    return replace(config, model=model, data=data), source


def asdict(config: Any) -> dict[str, Any]:
    """A configuration as JSON values."""
    return {key: str(value) if isinstance(value, Path) else asdict(value) if dataclasses.is_dataclass(value) else value
            for key, value in ((f.name, getattr(config, f.name)) for f in dataclasses.fields(config))}
