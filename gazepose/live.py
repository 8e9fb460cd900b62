"""The way through of `python -m gazepose live`: the pictures of a camera in, a line of JSON for each out."""

import json
import math
import os
import sys
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from gazepose.api import load
from gazepose.output import inform
from gazepose.processes import Preempted
from gazepose.startup import say
from gazepose.text import counted, printable
from gazepose.training.hub import is_on_hub
from gazepose.watch.config import LANDMARKS, LiveConfig
from gazepose.watch.live import Face
from gazepose.watch.live_looks import Event
from gazepose.watch.live_source import LiveSource

DELAYS = 10_000              # of the last pictures, for the line at the end
LEAST_RATE, SETTLED = 4, 5.0  # pictures a second, which people need to be followed; judged once, after so many seconds


def live(source: str, config: LiveConfig = LiveConfig()) -> None:                        # noqa: B008
    """Watch a camera until it ends, Ctrl-C, or the reader of standard output goes away.

    Raises:
        As LiveSource and api.load; FileNotFoundError: a model file is missing.
    """
    scorer = load(config.scorer)
    if is_on_hub(scorer.source):
        inform(printable(f"live: scored by {scorer.source}"), sys.stderr)
    watcher = scorer.stream(config.window, config.smooth, config.looks, config.detector_size)
    watcher.warm_up()                            # else people are lost in the first second
    delays: deque[float] = deque(maxlen=DELAYS)
    count, last, number, begun, judged = 0, -math.inf, -1, output(), False

    def end_looks() -> None:
        if events := watcher.close():
            write(line_of(last, number, [], events, camera.dropped, 0.0))

    with LiveSource(source, config.give_up, lambda line: say(printable(line))) as camera:
        try:
            for shown in camera:
                if shown is None:                # a look must not go on while nobody sees it
                    end_looks()
                    continue
                if shown.seconds - last < config.every - 1e-6:
                    continue
                count, last, number = count + 1, shown.seconds, shown.number
                faces = watcher.step(shown.picture, shown.seconds)
                delays.append(time.monotonic() - shown.came)
                write(line_of(last, number, faces, watcher.events, camera.dropped, delays[-1]))
                if not judged and last >= SETTLED:
                    judged = True
                    if count < LEAST_RATE * last:
                        say(f"live: {count / last:.1f} pictures a second: below {LEAST_RATE}, people get new names all "
                            f"the time{faster(config)}")
                if output() != begun:
                    break
        except Preempted:                        # Ctrl-C is how it ends
            pass
        finally:
            end_looks()
    spread = np.percentile(1000 * np.array(delays or [0.0]), [50, 95])
    inform(f"live: {counted(count, 'picture')} in {max(last, 0.0):.1f} s, {camera.dropped} dropped; from the camera to "
        f"the line {spread[0]:.0f} ms, 95 of 100 below {spread[1]:.0f} ms", sys.stderr)


def faster(config: LiveConfig) -> str:
    """What to do when too few pictures a second are used."""
    if config.every > 1 / LEAST_RATE:
        return f" -> give --every {1 / LEAST_RATE:g} or less"
    if config.scorer == LANDMARKS:
        return " -> use a faster machine, or fewer other programs"
    return " -> use a faster machine, fewer other programs, or --scorer landmarks"


def line_of(seconds: float, number: int, faces: Sequence[Face], events: Sequence[Event], dropped: int,
            delay: float) -> dict[str, Any]:
    """One line of output, as docs/live.md has it."""
    people = [{"person": face.person, "box": [round(side, 1) for side in face.box],
               "probability": None if math.isnan(face.probability) else round(face.probability, 4),
               "looking": face.looking, "since": round(face.since, 3), "codable": face.codable,
               "reason": face.reason} for face in faces]
    changes = [{"event": event.kind, "person": event.person, "at": round(event.at, 3), "people": event.people}
               for event in events]
    return {"time": round(seconds, 3), "frame": number, "people": people, "events": changes, "dropped": dropped,
            "delay": round(delay, 3)}


def write(line: dict[str, Any]) -> None:
    """Print a line at once, whole."""
    sys.stdout.write(json.dumps(line, allow_nan=False) + "\n")
    sys.stdout.flush()


def output() -> tuple[int, int] | None:
    """Which file standard output is. It becomes another, /dev/null, when its reader goes away (output.py)."""
    with suppress(OSError, ValueError):          # of a test, or closed
        facts = os.fstat(sys.stdout.fileno())
        return facts.st_dev, facts.st_ino
    return None
