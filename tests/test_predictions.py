"""Predictions: what infer.py keeps for those who look back."""

import numpy as np
import pytest

from gazepose.data.index import Index
from gazepose.evaluation.metrics import head_pose_scores
from gazepose.evaluation.predictions import write_records

FIT = [0.5, -1.0] + [-0.3] * 9


@pytest.fixture
def split(index_of):
    """An index of two tracks as a validation split, with labels and scores of all its rows but the first."""
    pose = np.random.default_rng(0).normal(0, 30, (90, 3)).astype(np.float32)
    index = Index.open(index_of([range(60), range(0, 90, 3)], head_pose=pose.tolist()).folder)
    index.facts["split"] = "val"
    rows = np.arange(1, 90)
    label = (rows % 60 > 20).astype(np.int8)
    score = np.clip(0.2 + 0.6 * label, 0, 1).astype(np.float32)
    score[[4, 85]] = 0.9, 0.1                                       # a false looking and a false not looking
    return index, rows, label, score


def test_what_is_kept_is_the_rows_the_names_and_the_faces(split, tmp_path):
    index, rows, label, score = split
    write_records(tmp_path, index, rows, label, score, head_pose_fit=FIT)
    val, timeline, mistakes = (dict(np.load(tmp_path / f"{name}.npz")) for name in ("val", "timeline", "mistakes"))
    assert {len(column) for column in val.values()} == {89}             # a row per face in every column
    assert timeline["clips"].tolist() == ["clip"] and (val["clip"] == 0).all()
    assert np.array_equal(val["head_pose_score"], head_pose_scores(FIT, index.head_pose[rows]))
    assert timeline["start"].tolist()[0] == 0 and timeline["start"][-1] == len(timeline["row"]) == 89
    assert sorted(timeline["track_name"].tolist()) == ["track0", "track1"]
    shown = timeline["row"][timeline["crop_at"]]
    assert np.abs(timeline["crops"].mean((1, 2, 3)) - shown).max() < 1          # crop n is grey of level n
    assert mistakes["row"].tolist() == [5, 86] and mistakes["track_name"].tolist() == ["track0", "track1"]
    assert mistakes["crops"][:, 0, 0, 0].tolist() == [5, 86] and mistakes["frame"].tolist() == [5, 78]


def test_without_a_fit_there_is_no_baseline_column_and_of_test_only_the_rows(split, tmp_path):
    index, rows, label, score = split
    for name in ("val", "test"):
        (tmp_path / name).mkdir()
    write_records(tmp_path / "val", index, rows, label, score, ".partial")
    assert "head_pose_score" not in np.load(tmp_path / "val" / "val.partial.npz")
    assert {path.name for path in (tmp_path / "val").iterdir()} == {
        f"{name}.partial.npz" for name in ("val", "timeline", "mistakes")}
    index.facts["split"] = "test"
    write_records(tmp_path / "test", index, rows, label, score)
    assert [path.name for path in (tmp_path / "test").iterdir()] == ["test.npz"]


def test_without_a_mistake_there_is_an_empty_gallery(split, tmp_path):
    index, rows, label, _ = split
    write_records(tmp_path, index, rows, label, label.astype(np.float32))
    assert np.load(tmp_path / "mistakes.npz")["crops"].shape == (0, 1, 1, 3)
