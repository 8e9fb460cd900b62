"""The guide's own command lines, pasted into our scripts: which splits are scored, and how a mistake ends."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from accelerate.commands.launch import launch_command_parser

from gazepose import train
from gazepose.compat.flags import translate
from gazepose.errors import readable_errors

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def launched(tmp_path):
    """Runs a script of launch/ with a stand-in for accelerate; the flags of each program that it would launch."""
    (tmp_path / "accelerate").write_text('#!/bin/sh\nprintf "%s\\n" "$@" "" >> "$STARTED"\n')
    (tmp_path / "accelerate").chmod(0o755)

    def run(script: str, *flags: str) -> list[list[str]]:
        started = tmp_path / "started"
        started.unlink(missing_ok=True)
        env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "VENV": "none", "STARTED": str(started)}
        subprocess.run(["bash", str(ROOT / "launch" / script), *flags], check=True, env=env, timeout=30)
        commands = [launch_command_parser().parse_args(lines.splitlines()[1:])
                    for lines in started.read_text().split("\n\n")[:-1]]
        assert all(command.quiet for command in commands)              # the program's own error is the last line
        return [command.training_script_args for command in commands]
    return run


@pytest.mark.parametrize("script", ["poseval.sh", "baseval.sh"])
@pytest.mark.parametrize(("flags", "splits", "rest"), [
    ([], ["--val", "--eval"], []), (["--split", "1"], ["--val", "--eval"], ["--split", "1"]),
    (["--split", "1", "--val"], ["--val"], ["--split", "1"]), (["--eval", "--split=1"], ["--eval"], ["--split=1"]),
    (["--split", "test", "--val_stride", "1"], ["--eval"], ["--val_stride", "1"]),
    (["--split=val", "--exp_path", "a b"], ["--val"], ["--exp_path", "a b"]),
    (["--eval", "--limit", "3", "--val"], ["--eval", "--val"], ["--limit", "3"])])
def test_a_split_in_the_flags_of_the_guides_script_is_scored_alone(launched, script, flags, splits, rest):
    commands = launched(script, "runs/mine", *flags)
    assert [command[0] for command in commands] == splits
    for command in commands:
        assert command[command.index("--checkpoint") + 1] == "runs/mine"
        assert command[len(command) - len(rest):] == rest and command.count("--val") + command.count("--eval") == 1


def test_the_guides_name_of_the_best_weights_means_those_of_our_run(tmp_path):
    run, pasted = tmp_path / "run", str(tmp_path / "run" / "checkpoint" / "best.pth")
    assert translate(["--checkpoint", pasted], "infer") == (["--checkpoint", pasted], [])         # no run of ours
    (run / "best").mkdir(parents=True)
    note = f"{pasted}: not there, {run / 'best'} is used, the best weights of that run"
    assert translate(["--val", "--checkpoint", pasted], "infer") == (["--val", "--checkpoint", str(run)], [note])
    assert translate([f"--checkpoint={pasted}"], "train") == ([f"--checkpoint={run}"], [note])
    (run / "checkpoint").mkdir()
    Path(pasted).write_bytes(b"a published file")
    assert translate(["--checkpoint", pasted], "infer") == (["--checkpoint", pasted], [])


def test_the_error_of_prior_path_holds_the_commands_with_the_folders_given():
    with pytest.raises(ValueError, match=r"^--prior_path: priors are columns .* -> .*prepare --split SPLIT --data mine"
                                         r"`: `python -m gazepose priors import PRIOR old/priors/FILE\.json --data "):
        translate(["--val", "--prior_path", "old/priors", "--data", "mine"], "infer")
    with pytest.raises(ValueError, match=r"prepare --split SPLIT`: .* import PRIOR old/FILE\.json`;"):
        translate(["--prior_path=old", "--val"], "infer")


@pytest.mark.parametrize(("checkpoint", "message"), [
    ("gone.pth", r"gone\.pth: neither a checkpoint"), ("text.pth", r"text\.pth: .* -> ")])
def test_a_checkpoint_that_cannot_start_a_training_is_named_before_anything_is_prepared(
        tmp_path, monkeypatch, checkpoint, message):
    (tmp_path / "text.pth").write_text("not a checkpoint")
    monkeypatch.setattr(train, "open_splits", lambda *_: pytest.fail("data came first"))
    monkeypatch.setattr(sys, "argv", ["train.py", "--preset", "tiny", "--exp_path", str(tmp_path / "run"),
                                      "--backbone", "test_resnet", "--checkpoint", str(tmp_path / checkpoint)])
    with pytest.raises(SystemExit, match=message):
        train.main()


def test_the_launcher_of_several_processes_repeats_the_error_in_its_summary(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    with pytest.raises(SystemExit, match=r"^error: no data$"), readable_errors():
        raise ValueError("no data")
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
    failure = ProcessFailure(local_rank=0, pid=1, exitcode=1, error_file=str(tmp_path / "error.json"))
    assert "error: no data" in str(ChildFailedError("train.py", {0: failure}))
    assert json.loads((tmp_path / "error.json").read_text())["timestamp"] > 0
