"""Remedies for files: what a message tells its reader to do with data, priors and checkpoints is done, and helps."""

import json
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from making import challenge, data_set, prepared_index, write_video
from test_boxes import CLEAN, HEADER, table, whole
from test_models import published_file, small
from test_remedies import command_in, remedy_of, train, typed
from test_rows import LOOKING, original, read_one, record

from gazepose.compat.checkpoints import read_published
from gazepose.compat.flags import translate
from gazepose.compat.start import import_published, start_from
from gazepose.config import TrainConfig, check_priors, parse, parse_train
from gazepose.data.annotations import policy_named, read_split
from gazepose.data.box_table import find_table, read_boxes
from gazepose.data.challenge import list_videos
from gazepose.data.index import Index
from gazepose.data.loader import make_loader
from gazepose.data.own_videos import lay_out
from gazepose.data.video import frames_in_order
from gazepose.data.windows import WindowRule
from gazepose.evaluation.submission import csv_to_json
from gazepose.experiments.plan import read_experiment
from gazepose.models import ModelConfig
from gazepose.priors import commands
from gazepose.priors.import_files import read_priors
from gazepose.source import chosen_rows
from gazepose.synthetic import world
from gazepose.synthetic.world import render_world
from gazepose.training import checkpoint, runlog

# Data

def labels(path: Path, text: str) -> Path:
    return table(path, f"c,t,1,0,0,99,99,{text}", f"c,t,2,0,0,99,99,{text}", header=HEADER + ",label")


def test_a_split_without_labels_asks_for_them_and_then_has_rows(tmp_path):
    def rows() -> np.ndarray:
        index = prepared_index(tmp_path)
        make_loader(index, WindowRule(), chosen_rows(index, 1, None, labelled=True), batch_size=1, crop_size=16)
        return index.label
    write_video(tmp_path / "videos" / "c.mp4", 5)
    labels(tmp_path / "boxes" / "train.csv", "")
    name = re.fullmatch(r"write 1 looking or 0 not looking into the column label of (\S+)", remedy_of(rows))
    assert name
    labels(tmp_path / name[1], "1")
    assert rows().tolist() == [1, 1]


def test_a_stride_that_meets_no_labelled_row_may_be_smaller(index_of):
    index = index_of([range(4)], label=[-1, 1, -1, 0])
    def load(stride: int) -> None:
        rows = np.arange(0, 4, stride)
        make_loader(index, WindowRule(), rows[index.label[rows] >= 0], batch_size=1, crop_size=16)
    assert remedy_of(lambda: load(2)) == "give a smaller stride"
    load(1)


def test_of_two_tables_one_is_kept_and_a_missing_one_is_put_there(tmp_path):
    table(tmp_path / "boxes" / "val.csv", *whole("c", "t", 1))
    (tmp_path / "boxes" / "val.parquet").write_bytes(b"")
    assert remedy_of(lambda: find_table(tmp_path, "val")) == "keep one of them"
    (tmp_path / "boxes" / "val.parquet").unlink()
    assert find_table(tmp_path, "val")
    assert "put the table there" in remedy_of(lambda: find_table(tmp_path, "train"))
    table(tmp_path / "boxes" / "train.csv", *whole("c", "t", 1))
    assert find_table(tmp_path, "train")


def test_videos_of_ones_own_lie_where_the_messages_want_them(tmp_path):
    video, mine = write_video(tmp_path / "mine" / "c.mp4", 5), tmp_path / "mine"
    boxes, out = table(tmp_path / "b.csv", *whole("c", "t", 1), *whole("d", "t", 1)), tmp_path / "set"
    assert "give the folder of the videos" in remedy_of(lambda: lay_out(boxes, video, out, "val"))
    assert remedy_of(lambda: lay_out(boxes, mine, out, "val")) == "put it there"
    write_video(mine / "d.mp4", 5)
    lay_out(boxes, mine, out, "val")
    other = write_video(tmp_path / "other" / "c.mp4", 6).parent
    write_video(other / "d.mp4", 5)
    assert "name another folder" in remedy_of(lambda: lay_out(boxes, other, out, "val"))
    lay_out(boxes, other, tmp_path / "set2", "val")


def test_another_decoder_reads_what_one_cannot(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "decord", None)
    path = write_video(tmp_path / "v.mp4", 3)
    decoder = re.search(r"`--decoder (\w+)`", remedy_of(lambda: list(frames_in_order(path, [0]))))
    assert decoder and len(list(frames_in_order(path, [0, 2], decoder[1]))) == 2             # type: ignore[arg-type]
    train(["--decoder", decoder[1]])


@pytest.mark.parametrize(("settings", "cures"), [
    ({"crops": "video", "crops_from": "images"}, {"give --crops shards": {"crops": "shards", "crops_from": "videos"}}),
    ({"crops_from": "faces", "rules": {"box_scale": 2}}, {
        "leave it out": {"rules": {}, "crops_from": "videos"}, "give --crops_from videos": {"crops_from": "videos"}}),
    ({"max_bad_fraction": 0.0}, {"--max_bad_fraction": {"max_bad_fraction": 0.5}})])
def test_a_setting_that_a_message_offers_prepares_the_data(tmp_path, settings, cures):
    root = data_set(tmp_path, {"c": [("t", [1, 2])], "d": [("t", [1])]})
    (root / "videos" / "d.mp4").unlink()
    settings = {"max_bad_fraction": 0.5, **settings}
    remedy = remedy_of(lambda: prepared_index(root, **settings))
    for words, change in cures.items():
        assert words in remedy, remedy
        assert len(prepared_index(root, **{**settings, **change})) == 2


FACE = "c,t,1,0,0,9,9"
EXPERIMENT = 'title="t"\nquestion="q"\nagainst="{}"\n[[row]]\nname="a"\n[[row]]\nname="{}"\n'
SENT = "v,u,t,{},0.5\n"


def boxes(path: Path) -> None:
    assert read_boxes(path, CLEAN)[0].tracks


def submission(path: Path) -> None:
    csv_to_json(path, path.with_suffix(".json"))


FILES: list[tuple[Callable[[Path], Any], str, str, str]] = [           # bad content, words of the remedy, good content
    (boxes, HEADER, "give one face per line: clip,track,frame,x,y,width,height", f"{HEADER}\n{FACE}"),
    (boxes, f"{HEADER}\nc d,t,1,0,0,9,9", "text of letters, digits, _ . - only", f"{HEADER}\nc_d,t,1,0,0,9,9"),
    (boxes, f"{HEADER}\nc,t,1,left,0,9,9", "digits with a point, as 12.5", f"{HEADER}\nc,t,1,12.5,0,9,9"),
    (boxes, f"{HEADER}\nc,t,1.5,0,0,9,9", "a whole number of 0 to 1000000", f"{HEADER}\nc,t,1000000,0,0,9,9"),
    (boxes, f"{HEADER},label\n{FACE},yes", "1 looking, 0 not looking", f"{HEADER},label\n{FACE},1"),
    (boxes, f"{HEADER}\n{FACE}\n{FACE}", "keep one of them", f"{HEADER}\n{FACE}"),
    (boxes, HEADER.replace(",", ";"), "the columns are clip,track,frame,x,y,width,height", f"{HEADER}\n{FACE}"),
    (read_split, "", "put the clip uids there, one a line", "c\nd"), (read_split, "c\nc", "keep one of the lines", "c"),
    (read_split, "../c", "letters, digits, _ . - only", "c"),
    (read_experiment, EXPERIMENT.format("c", "b"), "give one of a, b", EXPERIMENT.format("b", "b")),
    (read_experiment, EXPERIMENT.format("a", "a"), "give each row its own name", EXPERIMENT.format("a", "b")),
    (submission, "clip,track\n" + SENT.format(1), "give the pred.csv of the test split", SENT.format(1)),
    (submission, "v,u,t,label,score\n" + SENT.format(1), "five columns and no header", SENT.format(1)),
    (submission, SENT.format(0), "it must be 1", SENT.format(1))]


@pytest.mark.parametrize(("read", "bad", "words", "good"), FILES, ids=[words for _, _, words, _ in FILES])
def test_a_file_is_read_once_it_is_as_the_message_says(tmp_path, read, bad, words, good):
    path = tmp_path / "file.csv"
    path.write_text(bad)
    assert words in remedy_of(lambda: read(path))
    path.write_text(good)
    read(path)


def test_a_missing_file_is_put_where_and_as_the_message_says(tmp_path):
    assert "put the clip uids there, one a line" in remedy_of(lambda: read_split(tmp_path / "split" / "val.list"))
    (tmp_path / "split").mkdir()
    (tmp_path / "split" / "val.list").write_text("c\n")
    assert read_split(tmp_path / "split" / "val.list") == ["c"]
    crops = tmp_path / "videos_challenge"
    assert "put the challenge's face crops there" in remedy_of(lambda: list_videos(crops))
    crops.mkdir()
    place = remedy_of(lambda: list_videos(crops)).removeprefix("put the crops there as ")
    challenge(tmp_path, [re.sub("<(\\w+)>", lambda name: "00001" if name[1] == "frame" else "a", place)])
    assert list_videos(crops) == ["a"] and len(prepared_index(tmp_path, "test")) == 1


def test_the_folders_of_the_original_scripts_are_used_as_the_messages_say(tmp_path):
    root = original(tmp_path, {"t": [record(1)]}, None)
    (root / "result_LAM").rmdir()
    assert "put result_LAM beside it" in remedy_of(lambda: read_one(root))
    (root / "result_LAM").mkdir()
    (root / "result_LAM" / "c.json").write_text(json.dumps(LOOKING))
    policy = policy_named("clean", ["at_me_only=True"])
    assert "give --rule at_me_only=False" in remedy_of(lambda: read_one(root, policy))
    assert read_one(root, policy_named("clean", ["at_me_only=True", "at_me_only=False"]))[0] == {"t": [0]}


def test_a_world_goes_into_the_folder_that_the_message_asks_for(tmp_path):
    for words, change in {"choose 0 or more": {"seed": 0}, "name another folder": {"root": tmp_path / "new"}}.items():
        (tmp_path / "videos").mkdir(exist_ok=True)
        settings: dict[str, Any] = {"root": tmp_path, "preset": "tiny", "seed": -1 if "seed" in change else 0}
        assert words in remedy_of(lambda settings=settings: render_world(**settings))
        with pytest.MonkeyPatch.context() as patch, pytest.raises(ZeroDivisionError):    # it got as far as rendering
            patch.setattr(world, "run_tasks", lambda *_: 1 / 0)
            render_world(**{**settings, "root": tmp_path / "other", **change}, jobs=1, notify=lambda line: None)


# Priors

POSES = {"clip:track0:0": [1, 2, 3], "clip:track0:1": [4, 5, 6]}
POINTS = {name: [[x, y, 0, 1] for x, y in ((.5, .5), (.6, .4), (.4, .4), (.57, .7), (.43, .7))] for name in POSES}


@pytest.fixture
def index(index_of, tmp_path) -> Index:
    """Two faces without priors, in a data set of the test's own."""
    folder = index_of([range(2)]).folder
    return Index.open(shutil.copytree(folder, tmp_path / "set" / "prepared" / "clean-16" / "train"))


@pytest.mark.parametrize(("flag", "column", "content"), [
    ("prior_head", "head_pose", POSES), ("prior_landmark", "landmarks", POINTS)])
def test_the_import_that_a_missing_prior_asks_for_makes_it_known(index, tmp_path, monkeypatch, flag, column, content):
    (tmp_path / "priors.json").write_text(json.dumps(content))
    config = ModelConfig(**{flag: True})
    remedy = remedy_of(lambda: check_priors(config, index, np.arange(2), False))
    assert "or add --allow_unknown_priors" in remedy
    check_priors(config, index, np.arange(2), parse_train(["--allow_unknown_priors"])[0].run.allow_unknown_priors)
    typed(monkeypatch, command_in(remedy), FILE=tmp_path / "priors.json")
    check_priors(config, Index.open(index.folder), np.arange(2), False)
    assert np.isfinite(getattr(Index.open(index.folder), column)).all()


def test_the_landmarks_that_a_fitted_pose_asks_for_make_it_possible(index, tmp_path, monkeypatch):
    (tmp_path / "points.json").write_text(json.dumps(POINTS))
    typed(monkeypatch, command_in(remedy_of(lambda: commands.fit_poses([index]))), FILE=tmp_path / "points.json")
    commands.fit_poses([Index.open(index.folder)])


def test_the_import_that_prior_path_asks_for_finds_the_guides_file(index, tmp_path, monkeypatch):
    root = index.folder.parents[2]
    (tmp_path / "FILE.json").write_text(json.dumps(POSES))
    remedy = remedy_of(lambda: translate(["--prior_path", str(tmp_path), "--data", str(root)], "train"))
    command = re.findall(r"`(python -m gazepose priors [^`]+)`", remedy)[0]
    for prior in re.search(r"PRIOR is ([\w, ]+)", remedy)[1].replace(" or ", ", ").split(", "):   # type: ignore[index]
        content = {"head_pose": POSES, "landmarks": POINTS, "quality_p": dict.fromkeys(POSES, 0.5)}[prior]
        (tmp_path / "FILE.json").write_text(json.dumps(content))
        typed(monkeypatch, command.replace("PRIOR", prior))
        assert prior in Index.open(index.folder).columns


def test_a_prior_of_another_kind_or_scale_is_imported_as_the_message_says(index, tmp_path, monkeypatch):
    path = tmp_path / "p.json"
    path.write_text(json.dumps({"clip:track0:0": 0.5, "clip:track0:1": 0.9}))
    remedy = remedy_of(lambda: read_priors([path], "quality"))
    assert remedy == "use `priors import quality_p`"
    typed(monkeypatch, f"python -m gazepose priors import quality_p {path} --data {index.folder}")
    path.write_text(json.dumps({name: [[40, 30, 0, 1]] * 5 for name in POSES}))
    remedy = remedy_of(lambda: read_priors([path], "landmarks"))
    assert "divide x by the crop's width and y by its height" in remedy
    path.write_text(json.dumps({name: [[40 / 100, 30 / 100, 0, 1]] * 5 for name in POSES}))
    read_priors([path], "landmarks")


# Checkpoints

def test_published_files_are_used_as_their_messages_say(tmp_path):
    gaze360 = published_file(tmp_path / "g", "Gaze360", small(backbone="resnet18", model="GazeLSTM", gaze_head=True))
    remedy = remedy_of(lambda: checkpoint.read_model(gaze360))
    flags = shlex.split(remedy.partition("python -m gazepose train ")[2])
    file = parse(TrainConfig, flags).run.checkpoint
    assert file is not None
    start_from(small(backbone="resnet18", model="GazeLSTM"), file)
    lstm = published_file(tmp_path / "l.pth", "GazePose's GazeLSTM", small(backbone="resnet18", model="GazeLSTM"))
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.tex").write_text("")
    assert "give --out a new folder" in remedy_of(lambda: import_published(lstm, tmp_path / "taken"))
    import_published(lstm, tmp_path / "new")


@pytest.mark.parametrize("extra", [{"optimizer": Path("x")}, {"then": print}])
def test_a_file_that_could_run_code_is_read_once_its_state_dict_is_saved_alone(tmp_path, extra):
    file = published_file(tmp_path / "l.pth", "GazePose's GazeLSTM", small(backbone="resnet18", model="GazeLSTM"))
    trusted = torch.load(file, weights_only=False)
    torch.save({**trusted, **extra}, file)
    assert "save only its state_dict" in remedy_of(lambda: read_published(file))
    torch.save(torch.load(file, weights_only=False)["state_dict"], file)
    read_published(file)


def test_the_training_that_a_missing_run_asks_for_is_a_command(tmp_path):
    remedy = remedy_of(lambda: runlog.newest_finished(tmp_path))
    train(shlex.split(remedy.partition("python -m gazepose train ")[2]))
