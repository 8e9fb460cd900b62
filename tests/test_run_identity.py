"""A run knows itself: its flags, its data, what its weights have learnt from, and which predictions are its own."""

import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rig import SHORT, Rig, config_of, resumed
from test_models import small

from gazepose import train
from gazepose.compat import checkpoints
from gazepose.config import TrainConfig, parse, parse_train, read_config, source_of, train_defaults
from gazepose.data.index import Index
from gazepose.data.index_writer import add_columns
from gazepose.io import read_object, write_json
from gazepose.manifest import mark_folder
from gazepose.report import tables
from gazepose.report.records import read_records
from gazepose.source import Source
from gazepose.training import checkpoint, runlog, trackers
from gazepose.training.distributed import check_alike
from gazepose.training.learnt_from import LearntFrom, learnt_from
from gazepose.training.run_config import check_learning, differing

# ---- its flags

def test_a_run_is_resumed_with_its_own_flags(rig, copy):
    before = config_of(copy)
    text = resumed(rig, copy, "--epochs", "2", "--num_workers", "0")
    after = config_of(copy)
    assert "resume: epochs 2, before 1\n" in text and "num_workers" not in text
    assert [set(change) for change in after["changes"]] == [{"time", "epochs"}]
    assert after["changes"][0]["epochs"] == [1, 2] and read_object(copy / "status.json")["step"] == 4
    assert differing(before, after) == {"epochs": [1, 2]} and after["optim"]["clip"] == 0.5


def test_a_run_that_was_killed_before_its_first_checkpoint_is_resumed_with_its_flags_too(rig, run):
    folder = rig.folder / "killed"
    folder.mkdir()
    for name in ("config.json", "status.json"):
        shutil.copy(run / name, folder / name)
    mark_folder(folder, folder)
    text = resumed(rig, folder)
    assert "has no checkpoint yet" in text and config_of(folder)["optim"]["clip"] == 0.5
    assert differing(config_of(run), config_of(folder)) == {}


def test_config_json_is_there_before_any_data(rig):
    folder = rig.run("early", *SHORT, "--clip", "0.25", ends=1, fault=("fail_at_once",)).folder
    assert config_of(folder)["optim"]["clip"] == 0.25 and config_of(folder)["root"] == "data/embedded/tiny-0"


@pytest.mark.parametrize("flags, wanted", [
    (["--lr", "0.5"], "--lr 0.5, but the run has 0.001 -> leave these flags out"),
    (["--behaviour", "published"], "--behaviour published, but the run has intended"),
    (["--crop_size", "64", "--seed", "1"], "--crop_size 64, but the run has 32, --seed 1, but the run has 0"),
    (["--preset", "hard"], "--preset hard, but the run has tiny")])
def test_a_flag_that_differs_is_refused_and_changes_nothing(run, flags, wanted):
    before = (run / "config.json").read_bytes()
    with pytest.raises(SystemExit, match=wanted) as refused:
        parse_train(["--resume", "--exp_path", str(run), *flags])
    assert (run / "config.json").read_bytes() == before
    # the remedy: the same flags with --config instead of --resume --exp_path
    config, _ = parse_train(["--config", str(run), *flags])
    name, value = flags[0].removeprefix("--"), flags[1]
    assert f"--config {run}" in str(refused.value)
    assert str(next(vars(section)[name] for section in vars(config).values() if name in vars(section))) == value


def test_another_run_starts_with_the_flags_of_a_run_as_defaults(run):
    for name in (run, run / "config.json"):
        config, source = parse_train(["--config", str(name), "--lr", "0.5"])
        assert config.optim.clip == 0.5 and config.optim.lr == 0.5 and config.run.exp_path is None
        assert str(source.root) == "data/embedded/tiny-0" and config.model.image_size == 32
    with pytest.raises(SystemExit, match="nothing.json: not there -> name a run, or its config.json"):
        parse_train(["--config", str(run / "nothing.json")])
    with pytest.raises(SystemExit):
        parse_train(["--resume", "--exp_path", str(run), "--config", str(run)])


def test_a_start_that_is_not_there_is_named_before_any_data(rig):
    for flags, wanted in ((["--checkpoint", "gone"], "gone: neither a checkpoint"),
                          (["--pretrained"], "timm has no weights of test_resnet_none")):
        run = rig.run("no start", *flags, "--backbone", "test_resnet_none", ends=1, fault=("fail_at_once",))
        assert wanted in run.log() and not run.folder.exists()


def test_what_concerns_one_start_is_not_inherited(tmp_path, run):
    record = config_of(run)
    record["run"] |= {"resume": True, "processes": "4"}
    write_json(tmp_path / "config.json", record)
    again, _ = read_config(tmp_path / "config.json")
    one_start = (again.run.resume, again.run.processes, again.run.exp_path)
    assert one_start == (False, None, None)


@pytest.mark.parametrize("spoilt", [
    {"fingerprint": "abc"}, {"changes": 3}, {"priors_read": 3}, {"root": 7}, {"run": {"epochs": "two"}},
    {"optim": None}], ids=str)
def test_a_damaged_config_is_named_with_a_remedy(tmp_path, run, spoilt):
    mark_folder(tmp_path, tmp_path)
    write_json(tmp_path / "config.json", {**config_of(run), **spoilt})
    with pytest.raises(SystemExit, match=f"{tmp_path}/config.json: .* -> "):
        parse_train(["--resume", "--exp_path", str(tmp_path)])
    shutil.copy(checkpoint.weights_folder(run) / "config.json", tmp_path)       # the remedy
    parse_train(["--resume", "--exp_path", str(tmp_path)])


def test_resume_takes_the_run_as_its_value_too(run):
    assert parse_train(["--resume", str(run)])[0] == parse_train(["--resume", "--exp_path", str(run)])[0]
    assert parse_train(["--epochs", "3", "--resume", str(run), "--no_compile"])[0].run.exp_path == run


def test_a_run_whose_config_is_gone_says_where_a_copy_is(rig, copy):
    (copy / "config.json").unlink()
    assert "config.json: missing -> copy it from a checkpoint in" in resumed(rig, copy, ends=1)
    shutil.copy(checkpoint.steps_in(copy / "checkpoints")[-1] / "config.json", copy)
    resumed(rig, copy)


# ---- its data

def test_a_run_is_not_resumed_on_other_data(rig, copy, index_of):
    other = Rig(index_of([range(12)] * 3, noise=True, label=[*[1] * 6, *[0] * 6] * 3).folder, rig.folder)
    before = (copy / "config.json").read_bytes()
    text = resumed(other, copy, "--epochs", "2", ends=1)
    assert "the prepared train and val data differ from those that" in text and "--data FOLDER" in text
    assert (copy / "config.json").read_bytes() == before
    remedy = re.search(r"--config (.*) --checkpoint (.*)", text)
    other.run("on other data", "--config", remedy[1], "--checkpoint", remedy[2])
    resumed(rig, copy, "--epochs", "2")


def test_the_data_of_a_run_are_found_again_or_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trained = parse(TrainConfig, ["--preset", "tiny"]).data
    world = {"root": "data/embedded/tiny-0"}
    assert source_of(None, trained, world, Path("run")).preset == "tiny"
    (tmp_path / "data" / "json").mkdir(parents=True)
    (tmp_path / "data" / "json" / "av_train.json").write_text("{}")          # Ego4D has come since
    (tmp_path / "data" / "embedded" / "tiny-0").mkdir(parents=True)
    write_json(tmp_path / "data" / "embedded" / "tiny-0" / "world.json", {"preset": "tiny", "seed": 0})
    assert source_of(None, trained, world, Path("run")) == Source(Path("data/embedded/tiny-0"), "tiny", 0)
    mine = parse(TrainConfig, ["--data", "mine"]).data
    with pytest.raises(FileNotFoundError, match="mine: no such folder, but run names it .* with --data"):
        source_of(None, mine, {"root": "mine"}, Path("run"))
    (tmp_path / "moved").mkdir()
    assert source_of(Path("moved"), mine, {"root": "mine"}, Path("run")).root == Path("moved")


def test_processes_that_differ_are_named():
    ranks = [{"--lr": 0.1, "commit": "abc", "--seed": 0}, {"--lr": 0.2, "commit": "abc", "--seed": 0}]
    with pytest.raises(ValueError, match=r"rank 1 has other flags than rank 0: --lr 0.2 \(rank 0: 0.1\) -> the remedy"):
        check_alike(lambda value: ranks, "flags", ranks[0], "the remedy")
    check_alike(lambda value: [value, dict(ranks[0])], "flags", ranks[0], "the remedy")
    shards = [{"quality": "a", "shard-00000.bin": "b"}, {"quality": "a"}]
    with pytest.raises(ValueError, match="rank 1 has other data than rank 0: shard-00000.bin None"):
        check_alike(lambda value: shards, "data", shards[0], "")


def test_a_process_with_another_flag_ends_the_run(rig):
    run = rig.run("differing", *SHORT, world=2, ends=1, fault=("other_flag_on_rank_1",))
    for rank in (0, 1):
        assert "rank 1 has other flags or code than rank 0: --lr 0.5 (rank 0: 0.001) -> start the" in run.log(rank)


def test_a_process_with_another_crop_ends_the_run(rig):
    run = rig.run("other crops", *SHORT, world=2, ends=1, fault=("other_shard_on_rank_1",))
    for rank in (0, 1):
        assert f"rank 1 has other data in {rig.index} than rank 0: clip-" in run.log(rank)
    assert run.status()["state"] == "failed"


# ---- its end

def test_a_run_whose_steps_were_all_skipped_does_not_finish(rig):
    run = rig.run("skipped", *SHORT, ends=1, fault=("not_finite",))
    assert "all 2 steps were skipped, because the gradient was not finite" in run.log()
    assert run.status()["state"] == "failed"
    assert f"a new run with a lower --lr or with --clip 1: --config {run.folder}" in run.log()
    assert parse_train(["--config", str(run.folder), "--clip", "1"])[0].optim.clip == 1
    assert check_learning(2, 9, run.folder) == "skipped 2 of 9 steps: the gradient was not finite"
    assert check_learning(0, 9, run.folder) == ""


@pytest.mark.parametrize("flags", [["--weights", "0", "0"], ["--weights", "-1", "1"]])
def test_class_weights_that_teach_nothing_are_refused(flags, capsys):
    with pytest.raises(SystemExit):
        parse_train(flags)
    assert "at least one of them above 0" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("label, reason", [
    (1, "all 36 labelled rows are looking"), (-1, "no labelled rows (36 of unknown label)")])
def test_without_a_map_the_newest_weights_are_the_best_and_the_log_says_why(index_of, tmp_path, label, reason):
    index = index_of([range(12)] * 3, noise=True, label=[label] * 36)
    rig = Rig(index.folder, tmp_path, narrow=True)
    labelled = [] if label >= 0 else ["--task", "gaze"]
    run = rig.run("one", *SHORT, "--limit", "36", "--weights", "1", "1", "--epochs", "2", *labelled,
                  fault=("with_gaze",) if labelled else ("nothing",))
    step = run.status()["step"]
    assert [folder.name for folder in (run.folder / "best").iterdir()] == [f"step-{step:08d}"]
    assert f"no mAP: {reason}; best/ keeps the newest weights" in run.log()
    assert "best val_mAP=none, the newest" in run.log()


def test_data_that_teach_nothing_are_named(index_of, tmp_path):
    rig = Rig(index_of([range(12)] * 3, noise=True, label=[-1] * 36).folder, tmp_path)
    assert "none of its 36 faces has a label -> add labels" in rig.run("none", *SHORT, ends=1).log()
    assert "the gaze of none of its faces is known" in rig.run("gaze", *SHORT, "--task", "gaze", ends=1).log()


def test_a_tracker_that_is_not_installed_is_an_error_before_anything_starts(tmp_path, monkeypatch):
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    for name in ("tensorboard", "wandb", "trackio"):
        with pytest.raises(ValueError, match=f"--log_with {name}: this package is not installed -> pip install {name}"):
            trackers.check_tracker(name)
    trackers.check_tracker(None)
    monkeypatch.setattr(trackers, "find_spec", lambda name: name == "tensorboardX" or None)
    trackers.check_tracker("tensorboard")


def test_the_commit_is_of_the_packages_own_repository(tmp_path, monkeypatch):
    assert runlog.versions()["commit"]
    package = tmp_path / "lib" / "gazepose" / "training"              # installed inside somebody's repository
    package.mkdir(parents=True)
    (tmp_path / ".git").mkdir()
    monkeypatch.setattr(runlog, "__file__", str(package / "runlog.py"))
    assert runlog.versions()["commit"] is None


# ---- what it has learnt from

WORLD = LearntFrom(rendered=("embedded world tiny, seed 0",), boxes=("annotated",))


def test_a_checkpoint_says_what_it_has_learnt_from(rig, run):
    assert learnt_from(config_of(run), run) == WORLD
    next_run = rig.run("second", *SHORT, "--checkpoint", str(run)).folder
    shown = dict(tables.facts(read_records(run)))["learnt from"]
    assert shown == "rendered: embedded world tiny, seed 0; boxes: annotated"
    learnt = learnt_from(config_of(checkpoint.weights_folder(next_run)), next_run)
    assert learnt == WORLD + LearntFrom(start=(str(run),))
    older = {name: value for name, value in config_of(run).items() if name != "learnt_from"}
    assert learnt_from(older, run).unknown == (str(run),)
    with pytest.raises(ValueError, match="LearntFrom: 'faces' is unknown"):
        learnt_from({"learnt_from": {"faces": 3}}, run)


def test_only_weights_of_rendered_faces_alone_are_warned_of_on_real_ones():
    line = "these weights have learnt from rendered faces only (embedded world tiny, seed 0), so their scores"
    assert str(WORLD.warning(rendered=False)).startswith(line)
    assert WORLD.warning(rendered=True) is None
    for other in (LearntFrom(real=("data",)), LearntFrom(unknown=("runs/old",))):
        assert (WORLD + other).warning(rendered=False) is None
    assert LearntFrom(real=("data",)).warning(rendered=False) is None


# ---- its start

def started(monkeypatch, tmp_path, *flags: str, preset: str | None = None) -> tuple[list[str], LearntFrom]:
    lines: list[str] = []
    accelerator: Any = SimpleNamespace(print=lines.append, is_main_process=True)
    config = parse(TrainConfig, list(flags), train_defaults(TrainConfig(), embedded=preset is not None, gpu=False))
    model = small(model="GazeLSTM", backbone="resnet18")
    return lines, train.initial_weights(model, config, Source(tmp_path, preset), tmp_path, accelerator)


def test_random_weights_on_real_data_are_warned_of_with_three_remedies(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "empty"))
    lines, learnt = started(monkeypatch, tmp_path)
    assert "WARNING" in lines[0] and learnt == LearntFrom()
    assert all(flag in lines[0] for flag in ("--pretrained yes", "--checkpoint", "--pretrained no"))
    assert "WARNING" not in started(monkeypatch, tmp_path, "--from_scratch")[0][0]
    assert "WARNING" not in started(monkeypatch, tmp_path, preset="tiny")[0][0]
    for start in (["--pretrained"], ["--pretrained", "no"], ["--from_scratch"]):
        with pytest.raises(SystemExit):
            parse_train(["--checkpoint", "a", *start])


def test_imagenet_weights_are_fetched_with_the_flag_alone(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="--pretrained: timm/resnet18.tv_in1k cannot be fetched .* HF_HUB_OFFLINE; or"):
        started(monkeypatch, tmp_path, "--pretrained")
    with pytest.raises(ValueError, match="timm has no weights of test_nothing -> give --checkpoint"):
        checkpoints.fetch_imagenet("test_nothing")
    asked: list[str] = []
    monkeypatch.setattr(checkpoints, "hf_hub_download", lambda name, file: asked.append(name))
    weights = {name: value for name, value in small(model="GazeLSTM", backbone="resnet18").state_dict().items()
               if name.startswith("frames.backbone.")}
    monkeypatch.setattr("gazepose.compat.start.cached_imagenet",
                        lambda backbone: (weights, "timm/resnet18.tv_in1k, licence bsd-3-clause"))
    for preset in (None, "tiny"):
        lines, learnt = started(monkeypatch, tmp_path, "--pretrained", preset=preset)
        assert "(ImageNet)" in lines[0]
        assert learnt.start == ("ImageNet (timm/resnet18.tv_in1k, licence bsd-3-clause)",)
    assert asked == ["timm/resnet18.tv_in1k"] * 2
    started(monkeypatch, tmp_path)
    assert len(asked) == 2
    assert started(monkeypatch, tmp_path, "--from_scratch")[0] == ["start: random weights (--pretrained no)"]


# ---- its priors

def imported(folder: Path, **columns: Any) -> None:
    add_columns(Index.open(folder), {name: np.full((36, *shape), 0.5) for name, shape in columns.items()})


def test_a_prior_that_the_run_does_not_read_may_be_imported_and_one_that_it_reads_is_named(rig, run, tmp_path):
    folder = shutil.copytree(rig.index, tmp_path / "set" / "prepared" / "clean-16" / "train")
    other = Rig(folder, tmp_path)
    first = other.run("first", *SHORT).folder                                # reads head_pose, which is unknown
    assert config_of(first)["priors_read"] == {"train": {"head_pose": None}, "val": {"head_pose": None}}
    imported(folder, landmarks=(5, 3), quality_p=())
    assert "resume: " in resumed(other, first, "--epochs", "2")
    imported(folder, head_pose=(3,))
    text = resumed(other, first, "--epochs", "3", ends=1)
    assert "the prepared train and val head_pose differ from those that" in text and "data differ" not in text
    remedy = re.search(r"--config (.*) --checkpoint (.*)", text)
    other.run("with priors", "--config", remedy[1], "--checkpoint", remedy[2])
