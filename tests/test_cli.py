"""The commands as a user types them: real processes on the tiny world, and the errors they end with."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from warm import ran

from gazepose.config import InferConfig, TrainConfig, parse, parse_train
from gazepose.data.index import Index
from gazepose.data.quality import fit_quality
from gazepose.io import read_object
from gazepose.training.checkpoint import weights_folder

ROOT = Path(__file__).resolve().parents[1]
SMALL = ["--backbone", "test_resnet", "--crop_size", "32", "--num_encoder_layers", "1", "--num_decoder_layers", "1",
         "--dmodel", "64", "--dim_feedforward", "64", "--output_stride", "32"]


def launched(*flags: str, cwd: Path) -> str:
    """Two processes on the CPU, started as the documented configuration does."""
    command = [sys.executable, "-m", "gazepose", "launch", "--config_file", "cpu2", *flags]
    done = subprocess.run(command, cwd=cwd, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
                          timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def scores(path: Path) -> dict[tuple[str, str, str], float]:
    with open(path) as file:
        table = list(csv.DictReader(file))
    score_of = {(row["clip"], row["track"], row["frame"]): float(row["score"]) for row in table}
    assert len(score_of) == len(table), "a face twice"
    return score_of


@pytest.fixture(scope="module")
def work(tmp_path_factory, tiny_world) -> Path:
    """A working folder with a finished run of two processes on the tiny world."""
    folder = tmp_path_factory.mktemp("work")
    shutil.copytree(tiny_world, folder / "world")
    output = launched("train", "--data", "world", "--prior_head", "--prior_landmark", "--Gaussiandrop",
                    "--quality_scale", "log", "--epochs", "1", "--batch_size", "5", "--exp_path", "runs/two", *SMALL,
                    cwd=folder)
    assert "world: 2 processes on cpu" in output
    return folder


def test_a_run_leaves_its_records(work):
    run = work / "runs" / "two"
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    kinds = [line["kind"] for line in lines]
    assert kinds.count("val") == 1 and kinds.count("train") == lines[-2]["step"]
    assert {"prevalence", "head_pose"} <= set(lines[-1]["baselines"]) and lines[-1]["mAP"] is not None
    config = read_object(weights_folder(run) / "config.json")
    assert config["model"]["prior_head"] and config["model"]["prior_landmark"] and config["data"]["gaussian_drop"]
    train = Index.open(work / "world" / "prepared" / "clean-32" / "train")
    assert config["data"]["quality_scale"] == "log"
    assert tuple(config["quality_fit"]) == fit_quality(train.quality, "log")
    assert config["world_size"] == 2 and config["versions"]["torch"]
    assert json.loads((run / "status.json").read_text())["state"] == "finished"


def test_one_and_two_processes_give_the_same_scores(work):
    infer = [str(ROOT / "infer.py"), "--split", "val", "--stride", "1", "--batch_size", "8"]
    ran("-m", "gazepose.infer", *infer[1:], "--exp_path", "one", cwd=work)
    assert "world: 2 processes" in ran(*infer, "--exp_path", "both", cwd=work, world=2)
    one, both = (scores(work / name / "pred" / "val" / "pred.csv") for name in ("one", "both"))
    assert one.keys() == both.keys() and len(one) % 16
    assert max(abs(one[face] - both[face]) for face in one) <= 5e-6


def test_the_chain_goes_from_two_runs_scored_with_their_mirrors_to_a_submission(work):
    for split, world in (("val", 2), ("test", 1)):
        ran(str(ROOT / "infer.py"), "--split", split, "--stride", "1", "--flip_average", "--exp_path", "runs/flip",
            cwd=work, world=world)
    columns = np.load(work / "runs" / "flip" / "pred-flip" / "val.npz")
    ran(str(ROOT / "infer.py"), "--split", "val", "--stride", "1", "--exp_path", "alone", cwd=work)
    np.testing.assert_allclose(columns["score_plain"], np.load(work / "alone" / "pred" / "val.npz")["score"], atol=5e-6)
    assert (columns["score_plain"] != columns["score"]).any()
    shutil.copytree(work / "runs" / "flip", work / "runs" / "other")
    output = ran("-m", "gazepose", "chain", "runs/flip", "runs/other", "--out", "chain", cwd=work)
    assert "| single run " in output and "| mean of the runs " in output and "submission: single run" in output
    submission = json.loads((work / "chain" / "submission.json").read_text())
    assert len(submission["results"]) == len(list((work / "world" / "videos_challenge").rglob("*.jpg")))
    output = ran("-m", "gazepose", "chain", "runs/flip", "alone", cwd=work, fails=True)
    assert "error: alone/pred/test.npz: no record of the scores -> run `python -m gazepose infer" in output


def test_the_newest_run_makes_a_submission_of_every_face(work):
    output = ran(str(ROOT / "infer.py"), "--split", "test", "--to-json", "--quality_from", "split", cwd=work)
    crops = list((work / "world" / "videos_challenge").rglob("*.jpg"))
    made = Path(re.search(r"submission checked, (\d+) faces -> (.*)", output)[2])
    assert re.fullmatch(r"runs/two/pred-world-[0-9a-f]{8}/test/submission.json", str(made))    # another quality fit
    assert len(json.loads((work / made).read_text())["results"]) == len(crops)
    assert f"submission checked, {len(crops)} faces" in output
    assert re.search(r"test: mAP 0\.\d{3}", output)                        # the embedded world knows its test labels


def test_a_limited_run_says_so_in_its_names(work):
    ran(str(ROOT / "infer.py"), "--eval", "--split", "1", "--to_json", "--limit", "10", cwd=work)
    folder = work / "runs" / "two" / "pred" / "test"
    assert len((folder / "pred.partial.csv").read_text().splitlines()) == 10
    assert len(json.loads((folder / "submission.partial.json").read_text())["results"]) == 10


def test_an_error_is_one_line_that_names_file_and_remedy(work):
    output = ran(str(ROOT / "infer.py"), "--checkpoint", "runs/none", cwd=work, fails=True)
    assert "error: runs/none: neither a checkpoint" in output and "Traceback" not in output


def test_a_corrupt_shard_is_named(work):
    folder = work / "spoiled"
    shutil.copytree(work / "world", folder)
    shard = next((folder / "prepared" / "clean-32" / "val" / "clips").glob("*.bin"))
    content = bytearray(shard.read_bytes())
    content[: len(content) // 2] = bytes(len(content) // 2)
    shard.write_bytes(content)
    output = ran(str(ROOT / "infer.py"), "--data", "spoiled", "--split", "val", cwd=work, fails=True)
    assert re.search(r"error: \S*spoiled.*row \d+ \(clip .* track .* frame \d+\).*delete this file", output, re.DOTALL)


def test_the_published_behaviour_reaches_training_and_inference(work):
    ran(str(ROOT / "train.py"), "--data", "world", "--behaviour", "published", "--prior_head", "--prior_landmark",
        "--Gaussiandrop", "--epochs", "1", "--batch_size", "8", "--limit", "16", "--exp_path", "runs/published", *SMALL,
        cwd=work)
    configs = {name: json.loads((work / "runs" / name / "config.json").read_text()) for name in ("two", "published")}
    assert configs["published"]["model"]["behaviour"] == "published"
    assert configs["published"]["quality_fit"] != configs["two"]["quality_fit"]    # of key frames, of every frame
    lines = [json.loads(line) for line in (work / "runs" / "published" / "metrics.jsonl").read_text().splitlines()]
    assert [line["lr"] for line in lines if line["kind"] == "train"] == [configs["published"]["optim"]["lr"]] * 2
    shows_the_rule = ("import sys; from gazepose import infer; make = infer.make_loader; "
                      "sys.argv = ['infer.py', *sys.argv[1:]]; "
                      "infer.make_loader = lambda index, rule, *a, **k: print(rule) or make(index, rule, *a, **k); "
                      "infer.main()")
    output = ran("-c", shows_the_rule, "--checkpoint", "runs/published", "--split", "test", "--limit", "10", cwd=work)
    assert "behaviour=LoaderRules(share_frames=False" in output and "test=True" in output and "10 faces" in output
    shutil.rmtree(work / "runs" / "published")


@pytest.mark.parametrize("flags, expected", [
    (["--prior_haed"], "--prior_head"), (["--bach_size", "3"], "--batch_size"), (["--epochs", "0"], "give 1 or more"),
    (["--data", "nowhere"], "nowhere: no such folder"), (["--resume"], "name its folder with --exp_path"),
    (["--dmodel", "30"], "dmodel: 30 cannot be divided by 4"), (["--lr", "0"], "give a learning rate above 0")])
def test_a_wrong_flag_says_what_was_meant(flags, expected, capsys):
    with pytest.raises(SystemExit) as ended:
        parse_train(flags)
    assert expected in capsys.readouterr().err + str(ended.value)


@pytest.mark.parametrize("flags, split", [
    ([], "val"), (["--split", "test"], "test"), (["--val"], "val"), (["--eval", "--split", "1"], "test"),
    (["--val", "--split", "3"], "val")])
def test_the_split_of_inference(flags, split):
    config = parse(InferConfig, flags)
    assert config.guide.split_name(config.split) == split


def test_defaults_follow_data_and_model():
    embedded, _ = parse_train(["--preset", "tiny"])
    assert embedded.prepare.crop_size < 224 and embedded.data.val_stride == 3
    from gazepose.config import train_defaults
    parsed = parse(TrainConfig, ["--model", "BaselineLSTM"])
    ego4d = train_defaults(parsed, embedded=False, gpu=True)
    assert (ego4d.prepare.crop_size, ego4d.model.output_stride, ego4d.run.epochs) == (224, 32, 10)
    assert (ego4d.data.train_stride, ego4d.data.val_stride, ego4d.data.test_stride) == (3, 13, 1)
    assert ego4d.optim.lr == 5e-4 and np.isclose(train_defaults(parse(TrainConfig, []), False, True).optim.lr, 1e-4)
