"""Shards give back the bytes they got; an index is whole or not there, and says where it is broken."""

import json
import os
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from making import face, small_index

from gazepose.data.index import Index, add_columns, write_index
from gazepose.data.join import join
from gazepose.data.shards import Shards, decode, encode
from gazepose.io import writing_bytes


@given(crops=st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=20))
@settings(max_examples=30)
def test_a_shard_gives_back_every_crop(tmp_path_factory, crops):
    path = tmp_path_factory.mktemp("shard") / "s.bin"
    with writing_bytes(path) as writer:
        places = [(writer.tell(), writer.write(crop)) for crop in crops]
    shards = Shards([path])
    assert [shards.read(0, *place) for place in places] == crops
    assert path.stat().st_size == sum(map(len, crops))


def test_a_shard_whose_writing_failed_is_not_there(tmp_path):
    with pytest.raises(OSError, match="disk"), writing_bytes(tmp_path / "s.bin") as writer:
        writer.write(b"half")
        raise OSError("disk full")
    assert list(tmp_path.iterdir()) == []


def test_a_shard_cut_short_says_where_and_what_to_do(tmp_path):
    (tmp_path / "s.bin").write_bytes(bytes(100))
    with pytest.raises(EOFError, match=r"s\.bin ends inside the crop at byte 90: wanted 20 bytes, got 10.*prepare"):
        Shards([tmp_path / "s.bin"]).read(0, 90, 20)


def test_a_crop_survives_encoding():
    crop = face(90, 64)
    out = np.empty_like(crop)
    assert decode(encode(crop), out) is not None
    assert np.abs(out.astype(int) - crop).mean() < 3


def test_another_crop_size_is_an_error():
    with pytest.raises(ValueError, match="32 x 32 pixels, wanted 64 x 64"):
        decode(encode(face(0, 32)), np.empty((64, 64, 3), np.uint8))
    with pytest.raises(ValueError, match="not a JPEG"):
        decode(encode(face(0, 64)), np.empty((32, 32, 3), np.uint8))


def test_rows_know_their_pixels_and_their_names(tmp_path):
    index = small_index(tmp_path / "train")
    assert len(index) == 5 and index.name_of(3) == "clip b track u frame 7"
    assert index.track_of(np.arange(5)).tolist() == [0, 0, 0, 1, 1]
    assert [round(float(index.crop(row)[..., 2].mean()), -1) for row in range(5)] == [0, 10, 20, 30, 40]
    shard, at, length = index.where(np.arange(5))
    assert index.shards.read(int(shard[2]), int(at[2]), int(length[2])) == index.jpeg(2)
    index.verify()


def test_an_absent_column_is_unknown_everywhere(tmp_path):
    index = small_index(tmp_path / "train")
    assert index.unique_id is None
    for name, shape in {"quality": (5,), "head_pose": (5, 3), "landmarks": (5, 5, 3), "gaze": (5, 2)}.items():
        column = getattr(index, name)
        assert column.shape == shape and np.isnan(column[[0, 4]]).all() and column.base.nbytes <= 8
    # an index from before these columns: no crop is black, and no position without a crop is known of
    assert index.black.tolist() == [False] * 5 and index.position.tolist() == [0, 1, 2, 0, 1]
    assert index.track_position.tolist() == index.track_start.tolist() == [0, 3, 5]


def test_positions_of_a_track_ascend(tmp_path):
    index = small_index(tmp_path / "train")
    columns = {name: np.array(getattr(index, name)) for name in ("frame", "box", "label", "offset", "length")}
    tables = {name: getattr(index, name) for name in ("clips", "track_name", "track_clip", "track_start", "clip_shard",
                                                      "clip_base")}
    with pytest.raises(ValueError, match="row 2: positions of a track must ascend"):
        write_index(tmp_path / "other", columns={**columns, "position": np.array([0, 4, 3, 0, 1])}, **tables,
                    shards=index.shards.paths, facts={})


def test_an_index_travels_to_a_worker_as_its_folder(tmp_path):
    index = small_index(tmp_path / "train")
    index.crop(0)
    sent = pickle.dumps(index)
    assert len(sent) < 500
    assert (pickle.loads(sent).crop(4) == index.crop(4)).all()


def test_a_missing_index_names_folder_and_command(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere: no index here.*python -m gazepose prepare"):
        Index.open(tmp_path / "nowhere")


def test_a_corrupt_shard_names_row_clip_track_and_frame(tmp_path):
    index = small_index(tmp_path / "train")
    path, (_, at, length) = index.shards.paths[0], index.where(3)
    content = bytearray(path.read_bytes())
    content[int(at):int(at) + int(length)] = bytes(int(length))
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"train: row 3 \(clip b track u frame 7\): not a JPEG.*prepare"):
        Index.open(tmp_path / "train").crop(3)
    with pytest.raises(ValueError, match=r"shard-00000\.bin: its bytes changed"):
        index.verify()


def test_a_truncated_shard_is_noticed_on_opening_and_on_reading(tmp_path):
    index = small_index(tmp_path / "train")
    index.crop(0)                                                      # the file is open before it is cut
    os.truncate(index.shards.paths[0], int(index.where(4)[1]) + 5)
    with pytest.raises(EOFError, match=r"shard-00000\.bin ends inside the crop at byte \d+: wanted \d+ bytes, got 5"):
        index.crop(4)
    with pytest.raises(EOFError, match=r"shard-00000\.bin: \d+ bytes, written with \d+: cut short"):
        Index.open(tmp_path / "train")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"format": 99}', b'{"format": 1}', b"\xff\xfe", b"[" * 99_999])
def test_damaged_contents_are_a_named_error(tmp_path, content):
    small_index(tmp_path / "train")
    (tmp_path / "train" / "index.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"index\.json: .*prepare"):
        Index.open(tmp_path / "train")


def test_contents_that_lack_a_shards_size_are_a_named_error(tmp_path):
    contents = small_index(tmp_path / "train").contents
    del contents["shards"][0]["bytes"]
    (tmp_path / "train" / "index.json").write_text(json.dumps(contents))
    with pytest.raises(ValueError, match=r"index\.json: a shard's size is not as this version writes it"):
        Index.open(tmp_path / "train")


def test_a_cut_column_is_a_named_error(tmp_path):
    index = small_index(tmp_path / "train")
    os.truncate(next(index.folder.glob("box-*.npy")), 100)
    with pytest.raises(ValueError, match=r"box-\w+\.npy: not a whole column"):
        Index.open(index.folder)


def test_an_index_that_does_not_fit_together_is_never_written(tmp_path):
    for tracks, message in [([("a", "t", (2, 1))], "must ascend"), ([("a", "t", (2**31,))], "do not fit int32")]:
        with pytest.raises(ValueError, match=message):
            small_index(tmp_path / "bad", tracks)
        assert not (tmp_path / "bad").exists()


def test_an_index_is_not_written_over_another(tmp_path):
    small_index(tmp_path / "train")
    with pytest.raises(FileExistsError, match="delete it"):
        small_index(tmp_path / "train")


def test_adding_columns_changes_the_fingerprint_and_replaces_whole(tmp_path):
    index = small_index(tmp_path / "train")
    before = index.facts["fingerprint"]
    add_columns(index.folder, {"quality": np.arange(5.0)})
    add_columns(index.folder, {"quality": np.arange(5.0) + 1, "gaze": np.ones((5, 2))})
    after = Index.open(index.folder)
    assert after.quality.tolist() == [1, 2, 3, 4, 5] and (after.gaze == 1).all()
    assert after.facts["fingerprint"] != before and len(list(index.folder.glob("quality-*"))) == 1


def test_columns_half_added_leave_the_old_index(tmp_path, monkeypatch):
    index = small_index(tmp_path / "train")
    add_columns(index.folder, {"quality": np.zeros(5)})
    rename = os.replace

    def fails_at_the_end(source, target):
        if str(target).endswith("index.json"):
            raise OSError("killed here")
        rename(source, target)

    monkeypatch.setattr(os, "replace", fails_at_the_end)
    with pytest.raises(OSError, match="killed here"):
        add_columns(index.folder, {"quality": np.ones(5), "gaze": np.ones((5, 2))})
    again = Index.open(index.folder)
    assert (again.quality == 0).all() and np.isnan(again.gaze).all()
    again.verify()


@given(data=st.data())
@settings(max_examples=40)
def test_a_join_is_a_dictionary_lookup(tmp_path_factory, data):
    index = small_index(tmp_path_factory.mktemp("join") / "train",
                 [("a", "t", (1, 2, 3)), ("a", "t", (40, 41)), ("b", "t", (1, 2)), ("b", "u", (5,))])
    faces = data.draw(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("tuv"), st.integers(0, 42)),
                               unique=True, max_size=25))
    table = {"clip": np.array([face[0] for face in faces], str), "track": np.array([face[1] for face in faces], str),
             "frame": np.array([face[2] for face in faces], np.int32), "quality": np.arange(len(faces), dtype=float)}
    known = {face: float(number) for number, face in enumerate(faces)}
    expected = []
    for row in range(len(index)):
        track = int(index.track_of(row))
        name = (index.clips[index.track_clip[track]], index.track_name[track], int(index.frame[row]))
        expected.append(known.get(name, np.nan))
    np.testing.assert_array_equal(join(index, table)["quality"], np.array(expected, np.float32))


def test_a_join_with_a_face_twice_is_ambiguous(tmp_path):
    table = {"clip": np.array(["a", "a"]), "track": np.array(["t", "t"]), "frame": np.array([2, 2]),
             "quality": np.zeros(2)}
    with pytest.raises(ValueError, match="clip a track t frame 2 twice"):
        join(small_index(tmp_path / "train"), table)
