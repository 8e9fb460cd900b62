"""The original guide's command lines, pasted: every flag lands, its scripts run, what has no counterpart is said."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
import warm
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import launch_command_parser

from gazepose.compat.checkpoints import KINDS
from gazepose.compat.flags import INSTEAD, LEFT_OUT, ONLY_TRAINING, OTHERS, SHARED, GuideInference, bins_of, translate
from gazepose.config import InferConfig, TrainConfig, asdict, parse, parse_train, read_config
from gazepose.experiments.plan import fingerprint
from gazepose.io import write_json
from gazepose.models import ModelConfig, build_model
from gazepose.training import checkpoint
from gazepose.training.launcher import CONFIGURATIONS

ROOT = Path(__file__).resolve().parents[1]
SMALL = ["--crop_size", "32", "--num_encoder_layers", "1", "--num_decoder_layers", "1", "--dmodel", "64",
         "--dim_feedforward", "64", "--output_stride", "32", "--epochs", "1", "--batch_size", "8", "--num_workers", "0"]
# every flag of the guide, its field, and the value it must have there
BOTH: list[tuple[list[str], str, Any]] = [
    (["--prior_head"], "prior_head", True), (["--prior_landmark"], "prior_landmark", True), (["--mesh"], "mesh", True),
    (["--Gaussiandrop"], "gaussian_drop", True), (["--backbone", "resnet34"], "backbone", "resnet34"),
    (["--dsplit", "0.2"], "dsplit", 0.2), (["--csplit", "0.5"], "csplit", 0.5),
    (["--batch_size", "16"], "batch_size", 16), (["--num_workers", "3"], "num_workers", 3),
    (["--val_stride", "11"], "val_stride", 11), (["--test_stride", "2"], "test_stride", 2),
    (["--checkpoint", "a.pth"], "checkpoint", Path("a.pth")), (["--num_encoder_layers", "3"], "num_encoder_layers", 3),
    (["--num_decoder_layers", "2"], "num_decoder_layers", 2), (["--dmodel", "256"], "dmodel", 256),
    (["--dim_feedforward", "512"], "dim_feedforward", 512), (["--nheads", "4"], "nheads", 4)]
TRAIN = [*BOTH, (["--split", "3"], "split", 3.0), (["--lr", "2e-4"], "lr", 2e-4), (["--epochs", "7"], "epochs", 7),
         (["--train_stride", "5"], "train_stride", 5), (["--train_path", "log"], "exp_path", Path("log")),
         (["--weights", "0.073", "0.927"], "weights", (0.073, 0.927))]
INFER = [*BOTH, (["--eval"], "eval", True), (["--split", "3"], "split", "3"), (["--to_json"], "to_json", True),
         (["--exp_path", "out"], "exp_path", Path("out"))]


def field(config: Any, name: str) -> Any:
    """A field of a configuration or of one of its sections."""
    sections = [config, *(part for part in vars(config).values() if hasattr(part, "__dataclass_fields__"))]
    return next(getattr(section, name) for section in sections if hasattr(section, name) and
                not hasattr(getattr(section, name), "__dataclass_fields__"))


@pytest.mark.parametrize("kind, table", [(TrainConfig, TRAIN), (InferConfig, INFER)])
@pytest.mark.parametrize("spelt", ["underscores", "hyphens"])
def test_every_flag_of_the_guide_lands_in_its_field(kind, table, spelt):
    flags = [[flag.replace("_", "-") if spelt == "hyphens" and flag[0] == "-" else flag for flag in flags]
             for flags, _, _ in table]
    without, parsed = parse(kind, []), parse(kind, [flag for group in flags for flag in group])
    for _, name, value in table:
        assert field(parsed, name) == value != field(without, name), name


@pytest.mark.parametrize("flags, name, value", [
    (["--model", "GazeLSTM"], "model", "GazeLSTM"), (["--model", "BaselineLSTM"], "model", "BaselineLSTM"),
    (["--gaussian_drop"], "gaussian_drop", True), (["--exp_path", "out"], "exp_path", Path("out")),
    (["--lr=3e-4"], "lr", 3e-4), (["--no_prior_head"], "prior_head", False)])
def test_training_takes_the_other_spellings_too(flags, name, value):
    assert field(parse_train(flags)[0], name) == value


GUIDE = ("--Gaussiandrop --mesh --prior_head --prior_landmark --backbone resnet18 --split 1 --batch_size 64 "
         "--val_stride 13 --train_stride 3 --model GazePose --num_workers 3 --exp_path out --checkpoint a.pth").split()


def test_the_guides_training_line_as_a_whole(capsys):
    config, _ = parse_train([*GUIDE, "--lr", "1e-4", "--dsplit", "0.1", "--train_path", "trainlog"])
    assert config.run.exp_path == Path("out") and config.model.prior_landmark and config.optim.lr == 1e-4
    assert capsys.readouterr().err == "--train_path is ignored: a run has one folder, that of --exp_path\n"


def test_the_guides_inference_line_as_a_whole(capsys):
    config = parse(InferConfig, [*GUIDE, "--eval"])
    assert config.guide.split_name(config.split) == "test" and bins_of(config.split) == 1 and config.gaussian_drop
    assert (config.guide.test_stride, config.guide.val_stride) == (None, 13)      # the test set is never thinned by it
    assert config.guide == GuideInference(eval=True, val_stride=13, model="GazePose", backbone="resnet18", mesh=True,
                                          prior_head=True, prior_landmark=True)
    assert capsys.readouterr().err == "--train_stride is ignored: inference does not use it\n"


@pytest.mark.parametrize("program", ["train", "infer"])
@pytest.mark.parametrize("name", LEFT_OUT)
def test_what_the_published_code_never_read_is_left_out_with_a_line(name: str, program: Any):
    for flags in ([f"--{name}", "7", "--limit", "3"], [f"--{name.replace('_', '-')}=7", "--limit", "3"],
                  ["--limit", "3", f"--{name}"]):
        assert translate(flags, program) == (["--limit", "3"], [f"--{name} is ignored: {LEFT_OUT[name]}"])


@pytest.mark.parametrize("before, now", [
    ("--train_on stills", "--task lam_stills"), ("--task gaze --train_on=train", "--task gaze --task gaze_clips"),
    ("--save_minutes 5 --limit 3", "--limit 3 --save_every 5min"), ("--elastic", "--processes any"),
    ("--save_minutes 0 --save_every 7", "--save_every 7 --save_every 7,0min"), ("--no_elastic", ""),
    ("--elastic --expect-world 2", "--processes 2"), ("--from_scratch --limit 3", "--limit 3 --pretrained no"),
    ("--no-pretrained", "--pretrained no"), ("--no_compile", "--compile no")])
def test_flags_that_have_become_one_go_on_working_with_a_line(before: str, now: str):
    arguments, notes = translate(before.split(), "train")
    assert arguments == now.split()
    assert all(note.endswith(f": now {' '.join(now.split()[-2:])}") for note in notes) and len(notes) == bool(now)
    parse_train(["--preset", "tiny", *before.split()])


@pytest.mark.parametrize("flags", ["--compile --limit 3", "--limit 3 --compile", "--compile yes --limit 3"])
def test_compile_alone_means_yes(flags: str):
    config, _ = parse_train(["--preset", "tiny", *flags.split()])
    assert config.run.compile == "yes" and config.data.limit == 3


def test_an_unknown_value_of_an_older_flag_is_refused(capsys):
    with pytest.raises(SystemExit):
        parse(TrainConfig, ["--train_on", "val"])
    assert "lam val" in capsys.readouterr().err


@pytest.mark.parametrize("before, now", [
    ({"task": "gaze", "train_on": None, "save_every": None, "save_minutes": 15.0, "elastic": True}, ("gaze", "15min")),
    ({"task": "lam", "train_on": "stills", "save_every": 3, "save_minutes": 0.0}, ("lam_stills", "3,0min")),
    ({"task": "gaze", "train_on": "train", "expect_world": 4}, ("gaze_clips", "15min"))])
def test_the_record_of_an_older_run_is_read(before, now, tmp_path):
    record = asdict(TrainConfig())
    record["run"] = {name: value for name, value in record["run"].items()
                     if name not in ("task", "save_every", "processes")} | before
    write_json(tmp_path / "config.json", record)
    run = read_config(tmp_path / "config.json")[0].run
    assert (run.task, run.save_every) == now and run.processes is None


@pytest.mark.parametrize("before, now", [(True, "yes"), (False, "no"), ("graphs", "graphs")])
def test_whether_an_older_run_was_compiled_is_read(before: Any, now: str, tmp_path):
    record = asdict(TrainConfig())
    record["run"]["compile"] = before
    write_json(tmp_path / "config.json", record)
    assert read_config(tmp_path / "config.json")[0].run.compile == now


@pytest.mark.parametrize("pretrained, from_scratch, now", [(True, False, "yes"), (False, True, "no"),
                                                           (False, False, None)])
def test_the_start_of_an_older_run_is_read(pretrained: bool, from_scratch: bool, now: str | None, tmp_path):
    record = asdict(TrainConfig())
    record["run"] |= {"pretrained": pretrained, "from_scratch": from_scratch}
    write_json(tmp_path / "config.json", record)
    assert read_config(tmp_path / "config.json")[0].run.pretrained == now
    if now is None:
        assert fingerprint(record, None) == fingerprint(asdict(TrainConfig()), None)


def test_help_is_no_value_of_what_is_left_out():
    assert translate(["--dist", "-h"], "train")[0] == ["-h"]


@pytest.mark.parametrize("name", OTHERS)
def test_the_flags_of_other_trainers_name_ours(name: str):
    assert name not in {field.name for section in vars(TrainConfig()).values() for field in fields(section)}
    for spelt in (f"--{name}", f"--{name.replace('_', '-')}=3"):
        with pytest.raises(ValueError, match=f"--{name} is no flag here -> write --{OTHERS[name]}$"):
            translate([spelt], "train")
    flag = OTHERS[name].split()[0]
    assert flag in {field.name for section in vars(TrainConfig()).values() for field in fields(section)}
    assert flag not in SHARED or flag in {field.name for field in fields(InferConfig)}


def test_a_device_is_chosen_outside_the_program():
    for program in ("train", "infer"):
        with pytest.raises(ValueError, match="--device is no flag here -> the GPU is chosen by CUDA_VISIBLE_DEVICES"):
            translate(["--device", "cuda:1"], program)               # type: ignore[arg-type]
    assert translate(["--learning_rate", "1"], "infer")[0] == ["--learning_rate", "1"]


@pytest.mark.parametrize("name", ONLY_TRAINING)
def test_what_only_trains_is_left_out_of_inference(name: str):
    translated, output = translate([f"--{name}", "0.1", "0.9", "--limit", "5"], "infer")
    assert translated == ["--limit", "5"] and output == [f"--{name} is ignored: inference does not use it"]


@pytest.mark.parametrize("flags, expected", [
    *(([f"--{name}", "x"], f"--{name}: .* -> ") for name in INSTEAD),
    (["--source-path=x"], "json/, split/ and videos/"),
    (["--eval"], "a flag of inference -> python -m gazepose infer --eval --checkpoint RUN"),
    (["--val", "--model", "GazePose"], "gazepose infer --val")])
def test_what_would_change_the_result_ends_with_what_to_write(flags, expected):
    with pytest.raises(ValueError, match=expected):
        translate(flags, "train")
    if flags[0] in ("--eval", "--gt_path"):
        with pytest.raises(SystemExit, match=expected):
            parse_train(flags)


def test_only_the_first_process_says_what_is_left_out(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    parse(InferConfig, ["--dist"])
    assert capsys.readouterr().err == ""


TRAINED = {"split": 1.0, "model": "GazePose", "backbone": "resnet18", "prior_head": True, "prior_landmark": False,
           "dsplit": 0.1, "csplit": 0.1, "num_encoder_layers": 6, "num_decoder_layers": 6, "dmodel": 512,
           "dim_feedforward": 2048, "nheads": 8}


def agree(flags: list[str]) -> None:
    config = parse(InferConfig, flags)
    config.guide.must_agree(TRAINED, Path("runs/a"), config.split)


@pytest.mark.parametrize("flags, message", [
    (["--val", "--split", "3"], "--split 3.0, but runs/a has split 1.0 -> leave the flags out"),
    (["--eval", "--split", "0.5"], "--split 0.5, but runs/a has split 1.0"),
    (["--prior_landmark"], "--prior_landmark, but runs/a has prior_landmark False"),
    (["--model", "GazeLSTM", "--nheads", "4"], "--model GazeLSTM --nheads 4, but runs/a has model GazePose, nheads 8")])
def test_model_flags_that_disagree_with_the_checkpoint_are_named(flags, message):
    with pytest.raises(ValueError) as raised:
        agree(flags)
    assert message in str(raised.value)


def test_inference_checks_the_models_flags_before_it_reads_data(tmp_path, monkeypatch):
    from gazepose import infer
    options = {"num_encoder_layers": 1, "num_decoder_layers": 1, "dmodel": 32, "dim_feedforward": 32}
    checkpoint.save_weights(tmp_path / "best", build_model(ModelConfig(**options)), {
        "model": vars(ModelConfig(**options)), "prepare": {}, "data": {}, "quality_fit": None})
    monkeypatch.setattr(sys, "argv", ["infer.py", "--val", "--split", "3", "--checkpoint", str(tmp_path / "best")])
    with pytest.raises(SystemExit, match=r"--split 3.0, but .*best has split 1.0 -> leave the flags out"):
        infer.main()


def test_model_flags_that_agree_pass():
    agree(["--val", "--split", "1", "--prior_head", "--mesh", "--dmodel", "512"])


@pytest.mark.parametrize("flags, message", [
    (["--val", "--eval"], "--val and --eval contradict each other -> give one split (--eval is the test set)"),
    (["--eval", "--split", "val"], "--eval and --split val contradict each other"),
    (["--val", "--split", "test"], "--val and --split test contradict each other"),
    (["--split", "3"], "--split 3 -> give val or test, or --val or --eval beside the number"),
    (["--split", "train"], "--split train -> give val or test")])
def test_splits_that_contradict_each_other_are_named(flags, message, capsys):
    with pytest.raises(SystemExit):
        parse(InferConfig, flags)
    assert message in " ".join(capsys.readouterr().err.replace("│", " ").split())


@pytest.mark.parametrize("file", sorted(CONFIGURATIONS.glob("*.yaml")), ids=lambda file: file.name)
def test_accelerate_knows_every_key_of_a_configuration(file: Path):
    config: Any = load_config_from_file(str(file))                       # an unknown key raises
    assert config.mixed_precision == {"bf16": "bf16", "fp16": "fp16", "machines2": "bf16"}.get(
        file.stem.split("_")[-1], "no")
    count = int(re.sub(r"\D", "", file.stem.split("_")[0]) or 1)
    assert (config.num_machines if "machines" in file.stem else config.num_processes) == count
    assert 5 <= len(file.read_text().splitlines()) <= 12 and file.read_text().startswith("# ")


def test_a_key_that_accelerate_does_not_know_fails(tmp_path):
    (tmp_path / "bad.yaml").write_text((CONFIGURATIONS / "gpu4.yaml").read_text() + "batch_size: 3\n")
    with pytest.raises(ValueError, match="batch_size"):
        load_config_from_file(str(tmp_path / "bad.yaml"))


@pytest.mark.parametrize("name", ["train", "eval", "demo", "test", "hosts", "slurm", "slurm_array",
                                  "slurm_sweep", "submit"])
def test_a_script_says_first_what_it_does_how_long_and_what_to_expect(name: str):
    lines = (ROOT / "launch" / f"{name}.sh").read_text().splitlines()
    output = [line.split(":")[0] for line in lines[1:8] if re.match(r"# \w+( \w+)?:", line)]
    assert output == ["# What", "# How long", "# Expect"]
    starts = name not in ("test", "hosts", "slurm", "slurm_array", "slurm_sweep")
    assert sum("accelerate launch" in line for line in lines) == starts


def theirs(name: str) -> str:
    """Gaze360's name of one of our entries."""
    published, ours = next((pair for pair in KINDS["Gaze360"] if name.startswith(pair[1])), ("", ""))
    return published + name[len(ours):]


@pytest.fixture
def typed(tmp_path):
    """Runs a script of launch/, and what it starts in the warm process; everything that is written."""
    # a stand-in for accelerate, which is slow to import: it writes down what it was to launch
    (tmp_path / "accelerate").write_text('#!/bin/sh\nprintf "%s\\n" "$@" "" >> "$STARTED"\n')
    (tmp_path / "accelerate").chmod(0o755)

    def run(script: str, *flags: str) -> str:
        started = tmp_path / f"{script}.started"
        env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "VENV": "none", "STARTED": str(started)}
        subprocess.run(["bash", str(ROOT / "launch" / script), *flags], check=True, env=env, timeout=30)
        everything = ""
        for lines in started.read_text().split("\n\n")[:-1]:
            launch, *rest = lines.splitlines()
            arguments = launch_command_parser().parse_args(rest)
            assert launch == "launch" and arguments.config_file == "accelerate_configs/gpu1.yaml"
            everything += warm.ran(arguments.training_script, *arguments.training_script_args, cwd=ROOT)
        return everything

    return run


@pytest.fixture(scope="module")
def world(tmp_path_factory, tiny_world) -> Path:
    """The tiny world, prepared by whoever needs it first."""
    return Path(shutil.copytree(tiny_world, tmp_path_factory.mktemp("guide") / "world"))


@pytest.mark.parametrize("kind", ["pose", pytest.param("base", marks=pytest.mark.drill)])
def test_the_guides_runs_reach_their_end(kind, tmp_path, world, typed):
    gaze360 = build_model(ModelConfig(model="GazeLSTM", gaze_head=True)).state_dict()
    torch.save({"state_dict": {f"module.{theirs(name)}": value for name, value in gaze360.items()
                               if not name.startswith("last_layer.")}, "epoch": 9}, tmp_path / "gaze360.pth.tar")
    run = tmp_path / f"{kind}-run"
    output = typed(f"{kind}train.sh", "--data", str(world), "--limit", "12", "--exp_path", str(run), *SMALL,
                 "--checkpoint", str(tmp_path / "gaze360.pth.tar"))
    entries = {"pose": 197, "base": 142}[kind]            # with one layer each of the transformer, and the reader
    assert (f"start: 140 of the model's {entries} entries from {tmp_path}/gaze360.pth.tar (Gaze360); "
            "not used: last_layer (2); random: ") in output
    start = json.loads((run / "start.json").read_text())
    assert len(start["taken"]) == 140 and start["left"] == ["last_layer.weight", "last_layer.bias"]
    assert len(start["random"]) == entries - 140 and "last_layer.weight" in start["random"]
    config = json.loads((run / "config.json").read_text())
    assert config["data"]["gaussian_drop"] and config["data"]["val_stride"] == 13 and config["data"]["limit"] == 12
    assert config["model"]["prior_head"] == config["model"]["prior_landmark"] == (kind == "pose")
    assert config["optim"]["lr"] == {"pose": 1e-4, "base": 5e-5}[kind]
    typed(f"{kind}val.sh", str(run), "--limit", "9")
    with open(run / "pred" / "val" / "pred.partial.csv") as file:
        assert len(list(csv.DictReader(file))) == 9
    assert len(json.loads((run / "pred" / "test" / "submission.partial.json").read_text())["results"]) == 9
