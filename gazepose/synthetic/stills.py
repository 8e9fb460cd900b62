"""Stills: single crops for gaze pre-training, of people who are in no clip."""

import shutil
import zlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import simplejpeg

from gazepose.data.crops import quality_of
from gazepose.data.index import SHARDS, Index
from gazepose.data.index_writer import write_index
from gazepose.data.quality import fit_gaussian
from gazepose.data.shards import encode
from gazepose.io import read_arrays, write_arrays, writing_by_checksum, writing_bytes
from gazepose.output import inform
from gazepose.processes import Processes
from gazepose.progress import Progress
from gazepose.synthetic import camera, scene
from gazepose.synthetic.lids import CLOSED
from gazepose.synthetic.plan import estimate_priors, measure_truth
from gazepose.synthetic.presets import PEOPLE_PER_SPLIT, SPLITS, VERSION, WorldPreset, find_preset, generator
from gazepose.synthetic.shot import plan_shot
from gazepose.synthetic.world import lock_of, run_tasks

BATCH = 128                  # stills that are rendered, and resumed, together
PER_PERSON = 10


def render_stills(root: Path, preset: str, seed: int, count: int, crop_size: int, jobs: int | None = None,
                  notify: Callable[[str], None] = inform) -> Path:
    """Render single crops for gaze pre-training into the index folder root/stills/<crop_size>; return it.

    Each still is a state of its own (person, fixation, place, light). It is drawn at the size it has in the world,
    degraded and compressed like the frames of a clip, then cut and scaled like a crop. Columns: label, gaze, quality,
    head_pose and landmarks (noisy priors). Its people are in no clip. Resumes where an earlier call was stopped. While
    another process renders them, waits, then uses its stills.

    Raises:
        ValueError: unknown preset, bad count, or the folder holds other stills.
    """
    root, chosen = Path(root), find_preset(preset)
    folder = root / "stills" / str(crop_size)
    if count < 1 or crop_size < 8:
        raise ValueError(f"{count} stills of {crop_size} pixels: too few or too small -> give 1 or more, of 8 or more "
                         "pixels")
    facts = {"preset": preset, "seed": seed, "version": VERSION, "count": count, "crop_size": crop_size}
    if not (folder / "index.json").is_file():
        with Processes(notify=notify).in_turn(lock_of(folder)):
            if not (folder / "index.json").is_file():              # another process may have rendered them meanwhile
                _render(folder, chosen, facts, jobs, notify)
    got = {k: Index.open(folder).facts.get(k) for k in facts}
    if got != facts:
        raise ValueError(f"{folder}: holds stills of {got}, wanted {facts} -> delete this folder")
    return folder


def _render(folder: Path, chosen: WorldPreset, facts: dict[str, Any], jobs: int | None,
            notify: Callable[[str], None]) -> None:
    root, (preset, seed, _, count, crop_size) = folder.parents[1], facts.values()
    pieces = root / "stills" / f".pieces-{crop_size}-{preset}-{seed}-{count}-{VERSION}"
    pieces.mkdir(parents=True, exist_ok=True)
    batches = range(-(-count // BATCH))
    todo = [n for n in batches if not (pieces / f"{n:04d}.npz").exists()]
    notify(f"embedded world: {count} stills of {crop_size} pixels, into {folder}")
    with Progress(f"rendering stills, {BATCH} at a time", len(batches), "batches", notify,
                  done=len(batches) - len(todo)) as progress:
        run_tasks(_render_batch, [(pieces, chosen, seed, n, min(BATCH, count - n * BATCH), crop_size) for n in todo],
                  jobs, progress)
    tables = [read_arrays(pieces / f"{n:04d}.npz") for n in batches]
    shards = []
    for n in batches:
        with writing_by_checksum(folder / SHARDS, f"stills{n:04d}.bin") as (file, shard):
            file.write((pieces / f"{n:04d}.bin").read_bytes())
        shards.append(shard)
    columns = {k: np.concatenate([table[k] for table in tables]) for k in tables[0]}
    write_index(folder, columns=columns, clips=[f"stills{n:04d}" for n in batches],
                track_name=[f"still{i}" for table in tables for i in range(len(table["frame"]))],
                track_clip=np.repeat(np.arange(len(tables)), [len(table["frame"]) for table in tables]),
                track_start=np.arange(count + 1), shards=shards,
                facts={**facts, "split": "stills", "policy": "clean", "decoder": "none", "boxes": chosen.box_rules,
                       "quality_fit": fit_gaussian(columns["quality"])})
    shutil.rmtree(pieces)


def _render_batch(pieces: Path, preset: WorldPreset, seed: int, number: int, count: int, crop_size: int) -> None:
    """One batch of stills: their bytes one after another, and a row each. The rows are written last."""
    rng = generator(seed, "stills", number, 0)
    first_person = SPLITS.index("stills") * PEOPLE_PER_SPLIT + number * 1000
    rows: list[dict[str, np.ndarray]] = []
    with writing_bytes(pieces / f"{number:04d}.bin") as file:
        while len(rows) < count:
            still = _draw_still(rng, preset, seed, first_person + len(rows) // PER_PERSON)
            if still is None:
                continue
            crop, truth = still
            shrinks = min(crop.shape[:2]) > 2 * crop_size
            jpeg = encode(cv2.resize(crop, (crop_size, crop_size),
                                     interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR))
            offset, length = file.tell(), file.write(jpeg)
            rows.append({"frame": np.zeros(1, np.int32), "box": truth["crop_box"], "label": truth["label"],
                         "offset": np.array([offset]), "length": np.array([length]),
                         "checksum": np.array([zlib.crc32(jpeg)]), "gaze": truth["gaze"],
                         "quality": np.array([quality_of(crop)]),
                         **estimate_priors(rng, preset, truth)})
    write_arrays(pieces / f"{number:04d}.npz", {k: np.concatenate([row[k] for row in rows]) for k in rows[0]})


def _draw_still(rng: np.random.Generator, preset: WorldPreset, seed: int, identity: int
                ) -> tuple[np.ndarray, dict[str, np.ndarray]] | None:
    """One state of a person as a crop at its native size, with its truth [1, ...]; None when out of the picture."""
    others = int(rng.integers(preset.people[0], preset.people[1] + 1)) - 1
    shot = plan_shot(rng, preset, 0, 1, [identity], ["1"], seed, strangers=others)
    truth, _, cut = measure_truth(rng, preset, shot, 0, seed, preset.detector)
    if not len(cut):
        return None
    if (shot.people[0].lids.opening < CLOSED).all():           # one picture: nothing tells a blink from sleep
        truth["label"][:], truth["gaze"][:] = 0, np.nan
    room = _room_of(seed, identity, preset)
    blurred = np.abs(shot.smear[0]).max() / 2 + 3 * shot.exposure.defocus[0]
    around = int(np.ceil(blurred + np.abs(shot.skew).max() * preset.size[1] / 2)) + 2
    x0, y0, x1, y1 = cut[0].astype(int).tolist()
    left, top = max(0, x0 - around), max(0, y0 - around)
    right, bottom = min(preset.size[0], x1 + around), min(preset.size[1], y1 + around)
    picture = room.view(preset, shot.rotation[0], (left, top, right, bottom))
    camera.draw_person(picture, (left, top), preset, shot, 0, 0, seed, {})
    picture = camera.roll(picture, shot.skew[0], preset.size[1] / 2 - top)
    picture = camera.expose(rng, picture, shot.exposure, 0, tuple(shot.smear[0]), (preset.size[1], preset.size[0]))
    crop = picture[y0 - top:max(y1, y0 + 1) - top, x0 - left:max(x1, x0 + 1) - left]
    quality = int(np.clip(150 - 3.2 * preset.crf + rng.normal(0, 6), 25, 95))      # about the video codec's loss
    coded = simplejpeg.encode_jpeg(np.ascontiguousarray(crop), quality, "RGB", "420")
    return simplejpeg.decode_jpeg(coded), {**truth, "crop_box": cut}


@lru_cache(maxsize=2)
def _room_of(seed: int, identity: int, preset: WorldPreset) -> scene.Room:
    return scene.make_room(generator(seed, "stills", identity, 1), preset, preset.distance[1])
