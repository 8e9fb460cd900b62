"""import gazepose: the same numbers as infer.py and `watch`, and the examples of docs/python.md."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from accelerate import Accelerator
from squares import Reader, Squares, film, moving, picture, still
from test_models import published_file
from test_watch_command import lines_of, use_squares

import gazepose
from gazepose import api
from gazepose.data.index import Index
from gazepose.data.loader import make_loader
from gazepose.data.video_times import pictures_with_times
from gazepose.data.windows import WindowRule, window_rows
from gazepose.models import ModelConfig, build_model
from gazepose.training.augment import normalise
from gazepose.training.checkpoint import read_model
from gazepose.training.engine import predict
from gazepose.watch import faces
from gazepose.watch.tables import read_faces, read_looks, read_people

PAGES = [Path(__file__).resolve().parents[1] / name
         for name in ("README.md", "docs/python.md", "docs/live.md", "docs/robot.md")]


@pytest.fixture
def squares(monkeypatch: pytest.MonkeyPatch) -> None:
    """Faces are white squares, for the package and for `watch`; no model file is needed."""
    score = faces._landmark_score
    use_squares(monkeypatch.setattr)
    monkeypatch.setattr(faces, "_landmark_score", score)
    monkeypatch.setattr(api, "load_networks", lambda size=None: (Squares(), Reader()))


@pytest.fixture(scope="module")
def scorer(run) -> gazepose.Scorer:
    return gazepose.load(run)


def test_import_is_light():
    code = ("import sys, gazepose; print(gazepose.__version__, "
            "[name for name in ('numpy', 'torch', 'cv2') if name in sys.modules])")
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.endswith(" []\n")
    assert {"load", "Scorer", "Watcher", "Face", "Event"} <= set(dir(gazepose))
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        getattr(gazepose, "lod")                                       # noqa: B009


# ---- crops

@pytest.fixture(scope="module")
def inferred(run, small_index) -> tuple[np.ndarray, np.ndarray]:
    """Scores of all rows as infer.py makes them, and the crops of their windows, uint8 [N, 7, 3, S, S]."""
    model, trained = read_model(run)
    index, rows = Index.open(small_index.folder), np.arange(36)
    rule = WindowRule(reach=3, stride=1)
    accelerator = Accelerator(cpu=True)
    loader = make_loader(index, rule, rows, batch_size=8, crop_size=trained["prepare"]["crop_size"], num_workers=0)
    model = accelerator.prepare_model(model.to(memory_format=torch.channels_last), evaluation_mode=True)
    scores = predict(accelerator, model, accelerator.prepare(loader), rows).score
    crops = np.stack([index.crop(row) for row in range(36)])[window_rows(index, rule, rows)]
    return scores, crops.transpose(0, 1, 4, 2, 3)


def test_windows_of_crops_score_as_in_infer(scorer, inferred):
    scores, crops = inferred
    found = scorer.crops(crops, head_pose=np.full((36, 3), np.nan))
    assert np.ptp(found) > 1e-4 and found == pytest.approx(scores, abs=1e-6)


def test_a_single_crop_is_a_window_of_itself_whatever_its_form(scorer, inferred):
    crops, unknown = inferred[1][:5, 3:4], np.full((5, 3), np.nan)
    seven = scorer.crops(np.repeat(crops, 7, axis=1), head_pose=unknown)
    assert scorer.crops(crops, head_pose=unknown) == pytest.approx(seven, abs=1e-6)
    assert scorer.crops(list(crops[:, 0].transpose(0, 2, 3, 1)), unknown) == pytest.approx(seven, abs=1e-6)
    assert scorer.crops([], head_pose=np.zeros((0, 3))).shape == (0,)


def test_what_is_known_of_a_face_changes_its_score(scorer, inferred):
    one = inferred[1][:1]
    assert scorer.crops(one, [[40, 0, 0]]) != pytest.approx(scorer.crops(one, [[-40, 0, 0]]), abs=1e-6)


@pytest.mark.parametrize(("crops", "pose", "message"), [
    (np.zeros((2, 7, 3, 8, 8), np.float32), None, "crop 0 is float32 .* -> give uint8"),
    (np.zeros((2, 7, 8, 8, 3), np.uint8), None, "-> give uint8"),
    ([np.zeros((0, 4, 3), np.uint8)], None, "-> give uint8"),
    (np.zeros((2, 5, 3, 8, 8), np.uint8), np.zeros((2, 3)), "have 5 frames a window -> this run takes 7, or 1"),
    (np.zeros((2, 1, 3, 8, 8), np.uint8), None, r"queries the face with its head_pose -> give head_pose=\[2, 3\]"),
    (np.zeros((2, 1, 3, 8, 8), np.uint8), np.zeros((1, 3)), r"head_pose is \[1, 3\].* -> give \[2, 3\]"),
    (np.zeros((2, 1, 3, 8, 8), np.uint8), np.full((2, 3), np.inf), "infinite -> give")])
def test_arrays_of_another_form_are_refused(scorer, crops, pose, message):
    with pytest.raises(ValueError, match=message):
        scorer.crops(crops, head_pose=pose)


def test_a_source_that_is_not_there_is_named(tmp_path):
    for source in (tmp_path / "run", str(tmp_path / "a.pth")):
        with pytest.raises(FileNotFoundError, match=f"{source}: neither .* -> name a run"):
            gazepose.load(source)


def test_a_published_file_is_a_source(tmp_path):
    torch.manual_seed(0)
    model = build_model(ModelConfig(model="BaselineLSTM", behaviour="published")).eval()
    loaded = gazepose.load(published_file(tmp_path / "w.pth", "Ego4D's GazeLSTM or BaselineLSTM", model))
    assert loaded.run is not None and loaded.run.crop_size == 224
    crop = np.random.default_rng(0).integers(0, 256, (224, 224, 3), np.uint8)
    with torch.inference_mode():
        frames = normalise(torch.from_numpy(crop.transpose(2, 0, 1)[None]))
        logits = model(frames, torch.zeros((1, 7), dtype=torch.int64), None).logits
    assert loaded.crops([crop])[0] == pytest.approx(logits.softmax(1)[0, 1].item(), abs=1e-6)


def test_the_weights_of_a_checkpoint_are_a_source(run, scorer):
    weights = next((run / "best").glob("step-*/model.safetensors"))
    crops, pose = [np.full((40, 30, 3), 90, np.uint8)], np.zeros((1, 3))
    assert gazepose.load(weights).crops(crops, pose) == pytest.approx(scorer.crops(crops, pose), abs=1e-9)


# ---- videos and pictures

def same(table: Any, written: Any, atol: float) -> None:
    pd.testing.assert_frame_equal(table.reset_index(drop=True), written[list(table)].reset_index(drop=True),
                                  atol=atol, rtol=0, check_dtype=False)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.usefixtures("squares")
def test_a_video_has_the_tables_of_watch(tmp_path, causal):
    path = film(tmp_path / "a.mp4", moving(40, still(20, 60), lambda number: (200 - number / 2, 90, 50)))
    lines_of([path], tmp_path / "out", causal=causal)
    watched = gazepose.load().video(path, causal=causal)
    for table, read, name in zip(watched, (read_faces, read_looks, read_people), ("faces", "looks", "people"),
                                 strict=True):
        assert len(table)                                              # times are written to four decimals
        same(table, read(tmp_path / "out" / f"{name}.csv"), 1e-6 if name == "faces" else 5.1e-5)


@pytest.mark.usefixtures("squares")
def test_a_stream_has_the_numbers_of_a_causal_video(tmp_path, scorer):
    path = film(tmp_path / "a.mp4", moving(30, lambda number: (20 + 3 * number, 60, 60)))
    for loaded in (scorer, gazepose.load()):
        watcher = loaded.stream()
        found = [watcher.step(timed.picture, timed.seconds)[0] for timed in pictures_with_times(path)]
        table = loaded.video(str(path), causal=True).faces
        assert [face.person for face in found] == ["P1"] * 30 == table["person"].tolist()
        assert [face.probability for face in found] == pytest.approx(table["looking"].tolist(), abs=5.1e-5)


@pytest.mark.usefixtures("squares")
def test_pictures_have_the_faces_of_watch(tmp_path):
    import cv2
    shown = picture([(50, 60, 80), (200, 100, 20)])
    cv2.imwrite(str(tmp_path / "b.png"), shown)
    lines_of([tmp_path / "b.png"], tmp_path / "out")
    table = read_faces(tmp_path / "out" / "faces.csv")
    for found in gazepose.load("landmarks").pictures([shown, tmp_path / "b.png"]):
        assert [face.reason for face in found] == ["", "too small"] == table["reason"].tolist()
        assert [face.probability for face in found] == pytest.approx(table["looking"].tolist(), abs=5.1e-5, nan_ok=True)


@pytest.mark.usefixtures("squares")
def test_a_video_is_no_picture_and_may_be_watched(tmp_path):
    path = film(tmp_path / "a.mp4", moving(9, still(20, 60)))
    with pytest.raises(ValueError, match="a.mp4: not a picture by its name -> give videos to `video`"):
        gazepose.load().pictures([path])
    assert len(gazepose.load().video(path).faces) == 9


def test_a_window_with_later_frames_is_no_stream(scorer):
    with pytest.raises(ValueError, match="window 'centred' needs frames that have not come yet"):
        scorer.stream(window="centred")                                # type: ignore[arg-type]


# ---- documentation

@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
@pytest.mark.usefixtures("squares")
def test_the_examples_of_the_pages_run(page, tmp_path, monkeypatch, run, capsys):
    """Each block of Python, in order, in a folder with the files that the page names."""
    import cv2
    capture = cv2.VideoCapture
    film(tmp_path / "visit.mp4", moving(30, still(20, 60)))
    cv2.imwrite(str(tmp_path / "face.png"), picture([(20, 20, 80)], size=(120, 120)))
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "mine").symlink_to(run)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cv2, "VideoCapture", lambda camera: capture(str(tmp_path / "visit.mp4")))
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.S)
    names: dict[str, Any] = {}
    for block in blocks:
        exec(block, names)
    assert blocks and capsys.readouterr().out
