"""Remedies of trainings and of what they keep: checkpoints, features, settings, data on several machines."""

import math
import re
import shlex
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from making import data_set, prepare, prepared_index, write_video
from rig import Rig, save_once
from test_copied_runs import changed, resume
from test_engine import Grey, loader_of, trained
from test_features import computed, network
from test_models import published_file, small
from test_remedies import infer, remedy_of, train
from test_run_identity import SHORT, config_of, started

from gazepose import processes
from gazepose.config import TrainConfig, parse, parse_train, read_config
from gazepose.data.chunks import Chunks
from gazepose.data.index import Index
from gazepose.evaluation.metrics import evaluate
from gazepose.io import lock
from gazepose.manifest import MANIFEST, write_manifest
from gazepose.models import ModelConfig, build_model
from gazepose.processes import Processes
from gazepose.tensor_files import save_tensors
from gazepose.training import checkpoint, feature_cache
from gazepose.training.checkpoint import CHECKPOINTS, CONFIG, OPTIMIZER, Progress
from gazepose.training.distributed import check_alike
from gazepose.training.engine import batches_of, predict
from gazepose.training.optim import OptimConfig
from gazepose.training.run_config import files_read
from gazepose.training.runlog import LOCK, MAX_SKIPPED, RunLog

# Checkpoints and configurations

def listed(folder: Path) -> None:
    """List a checkpoint's files as they are now, as one who forges them does."""
    (folder / MANIFEST).unlink()
    write_manifest(folder)


@pytest.mark.parametrize(("section", "values"), [
    ("quality_fit", [1.0]), ("head_pose_fit", ["1"]), ("model", []), ("model", {"dmodel": "32"}),
    ("model", {"nothing": 1})])
def test_instead_of_a_checkpoint_with_another_configuration_one_that_is_whole_is_used(copy, section, values):
    best = checkpoint.weights_folder(copy)
    changed(best, **{section: values})
    listed(best)
    assert "use another checkpoint" in remedy_of(lambda: checkpoint.read_model(copy))
    checkpoint.read_model(checkpoint.steps_in(copy / CHECKPOINTS)[-1])


@pytest.mark.parametrize(("section", "values"), [
    ("model", []), ("run", {"epochs": "many"}), ("optim", {"warmup": 1.0}),
    ("optim", {"warmup": 0.1, "schedule": "epoch"}), ("root", 3), (None, "{")])
def test_a_runs_damaged_configuration_is_copied_from_its_checkpoint(copy, section, values):
    if section is None:
        (copy / CONFIG).write_text(values)
    else:
        changed(copy, **{section: values})
    assert remedy_of(lambda: read_config(copy / CONFIG)).endswith("copy the file from a checkpoint of the run")
    shutil.copy(checkpoint.steps_in(copy / CHECKPOINTS)[-1] / CONFIG, copy)
    assert resume(copy).run.epochs == 1


def test_a_folder_of_a_run_is_resumed_or_another_is_given(copy, tmp_path):
    def take(folder: Path, resume: bool) -> None:
        log: Any = RunLog(folder, Accelerator(cpu=True))
        try:
            with log.running(resume, config_of(checkpoint.weights_folder(copy)), SimpleNamespace()):
                pass
        finally:
            log.bar.close()
            if hasattr(log, "lock"):             # until the process ends
                log.lock.release()
    assert remedy_of(lambda: take(copy, False)) == "add --resume to continue it, or give another --exp_path"
    take(copy, True)
    take(tmp_path / "another", False)
    (copy / CONFIG).unlink()
    place = re.fullmatch(r"copy it from a checkpoint in (\S+)", remedy_of(lambda: take(copy, True)))
    assert place
    shutil.copy(checkpoint.steps_in(Path(place[1]))[-1] / CONFIG, copy)
    take(copy, True)
    held = lock(copy / LOCK)
    assert "wait until it has ended, or give another --exp_path" in remedy_of(lambda: take(copy, True))
    held.release()
    take(copy, True)


def test_weights_go_into_the_model_that_the_named_configuration_describes(run):
    folder = checkpoint.weights_folder(run)
    remedy = remedy_of(lambda: checkpoint.load_weights(folder, small(model="GazeLSTM")))
    file = re.search(r"give the --model and priors it was trained with \(see (\S+)\)", remedy)
    assert file
    checkpoint.load_weights(folder, build_model(ModelConfig(**config_of(Path(file[1]).parent)["model"])))


@pytest.mark.parametrize("older", [True, False])
def test_a_checkpoint_with_anothers_optimiser_is_deleted_and_the_one_before_is_resumed(tmp_path, older):
    for step in (1, 2) if older else (2,):
        save_once(tmp_path, step)
    newest = checkpoint.steps_in(tmp_path / CHECKPOINTS)[-1]
    state = checkpoint.read_tensors(newest / OPTIMIZER)
    save_tensors({**state, "theirs.exp_avg": torch.zeros(1)}, newest / OPTIMIZER)
    listed(newest)

    def resumed() -> Progress | None:
        model = torch.nn.Linear(8, 8)
        folder, _ = checkpoint.newest_whole(tmp_path)
        return folder and checkpoint.resume(folder, model, torch.optim.AdamW(model.parameters()), None, 1)
    remedy = re.match(r"delete (\S+); then the checkpoint before it is resumed, or the run starts", remedy_of(resumed))
    assert remedy
    shutil.rmtree(remedy[1])
    progress = resumed()
    assert (progress.step if progress else None) == (1 if older else None)


@pytest.mark.parametrize("kind", ["run", "Gaze360"])
def test_a_training_that_warns_of_random_weights_starts_from_a_file_or_a_run(monkeypatch, tmp_path, kind):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "empty"))
    assert "or --checkpoint FILE, such as Gaze360's file or a run of yours" in started(monkeypatch, tmp_path)[0][0]
    lstm = small(backbone="resnet18", model="GazeLSTM", gaze_head=kind == "Gaze360")
    if kind == "run":
        checkpoint.save_weights(tmp_path / "run" / "best" / "step-00000001", lstm, {})
        start = tmp_path / "run"
    else:
        start = published_file(tmp_path / "gaze360.pth", "Gaze360", lstm)
    lines, _ = started(monkeypatch, tmp_path, "--checkpoint", str(start))
    assert f"entries from {start}" in lines[0] and "WARNING" not in "".join(lines)


# Steps and scores

def new_run(remedy: str, run: Path) -> None:
    """Start as the remedy of weights that diverge says."""
    assert "start a new run with a lower --lr or with --clip 1" in remedy and "--config" in remedy
    for flags in (["--lr", "1e-5"], ["--clip", "1"]):
        config = parse_train(["--config", str(run), *flags])[0]
        assert not config.run.resume and config.optim.lr == 1e-5 or config.optim.clip == 1


def test_a_training_whose_steps_or_weights_are_not_finite_starts_anew_with_other_flags(run, index_of, tmp_path):
    _, (step, *_) = trained(index_of([range(100)], label=[0] * 50 + [1] * 50), poison=math.nan)
    log = RunLog(tmp_path, Accelerator(cpu=True))
    log.start(Progress(), 100, {})
    log.folder = run
    remedy = remedy_of(lambda: [log.step(step, 0) for _ in range(MAX_SKIPPED)])
    assert remedy.endswith(f"--config {run}")
    new_run(remedy, run)
    save_once(tmp_path / "other", 1)
    new_run(remedy_of(lambda: save_once(tmp_path / "other", 2, math.nan)), run)
    assert checkpoint.newest_whole(tmp_path / "other")[0] is not None         # the last checkpoint stays


def test_scores_that_are_not_finite_are_so_with_other_weights_or_precision(index_of):
    accelerator, model = Accelerator(cpu=True), Grey()
    loader = loader_of(accelerator, index_of([range(20)], label=[0, 1] * 10), 20)
    weight = model.head.weight.detach().clone()
    torch.nn.init.constant_(model.head.weight, math.nan)
    with pytest.raises(RuntimeError, match="weights are damaged, or the precision .*--mixed_precision no"):
        predict(accelerator, model, loader, np.arange(20))
    model.head.weight.data = weight
    predict(accelerator, model, loader, np.arange(20))
    train(["--mixed_precision", "no"])
    infer(["--mixed_precision", "no"])


def test_scores_that_collapsed_differ_after_a_longer_training(index_of):
    index, accelerator, labels = index_of([range(100)], label=[0] * 50 + [1] * 50), Accelerator(cpu=True), np.repeat(
        [0, 1], 50)

    def collapsed(model: torch.nn.Module) -> str | None:
        return evaluate(labels, predict(accelerator, model, loader_of(accelerator, index, 100), np.arange(100)).score
                        )["collapsed"]
    model = Grey()
    torch.nn.init.zeros_(model.head.weight)              # as at the start, when no face tells the model anything yet
    text = collapsed(model)
    assert text and text.endswith("-> lower --lr, or train longer")
    assert collapsed(trained(index, epochs=4)[0]) is None


def test_after_a_reader_that_hung_the_same_command_is_started_again(run, monkeypatch):
    def hung() -> Any:
        raise RuntimeError("of torch")
        yield
    monkeypatch.setattr(processes, "killed", ["all"])
    with pytest.raises(RuntimeError) as caught:
        next(batches_of(hung()))                                                # type: ignore[arg-type]
    flags = re.search(r"start the same command again \(a training: with (--resume .*)\)", str(caught.value))
    assert flags
    assert parse_train(shlex.split(flags[1].replace("RUN", str(run))))[0].run.resume


@pytest.mark.parametrize(("bad", "words", "good"), [
    ({"warmup": 1.0}, "give a part of the steps, 0 to below 1", {"warmup": 0.99}),
    ({"warmup": 0.1, "schedule": "epoch"}, "use warmup 0", {"warmup": 0.0, "schedule": "epoch"}),
    ({"min_lr": -1.0}, "give 0 or more", {"min_lr": 0.0}), ({"backbone_lr": math.inf}, "give 0 or more",
                                                            {"backbone_lr": 0.0}),
    ({"lr": 10.0}, "above 0 and below 10", {"lr": 9.9})])
def test_a_setting_of_the_optimiser_is_taken_once_it_is_as_the_message_says(bad, words, good):
    assert words in remedy_of(lambda: OptimConfig(**bad))
    OptimConfig(**good)


# Cached features

@pytest.fixture
def index(index_of, tmp_path) -> Index:
    return Index.open(shutil.copytree(index_of([range(30)], noise=True).folder, tmp_path / "index"))


def test_features_need_room_or_the_flag_is_left_out(index, monkeypatch):
    full = SimpleNamespace(free=9)
    monkeypatch.setattr(feature_cache.shutil, "disk_usage", lambda folder: full)
    remedy = remedy_of(lambda: computed(network(), index))
    assert remedy.startswith("make room") and remedy.endswith("or leave out --cache_features")
    full.free = 10**9
    assert len(computed(network(), index)) == 31
    assert not parse_train(["--preset", "tiny", "--freeze_backbone"])[0].data.cache_features


def test_what_float16_cannot_hold_is_scored_without_the_flag(index):
    model = network()
    for module in model.frames.backbone.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.data *= 100
    assert remedy_of(lambda: computed(model, index)) == "leave out --cache_features"
    accelerator = Accelerator(cpu=True)
    assert np.isfinite(predict(accelerator, model, loader_of(accelerator, index, 20), np.arange(20)).score).all()


# Several machines

def alike(mine: Index, theirs: Index) -> None:
    config = parse(TrainConfig, [])
    facts = [files_read(index, config.model, config.data, config.run) for index in (mine, theirs)]
    check_alike(lambda value: facts, "data", facts[0], "give every machine the same videos and priors; delete this "
                                                       "folder where it is wrong")


def test_machines_with_the_same_videos_have_the_same_data_once_the_folder_is_deleted(tmp_path):
    mine, theirs = (data_set(tmp_path / name, {"c": [("t", [1, 2])]}) for name in ("mine", "theirs"))
    write_video(theirs / "videos" / "c.mp4", 39, g="1", crf="45")
    remedy = remedy_of(lambda: alike(prepared_index(mine), prepared_index(theirs)))
    assert "give every machine the same videos" in remedy
    shutil.copy(mine / "videos" / "c.mp4", theirs / "videos")
    shutil.rmtree(prepared_index(theirs).folder)
    alike(prepared_index(mine), prepared_index(theirs))


def test_machines_with_their_own_disks_prepare_and_compute_by_themselves(tmp_path):
    root = data_set(tmp_path, {"c": [("t", [1, 2])], "d": [("t", [1])]})
    assert train(["--data_disk", "local"]) is None
    with pytest.raises(RuntimeError, match="do not see one disk: give --data_disk local"):
        prepare(root, "train", rank=0, world_size=2)                     # the other's disk has the other clip
    assert len(prepared_index(root, world_size=1)) == 3
    chunks = Chunks(tmp_path / "chunks", 8, 4, (1,), np.float32)

    def blocks(spans: list[range]) -> Any:
        yield from (np.zeros((len(span), 1), np.float32) for span in spans)
    chunks.compute(blocks, "job", "faces", Processes(0, 2, notify=lambda line: None))
    with pytest.raises(RuntimeError, match="do not share one disk; give --data_disk local"):
        chunks.values()
    chunks.compute(blocks, "job", "faces", Processes(notify=lambda line: None))
    assert chunks.values().shape == (8, 1)


def test_only_columns_that_a_run_reads_must_be_alike_on_all_processes(index_of, tmp_path):
    rig = Rig(index_of([range(12)] * 3, noise=True, label=[*[0] * 6, *[1] * 6] * 3).folder, tmp_path)
    rig.run("other landmarks", *SHORT, world=2, fault=("other_column_on_rank_1", "landmarks"))
    index = index_of([range(3)], landmarks=np.zeros((3, 5, 3)), quality_p=np.zeros(3))
    for flags, columns in ((["--prior_landmark"], {"landmarks"}), (["--prior_head"], {"head_pose"}), ([], set()),
                           (["--gaussian_drop", "--quality_scale", "given"], {"quality_p"})):
        config = parse(TrainConfig, flags)
        files = files_read(index, config.model, config.data, config.run)
        assert {*files} & {"head_pose", "landmarks", "quality", "quality_p", "gaze"} == columns
        assert {"frame", "label", index.contents["shards"][0]["file"]} <= {*files}
