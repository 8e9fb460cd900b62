"""The embedded world: rendered conversations whose eye contact is known by geometry, in the layout of Ego4D.

A clip is planned first (who sits where, looks where, and the exact truth of it: no pixel is needed for that), then
drawn. A plan and its pictures are a function of (seed, split, number) alone, so clips may be made in any order by any
process. Planned in behaviour.py, shot.py, truth.py and plan.py; drawn in head.py, camera.py and draw.py; written in
layout.py. Single crops for pre-training are stills.py.
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from gazepose.synthetic import camera
from gazepose.synthetic.behaviour import PRESETS, Preset
from gazepose.synthetic.draw import draw_clip
from gazepose.synthetic.files import piece_path, staged, video_path, write_npz, write_text
from gazepose.synthetic.layout import VERSION, finish, write_test_crops
from gazepose.synthetic.plan import plan_clip
from gazepose.synthetic.seeds import SPLITS, clip_names
from gazepose.synthetic.share import share_out


def render_world(root: Path, preset: str = "default", seed: int = 0, jobs: int | None = None,
                 notify: Callable[[str], None] = print) -> Path:
    """Render a world into root, in the layout of Ego4D, with its truth beside it; return root.

    Uses all cores unless jobs says otherwise. Continues where it was stopped; returns at once when the world is whole
    (world.json is written last). The bytes depend on preset and seed alone, not on order, process or number of them.

    Raises:
        ValueError: unknown preset, negative seed, or root holds another world or other data.
    """
    root, chosen = Path(root), find_preset(preset)
    if seed < 0:
        raise ValueError(f"seed {seed}: must not be negative -> choose 0 or more")
    marker, started = root / "world.json", root / ".pieces" / "started.json"
    if marker.exists():
        _check_same(marker, preset, seed)
        return root
    if started.exists():
        _check_same(started, preset, seed)
    elif (root / "json").exists() or (root / "videos").exists() or (root / "videos_challenge").exists():
        raise ValueError(f"{root}: holds data that is not an embedded world -> name another folder")
    write_text(started, json.dumps({"preset": preset, "seed": seed, "version": VERSION}))
    every = [(split, n) for split, count in zip(SPLITS[:3], chosen.clips, strict=True) for n in range(count)]
    todo = [(split, n) for split, n in every if not (
        piece_path(root, split, n).exists() and video_path(root, split, clip_names(seed, split, n)[0]).exists())]
    there = len(every) - len(todo)
    frames = len(every) * chosen.shots * sum(chosen.frames) // 2
    notify(f"embedded world: {len(every)} clips of preset {preset!r}, about {frames} frames of "
        f"{chosen.size[0]} x {chosen.size[1]}, into {root}" + (f"; {there} are there" if there else ""))
    share_out(_render_clip, [(root, chosen, seed, *which) for which in todo], jobs, there, "clips", notify)
    finish(root, chosen, seed, every)
    return root


def _render_clip(root: Path, preset: Preset, seed: int, split: str, number: int) -> None:
    """Plan, draw and write one clip; its piece, written last, says that it is finished."""
    cv2.setNumThreads(1)
    piece = piece_path(root, split, number)
    clip = plan_clip(preset, seed, split, number)
    video = video_path(root, split, clip.uid)
    with staged(video) as part:
        camera.write_mp4(part, draw_clip(clip), preset.size, preset.crf)
    extra = {"annotation": np.array(json.dumps(clip.annotation)), "frames": np.array(clip.frames),
             "sha256": np.array(hashlib.sha256(video.read_bytes()).hexdigest())}
    if split == "test":
        extra["unique_id"] = write_test_crops(root, clip, video)
    write_npz(piece, {**{f"truth_{k}": v for k, v in clip.truth.items()},
                      **{f"priors_{k}": v for k, v in clip.priors.items()}, **extra})


def find_preset(name: str) -> Preset:
    if name not in PRESETS:
        raise ValueError(f"preset {name!r}: there is none of that name -> one of {', '.join(PRESETS)}")
    return PRESETS[name]


def _check_same(file: Path, preset: str, seed: int) -> dict[str, Any]:
    facts = json.loads(file.read_text(encoding="utf-8"))
    got = (facts.get("preset"), facts.get("seed"), facts.get("version"))
    if got != (preset, seed, VERSION):
        raise ValueError(f"{file}: this folder holds preset {got[0]!r}, seed {got[1]}, version {got[2]}, wanted "
                         f"{preset!r}, seed {seed}, version {VERSION} -> name another folder, or delete this one")
    return facts
