"""Features of a frozen backbone: the same rows and scores as from pixels, computed once, whole or not there at all."""

import csv
import json
import shutil
import time
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import warm
from accelerate import Accelerator
from rig import Rig
from test_distributed import in_processes
from test_models import BOTH, small
from test_resume import ends_alike
from torch import nn

from gazepose.config import InferConfig, TrainConfig, parse, parse_train
from gazepose.data import features as files
from gazepose.data.features import Features
from gazepose.data.index import Index
from gazepose.data.loader import make_loader
from gazepose.data.windows import BEHAVIOURS, BLACK, WindowRule, read_pool, shown_rows
from gazepose.io import lock
from gazepose.processes import Processes
from gazepose.training import feature_cache as feature_cache
from gazepose.training.augment import normalise, to_model
from gazepose.training.distributed import share_preparation
from gazepose.training.engine import predict
from gazepose.training.feature_cache import cache_features, features_of, fingerprint, folder_name

ROOT = Path(__file__).resolve().parents[1]
SIZE, ROWS = 64, 30
QUIET = Processes(notify=lambda line: None)


@pytest.fixture
def index(index_of, tmp_path) -> Index:
    """Two tracks of noise, in a folder of the test's own."""
    computed = index_of([range(20), range(3, 13)], noise=True)
    return Index.open(shutil.copytree(computed.folder, tmp_path / "index"))


def network(seed: int = 0, name: str = "GazePose", **options):
    """A model with a frozen backbone, whose scores differ between faces."""
    model = small(seed, model=name, **BOTH | options)
    model.frames.backbone.requires_grad_(False)
    for layer in [module for module in model.last_layer.modules() if isinstance(module, nn.Linear)]:
        layer.weight.data *= 10
    return model


def computed(model, index: Index, rows: np.ndarray | None = None) -> Features:
    rows = shown_rows(index, np.arange(ROWS), 3) if rows is None else rows
    store = features_of(model.frames, index, rows, SIZE, QUIET)
    assert store is not None
    return store


def direct(model, index: Index, rows: list[int]) -> torch.Tensor:
    """What the backbone gives for the pixels of rows."""
    pixels = torch.from_numpy(read_pool(index, np.array(rows), SIZE)).permute(0, 3, 1, 2)
    with torch.no_grad():
        return model.frames.maps_of(normalise(pixels))


def test_the_files_hold_what_the_backbone_gives_to_the_rounding_of_float16(index, monkeypatch):
    monkeypatch.setattr(files, "CHUNK_ROWS", 7)
    model = network()
    store, rows = computed(model, index), [29, BLACK, 0, 7, 7]
    assert store.shape == tuple(direct(model, index, [0]).shape[1:]) and len(store.chunks) == 5 and len(store) == 31
    torch.testing.assert_close(torch.from_numpy(store.read(np.array(rows))).float(), direct(model, index, rows),
                               rtol=2**-11, atol=1e-6)
    with pytest.raises(ValueError, match=r"has no row 31 -> delete the folder"):
        store.read(np.array([0, 31]))


def test_only_crops_that_a_window_may_show_are_computed(index):
    store = computed(network(), index, shown_rows(index, np.array([10, 22]), 1))
    assert store.rows.tolist() == [BLACK, 9, 10, 11, 21, 22, 23]


@pytest.mark.parametrize(("name", "behaviour"), [
    ("GazePose", "intended"), ("GazePose", "published"), ("GazeLSTM", "intended"), ("BaselineLSTM", "intended")])
def test_scores_from_features_are_those_from_pixels(index, name, behaviour):
    model, accelerator = network(name=name, behaviour=behaviour), Accelerator(cpu=True)
    rule = WindowRule(behaviour=BEHAVIOURS[behaviour])
    scores = []
    for cached in (False, True):
        loader = make_loader(index, rule, np.arange(ROWS), batch_size=8, crop_size=SIZE)
        if cached:
            cache_features(model.frames, [loader], QUIET)
        loader = accelerator.prepare(loader)
        scores.append(predict(accelerator, model, loader, np.arange(ROWS)).score)
    # a feature is rounded to 2**-11 of itself, and a head adds up hundreds; models differ in how far scores lie apart
    assert 0 < np.abs(scores[0] - scores[1]).max() < min(1e-3, 0.02 * np.ptp(scores[0]))


@pytest.mark.parametrize("behaviour", ["intended", "published"])
def test_training_deals_the_same_rows_in_the_same_order_with_the_same_frames(index, behaviour):
    model = network()
    rule = WindowRule(train=True, windows_per_segment=4, flip=False, random_crop=False, behaviour=BEHAVIOURS[behaviour])
    pixels, features = (make_loader(index, rule, np.arange(ROWS), batch_size=8, crop_size=SIZE) for _ in range(2))
    cache_features(model.frames, [features], QUIET)
    for plain, cached in zip(pixels, features, strict=True):
        assert plain["row"].tolist() == cached["row"].tolist()
        assert cached["frames"].dtype == torch.float16 and "flip" not in cached
        expected, got = to_model(plain), to_model(cached)
        with torch.no_grad():
            maps = model.frames.maps_of(expected["frames"])
        torch.testing.assert_close(got["frames"][got["window"]], maps[expected["window"]], rtol=2e-3, atol=2e-3)
        for key in ("head_pose", "landmarks", "gaze"):
            torch.testing.assert_close(got[key], expected[key], rtol=0, atol=0, equal_nan=True)


def test_workers_deal_the_same_features(index):
    model, rule = network(), WindowRule(train=True, windows_per_segment=4)
    here, elsewhere = (make_loader(index, rule, np.arange(ROWS), batch_size=8, crop_size=SIZE, num_workers=n)
                   for n in (0, 1))
    cache_features(model.frames, [here, elsewhere], QUIET)
    for batch, expected in zip(elsewhere, here, strict=True):
        assert torch.equal(batch["frames"], expected["frames"]) and torch.equal(batch["window"], expected["window"])


def test_the_patches_of_a_frozen_vit_are_kept(index):
    model = network(backbone="test_vit", image_size=SIZE)
    store, rows = computed(model, index), [3, BLACK, 29]
    assert store.shape == (64, 4, 4)
    torch.testing.assert_close(torch.from_numpy(store.read(np.array(rows))).float(), direct(model, index, rows),
                               rtol=2**-10, atol=1e-5)


def test_they_are_computed_once_for_a_backbone_whatever_its_head(index, monkeypatch):
    first, head = network(), network(seed=1, name="GazeLSTM")
    head.frames.backbone.load_state_dict(first.frames.backbone.state_dict())
    folder = computed(first, index).folder
    monkeypatch.setattr(feature_cache, "_compute", lambda *_: pytest.fail("computed again"))
    assert computed(head, index).folder == folder


def test_a_changed_weight_stride_size_smoothing_or_crop_has_another_fingerprint(index, index_of):
    model = network()
    names = [fingerprint(model.frames, index, SIZE), fingerprint(model.frames, index, 32)]
    again = fingerprint(network(seed=0, name="GazeLSTM").frames, index, SIZE)
    model.frames.output_stride = 16
    names.append(fingerprint(model.frames, index, SIZE))
    model.frames.output_stride = 32
    model.frames.low_pass = 0.02
    names.append(fingerprint(model.frames, index, SIZE))
    model.frames.low_pass = 0.0
    names.append(fingerprint(model.frames, index_of([range(ROWS)]), SIZE))
    weight = next(model.frames.backbone.parameters()).data.view(-1)
    weight[0] += 1e-6
    names.append(fingerprint(model.frames, index, SIZE))
    assert len(set(names)) == 6 and again != names[1]
    model.frames.backbone.bn1.running_mean[0] += 1
    assert fingerprint(model.frames, index, SIZE) not in names


def test_a_file_that_is_short_altered_or_gone_is_named_with_its_remedy(index):
    model = network()
    folder = computed(model, index).folder
    maps = next(folder.glob("0000000000-*.npy"))
    whole = maps.read_bytes()
    remedy = f"-> delete the folder {folder}; it is made again"
    maps.write_bytes(whole[:-1])
    with pytest.raises(ValueError, match=f"{maps}: not an array that can be read.*{remedy}"):
        computed(model, index)
    maps.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ValueError, match=f"{maps}: its bytes changed .*{remedy}"):
        computed(model, index)
    maps.unlink()
    with pytest.raises(FileNotFoundError, match=f"{maps}: not there {remedy}"):
        computed(model, index)
    for content in (b"", b"[]", b'{"format": 1}', b'{"format": 0, "rows": 3}'):
        (folder / "features.json").write_bytes(content)
        with pytest.raises(ValueError, match=f"features.json: .*{remedy}"):
            computed(model, index)
    shutil.rmtree(folder)
    assert len(computed(model, index)) == 31


def test_an_interruption_loses_the_part_that_was_being_computed(index, monkeypatch):
    monkeypatch.setattr(files, "CHUNK_ROWS", 8)
    monkeypatch.setattr(feature_cache, "FRAMES", 4)
    model, calls, lines = network(), [], []
    maps_of = model.frames.maps_of

    def counted(frames):
        calls.append(len(frames))
        if len(calls) == 6:                            # the first sees the shape; two for each part of 8
            raise KeyboardInterrupt
        return maps_of(frames)
    model.frames.maps_of = counted
    with pytest.raises(KeyboardInterrupt):
        computed(model, index)
    staging, = (index.folder / "features").glob(".*.chunks")
    assert len(list(staging.glob("0*.npy"))) == 2 and not list(index.folder.glob("features/*-*/features.json"))
    calls[:] = [0] * 6
    again = features_of(model.frames, index, shown_rows(index, np.arange(ROWS), 3), SIZE,
                        Processes(notify=lines.append))
    assert again is not None and sum(calls[6:]) == 1 + 15 and not staging.exists() and len(again.chunks) == 4
    assert len(lines) == 3 and lines[1] == "features of train: resuming, 2 of 4 chunks are there"
    assert lines[0].startswith("features: 15 crops of train go once, whole and unmirrored, through the frozen test_res")
    whole = computed(network(), index)
    assert whole.folder == again.folder


def test_a_full_disk_is_refused_before_anything_is_computed(index, monkeypatch):
    monkeypatch.setattr(feature_cache.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(OSError, match=r"features/\w+-\w+: needs 0\.0 MB, and 0\.0 MB are free there -> make room"):
        computed(network(), index)


def test_what_float16_cannot_hold_is_an_error(index):
    model = network()
    maps_of = model.frames.maps_of
    model.frames.maps_of = lambda frames: maps_of(frames) + (1e5 if len(frames) > 1 else 0)
    with pytest.raises(ValueError, match=r"row -1: test_resnet gives values that float16 cannot hold"):
        computed(model, index)


def of_two(rank: int, folder: Path) -> tuple[np.ndarray, list[int], int]:
    """Scores of two processes that compute features together, the rows each learnt from, and its share of the crops."""
    files.CHUNK_ROWS = 4
    accelerator, index, model, crops = Accelerator(cpu=True), Index.open(folder), network(), []
    maps_of = model.frames.maps_of
    model.frames.maps_of = lambda frames: (crops.append(len(frames)), maps_of(frames))[1]
    rule = WindowRule()
    loaders = [make_loader(index, rule, np.arange(ROWS), batch_size=4, crop_size=SIZE,
                           world_size=accelerator.num_processes) for rule in (rule, WindowRule(train=True))]
    loaders = accelerator.prepare(*loaders)
    cache_features(model.frames, loaders, share_preparation(accelerator, "shared"))
    rows = [row for batch in loaders[1] for row in batch["row"].tolist() if row >= 0]
    return predict(accelerator, model, loaders[0], np.arange(ROWS)).score, rows, sum(crops)


def test_two_processes_share_the_work_and_score_as_one(index):
    (alone, rows, crops), = in_processes(of_two, 1, index.folder)
    shutil.rmtree(index.folder / "features")
    (first, mine, some), (second, theirs, others) = in_processes(of_two, 2, index.folder)
    assert np.array_equal(first, second) and np.abs(first - alone).max() < 1e-3
    assert sorted(mine + theirs) == sorted(rows) == list(range(ROWS))
    assert crops == 31 + 1 and some + others == 31 + 2 and min(some, others) > 10


def test_a_second_run_waits_for_the_first(index):
    model, rows, lines = network(), shown_rows(index, np.arange(ROWS), 3), []
    folder = index.folder / "features" / folder_name(model.frames, index, rows, SIZE)
    folder.parent.mkdir()
    second = Thread(target=features_of, args=(model.frames, index, rows, SIZE, Processes(notify=lines.append)))
    first = lock(folder.with_name(f".{folder.name}.lock"))
    second.start()
    while not lines:
        time.sleep(0.01)
    assert len(lines) == 1 and "waiting for process" in lines[0] and not folder.exists()
    first.release()
    second.join()
    assert len(Features(folder)) == 31


def test_without_their_flag_inference_makes_none_and_uses_what_is_there(index):
    model = network()
    loader = make_loader(index, WindowRule(), np.arange(ROWS), batch_size=8, crop_size=SIZE)
    cache_features(model.frames, [loader], QUIET, make=False)
    assert loader.dataset.features is None and not (index.folder / "features").exists()
    computed(model, index)
    cache_features(model.frames, [loader], QUIET, make=False)
    assert next(iter(loader))["frames"].dtype == torch.float16


def test_features_come_before_the_first_batch(index):
    loader = make_loader(index, WindowRule(), np.arange(ROWS), batch_size=8, crop_size=SIZE)
    next(iter(loader))
    with pytest.raises(RuntimeError, match="use_features comes before a loader's first batch"):
        cache_features(network().frames, [loader], QUIET)


def test_flags_that_contradict_cached_features_are_refused_or_switched_off(capsys):
    with pytest.raises(SystemExit):
        parse(TrainConfig, ["--cache_features"])
    assert "add --freeze_backbone" in "".join(capsys.readouterr())
    with pytest.raises(SystemExit):
        parse(TrainConfig, ["--cache_features", "--freeze_backbone", "--crops", "video"])
    assert "--cache_features needs prepared crops" in "".join(capsys.readouterr())
    with pytest.raises(SystemExit):
        parse(InferConfig, ["--cache_features", "--flip_average"])
    assert "mirrored crops are not stored" in "".join(capsys.readouterr())
    for flag in ("--flip", "--random_crop", "--augment=standard"):
        with pytest.raises(SystemExit, match="features are made from whole, unmirrored crops -> leave --flip"):
            parse_train(["--cache_features", "--freeze_backbone", flag])
    config, _ = parse_train(["--cache_features", "--freeze_backbone"])
    assert not config.data.flip and not config.data.random_crop
    config, _ = parse_train(["--freeze_backbone"])
    assert config.data.flip and config.data.random_crop and not parse(InferConfig, []).cache_features


def test_a_stopped_training_on_features_ends_as_one_that_was_not(index_of, tmp_path):
    computed = index_of([range(12)] * 3, noise=True, label=[*[0] * 6, *[1] * 6] * 3)
    rig = Rig(shutil.copytree(computed.folder, tmp_path / "index"), tmp_path, narrow=True)
    flags = ["--freeze_backbone", "--cache_features"]
    whole = rig.run("whole", *flags)
    rig.run("stopped", *flags, ends=75, fault=("after_step", 4, "hit", 15))
    ends_alike(rig.run("stopped", *flags, "--resume"), whole)
    assert len(list((tmp_path / "index" / "features").glob("*-*/features.json"))) == 1


def test_the_commands_train_and_score_on_features(tiny_world, tmp_path):
    shutil.copytree(tiny_world, tmp_path / "world")
    output = warm.ran(
        str(ROOT / "train.py"), "--data", "world", "--crop_size", "32", "--output_stride", "32", "--backbone",
        "test_resnet", "--dmodel", "32", "--nheads", "2", "--epochs", "1", "--limit", "20", "--exp_path", "runs/one",
        "--freeze_backbone", "--cache_features", cwd=tmp_path)
    assert "features: " in output and "whole and unmirrored" in output, output
    config = json.loads((tmp_path / "runs" / "one" / "config.json").read_text())
    assert config["data"]["cache_features"] and not config["data"]["flip"] and config["model"]["image_size"] == 32
    scores = []
    for flags, line in ((["--cache_features"], "crops of val go once"), ([], "crops of val from"), ([], "")):
        if not line:
            shutil.rmtree(tmp_path / "world" / "prepared" / "clean-32" / "val" / "features")
        code, said = warm.python(str(ROOT / "infer.py"), "--split", "val", "--stride", "2", *flags, cwd=tmp_path)
        assert code == 0 and ((line in said) if line else ("features" not in said)), said
        (table,) = (tmp_path / "runs" / "one").glob("pred-world-*/val/pred.csv")
        with open(table) as file:
            scores.append([float(row["score"]) for row in csv.DictReader(file)])
    assert scores[0] == scores[1] and scores[2] == pytest.approx(scores[0], abs=1e-3)
