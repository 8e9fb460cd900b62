"""Shards give back the bytes they got; an index is whole or not there, and says where it is broken."""

import json
import os
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from making import face, small_index

from gazepose.data import index_writer
from gazepose.data import shards as shards_module
from gazepose.data.index import COLUMNS, REQUIRED, Index, digest_of
from gazepose.data.index_writer import add_columns, write_index
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


def test_more_shards_than_may_be_open_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(shards_module, "MAX_OPEN", 2)
    for number in range(5):
        (tmp_path / str(number)).write_bytes(bytes([number] * 9))
    shards = Shards([tmp_path / str(number) for number in range(5)])
    assert [shards.read(number, 4, 2) for number in (*range(5), *range(5))] == [bytes([n, n]) for n in range(5)] * 2
    assert len(shards._descriptors) == 2


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
    assert index.clip_of(np.arange(5)).tolist() == [0, 0, 0, 1, 1]
    assert index.shards.read(0, int(index.offset[2]), int(index.length[2])) == index.jpeg(2)
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
    columns = {name: np.array(getattr(index, name)) for name in REQUIRED}
    tables = {name: getattr(index, name) for name in ("clips", "track_name", "track_clip", "track_start")}
    with pytest.raises(ValueError, match="row 2: positions of a track must ascend"):
        write_index(tmp_path / "other", columns={**columns, "position": np.array([0, 4, 3, 0, 1])}, **tables,
                    shards=index.contents["shards"], facts={})


def test_a_worker_reads_the_files_of_its_training_whatever_is_imported_meanwhile(tmp_path, monkeypatch):
    index = small_index(tmp_path / "train")
    add_columns(index, {"quality": np.zeros(5)})
    index = Index.open(index.folder)
    index.crop(0)
    sent = pickle.dumps(index)
    assert len(sent) < 3000                                            # names and checksums, not the pages
    add_columns(index, {"quality": np.ones(5)})
    worker = pickle.loads(sent)
    assert (worker.crop(4) == index.crop(4)).all() and not worker.quality.any()
    assert Index.open(index.folder).quality.all()
    monkeypatch.setattr(index_writer, "GRACE", 0)
    add_columns(index, {"quality": np.full(5, 2)})
    assert len(list(index.folder.glob("quality-*"))) == 1              # nobody reads the old ones any more


def test_a_missing_index_names_folder_and_command(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere: no index here.*python -m gazepose prepare"):
        Index.open(tmp_path / "nowhere")


def test_a_corrupt_shard_names_row_clip_track_and_frame(tmp_path):
    index = small_index(tmp_path / "train")
    path = index.shards.paths[1]
    content = bytearray(path.read_bytes())
    content[int(index.offset[3]) + 40] ^= 1                            # one bit, of a picture that can still be decoded
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"b-\w+\.bin: the bytes of the crop of row 3 \(clip b .* changed"):
        Index.open(tmp_path / "train").crop(3)
    with pytest.raises(ValueError, match=r"b-\w+\.bin: its bytes changed"):
        index.verify()


def test_a_truncated_shard_is_noticed_on_opening_and_on_reading(tmp_path):
    index = small_index(tmp_path / "train")
    index.crop(3)                                                      # the file is open before it is cut
    os.truncate(index.shards.paths[1], int(index.offset[4]) + 5)
    with pytest.raises(EOFError, match=r"b-\w+\.bin: ends inside the crop of row 4 \(clip b .*, so it was cut short"):
        index.crop(4)
    with pytest.raises(EOFError, match=r"b-\w+\.bin: \d+ bytes, written with \d+: cut short"):
        Index.open(tmp_path / "train")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"format": 99}', b'{"format": 1}', b"\xff\xfe", b"[" * 99_999])
def test_damaged_contents_are_a_named_error(tmp_path, content):
    small_index(tmp_path / "train")
    (tmp_path / "train" / "index.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"index\.json: .* -> delete index\.json there"):
        Index.open(tmp_path / "train")


@pytest.mark.parametrize(("change", "fault"), [
    (lambda contents: contents["shards"][0].pop("bytes"), "a file's entry"),
    (lambda contents: contents["clips"].__setitem__(0, "../../x"), "a clip's name"),
    (lambda contents: contents["track_name"].__setitem__(0, "/x"), "a track's name"),
    (lambda contents: contents["superseded"].__setitem__("clips/../../x", 0), "an old file's name")])
def test_contents_that_no_version_wrote_are_a_named_error(tmp_path, change, fault):
    contents = small_index(tmp_path / "train").contents
    change(contents)
    content = json.dumps({**contents, "sha256": digest_of(contents)})
    (tmp_path / "train" / "index.json").write_text(content)
    with pytest.raises(ValueError, match=rf"index\.json: {fault} is not as this version writes it"):
        Index.open(tmp_path / "train")


def test_no_flipped_bit_of_a_table_of_contents_goes_unnoticed(tmp_path):
    small_index(tmp_path / "train")
    path = tmp_path / "train" / "index.json"
    whole = path.read_bytes()
    for at in range(0, len(whole) - 1, 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1:])
        with pytest.raises(ValueError, match=r"index\.json: "):
            Index.open(tmp_path / "train")


def test_a_cut_column_is_a_named_error(tmp_path):
    index = small_index(tmp_path / "train")
    os.truncate(next(index.folder.glob("box-*.npy")), 100)
    with pytest.raises(ValueError, match=r"box-\w+\.npy: its bytes changed"):
        Index.open(index.folder)


def test_an_index_that_does_not_fit_together_is_never_written(tmp_path):
    for tracks, message in [([("a", "t", (2, 1))], "must ascend"), ([("a", "t", (2**31,))], "do not fit int32")]:
        with pytest.raises(ValueError, match=message):
            small_index(tmp_path / "bad", tracks)
        assert not (tmp_path / "bad" / "index.json").exists()


def test_values_for_other_rows_than_those_on_the_disk_are_refused(tmp_path):
    index = small_index(tmp_path / "train")
    small_index(tmp_path / "train", [("a", "t", (1, 2, 4)), ("b", "u", (7, 9))])
    with pytest.raises(ValueError, match="prepared again with other rows in the meantime -> run the command again"):
        add_columns(index, {"quality": np.zeros(5)})


def test_columns_that_come_at_once_are_all_kept(tmp_path):
    index = small_index(tmp_path / "train")
    names = ("quality", "quality_p", "head_pose", "landmarks", "gaze")
    with ThreadPoolExecutor(len(names)) as threads:
        list(threads.map(lambda name: add_columns(
            index, {name: np.ones((5, *COLUMNS[name][1]))}, source=f"of {name}"), names))
    found = Index.open(index.folder)
    assert set(names) <= set(found.columns) and found.facts["priors"] == {name: f"of {name}" for name in names}


def test_adding_columns_changes_the_fingerprint_and_replaces_whole(tmp_path):
    index = small_index(tmp_path / "train")
    before = index.facts["fingerprint"]
    add_columns(index, {"quality": np.arange(5.0)})
    add_columns(index, {"quality": np.arange(5.0) + 1, "gaze": np.ones((5, 2))})
    after = Index.open(index.folder)
    assert after.quality.tolist() == [1, 2, 3, 4, 5] and (after.gaze == 1).all()
    assert after.facts["fingerprint"] != before


def test_columns_half_added_leave_the_old_index(tmp_path, monkeypatch):
    index = small_index(tmp_path / "train")
    add_columns(index, {"quality": np.zeros(5)})
    rename = os.replace

    def fails_at_the_end(source, target):
        if str(target).endswith("index.json"):
            raise OSError("killed here")
        rename(source, target)

    monkeypatch.setattr(os, "replace", fails_at_the_end)
    with pytest.raises(OSError, match="killed here"):
        add_columns(index, {"quality": np.ones(5), "gaze": np.ones((5, 2))})
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
             "frame": np.array([face[2] for face in faces], np.int32), "quality": np.arange(len(faces)) + 100.0}
    known = {face: number + 100.0 for number, face in enumerate(faces)}
    wanted = []
    for row in range(len(index)):
        track = int(index.track_of(row))
        name = (index.clips[index.track_clip[track]], index.track_name[track], int(index.frame[row]))
        wanted.append(known.get(name, np.nan))
    np.testing.assert_array_equal(join(index, table)["quality"], np.array(wanted, np.float32))


def test_a_join_with_a_face_twice_is_ambiguous(tmp_path):
    table = {"clip": np.array(["a", "a"]), "track": np.array(["t", "t"]), "frame": np.array([2, 2]),
             "quality": np.zeros(2)}
    with pytest.raises(ValueError, match="clip a track t frame 2 twice"):
        join(small_index(tmp_path / "train"), table)
