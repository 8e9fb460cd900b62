"""What the doctor can find: each kind with how much it matters and what to do. The order is the order of repair.

must: training or a submission stops, or learns and scores the wrong thing. look: it goes on, with faces lost or
doubtful. note: the policies deal with it, or it is merely good to know.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

EXAMPLES, MUST_EXAMPLES = 5, 20
Level = Literal["must", "look", "note"]
Place = dict[str, Any]       # split, clip, track, frame, detail: those that say where


@dataclass(frozen=True)
class Kind:
    level: Level
    title: str
    """reads well with a number behind it"""
    remedy: str = ""
    """what to do and where; {data} is the data set's folder"""
    listing: bool = False
    """every clip is named, not only examples"""


KINDS: dict[str, Kind] = {
    "nothing_here": Kind(
        "must", "neither annotations nor test crops here",
        "give a folder in the Ego4D layout (json/, split/, videos/, videos_challenge/), or make one: "
        "python -m gazepose synthetic --out {data}"),
    "split_absent": Kind(
        "note", "splits that boxes/ has no table of", "put the table there: {data}/boxes/<split>.csv"),
    "boxes_unusable": Kind(
        "must", "tables of boxes that cannot be read", "mend the line named above in {data}/boxes/"),
    "annotation_missing": Kind(
        "must", "annotation files missing",
        "put av_train.json and av_val.json of the official annotations into {data}/json/"),
    "annotation_unreadable": Kind(
        "must", "annotation files unreadable", "download the file named above again, or mend it, in {data}/json/"),
    "list_missing": Kind(
        "must", "split lists missing", "put the official train.list and val.list into {data}/split/ (one clip a line)"),
    "list_unusable": Kind("must", "split lists unusable", "mend the line named above in {data}/split/"),
    "clip_in_two_splits": Kind(
        "must", "clips in two splits",
        "what is learnt would be tested on itself: take each clip named above out of one list in {data}/split/ "
        "or table in {data}/boxes/ (of the test set: out of {data}/videos_challenge/)", listing=True),
    "split_empty": Kind(
        "must", "splits without a usable face",
        "check that list, annotations and videos belong together: {data}/split/, {data}/json/, {data}/videos/"),
    "split_one_label": Kind(
        "must", "splits with one label only",
        "nothing can be learnt or scored without faces that look and faces that do not: check "
        "social_segments_looking in {data}/json/"),
    "split_unlabelled": Kind(
        "note", "splits without a single label (they can be scored, not learnt from)",
        "give the faces of train labels, in {data}/boxes/"),
    "video_missing": Kind(
        "look", "videos missing",
        "put <clip_uid>.mp4 (or .mov, .mkv, .avi) of the clips named above into {data}/videos/, or take them off the "
        "lists in {data}/split/",
        listing=True),
    "video_unreadable": Kind(
        "look", "videos that cannot be opened",
        "download these again into {data}/videos/, or take the clips off the lists in {data}/split/", listing=True),
    "video_cut_short": Kind(
        "look", "videos cut short: the end of the file is missing",
        "download these again into {data}/videos/, or take the clips off the lists in {data}/split/", listing=True),
    "images_missing": Kind(
        "look", "folders of images missing",
        "extract the images of the clips named above, or take them off the lists in {data}/split/", listing=True),
    "image_damaged": Kind(
        "look", "clips with a damaged image",
        "make the image named above again: preparation leaves out its whole clip", listing=True),
    "face_without_image": Kind(
        "look", "faces without an image",
        "they are left out; if many, the images were numbered or made otherwise than from 1 by the original scripts"),
    "video_short": Kind(
        "look", "videos shorter than the annotation says",
        "compare with the size at the source and download again into {data}/videos/; faces past the end are left out",
        listing=True),
    "face_past_end": Kind(
        "look", "faces past the end of their video",
        "they are left out; if many, the video in {data}/videos/ is another cut than the one that was annotated"),
    "video_rate": Kind(
        "look", "videos not at 30 frames a second",
        "annotations count 30 frames a second: convert with ffmpeg -i IN.mp4 -r 30 OUT.mp4 in {data}/videos/, or "
        "check that faces fall on faces", listing=True),
    "clip_not_annotated": Kind(
        "look", "clips listed but not annotated",
        "take them off the list in {data}/split/, or get the annotations that hold them", listing=True),
    "clip_in_other_file": Kind(
        "look", "clips listed in one split, annotated in the other's file",
        "move the line to the other list in {data}/split/, or the clip to the other file in {data}/json/",
        listing=True),
    "clip_no_uid": Kind(
        "look", "clips whose clip_uid is missing or not letters, digits, _ . -",
        "they are left out: give clip_uid in {data}/json/"),
    "clip_twice": Kind(
        "look", "clips annotated twice", "the first is used: delete one of the two in {data}/json/", listing=True),
    "clip_without_segments": Kind(
        "look", "clips without a list of looking segments",
        "they are left out, since nobody said who looks: take them off the list in {data}/split/, or give "
        "social_segments_looking in {data}/json/ (an empty list: nobody looks)", listing=True),
    "track_bad_id": Kind(
        "look", "tracks whose id is not letters, digits, _ . -",
        "they are left out: rename them in {data}/json/"),
    "track_twice": Kind(
        "look", "tracks whose id occurs twice in a clip",
        "the first is used: rename or delete the other in {data}/json/"),
    "track_copied": Kind(
        "look", "tracks that are copies of another under a new id",
        "the same faces are learnt and scored twice: delete one of the two in {data}/json/"),
    "tracks_overlap": Kind(
        "look", "pairs of tracks on the same face",
        "one face with two names, perhaps with two labels: look at the frames named above and set \"suspect\": true "
        "for one of the two in {data}/json/ (clean leaves it out)"),
    "person_without_id": Kind(
        "look", "persons without an id who have tracks",
        "their faces are left out, since no segment can mean them: give person_id in {data}/json/"),
    "segment_without_track": Kind(
        "look", "looking segments of persons without a track",
        "someone looks but has no face to learn from: check `person` of the segments in {data}/json/"),
    "segment_backwards": Kind(
        "look", "looking segments that end before they start", "swap start_frame and end_frame in {data}/json/"),
    "table_unusable": Kind(
        "must", "tables of priors that cannot be joined",
        "make or import the table named above again; `prepare` stops on it"),
    "prior_twice": Kind(
        "must", "priors given twice for one face", "keep one row of the face; `prepare` stops on it"),
    "prior_out_of_range": Kind(
        "look", "priors outside their range",
        "check units (degrees; 0..1 of the crop) and make the table again, or set these values to NaN, unknown"),
    "prior_without_face": Kind(
        "look", "priors of faces that do not exist",
        "they are ignored; if many, clip, track or frame numbers are named differently from {data}/json/"),
    "priors_some_splits": Kind(
        "look", "splits without priors that others have", "make the missing {data}/priors/<split>.npz"),
    "crop_damaged": Kind(
        "must", "test crops damaged",
        "download these files again: a damaged crop costs its whole video the score, and the submission is refused"),
    "crop_twice": Kind(
        "must", "test crops whose unique id occurs twice in the track",
        "keep one of the files: each crop is scored once"),
    "crop_misnamed": Kind(
        "look", "test files not named like a crop",
        "<frame:05d>_<unique_id>.jpg is wanted: rename or delete them"),
    "crop_folder_misnamed": Kind(
        "look", "test folders whose name is not an id", "rename or delete these folders"),
    "crop_size": Kind("look", "test crops not 224 x 224", "they are stretched; the challenge's crops are 224 x 224"),
    "test_unlisted": Kind(
        "look", "test videos in test.list without crops, or crops without a line there",
        "compare {data}/split/test.list with the folders of {data}/videos_challenge/", listing=True),
    "prepared_unreadable": Kind(
        "must", "prepared folders that are not whole", "delete the folder named above; it is made again"),
    # good to know
    "clip_no_split": Kind("note", "clips annotated but in no split"),
    "clip_segments_empty": Kind("note", "clips with an empty list of looking segments (clean: all negative; baseline: "
                                        "left out)"),
    "clip_invalid": Kind("note", "clips marked as not valid by the annotation (no policy minds)"),
    "entry_no_object": Kind("note", "entries of a collection that are no objects"),
    "segment_without_person": Kind("note", "looking segments without a person"),
    "segment_without_face": Kind("note", "looking segments without a face of that person in their frames"),
    "segment_not_at_me": Kind("note", "looking segments not marked as at me (counted as looking all the same)"),
    "record_repeated": Kind("note", "records stored twice (same track, frame and box)"),
    "record_contradicts": Kind("note", "records with the frame of another but another box"),
    "track_unordered": Kind("note", "tracks whose records are not in order of frame (they are sorted)"),
    "track_suspect": Kind("note", "tracks marked as suspect (clean leaves them out)"),
    "frame_unmapped": Kind("note", "records at frames marked as unmapped (clean leaves them out)"),
    "video_unused": Kind("note", "videos, or folders of images, of no listed clip"),
    "crop_unframed": Kind("note", "test crops without a frame number in their name (each is its own window)"),
    "test_absent": Kind("note", "no test crops: videos_challenge/ is not here"),
    "priors_absent": Kind("note", "no priors: needed only for --prior_head and --prior_landmark"),
}
BAD_CLIP = ("video_missing", "video_unreadable", "video_cut_short", "images_missing", "image_damaged")


@dataclass
class Findings:
    """Counts and places by kind; examples are capped, the clips of a listing kind are not."""

    found: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, kind: str, count: int = 1, /, **place: Any) -> None:
        if not count:
            return
        entry = self.found.setdefault(kind, {"count": 0, "examples": []})
        entry["count"] += int(count)
        if len(entry["examples"]) < (MUST_EXAMPLES if KINDS[kind].level == "must" else EXAMPLES):
            entry["examples"].append(place)
        if KINDS[kind].listing and place.get("clip") not in entry.setdefault("clips", []):
            entry["clips"].append(place.get("clip"))

    def add_rows(self, kind: str, rows: np.ndarray, place: Callable[[int], Place]) -> None:
        """One for each row of a table; only rows that serve as examples are looked up, and these are spread over it."""
        for row in rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), EXAMPLES)).astype(int))].tolist():
            self.add(kind, **place(row))
        if len(rows) > EXAMPLES:
            self.found[kind]["count"] += len(rows) - EXAMPLES

    def facts(self, must: set[str]) -> dict[str, dict[str, Any]]:
        """In the order of repair; kinds in `must` are raised to that level."""
        return {name: {"level": "must" if name in must else kind.level, "title": kind.title, **self.found[name]}
                for name, kind in KINDS.items() if name in self.found}


def remedies(findings: dict[str, dict[str, Any]], data: str, prepared: bool) -> list[dict[str, str]]:
    """What to do, in order: first what must be done, then what is worth a look; within each in the order of repair."""
    steps = [{"level": level, "finding": name, "do": KINDS[name].remedy.format(data=data)}
             for level in ("must", "look") for name, found in findings.items() if found["level"] == level]
    if steps and prepared:
        steps.append({"level": "look", "finding": "prepared", "do":
                      f"after mending, delete {data}/prepared/, made from the data as it was; it is made again"})
    return steps
