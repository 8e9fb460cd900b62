"""Head pose and landmarks by estimators: what the angles mean, and files of one's own."""

import json
import zlib

import numpy as np
import pytest
import timm
import torch
from making import write_tracks
from safetensors.torch import save_file

from gazepose.data.head_angles import from_hopenet, head_angles
from gazepose.data.index import Index
from gazepose.priors import commands
from gazepose.priors.head_pose import FACE, expected_angle, pose_from_landmarks, read_hopenet
from gazepose.synthetic.plan import camera_angles

HEADS = ("yaw", "pitch", "roll")


def z(label: str, n: int) -> np.ndarray:
    """The golden vectors' number stream: variance 1, within +-1.7321."""
    raw = np.asarray(np.random.PCG64(zlib.crc32(label.encode())).random_raw(n))
    return (2 * ((raw >> np.uint64(11)).astype(np.float64) * 2.0**-53) - 1) * 3**0.5


def rotation_of(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Head -> camera [3, 3] of a face turned right by yaw, lifted by pitch, its top tilted right by roll, degrees."""
    y, p, r = np.radians([yaw, pitch, roll])
    tilt = np.array([[np.cos(r), np.sin(r), 0], [-np.sin(r), np.cos(r), 0], [0, 0, 1]])
    lift = np.array([[1, 0, 0], [0, np.cos(p), np.sin(p)], [0, -np.sin(p), np.cos(p)]])
    turn = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    return np.diag([1.0, -1, -1]) @ turn @ lift @ tilt                    # x left of the person is right in the picture


def project(face: np.ndarray, pose: tuple[float, float, float], distance: float = 1000, aspect: float = 0.8
            ) -> np.ndarray:
    """Landmarks [5, 3] of a face in mm at a distance, in a crop of 200 mm height."""
    points = face @ rotation_of(*pose).T + [0, 0, distance]
    place = points[:, :2] / points[:, 2:] * distance / 200 / [aspect, 1] + 0.5
    return np.concatenate([place, np.ones((5, 1))], axis=1)


def test_the_expectation_is_hopenets(parity):
    salt = json.loads((parity / "models.json").read_text())["fill"]["salt"]
    for n, case in enumerate(json.loads((parity / "priors.json").read_text())["head_pose_expectation"]):
        logits = np.float32(z(f"{salt}hopenet/{n}", 66) * case["scale"])
        assert expected_angle(logits) == pytest.approx(case["degrees"], abs=1e-4)


def test_one_certain_bin_is_its_angle():
    logits = np.full((2, 66), -1000.0)
    logits[0, 33], logits[1, [0, 65]] = 0, 0
    assert expected_angle(logits).tolist() == [0, -1.5]                   # bin 33 is 3 * 33 - 99; ends: (-99 + 96) / 2


def test_the_angles_say_where_the_face_points():
    poses = [(0, 0, 0), (30, 0, 0), (0, 20, 0), (0, 0, -40), (-50, 25, 15), (70, -30, 10)]
    turns = np.array([rotation_of(*pose) for pose in poses])
    assert turns[1][:, 2] == pytest.approx([0.5, 0, -3**0.5 / 2])         # right in the picture, and to the camera
    assert turns[2][1, 2] < 0 and rotation_of(0, 0, 20)[0, 1] > 0         # up; the top of the head to the right
    np.testing.assert_allclose(head_angles(turns), poses, atol=1e-9)
    ahead = np.tile([0.0, 0.0, 1.0], (len(poses), 1))
    np.testing.assert_allclose(camera_angles(turns, ahead), poses, atol=1e-9)
    assert from_hopenet(np.array([10.0, 20, 30])).tolist() == [-10, 20, 30]


def test_a_projected_face_gives_its_pose_back():
    poses = [(yaw, pitch, roll) for yaw in (-55, -20, 0, 35, 60) for pitch in (-30, 0, 25) for roll in (-40, 0, 20)]
    landmarks = np.array([project(FACE, pose) for pose in poses])
    estimated = pose_from_landmarks(landmarks, np.full(len(poses), 0.8))
    assert np.abs(estimated - poses).max() < 1


def test_a_mirrored_face_has_the_mirrored_pose():
    landmarks = np.array([project(FACE, (25, -10, 15), aspect=1)])
    mirrored = landmarks[:, [0, 2, 1, 4, 3]] * [-1, 1, 1] + [1, 0, 0]
    estimated, other = (pose_from_landmarks(points, np.array([np.nan])) for points in (landmarks, mirrored))
    np.testing.assert_allclose(other, estimated * [-1, 1, -1], atol=0.01)


def test_unknown_landmarks_give_an_unknown_pose():
    landmarks = np.array([project(FACE, (10, 0, 0)) for _ in range(4)])
    landmarks[0], landmarks[1, 3, 0], landmarks[2] = np.nan, np.nan, 0.5                   # the last: all in one place
    assert np.isnan(pose_from_landmarks(landmarks, np.full(4, 0.8))).all(axis=1).tolist() == [True, True, True, False]


def test_the_fitted_pose_of_the_embedded_world_is_near_its_truth(tiny_world):
    truth = np.load(tiny_world / "truth" / "train.npz")
    width, height = (truth["box"][:, 2:] - truth["box"][:, :2]).T
    error = np.abs(pose_from_landmarks(truth["landmarks"], width / height) - truth["head_pose"])
    assert np.isfinite(error).all() and (np.median(error, axis=0) < [4, 12, 3]).all()      # faces differ from FACE


def test_the_column_is_fitted_where_there_are_landmarks(index_of, capsys):
    landmarks = np.array([project(FACE, (20, 10, 0), aspect=1), np.full((5, 3), np.nan)])
    index = index_of([range(2)], landmarks=landmarks)
    commands.fit_poses([index])
    opened = Index.open(index.folder)
    assert opened.head_pose[0] == pytest.approx([20, 10, 0], abs=1) and np.isnan(opened.head_pose[1]).all()
    assert "known for 1 of 2 faces" in capsys.readouterr().out
    assert opened.facts["priors"]["head_pose"] == "fitted to the landmarks"
    with pytest.raises(ValueError, match=r"has no landmarks -> .*priors import landmarks FILE"):
        commands.fit_poses([index_of([range(2)])])


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory):
    """(file, its features as timm's network, its heads): Hopenet's layout with the prefix of DataParallel."""
    torch.manual_seed(0)
    features = timm.create_model("resnet50", num_classes=0, zero_init_last=False).eval()
    heads = {name: torch.from_numpy(z(name, 66 * 2048).reshape(66, 2048)).float() * 0.005 for name in HEADS}
    state = {**features.state_dict(), "fc_finetune.weight": torch.zeros(3, 2051), "fc_finetune.bias": torch.zeros(3)}
    for name, weight in heads.items():
        state |= {f"fc_{name}.weight": weight, f"fc_{name}.bias": torch.arange(66) * 0.01}
    path = tmp_path_factory.mktemp("hopenet") / "snapshot.pkl"
    torch.save({f"module.{key}": value for key, value in state.items()}, path)
    return path, features, heads


def test_a_hopenet_file_makes_the_column(snapshot, tmp_path, capsys):
    path, features, heads = snapshot
    colours = np.random.default_rng(0).integers(0, 256, (6, 1, 1, 3), dtype=np.uint8)
    index = write_tracks(tmp_path / "index", [("c", "t", range(6))], np.tile(colours, (1, 16, 16, 1)))
    commands.estimate_poses([index], path, batch_size=4)
    crops = torch.from_numpy(np.stack([index.crop(row) for row in range(6)])).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in ((.485, .456, .406), (.229, .224, .225)))
    with torch.inference_mode():
        vector = features((crops[:, :, :1, :1].expand(-1, -1, 224, 224) - mean) / std)       # these crops are solid
    expected = np.stack([expected_angle((vector @ heads[name].T + torch.arange(66) * 0.01).numpy())
                       for name in HEADS], axis=1) * [-1, 1, 1]
    got = Index.open(index.folder).head_pose
    np.testing.assert_allclose(got, expected, atol=2e-3)
    assert np.ptp(got, axis=0).min() > 0.05
    assert "unused entries: fc_finetune.weight, fc_finetune.bias" in capsys.readouterr().out


def test_a_hopenet_file_may_be_safetensors_under_any_name(snapshot, tmp_path):
    state = torch.load(snapshot[0], weights_only=True)
    save_file({key.removeprefix("module."): value for key, value in state.items()}, tmp_path / "weights.bin")
    model, left = read_hopenet(tmp_path / "weights.bin")
    assert torch.equal(model.heads["roll"].weight, state["module.fc_roll.weight"]) and len(left) == 2


class Bomb:
    def __reduce__(self):
        return print, ("executed",)


def test_a_file_that_is_not_hopenet_says_why(snapshot, tmp_path, capfd):
    state = {key[7:]: value for key, value in torch.load(snapshot[0], weights_only=True).items()}
    cases = {
        "lacks": ({k: v for k, v in state.items() if "fc_yaw" not in k}, r"missing: fc_yaw\.weight, fc_yaw\.bias"),
        "shape": ({**state, "fc_roll.bias": torch.zeros(62)}, r"another shape: fc_roll\.bias"),
        "nan": ({**state, "bn1.weight": torch.full((64,), torch.nan)}, r"bn1\.weight is not finite"),
        "other": (timm.create_model("resnet18").state_dict(), r"missing: .* and \d+ more"),
            "bomb": (Bomb(), "could run code"),
        "list": ([1], "no state_dict of tensors inside")}
    for name, (content, message) in cases.items():
        torch.save(content, tmp_path / name)
        with pytest.raises(ValueError, match=rf"{name}: .*{message}.* -> "):
            read_hopenet(tmp_path / name)
    for content in (b"", b"PK\x03\x04 cut", b"\x08\0\0\0\0\0\0\0{", b"text"):
        (tmp_path / "broken").write_bytes(content)
        with pytest.raises(ValueError, match=r"broken: (not a checkpoint of tensors|cannot be read).* -> "):
            read_hopenet(tmp_path / "broken")
    with pytest.raises(FileNotFoundError, match="gone: no such checkpoint -> .*none is downloaded"):
        read_hopenet(tmp_path / "gone")
    assert "executed" not in capfd.readouterr().out
