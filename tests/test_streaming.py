"""Crops straight from the videos: what preparation gives, in an order that reads clip after clip, in bounded memory."""

import json
import shutil
import sys
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import accelerate.data_loader
import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from making import data_set, list_faces, number_in, prepare, prepared_index, quiet, settings_of
from test_doctor import fast_start

from gazepose import infer
from gazepose.config import TrainConfig, asdict, parse
from gazepose.data import order as order_module
from gazepose.data.index import COLUMNS, Index
from gazepose.data.index_writer import write_index
from gazepose.data.loader import ClipBatches, make_loader, order_of
from gazepose.data.order import BatchOrder, ClipOrder
from gazepose.data.streaming import VideoIndex
from gazepose.data.tracks import POLICIES
from gazepose.data.windows import WindowRule, centre_rows, neighbours, segments
from gazepose.models import build_model
from gazepose.processes import Processes
from gazepose.source import Source, prepared_indexes
from gazepose.training.checkpoint import save_weights

TRAIN = WindowRule(train=True, stride=3, windows_per_segment=4)
CLIPS, TRACK = 7, 40


def both(root: Path, split: str, **wanted: Any) -> tuple[Index, VideoIndex]:
    """A split from shards and from videos."""
    return (prepared_index(root, split, **wanted),
            VideoIndex.open(list_faces(root, split, **wanted)))


@pytest.fixture(scope="module")
def world(tiny_world, tmp_path_factory) -> Path:
    return Path(shutil.copytree(tiny_world, tmp_path_factory.mktemp("streamed") / "world"))


@pytest.fixture(scope="module")
def listed(tmp_path_factory) -> VideoIndex:
    """Seven clips of two tracks of 40 faces, whose videos nobody reads."""
    rows, tracks = CLIPS * 2 * TRACK, CLIPS * 2
    frame = np.tile(np.arange(TRACK), tracks)
    empty = {name: np.zeros((rows, *COLUMNS[name][1]), COLUMNS[name][0])
             for name in ("box", "label", "offset", "length", "checksum", "corners")}
    rules = {name: value for name, value in vars(POLICIES["clean"]).items() if name != "name"}
    folder = tmp_path_factory.mktemp("listed") / "prepared" / "clean-64-streamed" / "train"
    write_index(folder, columns={**empty, "frame": frame, "position": frame}, clips=[f"c{n}" for n in range(CLIPS)],
                track_name=["t", "u"] * CLIPS, track_clip=np.repeat(np.arange(CLIPS), 2),
                track_start=np.arange(tracks + 1) * TRACK,
                shards=[], facts={"policy": "clean", "rules": rules, "crop_size": 64})
    return VideoIndex.open(folder)


def lanes_of(order: ClipOrder, world_size: int, workers: int) -> dict[tuple[int, int], list[np.ndarray]]:
    """(process, worker) -> its batches: dealt to processes by Accelerate, to workers in turn, as torch does."""
    lanes: dict[tuple[int, int], list[np.ndarray]] = {}
    for process in range(world_size):
        dealt = accelerate.data_loader.BatchSamplerShard(order, world_size, process)         # type: ignore[arg-type]
        for number, batch in enumerate(dealt):
            lanes.setdefault((process, number % max(workers, 1)), []).append(np.array([row for _, row in batch]))
    return lanes


def test_rows_priors_and_crops_are_those_of_preparation(world):
    for split, policy, rules in (("train", "clean", {}), ("val", "baseline", {"box_scale": 1.5})):
        shards, video = both(world, split, policy=policy, rules=rules, crop_size=32)
        assert (video.clips, video.track_name, len(video)) == (shards.clips, shards.track_name, len(shards))
        assert video.facts["counts"] == shards.facts["counts"]
        assert [video.jpeg(row) for row in range(len(video))] == [shards.jpeg(row) for row in range(len(shards))]
        for name in ("track_clip", "track_start", *COLUMNS):
            if name not in ("offset", "length", "checksum", "corners", "unique_id"):
                np.testing.assert_array_equal(getattr(video, name), getattr(shards, name), err_msg=name)
        assert len(video.held) <= 2                                    # clips, asked for row by row
    assert {type(index) for index in prepared_indexes(world, ["val"])} == {Index, VideoIndex}


def hide_first(path: Path, frames: int) -> None:
    """Give a video an edit list that hides its first frames: decord refuses it, PyAV passes over them."""
    whole = path.rename(path.with_name("whole.mp4"))
    with av.open(str(whole)) as source, av.open(str(path), "w", options={"avoid_negative_ts": "disabled"}) as target:
        stream = source.streams.video[0]
        copied = target.add_stream_from_template(stream)
        for packet in source.demux(stream):
            if packet.size and packet.pts is not None and packet.dts is not None and stream.duration:
                shift = stream.duration * frames // stream.frames
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, copied
                target.mux(packet)
    whole.unlink()


def test_rows_before_past_and_outside_the_pictures_are_left_out_alike(tmp_path):
    root = data_set(tmp_path, {"c": [("t", [0, 1, 7, 8, 9, 10, 11])], "d": [("t", [50])], "e": [("u", [2, 6, 7, 8])]},
                    frames=10)
    hide_first(root / "videos" / "e.mp4", 3)
    path = root / "json" / "av_train.json"
    path.write_text(path.read_text().replace('"x": 0', '"x": 400', 1).replace('"x": 0', '"x": -400', 1))
    for policy in ("clean", "baseline"):
        shards, video = both(root, "train", policy=policy)
        assert shards.facts["counts"]["clip decoded by pyav: decord could not"] == 1
        assert (video.clips, video.frame.tolist(), video.position.tolist()) == (
            shards.clips, shards.frame.tolist(), shards.position.tolist())
        assert video.facts["counts"] == shards.facts["counts"]
        assert [video.jpeg(row) for row in range(len(video))] == [shards.jpeg(row) for row in range(len(shards))]
        assert video.black.tolist() == shards.black.tolist()


def test_inference_writes_the_same_scores_from_videos(world, tmp_path, monkeypatch):
    config = parse(TrainConfig, ["--crop_size", "32", "--num_encoder_layers", "1", "--num_decoder_layers", "1",
                                 "--dmodel", "64", "--dim_feedforward", "64", "--output_stride", "32",
                                 "--Gaussiandrop"])
    save_weights(tmp_path / "run", build_model(config.model), {**asdict(config), "quality_fit": (900.0, 700.0)})
    for name, flags in {"shards": (), "video": ("--crops", "video"),
                        "workers": ("--crops", "video", "--num_workers", "2")}.items():
        monkeypatch.setattr(sys, "argv", ["infer.py", "--checkpoint", str(tmp_path / "run"), "--data", str(world),
                                          "--stride", "2", "--batch_size", "7", "--exp_path", str(tmp_path / name),
                                          *flags])
        infer.main()
    shards, video, workers = ((tmp_path / name / "pred" / "val" / "pred.csv").read_text()
                              for name in ("shards", "video", "workers"))
    assert len(shards.splitlines()) > 40 and shards == video == workers
    assert len({line.split(",")[-1] for line in shards.splitlines()}) > 40


@given(st.integers(1, 4), st.integers(0, 3), st.integers(1, 40), st.booleans(), st.integers(0, 3))
@settings(max_examples=40)
def test_every_row_counts_once_and_every_process_gets_as_many_batches(listed, world_size, workers, batch_size, train,
                                                                      epoch):
    rule = TRAIN if train else WindowRule(stride=3)
    rows = centre_rows(listed, 3)
    order, plain = (ClipOrder(listed, rule, rows, batch_size, world_size, workers),
                    BatchOrder(listed, rule, rows, batch_size, world_size))
    order.epoch = epoch
    lanes = lanes_of(order, world_size, workers)
    batches = [batch for lane in lanes.values() for batch in lane]
    counts = Counter(process for process, _ in lanes for _ in lanes[process, _])
    assert len(set(counts.values())) == 1 and len(batches) == len(order) == len(plain)
    assert sorted(row for row in np.concatenate(batches) if row >= 0) == rows.tolist()
    if not train:                                                      # the same batches, so the same scores to the bit
        assert sorted(batch.tolist() for batch in batches) == sorted([row for _, row in batch] for batch in plain)
    spans = [np.unique(listed.clip_of(row[row >= 0])) for lane in lanes.values()
             if len(row := np.concatenate(lane)) and (row >= 0).any()]
    assert sum(map(len, spans)) < CLIPS + len(spans)                   # shared at the borders between lanes only


def test_the_order_is_a_function_of_seed_epoch_and_lanes(listed):
    def order(epoch: int, seed: int = 0, workers: int = 2) -> list[int]:
        rule = WindowRule(train=True, stride=3, windows_per_segment=4, seed=seed)
        target = ClipOrder(listed, rule, centre_rows(listed, 3), 8, 2, workers)
        target.epoch = epoch
        return target.order().tolist()
    assert order(1) == order(1)
    assert order(1) != order(2) and order(1) != order(1, seed=1) and order(1) != order(1, workers=1)


def test_the_buffer_mixes_clips_and_keeps_segments_whole(listed, monkeypatch):
    rows = centre_rows(listed, 3)
    clips = {}
    for buffer in (1, 150):
        monkeypatch.setattr(order_module, "BUFFER_WINDOWS", buffer)
        order = ClipOrder(listed, TRAIN, rows, len(rows)).order()
        names = segments(listed, TRAIN, order, 0)
        assert (np.diff(names) != 0).sum() + 1 == len(np.unique(names))
        clips[buffer] = [len(np.unique(listed.clip_of(part))) for part in np.array_split(order, 10)]
    assert max(clips[1]) <= 2 and np.mean(clips[150]) > 1.5 * np.mean(clips[1])


@pytest.mark.parametrize("train, start", [(False, 0), (True, 0), (True, 3)])
def test_a_reader_holds_one_clip_and_the_buffer_and_reads_no_clip_twice(listed, monkeypatch, train, start):
    monkeypatch.setattr(order_module, "BUFFER_WINDOWS", 24)
    rule = TRAIN if train else WindowRule(stride=3)
    rows, reads, reading = centre_rows(listed, 3), Counter(), []

    def cut(self: VideoIndex, clip: int, wanted: np.ndarray) -> None:
        assert clip not in self.held and (self.clip_of(wanted) == clip).all()
        reads[clip] += 1
        reading.append(sum(map(len, self.held.values())))
        self.held[clip] = {row: b"" for row in wanted.tolist()}

    monkeypatch.setattr(VideoIndex, "_cut", cut)
    for lane in lanes_of(ClipOrder(listed, rule, rows, 8, 1, 2), 1, 2).values():
        index = VideoIndex.open(listed.folder)
        batches = ClipBatches(index, rule, rows, 64, ClipOrder(index, rule, rows, 8, 1, 2))
        reads.clear()
        for batch in lane[start:]:                                     # from the middle too: a resumed epoch
            assert batches._ready(batch, 0).tolist() == batch.tolist()
            used = neighbours(index, np.where(batch < 0, ~batch, batch), rule.reach)
            assert not index.lacking(used[used >= 0])
        spare = {index.clip_of(~row) for batch in lane for row in batch if row < 0}
        assert all(count == 1 or clip in spare for clip, count in reads.items())
    # a buffer of 24 windows is 6 segments of at most (4 - 1) * 3 + 7 crops; without one, what a batch still shows
    assert 0 < max(reading) <= (6 * 16 if train else 8 * 7)


def damage(path: Path) -> None:
    """Spoil the middle of the pictures; headers and the first picture stay whole."""
    content = path.read_bytes()
    path.write_bytes(content[:len(content) // 3] + bytes(len(content) // 3) + content[len(content) // 3 * 2:])


def test_a_video_cut_short_is_left_out_and_reported_as_in_preparation(tmp_path):
    root = data_set(tmp_path, {"c0": [("t", [1, 2, 39])], "c1": [("t", [1, 2])]}, videos=False)
    (root / "videos").mkdir()
    whole = fast_start(root / "videos" / "c1.mp4", 40)
    (root / "videos" / "c0.mp4").write_bytes(whole[:len(whole) // 2])
    with pytest.raises(ValueError, match=r"1 of 2 clips cannot be used, more than 1\.0%:\n.*c0\.mp4: .*pyav"):
        list_faces(root, "train")
    messages: list[str] = []
    video = VideoIndex.open(list_faces(root, "train", notify=messages.append, max_bad_fraction=0.5))
    shards = prepared_index(root, max_bad_fraction=0.5)
    assert video.clips == shards.clips == ["c1"] and video.facts["bad_clips"].keys() == {"c0"}
    assert "left out: 1 clip, see " in messages[0] and "cut while they are used" in messages[0]
    streamed, theirs = (json.loads((index.folder / "report.json").read_text()) for index in (video, shards))
    assert streamed == {**theirs, "state": "listed", "bad_clips": streamed["bad_clips"]}
    assert streamed["clips"]["bad"] == 1 and streamed["bad_clips"].keys() == {"c0"}


def test_a_video_that_ends_before_its_faces_counts_as_a_fault_as_in_preparation(tmp_path):
    root = data_set(tmp_path, {"c0": [("t", [1, 2, 45, 80])], "c1": [("t", [1, 2])]}, frames=40)
    for make in (list_faces, partial(prepare, jobs=1)):
        with pytest.raises(ValueError, match=r"c0\.mp4: ends before frame 45, its faces go on to frame 80 -> download"):
            make(root, "train", notify=quiet)
    shards, video = both(root, "train", max_bad_fraction=0.5)
    streamed, theirs = (json.loads((index.folder / "report.json").read_text()) for index in (video, shards))
    assert streamed == {**theirs, "state": "listed"} and streamed["cut_short"].keys() == {"c0"}
    assert streamed["rows"] == {"wanted": 6, "made": 4} and len(video) == len(shards) == 4


def test_damage_met_while_reading_is_counted_and_bounded(tmp_path, capfd):
    (tmp_path / "videos").mkdir()
    root = data_set(tmp_path, {f"c{n}": [("t", list(range(30)))] for n in range(3)}, videos=False)
    for n in range(3):
        fast_start(root / "videos" / f"c{n}.mp4", 40)
    damage(root / "videos" / "c1.mp4")
    wanted = {"notify": quiet, "max_bad_fraction": 0.4}
    index = VideoIndex.open(list_faces(root, "train", **wanted))
    assert index.clips == ["c0", "c1", "c2"]                           # headers do not tell
    loading = {"batch_size": 4, "crop_size": 64}
    loader = make_loader(index, TRAIN, centre_rows(index, 3), **loading)
    order_of(loader).full_pools = True
    batches = list(loader)
    rows_dealt = [batch["row"].numpy() for batch in batches]
    assert len({batch["frames"].shape for batch in batches}) == 1
    assert sorted(row for row in np.concatenate(rows_dealt) if row >= 0) == [*range(0, 30, 3), *range(60, 90, 3)]
    assert {len(rows) for rows in rows_dealt} == {4} and len(rows_dealt) == 8
    assert f"{root}/videos/c1.mp4: frame" in capfd.readouterr().err
    index = VideoIndex.open(index.folder)
    with pytest.raises(ValueError, match=r"c1\.mp4: .*\n-> every face must be scored, so run again: from now on clip"):
        list(make_loader(index, WindowRule(), centre_rows(index, 3), **loading))
    index = VideoIndex.open(list_faces(root, "train", **wanted))       # the next run
    shards = prepared_index(root, **wanted)
    assert index.clips == shards.clips == ["c0", "c2"] and len(index) == len(shards)
    assert VideoIndex.open(list_faces(root, "train", **wanted)).facts["fingerprint"] == index.facts["fingerprint"]
    damage(root / "videos" / "c2.mp4")
    with pytest.raises(ValueError, match=r"2 of 3 clips cannot be used, more than 40\.0%"):
        list(make_loader(index, TRAIN, centre_rows(index, 3), **loading))


def test_a_video_that_changed_since_is_named(tmp_path):
    root = data_set(tmp_path, {"c": [("t", [1, 2])]})
    index = VideoIndex.open(list_faces(root, "train", max_bad_fraction=1.0))
    assert number_in(index.crop(1)) == 2
    index.held.clear()
    with open(root / "videos" / "c.mp4", "ab") as file:
        file.write(bytes(9))
    with pytest.raises(ValueError, match=r"c\.mp4: has changed since its faces were listed -> run again") as caught:
        index.crop(1)
    with pytest.raises(ValueError, match="has changed since"):         # it is not taken for a damaged one
        index.give_up(0, caught.value, goes_on=False)
    assert number_in(VideoIndex.open(list_faces(root, "train")).crop(1)) == 2


def test_settings_that_need_prepared_crops_are_refused(world):
    source = Source(world, "tiny", 0)
    wanted: dict[str, Any] = {"policy": "clean", "crop_size": 32, "decoder": "decord", "crops": "video"}
    with pytest.raises(ValueError, match="cuts faces out of videos/, not out of faces -> give --crops shards"):
        source.split("val", settings_of(crops_from="faces", **wanted), Processes(notify=quiet))
    assert type(source.split("test", settings_of(**wanted), Processes(notify=quiet))) is Index  # images
    index = source.split("val", settings_of(**wanted), Processes(notify=quiet))
    with pytest.raises(ValueError, match=r"--Gaussiandrop needs the quality of all faces.*-> give --crops shards"):
        make_loader(index, WindowRule(gaussian_drop=True), centre_rows(index, 3), batch_size=4, crop_size=32)
