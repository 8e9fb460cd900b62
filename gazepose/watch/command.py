"""The way through of `python -m gazepose watch`: videos and pictures in, one folder out.

jobs.py finds, follows and reads the faces of each video; outputs.py writes what comes of it.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from gazepose.data.video_times import is_still, stated_seconds
from gazepose.io import lock, sha256_of
from gazepose.watch.config import DETECT_SECONDS, LANDMARKS, WatchConfig
from gazepose.watch.jobs import Pass, digests, find_models
from gazepose.watch.many import run_all
from gazepose.watch.results import PARTS, Results
from gazepose.watch.sources import name_scorers, name_sources, read_own_boxes


def watch(sources: Sequence[Path], out: Path, config: WatchConfig = WatchConfig(),       # noqa: B008
          notify: Callable[[str], None] = print) -> dict[str, str]:
    """Watch videos and pictures, and write the folder `out`. Run again, it goes on where it was stopped.

    Returns:
        Why videos could not be watched, by name; the others are in the folder.

    Raises:
        FileNotFoundError: a source, a model file or a table does not exist. ValueError: no source, or none that can be
            watched; a setting, or what is in `out`, does not fit. FileExistsError: `out` has other files of these
            names. BlockingIOError: another command works in `out`.
    """
    videos, scorers = name_sources(sources, notify), name_scorers(config.scorer, LANDMARKS)
    models = find_models()
    runs = {name: path for name, path in scorers.items() if path is not None}
    own = None if config.boxes is None else read_own_boxes(
        config.boxes, videos, config.boxes_format, config.first_number, notify)
    plan = {"videos": {name: path.name for name, path in videos.items()}, "scorers": list(scorers),
            "causal": config.causal, "detector_size": config.detector_size,
            "boxes": None if config.boxes is None else [sha256_of(config.boxes), config.boxes_format,
                                                        config.first_number],
            "models": digests(models), "runs": digests(runs)}
    results = Results(out, plan, config.replace)
    held = lock(out / PARTS / ".lock")
    try:
        results.begin(names_of_files(videos, config))
        jobs = [Pass(name, path, (out / PARTS).absolute(), models, runs, config.detector_size,
                     0.0 if config.causal else DETECT_SECONDS, config.causal, own[name][1] if own else None)
                for name, path in videos.items()]
        lengths = {name: _stated(path) for name, path in videos.items()}
        passes = run_all("watching", jobs, lengths, config.jobs, notify)
        from gazepose.watch.outputs import Writer
        return Writer(results, config, notify).write(videos, passes, list(scorers), own)
    finally:
        held.release()


def _stated(path: Path) -> float:
    try:
        return stated_seconds(path)
    except (ValueError, OSError, ImportError):                         # the pass says what is wrong
        return 0.0


def names_of_files(videos: Mapping[str, Path], config: WatchConfig) -> list[str]:
    """Files of the folder that are written whatever is in the videos."""
    names = ["faces.csv", "looks.csv", "people.csv", "watch.html", "boxes/val.csv"]
    if not config.video:
        return names
    return names + [f"{name}.watched.{'jpg' if is_still(path) else 'mp4'}" for name, path in videos.items()]
