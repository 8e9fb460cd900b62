"""Trackers know a run by its name and its whole configuration, and go on after it is resumed."""

from pathlib import Path
from typing import Any

import pytest
from accelerate import Accelerator

from gazepose.config import TrainConfig, asdict
from gazepose.training.trackers import start_tracker

CONFIG: dict[str, Any] = {**asdict(TrainConfig()), "root": "data/x", "world_size": 1}


def track(name: str, folder: Path, start: int, steps: range) -> Any:
    """A training that logs these steps after it has started at `start`."""
    accelerator = Accelerator(cpu=True, log_with=name, project_dir=folder)
    start_tracker(accelerator, folder, CONFIG, start)
    for step in steps:
        accelerator.log({"train/loss": 1 / step}, step=step)
    tracker = accelerator.trackers[0].tracker
    accelerator.end_training()
    return tracker


@pytest.fixture
def run(tmp_path, monkeypatch) -> Path:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    (tmp_path / "mine").mkdir()
    return tmp_path / "mine"


def test_tensorboard_goes_on_in_the_same_folder_without_the_steps_that_come_again(run):
    loading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    track("tensorboard", run, 0, range(1, 6))
    [file] = (run / "gazepose").iterdir()                # one for each start
    assert b"hparams" in file.read_bytes()
    track("tensorboard", run, 3, range(4, 8))            # stopped after 5, and saved after 3
    events = loading.EventAccumulator(str(run / "gazepose")).Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2, 3, 4, 5, 6, 7]
    text = events.Tensors("config.json/text_summary")[0].tensor_proto.string_val[0].decode()
    assert '"root": "data/x"' in text and '"prior_head": false' in text
    assert [path.name for path in run.iterdir()] == ["gazepose"] and not any(Path().iterdir())
    assert len([path for path in (run / "gazepose").iterdir() if path.is_file()]) == 2


def test_wandb_keeps_its_files_and_the_same_id_in_the_run(run, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    first, second = (track("wandb", run, start, steps) for start, steps in ((0, range(1, 3)), (2, range(3, 5))))
    assert first.id == second.id and first.name == second.name == "mine"
    assert dict(first.config)["optim"]["lr"] == CONFIG["optim"]["lr"]
    assert len(list((run / "wandb").glob(f"offline-run-*-{first.id}"))) >= 1 and not any(Path().iterdir())


def test_trackio_goes_on_under_the_same_name(run, tmp_path, monkeypatch):
    pytest.importorskip("trackio")
    from trackio import sqlite_storage, utils
    for module in (utils, sqlite_storage):
        monkeypatch.setattr(module, "TRACKIO_DIR", tmp_path / "trackio", raising=False)
    for start, steps in ((0, range(1, 3)), (2, range(3, 5))):
        track("trackio", run, start, steps)
    storage = sqlite_storage.SQLiteStorage
    assert storage.get_runs("gazepose") == ["mine"]
    assert [entry["step"] for entry in storage.get_logs("gazepose", "mine")] == [1, 2, 3, 4]
    assert not any(Path().iterdir())
