"""Files from others: nothing in them takes the memory, leads elsewhere, stops a reader or controls the terminal."""

import io
import json
import os
import signal
import struct
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from making import small_index, write_tracks, write_video
from test_report import make_run
from test_untrusted_runs import saved
from torch import nn

from gazepose.compat.checkpoints import read_published
from gazepose.compat.folders import original_tracks
from gazepose.data.annotations import Counter, read_clips, read_split
from gazepose.data.box_table import read_table
from gazepose.data.images import read_image, size_by_header
from gazepose.data.index import SHARDS, Index, digest_of
from gazepose.data.shards import decode, encode
from gazepose.data.tracks import POLICIES
from gazepose.data.video import frames_in_order, look_at, video_facts
from gazepose.errors import readable_errors
from gazepose.evaluation.examples import read_copy, shown_faces
from gazepose.evaluation.predictions import read_scores
from gazepose.evaluation.submission import check, csv_to_json, write_test_csv, write_val_csv
from gazepose.experiments.plan import Setting, plan, read_experiment
from gazepose.io import read_arrays, read_json
from gazepose.models.backbone import create_backbone
from gazepose.priors.head_pose import read_hopenet
from gazepose.priors.import_files import read_priors
from gazepose.report import make_report
from gazepose.report.records import read_records
from gazepose.report.tables import results
from gazepose.source import find_source
from gazepose.training import checkpoint, runlog
from gazepose.training.runlog import RunLog


class TookTooLong(BaseException):
    """No `except Exception` catches it."""


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """End what takes longer, also where it waits in a system call."""
    def end(*_: Any) -> None:
        raise TookTooLong(f"took more than {seconds} s")
    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# Pipes and devices

def readers(root: Path) -> list[tuple[Path, Callable[[Path], Any]]]:
    """Every file that is read, and what reads it; all files are there."""
    run, world, weights = root / "run", root / "world", saved(root / "weights")
    make_run(run, rows=60, steps=8)
    for name in ("split", "boxes"):
        (world / name).mkdir(parents=True)
    index = small_index(root / "prepared" / "train")
    (root / "runs" / "one").mkdir(parents=True)
    model = nn.Linear(1, 1)
    checkpoint.save_training(root / "resumed", model, torch.optim.SGD(model.parameters()), None,
                             checkpoint.Progress(step=1), {})
    resumed = root / "resumed" / "checkpoints" / "step-00000001"

    def resumes(_: Path) -> None:
        checkpoint.resume(resumed, model, torch.optim.SGD(model.parameters()), None, 1)

    def starts(_: Path) -> None:
        log: Any = object.__new__(RunLog)
        log.folder, log.main, log.bar = run, True, type("Bar", (), {"total": 0, "update": lambda *_: None})()
        log.start(checkpoint.Progress(), 1, {})

    return [
        *((weights / name, lambda _: checkpoint.read_model(weights)) for name in
          (checkpoint.MANIFEST, checkpoint.CONFIG, checkpoint.WEIGHTS)),
        (resumed / checkpoint.PROGRESS, resumes), (resumed / checkpoint.OPTIMIZER, resumes),
        *((run / name, lambda _: read_records(run)) for name in
          ("config.json", "status.json", "metrics.jsonl", "pred/val.npz", "pred/val.source.json")),
        (run / "metrics.jsonl", starts), (run / "pred" / "val.faces.npz", lambda path: read_copy(path, "")),
        (run / "pred" / "val.source.json", lambda _: shown_faces(run / "pred" / "val.npz", np.arange(1))),
        (root / "runs" / "one" / "status.json", lambda _: runlog.newest_finished(root / "runs")),
        (index.folder / "index.json", lambda _: Index.open(index.folder)),
        (index.folder / SHARDS / index.contents["shards"][0]["file"], lambda _: Index.open(index.folder)),
        (world / "world.json", lambda _: find_source(world)), (world / "split" / "train.list", read_split),
        (world / "av.json", lambda path: read_clips(path, ["c"], POLICIES["clean"])),
        (world / "boxes" / "train.csv", read_table),
        (world / "c" / "t.json", lambda _: original_tracks(world, "c", Counter())),
        (root / "pose.json", lambda path: read_priors([path], "head_pose")),
        (root / "pose.csv", lambda path: read_priors([path], "head_pose")),
        (root / "e.toml", read_experiment), (root / "pred.csv", lambda path: csv_to_json(path, root / "o.json")),
        (root / "submission.json", lambda path: check(path, [])), (root / "w.pth", read_published),
        (root / "w.pth", checkpoint.read_model), (root / "h.pkl", read_hopenet), (root / "f.jpg", read_image),
        (root / "v.mp4", look_at), (root / "v.mp4", lambda path: next(frames_in_order(path, [0])))]


@pytest.mark.parametrize("kind", ["a pipe", "a device", "a folder"])
def test_what_is_no_regular_file_is_refused_at_once_by_every_reader(tmp_path, kind):
    tried = readers(tmp_path)
    for path, read in tried:
        path.parent.mkdir(exist_ok=True, parents=True)
        before = path.read_bytes() if path.is_file() else None
        path.unlink(missing_ok=True)
        if kind == "a pipe":
            os.mkfifo(path)
        elif kind == "a device":
            path.symlink_to("/dev/zero")
        else:
            path.mkdir()
        with at_most(5), pytest.raises((ValueError, FileNotFoundError)) as error:
            read(path)
        assert path.name in str(error.value) or path.parent.name in str(error.value), path
        path.rmdir() if kind == "a folder" else path.unlink()
        if before is not None:
            path.write_bytes(before)
    assert len(tried) == 32


def test_a_column_that_is_a_pipe_is_refused_at_once(tmp_path):
    index = small_index(tmp_path / "prepared" / "train")
    for entry in index.contents["files"].values():
        path = index.folder / entry["file"]
        content = path.read_bytes()
        path.unlink()
        os.mkfifo(path)
        with at_most(5), pytest.raises(ValueError, match="not a whole column"):
            Index.open(index.folder)
        path.unlink()
        path.write_bytes(content)


# Text where numbers belong, and absurd sizes

@pytest.mark.parametrize("name, change, fault", [
    ("status.json", {"seconds": "long"}, r"status\.json: seconds is 'long', not a number -> "),
    ("status.json", {"world_size": [4]}, r"status\.json: world_size is \[4\], not a number -> "),
    ("status.json", {"world_size": 10**400}, r"status\.json: world_size is 1000"),
    ("config.json", {"data": {"limit": "x\x1b[2J"}}, r"config\.json: limit is 'x\\x1b\[2J', not a number"),
    ("config.json", {"fingerprint": "abc"}, r"config\.json: fingerprint is 'abc', not an object -> "),
    ("config.json", {"run": [1]}, r"config\.json: run is \[1\], not an object"),
    ("config.json", {"a": json.loads("[" * 900 + "]" * 900)}, r"config\.json: not readable JSON: .*nested 90\d deep")])
def test_a_record_with_text_for_a_number_is_named(tmp_path, name, change, fault):
    make_run(tmp_path, rows=600, steps=8)
    (tmp_path / name).write_text(json.dumps({**json.loads((tmp_path / name).read_text()), **change}))
    with pytest.raises(ValueError, match=fault):
        make_report(tmp_path)


def test_lines_of_a_log_with_text_for_a_number_are_left_out_and_counted(tmp_path):
    make_run(tmp_path, rows=600, steps=8)
    with open(tmp_path / "metrics.jsonl", "a") as file:
        for line in ('{"kind": "train", "step": "nine"}', '{"kind": "train", "step": 9, "loss": "low"}', "[1]", "9",
                     '{"kind": "val", "step": 9, "mAP": "high"}', '{"kind": ["val"], "step": 9}', '{"step": 9}',
                     '{"kind": "val", "step": 9, "baselines": {"prevalence": {"mAP": "x"}}}', "[" * 5000 + "]" * 5000,
                     '{"kind": "train", "step": 1e999}'):
            file.write(line + "\n")
    records = read_records(tmp_path)
    assert records.notes[:1] == ["10 lines of metrics.jsonl could not be read: left out. A run that is stopped "
                                 "may leave one."]
    assert len(records.train["step"]) == 8 and results(records)


def test_nesting_of_thousands_is_refused_wherever_json_is_read(tmp_path):
    for depth in (201, 5000):
        (tmp_path / "a.json").write_text('{"a":' * depth + "1" + "}" * depth)
        with pytest.raises(ValueError, match=rf"a\.json: not readable JSON: .*nested {depth} deep, at most 200 -> "):
            read_json(tmp_path / "a.json")
    (tmp_path / "a.json").write_text(json.dumps({"text": "[{" * 50, "list": [[[1]]] * 1000}))
    assert len(read_json(tmp_path / "a.json")["list"]) == 1000
    (tmp_path / "e.toml").write_text("a = " + "[" * 5000 + "]" * 5000)
    with pytest.raises(ValueError, match=r"e\.toml: not TOML"):
        read_experiment(tmp_path / "e.toml")


@pytest.mark.parametrize("change, fault", [
    ({"label": np.array(["a"] * 60)}, "label is <U1, not whole numbers"),
    ({"score": np.full(60, 7.0)}, "from 0 to 1"), ({"row": np.array(5)}, "differ in length, or are no columns"),
    ({"score": np.array(["0.5"] * 60)}, "score is <U3, not numbers"), ({"clip": np.full(60, -9)}, "clip -9 is below 0"),
    ({"head_pose": np.zeros((60, 2))}, "differ in length")])
def test_a_table_of_scores_of_another_kind_is_named(tmp_path, change, fault):
    columns = make_run(tmp_path, rows=60, steps=8)
    np.savez(tmp_path / "pred" / "val.npz", **{**columns, **change})
    with pytest.raises(ValueError, match=rf"val\.npz: .*{fault}.* -> predict again"):
        read_records(tmp_path)


def test_an_archive_of_arrays_is_bounded_by_what_it_holds(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", row=np.zeros(1 << 22))                       # 32 MiB in 32 KiB
    with pytest.raises(ValueError, match=r"a\.npz: .*32 MiB unpacked, at most 1 MiB are read"):
        read_arrays(tmp_path / "a.npz", most=1 << 20)
    column = io.BytesIO()
    np.lib.format.write_array_header_1_0(column, {"descr": "<f8", "fortran_order": False, "shape": (1 << 34,)})
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as archive:
        archive.writestr("row.npy", column.getvalue())
    with pytest.raises(ValueError, match=r"b\.npz: .*row\.npy states \(17179869184,\) of float64, which is"):
        read_scores(tmp_path / "b.npz", (), "again")


def test_a_crop_of_forty_thousand_pixels_is_refused_by_its_header(tmp_path):
    jpeg = bytearray(encode(np.zeros((16, 16, 3), np.uint8)))
    at = jpeg.index(b"\xff\xc0") + 5
    jpeg[at:at + 4] = struct.pack(">HH", 40_000, 40_000)
    (tmp_path / "f.jpg").write_bytes(jpeg)
    index = write_tracks(tmp_path / "prepared" / "train", [("a", "t", (1,))], [bytes(jpeg)])
    for read in (lambda: decode(bytes(jpeg)), lambda: read_image(tmp_path / "f.jpg"),
                 lambda: size_by_header(tmp_path / "f.jpg"), lambda: Index.open(index.folder).crop(0)):
        began = time.process_time()
        with pytest.raises(ValueError, match="not a JPEG of a size that is read: it is 40000 x 40000 pixels"):
            read()
        assert time.process_time() - began < 0.5


@pytest.mark.parametrize("way", ["size of all", "table", "64 bit"])
def test_a_video_that_states_fifty_million_frames_is_refused_before_it_is_opened(tmp_path, way):
    path = write_video(tmp_path / "v.mp4", 3)
    content = bytearray(path.read_bytes())
    at = content.index(b"stsz") + 8                                                      # after version and flags
    content[at:at + 8] = struct.pack(">II", way != "table", 50_000_000)
    if way == "64 bit":
        moov = content.index(b"moov") - 4
        size = int.from_bytes(content[moov:moov + 4], "big")
        content[moov:moov + 8] = struct.pack(">I4sQ", 1, b"moov", size + 8)
    path.write_bytes(content)
    for read in (look_at, video_facts, lambda path: video_facts(path, "pyav"), lambda path: frames_in_order(path, [0])):
        with pytest.raises(ValueError, match=r"v\.mp4: states 50000000 frames, at most 5000000 are read -> "):
            read(path)


# Names

@pytest.mark.parametrize("place, name", [("clips", "../../x"), ("clips", "/etc/x"), ("track_name", "../x"),
                                         ("clips", "=1+1"), ("track_name", "a\x1b[2J"), ("clips", 7)])
def test_a_name_that_leads_out_of_a_prepared_index_is_refused(tmp_path, place, name):
    index = small_index(tmp_path / "prepared" / "train")
    contents = json.loads((index.folder / "index.json").read_text())
    contents[place][0] = name
    del contents["sha256"]
    (index.folder / "index.json").write_text(json.dumps({**contents, "sha256": digest_of(contents)}))
    with pytest.raises(ValueError, match=r"index\.json: a (clip|track)'s name is not as this version writes it"):
        Index.open(index.folder)


@pytest.mark.parametrize("name", ["=cmd|' /C calc'!A0", "+1+1", "@SUM(1)", "-1+1", "\t=1", "\r=1"])
def test_no_formula_goes_into_a_table(tmp_path, name):
    for write in (lambda: write_test_csv(tmp_path / "pred.csv", [("v", name, "t", 0.5)]),
                  lambda: write_val_csv(tmp_path / "pred.csv", [("c", name, 1, 0, 0, 9, 9, 1, 0.5)])):
        with pytest.raises(ValueError, match=r"pred\.csv: the name .* would be a formula in a spreadsheet -> "):
            write()
        assert not (tmp_path / "pred.csv").exists()
    write_test_csv(tmp_path / "pred.csv", [("-a1", "_b", "00000", 0.5)])


EXPERIMENT = 'title="t"\nquestion="q"\nagainst="a"\n[[row]]\nname="a"\n'


@pytest.mark.parametrize("text, fault", [
    (f'name="../x"\n{EXPERIMENT}', r"name = '\.\./x' becomes the name of files -> "),
    (f'name="/x"\n{EXPERIMENT}', "becomes the name of files"),
    (EXPERIMENT + '[[row]]\nname="=1+1"\n', "the row '=1.1' would be a formula"),
    (EXPERIMENT + '[[row]]\nname="\\u001b[2J"\n', r"the row '\\x1b\[2J' would"),
    ('title="t"\nquestion="q"\nagainst="a"\nrow=5', "Row is 5, not a table"),
    ('title="t"\nquestion="q"\nagainst="a"\nrow=["a"]', "Row is 'a', not a table"),
    (EXPERIMENT + 'published="x"\n', "e.toml: Row: ")])
def test_an_experiment_file_from_elsewhere_names_no_other_folder(tmp_path, text, fault):
    (tmp_path / "e.toml").write_text(text)
    with pytest.raises(ValueError, match=fault):
        read_experiment(tmp_path / "e.toml")
    (tmp_path / "e.toml").write_text(EXPERIMENT)
    assert read_experiment(tmp_path / "e.toml").name == "e"


@pytest.mark.parametrize("line", [
    'flags="--data /theirs"', 'flags="--exp-path=../x"', 'start_flags="--checkpoint /w.pth"', 'infer="--exp_path /x"',
    'flags="--num_workers 999"', 'flags="--no_compile"', 'flags="--train_path /x"', 'flags="--resume /x"',
    '[embedded]\nflags="--log_with wandb"', '[ego4d]\nstart=["--config /x"]', '[embedded]\nworlds=["--data=/x"]'])
def test_an_experiment_file_names_no_places_workers_or_trackers(tmp_path, line):
    (tmp_path / "e.toml").write_text(EXPERIMENT + line)
    with pytest.raises(ValueError, match=r"e\.toml: --\w+ names a place.* -> leave it out, and give it to sweep"):
        read_experiment(tmp_path / "e.toml")
    (tmp_path / "e.toml").write_text(EXPERIMENT + 'flags="--pretrained --lr 1e-3"')
    assert plan(read_experiment(tmp_path / "e.toml"), Setting(), "tiny", ["--num_workers", "2"])


def test_a_line_of_flags_without_its_end_is_named(tmp_path):
    (tmp_path / "e.toml").write_text(EXPERIMENT + "flags=\"--rule 'a\"")
    with pytest.raises(ValueError, match=r"is not a line of flags \(No closing quotation\) -> close"):
        read_experiment(tmp_path / "e.toml")
    (tmp_path / "e.toml").write_text(EXPERIMENT + "flags=\"--rule 'a'\"")
    read_experiment(tmp_path / "e.toml")


def test_no_error_controls_the_terminal(tmp_path):
    name = "a\x1b[2J\x9b31m\u202egpj.\udcff"
    with pytest.raises(SystemExit) as error, readable_errors():
        read_image(tmp_path / name)
    assert str(error.value) == f"error: {tmp_path}/a\\x1b[2J\\x9b31m\\u202egpj.\\udcff: no such image"


@pytest.mark.parametrize("name", ["resnet18.nobody", "resnet18.", "resnet18..", "test_resnet.r160_in1k.x"])
def test_an_unknown_tag_of_weights_is_named(name):
    with pytest.raises(ValueError, match="backbone: timm has no"):
        create_backbone(name)
