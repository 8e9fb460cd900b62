"""One file per face; a window is seven float copies of pixels, made one by one on the CPU."""

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import transforms

from benchmarks.reference.pictures import SIZE
from gazepose.training.augment import MEAN, STD

REACH = 3


class FaceWindows(Dataset):
    """Windows [7, 3, 224, 224] float, from <folder>/<clip>/<track>/face_%05d.jpg, with the label.

    In training a window is flipped half of the time and each of its frames is cut at random, as published. A frame
    that is not there is replaced by the centre.
    """

    def __init__(self, folder: Path, rows: Sequence[tuple[str, str, int, int]], train: bool) -> None:
        self.folder, self.rows, self.train = folder, list(rows), train
        steps = [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
        cut = transforms.RandomResizedCrop(SIZE, scale=(0.8, 1.0)) if train else transforms.Resize((SIZE, SIZE))
        self.transform = transforms.Compose([cut, *steps])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> tuple[Tensor, int]:
        clip, track, frame, label = self.rows[place]
        flip = self.train and torch.rand(()).item() < 0.5
        pictures = []
        for number in range(frame - REACH, frame + REACH + 1):
            path = self.folder / clip / track / f"face_{number:05d}.jpg"
            if not path.exists():
                path = path.with_name(f"face_{frame:05d}.jpg")
            with Image.open(path) as file:
                picture = file.convert("RGB")
            pictures.append(self.transform(picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else picture))
        return torch.stack(pictures), label


class ChallengeWindows(FaceWindows):
    """Windows of test crops <folder>/<clip>/<track>/<frame>_<unique id>.jpg, whose names are only known to begin with
    the frame's number: each is looked for in the list of its folder."""

    def __getitem__(self, place: int) -> tuple[Tensor, int]:
        clip, track, frame, label = self.rows[place]
        folder, pictures = self.folder / clip / track, []
        for number in range(frame - REACH, frame + REACH + 1):
            named = [name for name in (path.name for path in folder.iterdir()) if f"{number:05d}" in name]
            named = named or [path.name for path in folder.iterdir() if f"{frame:05d}" in path.name]
            with Image.open(folder / named[0]) as file:
                pictures.append(self.transform(file.convert("RGB")))
        return torch.stack(pictures), label
