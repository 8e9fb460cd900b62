"""Stills: single crops of people who are in no clip, for gaze pre-training."""

import shutil
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import simplejpeg

from gazepose.data.index import Index, write_index
from gazepose.data.quality import fit_gaussian, laplacian_variance
from gazepose.data.shards import ShardWriter, encode
from gazepose.synthetic import camera
from gazepose.synthetic.behaviour import Preset
from gazepose.synthetic.draw import draw_person
from gazepose.synthetic.files import write_npz
from gazepose.synthetic.layout import TEST_CROP, VERSION
from gazepose.synthetic.seeds import SPLITS, generator
from gazepose.synthetic.share import share_out
from gazepose.synthetic.shot import plan_shot
from gazepose.synthetic.truth import estimate, measure
from gazepose.synthetic.world import find_preset

STILLS_PER_TASK = 128
STILLS_PER_PERSON = 10


def render_stills(root: Path, preset: str, seed: int, count: int, crop_size: int, jobs: int | None = None,
                  notify: Callable[[str], None] = print) -> Path:
    """Render single crops for gaze pre-training into the index folder root/stills/<crop_size>; return it.

    Each still is a state of its own (person, fixation, place, light), drawn at the size it has in the world, degraded
    and compressed like the frames of a clip, then cut and scaled like a crop. Columns: label, gaze, quality,
    head_pose and landmarks (noisy priors). Its people are in no clip.

    Raises:
        ValueError: unknown preset, bad count, or the folder holds other stills.
    """
    root, chosen = Path(root), find_preset(preset)
    folder = root / "stills" / str(crop_size)
    if count < 1 or crop_size < 8:
        raise ValueError(f"{count} stills of {crop_size} pixels: wanted at least 1 of at least 8 -> ask for more")
    wanted = {"preset": preset, "seed": seed, "version": VERSION, "count": count, "crop_size": crop_size}
    if folder.exists():
        index = Index.open(folder)
        got = {k: index.facts.get(k) for k in wanted}
        if got != wanted:
            raise ValueError(f"{folder}: holds stills of {got}, wanted {wanted} -> delete this folder")
        return folder
    staging = root / "stills" / f".pieces-{crop_size}-{preset}-{seed}-{count}-{VERSION}"
    staging.mkdir(parents=True, exist_ok=True)
    tasks = [(staging, chosen, seed, n, min(STILLS_PER_TASK, count - n * STILLS_PER_TASK), crop_size)
             for n in range(-(-count // STILLS_PER_TASK))]
    todo = [t for t in tasks if not (staging / f"{t[3]:04d}.npz").exists()]
    notify(f"embedded world: {count} stills of {crop_size} pixels, into {folder}")
    share_out(_render_stills, todo, jobs, len(tasks) - len(todo), f"batches of {STILLS_PER_TASK} stills", notify)
    pieces = []
    for task in tasks:
        with np.load(staging / f"{task[3]:04d}.npz") as piece:
            pieces.append(dict(piece))
    shard, base = staging / "shard.bin", []
    with ShardWriter(shard) as writer:
        for task in tasks:
            base.append(writer.append((staging / f"{task[3]:04d}.bin").read_bytes())[0])
    columns = {k: np.concatenate([p[k] for p in pieces]) for k in pieces[0]}
    sizes = [len(p["frame"]) for p in pieces]
    write_index(folder, columns=columns, clips=[f"stills{n:04d}" for n in range(len(tasks))],
                track_name=[f"still{i}" for size in sizes for i in range(size)],
                track_clip=np.repeat(np.arange(len(tasks)), sizes), track_start=np.arange(count + 1),
                clip_shard=np.zeros(len(tasks), np.int32), clip_base=np.array(base), shards=[shard],
                facts={**wanted, "split": "stills", "policy": "clean", "decoder": "none",
                       "quality_fit": fit_gaussian(columns["quality"])})
    shutil.rmtree(staging)
    return folder


def _render_stills(staging: Path, preset: Preset, seed: int, number: int, count: int, crop_size: int) -> None:
    """One batch of stills: their bytes one after another and a row each; the rows are written last."""
    cv2.setNumThreads(1)
    rng = generator(seed, SPLITS.index("stills"), number, 0)
    base = SPLITS.index("stills") * 100_000_000 + number * 1000
    rows: list[dict[str, np.ndarray]] = []
    with ShardWriter(staging / f"{number:04d}.bin") as writer:
        while len(rows) < count:
            identity = base + len(rows) // STILLS_PER_PERSON
            still = _still(rng, preset, seed, identity)
            if still is None:
                continue
            crop, truth = still
            offset, length = writer.append(encode(cv2.resize(crop, (crop_size, crop_size), interpolation=(
                cv2.INTER_AREA if min(crop.shape[:2]) > 2 * crop_size else cv2.INTER_LINEAR))))
            rows.append({"frame": np.zeros(1, np.int32), "box": truth["crop_box"], "label": truth["label"],
                         "offset": np.array([offset]), "length": np.array([length]), "gaze": truth["gaze"],
                         "quality": np.array([laplacian_variance(cv2.resize(crop, (TEST_CROP, TEST_CROP)))]),
                         **estimate(rng, preset, truth)})
    write_npz(staging / f"{number:04d}.npz", {k: np.concatenate([r[k] for r in rows]) for k in rows[0]})


def _still(rng: np.random.Generator, preset: Preset, seed: int, identity: int
           ) -> tuple[np.ndarray, dict[str, np.ndarray]] | None:
    """One state of a person as a crop at its native size, with its truth [1, ...]; None when out of the picture."""
    others = int(rng.integers(preset.people[0], preset.people[1] + 1)) - 1
    shot = plan_shot(rng, preset, 0, 1, [identity], ["1"], seed, strangers=others)
    truth, _, cut = measure(rng, preset, shot, 0, seed)
    if not len(cut):
        return None
    room = _still_room(seed, identity, preset)
    around = int(np.ceil(np.abs(shot.motion[0]).max() / 2 + 3 * shot.exposure.defocus[0])) + 2
    x0, y0, x1, y1 = cut[0].astype(int).tolist()
    left, top = max(0, x0 - around), max(0, y0 - around)
    right, bottom = min(preset.size[0], x1 + around), min(preset.size[1], y1 + around)
    picture = room.view(preset, shot.rotation[0], (left, top, right, bottom))
    draw_person(picture, (left, top), preset, shot, 0, 0, seed, {})
    picture = camera.take(rng, picture, shot.exposure, 0, tuple(shot.motion[0]), (preset.size[1], preset.size[0]))
    crop = picture[y0 - top:max(y1, y0 + 1) - top, x0 - left:max(x1, x0 + 1) - left]
    quality = int(np.clip(150 - 3.2 * preset.crf + rng.normal(0, 6), 25, 95))      # about what the codec leaves
    coded = simplejpeg.encode_jpeg(np.ascontiguousarray(crop), quality, "RGB", "420")
    return simplejpeg.decode_jpeg(coded), {**truth, "crop_box": cut}


@lru_cache(maxsize=2)
def _still_room(seed: int, identity: int, preset: Preset) -> camera.Room:
    return camera.make_room(generator(seed, SPLITS.index("stills"), identity, 1), preset)
