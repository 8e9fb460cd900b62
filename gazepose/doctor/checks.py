"""What the doctor can find. Each kind of finding has a level, a title and a remedy; their order is the order of repair.

must: training or a submission stops, or uses wrong data. look: it goes on, but faces are lost or doubtful. note: the
policies handle it, or it is only good to know.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from gazepose.data.annotations import official_json
from gazepose.data.prepare import pictures_folder

EXAMPLES, MUST_EXAMPLES = 5, 20              # examples that are kept of each part of a finding
Level = Literal["must", "look", "note"]
Place = dict[str, Any]       # split, file, clip, track, frame, detail: those that say where


@dataclass(frozen=True)
class Kind:
    level: Level
    title: str
    """reads well after a number"""
    remedy: str = ""
    """what to do and where; {data} is the data set's folder, {json} and {videos} those of its annotations and videos"""
    listing: bool = False
    """every clip is named, not only examples"""


KINDS: dict[str, Kind] = {
    "nothing_here": Kind(
        "must", "folder without annotations and without test crops",
        "give a folder in the Ego4D layout (json/, split/, videos/, videos_challenge/), or make the embedded world: "
        "python -m gazepose synthetic --out {data}"),
    "file_missing": Kind(
        "must", "annotation files or split lists missing",
        "put the official av_train.json and av_val.json into {json}/, and train.list and val.list (one clip per "
        "line) into {data}/split/"),
    "list_absent": Kind(
        "look", "splits without a list: all clips of their annotation file are used",
        "for the challenge's own lists, put train.list and val.list (one clip per line) into {data}/split/"),
    "file_unusable": Kind(
        "must", "files that cannot be used",
        "correct what is named above, or download or make the file again (of a prepared "
        "folder: delete its index.json, or the shard that is named; it is made again when the data set is used)"),
    "split_absent": Kind(
        "note", "splits without data (no table in boxes/, or no test crops in videos_challenge/)",
        "put the table of boxes of the split into {data}/boxes/"),
    "clip_in_two_splits": Kind(
        "must", "clips in two splits",
        "the model would be tested on clips that it was trained on: remove each clip named above from one list in "
        "{data}/split/ or one table in {data}/boxes/ (a test clip: from {data}/videos_challenge/)", listing=True),
    "split_unusable": Kind(
        "must", "splits without a face, or with one label only",
        "training and scoring need faces that look and faces that do not: check that {data}/split/, {json}/ and "
        "{videos}/ belong together, and check social_segments_looking in {json}/"),
    "split_unlabelled": Kind(
        "note", "splits without a single label (they can be scored, but not trained on)",
        "add a column label to the table of train in {data}/boxes/"),
    "pictures_missing": Kind(
        "look", "clips whose video or folder of images is missing",
        "put the video (<clip_uid>.mp4, .mov, .mkv or .avi) into {videos}/, or extract the images again; or "
        "remove the clips from the lists in {data}/split/", listing=True),
    "pictures_damaged": Kind(
        "look", "clips whose video or images are damaged",
        "download the video into {videos}/ again, or make the image again; or remove the clips from the lists in "
        "{data}/split/: preparation leaves out a clip that it cannot read", listing=True),
    "video_differs": Kind(
        "look", "videos whose length or frame rate differs from the annotation",
        "compare a short video with the size of its source and download it again into {videos}/; convert another "
        "rate with ffmpeg -i IN.mp4 -r 30 OUT.mp4 (annotations count 30 frames per second)", listing=True),
    "face_without_picture": Kind(
        "look", "faces past the end of their video, or without an image",
        "they are left out; if there are many, the video is not the annotated version, or the images are not "
        "numbered from 1 as the original scripts number them"),
    "list_differs": Kind(
        "look", "clips whose split list and data disagree",
        "correct the lists in {data}/split/, or add the missing annotations or crops", listing=True),
    "name_unusable": Kind(
        "look", "clips, tracks or test crops whose name cannot be used",
        "they are left out; rename them: letters, digits, _ . - only, and a crop is <frame:05d>_<unique_id>.jpg"),
    "name_twice": Kind(
        "look", "clips or tracks that are annotated twice",
        "the first one is used: rename or delete the others in {json}/", listing=True),
    "clip_without_segments": Kind(
        "look", "clips without a list of looking segments",
        "they are left out, because it is unknown who looks: remove them from the list in {data}/split/, or add "
        "social_segments_looking in {json}/ (an empty list: nobody looks)", listing=True),
    "same_face": Kind(
        "look", "pairs of tracks on the same face",
        "the face is trained on and scored twice, perhaps with two labels: delete one of the two tracks in "
        "{json}/, or set \"suspect\": true for it (the policy clean leaves it out)"),
    "label_without_face": Kind(
        "look", "looking segments or persons that label no face",
        "check person, start_frame and end_frame of the segments and person_id of the persons in {json}/"),
    "label_unreadable": Kind(
        "look", "looking segments that cannot be read (faces that may lie in them are unknown)",
        "write person, start_frame and end_frame of these segments in {json}/ as text and whole numbers"),
    "face_twice": Kind(
        "must", "faces that occur twice among the test crops or in a table of priors",
        "keep one file or one row per face: `prepare` stops on the second"),
    "convention": Kind(
        "look", "boxes or priors that look as if written under another convention",
        "convert what is named above, or correct its header: boxes are x, y of the upper left corner, width and height "
        "in pixels, frames count from 0, head pose is in degrees, landmarks in 0 to 1 of the crop"),
    "prior_out_of_range": Kind(
        "look", "priors outside their range",
        "check the units (degrees; 0 to 1 of the crop) and make the table again, or set these values to NaN (unknown)"),
    "prior_without_face": Kind(
        "look", "priors of faces that do not exist",
        "they are ignored; if there are many, the table has other names of clips or tracks, or other frame numbers "
        "than {json}/"),
    "prepared_stale": Kind(
        "look", "files that have changed since faces were prepared from them",
        "nothing by hand: the next training or inference, or `python -m gazepose prepare`, makes again what depends on "
        "them"),
    "priors_absent": Kind(
        "note", "splits without priors (--prior_head and --prior_landmark need them: python -m gazepose priors)",
        "import them for the faces that are prepared, python -m gazepose priors import head_pose FILE --data {data} "
        "(landmarks likewise), or measure them: python -m gazepose priors head_pose --model FILE --data {data}"),
    "crop_damaged": Kind(
        "must", "test crops that are damaged",
        "download these files again: a damaged crop costs the score of its whole video, and the submission is refused"),
    "crop_unusual": Kind(
        "look", "test crops of another size than 224 x 224, or without a frame number in their name",
        "they are still used: another size is stretched, and a crop without a frame number has no neighbours; "
        "compare them with the official crops"),
    # good to know
    "convention_unjudged": Kind("note", "boxes or priors whose convention cannot be judged"),
    "rate_differs": Kind("note", "videos of one's own with another frame rate than that of training"),
    "clip_unused": Kind("note", "clips with annotations or pictures that are in no split"),
    "clip_invalid": Kind("note", "clips that the annotation marks as not valid (no policy uses this mark)"),
    "not_objects": Kind("note", "collections in the annotation that are null, missing or not lists of objects"),
    "segment_without_face": Kind("note", "looking segments without a face of that person in their frames"),
    "segment_not_at_me": Kind("note", "looking segments not marked as at me (they still count as looking)"),
    "record_contradicts": Kind("note", "records with the frame of another record, but another box"),
    "track_unordered": Kind("note", "tracks whose records are not in order of frame (they are sorted)"),
}
BAD_CLIP = ("pictures_missing", "pictures_damaged")


@dataclass
class Findings:
    """Counts and places by kind. Examples are capped for each part of a kind; the clips of a listing kind are not."""

    by_kind: dict[str, dict[str, Any]] = field(default_factory=dict)
    levels: dict[str, Level] = field(default_factory=dict)
    """of kinds that matter more in this data set than elsewhere"""

    def add(self, kind: str, count: int = 1, /, what: str = "", **place: Any) -> None:
        """Count one kind; `what` names the part of it, such as "video cut short"."""
        if not count:
            return
        entry = self.by_kind.setdefault(kind, {"count": 0, "parts": {}, "examples": []})
        entry["count"] += int(count)
        entry["parts"][what] = entry["parts"].get(what, 0) + int(count)
        most = MUST_EXAMPLES if KINDS[kind].level == "must" else EXAMPLES
        if sum(example["what"] == what for example in entry["examples"]) < most:
            entry["examples"].append({"what": what, **place})
        if KINDS[kind].listing and place["clip"] not in entry.setdefault("clips", []):
            entry["clips"].append(place["clip"])

    @contextmanager
    def catching(self, kind: str, what: str, prefix: Path, missing: str = "", **place: Any) -> Iterator[None]:
        """An error of reading in this block becomes a finding of this kind; a missing file, one of the kind `missing`.

        Args:
            prefix: a path that the place names already; it is cut off the error's message.
        """
        try:
            yield
        except (ValueError, OSError, ImportError, EOFError) as error:
            if missing and isinstance(error, FileNotFoundError):
                self.add(missing, what=what, **place)
            else:
                detail = str(error).removeprefix(f"{prefix}: ").removeprefix(f"{prefix}/")
                self.add(kind, what=what, **{**place, "detail": detail})

    def add_frames(self, kind: str, frames: np.ndarray, /, what: str = "", **place: Any) -> None:
        """One for each frame of a track; the first is the example."""
        if len(frames):
            self.add(kind, len(frames), what=what, **place, frame=frame_number(frames[0]))

    def add_rows(self, kind: str, rows: np.ndarray, what: str, place: Callable[[int], Place]) -> None:
        """One for each row of a table; only rows that serve as examples are looked up, and these are spread over it."""
        examples = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), EXAMPLES)).astype(int))
        for row in rows[examples].tolist():
            self.add(kind, what=what, **place(row))
        if len(rows) > EXAMPLES:
            self.by_kind[kind]["count"] += len(rows) - EXAMPLES
            self.by_kind[kind]["parts"][what] += len(rows) - EXAMPLES

    def facts(self) -> dict[str, dict[str, Any]]:
        """In the order of repair."""
        return {name: {"level": self.levels.get(name, kind.level), "title": kind.title, **self.by_kind[name]}
                for name, kind in KINDS.items() if name in self.by_kind}


def frame_number(frame: float) -> int | None:
    """For a place: None for what is no frame number."""
    return int(frame) if np.isfinite(frame) else None


def remedies(findings: dict[str, dict[str, Any]], data: str) -> list[dict[str, str]]:
    """What to do, in order: first what must be done, then what is worth a look; within each in the order of repair."""
    places = {"data": data, "json": official_json(Path(data), "train").parent,
              "videos": pictures_folder(Path(data), "videos")}     # the downloader has other folders
    return [{"level": level, "finding": name, "do": KINDS[name].remedy.format(**places)}
            for level in ("must", "look") for name, entry in findings.items() if entry["level"] == level]
