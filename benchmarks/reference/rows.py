"""Rows as tuples and dictionaries, one Python object after another."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def read_rows(path: Path) -> tuple[list[tuple[str, str, int, int]], dict[str, list[float]], dict[str, int]]:
    """av_train.json as Python objects: (clip, track, frame, label) of every face, and two dictionaries by
    "clip:track:frame", its box and its place in the list."""
    with open(path) as file:
        document = json.load(file)
    rows: list[tuple[str, str, int, int]] = []
    boxes: dict[str, list[float]] = {}
    places: dict[str, int] = {}
    for video in document["videos"]:
        for clip in video["clips"]:
            looking = [(segment["person"], segment["start_frame"], segment["end_frame"])
                       for segment in clip["social_segments_looking"]]
            for person in clip["persons"]:
                if person.get("camera_wearer"):
                    continue
                spans = [(start, end) for name, start, end in looking if name == person["person_id"]]
                for track in person["tracking_paths"]:
                    for record in track["track"]:
                        frame = record["frame"]
                        key = f"{clip['clip_uid']}:{track['track_id']}:{frame}"
                        boxes[key] = [record["x"], record["y"], record["x"] + record["width"],
                                      record["y"] + record["height"]]
                        places[key] = len(rows)
                        label = int(any(start <= frame < end for start, end in spans))
                        rows.append((clip["clip_uid"], track["track_id"], frame, label))
    return rows, boxes, places


def read_priors(rows: Sequence[tuple[str, str, int, int]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Head pose and landmarks as nested dictionaries clip -> track -> frame, as the prior files' JSON reads."""
    pose: dict[str, Any] = {}
    landmarks: dict[str, Any] = {}
    for number, (clip, track, frame, _) in enumerate(rows):
        value = number * 1e-6
        pose.setdefault(clip, {}).setdefault(track, {})[str(frame)] = [value + 1, value + 2, value + 3]
        landmarks.setdefault(clip, {}).setdefault(track, {})[str(frame)] = {
            str(point): {"x": value + point, "y": value - point, "z": value * point, "visibility": value / (point + 1)}
            for point in range(5)}
    return pose, landmarks
