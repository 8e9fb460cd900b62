"""loader.json: whole samples of the original loaders against ours.

The recorded tracks, images and priors are written as a data set, with JPEG crops, and read by the ones that read any
other. Left out is `test_name_lookup`: the original searches file names for digits, ours parses them (quirk 46).
"""

import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from statistics import NormalDist
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from making import prepared_index, write_tracks

from gazepose.compat.folders import read_original
from gazepose.data import windows
from gazepose.data.index import Index
from gazepose.data.index_writer import add_columns
from gazepose.data.join import join
from gazepose.data.loader import make_loader
from gazepose.data.quality import quality_p
from gazepose.data.shards import encode
from gazepose.data.tracks import POLICIES
from gazepose.data.windows import BEHAVIOURS, WindowRule, centre_rows
from gazepose.evaluation.metrics import class_weights
from gazepose.models.queries import HeadPoseQueries, eye_centred
from gazepose.training.augment import normalise

from . import Result

SIZE = 32                        # pixels per side of a crop; one grey level fills it
PUBLISHED = BEHAVIOURS["published"]
# a recorded run knows p of every frame in the file; that the published script measures key frames only is not in it
MEASURED = replace(PUBLISHED, quality_of_key_frames=False)
Table = dict[tuple[str, str, int], Any]                                # (clip, track, frame) -> values


def check(folder: Path) -> Iterator[Result]:
    """Every recorded sample of training, validation and test, and the transform of evaluation.

    Raises:
        ValueError: a run without samples.
    """
    recorded = json.loads((folder / "loader.json").read_text())
    with TemporaryDirectory() as place:
        inputs = recorded["train_val"]["given"]
        index = clips_index(inputs, recorded["train_val"]["split_list"], Path(place) / "clips")
        for number, run in enumerate(recorded["train_val"]["validation_runs"]):
            rule = WindowRule(behaviour=PUBLISHED, stride=run["stride"], gaussian_drop=run["quality_drop"],
                              quality_fit=(0, 1))
            rows = centre_rows(index, rule.stride)
            yield from compare(f"validation run {number}", index, rule, rows, run)
        for number, run in enumerate(recorded["train_val"]["training_runs"]):
            rule = WindowRule(behaviour=MEASURED, stride=run["stride"], train=True, crop=False, gaussian_drop=True,
                              quality_fit=(0, 1))
            rows = passed(index, centre_rows(index, rule.stride), inputs["train_filter"])
            yield from compare(f"training run {number}", index, rule, rows, run, held(run["every_random_draw"]))
        index = challenge_index(recorded["test"]["given"], Path(place) / "challenge")
        for number, run in enumerate(recorded["test"]["runs"]):
            rule = WindowRule(behaviour=PUBLISHED, test=True, gaussian_drop=run["quality_drop"], quality_fit=(0, 1))
            yield from compare(f"test run {number}", index, rule, centre_rows(index, 1), run)
    salt = json.loads((folder / "models.json").read_text())["fill"]["salt"]
    yield from transform(recorded["eval_transform"], salt)


def crop(level: int) -> bytes:
    if not 0 <= level <= 255:
        raise ValueError(f"image {level} has no grey level of its own")
    return encode(np.full((SIZE, SIZE, 3), level, np.uint8))


def clips_index(inputs: dict[str, Any], clip_uids: list[str], root: Path) -> Index:
    """The recorded tracks as files of the original scripts, their images as crops, their priors as columns."""
    for name, track in inputs["tracks"].items():
        path = root / "json_original" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(track))
    (root / "result_LAM").mkdir()
    for clip, segments in inputs["segments"].items():
        (root / "result_LAM" / f"{clip}.json").write_text(json.dumps(segments))
    clips = read_original(root / "json_original", root / "result_LAM", clip_uids, POLICIES["baseline"])
    rows, tracks = [], []
    for track in (track for clip in clips for track in clip.tracks):
        images = set(inputs["faces"][f"{track.clip}/{track.track}"])
        known = [place for place, frame in enumerate(track.frames.tolist()) if frame in images]
        tracks.append((track.clip, track.track, track.frames[known].tolist()))
        rows += [(place, int(track.labels[place])) for place in known]
    position, label = zip(*rows, strict=True)
    index = write_tracks(root / "index", tracks, (crop(frame) for _, _, frames in tracks for frame in frames),
                         {"split": "val", "policy": "baseline", "crop_size": SIZE}, position=position, label=label)
    return with_priors(index, named(inputs["p"]), named(inputs["mesh"]),
                       {parts(name): pose[:3] for name, pose in inputs["head_pose"].items()})


def challenge_index(inputs: dict[str, Any], root: Path) -> Index:
    """The recorded test images as the challenge's folders, prepared; their priors as columns."""
    frame_of: dict[tuple[str, str, str], int] = {}
    for track, names in inputs["files"].items():
        folder = root / "videos_challenge" / track
        folder.mkdir(parents=True)
        for name in names:
            digits, unique = name.removesuffix(".jpg").split("_", 1)
            frame_of[(*track.split("/"), unique)] = int(digits)
            (folder / name).write_bytes(crop(int(digits)))
    index = prepared_index(root, "test", policy="baseline", crop_size=SIZE)
    by_frame = [{(video, track, frame_of[video, track, unique]): values for video, tracks in inputs[name].items()
                 for track, faces in tracks.items() for unique, values in faces.items()} for name in ("p", "mesh")]
    poses = {}
    for name, pose in inputs["head_pose"].items():
        video, track, _, frame = name.split(":")
        poses[video, track, int(frame)] = pose[:3]
    return with_priors(index, *by_frame, poses)


def named(values: dict[str, dict[str, dict[str, Any]]]) -> Table:
    """clip -> track -> frame -> value."""
    return {(clip, track, int(frame)): value for clip, tracks in values.items() for track, frames in tracks.items()
            for frame, value in frames.items()}


def parts(name: str) -> tuple[str, str, int]:
    """clip:track:frame."""
    clip, track, frame = name.split(":")
    return clip, track, int(frame)


def with_priors(index: Index, p: Table, mesh: Table, head_pose: Table) -> Index:
    """The index with columns whose quality has the recorded p under a standard Gaussian."""
    variance = {face: NormalDist().inv_cdf(min(max(value, 1e-9), 1 - 1e-9)) for face, value in p.items()}
    points = {face: [[x, y, visible] for x, y, _, visible in five] for face, five in mesh.items()}
    for column, table in {"quality": variance, "landmarks": points, "head_pose": head_pose}.items():
        if not table:
            continue                                                   # an absent column is unknown everywhere
        clip, track, frame = zip(*table, strict=True)
        add_columns(index, join(index, {"clip": np.array(clip), "track": np.array(track),
                                               "frame": np.array(frame), column: np.array(list(table.values()))}))
    return Index.open(index.folder)


def name_of(index: Index, row: int) -> tuple[str, str, int]:
    track = int(index.track_of(row))
    return index.clips[index.track_clip[track]], index.track_name[track], int(index.frame[row])


def passed(index: Index, rows: np.ndarray, train_filter: dict[str, Any]) -> np.ndarray:
    """Key frames whose recorded score at max_index is positive (quirk 35)."""
    entries = [train_filter[":".join(map(str, name_of(index, row)))] for row in rows]
    return rows[np.array([entry["array"][entry["max_index"]] > 0 for entry in entries], bool)]


def held(draw: float) -> AbstractContextManager[Any]:
    """Every random number at one value. The original flips above a half, we below it: the same chance, so mirrored."""
    def constant(*keys: int | np.ndarray) -> np.ndarray:
        value = 1 - draw if keys[2] == windows._FLIP else draw
        return np.full(np.broadcast_shapes(*(np.shape(key) for key in keys)), value)
    return patch.object(windows, "uniform", constant)


def rounded(variance: np.ndarray, mean: float, std: float) -> np.ndarray:
    """p as it was recorded, without what it lost on its way through a column of float32."""
    return np.round(quality_p(variance, mean, std), 6)


def samples(index: Index, rule: WindowRule, rows: np.ndarray) -> dict[str, np.ndarray]:
    """What the loader gives, in its order, one entry per row: level shown by each slot, priors, label, row, flip."""
    seen: dict[str, list[np.ndarray]] = {}
    with patch.object(windows, "quality_p", rounded):
        for batch in make_loader(index, rule, rows, batch_size=8, crop_size=SIZE):
            counted, flat = batch["row"] >= 0, batch["frames"].flatten(1)
            levels = torch.where(flat.amin(1) == flat.amax(1), flat[:, 0].long(), -1)
            entry = {"slots": levels[batch["window"]], **{k: batch[k] for k in ("label", "row", "head_pose")}}
            entry["landmarks"] = eye_centred(batch["landmarks"]).nan_to_num(0).transpose(1, 2).flatten(1)
            entry["flip"] = batch.get("flip", torch.zeros(len(flat), dtype=torch.bool))[batch["window"]]
            for key, value in entry.items():
                seen.setdefault(key, []).append(value[counted].numpy())
    return {key: np.concatenate(values) for key, values in seen.items()}


def compare(what: str, index: Index, rule: WindowRule, rows: np.ndarray, run: dict[str, Any],
            draws: AbstractContextManager[Any] | None = None) -> Iterator[Result]:
    """A run's samples against ours, by name; and their order within each track, rows of several tracks being free."""
    if not run["samples"]:
        raise ValueError(f"{what}: no samples to compare -> record the folder again")
    with draws or nullcontext():
        ours = samples(index, rule, rows)
    names = [name_of(index, row) for row in ours["row"]]
    short = ("clip", "track", "frame", "label")
    theirs = [sample if isinstance(sample, dict) else dict(zip(short, sample, strict=True))
              for sample in run["samples"]]
    their_names = [(sample.get("clip") or sample["video"], sample["track"], int(sample["frame"])) for sample in theirs]
    yield Result(f"{what}: windows that only one side has", (Counter(names) - Counter(their_names)).total()
                 + (Counter(their_names) - Counter(names)).total(), 0)
    in_rows = names if not rule.train else [name_of(index, row) for row in rows]
    tracks = {name[:2] for name in their_names}
    yield Result(f"{what}: tracks in another order", sum(
        [name for name in in_rows if name[:2] == track] != [name for name in their_names if name[:2] == track]
        for track in tracks), 0)
    if "positives" in run:
        counts = [int((ours["label"] == label).sum()) for label in (1, 0)]
        inputs = [run["positives"], run["negatives"]]
        yield Result(f"{what}: positives and negatives", sum(abs(a - b) for a, b in zip(
            counts, inputs, strict=True)), 0)
        if rule.train and all(inputs):
            yield Result(f"{what}: class weights", max(abs(a - b / sum(inputs)) for a, b in zip(
                class_weights(ours["label"]), inputs, strict=True)), 1e-12)
    place = {name: number for number, name in enumerate(names)}
    pairs = [(place[name], sample) for name, sample in zip(their_names, theirs, strict=True) if name in place]
    bins = HeadPoseQueries(8, split=1.0, published=True).rows(torch.from_numpy(ours["head_pose"])).numpy()
    exact: dict[str, tuple[str, Callable[[int], Any]]] = {
        "label": ("label", lambda n: int(ours["label"][n])),
        "slots": ("slots", lambda n: [level or "black" for level in ours["slots"][n].tolist()]),
        "head_bins": ("head pose bins", lambda n: bins[n].tolist()),
        "flipped": ("flips", lambda n: ours["flip"][n].any() if ours["flip"][n].all() else
                    None if ours["flip"][n].any() else False)}
    for key, (said, own) in exact.items():
        compared = [(own(number), sample[key]) for number, sample in pairs if key in sample]
        if compared:
            differing = sum(bool(a != b) for a, b in compared)
            yield Result(f"{what}: windows with other {said} of {len(compared)}", differing, 0)
    vectors = [(ours["landmarks"][number], sample["landmarks"]) for number, sample in pairs if "landmarks" in sample]
    if vectors:
        yield Result(f"{what}: landmarks of {len(vectors)} windows",
                     max(float(np.abs(own - np.array(said)).max()) for own, said in vectors), 1e-6)


def transform(inputs: dict[str, Any], salt: str) -> Iterator[Result]:
    """The image transform of evaluation, on bytes made by the README's rule."""
    height, width = inputs["height"], inputs["width"]
    raw = np.asarray(np.random.PCG64(zlib.crc32(f"{salt}transform".encode())).random_raw(height * width * 3))
    octets = (raw >> np.uint64(56)).astype(np.uint8)
    yield Result("transform: the bytes made by the rule",
                 float((octets[:len(inputs["first_octets"])] != inputs["first_octets"]).sum()), 0)
    picture = torch.from_numpy(octets.reshape(height, width, 3)).permute(2, 0, 1)[None]
    expected = torch.tensor(inputs["expected"])
    yield Result("transform: normalised values", (normalise(picture)[0] - expected).abs().max().item(), 2e-6)
