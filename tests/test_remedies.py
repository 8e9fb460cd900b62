"""Remedies: what a message tells its reader to do is read out of the message, done, and helps."""

import ast
import importlib
import re
import shlex
import sys
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from making import remedy_of
from test_flags import hidden

from gazepose import __main__ as program
from gazepose import verbs
from gazepose.compat.flags import RULES, translate
from gazepose.config import InferConfig, TrainConfig, parse, parse_train
from gazepose.data.annotations import policy_named
from gazepose.experiments.ensemble import read_run
from gazepose.experiments.plan import read_experiment
from gazepose.experiments.results import read_records
from gazepose.experiments.sweep import share
from gazepose.models import ModelConfig, build_model
from gazepose.models.backbone import create_backbone
from gazepose.programs import PROGRAMS, launch
from gazepose.synthetic.presets import PRESETS
from gazepose.training.distributed import start_accelerator
from gazepose.training.launcher import with_paths
from gazepose.training.scoring import seconds_around
from gazepose.watch.config import LiveConfig

PACKAGE = Path(program.__file__).parent
SMALL: dict[str, Any] = {"num_encoder_layers": 1, "num_decoder_layers": 1, "dmodel": 32, "dim_feedforward": 32,
                         "nheads": 2, "backbone": "test_resnet"}


def typed(monkeypatch: pytest.MonkeyPatch, command: str, **names: Path) -> None:
    """python -m gazepose ..., as a message has it, with paths in place of FILE and the like; in this process."""
    words = [str(names.get(word, word)) for word in shlex.split(command)]
    assert words[:3] == ["python", "-m", "gazepose"], command
    monkeypatch.setattr(sys, "argv", ["gazepose", *words[3:]])
    program.main()


def command_in(remedy: str) -> str:
    found = re.search(r"`(python -m gazepose [^`]+)`", remedy)
    assert found, remedy
    return found[1]


# Flags

def parsed(flags: list[str]) -> None:
    config = parse(TrainConfig, flags)
    if "--backbone" in flags:
        create_backbone(config.model.backbone)


def train(flags: list[str]) -> None:
    parse_train(["--preset", "tiny", *flags])


def infer(flags: list[str]) -> None:
    config = parse(InferConfig, flags)
    config.guide.split_name(config.split)


LINES: list[tuple[Callable[[list[str]], None], str, list[str]]] = [    # refused; the remedy's words: a line they make
    (parsed, "--epochs 0", ["give 1 or more: --epochs 1"]), (parsed, "--limit 0", ["give 1 or more rows: --limit 1"]),
    (parsed, "--seed -1", ["give 0 to 2**63 - 1: --seed 0 --seed 9223372036854775807"]),
    (parsed, "--lr 0", ["give a learning rate above 0 and below 10: --lr 9.9"]),
    (parsed, "--ema 1.1", ["give a decay such as 0.999: --ema 0.999", "1 for the mean of epochs: --ema 1",
                           "or 0 for none: --ema 0"]),
    (parsed, "--save_every 5m", ["give minutes such as 15min or 0min: --save_every 0min",
                                 "1 or more steps such as 500: --save_every 500", "or both: --save_every 500,15min"]),
    (parsed, "--processes 0", ["give a number of 1 or more: --processes 1", "or any: --processes any"]),
    (parsed, "--train_stride 0", ["give 1 or more: --train_stride 1"]),
    (parsed, "--crop_size 7", ["give 16 to 1024 pixels: --crop_size 16", "16 to 1024: --crop_size 1024"]),
    (parsed, "--max_bad_fraction 2", ["give 0 to 1: --max_bad_fraction 0", "0 to 1: --max_bad_fraction 1"]),
    (parsed, "--split 0", ["give 0.1 to 90: --split 0.1", "0.1 to 90: --split 90"]),
    (parsed, "--dmodel 30", ["give a multiple of both: --dmodel 32"]),
    (parsed, "--backbone resnet81", ["use resnet18 or resnet61q: --backbone resnet61q"]),
    (parsed, "--box_scale 0", ["give 0.1 to 10: --box_scale 0.1", "0.1 to 10: --box_scale 10"]),
    (parsed, "--max_gap -1", ["give 0 or more missing frames: --max_gap 0", "or None to fill all: --max_gap None"]),
    (parsed, "--max_gap few", ["give a whole number or None: --max_gap 3", "a whole number or None: --max_gap None"]),
    (parsed, "--wearer last", ["give first or flag: --wearer first", "give first or flag: --wearer flag"]),
    (parsed, "--rule end_inclusive=maybe", ["give True or False: --rule end_inclusive=True"]),
    (parsed, "--resume", ["name its folder with --exp_path: --resume --exp_path run"]),
    (parsed, "--cache_features", ["add --freeze_backbone: --cache_features --freeze_backbone"]),
    (parsed, "--cache_features --freeze_backbone --crops video",
     ["give --crops shards: --cache_features --freeze_backbone --crops shards"]),
    (parsed, "--save_every 0", ["1 or more steps: --save_every 1"]),
    (parsed, "--resume --exp_path run --config other", [
        "leave --config out: --resume --exp_path run",
        "or --resume to start a new run: --exp_path run --config other"]),
    (parsed, "--checkpoint w --pretrained", ["give one of them: --checkpoint w", "give one of them: --pretrained yes"]),
    (parsed, "--weights 0 0", ["give two weights of 0 or more, at least one of them above 0: --weights 0 1"]),
    (parsed, "--gaze_loss nan", ["give finite numbers: --gaze_loss 1"]), (parsed, "--clip -1", ["0 or more: --clip 0"]),
    (parsed, "--label_loss 0", ["give one a weight above 0: --label_loss 0 --gaze_loss 1"]),
    (train, "--cache_features --freeze_backbone --flip",
     ["leave --flip, --random_crop and --augment out: --cache_features --freeze_backbone"]),
    (infer, "--limit -1", ["give 1 or more: --limit 1"]), (infer, "--val_stride 0", ["give 1 or more: --val_stride 1"]),
    (infer, "--max_bad_fraction 2", ["give 0 to 1: --max_bad_fraction 0", "give 0 to 1: --max_bad_fraction 1"]),
    (infer, "--split train", ["give val or test: --split val", "give val or test: --split test"]),
    (infer, "--cache_features --flip_average",
     ["leave one of the flags out: --cache_features", "leave one of the flags out: --flip_average"]),
    (infer, "--split 3", ["give val or test: --split val", "--val or --eval beside the number: --split 3 --val",
                          "--val or --eval beside the number: --split 3 --eval"]),
    (infer, "--val --eval", ["give one split: --val", "give one split: --eval"]),
    (infer, "--eval --split val", ["give one split: --eval", "give one split: --split val"]),
    *[(infer, f"--{name} old", ["--data DIR: --data somewhere"]) for name in ("source_path", "gt_path", "test_path")]]


@pytest.mark.parametrize(("program", "line", "cures"), LINES, ids=[line for _, line, _ in LINES])
def test_a_line_that_is_refused_is_taken_once_the_remedy_is_done(program, line, cures, capsys):
    remedy = remedy_of(lambda: program(line.split()), capsys)
    for cure in cures:
        words, flags = cure.split(": ")
        assert words in remedy, remedy
        program(flags.split())


@pytest.mark.parametrize("flag", ["--val", "--eval"])
def test_flags_of_inference_lead_to_its_command(flag):
    remedy = remedy_of(lambda: translate([flag], "train"))
    infer(shlex.split(remedy.partition("accelerate launch infer.py ")[2]))


def test_flags_of_the_model_that_disagree_are_left_out_or_another_checkpoint_is_given():
    guide = parse(InferConfig, ["--val", "--split", "3", "--model", "GazeLSTM"]).guide
    trained = vars(ModelConfig())
    assert "leave the flags out" in remedy_of(lambda: guide.must_agree(trained, Path("run"), "3"))
    parse(InferConfig, ["--val"]).guide.must_agree(trained, Path("run"))
    guide.must_agree({**trained, "split": 3.0, "model": "GazeLSTM"}, Path("another"), "3")


def test_a_rule_that_a_message_lists_is_one():
    remedy = remedy_of(lambda: policy_named("clean", ["gap=3"]))
    for rule in remedy.removeprefix("the rules are ").split(", "):
        assert rule in vars(policy_named("clean"))


@pytest.mark.parametrize(("options", "cures"), [
    ({"backbone": "vit_tiny_patch16_224"}, {"use a network such as resnet18": {"backbone": "resnet18"}}),
    ({"backbone": "mobilenetv3_small_050", "output_stride": 8}, {
        "use output_stride 32": {"output_stride": 32}, "a network such as resnet18": {"backbone": "resnet18"}}),
    ({"model": "GazePos"}, {name: {"model": name} for name in ("GazePose", "GazeLSTM", "BaselineLSTM")}),
    ({"output_stride": 7}, {str(stride): {"output_stride": stride} for stride in (8, 16, 32)})])
def test_a_network_that_a_message_offers_can_be_built(options, cures):
    small = {**SMALL, "backbone": "resnet18"}
    remedy = remedy_of(lambda: build_model(ModelConfig(**{**small, **options})))
    for words, change in cures.items():
        assert words in remedy
        build_model(ModelConfig(**{**small, **options, **change}))


def test_a_part_and_a_preset_that_a_message_offers_are_taken():
    for part in re.findall(r"(\d+)/(\d+)", remedy_of(lambda: share([], (4, 3)))):
        assert share([], (int(part[0]), int(part[1]))) == []
    assert [name for name in PRESETS if name not in remedy_of(lambda: verbs.synthetic(Path("x"), "huge"))] == []  # type: ignore[arg-type]


def test_the_commands_and_files_of_other_messages_are_those_of_this_version(tmp_path, monkeypatch):
    infer(shlex.split(command_in(remedy_of(lambda: read_run(tmp_path / "a run"))))[4:])
    _, _, _, verb, experiment, *_ = remedy_of(lambda: read_records(tmp_path)).split()
    assert verb in program.VERBS and read_experiment(Path(experiment)).row
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    options = re.search(r"`gazepose launch (.*) train`", remedy_of(start_accelerator))
    assert options
    configuration = Path(with_paths(shlex.split(options[1]))[1])
    assert "fsdp" not in configuration.read_text().lower()
    monkeypatch.delenv("ACCELERATE_USE_FSDP")
    start_accelerator()


def test_a_launch_has_the_verb_and_the_configuration_that_the_messages_offer(monkeypatch):
    started: list[str] = []
    monkeypatch.setattr("accelerate.commands.launch.launch_command",
                        lambda given: started.append(given.training_script))
    remedy = remedy_of(lambda: launch(["--num_processes=1"]))
    verb = re.fullmatch(r"add (\w+), (\w+) or (\w+) after the options", remedy)
    assert verb
    for name in verb.groups():
        launch(["--num_processes=1", name])
    assert started == ["gazepose.train", "gazepose.infer", "gazepose"]
    remedy = remedy_of(lambda: with_paths(["--config_file", "mine"]))
    for name in [str(PACKAGE / "accelerate_configs" / "cpu.yaml"), *remedy.partition("or one of ")[2].split(", ")]:
        assert Path(with_paths(["--config_file", name])[1]).is_file()


def test_a_window_that_a_message_offers_is_taken():
    for name in remedy_of(lambda: seconds_around("wide", 3)).removeprefix("give ").split(", "):   # type: ignore[arg-type]
        assert seconds_around(name, 3)[0] > 0                                                   # type: ignore[arg-type]


# Every message

@cache
def messages() -> list[tuple[str, str]]:
    """(place, text) of every text of the package with an arrow; {} where a value stands."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        nodes = [*ast.walk(ast.parse(path.read_text()))]
        parts = {id(part) for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values}
        documents = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
        for node in nodes:
            if not isinstance(node, ast.JoinedStr | ast.Constant):
                continue
            values = node.values if isinstance(node, ast.JoinedStr) else [node]
            text = "".join(value.value if isinstance(value, ast.Constant) and isinstance(value.value, str) else "{}"
                           for value in values)
            text = " ".join(["", *text.split()])                         # an arrow may begin a line
            if " -> " in text and id(node) not in parts | documents:
                found.append((f"{path.relative_to(PACKAGE)}:{node.lineno}", text))
    return found


KINDS = (TrainConfig, InferConfig)
VERBS = [getattr(importlib.import_module(program.file_of(verb)), function)
         for verb, (function, _) in program.VERBS.items() if verb not in (*PROGRAMS, "launch")]


def flags_of(*kinds: Any) -> set[str]:
    """Every flag of some programs and verbs, in the guide's spelling too."""
    names = {*RULES, "Gaussiandrop"}

    def add(kind: Any) -> None:
        names.update(set(get_type_hints(kind)) - hidden(kind))
        for hint in get_type_hints(kind).values():
            if hasattr(hint, "__dataclass_fields__"):
                add(hint)
    for kind in kinds:
        add(kind)
    return names


CORE_VERBS = (verbs.prepare, verbs.export, verbs.push)
WINGS = ("doctor", "experiments", "priors", "project_verbs", "report", "synthetic", "verbs", "watch")
TRIED = {
    "api": 6, "compat/checkpoints": 4, "compat/flags": 11, "compat/folders": 4, "compat/start": 2, "config": 12,
    "data/annotations": 9, "data/box_formats": 14, "data/box_table": 18, "data/challenge": 5, "data/chunks": 1,
    "data/clip_crops": 1, "data/config": 4, "data/containers": 1, "data/conventions": 12, "data/features": 4,
    "data/images": 2, "data/index": 15, "data/index_writer": 1, "data/join": 1, "data/loader": 5, "data/merge": 1,
    "data/order": 1, "data/outcome": 3, "data/own_videos": 6, "data/prepare": 10, "data/streaming": 2,
    "data/tracks": 3, "data/video": 9, "data/video_times": 3, "data/windows": 4, "deploy": 2,
    "evaluation/comparison": 2, "evaluation/examples": 1, "evaluation/metrics": 5, "evaluation/predictions": 7,
    "evaluation/submission": 8, "heartbeat": 2, "infer": 4, "io": 9, "live": 3, "machine": 1, "manifest": 1,
    "models/backbone": 6, "models/config": 4, "output": 1, "processes": 2, "programs": 1, "publish": 2, "records": 1,
    "source": 6, "tensor_files": 11, "text": 1, "train": 4, "training/checkpoint": 11, "training/config": 8,
    "training/distributed": 8, "training/engine": 2, "training/feature_cache": 3, "training/hub": 14,
    "training/launcher": 1, "training/provenance": 7, "training/run_config": 9, "training/runlog": 7,
    "training/scoring": 1, "training/shipped_start": 5, "training/trackers": 1}
"""How many messages with an arrow each file outside WINGS has; those of infer name files, that of output is a pattern.
All remedies are tried: most in test_remedies_of_*.py; those of copied runs, other data, stopped ranks, dead decoders,
narrow videos, exported models, a hub and slow cameras in test_copied_runs.py, test_run_identity.py, test_heartbeat.py,
test_media.py, test_video_files.py, test_export.py, test_hub.py, test_push.py, test_shipped_start.py and
test_live_command.py."""


def test_a_new_message_with_a_remedy_is_noticed_until_a_test_has_tried_it():
    counts = Counter(place.partition(":")[0].removesuffix(".py") for place, _ in messages()
                     if not place.startswith(WINGS))
    assert counts == TRIED, "try the remedy on the state that prints it, in tests/test_remedies_of_*.py, and count it"


def test_every_flag_and_verb_that_a_remedy_names_exists():
    every, core = flags_of(*KINDS, *VERBS, LiveConfig), flags_of(*KINDS, *CORE_VERBS, LiveConfig)
    tried = 0
    for place, text in messages():
        remedy = text.split(" -> ", 1)[1]
        wing = place.startswith(WINGS)
        for flag in re.findall(r"--([A-Za-z]\w*)", re.sub(r"docker with.*|srun --.*|launch --\w+", "", remedy)):
            tried += 1
            assert flag.removeprefix("no_") in (every if wing else core), f"{place}: --{flag} in {text!r}"
        for verb in re.findall(r"python -m gazepose ([a-z_]+(?: [a-z_]+)?)", remedy):
            tried += 1
            assert verb in program.VERBS or verb.split()[0] in program.VERBS, f"{place}: {verb}"
        for extra in re.findall(r"gazepose\[(\w+)\]", remedy):
            assert f"\n{extra} = [" in (PACKAGE.parent / "pyproject.toml").read_text(), f"{place}: {extra}"
    assert tried > 80
