"""The contact sheet: a world at a glance."""

from pathlib import Path

import cv2
import numpy as np

from gazepose.data.video import frames_in_order
from gazepose.synthetic.draw import cut_face
from gazepose.synthetic.files import video_path


def contact_sheet(root: Path, split: str = "train", videos: int = 6) -> np.ndarray:
    """Frames and windows of a world at a glance, uint8 [H, W, 3]: green looks at the wearer, red does not.

    Above: one frame of each of the first clips with its boxes. Below: runs of seven crops of one track each, 96 pixels.
    """
    with np.load(root / "truth" / f"{split}.npz") as file:
        truth = {k: file[k] for k in ("clip", "track", "frame", "box", "label")}
    colours = {0: (200, 40, 40), 1: (40, 190, 70)}
    frames, strips = [], []
    names = list(dict.fromkeys(truth["clip"].tolist()))[:videos]
    for name in names:
        rows = np.flatnonzero(truth["clip"] == name)
        tracks = [t for t in dict.fromkeys(truth["track"][rows].tolist()) if (truth["track"][rows] == t).sum() >= 7]
        wanted = []                                               # a few tracks of each clip, spread over it
        for t in tracks[::max(1, len(tracks) // -(-24 // len(names)))]:
            of = rows[truth["track"][rows] == t]
            wanted.append(of[len(of) // 2 - 3:len(of) // 2 + 4])
        if not wanted:
            continue
        middle = int(truth["frame"][wanted[len(wanted) // 2][3]])
        together = np.concatenate(wanted)
        numbers = np.unique([*truth["frame"][together], middle]).tolist()
        crops: dict[int, np.ndarray] = {}
        for number, picture in frames_in_order(video_path(root, split, name).resolve(), numbers):
            for row in together[truth["frame"][together] == number].tolist():
                crop = cut_face(picture, truth["box"][row].clip(0, [picture.shape[1], picture.shape[0]] * 2), 92)
                crops[row] = cv2.copyMakeBorder(crop, 2, 2, 2, 2, cv2.BORDER_CONSTANT,
                                                value=colours[int(truth["label"][row])])
            if number == middle:
                picture = picture.copy()
                for row in rows[truth["frame"][rows] == number]:
                    x0, y0, x1, y1 = truth["box"][row].round().astype(int).tolist()
                    cv2.rectangle(picture, (x0, y0), (x1, y1), colours[int(truth["label"][row])], 1)
                frames.append(cv2.resize(picture, (448, 252), interpolation=cv2.INTER_AREA))
        strips += [np.concatenate([crops[row] for row in window], 1) for window in wanted]
    blank = np.full((252, 448, 3), 32, np.uint8)
    frames += [blank] * (-len(frames) % 3)
    top = [np.concatenate(frames[i:i + 3], 1) for i in range(0, len(frames), 3)]
    strips = strips[:24] + [np.full((96, 672, 3), 32, np.uint8)] * (len(strips[:24]) % 2)
    bottom = [np.concatenate(strips[i:i + 2], 1) for i in range(0, len(strips), 2)]
    return np.concatenate(top + bottom, 0)
