"""The files of a world, in the layout of Ego4D: annotations, splits, truth, test crops, manifest.

Clips arrive as pieces, one file each, and are gathered once all are there; world.json comes last.
"""

import csv
import json
import os
import shutil
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from gazepose.data.shards import encode
from gazepose.data.video import frames_in_order
from gazepose.synthetic.behaviour import FPS, RADIUS, Preset
from gazepose.synthetic.draw import cut_face
from gazepose.synthetic.files import piece_path, staged, video_path, write_npz, write_text
from gazepose.synthetic.plan import Clip
from gazepose.synthetic.seeds import SPLITS, generator, random_name
from gazepose.synthetic.sheet import contact_sheet
from gazepose.synthetic.truth import PRIORS, TRUTH

VERSION = 1
TEST_CROP = 224


def write_test_crops(root: Path, clip: Clip, video: Path) -> np.ndarray:
    """Crops of a held-out clip as the challenge gives them; returns the unique id of each row."""
    rng = generator(clip.world_seed, SPLITS.index("test"), int(clip.truth["identity"][0]), 0)
    frame, track = clip.truth["frame"], clip.truth["track"]
    unique = np.array([random_name(rng, 16) for _ in frame])
    staging, folder = (root / "videos_challenge" / f"{mark}{clip.uid}" for mark in (f".part-{os.getpid()}-", ""))
    for name in np.unique(track):
        (staging / name).mkdir(parents=True, exist_ok=True)
    for number, picture in frames_in_order(video.resolve(), np.unique(frame).tolist()):
        for row in np.flatnonzero(frame == number):
            crop = cut_face(picture, clip.crop_box[row], TEST_CROP)
            (staging / str(track[row]) / f"{number:05d}_{unique[row]}.jpg").write_bytes(encode(crop))
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(staging, folder)
    return unique


def finish(root: Path, preset: Preset, seed: int, every: list[tuple[str, int]]) -> None:
    """Gather the pieces into the files of the whole world; world.json last."""
    counts: dict[str, Any] = {}
    manifest = []
    for split in SPLITS[:3]:
        pieces = []
        for number in (n for s, n in every if s == split):
            with np.load(piece_path(root, split, number)) as piece:
                pieces.append(dict(piece))
        uids = [str(p["truth_clip"][0]) for p in pieces]
        tables = {kind: {k: np.concatenate([p[f"{kind}_{k}"] for p in pieces]) for k in keys}
                  for kind, keys in (("truth", TRUTH), ("priors", PRIORS))}
        for kind, table in tables.items():
            write_npz(root / kind / f"{split}.npz", table)
        truth = tables["truth"]
        for uid, p in zip(uids, pieces, strict=True):
            path = video_path(root, split, uid).relative_to(root).as_posix()
            manifest.append([uid, json.loads(str(p["annotation"]))["video_uid"], split, path, int(p["frames"]), FPS,
                             *preset.size, str(p["sha256"])])
        counts[split] = {"clips": len(pieces), "frames": int(sum(p["frames"] for p in pieces)),
                         "faces": len(truth["label"]), "tracks": len(np.unique(truth["track"])),
                         "identities": len(np.unique(truth["identity"])),
                         "looking": round(float(truth["label"].mean()), 4)}
        if split == "test":
            rows = [["video_id", "track_id", "frame", "unique_id", "label"]]
            unique = np.concatenate([p["unique_id"] for p in pieces])
            for row in zip(truth["clip"], truth["track"], truth["frame"], unique, truth["label"], strict=True):
                rows.append([str(v) for v in row])
            write_text(root / "truth" / "test_labels.csv", _as_csv(rows))
            continue
        clips = [json.loads(str(p["annotation"])) for p in pieces]
        write_text(root / "json" / f"av_{split}.json", json.dumps({
            "date": "220104", "version": "v1", "description": f"embedded world, preset {preset.name}, seed {seed}",
            "videos": [{"video_uid": c["video_uid"], "split": split, "clips": [c]} for c in clips]}))
        write_text(root / "split" / f"{split}.list", "".join(f"{uid}\n" for uid in uids))
    write_text(root / "csv" / "manifest.csv", _as_csv(
        [["clip_uid", "video_uid", "split", "path", "frames", "fps", "width", "height", "sha256"], *manifest]))
    with staged(root / "contact_sheet.png") as part:
        part.write_bytes(cv2.imencode(".png", cv2.cvtColor(contact_sheet(root), cv2.COLOR_RGB2BGR))[1].tobytes())
    write_text(root / "world.json", json.dumps({
        "preset": preset.name, "seed": seed, "version": VERSION, "width": preset.size[0], "height": preset.size[1],
        "fps": FPS, "radius": RADIUS, **counts, "complete": True}, indent=2) + "\n")
    shutil.rmtree(root / ".pieces")


def _as_csv(rows: Sequence[Sequence[Any]]) -> str:
    text = StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
