"""Predictions: scores by row, the index they are of, and the few faces that a report shows."""

import json

import numpy as np
import pytest

from gazepose.data.index import Index
from gazepose.evaluation.examples import ShownFaces, shown_faces
from gazepose.evaluation.metrics import head_pose_scores
from gazepose.evaluation.predictions import save_scores

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


def test_a_table_of_scores_has_a_row_per_face_and_names_its_index(split, tmp_path):
    index, rows, label, score = split
    save_scores(tmp_path, index, rows, label, score, head_pose_fit=FIT)
    val = dict(np.load(tmp_path / "val.npz"))
    assert {len(column) for column in val.values()} == {89} and (val["clip"] == 0).all()
    assert np.array_equal(val["head_pose_score"], head_pose_scores(FIT, index.head_pose[rows]))
    source = json.loads((tmp_path / "val.source.json").read_text())
    assert source == {"index": str(index.folder), "fingerprint": index.facts["fingerprint"]}


def test_without_a_fit_there_is_no_baseline_column_and_limited_rows_have_files_of_their_own(split, tmp_path):
    index, rows, label, score = split
    save_scores(tmp_path, index, rows, label, score, ".partial", plain=score)
    assert "head_pose_score" not in np.load(tmp_path / "val.partial.npz")
    assert "score_plain" in np.load(tmp_path / "val.partial.npz")
    assert {path.name for path in tmp_path.iterdir()} == {"val.partial.npz", "val.partial.source.json"}


def test_the_faces_of_a_report_are_copied_once_and_stay_when_the_data_set_is_gone(split, tmp_path):
    index, rows, label, score = split
    save_scores(tmp_path, index, rows, label, score)
    copies = shown_faces(tmp_path / "val.npz", np.array([70, 5, 70]))
    assert sorted(copies.crops) == [5, 70] and (copies.crops[70] == index.crop(70)).all()
    assert copies.clips == ("clip",) and copies.tracks == {0: "track0", 1: "track1"}
    source = tmp_path / "val.source.json"
    source.write_text(json.dumps({**json.loads(source.read_text()), "index": "gone"}))
    again = shown_faces(tmp_path / "val.npz", np.array([5, 70]))
    assert (again.crops[5] == copies.crops[5]).all() and again.tracks == copies.tracks
    assert sorted(shown_faces(tmp_path / "val.npz", np.array([5, 6])).crops) == [5, 70]        # 6 was not copied


def test_faces_of_another_index_are_not_shown(split, tmp_path):
    index, rows, label, score = split
    save_scores(tmp_path, index, rows, label, score)
    shown_faces(tmp_path / "val.npz", np.array([5]))
    source = tmp_path / "val.source.json"
    source.write_text(json.dumps({**json.loads(source.read_text()), "fingerprint": "other"}))
    assert shown_faces(tmp_path / "val.npz", np.array([5])) == ShownFaces()
    source.unlink()
    assert shown_faces(tmp_path / "val.npz", np.array([5])) == ShownFaces()
