"""Files from others: nothing in them takes the memory, leads elsewhere, stops a reader or is removed with ours."""

import io
import json
import os
import shutil
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
from rig import save_once
from test_report import make_run
from torch import nn

from gazepose import tensor_files
from gazepose.compat.checkpoints import read_published
from gazepose.compat.folders import original_tracks
from gazepose.config import readable_errors
from gazepose.data.annotations import Counter, read_clips, read_split
from gazepose.data.box_table import read_table
from gazepose.data.images import read_image, size_by_header
from gazepose.data.index import SHARDS, Index, digest_of
from gazepose.data.shards import decode, encode
from gazepose.data.tracks import POLICIES
from gazepose.data.video import frames_in_order, look_at, video_facts
from gazepose.evaluation.examples import read_copy, shown_faces
from gazepose.evaluation.predictions import read_scores, refuse_links
from gazepose.evaluation.submission import check, csv_to_json, write_test_csv, write_val_csv
from gazepose.experiments.plan import read_experiment
from gazepose.io import read_arrays, read_json
from gazepose.manifest import MARK, is_written_here
from gazepose.models import ModelConfig, build_model
from gazepose.models.backbone import create_backbone
from gazepose.priors.head_pose import read_hopenet
from gazepose.priors.import_files import read_priors
from gazepose.report import make_report
from gazepose.report.records import read_records
from gazepose.report.tables import results
from gazepose.source import find_source
from gazepose.tensor_files import in_child
from gazepose.training import checkpoint
from gazepose.training.provenance import check_data
from gazepose.training.runlog import RunLog

SMALL: dict[str, Any] = {"num_encoder_layers": 1, "num_decoder_layers": 1, "dmodel": 32, "dim_feedforward": 32,
                         "nheads": 2, "backbone": "test_resnet", "prior_head": True}


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


# Files of torch.save

def with_pickle(path: Path, program: bytes) -> Path:
    """A file of torch.save with this pickle."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {"data.pkl": b"\x80\x02" + program + b".", "version": b"3\n"}.items():
            archive.writestr(f"a/{name}", content)
    return path


def test_a_pickle_that_takes_gigabytes_ends_in_one_error_and_a_good_file_comes_back(tmp_path, monkeypatch):
    monkeypatch.setattr(tensor_files, "in_child", in_child)
    two_gigabytes = b"cbuiltins\nbytearray\nJ" + struct.pack("<i", 2**31 - 1) + b"\x85R"
    file = with_pickle(tmp_path / "w.pth", two_gigabytes)
    assert file.stat().st_size < 500
    with pytest.raises(ValueError, match=r"w\.pth: .*of \d+ bytes that takes more than 512 MiB of memory -> save only"):
        read_published(file)
    state = {"module.z": torch.ones(3), "module.a": torch.arange(4).reshape(2, 2).T}
    torch.save({"state_dict": state, "epoch": 3, "mAP": np.float64(0.5)}, file)
    back = tensor_files.read_torch_file(file)
    assert list(back) == ["z", "a"] and back["a"].tolist() == [[0, 2], [1, 3]]


def test_a_file_that_ends_the_process_which_reads_it_ends_in_one_error(tmp_path, monkeypatch):
    monkeypatch.setattr(tensor_files, "in_child", in_child)
    monkeypatch.setattr(tensor_files, "CHILD", "import os; os.kill(os.getpid(), 11)")
    torch.save({"a": torch.zeros(1)}, tmp_path / "w.pth")
    for read in (read_published, read_hopenet):
        with pytest.raises(ValueError, match=r"w\.pth: .*reading it ended a process \(SIGSEGV\) -> save only"):
            read(tmp_path / "w.pth")


def test_a_file_that_unfolds_is_refused_before_it_does(tmp_path):
    whole = io.BytesIO()
    torch.save({"a": torch.zeros(1 << 20)}, whole)
    with zipfile.ZipFile(whole) as archive, zipfile.ZipFile(tmp_path / "w.pth", "w", zipfile.ZIP_DEFLATED) as packed:
        for entry in archive.infolist():
            packed.writestr(entry.filename, archive.read(entry))
    with pytest.raises(ValueError, match=r"w\.pth: .*4 MiB when it is unpacked, 0 MiB on the disk"):
        read_published(tmp_path / "w.pth")
    torch.save({"a": torch.zeros(1).expand(1 << 40)}, tmp_path / "w.pth")                # 4 TiB without a stride
    with pytest.raises(ValueError, match=r"w\.pth: .*takes more than 512 MiB"):
        read_published(tmp_path / "w.pth")


# Runs from elsewhere

def saved(folder: Path, **config: Any) -> Path:
    checkpoint.save_weights(folder, build_model(ModelConfig(**SMALL)), {"model": SMALL, **config})
    return folder


def changed(folder: Path, **config: Any) -> Path:
    """A checkpoint with another configuration and a manifest that fits."""
    content = json.loads((folder / checkpoint.CONFIG).read_text())
    (folder / checkpoint.CONFIG).write_text(json.dumps({**content, **config}))
    (folder / checkpoint.MANIFEST).unlink()
    checkpoint.write_manifest(folder)
    return folder


def test_a_configuration_larger_than_its_weights_is_refused_before_a_model_is_built(tmp_path, monkeypatch):
    built = []

    def noted(config: ModelConfig) -> nn.Module:
        model = build_model(config)
        built.append(next(model.parameters()).device.type)
        return model
    monkeypatch.setattr(checkpoint, "build_model", noted)
    weights = saved(tmp_path / "weights")
    large = {**SMALL, "dmodel": 8192, "dim_feedforward": 65536, "num_encoder_layers": 4}              # 22 GB
    with pytest.raises(ValueError, match=r"\d+ entries differ.* -> .*config\.json does not describe"):
        checkpoint.read_model(changed(weights, model=large))
    assert built == ["meta"]
    checkpoint.read_model(changed(weights, model={**SMALL, "reach": 2}))
    assert built == ["meta", "meta", "cpu"]


@pytest.mark.parametrize("config, fault", [
    ({"model": {**SMALL, "reach": None}}, "reach"), ({"model": {**SMALL, "reach": "3"}}, "reach"),
    ({"model": "x"}, "str"), ({"model": None}, "NoneType"),
    ({"model": {**SMALL, "backbone": "resnet18.nobody"}}, "timm has no weights"),
    ({"quality_fit": ["a", 1.0]}, "quality_fit"), ({"head_pose_fit": "text"}, "head_pose_fit")])
def test_what_is_not_of_its_kind_in_a_configuration_is_named(tmp_path, config, fault):
    weights = changed(saved(tmp_path / "weights"), **config)
    with pytest.raises(ValueError, match=fault) as error:
        checkpoint.read_model(weights)
    assert str(error.value).startswith(f"{weights / 'config.json'}: ") and " -> " in str(error.value)


def test_a_copy_of_a_checkpoint_names_no_data_workers_or_machines(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = {"data": {"data": str(tmp_path / "mine"), "num_workers": 999, "val_stride": 7},
              "prepare": {"crop_size": 64, "data_disk": "local", "crops": "video"}}
    own = saved(tmp_path / "run" / "best" / "step-00000001", **config)
    trained = checkpoint.read_model(own)[1]
    assert trained["data"] == config["data"] and trained["prepare"] == config["prepare"]
    check_data(None, trained, own)
    shutil.copytree(tmp_path / "run", tmp_path / "theirs")
    trained = checkpoint.read_model(tmp_path / "theirs")[1]
    assert trained["data"] == {"data": str(tmp_path / "mine"), "val_stride": 7}
    assert trained["prepare"] == {"crop_size": 64}
    with pytest.raises(ValueError, match=r"theirs: was copied or moved here.*mine\) is not used -> .* with --data"):
        check_data(None, trained, tmp_path / "theirs")
    check_data(tmp_path / "given", trained, own)
    for section, place in (("data", "data/embedded/tiny-0"), ("data", "data"), ("root", "data")):     # the default data
        check_data(None, {**trained, "data": {}, section: {"data": place} if section == "data" else place}, own)
    for place in ("data/../mine", "database", "/", 7):
        for facts in ({"data": {"data": place}}, {"data": {}, "root": place}):
            with pytest.raises(ValueError, match="with --data"):
                check_data(None, {**trained, **facts}, own)


def test_a_link_in_a_run_is_never_written_through(tmp_path):
    (tmp_path / "theirs").mkdir()
    for name in ("pred", "pred/val", "report"):
        run = tmp_path / name.replace("/", "-")
        make_run(run, rows=600)
        shutil.rmtree(run / name, ignore_errors=True)
        (run / name).symlink_to(tmp_path / "theirs", target_is_directory=True)
        with pytest.raises(ValueError, match=rf"{name}: is a link, .* -> remove the link"):
            make_report(run) if name == "report" else refuse_links(run, "val")
    (run / "report").unlink()
    (run / "report").symlink_to(tmp_path / "gone")
    with pytest.raises(ValueError, match="report: is a link"):
        make_report(run)
    assert not any((tmp_path / "theirs").iterdir())
    refuse_links(tmp_path / "new", "val")


# What is removed

def test_a_checkpoint_that_a_user_copied_beside_ours_stays(tmp_path):
    run = tmp_path / "run"
    for step in (5, 6):
        save_once(run, step)
    folder = run / "checkpoints"
    shutil.copytree(folder / "step-00000005", folder / "step-00000001")                  # a copy, and one moved here
    save_once(tmp_path / "other", 2)
    shutil.move(tmp_path / "other" / "checkpoints" / "step-00000002", folder)
    (folder / "step-00000005" / "notes.txt").write_text("mine")
    assert [is_written_here(path) for path in checkpoint.steps_in(folder)] == [False, False, True, True]
    for step in (7, 8, 9):
        save_once(run, step)
    assert {path.name for path in folder.iterdir()} == {f"step-0000000{n}" for n in (1, 2, 5, 8, 9)}
    assert [path.name for path in (folder / "step-00000005").iterdir()] == ["notes.txt"]
    assert checkpoint.newest_whole(run)[0] == folder / "step-00000009"
    checkpoint.verify(folder / "step-00000001")


def test_a_users_file_in_a_report_or_an_imported_checkpoint_stays(tmp_path, monkeypatch):
    run = tmp_path / "run"
    make_run(run, rows=600)
    monkeypatch.setattr("gazepose.report.page.write_page", lambda records, folder: [
        (folder / name).write_text("ours") for name in ("report.html", *(["old.svg"] if records.val else []))])
    report = make_report(run).parent
    (report / "mine").mkdir()
    for name in ("notes.txt", "mine/a.txt"):
        (report / name).write_text("mine")
    (run / "metrics.jsonl").unlink()
    for _ in range(2):
        make_report(run)
        assert sorted(os.listdir(report)) == ["manifest.json", "mine", "notes.txt", "report.html"]
        assert (report / "notes.txt").read_text() == (report / "mine" / "a.txt").read_text() == "mine"
        (report / "manifest.json").unlink()                                              # as of an older version
    weights = saved(tmp_path / "weights")
    (weights / "notes.txt").write_text("mine")
    (saved(weights) / "notes.txt").read_text()
    checkpoint.verify(weights)
    assert MARK in os.listdir(weights)


def test_readers_leave_a_folder_as_it_is_between_two_renames(tmp_path):
    best = tmp_path / "run" / "best"
    saved(best / "step-00000001")
    shutil.copytree(best / "step-00000001", best / ".step-00000002.part-1")              # another process writes it
    shutil.copytree(best / "step-00000001", best / ".step-00000001.old.part-1")

    def state() -> list[tuple[str, float]]:
        return sorted((str(path), path.stat().st_mtime_ns) for path in (tmp_path / "run").rglob("*"))
    before = state()
    checkpoint.read_model(tmp_path / "run")
    checkpoint.newest_whole(tmp_path / "run")
    checkpoint.run_folder(best / "step-00000001")
    assert state() == before


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
        (root / "runs" / "one" / "status.json", lambda _: checkpoint.newest_finished(root / "runs")),
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
    assert records.notes[:1] == ["10 lines of metrics.jsonl could not be read and are left out. A run that is stopped "
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


def test_no_error_controls_the_terminal(tmp_path):
    name = "a\x1b[2J\x9b31m\u202egpj.\udcff"
    with pytest.raises(SystemExit) as error, readable_errors():
        read_image(tmp_path / name)
    assert str(error.value) == f"error: {tmp_path}/a\\x1b[2J\\x9b31m\\u202egpj.\\udcff: no such image"


@pytest.mark.parametrize("name", ["resnet18.nobody", "resnet18.", "resnet18..", "test_resnet.r160_in1k.x"])
def test_an_unknown_tag_of_weights_is_named(name):
    with pytest.raises(ValueError, match="backbone: timm has no"):
        create_backbone(name)
