"""Every frame of a video to JPEG, then every face to a file of its own."""

from pathlib import Path
from typing import Any

import cv2

SIZE = 224

def extract_frames(video: Path, folder: Path) -> int:
    """First pass: every frame of a video to img_%05d.jpg, numbered from 1; how many."""
    folder.mkdir(parents=True, exist_ok=True)
    capture, count = cv2.VideoCapture(str(video)), 0
    while True:
        there, picture = capture.read()
        if not there:
            break
        count += 1
        cv2.imwrite(str(folder / f"img_{count:05d}.jpg"), picture)
    capture.release()
    return count


def crop_faces(frames: Path, annotated: dict[str, Any], out: Path, by_picture: bool = False) -> int:
    """Second pass: every face to <out>/<track>/face_%05d.jpg at 224 x 224; how many.

    Args:
        annotated: a clip of av_train.json.
        by_picture: read a picture once for all its faces, instead of following one track after another.
    """
    faces = [(path["track_id"], record) for person in annotated["persons"] for path in person["tracking_paths"]
             for record in path["track"]]
    if by_picture:
        faces.sort(key=lambda face: face[1]["frame"])
    for track in {track for track, _ in faces}:
        (out / track).mkdir(parents=True, exist_ok=True)
    shown, picture, count = None, None, 0
    for track, record in faces:
        number = record["frame"] + 1
        if not by_picture or number != shown:
            shown, picture = number, cv2.imread(str(frames / f"img_{number:05d}.jpg"))
        if picture is None:
            continue
        x, y = max(int(record["x"]), 0), max(int(record["y"]), 0)
        face = picture[y:int(record["y"] + record["height"]), x:int(record["x"] + record["width"])]
        if face.size:
            cv2.imwrite(str(out / track / f"face_{number:05d}.jpg"), cv2.resize(face, (SIZE, SIZE)))
            count += 1
    return count
