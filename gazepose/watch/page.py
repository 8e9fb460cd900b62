"""Page: watch.html plays the drawn videos beside a timeline for each person, and takes corrections.

One file that needs nothing but the videos beside it. It is put together from page.html (structure), page.css and
SCRIPTS, of which page_model.js has the counts and the corrections. Numbers are embedded as JSON.
"""

import base64
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from gazepose.io import writing
from gazepose.watch.bouts import frame_ends
from gazepose.watch.draw import drawn_name
from gazepose.watch.table import Table, Video

BINS = 10                    # probabilities per second of a timeline; the page counts on it
ABSENT, FIRST_REASON = 255, 101          # values of a timeline beside the probabilities 0 to 100
MOST_SPANS = 20_000          # of a person: codable or not in turn every 0.1 s over an hour
SCRIPTS = ("page_model.js", "page_csv.js", "page_timeline.js", "page_player.js", "page_panels.js", "page.js")


def write_page(folder: Path, videos: Sequence[Video], table: Table, looks: Table, people: Table) -> Path:
    """Write FOLDER/watch.html, atomically; returns its path.

    Args:
        videos: in the order of the page. Of each, the page plays `drawn_name(video)` in the same folder.
        table: faces (FACES). looks: columns video, person, start, end, probability, source. people: columns video and
            person, in the order of the page.
    """
    from gazepose.report.style import COLOURS, colours_css
    faces = dict(list(table.assign(ends=frame_ends(table, videos)).groupby("video", sort=False)))
    shown = [_video(video, faces.get(video.name, table.iloc[:0]), looks[looks["video"] == video.name],
                    people.loc[people["video"] == video.name, "person"].tolist()) for video in videos]
    content = {"title": _title(videos), "videos": shown}
    content["id"] = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
    light = " ".join(f"--{name}: {pair[0]};" for name, pair in COLOURS.items())
    files = {name: (Path(__file__).parent / name).read_text(encoding="utf-8")
             for name in ("page.html", "page.css", *SCRIPTS)}
    page = files["page.html"]
    for mark, text in (("style", f"{colours_css()}@media print {{ :root {{ {light} }} }}\n{files['page.css']}"),
                       ("script", "\n".join(files[name] for name in SCRIPTS)),
                       ("data", _embedded(content))):                  # last: what it holds is not looked at again
        page = page.replace(f"{{{{{mark}}}}}", text, 1)
    with writing(folder / "watch.html") as file:
        file.write(page)
    return folder / "watch.html"


def _title(videos: Sequence[Video]) -> str:
    return videos[0].name if len(videos) == 1 else f"{len(videos)} videos"


def _embedded(content: Any) -> str:
    """JSON that may stand in a script element, whatever its texts hold."""
    return json.dumps(content, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _video(video: Video, faces: Table, looks: Table, people: list[str]) -> dict[str, Any]:
    """Facts of a video and of its people as page_model.js reads them."""
    reasons = [reason for reason in dict.fromkeys(faces["reason"].tolist()) if reason]
    of_person, looks_of = (dict(list(each.groupby("person", sort=False))) for each in (faces, looks))
    names = dict.fromkeys([name for name in people if name in of_person] + list(of_person))
    return {"name": video.name, "source": quote(drawn_name(video), safe=""), "seconds": round(video.seconds, 4),
            "fps": video.fps, "frames": video.frames, "times": _times(video, faces), "reasons": reasons,
            "people": [_person(name, of_person[name], looks_of.get(name, looks.iloc[:0]), reasons) for name in names]}


def _times(video: Video, faces: Table) -> str | None:
    """Times of all frames as base64 of uint16 little-endian: milliseconds since the frame before. None: they follow
    from the rate. Frames without a face lie evenly between those with one."""
    if not video.frames or video.seconds <= 0:
        return None
    number, first = np.unique(faces["frame"].to_numpy(np.int64), return_index=True)
    seconds = faces["seconds"].to_numpy(float)[first]
    if not len(number) or np.abs(seconds - number / video.fps).max() < 0.25 / video.fps:
        return None
    known = np.concatenate([[0], number[number > 0], [video.frames]])
    times = np.interp(np.arange(video.frames), known, np.concatenate([[0.0], seconds[number > 0], [video.seconds]]))
    return _base64(np.diff(np.round(1000 * times), prepend=0).clip(0, 65535).astype("<u2"))


def _person(name: str, faces: Table, looks: Table, reasons: list[str]) -> dict[str, Any]:
    faces, looks = faces.sort_values("seconds", kind="stable"), looks.sort_values("start")
    start, ends = faces["seconds"].to_numpy(float), faces["ends"].to_numpy(float)
    codable = faces["codable"].to_numpy() == 1
    first, last = int(start[0] * BINS), max(int(np.ceil(ends[-1] * BINS - 1e-6)), int(start[0] * BINS) + 1)
    middle = (np.arange(first, last) + 0.5) / BINS
    row = np.clip(np.searchsorted(start, middle, "right") - 1, 0, None)
    shown = (middle >= start[row]) & (middle < ends[row]) if ends[-1] > start[0] else np.ones(len(row), bool)
    probability = np.nan_to_num(faces["looking"].to_numpy(float))
    number = faces["reason"].map({reason: FIRST_REASON + k for k, reason in enumerate(reasons)}).fillna(FIRST_REASON)
    values = np.where(codable, np.round(100 * probability), number.to_numpy(float))
    return {"name": str(name), "first": first, "present": _spans(start, ends),
            "codable": _spans(start[codable], ends[codable]),
            "values": _base64(np.where(shown, values[row], ABSENT).astype(np.uint8)),
            "looks": [[round(look.start, 4), round(look.end, 4), _known(look.probability), look.source]
                      for look in looks.itertuples()]}


def _known(probability: float) -> float | None:
    return None if np.isnan(probability) else round(float(probability), 3)


def _spans(start: np.ndarray, ends: np.ndarray) -> list[list[float]]:
    """[start, end] of each stretch of frames that follow each other; beyond MOST_SPANS the shortest gaps are closed."""
    if not len(start):
        return []
    gap = start[1:] - ends[:-1]
    least = 1e-4 if len(gap) < MOST_SPANS else max(1e-4, float(np.sort(gap)[-MOST_SPANS]))
    cuts = np.flatnonzero(gap > least)
    return np.stack([np.append(start[0], start[cuts + 1]), np.append(ends[cuts], ends[-1])], 1).round(4).tolist()


def _base64(values: np.ndarray) -> str:
    return base64.b64encode(values.tobytes()).decode()
