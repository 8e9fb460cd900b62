"""The embedded world: rendered conversations in the layout of Ego4D, whose eye contact is known from geometry.

A clip is planned first (who sits where and looks where, with the exact truth), then drawn. Both depend on (seed, split,
number) alone, so any process may make any clip in any order. Plans: presets.py, motion.py, shot.py, plan.py. Pictures:
head.py, scene.py, camera.py. Single crops for pre-training: stills.py.
"""

import csv
import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from gazepose.data.crops import PUBLISHED_SIZE, cut_face
from gazepose.data.shards import encode
from gazepose.data.video import frames_in_order
from gazepose.data.video_writer import write_mp4
from gazepose.io import (
    leftovers,
    read_arrays,
    read_object,
    sha256_of,
    write_arrays,
    write_json,
    writing,
    writing_folder,
    writing_path,
)
from gazepose.machine import cores
from gazepose.output import inform
from gazepose.processes import WORKERS, Processes, begin_worker, killed
from gazepose.progress import Progress
from gazepose.synthetic.camera import draw_clip
from gazepose.synthetic.motion import RADIUS
from gazepose.synthetic.plan import PRIORS, TRUTH, PlannedClip, plan_clip
from gazepose.synthetic.presets import (
    FPS,
    SPLITS,
    VERSION,
    WorldPreset,
    clip_names,
    find_preset,
    generator,
    random_name,
)
from gazepose.text import counted

BORDER = {0: (200, 40, 40), 1: (40, 190, 70)}    # of a face on the contact sheet, by label


def render_world(root: Path, preset: str = "default", seed: int = 0, jobs: int | None = None,
                 notify: Callable[[str], None] = inform) -> Path:
    """Render a world into root, in the layout of Ego4D, with its truth beside it; return root.

    Resumes where an earlier call was stopped, and returns at once when the world is complete (world.json is written
    last). While another process renders it, waits, then uses that world. The bytes depend on preset and seed alone, not
    on order or number of processes.

    Args:
        jobs: processes; default: one for each core.

    Raises:
        ValueError: unknown preset, negative seed, or root holds another world or other data.
    """
    root, chosen = Path(root), find_preset(preset)
    if seed < 0:
        raise ValueError(f"seed {seed}: must not be negative -> choose 0 or more")
    marker = root / "world.json"
    if not marker.exists():
        with Processes(notify=notify).in_turn(lock_of(root)):
            if not marker.exists():              # another process may have rendered it meanwhile
                _render(root, chosen, seed, jobs, notify)
    _check_same(marker, preset, seed)
    return root


def lock_of(folder: Path) -> Path:
    """The lock file of a folder that is rendered; it lies beside the folder."""
    folder = folder.resolve()
    return folder.with_name(f".{folder.name}.lock")


def _render(root: Path, chosen: WorldPreset, seed: int, jobs: int | None, notify: Callable[[str], None]) -> None:
    started, preset = root / ".pieces" / "started.json", chosen.name
    if started.exists():
        _check_same(started, preset, seed)
    elif any((root / name).exists() for name in ("json", "videos", "videos_challenge")):
        raise ValueError(f"{root}: holds data that is not an embedded world -> name another folder")
    write_json(started, {"preset": preset, "seed": seed, "version": VERSION})
    for part in (part for name in ("videos", "heldout/videos", "videos_challenge") for part in leftovers(root / name)):
        shutil.rmtree(part) if part.is_dir() else part.unlink()        # of a process that was killed
    clips = [(split, n) for split, count in zip(SPLITS[:3], chosen.clips, strict=True) for n in range(count)]
    todo = [(split, n) for split, n in clips if not (
        _piece_path(root, split, n).exists() and _video_path(root, split, clip_names(seed, split, n)[0]).exists())]
    done = len(clips) - len(todo)
    shots = [chosen.shots_of(split, n) for split, n in clips]
    frames = round(sum(count * sum(length) / 2 for count, length in shots))
    notify(f"embedded world: {counted(len(clips), 'clip')} of preset {preset!r}, about {counted(frames, 'frame')} of "
           f"{chosen.size[0]} x {chosen.size[1]}, into {root}" + (f"; {done} are done already" if done else ""))
    with Progress("rendering the embedded world", len(clips), "clips", notify, done=done) as progress:
        run_tasks(_render_clip, [(root, chosen, seed, *clip) for clip in todo], jobs, progress)
    _finish(root, chosen, seed, clips)


def run_tasks(function: Callable[..., None], tasks: Sequence[tuple], jobs: int | None, progress: Progress) -> None:
    """Run a function over tasks in several processes, one thread each; with one job or task, in this process."""
    jobs = min(jobs or cores(), len(tasks))
    if jobs <= 1:
        threads = cv2.getNumThreads()
        cv2.setNumThreads(1)
        try:
            for task in tasks:
                function(*task)
                progress.add(1)
        finally:
            cv2.setNumThreads(threads)
        return
    left, before = dict(enumerate(tasks)), len(killed)
    with ProcessPoolExecutor(jobs, WORKERS, _start_worker) as pool:
        futures = {pool.submit(function, *task): number for number, task in left.items()}
        try:
            for future in as_completed(futures):
                future.result()
                del left[futures[future]]
                progress.add(1)
        except BrokenProcessPool:
            if len(killed) == before:
                raise ChildProcessError("a rendering process died -> free memory, or give a lower --jobs; the same "
                                        "command continues") from None
        except BaseException:                    # also a stop signal: begin nothing more
            pool.shutdown(cancel_futures=True)
            raise
    if left:                                     # a process was stopped, so a Watchdog killed it
        run_tasks(function, list(left.values()), jobs, progress)


def _start_worker() -> None:
    begin_worker()
    cv2.setNumThreads(1)


def _check_same(file: Path, preset: str, seed: int) -> None:
    facts = read_object(file)
    got = (facts.get("preset"), facts.get("seed"), facts.get("version"))
    if got != (preset, seed, VERSION):
        raise ValueError(f"{file}: this folder holds preset {got[0]!r}, seed {got[1]}, version {got[2]}, wanted "
                         f"{preset!r}, seed {seed}, version {VERSION} -> name another folder, or delete this one")


def _video_path(root: Path, split: str, uid: str) -> Path:
    return root / ("heldout/videos" if split == "test" else "videos") / f"{uid}.mp4"


def _piece_path(root: Path, split: str, number: int) -> Path:
    """The tables of one clip, until those of all clips are put together."""
    return root / ".pieces" / f"{split}-{number:04d}.npz"


# ---- one clip

def _render_clip(root: Path, preset: WorldPreset, seed: int, split: str, number: int) -> None:
    """Plan, draw and write one clip. Its tables are written last: they say that the clip is finished."""
    clip = plan_clip(preset, seed, split, number)
    video = _video_path(root, split, clip.uid)
    with writing_path(video) as part:
        write_mp4(part, draw_clip(clip), preset.size, preset.crf)
    extra = {"annotation": np.array(json.dumps(clip.annotation)), "frames": np.array(clip.frames),
             "sha256": np.array(sha256_of(video))}
    if split == "test":
        extra["unique_id"] = _write_test_crops(root, clip, video)
    write_arrays(_piece_path(root, split, number), {**{f"truth_{k}": v for k, v in clip.truth.items()},
                                                    **{f"priors_{k}": v for k, v in clip.priors.items()}, **extra})


def _write_test_crops(root: Path, clip: PlannedClip, video: Path) -> np.ndarray:
    """Crops of a held-out clip in the challenge's form; returns the unique id of each row."""
    rng = generator(clip.world_seed, "test", int(clip.truth["identity"][0]), 0)
    frame, track = clip.truth["frame"], clip.truth["track"]
    unique = np.array([random_name(rng, 16) for _ in frame])
    with writing_folder(root / "videos_challenge" / clip.uid, replace=True) as folder:
        for name in np.unique(track):
            (folder / name).mkdir()
        for number, picture in frames_in_order(video.resolve(), np.unique(frame).tolist()):
            for row in np.flatnonzero(frame == number):
                crop = square_crop(picture, clip.crop_box[row], PUBLISHED_SIZE)
                (folder / str(track[row]) / f"{number:05d}_{unique[row]}.jpg").write_bytes(encode(crop))
    return unique


def square_crop(picture: np.ndarray, box: np.ndarray, size: int) -> np.ndarray:
    """The picture inside a box (x1, y1, x2, y2), stretched to size x size; averaged where it shrinks to below half."""
    face = cut_face(picture, box)
    assert face is not None, box
    shrinks = max(face.shape[:2]) > 2 * size
    return cv2.resize(face, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


# ---- the files of the whole world

def _finish(root: Path, preset: WorldPreset, seed: int, clips: list[tuple[str, int]]) -> None:
    """Put the tables of all clips together into the files of the world; world.json last."""
    facts: dict[str, Any] = {}
    manifest: list[list[Any]] = []
    for split in SPLITS[:3]:
        pieces = [read_arrays(_piece_path(root, name, number)) for name, number in clips if name == split]
        tables = {kind: {k: np.concatenate([p[f"{kind}_{k}"] for p in pieces]) for k in keys}
                  for kind, keys in (("truth", TRUTH), ("priors", PRIORS))}
        for kind, table in tables.items():
            write_arrays(root / kind / f"{split}.npz", table)
        truth = tables["truth"]
        annotations = [json.loads(str(p["annotation"])) for p in pieces]
        for clip, p in zip(annotations, pieces, strict=True):
            path = _video_path(root, split, clip["clip_uid"]).relative_to(root).as_posix()
            manifest.append([clip["clip_uid"], clip["video_uid"], split, path, int(p["frames"]), FPS, *preset.size,
                             str(p["sha256"])])
        facts[split] = {"clips": len(pieces), "frames": int(sum(p["frames"] for p in pieces)),
                        "faces": len(truth["label"]), "tracks": len(np.unique(truth["track"])),
                        "identities": len(np.unique(truth["identity"])),
                        "looking": round(float(truth["label"].mean()), 4)}
        if split == "test":
            unique = np.concatenate([p["unique_id"] for p in pieces])
            columns = truth["clip"], truth["track"], truth["frame"], unique, truth["label"]
            _write_csv(root / "truth" / "test_labels.csv", ["video_id", "track_id", "frame", "unique_id", "label"],
                       zip(*columns, strict=True))
            continue
        with writing(root / "json" / f"av_{split}.json") as file:
            file.write(json.dumps({
                "date": "220104", "version": "v1",
                "description": f"embedded world, preset {preset.name}, seed {seed}",
                "videos": [{"video_uid": clip["video_uid"], "split": split, "clips": [clip]} for clip in annotations]}))
        with writing(root / "split" / f"{split}.list") as file:
            file.writelines(f"{clip['clip_uid']}\n" for clip in annotations)
    _write_csv(root / "csv" / "manifest.csv",
               ["clip_uid", "video_uid", "split", "path", "frames", "fps", "width", "height", "sha256"], manifest)
    with writing_path(root / "contact_sheet.png") as part:
        part.write_bytes(cv2.imencode(".png", cv2.cvtColor(_contact_sheet(root), cv2.COLOR_RGB2BGR))[1].tobytes())
    write_json(root / "world.json", {
        "preset": preset.name, "seed": seed, "version": VERSION, "width": preset.size[0], "height": preset.size[1],
        "fps": FPS, "radius": RADIUS, "boxes": preset.box_rules, **facts, "complete": True}, indent=2)
    shutil.rmtree(root / ".pieces")


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Iterable[Any]]) -> None:
    with writing(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def _contact_sheet(root: Path, clips: int = 6) -> np.ndarray:
    """Frames and windows of a world's training split, uint8 [H, W, 3]: green looks at the wearer, red does not.

    Above: one frame of each of the first clips with its boxes. Below: windows of seven crops of 96 pixels.
    """
    truth = read_arrays(root / "truth" / "train.npz", ("clip", "track", "frame", "box", "label"))
    frames, strips = [], []
    names = list(dict.fromkeys(truth["clip"].tolist()))[:clips]
    for name in names:
        rows = np.flatnonzero(truth["clip"] == name)
        windows = _some_windows(rows, truth["track"][rows], -(-24 // len(names)))
        if not windows:
            continue
        frame = int(truth["frame"][windows[len(windows) // 2][3]])
        shown = np.concatenate(windows)
        crops: dict[int, np.ndarray] = {}
        for number, picture in frames_in_order(_video_path(root, "train", name).resolve(),
                                               np.unique([*truth["frame"][shown], frame]).tolist()):
            for row in shown[truth["frame"][shown] == number].tolist():
                crop = square_crop(picture, truth["box"][row].clip(0, [picture.shape[1], picture.shape[0]] * 2), 92)
                crops[row] = cv2.copyMakeBorder(crop, 2, 2, 2, 2, cv2.BORDER_CONSTANT,
                                                value=BORDER[int(truth["label"][row])])
            if number == frame:
                picture = picture.copy()
                for row in rows[truth["frame"][rows] == number]:
                    x0, y0, x1, y1 = truth["box"][row].round().astype(int).tolist()
                    cv2.rectangle(picture, (x0, y0), (x1, y1), BORDER[int(truth["label"][row])], 1)
                frames.append(cv2.resize(picture, (448, 252), interpolation=cv2.INTER_AREA))
        strips += [np.concatenate([crops[row] for row in window], 1) for window in windows]
    frames += [np.full((252, 448, 3), 32, np.uint8)] * (-len(frames) % 3)
    strips = strips[:24] + [np.full((96, 672, 3), 32, np.uint8)] * (len(strips[:24]) % 2)
    above = [np.concatenate(frames[i:i + 3], 1) for i in range(0, len(frames), 3)]
    below = [np.concatenate(strips[i:i + 2], 1) for i in range(0, len(strips), 2)]
    return np.concatenate(above + below, 0)


def _some_windows(rows: np.ndarray, track: np.ndarray, count: int) -> list[np.ndarray]:
    """The middle seven rows of about `count` tracks, spread over a clip; tracks of fewer rows are left out."""
    tracks = [rows[track == name] for name in dict.fromkeys(track.tolist())]
    tracks = [own for own in tracks if len(own) >= 7]
    return [own[len(own) // 2 - 3:len(own) // 2 + 4] for own in tracks[::max(1, len(tracks) // count)]]
