"""The videos of listed clips: there, whole, openable, at the rate of the annotation? By headers and first picture."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from gazepose.data.tracks import MAX_FRAME
from gazepose.data.video import VideoFacts, container_of, find_video, look_at
from gazepose.doctor.checks import Findings

FPS = 30


def look_at_video(root: Path, split: str, uid: str, findings: Findings, any_rate: bool = False) -> VideoFacts | None:
    """Facts of the clip's video in DATA/videos; None, and found, where preparation could not use it.

    Args:
        any_rate: frames are numbered as they are decoded, so that none is expected.
    """
    path, place = find_video(root / "videos", uid), {"split": split, "clip": uid}
    try:
        facts, whole = look_at(path)
    except FileNotFoundError:
        findings.add("video_missing", **place)
        return None
    except (ValueError, OSError) as error:
        findings.add("video_unreadable", **place, detail=str(error).removeprefix(f"{path}: "))
        return None
    if whole < facts.frames:
        findings.add("video_cut_short", **place, detail=f"{whole} of {facts.frames} frames are there")
        if container_of(str(path)) == "mov":
            return None
        facts = replace(facts, frames=whole)                           # the decoders end there without complaint
    if not any_rate and abs(facts.fps - FPS) > 0.1:
        findings.add("video_rate", **place, detail=f"{facts.fps:.3f} frames a second")
    return facts


def compare_length(video: VideoFacts, annotated: dict[str, Any], split: str, uid: str, findings: Findings) -> None:
    """Against the seconds that the annotation gives; one frame is a matter of rounding."""
    span = [annotated.get(name) for name in ("video_start_sec", "video_end_sec")]
    start, end = (seconds if isinstance(seconds, int | float) and abs(seconds) < MAX_FRAME else None
                  for seconds in span)
    if start is not None and end is not None:
        stated = round((end - start) * (video.fps or FPS))
        findings.add("video_short", video.frames < stated - 1, split=split, clip=uid,
                     detail=f"{video.frames} of {stated} frames")
