"""Command lines of the original guide and of older versions: options that are not flags of config.py any more.

Options without effect are left out with a line that says so. Options that would change the result end the program with
what to write instead. Options that repeat the checkpoint's model at inference must agree with it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from gazepose.data.tracks import Policy
from gazepose.errors import UsageError
from gazepose.models.config import ModelName

_LAUNCHER = "gazepose launch starts the processes"
_ONE_FOLDER = "the data set is one folder with json/, split/ and videos/ -> --data DIR"
_UNREAD = "the published code does not use it"
_TRAINING = "inference does not use it"
_INFERENCE = "is a flag of inference -> python -m gazepose infer --{} --checkpoint RUN"

LEFT_OUT = {
    "body": _UNREAD, "max_index": _UNREAD, "face_path": f"{_UNREAD}; faces come from the folder of --data",
    "input_size": f"{_UNREAD}; --crop_size sets the size of a face", "dist": _LAUNCHER, "rank": _LAUNCHER,
    "start_rank": _LAUNCHER, "world_size": _LAUNCHER, "init_method": _LAUNCHER, "backend": _LAUNCHER,
    "device_id": "CUDA_VISIBLE_DEVICES and accelerate launch choose the GPU",
}
"""the line to print for each; the program goes on without it"""
INSTEAD = {
    "source_path": _ONE_FOLDER, "json_path": _ONE_FOLDER, "gt_path": _ONE_FOLDER, "train_file": _ONE_FOLDER,
    "val_file": _ONE_FOLDER, "test_file": _ONE_FOLDER,
    "test_path": "the test crops are in the data set's folder videos_challenge/ -> --data DIR",
    "prior_path": "priors are columns of the prepared data -> import each file once, after `python -m gazepose prepare "
                  "--split SPLIT{data}`: `python -m gazepose priors import PRIOR {folder}/FILE.json{data}`; PRIOR is "
                  "head_pose, landmarks or quality_p",
}
"""what to write instead; the program ends"""
OTHERS = {
    "learning_rate": "lr", "lr0": "lr", "base_lr": "lr", "num_train_epochs": "epochs", "num_epochs": "epochs",
    "max_epochs": "epochs", "per_device_train_batch_size": "batch_size", "train_batch_size": "batch_size",
    "batch": "batch_size", "bs": "batch_size", "workers": "num_workers", "dataloader_num_workers": "num_workers",
    "output_dir": "exp_path", "save_dir": "exp_path", "project": "exp_path", "max_grad_norm": "clip",
    "clip_grad": "clip", "accumulate": "gradient_accumulation_steps", "amp": "mixed_precision",
    "fp16": "mixed_precision fp16", "bf16": "mixed_precision bf16", "report_to": "log_with", "wandb": "log_with wandb",
    "tensorboard": "log_with tensorboard", "resume_from_checkpoint": "resume --exp_path", "weights_path": "checkpoint",
    "finetune": "checkpoint", "data_dir": "data", "data_path": "data", "dataset": "data", "imgsz": "crop_size",
    "img_size": "crop_size", "model_ema": "ema 0.999", "model_ema_decay": "ema", "ema_decay": "ema",
    "save_steps": "save_every", "freeze": "freeze_backbone", "arch": "backbone", "torch_compile": "compile"}
"""flags of other trainers -> how the same is written here"""
SHARED = ("batch_size", "num_workers", "exp_path", "mixed_precision", "checkpoint", "data")
"""of these, what inference has too"""
NO_DEVICE = "the GPU is chosen by CUDA_VISIBLE_DEVICES=0 before the command; accelerate launch --cpu uses none"
ONLY_TRAINING = ("train_path", "train_stride", "epochs", "lr", "weights")
RULES = {rule.name: rule.type for rule in fields(Policy) if rule.name != "name"}
"""rules of a policy: --max_gap 30 becomes --rule max_gap=30"""
RENAMED = {"Gaussiandrop": "gaussian_drop", "no_Gaussiandrop": "no_gaussian_drop", "train_path": "exp_path"}
"""the guide's name -> ours"""
TASKS = {"lam train": "lam", "lam stills": "lam_stills", "gaze train": "gaze_clips", "gaze stills": "gaze"}
"""--task and --train_on of older versions -> --task"""
MERGED = {"train_on": "task", "save_minutes": "save_every", "expect_world": "processes", "elastic": "processes",
          "no_elastic": "processes", "from_scratch": "pretrained", "no_pretrained": "pretrained",
          "no_compile": "compile"}
"""flags of older versions -> the flag that says it now"""
ALONE = {"elastic": "any", "no_elastic": "any", "from_scratch": "no", "no_pretrained": "no", "no_compile": "no"}
"""those without a value -> the value now"""
MEANS_YES = ("--pretrained", "--compile")
"""flags that mean yes without a value"""


@dataclass(frozen=True, kw_only=True)
class GuideTraining:
    """Flags of the original guide."""

    mesh: bool = False
    """load the landmark prior; implied by --prior_landmark"""


@dataclass(frozen=True, kw_only=True)
class GuideInference:
    """Flags of the original guide. The checkpoint stores its model: flags of the model must agree with it."""

    val: bool = False
    """the same as --split val"""
    eval: bool = False
    """the same as --split test"""
    val_stride: int | None = None
    """the same as --stride, when val is scored"""
    test_stride: int | None = None
    """the same as --stride, when test is scored; above 1, the outputs are marked partial"""
    model: ModelName | None = None
    """the network"""
    backbone: str | None = None
    """its timm network"""
    prior_head: bool = False
    """the head pose is a query; without the flag: as in the checkpoint"""
    prior_landmark: bool = False
    """the landmarks are queries; without the flag: as in the checkpoint"""
    mesh: bool = False
    """load the landmark prior; implied by --prior_landmark"""
    dsplit: float | None = None
    """crop widths per landmark cell"""
    csplit: float | None = None
    """landmark confidence per bin"""
    num_encoder_layers: int | None = None
    """transformer layers of the encoder"""
    num_decoder_layers: int | None = None
    """transformer layers of the decoder"""
    dmodel: int | None = None
    """width of the transformer"""
    dim_feedforward: int | None = None
    """width of its feed-forward layers"""
    nheads: int | None = None
    """attention heads"""

    def __post_init__(self) -> None:
        for name in ("val_stride", "test_stride"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"--{name} {value} -> give 1 or more")

    def split_name(self, split: str | None) -> str:
        """val or test, from these flags and --split.

        Raises:
            ValueError: another split, or two that contradict each other.
        """
        named = {flag: name for flag, name, on in (("--val", "val", self.val), ("--eval", "test", self.eval)) if on}
        if bins_of(split) is not None and not named:
            raise UsageError(f"--split {split} -> give val or test, or --val or --eval beside the number")
        if split is not None and bins_of(split) is None:
            if split not in ("val", "test"):
                raise UsageError(f"--split {split} -> give val or test")
            named[f"--split {split}"] = split
        if len(set(named.values())) > 1:
            raise UsageError(f"{' and '.join(named)} contradict each other -> give one split (--eval is the test set)")
        return next(iter(named.values()), "val")

    def must_agree(self, trained: Mapping[str, Any], start: Path, split: str | None = None) -> None:
        """Compare the model options that were given with those of the checkpoint.

        Args:
            trained: the checkpoint's, by their names in ModelConfig.
            split: of --split, which may be the guide's degrees per head pose bin.

        Raises:
            ValueError: naming those that differ.
        """
        given = {name: value for name, value in vars(self).items()
                 if name in trained and value not in (None, False)}
        if bins_of(split) is not None:
            given["split"] = bins_of(split)
        differing = {name: value for name, value in given.items() if trained[name] != value}
        if differing:
            flags = " ".join(f"--{name}" if value is True else f"--{name} {value}" for name, value in differing.items())
            has = ", ".join(f"{name} {trained[name]}" for name in differing)
            raise UsageError(f"{flags}, but {start} has {has} -> leave the flags out, because the checkpoint stores "
                             "its model; or give another --checkpoint")


def bins_of(split: str | None) -> float | None:
    """The guide's degrees per head pose bin, if that is what --split is."""
    try:
        return None if split is None else float(split)
    except ValueError:
        return None


def translate(args: Sequence[str], program: Literal["train", "infer"]) -> tuple[list[str], list[str]]:
    """The arguments without options that have no counterpart, and a line for each of these.

    Raises:
        ValueError: an option that would change the result, with what to write instead.
    """
    left_out, instead = dict(LEFT_OUT), dict(INSTEAD)
    others = {name: flag for name, flag in OTHERS.items() if program == "train" or flag.split()[0] in SHARED}
    args, own = _own_checkpoint(args)
    given = {_name(arg) for arg in args}
    if program == "infer":
        left_out |= dict.fromkeys(ONLY_TRAINING, _TRAINING)
    else:
        instead |= {name: _INFERENCE.format(name) for name in ("val", "eval")}
        if "exp_path" in given:
            left_out["train_path"] = "a run has one folder, that of --exp_path"
        args, merged = _merged(args)
        own = [*own, *merged]
    rest, notes, dropping = [], own, False
    for arg in _spelt_out(args):
        name = _name(arg)
        if name is not None and name in others:
            raise ValueError(f"--{name} is no flag here -> write --{others[name]}")
        if name in ("device", "gpu", "gpus", "cuda", "no_cuda"):
            raise ValueError(f"--{name} is no flag here -> {NO_DEVICE}")
        if name is not None and name in instead:
            folder, data = _value(args, "prior_path") or "FOLDER", _value(args, "data")
            remedy = instead[name].format(folder=folder, data=f" --data {data}" if data else "")
            raise ValueError(f"--{name}: {remedy}")
        if name is None and dropping and arg != "-h":                     # a value of the option that was left out
            continue
        reason = None if name is None else left_out.get(name)
        dropping = reason is not None
        if dropping:
            notes.append(f"--{name} is ignored: {reason}")
        else:
            rest.append(arg if name not in RENAMED else f"--{RENAMED[name]}{arg[2 + len(name):]}")
    return rest, notes


def _spelt_out(args: Sequence[str]) -> Iterator[str]:
    """The same arguments, with --max_gap 30, --end_inclusive and --no_drop_outside as --rule NAME=VALUE, --resume RUN
    as --resume --exp_path RUN, and --pretrained or --compile alone with a yes."""
    arguments = iter(args)
    before = ""
    for arg in arguments:
        if before == "--resume" and not arg.startswith("-"):
            yield "--exp_path"
        if before in MEANS_YES and arg.startswith("-"):
            yield "yes"
        before = arg
        name = _name(arg) or ""
        rule = name.removeprefix("no_")
        if rule not in RULES:
            yield arg
        elif RULES[rule] is bool:
            yield from ("--rule", f"{rule}={name == rule}")
        else:
            yield from ("--rule", f"{rule}={arg.partition('=')[2] or next(arguments, '')}")
    if before in MEANS_YES:
        yield "yes"


def _merged(args: Sequence[str]) -> tuple[list[str], list[str]]:
    """The arguments with the flags of MERGED as those that say it now; and a line for each."""
    rest, old, arguments = [], {}, iter(args)
    for arg in arguments:
        name = _name(arg) or ""
        if name not in MERGED:
            rest.append(arg)
        elif name in ALONE:
            old[name] = ALONE[name]
        else:
            old[name] = arg.partition("=")[2] or next(arguments, "")
    notes: list[str] = []
    for name, value in older_values(old, _value(rest, "task"), _value(rest, "save_every")).items():
        rest += [f"--{name}", value]
        notes.append(f"{' '.join(f'--{flag}' for flag in old if MERGED[flag] == name)}: now --{name} {value}")
    return rest, notes


def older_values(old: Mapping[str, str], task: str | None, save_every: str | None) -> dict[str, str]:
    """What the values of MERGED's flags, and the older values of two others, are now."""
    values = {}
    if "train_on" in old:
        before = f"{task or 'lam'} {old['train_on']}"
        values["task"] = TASKS.get(before, before)                       # an unknown one is refused by its name
    if "save_minutes" in old:
        values["save_every"] = ",".join(filter(None, (save_every, f"{old['save_minutes']}min")))
    if "expect_world" in old or "elastic" in old:                        # a number that is named may be resumed on
        values["processes"] = old.get("expect_world", "any")
    if "from_scratch" in old or "no_pretrained" in old:
        values["pretrained"] = "no"
    if "no_compile" in old:
        values["compile"] = "no"
    return values


def older_record(run: Any) -> Any:
    """The flags of a run, as config.json has them, with those of MERGED as the ones that say it now."""
    if isinstance(run, dict) and type(run.get("compile")) is bool:
        run = {**run, "compile": "yes" if run["compile"] else "no"}
    if not isinstance(run, dict) or run.keys().isdisjoint(MERGED):
        return run
    if type(run.get("pretrained")) is bool:
        from_scratch = "no" if run.get("from_scratch") else None
        run = {**run, "pretrained": "yes" if run["pretrained"] else from_scratch}
    old = {name: f"{run[name]}".removesuffix(".0") for name in ("train_on", "save_minutes")
           if run.get(name) is not None}
    steps = run.get("save_every")
    rest = {name: value for name, value in run.items() if name not in (*MERGED, "save_every")}
    return {**rest, **older_values(old, run.get("task"), None if steps is None else str(steps))}


def _own_checkpoint(args: Sequence[str]) -> tuple[list[str], list[str]]:
    """The arguments with RUN in place of RUN/checkpoint/best.pth, where the published code would have a run's best
    weights; and a line for it."""
    rest, notes = [], []
    for arg in args:
        before, equals, value = arg.rpartition("=")
        file, run = Path(value), Path(value).parent.parent
        if file.parts[-2:] == ("checkpoint", "best.pth") and not file.exists() and (run / "best").is_dir():
            arg = f"{before}{equals}{run}"
            notes.append(f"{file}: not there, {run / 'best'} is used, the best weights of that run")
        rest.append(arg)
    return rest, notes


def _value(args: Sequence[str], name: str) -> str | None:
    """The value of an option, also as --name=value; None where it is not given."""
    for arg, following in zip(args, [*args, ""][1:], strict=True):
        if _name(arg) == name:
            return arg.partition("=")[2] or following or None
    return None


def _name(arg: str) -> str | None:
    """The option's name with underscores; None for a value."""
    return arg[2:].partition("=")[0].replace("-", "_") if arg.startswith("--") else None
