"""Five edits of a data set after preparation, and four commands after each: all notice, and say what has changed."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rig import SMALL

pytestmark = pytest.mark.drill
ROOT = Path(__file__).resolve().parents[2]
MODEL = SMALL[2:SMALL.index("--batch_size")]
COMMANDS = {
    "prepare": ["-m", "gazepose", "prepare", "--data", "data", "--split", "{split}", "--crop_size", "32"],
    "train": ["-m", "gazepose.train", "--data", "data", *MODEL, "--limit", "8", "--epochs", "1", "--num_workers", "0"],
    "infer": ["-m", "gazepose.infer", "--data", "data", "--checkpoint", "runs/first", "--split", "{split}",
              "--limit", "8"],
    "doctor": ["-m", "gazepose", "doctor", "data"]}


def new_labels(data: Path) -> None:
    path = data / "json" / "av_val.json"
    content = json.loads(path.read_text())
    for video in content["videos"]:
        for clip in video["clips"]:
            clip["social_segments_looking"] = clip["social_segments_looking"][:1]
    path.write_text(json.dumps(content))


def moved_clip(data: Path) -> None:
    train, val = (data / "split" / f"{split}.list" for split in ("train", "val"))
    first, *rest = train.read_text().split()
    train.write_text("\n".join(rest))
    val.write_text("\n".join([*val.read_text().split(), first]))
    content = {split: json.loads((data / "json" / f"av_{split}.json").read_text()) for split in ("train", "val")}
    content["val"]["videos"] += content["train"]["videos"]
    (data / "json" / "av_val.json").write_text(json.dumps(content["val"]))


def replaced_video(data: Path) -> None:
    clip = (data / "split" / "val.list").read_text().split()[0]
    other = (data / "split" / "train.list").read_text().split()[0]
    shutil.copyfile(data / "videos" / f"{other}.mp4", data / "videos" / f"{clip}.mp4")


def replaced_priors(data: Path) -> None:
    path = data / "priors" / "val.npz"
    table = dict(np.load(path))
    np.savez(path, **{**table, "head_pose": table["head_pose"] + 1})


def added_crop(data: Path) -> None:
    crop = next((data / "videos_challenge").rglob("*.jpg"))
    shutil.copyfile(crop, crop.with_name("00099_added.jpg"))


EDITS: dict[Callable[[Path], None], str] = {new_labels: "val", moved_clip: "val", replaced_video: "val",
                                            replaced_priors: "val", added_crop: "test"}


def ran(folder: Path, name: str, split: str) -> str:
    arguments = [argument.format(split=split) for argument in COMMANDS[name]]
    if name == "train":
        arguments += ["--exp_path", f"runs/{len(list((folder / 'runs').glob('*')))}"]
    done = subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True, check=False,
                          env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"})
    return done.stdout + done.stderr


def test_every_command_notices_every_edit(tmp_path, figure):
    subprocess.run([sys.executable, "-m", "gazepose", "synthetic", "--out", "data", "--preset", "tiny"], cwd=tmp_path,
                   env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True, capture_output=True)
    first = [*COMMANDS["train"], "--exp_path", "runs/first"]
    subprocess.run([sys.executable, *first], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True,
                   capture_output=True)
    ran(tmp_path, "prepare", "test")
    noticed = []
    for edit, split in EDITS.items():
        for name in COMMANDS:
            if (name, split) == ("train", "test"):
                continue                                                # it does not read the test set
            folder = tmp_path / f"{edit.__name__}-{name}"
            folder.mkdir()
            shutil.copytree(tmp_path / "data", folder / "data", copy_function=shutil.copy2)
            (folder / "runs").mkdir()
            (folder / "runs" / "first").symlink_to(tmp_path / "runs" / "first")
            edit(folder / "data")
            output = ran(folder, name, split)
            lines = [line for line in output.splitlines() if "changed since" in line or "have changed" in line]
            figure(f"{edit.__name__}, {name}", lines[0].replace(str(folder), "")[:150] if lines else "NOT NOTICED")
            noticed.append(bool(lines))
    assert all(noticed), f"{noticed.count(False)} of {len(noticed)} not noticed"
