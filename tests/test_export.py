"""Exported models: the numbers of the package, for any number of faces, and without the package."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from squares import FIVE, film, picture

from gazepose import deploy
from gazepose.__main__ import run as run_verb
from gazepose.data.video_times import TimedPicture
from gazepose.models import ModelConfig, build_model
from gazepose.training import scoring
from gazepose.training.scoring import RunModel
from gazepose.watch.scorers import TrainedScorer

EXAMPLE = Path(__file__).resolve().parents[1] / "docs" / "examples" / "live_onnx.py"
PACKAGES = ("torch", "timm", "av", "pandas", "scipy", "decord", "simplejpeg", "gazepose")
SMALL: dict[str, Any] = {"backbone": "test_resnet", "num_encoder_layers": 1, "num_decoder_layers": 1, "dmodel": 32,
                         "nheads": 2, "dim_feedforward": 32}
HIDDEN = f"""
import runpy, sys
for name in {PACKAGES}:
    sys.modules[name] = None
import cv2, numpy as np
class Squares:
    create = classmethod(lambda cls, *args: cv2.imread("none") or cls())         # of which OpenCV would warn
    def setInputSize(self, size): pass
    def detect(self, picture):
        _, _, stats, _ = cv2.connectedComponentsWithStats((picture.min(axis=2) > 150).astype(np.uint8))
        boxes = stats[1:, :4].astype(np.float32)
        boxes = boxes[boxes[:, 2] > 9]
        points = (boxes[:, None, :2] + np.array({FIVE.tolist()}) * boxes[:, None, 2:]).reshape(-1, 10)
        return 1, np.column_stack([boxes, points, np.ones(len(boxes))]).astype(np.float32)
cv2.FaceDetectorYN = Squares
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def model_of(name: Any, size: int = 32, fit: tuple[float, float] | None = None, **flags: Any) -> RunModel:
    torch.manual_seed(0)
    network = ModelConfig(model=name, **{**SMALL, **flags})
    model = build_model(network).eval().to(memory_format=torch.channels_last)
    return RunModel(model, network, size, 1.2, "variance", fit)


@pytest.fixture(scope="module")
def gazepose_run() -> RunModel:
    return model_of("GazePose", fit=(9000.0, 9000.0), prior_head=True, prior_landmark=True, low_pass=0.02)


@pytest.fixture(scope="module")
def exported(gazepose_run, tmp_path_factory) -> Path:
    """GazePose with priors and quality dropout as ONNX files; exporting takes seconds, so once."""
    folder = tmp_path_factory.mktemp("exported") / "onnx"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deploy.RunModel, "read", lambda path: gazepose_run)
        assert deploy.export(Path("run"), "onnx", folder).difference <= 1e-5
    return folder


def test_the_files_hold_the_numbers_of_their_parity_test(exported):
    import onnx
    facts = json.loads((exported / deploy.FACTS).read_text())
    with np.load(exported / deploy.CHECK) as check:
        example = dict(check)
    assert np.isnan(example["head_pose"]).any() and np.isnan(example["landmarks"]).any()
    for name, output in deploy.OUTPUT.items():
        found = deploy.open_onnx(exported / f"{name}.onnx")(example)
        assert found == pytest.approx(example[output], abs=1e-5)
        inside = {entry.key: entry.value for entry in onnx.load(exported / f"{name}.onnx").metadata_props}
        assert json.loads(inside["gazepose"]).items() <= facts.items()
    assert facts["check"]["probability"] == pytest.approx(example["probability"].tolist())
    assert (facts["window"]["frames"], facts["crop"]["size"], facts["priors"]) == (7, 32, ["head_pose", "landmarks"])


@pytest.mark.parametrize(("crops", "windows"), [(1, 1), (2, 9), (16, 3)])
def test_any_number_of_crops_and_windows(exported, gazepose_run, crops, windows):
    example = deploy.example_of(gazepose_run, crops, windows)
    expected = deploy.expected_of(gazepose_run, example)["probability"]
    assert deploy.open_onnx(exported / "model.onnx")(example) == pytest.approx(expected, abs=1e-5)


def test_a_prior_that_the_run_does_not_query_is_no_input(tmp_path, monkeypatch):
    plain = model_of("FaceGaze", low_pass=0.02)
    monkeypatch.setattr(deploy.RunModel, "read", lambda path: plain)
    done = deploy.export(Path("run"), "torch", tmp_path / "torch")
    program = torch.export.load(done.folder / "head.pt2")
    assert set(program.graph_signature.user_inputs) == {"maps", "window"}
    assert done.difference <= 1e-5 and {path.name for path in done.folder.iterdir()} == {
        "model.pt2", "maps.pt2", "head.pt2", deploy.FACTS, deploy.CHECK}


@pytest.fixture
def files_off_by(monkeypatch) -> Callable[..., None]:
    """Makes files of a kind differ from the package by so much; nothing is traced or written."""
    plain = model_of("GazeLSTM")
    monkeypatch.setattr(deploy.RunModel, "read", lambda path: plain)

    def set_difference(to: str, wrong: float) -> None:
        monkeypatch.setitem(deploy.WRITE, to, lambda *args: None)
        monkeypatch.setitem(deploy.OPEN, to, lambda path: lambda inputs: {
            "maps": lambda: plain.maps(inputs["crops"]).numpy(),
            "head": lambda: deploy.expected_of(plain, inputs)["probability"] + wrong,
            "model": lambda: deploy.expected_of(plain, inputs)["probability"]}[path.stem]())
    return set_difference


@pytest.mark.parametrize(("to", "other"), [("onnx", "torch"), ("torch", "onnx")])
def test_files_that_differ_from_the_package_are_not_written(tmp_path, files_off_by, to, other):
    made = tmp_path / "made"
    for wrong in (0.001, np.nan):
        files_off_by(to, wrong)
        with pytest.raises(SystemExit, match=f"nothing was written -> use --to {other}, or other versions of torch"):
            run_verb("export", ["run", "--to", to, "--out", str(made)])
        assert not list(tmp_path.iterdir())
    files_off_by(other, 0.0)
    run_verb("export", ["run", "--to", other, "--out", str(made)])
    assert json.loads((made / deploy.FACTS).read_text())["difference"] <= 1e-5
    files_off_by(to, 0.0)                                                # other versions
    run_verb("export", ["run", "--to", to, "--out", str(tmp_path / "again")])


def test_a_folder_that_is_there_stays(tmp_path, files_off_by):
    files_off_by("onnx", 0.0)
    deploy.export(Path("run"), "onnx", tmp_path / "made")
    before = (tmp_path / "made" / deploy.FACTS).read_bytes()
    with pytest.raises(FileExistsError, match="is there already -> delete it, or give another --out"):
        deploy.export(Path("run"), "onnx", tmp_path / "made")
    assert (tmp_path / "made" / deploy.FACTS).read_bytes() == before
    deploy.export(Path("run"), "onnx", tmp_path / "another")
    shutil.rmtree(tmp_path / "made")
    deploy.export(Path("run"), "onnx", tmp_path / "made")


def test_a_missing_package_names_the_extra(tmp_path, monkeypatch):
    plain = model_of("FaceGaze")
    monkeypatch.setattr(deploy.RunModel, "read", lambda path: plain)
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ImportError, match=r"onnxscript is not installed .*pip install 'gazepose\[export\]'"):
        deploy.export(Path("run"), "onnx", tmp_path / "made")
    assert not list(tmp_path.iterdir())
    text = (Path(__file__).resolve().parents[1] / "pyproject.toml").read_text()
    extra = re.search(r"\nexport = \[(.*)\]", text)
    assert extra and {"onnx", "onnxruntime", "onnxscript"} == set(re.findall(r'"(\w+)>=', extra[1]))


def noisy(number: int) -> np.ndarray:
    """Two bright faces that differ in every frame; one is gone for a while, and sometimes blurred."""
    draw, shown = np.random.default_rng(number), picture([(40, 60, 80)])
    shown[60:140, 40:120] = draw.integers(180, 256, (80, 80, 3))
    if not 6 <= number < 9:
        shown[70:150, 200:280] = 230 if number % 5 == 0 else draw.integers(170, 256, (80, 80, 3))
    return shown


def test_the_live_example_says_which_file_is_missing(tmp_path):
    done = subprocess.run([sys.executable, str(EXAMPLE), "0", str(tmp_path), "--detector", "x"], capture_output=True,
                          text=True, timeout=60)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert f"{tmp_path / 'export.json'}' -> give the folder that `gazepose export --to onnx` wrote" in done.stderr


def by_opencv(crop: np.ndarray) -> np.ndarray:
    """A crop compressed and read by OpenCV, whose JPEG differs from the package's by a few grey levels."""
    options = [cv2.IMWRITE_JPEG_QUALITY, 90, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420]
    read = cv2.imdecode(cv2.imencode(".jpg", cv2.cvtColor(crop, cv2.COLOR_RGB2BGR), options)[1], cv2.IMREAD_COLOR)
    return cv2.cvtColor(read, cv2.COLOR_BGR2RGB)


def scores_of(run: RunModel, video: Path, lines: list[dict[str, Any]]) -> list[list[float]]:
    """What the package says of the faces that the example found, by picture."""
    scorer, capture, scores = TrainedScorer(run, "closed"), cv2.VideoCapture(str(video)), []
    for number, line in enumerate(lines):
        shown = cv2.cvtColor(capture.read()[1], cv2.COLOR_BGR2RGB)
        for place, face in enumerate(line["faces"]):
            box = np.array(face["box"])
            points = (box[:2] + FIVE * box[2:])[[2, 1, 0, 4, 3]]
            scorer.add(place, face["person"], TimedPicture(number, number / 30, 1 / 30, shown), box,
                       np.full(3, np.nan), points)
        rows, found = scorer.take_now(number / 30)
        scores.append(found[np.argsort(rows)].tolist())
    return scores


def test_the_live_example_needs_numpy_opencv_and_onnxruntime_only_and_scores_as_the_package(
        exported, gazepose_run, tmp_path, monkeypatch):
    video = film(tmp_path / "faces.mp4", [noisy(number) for number in range(16)])
    done = subprocess.run([sys.executable, "-c", HIDDEN, str(EXAMPLE), str(video), str(exported), "--detector", "x"],
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    found = [face["probability"] for line in lines for face in line["faces"]]
    assert {face["person"] for line in lines for face in line["faces"]} == {1, 2}
    assert found == pytest.approx(sum(scores_of(gazepose_run, video, lines), []), abs=1e-3) and len(found) == 16 + 13
    monkeypatch.setattr(scoring, "encode", by_opencv)                  # the same crops to the bit
    monkeypatch.setattr(scoring, "decode", lambda crop: crop)
    assert found == pytest.approx(sum(scores_of(gazepose_run, video, lines), []), abs=1e-5)
    assert np.ptp(found) > 1e-4
