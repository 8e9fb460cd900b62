"""Slow drills of bad input, in processes that are watched: fuzzed videos, many clips, a full disk, little memory.

DRILL_SCALE=0.02 makes each as much smaller.
"""

import gc
import json
import multiprocessing
import os
import random
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TESTS))

from making import VIDEOS, clip_of, data_set, number_in, prepare, prepared_index, write_video  # noqa: E402
from test_annotations import document  # noqa: E402
from test_bad_values import spoilt  # noqa: E402
from torch import nn  # noqa: E402

from gazepose.data import annotations, video  # noqa: E402
from gazepose.data import prepare as prepare_module  # noqa: E402
from gazepose.data.tracks import POLICIES  # noqa: E402
from gazepose.training import checkpoint  # noqa: E402

pytestmark = pytest.mark.drill
SCALE = float(os.environ.get("DRILL_SCALE", 1))


def size(whole: int) -> int:
    return max(1, round(whole * SCALE))


def fuzzed(whole: dict[str, bytes], folder: Path, seed: int) -> Path:
    """A video damaged in some places, more often near its head; one in eight is cut short too."""
    chance = random.Random(seed)
    name = chance.choice(sorted(whole))
    content = bytearray(whole[name])
    for _ in range(chance.choice([1, 1, 4, 64])):
        at = chance.randrange(len(content) if chance.randrange(3) else min(len(content), 2048))
        kind = chance.randrange(4)
        if kind == 0:
            content[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            content[at:at + 8] = chance.randbytes(8)
        elif kind == 2:
            content[at:at + chance.randrange(64)] = chance.randbytes(chance.randrange(64))
        else:
            content[at:at + 4] = chance.choice([bytes(4), b"\xff" * 4, b"\x7f\xff\xff\xff", b"\0\0\0\1"])
    path = folder / f"{seed}{Path(name).suffix}"
    path.write_bytes(content[: chance.randrange(len(content))] if chance.randrange(8) == 0 else content)
    return path


def test_fuzzed_videos_end_neither_in_a_crash_nor_in_a_hang(tmp_path, monkeypatch, figure):
    """Through the processes of preparation, which outlive a decoder that takes its process along."""
    for folder in ("fuzzed", "clips"):
        (tmp_path / folder).mkdir()
    whole = {name: write_video(tmp_path / name, 20, **options).read_bytes() for name, options in VIDEOS.items()}
    count, outcomes, faults, died = size(5_000), Counter(), Counter(), []
    alone = prepare_module._alone
    monkeypatch.setattr(prepare_module, "_alone", lambda clip: (died.append(clip.uid), alone(clip)))
    for began in range(0, count, 250):
        paths = [fuzzed(whole, tmp_path / "fuzzed", seed) for seed in range(began, min(began + 250, count))]
        clips = [clip_of(path, tmp_path / "clips", list(range(20))) for path in paths]
        try:
            assert len(list(prepare_module._in_processes(clips, 2))) == len(clips)
        except Exception as error:
            faults[f"{type(error).__name__}: {error}"[:200]] += 1
        for clip in clips:
            outcomes["refused" if clip.bad.exists() else "read" if clip.table.exists() else "lost"] += 1
        for path in (tmp_path / "fuzzed", tmp_path / "clips"):
            for entry in path.iterdir():
                entry.unlink()
    met = not faults and not outcomes["lost"]
    assert outcomes["refused"] > count // 10 and outcomes["read"] > count // 50      # the damage was felt
    figure("fuzzed videos refused, read, lost", [outcomes[name] for name in ("refused", "read", "lost")], "0 lost")
    figure("tried again since a process died", len(died))
    figure("uncaught", dict(faults) or 0, 0)
    assert met, faults


def open_many(folder: Path, count: int, decoder: str, out: Path) -> None:
    paths = sorted(folder.glob("*.mp4"))
    for path in paths * 20:                                            # libraries and the allocator settle
        list(video.frames_in_order(path, [0, 5], decoder))
    before, descriptors = video._memory(), len(os.listdir("/proc/self/fd"))
    for number in range(count):
        list(video.frames_in_order(paths[number % len(paths)], [0, 5], decoder))
    out.write_text(json.dumps([video._memory() - before, len(os.listdir("/proc/self/fd")) - descriptors]))


# PyAV keeps 2 to 3 KB of a clip whose decoding ends before the clip does, whatever is closed or flushed
A_CLIP = {"decord": 1024, "pyav": 4096}


@pytest.mark.parametrize("decoder", video.DECODERS)
def test_many_clips_opened_leave_neither_memory_nor_descriptors(tmp_path, decoder, figure):
    for number in range(5):
        write_video(tmp_path / f"{number}.mp4", 12)
    count, out = size(10_000), tmp_path / "out"
    assert watched_long(open_many, tmp_path, count, decoder, out) == "ended"
    grown, descriptors = json.loads(out.read_text())
    a_clip = grown / count
    met = a_clip <= A_CLIP[decoder] and descriptors == 0
    figure(f"bytes a clip, {count} clips, {decoder}", round(a_clip), f"<= {A_CLIP[decoder]}")
    figure("descriptors left open", descriptors, 0)
    assert met or SCALE < 1                                            # a page more or less is much for few clips


def watched_long(work: Callable[..., None], *arguments: Any) -> str:
    child = multiprocessing.get_context("spawn").Process(target=work, args=arguments)
    child.start()
    child.join(1800)
    if child.is_alive():
        child.kill()
    return "ended" if child.exitcode == 0 else f"exit {child.exitcode}"


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own, of one megabyte."""
    if os.geteuid() != 0:
        pytest.skip("a file system is mounted by root only")
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True,
                          text=True)
    if done.returncode:
        pytest.skip(f"tmpfs cannot be mounted here: {done.stderr.strip()}")
    yield folder
    gc.collect()                                                       # an index may still be open
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_preparing_on_a_full_disk_says_so_and_goes_on_when_there_is_room(tmp_path, small_disk, figure):
    clips = {f"c{number}": [("t", list(range(1, 60)))] for number in range(6)}
    root = data_set(tmp_path / "data", clips, frames=60)
    (root / "prepared").symlink_to(small_disk)
    subprocess.run(["mount", "-o", "remount,size=512k", str(small_disk)], check=True)     # the crops take 0.8 MB
    with pytest.raises(OSError, match="No space left on device") as full:
        prepare(root, "train", crop_size=224)
    whole = [path for path in small_disk.rglob("index.json")]
    intact = len(list(small_disk.rglob("*.npz")))
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    index = prepared_index(root, crop_size=224)
    index.verify()
    right = sum(number_in(index.crop(row)) == index.frame[row] for row in range(len(index)))
    met = not whole and full.value.errno == 28 and right == len(index) == 6 * 59
    figure("indexes on a full disk; finished clips kept", f"{len(whole)}; {intact}", "0; some")
    figure("right crops once there is room", int(right), 6 * 59)
    assert met


def test_saving_on_a_full_disk_says_so_and_keeps_the_old_checkpoint(small_disk, figure):
    model, intact = nn.Linear(300, 300), 0
    folder = small_disk / "best"
    checkpoint.save_weights(folder, model, {})
    old = {path.name: path.read_bytes() for path in folder.iterdir()}
    tries = size(50)
    for _ in range(tries):
        big = nn.Linear(1000, 1000)
        with pytest.raises(Exception, match="(?i)no space|os error 28"):
            checkpoint.save_weights(folder, big, {})
        checkpoint.verify(folder)
        intact += {path.name: path.read_bytes() for path in folder.iterdir()} == old
    assert [path.name for path in small_disk.iterdir()] == ["best"]    # nothing half written is left
    checkpoint.load_weights(folder, model)
    figure("old checkpoint whole after a save on a full disk", f"{intact}/{tries}", f"{tries}/{tries}")
    assert intact == tries


def read_spoilt(count: int, limit: int, out: Path) -> None:
    """Spoilt annotations as files, under a cap on memory."""
    path, done, faults = out.with_suffix(".av.json"), 0, Counter()
    used = video._memory()
    resource.setrlimit(resource.RLIMIT_AS, (limit + _virtual(), limit + _virtual()))
    chance = random.Random(0)
    for _ in range(count):
        content = document()
        for _ in range(chance.randint(1, 4)):
            content = spoilt(content, chance)
        text = json.dumps(content).encode()
        if chance.randrange(4) == 0:
            at = chance.randrange(len(text))
            trap = chance.choice([b"", b"NaN", b"1e999", b"[" * 5000, b"9" * 5000, b'{"a":1,"a":2}'])
            text = text[:at] + trap + text[at:]
        path.write_bytes(text)
        try:
            for policy in POLICIES.values():
                annotations.read_clips(path, ["c"], policy)
            done += 1
        except ValueError as error:
            done += "->" in str(error) or str(path) in str(error)
        except BaseException as error:
            faults[type(error).__name__] += 1
    out.write_text(json.dumps([done, dict(faults), video._memory() - used]))


def _virtual() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def test_spoilt_annotations_are_read_within_a_cap_on_memory(tmp_path, figure):
    count, out, limit = size(100_000), tmp_path / "out", 256 << 20
    began = time.monotonic()
    assert watched_long(read_spoilt, count, limit, out) == "ended"
    done, faults, grown = json.loads(out.read_text())
    met = done == count and not faults
    figure("spoilt annotations read or refused by name, under a cap of 256 MiB", f"{done}/{count}", f"{count}/{count}")
    figure("uncaught; grown MiB; seconds", f"{faults or 0}; {grown >> 20}; {time.monotonic() - began:.0f}", "0; ;")
    assert met, faults
