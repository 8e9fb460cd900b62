"""Pictures of a video with their times, and its sound. Frame rates may vary: the file's own times count.

Opening a file and turning its pictures is data/video.py.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from gazepose.data.video import as_shown, checked_path, open_by_pyav, stream_of_pictures, turn_of

UNKNOWN_FPS = 30.0           # of a file that states neither times nor a rate


def pictures_in_time(path: str | Path) -> Iterator[tuple[int, float, np.ndarray]]:
    """Yields (number from 0, seconds since the first picture, uint8 [H, W, 3] RGB) of all pictures, as they are shown.

    Pictures are turned, mirrored and scaled as in `frames_in_order`. Times ascend: where the file has no time for a
    picture, or one that goes back, the picture follows the one before it by one frame of the mean rate.

    Raises:
        As frames_in_order, of PyAV.
    """
    name = checked_path(path, "pyav")
    import av.error
    from av.video.reformatter import VideoReformatter
    number, first, seconds, size, reformatter = -1, 0.0, 0.0, (0, 0), VideoReformatter()
    try:
        with open_by_pyav(name) as container:
            stream = stream_of_pictures(container, name)
            step = 1 / float(stream.average_rate or UNKNOWN_FPS)
            for number, frame in enumerate(container.decode(stream)):
                if not number:
                    first, size = frame.time or 0.0, (frame.width, frame.height)
                elif frame.time is not None and frame.time - first > seconds:
                    seconds = frame.time - first
                else:
                    seconds += step
                turned = turn_of(frame)
                if (frame.width, frame.height) != size:
                    frame = reformatter.reformat(frame, *size, format="rgb24")
                picture = frame.to_ndarray(format="rgb24")
                yield number, seconds, as_shown(picture, turned) if turned else picture
        if number < 0:
            raise ValueError(f"{name}: holds no picture")
    except av.error.FFmpegError as error:
        raise ValueError(f"{name}: frame {number + 1}: cannot be decoded by pyav: {error}") from error


@contextmanager
def open_sound(path: str | Path) -> Iterator[tuple[Any, float, Iterator[Any]] | None]:
    """The first stream of sound of a video: (PyAV stream, start, its packets in order); None where there is none.

    start: time of the first picture on the stream's clock, seconds.

    Raises:
        As frames_in_order, of PyAV; a damaged packet raises av.error.FFmpegError when it is taken.
    """
    name = checked_path(path, "pyav")
    with open_by_pyav(name) as container:
        first = next(container.decode(stream_of_pictures(container, name)), None)
        start = first.time if first is not None and first.time is not None else 0.0
    with open_by_pyav(name) as container:                              # from its beginning again, without seeking
        streams = container.streams.audio
        yield (streams[0], start, container.demux(streams[0])) if streams else None
