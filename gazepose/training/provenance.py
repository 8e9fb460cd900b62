"""What scoring takes from a checkpoint's configuration: everything if the checkpoint was written here.

Of a copy from elsewhere: the model, the crop and the window rules. What names paths, workers or machines is not used.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gazepose.manifest import is_written_here

SCORING = {"prepare": ("policy", "rule", "crop_size"),
           "data": ("data", "preset", "val_stride", "test_stride", "gaussian_drop", "quality_scale", "quality_from")}
"""what is used of a copy, by section; `data` only where `check_data` accepts it"""
DATA = Path("data")              # the default data, relative to the current directory
FITS = {"quality_fit": 2, "head_pose_fit": None}
"""lists of finite numbers, and how many"""


def for_scoring(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Check a checkpoint's configuration and reduce it to what scoring may use.

    Returns:
        The configuration; of a copy, SCORING of its sections prepare and data. written_here is False for a copy.

    Raises:
        ValueError: naming the first value that is not of its kind.
    """
    own, path = is_written_here(folder), folder / "config.json"
    reduced: dict[str, Any] = {**config, "model": config.get("model"), "written_here": own}
    for section, names in SCORING.items():
        content = config.get(section, {})
        if isinstance(content, dict) and not own:
            content = {name: content[name] for name in names if name in content}
        reduced[section] = content               # of another kind: from_json names it
    for name, count in FITS.items():
        fit = reduced[name] = config.get(name)
        wrong = not isinstance(fit, list) or len(fit) != (count or len(fit)) or not all(
            type(number) is float and math.isfinite(number) for number in fit)
        if fit is not None and wrong:
            raise ValueError(f"{path}: {name} {fit!r:.80} is not a list of finite numbers -> use another checkpoint")
    return reduced


def check_data(given: Path | None, trained: Mapping[str, Any], start: Path) -> None:
    """Refuse the data set that a copy names, unless it is the default one, or another is given.

    Args:
        trained: as `for_scoring` returns it.
        start: the checkpoint, for the message.

    Raises:
        ValueError: as above.
    """
    places = [place for place in (trained["data"].get("data"), trained.get("root")) if place is not None]
    if given is not None or trained.get("written_here", True):
        return
    for place in places:
        if not isinstance(place, str) or not Path(place).resolve().is_relative_to(DATA.resolve()):
            raise ValueError(f"{start}: was copied or moved here, so the data set in its configuration "
                             f"({place!s:.140}) is not used -> name the data set with --data")
