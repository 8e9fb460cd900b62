"""A run that was stopped and resumed is the run that was not, to the bit."""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import rig as rig_module
import warm
from rig import Run, save_once
from safetensors.torch import load_file

from gazepose.io import read_object
from gazepose.training.checkpoint import newest_whole, read_model, weights_folder

STOP = signal.SIGTERM
NARROW = True
EMA = ("--ema", "0.9")
MEAN = ("--ema", "1")
TWICE = ("--gradient_accumulation_steps", "2")


@pytest.fixture(scope="module")
def whole(rig):
    """Runs that nothing stopped, made when they are needed."""
    runs: dict[str, Run] = {}

    def of(world: int = 1, *flags: str) -> Run:
        name = "-".join(["whole", str(world), *flags])
        runs[name] = runs.get(name) or rig.run(name, *flags, world=world)
        return runs[name]
    return of


def ends_alike(one: Run, other: Run) -> None:
    """The same weights, optimiser and progress at the end, and the same losses on the way, each step once."""
    last, expected = (sorted((run.folder / "checkpoints").glob("step-*"))[-1] for run in (one, other))
    assert last.name == expected.name
    # compared before they are asserted: pytest would show where megabytes differ, which takes it an hour
    same = {name: (last / name).read_bytes() == (expected / name).read_bytes()
            for name in ("model.safetensors", "optimizer.safetensors", "progress.json", "ema.safetensors")
            if (expected / name).exists()}
    best, wanted_best = (load_file(weights_folder(run.folder) / "model.safetensors") for run in (one, other))
    same["best"] = all(best[key].equal(wanted_best[key]) for key in wanted_best)
    keys = ("kind", "step", "epoch", "loss", "lr", "mAP", "mAP_without_ema")
    mine, theirs = ([{key: entry[key] for key in keys if key in entry}
                     for entry in records(run)] for run in (one, other))
    same["records"] = mine == theirs
    assert all(same.values()), same


@pytest.mark.parametrize("world, stops, flags", [
    (1, [2, 6], EMA), (2, [1, 4], MEAN),
    pytest.param(1, [1], TWICE, marks=pytest.mark.drill),
    pytest.param(1, [4], ("--num_workers", "2"), marks=pytest.mark.drill)], ids=str)
def test_a_stopped_run_ends_as_one_that_was_not(rig, whole, world, stops, flags):
    # 23 rows in batches of 4: 6 steps an epoch, 3 with two processes or two batches a step; after 6 comes validation
    alike = whole(world, *(() if "--num_workers" in flags else flags))
    name = "-".join(["stopped", str(world), *map(str, stops), *flags])
    for number, step in enumerate(stops):
        run = rig.run(name, *flags, *(["--resume"] if number else []), world=world, ends=75,
                      fault=("after_step", step, "hit", STOP, world - 1))     # of two processes only one hears of it
        assert run.status()["state"] == "preempted" and run.status()["step"] == step + (step != 6)
    run = rig.run(name, "--resume", *flags, world=world)
    assert "resume: " in run.log() and run.status()["state"] == "finished"
    ends_alike(run, alike)


def test_with_ema_the_average_is_saved_beside_and_is_what_a_run_makes(whole, monkeypatch):
    monkeypatch.setattr("gazepose.models.gazepose.VECTOR", rig_module.NARROW)
    run = whole(1, *EMA)
    best = weights_folder(run.folder)
    step = run.folder / "checkpoints" / best.name
    average, plain = (load_file(step / name) for name in ("ema.safetensors", "model.safetensors"))
    made, read = load_file(best / "model.safetensors"), read_model(step)[0].state_dict()
    assert all(made[key].equal(average[key]) and read[key].equal(average[key]) for key in average)
    assert not all(average[key].equal(plain[key]) for key in average) and not (best / "ema.safetensors").exists()
    lines = [entry for entry in records(run) if entry["kind"] == "val"]
    assert run.status()["best_mAP"] == max(entry["mAP"] for entry in lines)
    assert run.log().count("  without --ema mAP ") == len(lines) == 2


def test_augmentation_without_keys_would_not_resume(rig):
    run = rig.run("unkeyed-whole", fault=("unkeyed",))
    rig.run("unkeyed", "--save_every", "3,0min", "--epochs", "1", fault=("unkeyed",))
    shutil.rmtree(rig.folder / "unkeyed" / "checkpoints" / "step-00000006")
    again = rig.run("unkeyed", "--resume", fault=("unkeyed",))
    with pytest.raises(AssertionError):
        ends_alike(again, run)


def records(run: Run) -> list[dict]:
    return [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]


def has_records(run: Run, count: int) -> bool:
    return (run.folder / "metrics.jsonl").exists() and len(records(run)) >= count


def rows(run: Run) -> list[int]:
    files = run.folder.parent.glob(f"{run.folder.name}.rows.*")
    return [int(row) for file in files for row in file.read_text().split()]


def test_another_number_of_processes_goes_on_where_the_last_one_stopped(rig):
    run = rig.run("elastic", "--epochs", "1", world=2, ends=75, fault=("rows_and_stop", 1))        # 16 of 23 rows
    refused = rig.run("elastic", "--epochs", "1", "--resume", ends=1, fault=("note_rows",))
    assert "saved by 2 processes, this run has 1 -> start 2" in refused.log()
    assert len(rows(run)) == 16
    run = rig.run("elastic", "--epochs", "1", "--resume", "--processes", "any", fault=("note_rows",))
    assert len(rows(run)) == len(set(rows(run))) == 23 and run.status()["samples"] == 23


def test_other_rows_in_mid_epoch_are_refused(rig):
    rig.run("rows", ends=75, fault=("after_step", 1, "hit", STOP))
    assert "--seed 3, but the run has 0 -> leave" in rig.run("rows", "--resume", "--seed", "3", ends=2).log()


@pytest.mark.parametrize("fault", [("in_a_save", 4, "hit", STOP), ("in_a_save", 4, "hit", signal.SIGUSR1, 2),
                                   ("after_step", 2, "group")], ids=lambda fault: f"{fault[0]}-{fault[-1]}")
def test_a_signal_is_heard_once_and_a_save_is_finished(rig, fault):
    run = rig.run(f"signal-{fault[0]}-{fault[-1]}", "--save_every", "2,0min", "--num_workers",
                  str(int("group" in fault)), ends=75, fault=fault)
    assert run.status()["state"] == "preempted" and "Traceback" not in run.log()
    newest, passed = newest_whole(run.folder)
    assert not passed and read_object(newest / "progress.json")["step"] == run.status()["step"]


def test_a_folder_is_held_by_one_training(rig):
    run = rig.start("held", fault=("after_step", 2, "sleep"))
    run.until(lambda: has_records(run, 2))
    second = rig.run("held", "--resume", ends=1)
    assert f"process {run.pids[0]} on " in second.log() and "give another --exp_path" in second.log()
    assert run.status()["state"] == "running"
    os.kill(run.pids[0], signal.SIGKILL)
    run.wait()
    rig.run("held")                                      # nothing was saved yet, so this starts anew
    assert [entry["step"] for entry in records(run) if entry["kind"] == "train"] == list(range(1, 13))
    assert "holds a training already -> add --resume" in rig.run("held", ends=1).log()
    assert "epoch 3, step 12," in rig.run("held", "--resume", "--epochs", "3").log() and run.status()["step"] == 18


@pytest.mark.parametrize("fault, reason", [("fail", "ZeroDivisionError: on purpose"), ("hit", "gloo")])
def test_a_process_that_ends_ends_the_job_with_a_reason(rig, fault, reason):
    run = rig.start(f"ends-{fault}", world=2, fault=("after_step", 2, fault, signal.SIGKILL, 1))
    run.until(lambda: has_records(run, 2))
    codes = run.wait(10)
    assert codes[0] == 1 and codes[1] in (1, -9)
    assert run.status()["state"] == "failed" and reason in run.status()["reason"]


def test_a_launcher_that_is_killed_leaves_a_checkpoint_and_no_process(rig):
    run = rig.start("orphan", world=2, launcher=True, fault=("after_step", 2, "sleep", 0.3, 1))
    run.until(lambda: has_records(run, 1))
    os.kill(run.pids[0], signal.SIGKILL)
    run.until(lambda: not any(alive(pid) for pid in run.pids[1:]), 10)
    assert run.status()["state"] == "preempted" and newest_whole(run.folder)[0]


def alive(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def test_twenty_kills_in_saves_leave_a_whole_checkpoint_each(rig, tmp_path):
    random, step = np.random.default_rng(0), 0
    save_once(tmp_path, 0)
    for _ in range(20):
        pid = rig.fork("save_for_ever", str(tmp_path), step + 1)
        while not (tmp_path / "checkpoints" / f"step-{step + 1:08d}").exists():
            time.sleep(0.001)
        time.sleep(random.uniform(0, 0.1))
        os.kill(pid, signal.SIGKILL)
        assert warm.wait([pid], 10) == [-9]
        newest, passed = newest_whole(tmp_path)
        assert not passed and int(newest.name.removeprefix("step-")) >= step
        step = int(newest.name.removeprefix("step-"))
        assert load_file(newest / "model.safetensors")["weight"].eq(step).all()


def test_death_at_each_stage_of_a_save_leaves_a_whole_checkpoint(rig, tmp_path):
    save_once(tmp_path, 1)
    for step in (1, 2):                                  # the same step again, and a new one
        number, code = 0, 9
        while code == 9:
            (code,) = warm.wait([rig.fork("save_and_die", str(tmp_path), step, number)], 10)
            newest, passed = newest_whole(tmp_path)
            assert not passed and newest.name[:13] in ("step-00000001", f"step-{step:08d}")
            number += 1
        assert code == 0 and 12 < number < 60
