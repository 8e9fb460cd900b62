"""Is a person in an egocentric video looking at the camera wearer? GazePose and its baselines.

`gazepose.load` is the way in (api.py). Names are imported when they are first used, because torch takes seconds.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gazepose.api import Scorer, Watched, load
    from gazepose.watch.bouts import LookRules
    from gazepose.watch.live import Face, Watcher
    from gazepose.watch.live_looks import Event

__all__ = ["Event", "Face", "LookRules", "Scorer", "Watched", "Watcher", "load"]
__version__ = "0.2.0"

FILES = {"load": "api", "Scorer": "api", "Watched": "api", "Watcher": "watch.live", "Face": "watch.live",
         "Event": "watch.live_looks", "LookRules": "watch.bouts"}


def __getattr__(name: str) -> Any:
    if name not in FILES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{FILES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*__all__, *(name for name in globals() if name.startswith("__"))])
