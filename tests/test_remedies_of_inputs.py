"""Remedies for what others give: tables, indexes, scores, runs, other programs' files; what a message says helps."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from making import challenge, data_set, face, prepare, prepared_index, refused_until_mended, small_index, write_video
from test_boxes import HEADER
from test_remedies import remedy_of

from gazepose.data import annotations, box_table, containers
from gazepose.data import loader as loading
from gazepose.data.annotations import read_split
from gazepose.data.box_formats import read_foreign
from gazepose.data.box_table import read_boxes, table_rules
from gazepose.data.challenge import load_test_labels
from gazepose.data.images import read_image, size_by_header
from gazepose.data.index import CUT_AGAIN, REMEDY, Index
from gazepose.data.index_writer import add_columns
from gazepose.data.own_videos import lay_out
from gazepose.data.shards import encode
from gazepose.data.streaming import VideoIndex, open_index
from gazepose.data.tracks import POLICIES
from gazepose.data.video import find_video, look_at
from gazepose.data.windows import WindowRule, _probability
from gazepose.evaluation.comparison import Entry, compare
from gazepose.evaluation.metrics import class_weights, evaluate
from gazepose.evaluation.predictions import faces, read_scores, refuse_links, save_scores
from gazepose.evaluation.submission import csv_to_json, write_test_csv
from gazepose.experiments.postprocessing import calibrate, smooth
from gazepose.experiments.sweep import shares_of_machine

State = tuple[Callable[[], Any], str, Callable[[], Any]]     # a refused attempt, words of the remedy, doing it
FACE = "c,t,1,0,0,9,9"


def written(path: Path, bad: str | bytes, good: str | bytes, read: Callable[[Path], Any], words: str) -> State:
    """A file whose content is to be another."""
    def write(content: str | bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    write(bad)
    return lambda: read(path), words, lambda: write(good)


def foreign(bad: str, words: str, good: str, **how: Any) -> Callable[[Path], State]:
    """A table of another program."""
    return lambda tmp: written(tmp / "b.csv", bad, good, lambda path: read_foreign(path, how.get("video"), **how.get(
        "options", {})), words)


def given(attempt: Callable[..., Any], words: str, bad: tuple[Any, ...], good: tuple[Any, ...]) -> Callable[[Path],
                                                                                                            State]:
    """Values of which others are to be given."""
    now = [bad]
    return lambda tmp: (lambda: attempt(*now[0]), words, lambda: now.__setitem__(0, good))


def video_of(tmp: Path) -> Path:
    return write_video(tmp / "videos" / "c.mp4", 5)


# Tables of boxes

def limited(attempt: Callable[[], Any], module: Any, name: str, most: int) -> Callable[[], Any]:
    """An attempt under a limit that a small file goes past."""
    def attempted() -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, name, most)
            return attempt()
    return attempted


def many_uids(tmp: Path) -> State:
    attempt, words, mend = written(tmp / "train.list", "c\nd\n", "c\n", read_split, "split the list")
    return limited(attempt, annotations, "MAX_CLIPS", 1), words, mend


def many_boxes(tmp: Path) -> State:
    attempt, words, mend = written(
        tmp / "b.csv", f"{HEADER}\n{FACE}\n{FACE.replace('c,', 'd,')}\n\n", f"{HEADER}\n{FACE}\n",
        lambda path: read_boxes(path, POLICIES["clean"]), "split the table by clips, each part into a data set")
    return limited(attempt, box_table, "MAX_ROWS", 3), words, mend


def parts_of_a_picture(tmp: Path) -> State:
    table = tmp / "b.csv"
    table.write_text(f"{HEADER}\nc,t,1,0.1,0.1,0.2,0.2\n")
    videos: list[Path | None] = [None]
    return (lambda: read_foreign(table, videos[0]), "give its video, for the size",
            lambda: videos.__setitem__(0, video_of(tmp)))


def times(tmp: Path) -> State:
    table, videos = tmp / "b.csv", [None]
    table.write_text("clip,track,seconds,x,y,width,height\nc,t,0.1,0,0,9,9\n")
    return (lambda: read_foreign(table, videos[0]), "give the video, which says when each picture is shown",
            lambda: videos.__setitem__(0, video_of(tmp)))                                       # type: ignore[call-overload]


def late_times(tmp: Path) -> State:
    video, head = video_of(tmp), "clip,track,{},x,y,width,height\nc,t,100,0,0,9,9\n"
    return written(tmp / "b.csv", head.format("seconds"), head.format("milliseconds"),
                   lambda path: read_foreign(path, video), "or name the column milliseconds")


def two_videos(tmp: Path) -> State:
    video = video_of(tmp)
    write_video(video.with_name("d.mp4"), 5)
    return written(tmp / "b.csv", "track,frame,x,y,width,height\nt,1,0,0,9,9\n", f"{HEADER}\n{FACE}\n",
                   lambda path: read_foreign(path, video.parent), "add the column clip, with the name of each video")


def listed_already(tmp: Path) -> State:
    table, outs = tmp / "b.csv", [tmp / "out", tmp / "new"]
    video_of(tmp)
    table.write_text(f"{HEADER}\n{FACE}\n")
    (outs[0] / "split").mkdir(parents=True)
    (outs[0] / "split" / "val.list").write_text("c")
    return lambda: lay_out(table, tmp / "videos", outs[0], "val"), "name another folder", lambda: outs.pop(0)


def second_face(tmp: Path) -> State:
    video = video_of(tmp)
    return written(tmp / "b.csv", "clip,frame,x,y,width,height\nc,1,0,0,9,9\nc,1,50,50,9,9\n",
                   f"{HEADER}\n{FACE}\nc,u,1,50,50,9,9\n", lambda path: lay_out(path, video, tmp / "out", "val"),
                   "add the column track, a name for each face that is followed")


def other_suffix(tmp: Path) -> State:
    video = video_of(tmp)
    wrong, videos = video.rename(video.with_suffix(".wmv")), [video.with_suffix(".wmv")]
    table = tmp / "b.csv"
    table.write_text(f"{HEADER}\n{FACE}\n")
    return (lambda: lay_out(table, videos[0], tmp / "out", "val"), "convert it",
            lambda: videos.__setitem__(0, wrong.rename(video)))


CORNERS = "clip,track,frame,x1,y1,x2,y2\nc,t,1,{}\n"
BOXES: list[Callable[[Path], State]] = [
    listed_already, many_uids, many_boxes, parts_of_a_picture, times, late_times, two_videos, second_face, other_suffix,
    foreign(f"{HEADER},x\n{FACE},1\n", "name each column otherwise", f"{HEADER},other\n{FACE},1\n"),
    foreign("\n", "give one face per line: clip,track,frame,x,y,width,height", f"{HEADER}\n{FACE}\n"),
    foreign("1,2,3,4\n", "clip,track,frame,x,y,width,height", f"{HEADER}\n{FACE}\n"),
    foreign("clip,track,frame,a,b\nc,t,1,2,3\n", "x1,y1,x2,y2 or left,top,right,bottom are read too",
            CORNERS.format("0,0,9,9")),
    foreign("clip,track,x,y,width,height\nc,t,0,0,9,9\n", "add frame or seconds", f"{HEADER}\n{FACE}\n"),
    foreign(CORNERS.format("50,50,9,9"), "correct the line", CORNERS.format("9,9,50,50")),
    lambda tmp: written(tmp / "boxes" / "val.json", '{"first_number": 2}', '{"first_number": 1}',
                        lambda path: table_rules(tmp, "val", ()), "write 0 or 1, or delete the file"),
    lambda tmp: written(tmp / "b.csv", f"{HEADER}\n".encode() + FACE.encode("utf-16"), f"{HEADER}\n{FACE}\n",
                        lambda path: read_boxes(path, POLICIES["clean"]), "save it as UTF-8"),
    lambda tmp: (lambda: read_boxes(tmp / "b.csv", POLICIES["clean"]), "clip,track,frame,x,y,width,height",
                 lambda: (tmp / "b.csv").write_text(f"{HEADER}\n{FACE}\n")),
    lambda tmp: written(tmp / "b.txt", "", "", lambda path: read_boxes(
        next(tmp.glob("b.*")), POLICIES["clean"]), "rename or convert it")[:2] + (lambda: (tmp / "b.txt").rename(
            tmp / "b.csv").write_text(f"{HEADER}\n{FACE}\n"),)]


# Videos and images

def two_suffixes(tmp: Path) -> State:
    video = video_of(tmp)
    shutil.copy(video, video.with_suffix(".mov"))
    return lambda: find_video(video.parent, "c"), "keep one of them", video.with_suffix(".mov").unlink


def long_video(tmp: Path) -> State:
    video = write_video(tmp / "c.mp4", 9)
    attempt = limited(lambda: containers.check_stated_frames(str(video)), containers, "MAX_FRAMES", 5)
    return attempt, "cut it into shorter videos", lambda: write_video(video, 4)


def sound(tmp: Path) -> State:
    import av
    video = tmp / "c.mp4"
    with av.open(str(video), "w") as container:
        stream: Any = container.add_stream("aac", rate=16000)
        tone = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        tone.sample_rate = 16000
        container.mux(stream.encode(tone))
        container.mux(stream.encode())
    return lambda: look_at(video), "give the video", lambda: write_video(video, 3)


IMAGE = encode(face(9))
PICTURES: list[Callable[[Path], State]] = [
    two_suffixes, long_video, sound,
    lambda tmp: written(tmp / "a.jpg", IMAGE[:-30], IMAGE, read_image, "download or make it again"),
    lambda tmp: written(tmp / "a.jpg", IMAGE[:-30], IMAGE, size_by_header, "download it again")]


# Prepared data

def spoilt(change: Callable[[Path], Any], file: str = "index.json") -> Callable[[Path], State]:
    """A prepared folder of which a file is deleted, so that it is made again."""
    def state(tmp: Path) -> State:
        root = data_set(tmp, {"c": [("t", [1, 2])]}, frames=5)
        folder = prepared_index(root, jobs=1).folder
        change(folder)

        def use() -> None:
            index = Index.open(folder)
            index.verify()
            [index.crop(row) for row in range(len(index))]

        def mend() -> None:
            next(folder.glob(file)).unlink()
            prepare(root, "train")
        return use, REMEDY if file == "index.json" else CUT_AGAIN, mend
    return state


def rewritten(**changes: Any) -> Callable[[Path], Any]:
    def change(folder: Path) -> None:
        contents = json.loads((folder / "index.json").read_text())
        (folder / "index.json").write_text(json.dumps({**contents, **changes}))
    return change


def flipped(pattern: str) -> Callable[[Path], Any]:
    def change(folder: Path) -> None:
        path = next(folder.glob(pattern))
        content = bytearray(path.read_bytes())
        content[-9] ^= 1
        path.write_bytes(content)
    return change


def prepared_meanwhile(tmp: Path) -> State:
    root = data_set(tmp, {"c": [("t", [1, 2])]}, frames=5)
    opened = [prepared_index(root)]
    data_set(tmp, {"c": [("t", [1, 2, 3])]}, frames=5, videos=False)
    prepare(root, "train")
    return (lambda: add_columns(opened[0], {"quality_p": np.zeros(len(opened[0]))}), "run the command again",
            lambda: opened.__setitem__(0, prepared_index(root)))


def no_index(tmp: Path) -> State:
    return (lambda: Index.open(tmp / "index"), "make it with `python -m gazepose prepare --split",
            lambda: small_index(tmp / "index"))


def no_room(tmp: Path) -> State:
    workers = [4]

    def check() -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(loading.shutil, "disk_usage", lambda folder: SimpleNamespace(free=8 << 20))
            loading.check_shared_memory(workers[0], 1 << 20, 1)
    words = remedy_of(check).split(" or a smaller")[0]
    return check, words, lambda: workers.__setitem__(0, int(words.split()[-1]))


def no_quality_p(tmp: Path) -> State:
    index = [small_index(tmp / "prepared" / "clean-32" / "train")]
    rule = WindowRule(gaussian_drop=True, quality_scale="given")

    def mend() -> None:
        add_columns(index[0], {"quality_p": np.full(len(index[0]), 0.5)})
        index[0] = Index.open(index[0].folder)
    return lambda: _probability(index[0], rule, np.arange(2)), "priors import quality_p FILE --data", mend


def streamed_with_dropout(tmp: Path) -> State:
    root, crops = data_set(tmp, {"c": [("t", [1, 2])]}, frames=5), ["video"]

    def load() -> None:
        index = open_index(prepare(root, "train", crops=crops[0]))
        fit = None if isinstance(index, VideoIndex) else (0.0, 1.0)      # known once crops are cut
        rule = WindowRule(gaussian_drop=True, quality_fit=fit)
        loading.make_loader(index, rule, np.arange(2), batch_size=1, crop_size=64)
    return load, "give --crops shards", lambda: crops.__setitem__(0, "shards")


def face_twice(tmp: Path) -> State:
    root = challenge(tmp, ["v/t/00001_a.jpg", "v/t/00002_a.jpg", "w/t/00001_b.jpg"])
    return (lambda: prepared_index(root, "test"), "keep one of the files",
            lambda: (root / "videos_challenge" / "v" / "t" / "00002_a.jpg").unlink())


def no_face(tmp: Path) -> State:
    root = data_set(tmp, {"c": [("t", [99])]}, frames=5)
    return (lambda: prepared_index(root), "check that split list and annotations belong together",
            lambda: data_set(root, {"c": [("t", [1])]}, frames=5))


def other_settings(tmp: Path) -> State:
    root = data_set(tmp, {"c": [("t", [1])]}, frames=5)
    made = prepared_index(root, crop_size=32).folder.parent
    made = made.rename(made.with_name("clean-48"))
    return (lambda: prepared_index(root, crop_size=48), "delete the folder; it is made again",
            lambda: shutil.rmtree(made / "train"))


DATA: list[Callable[[Path], State]] = [
    streamed_with_dropout, face_twice, no_face, other_settings, prepared_meanwhile, no_index, no_room, no_quality_p,
    spoilt(rewritten(format=1)), spoilt(rewritten(rows=9)),
    spoilt(lambda folder: (folder / "index.json").write_text("{")),
    spoilt(flipped("clips/*.bin"), "clips/*.bin"), spoilt(flipped("frame-*.npy")),
    spoilt(lambda folder: next(folder.glob("clips/*.bin")).unlink()),
    spoilt(lambda folder: os.truncate(next(folder.glob("clips/*.bin")), 50)),
    spoilt(lambda folder: os.truncate(next(folder.glob("frame-*.npy")), 50))]


# Scores

def scores(**change: np.ndarray) -> Callable[[Path], State]:
    """A table of scores that is to be predicted again."""
    def state(tmp: Path) -> State:
        index, rows = small_index(tmp / "index"), np.arange(5)

        def predict() -> None:
            save_scores(tmp, index, rows, np.ones(5, int), np.full(5, 0.5))
        predict()
        path = tmp / "train.npz"
        table = {**np.load(path), **change}
        np.savez(path, **{name: column for name, column in table.items() if column is not None})
        return lambda: read_scores(path, ["row", "score"], "predict again"), "predict again", predict
    return state


def link_of_scores(tmp: Path) -> State:
    (tmp / "pred").symlink_to(tmp)
    return lambda: refuse_links(tmp, "val"), "remove the link", (tmp / "pred").unlink


def not_a_test_set(tmp: Path) -> State:
    folder = [small_index(tmp / "index")]
    root = challenge(tmp, ["v/t/00001_a.jpg"])
    return (lambda: faces(folder[0], np.arange(1)), "name the prepared folder of the test split",
            lambda: folder.__setitem__(0, prepared_index(root, "test")))


ROWS = np.array([0, 1, 0, 1]), np.array([.1, .2, .3, .4])
NAMES = [Entry(name, {0: ROWS[1]}) for name in "ab"]
SCORES: list[Callable[[Path], State]] = [
    scores(score=np.full(5, 2.0)), scores(score=np.zeros(4)), scores(row=np.full(5, 0.5)), scores(track=np.full(5, -1)),
    scores(score=None), link_of_scores, not_a_test_set,                                         # type: ignore[arg-type]
    given(evaluate, "predict again", (ROWS[0], np.array([.1, np.nan, .3, .4])), ROWS),
    given(evaluate, "correct the label column of the scores", (np.array([0, 1, 2, 1]), ROWS[1]), ROWS),
    given(class_weights, "both are needed", (np.ones(4),), (ROWS[0],)),
    given(lambda *names: compare(ROWS[0], None, names), "give each its own", (NAMES[0], NAMES[0]), tuple(NAMES)),
    given(lambda against: compare(ROWS[0], None, [NAMES[0], Entry("b", {0: ROWS[1]}, against)]), "name one of a",
          ("c",), ("a",)),
    given(lambda width: smooth(ROWS[1], np.zeros(4, int), np.arange(4), width), "give an odd number of frames, 1 or",
          (2,), (3,)),
    given(calibrate, "give it a labelled split", (np.ones(4), ROWS[1]), ROWS),
    given(shares_of_machine, "give fewer", (1000,), (1,)),
    lambda tmp: given(lambda name: write_test_csv(tmp / "pred.csv", [("v", "u", name, 0.5)]),
                      "give it letters, digits, _ . - only", ("=1+1",), ("t",))(tmp),
    lambda tmp: written(tmp / "p.csv", "v,u,t,1,nan\n", "v,u,t,1,0.5\n",
                        lambda path: csv_to_json(path, tmp / "s.json"), "predict again"),
    lambda tmp: written(tmp / "p.csv", b"\xff\xfe", "v,u,t,1,0.5\n", lambda path: csv_to_json(path, tmp / "s.json"),
                        "predict again"),
    lambda tmp: written(tmp / "truth" / "test_labels.csv", "a,b\n1,2\n", "video_id,track_id,unique_id,label\nv,t,a,1\n",
                        lambda path: load_test_labels(tmp, prepared_index(challenge(tmp, ["v/t/00001_a.jpg"]), "test")),
                        "the columns are video_id,track_id,unique_id,label with labels 0 and 1")]


test_what_was_refused_is_taken_once_the_remedy_is_done = refused_until_mended(*BOXES, *PICTURES, *DATA, *SCORES)
