"""Checkpoints and runs from others: nothing in them takes the memory, leads elsewhere, or is removed with ours."""

import io
import json
import os
import shutil
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rig import save_once
from test_report import make_run
from torch import nn

from gazepose import tensor_files
from gazepose.compat.checkpoints import read_published
from gazepose.evaluation.predictions import refuse_links
from gazepose.manifest import MARK, is_written_here
from gazepose.models import ModelConfig, build_model
from gazepose.priors.head_pose import read_hopenet
from gazepose.report import make_report
from gazepose.tensor_files import in_child
from gazepose.training import checkpoint, runlog
from gazepose.training.provenance import check_data

SMALL: dict[str, Any] = {"num_encoder_layers": 1, "num_decoder_layers": 1, "dmodel": 32, "dim_feedforward": 32,
                         "nheads": 2, "backbone": "test_resnet", "prior_head": True}


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
    ({"quality_fit": ["a", 1.0]}, "quality_fit"), ({"head_pose_fit": "text"}, "head_pose_fit"), ({"face_heights": [9]},
                                                                                         "face_heights")])
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
    runlog.run_folder(best / "step-00000001")
    assert state() == before
