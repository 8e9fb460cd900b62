"""What is taken from the configuration of a checkpoint or a run: everything if it was written here.

Of a copy from elsewhere, scoring takes the model, the crop and the window rules; training also its numbers. What names
paths, workers, machines or trackers is not used.
"""

import math
import os
import stat
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from gazepose.data.index import Index
from gazepose.manifest import is_written_here
from gazepose.text import printable
from gazepose.training.run_config import fingerprints_of

SCORING = {"prepare": ("policy", "rule", "crop_size"),
           "data": ("data", "preset", "val_stride", "test_stride", "gaussian_drop", "quality_scale", "quality_from")}
"""what is used of a copy, by section; `data` only where `check_data` accepts it"""
NOT_RESUMED = {"prepare": ("decoder", "data_disk", "max_bad_fraction"), "data": ("data", "num_workers"),
               "run": ("checkpoint", "pretrained", "log_with", "compile")}
"""what a training does not take from a copied run, by section"""
MAX_RECORD = 16 << 20            # bytes of a JSON file of a copied run
DATA = Path("data")              # the default data, relative to the current directory
FITS = {"quality_fit": 2, "head_pose_fit": None, "face_heights": 2}
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


def allows_unknown_priors(trained: Mapping[str, Any]) -> bool:
    """Whether a checkpoint was trained with --allow_unknown_priors. `trained`: its config.json."""
    run = trained.get("run")
    return isinstance(run, dict) and run.get("allow_unknown_priors") is True


def is_own_run(run: Path) -> bool:
    """Whether a run was started or resumed here, and has not been copied or moved to another disk since."""
    steps = [step for name in ("checkpoints", "best") if not (run / name).is_symlink()
             for step in (run / name).glob("step-*") if not step.is_symlink()]
    return any(map(is_written_here, (run, *steps)))


def check_copy(run: Path) -> None:
    """Check that a copied run holds nothing but folders and files, and no JSON file of absurd size.

    Raises:
        ValueError: naming the first link, pipe, device or file that is otherwise.
    """
    copied = f"and {run} was copied or moved here"
    for folder, folders, files in os.walk(run):
        for path in (Path(folder, name) for name in (*folders, *files)):
            facts = path.lstat()
            if stat.S_ISLNK(facts.st_mode):
                raise ValueError(f"{path}: is a link, {copied} -> put what it leads to in its place, or remove it")
            if not stat.S_ISDIR(facts.st_mode) and not stat.S_ISREG(facts.st_mode):
                raise ValueError(f"{path}: is a pipe or a device, {copied} -> remove it")
            if path.suffix == ".json" and facts.st_size > MAX_RECORD:
                raise ValueError(f"{path}: {facts.st_size >> 20} MiB, {copied}; its records have at most "
                                 f"{MAX_RECORD >> 20} MiB -> copy it again")


def of_copy(sections: Mapping[str, Any], record: Mapping[str, Any], file: Path, resume: bool, data: Path | None
            ) -> dict[str, Any]:
    """The flags that a training takes from a copied configuration: defaults in place of NOT_RESUMED. Prints those.

    Args:
        sections: its flags by section, dataclasses; record: the whole content of `file`.
        resume: its run is resumed. data: the data set that was given.

    Raises:
        ValueError: its data set is not used, and no other is given; or it has nothing to resume.
    """
    run, left_out, used = file.parent, [], dict(sections)
    for section, names in NOT_RESUMED.items():
        flags = sections[section]
        default = type(flags)()
        left_out += [f"--{name}" + (f" {value}" if value is not True else "") for name in names
                     if (value := getattr(flags, name)) != getattr(default, name)]
        used[section] = replace(flags, **{name: getattr(default, name) for name in names})
    if left_out and os.environ.get("RANK", "0") == "0":
        print(printable(f"{file}: was copied or moved here, so the places, workers, machine settings and trackers in "
                        f"it are not used -> give those that you want again: {' '.join(left_out):.500}"),
              file=sys.stderr)
    if resume and not any((run / "checkpoints").glob("step-*")):
        raise ValueError(f"{run}: was copied or moved here and has no checkpoint, so there is nothing to resume -> "
                         f"start a new run with its flags: --config {run}")
    check_data(data, {**record, "written_here": False}, file)
    return used


def origin_of(index: Index, root: Path, trained: Mapping[str, Any], same_rules: bool) -> str:
    """Whether a split is of the data set that a checkpoint was trained on: "own", also where it has moved; "rules", by
    other rules, out of other pictures; or "other". A published file was trained on Ego4D, which lies in data/.

    Args:
        trained: the checkpoint's config.json. same_rules: of annotations and pictures, as in the training.
    """
    fingerprint, place = trained.get("fingerprint"), trained.get("root")
    if isinstance(fingerprint, dict) and fingerprint.get(index.facts["split"]) in fingerprints_of(index):
        return "own"
    if place is None and fingerprint is None:
        return "rules" if root.resolve() == DATA.resolve() else "other"
    if place is None or Path(str(place)).resolve() != root.resolve():
        return "other"
    return "own" if same_rules else "rules"


def usual_stride(split: str, data: Any, origin: str, embedded: bool) -> tuple[int, str]:
    """The stride of a split if none is given, and why. Own videos of a user, with a table or in the layout of Ego4D,
    are the data that a checkpoint was not trained on: every face of them is scored.

    Args:
        data: DataConfig of the checkpoint. origin: as of `origin_of`. embedded: the data are an embedded world.
    """
    if split == "test":
        return data.test_stride, "that of the checkpoint for test"
    if embedded or origin != "other":
        return data.val_stride, f"that of the checkpoint for {'an embedded world' if embedded else 'its data set'}"
    return 1, "every face, because the checkpoint was not trained on this data set"
