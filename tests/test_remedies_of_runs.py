"""Remedies for runs: what a message of resume, of processes, of caches or of the doctor tells its reader helps."""

import json
import os
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from making import data_set, prepare, write_video
from rig import STOP_AFTER_ONE, Rig
from test_copied_runs import changed
from test_features import computed, network
from test_remedies import remedy_of, typed
from test_run_identity import SHORT, resumed

from gazepose import startup
from gazepose.data.index import Index
from gazepose.doctor import examine
from gazepose.synthetic import world
from gazepose.training import checkpoint, runlog, trackers
from gazepose.training.distributed import check_processes, start_accelerator

# Resume

@pytest.fixture(scope="module")
def stopped(rig) -> Path:
    return rig.run("stopped", "--epochs", "1", ends=75, fault=STOP_AFTER_ONE).folder


def test_the_line_of_a_stop_continues_the_run(rig, stopped, tmp_path):
    line = re.search(r"to continue, add (--resume --exp_path .*)", Path(f"{stopped}.0.log").read_text())
    assert line and shlex.split(line[1]) == ["--resume", "--exp_path", str(stopped)]
    copy = shutil.copytree(stopped, tmp_path / "copy")
    resumed(rig, copy)
    assert json.loads((copy / "status.json").read_text())["state"] == "finished"


@pytest.mark.parametrize(("section", "values", "fault"), [
    ("run", {"seed": 3}, "with other windows or another order"),
    ("model", {"dmodel": 64}, "not describe these weights"), ("optim", {"freeze_backbone": True}, "fits no parameter")])
def test_a_config_that_was_edited_is_replaced_by_the_one_that_the_message_names(rig, stopped, tmp_path, section, values,
                                                                               fault):
    copy = shutil.copytree(stopped, tmp_path / "copy")
    changed(copy, **{section: values})
    text = resumed(rig, copy, ends=1)
    remedy = re.search(r"copy (\S+) into (the run's folder|\S+),", text)
    assert fault in text and remedy
    shutil.copy(remedy[1], copy if "folder" in remedy[2] else remedy[2])
    resumed(rig, copy)


def test_a_run_that_is_not_there_starts_without_resume(rig):
    assert "check --exp_path, or leave --resume out" in rig.run("new", *SHORT, "--resume", ends=1).log()
    rig.run("new", *SHORT)


def test_of_a_run_whose_checkpoints_are_all_damaged_a_new_one_starts_from_the_best(rig, run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy")
    for folder in checkpoint.steps_in(copy / "checkpoints"):
        os.truncate(folder / checkpoint.OPTIMIZER, 9)
    text = resumed(rig, copy, ends=1)
    start = re.search(r"a new run with another --exp_path, from the best weights so far: (--checkpoint \S+)", text)
    assert start and "entries from" in rig.run("from best", *SHORT, *start[1].split()).log()


def damaged_manifest(folder: Path, content: dict[str, str]) -> None:
    (folder / checkpoint.MANIFEST).write_text(json.dumps(content))


@pytest.mark.parametrize("damage", [
    lambda best: os.truncate(best / checkpoint.WEIGHTS, 99), lambda best: (best / checkpoint.CONFIG).unlink(),
    lambda best: damaged_manifest(best, {}), lambda best: damaged_manifest(best, {"../x": "0"}),
    lambda best: damaged_manifest(best, {checkpoint.WEIGHTS: "0"})],
    ids=["cut", "gone", "empty manifest", "a name in it", "a checksum in it"])
def test_instead_of_damaged_weights_another_checkpoint_of_the_run_is_used(run, tmp_path, damage):
    copy = shutil.copytree(run, tmp_path / "copy")
    damage(checkpoint.weights_folder(copy))
    assert "use another checkpoint" in remedy_of(lambda: checkpoint.read_model(copy))
    checkpoint.read_model(checkpoint.steps_in(copy / "checkpoints")[-1])


def test_what_lacks_something_to_learn_trains_on_what_there_is(rig, index_of, tmp_path):
    assert "-> train on labels (--task lam)" in rig.run("gaze", *SHORT, "--task", "gaze", ends=1).log()
    rig.run("gaze", *SHORT, "--task", "lam")
    unlabelled = Rig(index_of([range(12)] * 3, noise=True, label=[-1] * 36).folder, tmp_path)
    assert "-> add labels to the annotations" in unlabelled.run("run", *SHORT, ends=1).log()
    Rig(rig.index, tmp_path).run("run", *SHORT)


def test_a_lock_is_taken_once_the_link_is_removed(tmp_path):
    (tmp_path / ".lock").symlink_to(tmp_path / "elsewhere")
    assert remedy_of(lambda: runlog.lock(tmp_path / ".lock")) == "remove the link"
    (tmp_path / ".lock").unlink()
    runlog.lock(tmp_path / ".lock").release()


def test_a_tracker_that_is_missing_is_left_out(monkeypatch):
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    remedy = remedy_of(lambda: trackers.check_tracker("wandb"))
    assert remedy.startswith("pip install wandb, or leave --log_with out")
    trackers.check_tracker(None)


# Processes

def started(count: int = 1, accumulation: int = 1) -> Any:
    return SimpleNamespace(num_processes=count, device=torch.device("cpu"), gradient_accumulation_steps=accumulation,
                           print=lambda line: None)


def test_processes_are_started_as_the_messages_say(monkeypatch):
    remedy = remedy_of(lambda: check_processes(started(2), "3", False, 1))
    count = re.fullmatch(r"accelerate launch --num_processes (\d) starts that many; or leave --processes .*", remedy)
    assert count
    check_processes(started(int(count[1])), "3", False, 1)
    check_processes(started(2), None, False, 1)
    remedy = remedy_of(lambda: check_processes(started(2, accumulation=4), None, False, 1))
    assert remedy == "give both the same number, or unset ACCELERATE_GRADIENT_ACCUMULATION_STEPS"
    check_processes(started(2, accumulation=4), None, False, 4)
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    assert start_accelerator(gradient_accumulation_steps=1).gradient_accumulation_steps == 4
    monkeypatch.delenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS")
    check_processes(start_accelerator(gradient_accumulation_steps=1), None, False, 1)
    assert "leave it out" in remedy_of(lambda: check_processes(started(2), None, True, 1))


def test_srun_of_one_task_is_one_process_and_the_script_for_more_is_there(monkeypatch):
    for name in startup.LAUNCHED:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    remedy = remedy_of(lambda: check_processes(started(), None, False, 1))
    script, page, tasks = re.search(r"sbatch (\S+) FLAG.*\((\S+)\).*srun --ntasks=(\d)", remedy).groups()  # type: ignore[union-attr]
    root = Path(__file__).parents[1]
    assert "srun" in (root / script).read_text() and script in (root / page).read_text()
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", tasks)
    check_processes(started(), None, False, 1)


def test_a_process_is_alone_once_the_variables_are_unset(monkeypatch):
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    command = re.search(r"`unset ([\w ]+)`", remedy_of(start_accelerator))
    assert command
    for name in command[1].split():
        monkeypatch.delenv(name)
    assert start_accelerator().num_processes == 1


# Cached features

@pytest.mark.parametrize("damage", [
    lambda folder: os.truncate(next(folder.glob("0*.npy")), 200), lambda folder: next(folder.glob("0*.npy")).unlink(),
    lambda folder: (folder / "features.json").write_text("{}"), lambda folder: (folder / "features.json").unlink(),
    lambda folder: next(folder.glob("rows*.npy")).unlink()], ids=["cut", "gone", "contents", "no contents", "rows"])
def test_damaged_features_are_made_again_once_their_folder_is_deleted(index_of, tmp_path, damage):
    index = Index.open(shutil.copytree(index_of([range(30)]).folder, tmp_path / "index"))
    model = network()
    folder = computed(model, index).folder
    damage(folder)
    name = re.fullmatch(r"delete the folder (\S+); it is made again", remedy_of(lambda: computed(model, index)))
    assert name
    shutil.rmtree(name[1])
    assert len(computed(model, index)) == 31                             # and the black frame


# The doctor's list

def step(root: Path, kind: str) -> str:
    """What the doctor's list says to do about a finding; it must be there."""
    return next(entry["do"] for entry in examine(root)["remedies"] if entry["finding"] == kind)


def cured(root: Path, kind: str) -> bool:
    return kind not in examine(root)["findings"]


@pytest.fixture
def clips(tmp_path) -> Path:
    return data_set(tmp_path / "set", {"c": [("t", [1, 2, 3, 4])], "d": [("t", [1, 2, 3, 4])]}, frames=9)


def move_video(root: Path) -> Callable[[], Any]:
    (root / "videos" / "d.mp4").unlink()
    return lambda: write_video(root / "videos" / "d.mp4", 9)


def cut_video(root: Path) -> Callable[[], Any]:
    os.truncate(root / "videos" / "d.mp4", 900)
    return lambda: (root / "split" / "train.list").write_text("c")


def without_list(root: Path) -> Callable[[], Any]:
    (root / "split" / "train.list").unlink()
    return lambda: [(root / "split" / f"{split}.list").write_text("c\nd") for split in ("train", "val")] + [
        shutil.copy(root / "json" / "av_train.json", root / "json" / "av_val.json")]


def list_with_more(root: Path) -> Callable[[], Any]:
    (root / "split" / "train.list").write_text("c\nd\nx")
    return lambda: (root / "split" / "train.list").write_text("c\nd")


def stale(root: Path) -> Callable[[], Any]:
    prepare(root, "train")
    os.utime(root / "json" / "av_train.json", (1, 1))
    return lambda: prepare(root, "train")


def damaged_index(root: Path) -> Callable[[], Any]:
    folder = prepare(root, "train")
    os.truncate(folder / "index.json", 50)

    def cure() -> None:
        (folder / "index.json").unlink()
        prepare(root, "train")
    return cure


@pytest.mark.parametrize(("plant", "kind", "words"), [
    (move_video, "pictures_missing", "put the video (<clip_uid>.mp4, .mov, .mkv or .avi) into {}/videos/"),
    (cut_video, "pictures_damaged", "or remove the clips from the lists in {}/split/"),
    (without_list, "file_missing", "train.list and val.list (one clip per line) into {}/split/"),
    (list_with_more, "list_differs", "correct the lists in {}/split/"),
    (stale, "prepared_stale", "the next training or inference, or `python -m gazepose prepare`, makes again"),
    (damaged_index, "file_unusable", "delete its index.json, or the shard that is named; it is made again")])
def test_a_finding_is_gone_once_the_doctors_remedy_is_done(clips, plant, kind, words):
    cure = plant(clips)
    assert words.format(clips) in step(clips, kind)
    cure()
    assert cured(clips, kind)


def test_the_doctors_commands_are_typed_as_printed(clips, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    command = step(tmp_path / "empty", "nothing_here").partition("embedded world: ")[2]
    with pytest.MonkeyPatch.context() as patch, pytest.raises(ZeroDivisionError):        # it got as far as rendering
        patch.setattr(world, "run_tasks", lambda *_: 1 / 0)
        typed(patch, command)
    shutil.copy(clips / "json" / "av_train.json", clips / "json" / "av_val.json")
    for split, clip in {"train": "c", "val": "d"}.items():
        (clips / "split" / f"{split}.list").write_text(clip)
        prepare(clips, split)
        (tmp_path / f"{split}.json").write_text(json.dumps({f"{clip}:t:1": [1, 2, 3]}))
    typed(monkeypatch, f"python -m gazepose priors import head_pose {tmp_path}/train.json --data "
                       f"{clips}/prepared/clean-64/train")
    remedy = step(clips, "priors_absent")
    command = re.search(r"(python -m gazepose priors import head_pose FILE --data \S+)", remedy)
    assert command
    typed(monkeypatch, command[1], FILE=tmp_path / "val.json")
    assert cured(clips, "priors_absent")
