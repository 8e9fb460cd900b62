"""Priors as columns: every form of the published files, what is wrong with them, and a run that is killed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from making import write_tracks

from gazepose import __main__ as verbs
from gazepose.data.crops import published_crop
from gazepose.data.index import Index
from gazepose.data.index_writer import add_columns
from gazepose.data.quality import fit_gaussian, laplacian_variance
from gazepose.models.queries import HeadPoseQueries, eye_centred
from gazepose.priors import chunked_column as extract
from gazepose.priors import commands
from gazepose.priors import import_files as files
from gazepose.priors.import_files import Key, join_entries, parse_key, read_priors

Tracks = Mapping[tuple[str, str], Sequence[int]]
TRACKS: Tracks = {("c1", "ta"): [0, 1, 2, 5], ("c1", "tb"): [7, 8], ("c2", "ta"): [0, 1]}
POSES = np.arange(24, dtype=np.float32).reshape(8, 3) - 10.5
MESH = np.linspace(0, 1, 160).reshape(8, 5, 4).round(3)


@pytest.fixture
def make_index(tmp_path) -> Callable[..., Index]:
    def make(tracks: Tracks = TRACKS, name: str = "train", unique: Sequence[str] | None = None) -> Index:
        """Tracks by (clip, track), clips as neighbours; crop n is noise, a sharper one for a larger n."""
        noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3))
        count = sum(map(len, tracks.values()))
        extra = {} if unique is None else {"unique_id": np.array(unique, np.bytes_)}
        return write_tracks(tmp_path / "data" / "prepared" / "clean-16" / name,
                            [(*names, frames) for names, frames in tracks.items()],
                            ((noise * n // count).astype(np.uint8) for n in range(count)),
                            {"split": name, "policy": "clean", "crop_size": 16},
                            box=np.tile([0, 0, 8, 10], (count, 1)), **extra)
    return make


def keys_of(tracks: Tracks = TRACKS) -> list[tuple[str, str, int]]:
    return [(clip, track, frame) for (clip, track), frames in tracks.items() for frame in frames]


def nested(keys: Sequence[tuple[Any, ...]], values: Sequence[Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for (clip, track, face), value in zip(keys, values, strict=True):
        tree.setdefault(clip, {}).setdefault(track, {})[str(face)] = value
    return tree


def write_json(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content))
    return path


def test_all_key_styles_give_the_column_that_is_written_directly(tmp_path, make_index):
    index, labelled = make_index(), [[*pose, 1] for pose in POSES.tolist()]
    keys = keys_of()
    forms = {
        "flat": {f"{c}:{t}:{f}": pose for (c, t, f), pose in zip(keys, POSES.tolist(), strict=True)},
        "labelled": {f"{c}:{t}:{f}": pose for (c, t, f), pose in zip(keys, labelled, strict=True)},
        "unique": {f"{c}:{t}:id{f}:{f:05d}": pose for (c, t, f), pose in zip(keys, POSES.tolist(), strict=True)},
        "nested": nested(keys, POSES.tolist())}
    add_columns(index, {"head_pose": POSES * [-1, 1, 1]})          # Hopenet counts yaw the other way round
    written = Index.open(index.folder).contents["files"]["head_pose"]
    for name, content in forms.items():
        add_columns(index, {"head_pose": np.zeros((8, 3))})
        commands.import_files([index], [write_json(tmp_path / f"{name}.json", content)], "head_pose")
        assert Index.open(index.folder).contents["files"]["head_pose"] == written, name
    table = tmp_path / "poses.csv"
    table.write_text("frame,track,clip,yaw,pitch,roll\n" + "".join(
        f"{f},{t},{c},{-pose[0]},{pose[1]},{pose[2]}\n" for (c, t, f), pose in zip(keys, POSES, strict=True)))
    commands.import_files([index], [table], "head_pose", hopenet_signs=False)
    opened = Index.open(index.folder)
    assert opened.contents["files"]["head_pose"] == written
    assert opened.facts["priors"] == {"head_pose": "imported from poses.csv"}
    assert "label" in read_priors([tmp_path / "labelled.json"], "head_pose").summary()


def test_test_crops_are_found_by_unique_id_or_by_frame(tmp_path, make_index):
    tracks = {("v", "k"): [-1, 3, 4], ("v", "m"): [3]}                    # -1: its name had no frame number
    index = make_index(tracks, "test", ["c", "0003", "b", "0003"])
    p = [0.25, 0.5, 0.75, 1.0]
    unique = {"v": {"k": dict(zip(["c", "0003", "b"], p[:3], strict=True)), "m": {"0003": p[3]}}}
    keyed = {"v:k:c:00009": p[0], "v:k:0003:00003": p[1], "v:k:b:00004": p[2], "v:m:0003:00003": p[3]}
    framed = {"v:k:00003": p[1], "v:k:4": p[2], "v:m:3": p[3], "v:m:5": 0.1}
    wrong = {"v:k:0003:00003": p[1], "v:k:b:00005": 0.1}
    known = {"unique": p, "keyed": p, "framed": [np.nan, *p[1:]], "wrong": [np.nan, p[1], np.nan, np.nan]}
    for name, content in {"unique": unique, "keyed": keyed, "framed": framed, "wrong": wrong}.items():
        joined = join_entries(index, read_priors([write_json(tmp_path / name, content)], "quality_p"))
        np.testing.assert_array_equal(joined.values, np.float32(known[name]))
        assert joined.unknown == (name in ("framed", "wrong"))


def test_the_published_loaders_priors(tmp_path, make_index, parity):
    recorded = json.loads((parity / "loader.json").read_text())
    for name in ("train_val", "test"):
        inputs = recorded[name]["given"]
        stored = inputs.get("files", {})
        unique = [file[6:-4] for numbers in stored.values() for file in numbers] or None
        faces = inputs.get("faces") or {track: [int(file[:5]) for file in numbers] for track, numbers in stored.items()}
        tracks = {tuple(track.split("/")): numbers for track, numbers in faces.items()}
        index = make_index(tracks, name, unique)
        for prior, key in (("head_pose", "head_pose"), ("landmarks", "mesh"), ("quality_p", "p")):
            commands.import_files([index], [write_json(tmp_path / f"{name}-{key}.json", inputs[key])], prior)
        index = Index.open(index.folder)
        row_of = {index.name_of(row): row for row in range(len(index))}
        heads, compared = HeadPoseQueries(8, split=1, published=True), 0
        runs = recorded[name]["runs"] if name == "test" else recorded[name]["training_runs"]
        for sample in runs[0]["samples"]:
            clip, frame = sample.get("clip") or sample["video"], int(sample["frame"])
            row = row_of[f"clip {clip} track {sample['track']} frame {frame}"]
            assert heads.rows(torch.tensor(index.head_pose[row:row + 1]))[0].tolist() == sample["head_bins"]
            place = eye_centred(torch.tensor(index.landmarks[row:row + 1]))[0]
            if not place.isnan().any():                                   # else the published code looks at neighbours
                assert place.T.flatten().tolist() == pytest.approx(sample["landmarks"], abs=1e-6)
                compared += 1
        assert compared >= 3
        p = inputs["p"]
        for row in range(len(index)):
            track = index.track_of(row)
            face = index.unique_id[row].decode() if index.unique_id is not None else str(index.frame[row])
            quality = p.get(index.clips[index.track_clip[track]], {}).get(index.track_name[track], {}).get(face, np.nan)
            assert index.quality_p[row] == pytest.approx(quality, nan_ok=True)


def test_imported_landmarks_are_normalised_as_published(tmp_path, make_index, parity):
    cases = json.loads((parity / "priors.json").read_text())["landmarks"]
    index = make_index({("c", "t"): range(len(cases))})
    expected = np.array([case["expected"] for case in cases])
    spread = np.random.default_rng(0).random((len(cases), 33, 4))
    spread[:, (0, 2, 5, 9, 10)] = [case["points"] for case in cases]
    for name, points in {"five": [case["points"] for case in cases], "all": spread.tolist()}.items():
        path = write_json(tmp_path / f"{name}.json", nested([("c", "t", n) for n in range(len(cases))], points))
        values = join_entries(index, read_priors([path], "landmarks")).values
        numbers = eye_centred(torch.from_numpy(values)).transpose(1, 2).flatten(1)
        np.testing.assert_allclose(numbers, expected, atol=1e-6)
    path = write_json(tmp_path / "normal.json", {f"c:t:{n}": values for n, values in enumerate(expected.tolist())})
    entries = read_priors([path], "landmarks")
    assert "already normalised" in entries.summary()
    eyes_inside = (np.abs(expected[:, [1, 2, 6, 7]]) < 2).all(axis=1)
    again = eye_centred(torch.from_numpy(join_entries(index, entries).values)).transpose(1, 2).flatten(1)
    np.testing.assert_allclose(again[eyes_inside], expected[eyes_inside], atol=1e-6)
    assert eyes_inside.sum() > 10


def test_landmarks_from_a_table_and_unknown_ones(tmp_path, make_index):
    index, table = make_index(), tmp_path / "mesh.csv"
    names = [f"{point}_{part}" for point in files.LANDMARK_NAMES for part in ("x", "y", "confidence")]
    rows = [",".join([c, t, str(f), *map(str, MESH[n][:, (0, 1, 3)].ravel())]) for n, (c, t, f) in enumerate(keys_of())]
    rows[2] = "c1,ta,2" + "," * 15
    table.write_text("\n".join([f"clip,track,frame,{','.join(names)}", *rows]))
    stored = nested(keys_of(), MESH.tolist())
    stored["c1"]["ta"]["2"] = None
    both = [join_entries(index, read_priors([path], "landmarks")).values
            for path in (table, write_json(tmp_path / "mesh.json", stored))]
    np.testing.assert_array_equal(*both)
    assert np.isnan(both[0][2]).all() and np.isfinite(both[0]).reshape(8, -1).all(1).sum() == 7
    zeros = write_json(tmp_path / "zeros.json", {"c1:ta:0": [0] * 15, "c1:ta:1": [0.1] * 15})
    assert np.isnan(join_entries(index, read_priors([zeros], "landmarks")).values).all(axis=(1, 2)).sum() == 7


def test_bad_entries_are_counted_by_reason_and_too_many_are_an_error(tmp_path, make_index):
    good = {f"c1:ta:{n}": [1, 2, 3] for n in (0, 1, 2, 5)}
    bad = {"c1:ta": [1, 2, 3], "c1:ta:1:x": [1, 2, 3], "c1::1": [1, 2, 3], "c1:ta:7": [1, 2], "c1:ta:8": "1 2 3",
           "c1:ta:9": [1, "2", 3], "c1:ta:10": [1, None, 3], "c1:ta:11": [1e999, 0, 0], "c1:ta:12": [500, 0, 0],
           "c1:ta:13": [10**400, 0, 0], "c1:ta:14": [[1, 2, 3]], "c1:ta:15": True}
    path = write_json(tmp_path / "bad.json", {**good, **bad, "c9:ta:1": [1, 2, 3], "c1:ta:16": []})
    with pytest.raises(ValueError, match=r"bad\.json: 12 of 18 entries cannot be used.*head_pose needs.*degrees"):
        read_priors([path], "head_pose")
    entries = read_priors([path], "head_pose", max_bad_fraction=1)
    assert entries.counts == {
        "entries": 18, "bad: its key is not clip:track:frame": 3, "bad: not finite": 1, "unknown": 1,
        "bad: not yaw, pitch, roll in degrees": 8}
    joined = join_entries(make_index(), entries)
    assert (joined.rows, joined.unknown, joined.twice) == (4, 2, 0)


def test_the_last_of_two_entries_counts(tmp_path, make_index):
    first = tmp_path / "first.json"
    first.write_text('{"c1:ta:0": 0.1, "c1:ta:0": 0.2, "c1": {"ta": {"1": 0.3}}, "c1:ta:1": 0.4}')
    joined = join_entries(make_index(), read_priors([first, write_json(tmp_path / "b", {"c1:ta:1": 0.5})], "quality_p"))
    assert joined.values[:2].tolist() == pytest.approx([0.2, 0.5]) and joined.twice == 3 and joined.rows == 2


def test_a_face_that_stands_twice_in_the_index_gets_its_prior_twice(tmp_path, make_index):
    index = make_index({("c", "t"): [1, 1, 2]})                           # the baseline policy keeps repeats
    joined = join_entries(index, read_priors([write_json(tmp_path / "p", {"c:t:1": 0.5})], "quality_p"))
    assert joined.values.tolist() == pytest.approx([0.5, 0.5, np.nan], nan_ok=True) and joined.rows == 2


@pytest.mark.parametrize("content, prior, message", [
    (None, "head_pose", r"file: no such file -> give"), ("[1, 2]", "head_pose", r"file: not a JSON object"),
    ("", "head_pose", "not a JSON object"), ("{}", "head_pose", r"0 of 0 entries.*it is empty"),
    ('{"c:t:1": [1, 2, 3]', "head_pose", r"file: near character \d+.*not JSON, or cut short -> get the file again"),
    ('{"c:t:1": [1, 2, 3],}', "head_pose", "near character"), ('{"c:t:1": 1} 2', "head_pose", "near character"),
    ('{"c:t:1": ' + "[" * 9999, "head_pose", "near character"),
    ('{"c:t:1": ' + "9" * 5000 + "}", "quality", "near character"),
    ('{"c:t:1": 0.5, "c:t:2": 0.9}', "quality", "looks like p"),
    ('{"c:t:1": 7.5}', "quality_p", r"1 of 1 entries.*one number in 0\.\.1"),
    (json.dumps({"c:t:1": [[100, 80, 0, 1]] * 5}), "landmarks", r"pixels -> divide x by the crop's width"),
    (json.dumps({"c:t:1": [[0, 0, 0]] * 5}), "landmarks", r"5 or 33 points.*15 published numbers")])
def test_a_wrong_file_is_named_with_the_way_out(tmp_path, content, prior, message):
    if content is not None:
        (tmp_path / "file").write_text(content)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        read_priors([tmp_path / "file"], prior)


@pytest.mark.parametrize("content, message", [
    ("a,b\n1,2\n", r"t\.csv: no column clip, track, yaw, pitch, roll -> give a table with clip,track,frame,yaw"),
    ("clip,track,yaw,pitch,roll\nc,t,1,2,3\n", "no column frame or unique_id"), ("", "a table with"),
    ("clip,track,frame,yaw,pitch,roll\nc,t,1,2,NA,3\n", "bad: not finite: 1"),
    ("clip,track,frame,yaw,pitch,roll\nc:d,t,1,2,0,3\n", "its key is not clip:track:frame: 1"),
    ('clip,track,frame,yaw,pitch,roll\nc,"t\n', "a table with")])
def test_a_wrong_table_is_named_with_the_way_out(tmp_path, content, message):
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_priors([tmp_path / "t.csv"], "head_pose")


def test_ids_of_digits_stay_text_in_a_table(tmp_path, make_index):
    index = make_index({("007", "01"): [3]}, "test", ["0010"])
    (tmp_path / "t.csv").write_text("video_id,track_id,frame,unique_id,quality_p\n007,01,00003,0010,0.5\n")
    assert join_entries(index, read_priors([tmp_path / "t.csv"], "quality_p")).values.tolist() == [0.5]


ids = st.from_regex(r"(?!\.+\Z)[A-Za-z0-9_.-]{1,20}", fullmatch=True)


@given(ids, ids, ids, st.integers(0, 9_999_999))
def test_a_key_gives_back_its_parts(clip, track, unique, frame):
    assert parse_key(f"{clip}:{track}:{frame:05d}") == Key(clip, track, f"{frame:05d}", -1)
    assert parse_key(f"{clip}:{track}:{unique}:{frame}") == Key(clip, track, unique, frame)
    assert parse_key(f"{clip}:{track}") is None and parse_key(f"{clip}:{track}:{unique}:{unique}:1") is None


@given(st.text(st.sampled_from("ab1.:_ /\0é٣"), max_size=12) | st.text())
def test_a_key_is_read_or_refused(text):
    key = parse_key(text)
    assert key is None or text.split(":")[:3] == [key.clip, key.track, key.face]


@given(st.lists(st.text("0123456789x", max_size=9), max_size=20))
def test_frame_numbers_are_read_as_int_reads_them(texts):
    numbers = [int(text) if text.isdigit() and len(text) <= 7 else -1 for text in texts]
    assert files._frame_numbers(np.array(texts, np.bytes_)).tolist() == numbers


leaves = st.none() | st.integers() | st.floats(allow_nan=False) | st.text(st.sampled_from('a",\\{}[]: \n')) | st.lists(
    st.integers(), max_size=3)
trees = st.dictionaries(st.text(st.sampled_from('ab",\\{}[]: é')), leaves | st.dictionaries(st.text(max_size=3), leaves,
                                                                                          max_size=4), max_size=12)


@settings(max_examples=150)
@given(trees, st.sampled_from([None, 2]), st.integers(1, 60))
def test_a_file_read_in_blocks_holds_what_it_holds(tmp_path_factory, content, indent, block):
    path = tmp_path_factory.getbasetemp() / "blocks.json"
    path.write_text(json.dumps(content, indent=indent))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "BLOCK", block)
        with open(path, encoding="utf-8") as file:
            pairs = [pair for part in files._top_level(file) for pair in part]
    plain = {key: dict(value) if type(value) is files._Pairs else value for key, value in pairs}
    assert plain == content and len(pairs) == len(content)


def test_the_verb_says_what_came_of_it(tmp_path, make_index, monkeypatch, capsys):
    make_index(name="train")
    make_index({("c3", "ta"): [0]}, "val")
    path = write_json(tmp_path / "train_pose.json", {**nested(keys_of()[1:], POSES.tolist()[1:]), "c9:t:1": [1, 2, 3]})
    monkeypatch.setattr(sys, "argv", ["gazepose", "priors", "import", "head_pose", str(path), "--data",
                                      str(tmp_path / "data")])
    verbs.main()
    output = capsys.readouterr().out
    assert "8 entries" in output and "train: head_pose known for 7 of 8 faces (87.5%); 1 entry for faces" in output
    assert "val: not changed; 8 entries for faces it does not have" in output
    assert "head_pose" not in Index.open(tmp_path / "data" / "prepared" / "clean-16" / "val").columns
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--split", "val"])
    with pytest.raises(SystemExit, match=r"error: .*train_pose\.json: none of its faces \(first: c1:ta:1\) is in .*va"):
        verbs.main()
    monkeypatch.setattr(sys, "argv", [*sys.argv[:-1], "test"])
    with pytest.raises(SystemExit, match=r"error: .*prepared/\*/test: not prepared -> run"):
        verbs.main()


def test_quality_is_measured_fitted_and_shown(make_index, capsys):
    index = make_index()
    test = make_index({("c3", "ta"): [0, 1, 2]}, "test")
    commands.show_quality([index, test])
    lines = capsys.readouterr().out.splitlines()
    opened = Index.open(index.folder)
    sharpness = [laplacian_variance(published_crop(index.crop(row))) for row in range(8)]
    np.testing.assert_array_equal(opened.quality, np.float32(sharpness))
    assert opened.facts["quality_fit"] == fit_gaussian(opened.quality)
    assert "train: quality known for 8 of 8 faces (100.0%)" in lines[0]
    assert sum("training fit" in line for line in lines) == 2 and sum("own fit" in line for line in lines) == 4


SLOW = """
import sys, time
from pathlib import Path
import numpy as np
from gazepose.data.index import Index
from gazepose.priors.chunked_column import extract
folder, log, seconds = sys.argv[1:]
def measure(rows):
    with open(log, "a") as file:
        file.write(f"{rows[0]}\\n")
    time.sleep(float(seconds) * (rows[0] == 4))
    return np.sin(rows[:, None] + np.arange(3))
extract(Index.open(folder), "head_pose", measure, source="a test", depends="sin", chunk=2)
"""


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(tmp_path, make_index):
    index, whole = make_index(), make_index(name="whole")
    log = tmp_path / "log"
    command = [sys.executable, "-c", SLOW, str(index.folder), str(log)]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    running = subprocess.Popen([*command, "60"], env=env, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while (not log.exists() or len(log.read_text().split()) < 3) and time.monotonic() < deadline:
        time.sleep(0.02)
    running.send_signal(signal.SIGKILL)                                   # inside the third chunk of four
    assert running.wait() == -signal.SIGKILL
    chunks = sorted(path.name[:10] for path in index.folder.parent.glob("train.head_pose-*/[0-9]*.npy"))
    assert chunks == ["0000000000", "0000000002"] and "head_pose" not in Index.open(index.folder).columns
    log.unlink()
    again = subprocess.run([*command, "0"], env=env, capture_output=True, text=True, timeout=60)
    assert again.returncode == 0 and "resuming, 2 of 4 chunks are there" in again.stdout, again.stderr
    assert log.read_text().split() == ["4", "6"]
    extract.extract(whole, "head_pose", lambda rows: np.sin(rows[:, None] + np.arange(3)), source="", depends="sin")
    entries = [Index.open(made.folder).contents["files"]["head_pose"] for made in (index, whole)]
    assert entries[0] == entries[1]
    assert (index.folder / entries[0]["file"]).read_bytes() == (whole.folder / entries[1]["file"]).read_bytes()
    assert not list(index.folder.parent.glob("*.head_pose-*"))


def test_chunks_of_other_settings_or_cut_short_are_made_again(tmp_path, make_index):
    index, measured = make_index(), []

    def measure(rows: np.ndarray, fails_at: int = 4) -> np.ndarray:
        measured.append(int(rows[0]))
        if rows[0] == fails_at:
            raise OSError("disk full")
        return np.ones((len(rows), 3))

    settings_of = {"source": "", "depends": "a", "chunk": 2}
    for _ in range(2):
        with pytest.raises(OSError, match="disk full"):
            extract.extract(index, "head_pose", measure, **settings_of)
    assert measured == [0, 2, 4, 4]
    chunk = next(index.folder.parent.glob("train.head_pose-*/0000000002-*.npy"))
    chunk.write_bytes(chunk.read_bytes()[:-5])
    for changed in ({}, {"depends": "b"}):
        measured.clear()
        extract.extract(index, "head_pose", lambda rows: measure(rows, -1), **{**settings_of, **changed})
        assert measured == ([2, 4, 6] if not changed else [0, 2, 4, 6])
