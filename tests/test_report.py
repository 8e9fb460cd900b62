"""Report: every record becomes a picture, every absent one a sentence, and the page needs nothing but itself."""

import json
import re
import subprocess
import sys
from html import escape
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from gazepose.evaluation.examples import faces_to_show, tracks_to_show, worst_mistakes
from gazepose.evaluation.metrics import evaluate, fit_head_pose, head_pose_scores, trivial_baselines
from gazepose.report import make_report
from gazepose.report.figures import draw_learning
from gazepose.report.records import read_records
from gazepose.report.tables import facts, parts_of

ROOT = Path(__file__).resolve().parents[1]
NAMES = {"learning", "precision-recall", "calibration", "track-1", "track-2", "track-3", "track-4"}


def face(turn, size=64):
    """A drawn head: the nose moves with the turn."""
    y, x = np.mgrid[:size, :size] / size - 0.5
    picture = np.full((size, size, 3), (96, 110, 122), float)
    picture[(x / 0.32) ** 2 + (y / 0.42) ** 2 < 1] = (214, 170, 140)
    for eye in (-0.12, 0.12):
        picture[((x - eye - 0.1 * turn) / 0.05) ** 2 + ((y + 0.08) / 0.03) ** 2 < 1] = (50, 40, 40)
    picture[((x - 0.14 * turn) / 0.03) ** 2 + ((y - 0.05) / 0.07) ** 2 < 1] = (180, 130, 105)
    return (picture + np.random.default_rng(0).normal(0, 4, picture.shape)).clip(0, 255).astype(np.uint8)


def make_run(run, rows=6000, steps=400, skill=1.4, seed=0):
    """A run folder with every record; returns pred/val.npz as a dict."""
    random = np.random.default_rng(seed)
    (run / "pred").mkdir(parents=True)
    track = np.arange(rows) // 300
    yaw = np.cumsum(random.normal(0, 4, rows)) % 160 - 80
    looking = np.convolve(random.normal(0, 1, rows + 29), np.ones(30) / 30, "valid") - np.abs(yaw) / 200
    label = (looking > np.quantile(looking, 0.88)).astype(np.int8)
    size = random.lognormal(4.2, 0.5, rows)
    clear = np.clip(size / 80, 0.4, 1.5)
    noise = np.convolve(random.normal(0, 1, rows + 2), np.ones(3) / 3, "valid") * 1.7
    score = 1 / (1 + np.exp(-(skill * clear * (2.2 * label - 1) + noise - 0.4)))
    pose = np.stack([yaw, random.normal(0, 10, rows), random.normal(0, 6, rows)], 1)
    pose[::50] = np.nan
    label[7] = -1
    fit = fit_head_pose(pose, label)
    columns = {"row": np.arange(rows), "score": score.astype(np.float32), "label": label,
               "frame": (np.arange(rows) % 300 * 3).astype(np.int32), "track": track.astype(np.int32),
               "clip": (track // 2).astype(np.int32), "head_pose": pose.astype(np.float32),
               "quality": random.lognormal(5, 1, rows).astype(np.float32), "size": size.astype(np.float32),
               "head_pose_score": head_pose_scores(fit, pose)}
    np.savez(run / "pred" / "val.npz", **columns)
    frame, clip = columns["frame"], columns["clip"]
    tracks = tracks_to_show(label, score, track, frame)
    shown = [places[faces_to_show(frame[places], label[places])] for places in tracks]
    faces = np.unique(np.concatenate([*shown, worst_mistakes(label, score, track, clip, frame)]))
    (run / "pred" / "val.source.json").write_text('{"index": "nowhere", "fingerprint": "cd34"}')
    np.savez(run / "pred" / "val.faces.npz", row=faces, crops=np.stack([face(y / 60) for y in yaw[faces]]),
             clips=[f"clip-<{n}>" for n in range(clip.max() + 1)], track=np.unique(track[faces]),
             track_name=[f"track-{n}" for n in np.unique(track[faces])], fingerprint="cd34")
    baselines = trivial_baselines(label, fit, pose, label)
    with open(run / "metrics.jsonl", "w") as file:
        for step in range(1, steps + 1):
            at = step / steps
            loss = 0.3 + 0.4 * np.exp(-4 * at) + random.normal(0, 0.05)
            file.write(json.dumps({"kind": "train", "step": step, "epoch": step // 100, "loss": loss,
                                   "lr": 1e-4 * (0.05 + 0.95 * np.cos(np.pi * at / 2) ** 2),
                                   "samples_per_s": 900 + random.normal(0, 30), "waited": 0.04,
                                   "grad_norm": None}) + "\n")
            if step % (steps // 8) == 0:
                result = evaluate(label, score)
                result["mAP"] *= 1 - 0.3 * np.exp(-5 * at) - (0.01 if step == steps else 0)
                result["gaze_degrees"] = 12.34
                file.write(json.dumps({"kind": "val", "step": step, "epoch": step // 100, **result,
                                       "baselines": baselines}) + "\n")
    (run / "config.json").write_text(json.dumps({
        "model": {"model": "GazePose", "backbone": "resnet18", "prior_head": True, "prior_landmark": False},
        "data": {"data": None, "policy": "clean", "preset": "default"}, "run": {"mixed_precision": "bf16"},
        "root": "data/embedded/default-0", "fingerprint": {"train": "ab12" * 16, "val": "cd34" * 16}, "world_size": 4,
        "device": "cuda", "device_name": "NVIDIA H100 80GB HBM3",
        "command": "accelerate launch --config_file ddp4.yaml train.py --prior_head",
        "versions": {"python": "3.11.2", "torch": "2.15.0", "commit": "0123abc"}}))
    (run / "status.json").write_text(json.dumps({"state": "finished", "seconds": 4332.1, "world_size": 4}))
    return columns


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "GazePose-<a>"
    make_run(run)
    return run, make_report(run)


def test_every_picture_is_one_file_for_light_and_dark(whole):
    run, page = whole
    assert page == run / "report" / "report.html"
    assert {path.name for path in (run / "report").iterdir()} == {
        "report.html", "manifest.json"} | {f"{name}.svg" for name in NAMES}
    for path in (run / "report").glob("*.svg"):
        picture = ElementTree.parse(path).getroot()
        drawn = "".join(ElementTree.tostring(part, "unicode") for part in picture if not part.tag.endswith("style"))
        assert "var(--accent)" in drawn and not re.search("#[0-9a-f]{6}\\b", drawn), path.name       # no fixed colour
        assert "prefers-color-scheme: dark" in path.read_text()


def test_the_page_is_one_file_without_scripts_or_links(whole):
    text = whole[1].read_text()
    assert len(text) < 3_000_000
    assert "<script" not in text and "http" not in re.sub(r"data:image/jpeg;base64,[A-Za-z0-9+/=]+", "", text)
    assert text.count("<figure") == 9 and "class=\"missing\"" not in text and text.count("<svg") == len(NAMES)
    ids = re.findall(r' id="([^"]+)"', text)
    assert len(ids) == len(set(ids))                                # pictures do not use each other's shapes
    assert not list(whole[0].glob("*staging*")) and not list(whole[0].glob(".*"))


def test_the_page_says_the_numbers_and_the_facts(whole):
    run, page = whole
    text = page.read_text()
    columns = np.load(run / "pred" / "val.npz")
    result = evaluate(columns["label"], columns["score"])
    assert f"{100 * result['mAP']:.1f}<i> %" in text and f"{100 * result['accuracy']:.1f}" in text
    for words in ("GazePose-&lt;a&gt;", "5,999 validation faces of 10 clips", "1 of 6,000 validation faces",
                  "head pose alone", "1 h 12 min", "4 processes", "<td>NVIDIA H100 80GB HBM3", "torch 2.15.0",
                  "commit 0123abc", "bf16",
                  "data/embedded/default-0", "train ab12ab12ab12", "accelerate launch --config_file", "prior_head",
                  "best of 8 validations (step 350)", "chosen on the same faces", "300 scored frames", "12.3° (median",
                  "4.81 GPU-hours",
                  "4 % of the time waiting for data", "Hollow: head pose alone", "Grey: head pose alone"):
        assert words in text, words
    records = read_records(run)
    assert len(records.tracks) == 4 and len(records.mistakes) == 24
    for track in records.tracks:
        assert f"<h2>Track {track.name} of clip {escape(track.clip)}</h2>" in text and len(track.faces) == 8
    for wrong in records.mistakes:
        assert f"clip {escape(wrong.clip)}<br>track {wrong.track}<br>frame {wrong.frame}<" in text


def test_absent_records_become_sentences(tmp_path):
    (tmp_path / "status.json").write_text('{"state": "failed", "reason": "RuntimeError: <out> of memory"}')
    text = make_report(tmp_path).read_text()
    for words in ("config.json is missing", "metrics.jsonl has no lines", "No labelled predictions were saved",
                  "There is no track to draw", "No baselines were recorded", "not finished: its state is “failed”",
                  "RuntimeError: &lt;out&gt; of memory", "not recorded<td>command, world size, device, time, versions",
                  "No validation result was recorded"):
        assert words in text, words
    assert not list((tmp_path / "report").glob("*.svg"))


def test_a_folder_that_is_no_run_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="give the folder of a training run"):
        make_report(tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        make_report(tmp_path / "nowhere")
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_record_is_named_and_the_old_report_stays(tmp_path):
    (tmp_path / "status.json").write_text('{"state": "finished"}')
    page = make_report(tmp_path)
    (tmp_path / "config.json").write_text('{"model": ')
    with pytest.raises(ValueError, match="config.json: not readable JSON"):
        make_report(tmp_path)
    (tmp_path / "config.json").unlink()
    (tmp_path / "pred").mkdir()
    np.savez(tmp_path / "pred" / "val.npz", row=np.arange(3), score=np.zeros(3))
    with pytest.raises(ValueError, match="val.npz: no column label -> predict again"):
        make_report(tmp_path)
    assert page.exists()


def test_one_class_and_bare_columns_still_make_a_page(tmp_path):
    (tmp_path / "pred").mkdir()
    np.savez(tmp_path / "pred" / "val.partial.npz", row=np.arange(4), score=np.full(4, 0.3), label=np.zeros(4, np.int8))
    text = make_report(tmp_path).read_text()
    assert text.count("All 4 predicted faces are of one class.") == 4
    assert "limited part of the split" in text and "all 4 labelled rows are not looking" in text


def test_limited_predictions_are_shown_as_limited_where_there_are_no_whole_ones(tmp_path):
    make_run(tmp_path, rows=900, steps=8)
    whole, part = tmp_path / "pred" / "val.npz", tmp_path / "pred" / "val.partial.npz"
    np.savez(part, row=np.arange(4), score=np.array([0.9, 0.8, 0.2, 0.1]), label=np.array([1, 1, 0, 0], np.int8))
    assert not read_records(tmp_path).limited and len(read_records(tmp_path).scores["row"]) == 899
    for path in (whole, tmp_path / "metrics.jsonl", *(tmp_path / "pred").glob("*.faces.npz")):      # less to draw
        path.unlink()
    text = make_report(tmp_path).read_text()
    assert "limited part of the split (--limit)" in text and "this run, saved predictions (limited)" in text
    assert "4 validation faces" in text


def test_scores_with_flip_averaging_are_shown_where_there_are_no_others(tmp_path):
    make_run(tmp_path, rows=900, steps=8)
    assert not [note for note in read_records(tmp_path).notes if "mirror" in note]
    (tmp_path / "pred").rename(tmp_path / "pred-flip")
    records = read_records(tmp_path)
    assert len(records.scores["row"]) == 899 and "averages of each picture and its mirror" in " ".join(records.notes)


def test_a_run_trained_on_few_rows_says_so(tmp_path):
    (tmp_path / "config.json").write_text('{"data": {"limit": 2048}}')
    assert "at most 2,048 rows of each split (--limit)" in make_report(tmp_path).read_text()


def test_the_report_shows_the_running_average_and_the_weights_without_it(tmp_path):
    (tmp_path / "config.json").write_text('{"optim": {"ema": 0.99}}')
    line = {"kind": "val", "step": 8, "epoch": 1, "mAP": 0.8, "mAP_without_ema": 0.7}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(line))
    records = read_records(tmp_path)
    assert dict(facts(records))["weights"].startswith("running average (--ema 0.99)")
    drawn = draw_learning([records], [""]).axes[1].lines
    assert [70.0] in [list(one.get_ydata()) for one in drawn if one.get_label() == "without --ema"]


def test_matplotlib_is_loaded_only_when_a_report_is_made():
    code = "import sys, gazepose.report; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_a_resumed_run_counts_its_last_record_and_reports_a_torn_line(tmp_path):
    lines = [{"kind": "train", "step": s, "loss": loss, "lr": 1e-4} for s, loss in [(1, 3.0), (2, 9.0), (2, 2.0)]]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)) + '\n{"kind": "tr')
    records = read_records(tmp_path)
    assert records.train["loss"].tolist() == [3.0, 2.0]
    assert any("1 line of metrics.jsonl could not be read" in note for note in records.notes)


def test_without_crops_and_names_tracks_are_shown_by_number(tmp_path):
    columns = make_run(tmp_path / "run", rows=900, steps=8)
    (tmp_path / "run" / "pred" / "val.faces.npz").unlink()
    records = read_records(tmp_path / "run")
    assert len(records.tracks) == 3 and not any(track.faces for track in records.tracks) and records.mistakes == []
    assert records.tracks[0].name.startswith("number ") and records.clips == ()
    assert {len(track.columns["score"]) for track in records.tracks} == {300} and len(columns["row"]) == 900
    text = make_report(tmp_path / "run").read_text()
    assert "the data set is not here" in text and "it copies the few faces to the run" in text


def test_without_the_column_of_head_pose_alone_nothing_stands_beside_the_model(tmp_path):
    columns = make_run(tmp_path, rows=900, steps=8)
    del columns["head_pose_score"]
    np.savez(tmp_path / "pred" / "val.npz", **columns)
    text = make_report(tmp_path).read_text()
    assert "Hollow" not in text and "Grey" not in text


@pytest.mark.parametrize("name, change", [
    ("val", {"score": [0.5]}), ("val.faces", {"crops": np.zeros((9, 8, 8, 3))}), ("val.faces", {"row": [1]}),
    ("val.faces", {"track_name": ["1"]})])
def test_a_record_whose_columns_do_not_fit_is_named(tmp_path, name, change):
    make_run(tmp_path, rows=900, steps=8)
    path = tmp_path / "pred" / f"{name}.npz"
    np.savez(path, **{**dict(np.load(path)), **change})
    with pytest.raises(ValueError, match=f"{name}.npz: its columns .* -> "):
        read_records(tmp_path)


def test_tracks_go_from_the_best_to_the_worst_and_those_of_one_class_come_last():
    label = np.array([0, 1, 0, 1] + [1, 0, 1, 0] + [0, 0, 0, 0])
    score = np.array([0.1, 0.9, 0.2, 0.8] + [0.1, 0.9, 0.2, 0.8] + [0.5] * 4)
    frame = np.array([3, 2, 1, 0] + [0, 1, 2, 3] + [0, 1, 2, 3])
    picked = tracks_to_show(label, score, np.repeat([7, 3, 5], 4), frame)
    assert [places.tolist() for places in picked] == [[3, 2, 1, 0], [4, 5, 6, 7], [8, 9, 10, 11]]


def test_tracks_of_a_few_frames_are_shown_only_where_longer_ones_are_too_few():
    long, short = np.tile([0] * 15 + [1], 4), np.tile([0, 0, 1, 1], 8)         # the short ones are more even
    label = np.concatenate([long, short])
    track = np.concatenate([np.repeat(np.arange(4), 16), np.repeat(np.arange(4, 12), 4)])
    frame = np.arange(len(label))
    assert {len(places) for places in tracks_to_show(label, label * 0.5, track, frame)} == {16}
    fewer = track != 3
    shown = tracks_to_show(label[fewer], label[fewer] * 0.5, track[fewer], frame[fewer])
    assert len(shown) == 4 and 4 in {len(places) for places in shown}


def test_no_two_mistakes_are_of_one_track_or_of_one_second_of_a_clip():
    label, score = np.array([0, 0, 0, 0, 0, 1, 1]), np.array([0.99, 0.98, 0.97, 0.9, 0.1, 0.2, 0.8])
    track, clip = np.array([0, 0, 1, 2, 3, 4, 5]), np.array([0, 0, 0, 1, 1, 1, 1])
    frame = np.array([0, 50, 29, 0, 0, 0, 0])
    # 1 is of the track of 0, 2 within its second, 4 and 6 are right
    assert worst_mistakes(label, score, track, clip, frame).tolist() == [0, 3, 5]
    assert worst_mistakes(label, score, track, clip, frame + [0, 0, 1, 0, 0, 0, 0]).tolist() == [0, 2, 3, 5]


def test_clips_are_shown_from_the_weakest_and_only_with_enough_faces_of_both_classes():
    label = np.tile(np.repeat([0, 1], 10), 3)
    score = np.concatenate([np.repeat([0.1, 0.9], 10), np.repeat([0.9, 0.1], 10), np.repeat([0.1, 0.9], 10)])
    clip = np.repeat([2, 0, 1], 20)
    label[-1] = 0                                                   # nine looking faces are no evidence
    picked = parts_of({"label": label, "score": score, "clip": clip}, ["weak", "few", "a-name-that-is-long"])["clip"]
    assert [name for name, _ in picked] == ["weak", "a-name-that-is-long"] and picked[0][1].sum() == 20


def test_slices_cover_every_known_face_once():
    random = np.random.default_rng(0)
    pose = random.normal(0, 30, (1000, 3))
    pose[:10] = np.nan
    for parts in parts_of({"size": np.round(random.lognormal(4, 1, 1000)), "head_pose": pose}).values():
        assert (np.sum([inside for _, inside in parts], axis=0) == 1).all()
    assert parts_of({"quality": np.full(5, np.nan)}) == {}
