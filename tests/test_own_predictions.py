"""Which predictions are a run's own: where they go, what they replace, and at which faces own videos are scored."""

from pathlib import Path
from typing import Any

from gazepose.config import TrainConfig, parse
from gazepose.evaluation.predictions import predictions_folder, write_about
from gazepose.io import write_json
from gazepose.training.provenance import origin_of, usual_stride
from gazepose.training.run_config import fingerprints_of


def test_a_runs_own_predictions_are_in_pred_and_others_beside_it(tmp_path, index_of):
    index, run = index_of([range(5)]), tmp_path / "run"
    run.mkdir()
    usual = {"stride": 3, "gaussian_drop": False}

    def folder(flip_average: bool = False, own_data: bool = True, weights: str | None = None, **settings: Any) -> str:
        path = predictions_folder(run, index, {**usual, **settings}, usual, own_data=own_data, weights=weights,
                                  flip_average=flip_average)
        assert path.parent == run
        return path.name

    assert folder() == folder(own_data=False) == "pred"                    # not a run: the user chose the folder
    assert folder(True) == "pred-flip"
    write_json(run / "status.json", {})
    others = [folder(own_data=False), folder(weights="step-00000012"), folder(stride=1), folder(gaussian_drop=True),
              folder(True, stride=1)]
    assert (folder(), folder(True)) == ("pred", "pred-flip") and len(set(others)) == 5
    assert folder(stride=1) == others[2]
    data = index.folder.resolve().parents[2].name
    assert others[1].startswith(f"pred-{data}-step-00000012-") and others[4].startswith(f"pred-flip-{data}-")


def test_predictions_say_what_they_replace(tmp_path):
    assert write_about(tmp_path / "about.json", {"checkpoint": "a", "stride": 3}) == {}
    assert write_about(tmp_path / "about.json", {"checkpoint": "a", "stride": 3}) == {}
    assert write_about(tmp_path / "about.json", {"checkpoint": "b", "stride": 3}) == {"checkpoint": ["a", "b"]}


def test_data_are_the_runs_own_by_content_or_by_place(index_of, tmp_path, monkeypatch):
    index = index_of([range(5)])
    for fingerprint in fingerprints_of(index):                               # this version's and an older one's
        trained = {"root": str(tmp_path), "fingerprint": {"train": fingerprint}}
        assert origin_of(index, tmp_path / "moved", trained, same_rules=False) == "own"
    other = index_of([range(6)])
    assert origin_of(other, tmp_path, trained, same_rules=True) == "own"
    assert origin_of(other, tmp_path, trained, same_rules=False) == "rules"
    assert origin_of(other, tmp_path / "else", trained, same_rules=True) == "other"
    assert origin_of(index, tmp_path, {"root": 3, "fingerprint": "damaged"}, same_rules=True) == "other"
    monkeypatch.chdir(tmp_path)                                              # a published file says nothing: Ego4D
    assert origin_of(index, Path("data"), {}, same_rules=True) == "rules"
    assert origin_of(index, tmp_path / "mine", {}, same_rules=True) == "other"


def test_own_videos_are_scored_at_every_face_and_the_reason_is_said():
    data = parse(TrainConfig, ["--val_stride", "13", "--test_stride", "2"]).data
    for origin, embedded, stride, reason in (
            ("own", False, 13, "its data set"), ("rules", False, 13, "its data set"),
            ("other", True, 13, "an embedded world"), ("other", False, 1, "was not trained on this data set")):
        got = usual_stride("val", data, origin, embedded)
        assert got[0] == stride and reason in got[1]
    assert usual_stride("test", data, "other", False)[0] == 2
