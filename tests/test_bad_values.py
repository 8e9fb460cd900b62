"""Values that cannot be: in annotations, priors, tables, settings, flags and numbers; each is a named error or counted.
"""

import copy
import json
import math
import random
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from making import data_set, prepare, prepared_index, small_index
from test_annotations import document
from test_boxes import HEADER
from test_engine import trained

from gazepose.config import DataConfig, TrainConfig, parse
from gazepose.data import annotations
from gazepose.data import box_table as boxes
from gazepose.data.index_writer import add_columns
from gazepose.data.prepare import PrepareConfig
from gazepose.data.tracks import POLICIES
from gazepose.data.windows import WindowRule, make_batch
from gazepose.evaluation.submission import check, csv_to_json
from gazepose.models import ModelConfig
from gazepose.priors import import_files
from gazepose.priors.import_files import CSV_COLUMNS, read_priors
from gazepose.training import checkpoint

CLEAN = POLICIES["clean"]


ABSURD: list[Any] = [None, True, False, 0, -1, 1, 10**30, -(10**30), 1.5, math.nan, math.inf, -math.inf, "", "x",
                     "1e-4", "no", "../x", "\0", [], [1, 2], [None], {}, {"a": 1}, [[]] * 3]


def draws(chance: random.Random) -> Any:
    return copy.deepcopy(chance.choice(ABSURD))


def spoilt(value: Any, chance: random.Random) -> Any:
    """One place of nested collections replaced, removed, renamed or doubled."""
    places = [(value, key) for key in (value if isinstance(value, dict) else range(len(value)))]
    at = 0
    while at < len(places):
        parent, key = places[at]
        inner, at = parent[key], at + 1
        if isinstance(inner, dict | list):
            places += [(inner, k) for k in (inner if isinstance(inner, dict) else range(len(inner)))]
    if not places:
        return value
    parent, key = chance.choice(places)
    mutation = chance.randrange(8)
    if mutation == 0:
        del parent[key]
    elif mutation == 1 and isinstance(parent, dict):
        parent[str(draws(chance))] = parent.pop(key)
    elif mutation == 2 and isinstance(parent, list):
        parent.append(copy.deepcopy(parent[key]))
    else:
        parent[key] = draws(chance)
    return value


def damaged(text: bytes, chance: random.Random, pieces: list[bytes]) -> bytes:
    content = bytearray(text)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(content) + 1)
        content[at:at + chance.choice([0, 1, 1, 3])] = chance.choice([*pieces, chance.randbytes(2), b""])
    return bytes(content[: chance.randrange(len(content) + 1)]) if chance.randrange(10) == 0 else bytes(content)


seeds = st.integers(0, 2**32)
TOKENS = [b"NaN", b"1e999", b"-1", b"null", b"{", b"}", b"[", b"]", b'"', b",", b"\\", b"\0", b"\xff", b"9" * 400,
          b"\n", b"NA", b"001", b"1_0", b";", b"\xe2\x80\xae", b"true", b"'", b"0x1F"]


def settled(count: int) -> Callable[[Any], Any]:
    return lambda test: settings(max_examples=count // 100, database=None)(test)


@settled(10_000)
@given(seeds)
def test_ten_thousand_spoilt_annotations_are_read_or_counted(seed):
    """Never an exception, never another clip, never a track that is none: 100 mutations for each seed."""
    chance = random.Random(seed)
    whole = document()
    with pytest.MonkeyPatch.context() as patch:
        for _ in range(100):
            content = copy.deepcopy(whole)
            for _ in range(chance.randint(1, 3)):
                content = spoilt(content, chance)
            patch.setattr(annotations, "read_object", lambda path, content=content, **how: content)
            for policy in POLICIES.values():
                (clip,) = annotations.read_clips("av.json", ["c"], policy)
                assert clip.uid == "c"
                for track in clip.tracks:
                    assert len(track.frames) == len(track.boxes) == len(track.labels) > 0
                    assert annotations.is_id(track.track) and np.isfinite(track.boxes).all()
                    assert set(track.labels.tolist()) <= {-1, 0, 1}


@settled(2_000)
@given(seeds)
def test_two_thousand_damaged_priors_are_refused_or_counted(tmp_path_factory, seed):
    chance, folder = random.Random(seed), tmp_path_factory.getbasetemp()
    text = json.dumps({**{f"c:t:{n}": [n, 0.5, -2] for n in range(4)}, "d": {"t": {"7": [1, 2, 3]}}}).encode()
    table = ",".join(["clip,track,frame", *CSV_COLUMNS["head_pose"]]).encode() + b"\nc,001,1,2,3,4\nc,NA,2,,,\n"
    for number in range(100):
        path = folder / ("p.json" if number % 4 else "p.csv")
        path.write_bytes(damaged(text if number % 4 else table, chance, TOKENS))
        try:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(import_files, "BLOCK", 40 if number % 2 else import_files.BLOCK)
                entries = read_priors([path], "head_pose", max_bad_fraction=1)
        except ValueError as error:
            assert str(error).startswith(str(path)) and "->" in str(error)
        else:
            bad = sum(count for what, count in entries.counts.items() if what.startswith("bad"))
            assert len(entries.values) + bad == entries.counts["entries"] and not np.isinf(entries.values).any()


@settled(2_000)
@given(seeds)
def test_two_thousand_damaged_tables_are_refused_or_read(tmp_path_factory, seed):
    chance, folder = random.Random(seed), tmp_path_factory.getbasetemp()
    faces = (HEADER + ",label\nc,001,1,0,0,9,9,1\nc,NA,2,0.5,1e1,9,9,\n").encode()
    scores = b"v,00001,t,1,0.5\nv,u,t,1,0.25\n"
    sent = json.dumps({"version": "1.0", "challenge": "ego4d_looking_at_me", "results": [
        {"video_id": "v", "unique_id": "00001", "track_id": "t", "label": 1, "score": 0.5}]}).encode()
    for number in range(100):
        kind = ("faces", "scores", "sent")[number % 3]
        path = folder / f"{kind}.csv"
        content = {"faces": faces, "scores": scores, "sent": sent}[kind]
        path.write_bytes(chance.randbytes(99) if number > 95 else damaged(content, chance, TOKENS))
        try:
            if kind == "faces":
                for clip in boxes.read_boxes(path, CLEAN):
                    assert annotations.is_id(clip.uid) and all(np.isfinite(track.boxes).all() for track in clip.tracks)
            elif kind == "scores":
                csv_to_json(path, folder / "out.json")
            else:
                check(path, [("v", "00001", "t")])
        except ValueError as error:
            assert str(error).startswith(str(path)), (kind, error)


@settled(2_000)
@given(seeds)
def test_two_thousand_spoilt_settings_are_refused_or_right(seed):
    chance = random.Random(seed)
    kinds = (ModelConfig, DataConfig, PrepareConfig, checkpoint.Progress)
    whole = {kind: {**asdict(kind()), **({"rule": ["max_gap=3"]} if kind is PrepareConfig else {})} for kind in kinds}
    for number in range(100):
        kind = kinds[number % 3]
        facts = spoilt(copy.deepcopy(whole[kind]), chance)
        try:
            made_of = checkpoint.from_json(kind, facts, Path("config.json"))
        except ValueError as error:
            assert str(error).startswith(f"config.json: {kind.__name__}: ") and "->" in str(error)
        else:
            for name, hint in get_type_hints(kind).items():
                value = getattr(made_of, name)
                assert hint not in (int, bool, str, float) or type(value) is hint or (hint, type(value)) == (float, int)
                assert not isinstance(value, float) or math.isfinite(value)


@pytest.mark.parametrize("flags", [
    ["--lr", "nan"], ["--lr", "1e999"], ["--clip", "nan"], ["--min_lr", "nan"],
    ["--seed", "-1"], ["--seed", str(2**64)], ["--weights", "nan", "1"], ["--gaze_loss", "inf"],
    ["--label_loss", "nan"], ["--batch_size", "0"], ["--epochs", "-1"], ["--limit", "0"], ["--max_bad_fraction", "1.5"],
    ["--max_bad_fraction", "nan"], ["--split", "nan"], ["--crop_size", "9" * 40],
    ["--box_scale", "nan"]])
def test_a_flag_that_cannot_be_is_refused_at_once(flags, capsys):
    with pytest.raises(SystemExit) as end:
        parse(TrainConfig, flags)
    assert end.value.code not in (0, None) and flags[0][2:] in f"{end.value.code}{capsys.readouterr()}"


# Numbers

def test_infinite_priors_never_reach_a_model(index_of, tmp_path):
    poses = np.zeros((5, 3), np.float32)
    poses[1], poses[3] = np.nan, (0, np.inf, 0)
    with pytest.raises(ValueError, match=r"column head_pose: row 3 is not finite"):
        add_columns(small_index(tmp_path / "train"), {"head_pose": poses})
    for name, tail in (("head_pose", (3,)), ("landmarks", (5, 3)), ("gaze", (2,))):
        index = copy.copy(index_of([range(5)]))
        values = np.full((5, *tail), np.nan, np.float32)
        values[3].flat[1] = -np.inf                                    # as a file that was written by other hands
        setattr(index, name, values)
        make_batch(index, WindowRule(), np.array([0, 1]), 0, 16)       # unknown is all right
        with pytest.raises(ValueError, match=rf"row 3 \(clip clip track track0 frame 3\): {name} is not finite -> "):
            make_batch(index, WindowRule(), np.array([0, 3, ~3]), 0, 16)


@pytest.mark.parametrize("change", [
    {"frame": np.array([1.0, np.nan, 3, 4, 5])}, {"frame": np.arange(4)}, {"track": np.array([["t"]] * 5)},
    {"head_pose": np.zeros((5, 2))}, {"head_pose": np.array([["a"] * 3] * 5)}, {"head_pose": np.full((5, 3), np.inf)},
    {"clip": np.zeros((0,), str)}, {"head_pose": np.zeros((4, 3))}])
def test_a_table_of_priors_that_does_not_fit_stops_preparation_by_name(tmp_path, change):
    root = data_set(tmp_path, {"c": [("t", [1, 2, 3, 4, 5])]})
    (root / "priors").mkdir()
    table = {"clip": np.array(["c"] * 5), "track": np.array(["t"] * 5), "frame": np.arange(1, 6),
             "head_pose": np.zeros((5, 3))}
    np.savez(root / "priors" / "train.npz", **{**table, **change})                 # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"priors/train\.npz: cannot be joined: "):
        prepare(root, "train")
    np.savez(root / "priors" / "train.npz", **table)                               # type: ignore[arg-type]
    assert not np.isnan(prepared_index(root).head_pose).any()


@pytest.mark.parametrize(("rows", "batch_size", "steps"), [(21, 20, 2), (1, 20, 1), (5, 64, 1), (40, 20, 2)])
def test_a_last_batch_of_one_and_a_batch_larger_than_the_data_are_learnt_from_once(index_of, rows, batch_size, steps):
    index = index_of([range(40)], label=[0, 1] * 20)
    _, steps_taken = trained(index, rows=rows, batch_size=batch_size)
    assert len(steps_taken) == steps and sum(step.samples for step in steps_taken) == rows
    assert all(math.isfinite(step.loss) and not step.skipped for step in steps_taken)
