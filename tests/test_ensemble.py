"""Ensembling: from scores to a submission, on tables small enough to compute by hand or of a known truth."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gazepose.evaluation.metrics import calibration_error, evaluate
from gazepose.experiments.ensemble import make_submission
from gazepose.experiments.postprocessing import Calibration, boost, calibrate, features, folds_of, likelihood, smooth

FACES = st.lists(st.tuples(st.integers(0, 2), st.integers(-1, 30), st.floats(0, 1)), min_size=1, max_size=25)
WIDTH = st.sampled_from([1, 3, 5, 21, 99])


def columns(faces) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    track, frame, score = zip(*faces, strict=True)
    return np.array(score), np.array(track), np.array(frame)


# median over the track

def test_a_single_odd_score_is_smoothed_away_and_ends_see_fewer_faces():
    score, one = np.array([0.0, 0.0, 1.0, 0.0, 0.4]), np.zeros(5, int)
    assert smooth(score, one, np.arange(5), 3).tolist() == [0.0, 0.0, 0.0, 0.4, 0.2]
    assert smooth(score, one, np.arange(5), 3, causal=True).tolist() == [0.0, 0.0, 0.0, 0.0, 0.4]
    assert smooth(score, one, 3 * np.arange(5), 5).tolist() == score.tolist()        # the stride is wider than it looks
    assert smooth(score, one, 3 * np.arange(5), 7).tolist() == [0.0, 0.0, 0.0, 0.4, 0.2]
    assert smooth(score, one, np.array([0, 1, 2, 90, 91]), 3).tolist() == [0.0, 0.0, 0.5, 0.2, 0.2]      # a gap


@given(FACES)
def test_a_median_of_width_one_changes_nothing(faces):
    score, track, frame = columns(faces)
    assert smooth(score, track, frame, 1).tolist() == score.tolist()


@given(FACES, WIDTH, st.booleans())
def test_the_median_is_that_of_the_faces_near_in_the_same_track(faces, width, causal):
    score, track, frame = columns(faces)
    before, after = (width - 1, 0) if causal else (width // 2, width // 2)
    expected = [np.median([s for t, f, s in faces if t == own and -before <= f - at <= after]) for own, at, _ in faces]
    if width > 1:
        np.testing.assert_allclose(smooth(score, track, frame, width, causal), expected, rtol=0, atol=1e-15)


@given(FACES, WIDTH, st.integers(-1, 30), st.floats(0, 1))
def test_causal_never_looks_ahead(faces, width, now, other):
    score, track, frame = columns(faces)
    later = np.where(frame > now, other, score)
    first, second = (smooth(given, track, frame, width, causal=True) for given in (score, later))
    assert (first == second)[frame <= now].all()


def test_a_width_that_is_even_is_refused():
    with pytest.raises(ValueError, match="width 4 -> give an odd number of frames"):
        smooth(np.zeros(1), np.zeros(1, int), np.zeros(1, int), 4)


# calibration

def labelled(seed: int, faces: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Logits and labels drawn by them."""
    random = np.random.default_rng(seed)
    logits = random.normal(-0.5, 2, faces)
    return logits, (random.random(faces) < 1 / (1 + np.exp(-logits))).astype(int)


def test_a_fit_recovers_a_temperature_and_a_bias():
    logits, label = labelled(0)
    lost = 1 / (1 + np.exp(-(3 * logits + 1.2)))                     # three times too sure, and leaning to looking
    fit = calibrate(label, lost, bias=True)
    assert fit.temperature == pytest.approx(3, rel=0.08) and fit.bias == pytest.approx(-0.4, abs=0.12)
    alone = calibrate(label, 1 / (1 + np.exp(-3 * logits)))
    assert alone.temperature == pytest.approx(3, rel=0.08) and alone.bias == 0
    assert calibration_error(label, fit.apply(lost)) < 0.03 < 0.1 < calibration_error(label, lost)
    assert likelihood(label, fit.apply(lost)) <= likelihood(label, calibrate(label, lost).apply(lost))


@given(st.lists(st.floats(1e-6, 1 - 1e-6), min_size=4, max_size=30), st.floats(0.5, 20), st.floats(-3, 3))
def test_calibration_keeps_the_order_and_so_the_map(scores, heat, bias):
    score = np.array(scores, np.float32)
    label = np.arange(len(score)) % 2
    calibrated = Calibration(heat, bias).apply(score)
    assert (np.argsort(calibrated, kind="stable") == np.argsort(score, kind="stable")).all()
    assert evaluate(label, calibrated)["ap_looking"] == evaluate(label, score)["ap_looking"]


def test_scores_of_0_and_1_have_finite_logits():
    assert np.isfinite(Calibration(2.0, 1.0).apply(np.array([0.0, 1.0]))).all()
    assert likelihood(np.array([1, 0, -1]), np.array([0.0, 1.0, 0.5])) == pytest.approx(20)
    with pytest.raises(ValueError, match="0 looking and 2 not looking -> both are needed"):
        calibrate(np.array([0, 0, -1]), np.array([0.1, 0.2, 0.3]))


def test_the_calibration_error_by_hand():
    # of ten faces at .75, five look: 0.25 apart; the two at .05 do not look: 0.05 apart
    label, score = np.array([1] * 5 + [0] * 7 + [-1]), np.array([0.75] * 10 + [0.05] * 2 + [0.9])
    assert calibration_error(label, score) == pytest.approx((10 * 0.25 + 2 * 0.05) / 12)


# boosting

def test_folds_are_whole_clips_and_about_equal():
    clip = np.repeat([7, 3, 9, 1, 4, 8], [60, 50, 40, 30, 20, 10])
    label = np.arange(len(clip)) % 2
    label[:6] = -1
    folds = folds_of(label, clip)
    assert [len(rows) for _, rows in folds] == [60, 50, 40, 30, 30]
    for rest, rows in folds:
        assert not set(clip[rest]) & set(clip[rows]) and (label[rest] >= 0).all()
    assert sorted(np.concatenate([rows for _, rows in folds]).tolist()) == list(range(210))


def test_clips_are_too_few_where_a_class_is_missing_beside_a_fold():
    assert folds_of(np.array([0, 1, 0, 1]), np.zeros(4, int)) == []
    assert len(folds_of(np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1]))) == 2
    assert folds_of(np.array([0, 1, 0, 0]), np.array([0, 0, 1, 1])) == []


def faces(count: int, size: float = 50.0) -> dict[str, np.ndarray]:
    return {"head_pose": np.zeros((count, 3)), "quality": np.ones(count), "size": np.full(count, size)}


def test_boosting_never_saw_the_clip_it_scores():
    random = np.random.default_rng(0)
    clip, score = np.repeat(np.arange(6), 80), random.random(480)
    label = (random.random(480) < score).astype(int)
    tables, _ = features({"score": {"val": score, "test": score[:10]}}, {"val": faces(480), "test": faces(10)})
    first = boost(tables, ["score"], label, clip)
    second = boost(tables, ["score"], np.where(clip == 2, 1 - label, label), clip)
    own = np.zeros(len(clip), bool)
    own[next(rows for _, rows in folds_of(label, clip) if 2 in clip[rows])] = True
    assert (first["val"] == second["val"])[own].all() and (first["val"] != second["val"])[~own].any()
    assert evaluate(label, first["val"])["mAP"] > 0.6 and (first["test"] != second["test"]).any()
    assert (np.diff(first["val"][own][np.argsort(score[own])]) >= 0).all()    # a higher score never counts against


def test_boosting_uses_columns_that_both_splits_have():
    tables, left_out = features({"score": {"val": np.zeros(4), "test": np.ones(3)}},
                                {"val": faces(4), "test": faces(3, size=np.nan)})
    assert list(tables["val"]) == list(tables["test"]) == ["score", "yaw", "pitch", "roll", "quality"]
    assert left_out == ["size"] and tables["val"].shape == (4, 5)


# all steps

def written(folder: Path, val: np.ndarray, test: np.ndarray, label: np.ndarray, *, clips: int = 8, flip: bool = True,
            test_label: bool = True, track_length: int = 10) -> Path:
    """A run's records as infer.py writes them; with `flip` the plain scores are those given, the mean is nearer to
    one half."""
    pred = folder / ("pred-flip" if flip else "pred")
    for split, score in (("val", val), ("test", test)):
        (pred / split).mkdir(parents=True)
        count = len(score)
        shown = 0.5 + 0.8 * (score - 0.5) if flip else score
        np.savez(pred / f"{split}.npz", row=np.arange(count), score=shown.astype(np.float32),
                 label=(label if split == "val" or test_label else np.full(count, -1))[:count],
                 frame=np.arange(count) % track_length, track=np.arange(count) // track_length,
                 clip=np.arange(count) * clips // count, **faces(count),
                 **({"score_plain": score.astype(np.float32)} if flip else {}))
        if split == "test":
            lines = [f"v{n % 3},{n:05d},t{n // 10},1,{float(s)!r}" for n, s in enumerate(shown.astype(np.float32))]
            (pred / "test" / "pred.csv").write_text("\n".join(lines) + "\n")
    return folder


def held_looks(seed: int, count: int = 600) -> tuple[np.ndarray, list[np.ndarray]]:
    """Labels that hold for a track of ten, and scores of two runs that see them through noise of their own."""
    random = np.random.default_rng(seed)
    label = np.repeat(random.random(count // 10) < 0.4, 10).astype(int)
    return label, [1 / (1 + np.exp(-(label - 0.5 + random.normal(0, 2, count)))) for _ in range(2)]


def test_every_step_is_measured_and_the_submission_has_every_face(tmp_path):
    label, (a, b) = held_looks(0)
    runs = [written(tmp_path / name, score, score[::-1][:500], label) for name, score in (("a", a), ("b", b))]
    text = make_submission(runs, tmp_path / "out")
    facts = json.loads((tmp_path / "out" / "chain.json").read_text())
    assert [step["name"] for step in facts["steps"]] == [
        "single run", "flip averaging", "median", "temperature", "temperature and bias", "mean of the runs", "boosting"]
    steps = {step["name"]: step for step in facts["steps"]}
    gain = steps["median"]["val"]["gain"]["mAP"]
    assert gain["interval"][0] > 0.05 and steps["median"]["kept"]                  # noise is smoothed away
    assert not steps["flip averaging"]["kept"] and steps["flip averaging"]["val"]["gain"]["mAP"]["value"] == 0
    assert steps["temperature"]["val"]["mAP"] == pytest.approx(steps["median"]["val"]["mAP"], abs=1e-9)
    assert steps["mean of the runs"]["val"]["gain"]["mAP"]["value"] > 0
    results = json.loads((tmp_path / "out" / "submission.json").read_text())["results"]
    assert sorted(entry["unique_id"] for entry in results) == [f"{n:05d}" for n in range(500)]
    assert (tmp_path / "out" / "chain.md").read_text().rstrip("\n") == text and "500 faces, every one once" in text
    assert text.count("\n| ") == 7 and "not tried" not in text


def test_without_test_labels_the_table_says_so_and_the_submission_is_the_same(tmp_path):
    label, (a, _) = held_looks(1, count=100)
    for name, known in (("known", True), ("unknown", False)):
        run = written(tmp_path / name, a, a[:60], label, clips=4, test_label=known)
        text = make_submission([run], tmp_path / f"out-{name}")
        assert ("test: no labels" in text) == (not known) and "there is one run" in text
    submissions = [(tmp_path / f"out-{name}" / "submission.json").read_bytes() for name in ("known", "unknown")]
    assert submissions[0] == submissions[1]                                # no choice depends on test's labels


def test_a_step_that_does_not_help_is_not_in_the_submission(tmp_path):
    label, (a, _) = held_looks(2, count=100)
    run = written(tmp_path / "a", a, a, label, clips=1, flip=False, track_length=1)
    text = make_submission([run], tmp_path / "out")
    assert "a was scored without --flip_average" in text and "val has 1 clip, too few to fit anything" in text
    results = json.loads((tmp_path / "out" / "submission.json").read_text())["results"]
    assert [entry["score"] for entry in results] == a.astype(np.float32).tolist()


def test_runs_of_other_faces_are_refused_by_name(tmp_path):
    label, (a, b) = held_looks(3, count=100)
    first = written(tmp_path / "first", a, a, label)
    shorter = written(tmp_path / "shorter", b[:90], b, label)
    with pytest.raises(ValueError, match=r"shorter/\S*val.npz: 90 faces, but \S*first/pred-flip/val.npz has 100 -> "):
        make_submission([first, shorter], tmp_path / "out")
    other = written(tmp_path / "other", a, a, label, track_length=7)
    with pytest.raises(ValueError, match=r"other/\S*/val.npz: face 7 has track 1, but 0 in \S*first/pred-flip/val.npz"):
        make_submission([first, other], tmp_path / "out")
    with pytest.raises(FileNotFoundError, match=r"none/pred/val.npz: no record .*gazepose infer --checkpoint .*none"):
        make_submission([first, tmp_path / "none"], tmp_path / "out")
    table = first / "pred-flip" / "test" / "pred.csv"
    table.write_text(table.read_text().replace("v1,00001", "v0,00000"))
    with pytest.raises(ValueError, match="1 face more than once: v"):
        make_submission([first], tmp_path / "out")
    table.write_text("\n".join(table.read_text().splitlines()[:-1]))
    with pytest.raises(ValueError, match="pred.csv: 99 faces with other scores than .*test.npz has -> run"):
        make_submission([first], tmp_path / "out")
