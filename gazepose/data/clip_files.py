"""The files of one clip: a shard of its crops, a table of their rows, or a note why the clip cannot be used.

They are kept beside the index, and a clip is cut again only when something that its crops depend on has changed. Labels
are not in them, so that new labels need no new crops. How a clip is cut is data/clip_crops.py.
"""

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np

from gazepose.data.stamps import digest_of, stamp_of_files
from gazepose.data.tracks import FaceTrack, Policy
from gazepose.io import leftovers, read_arrays, read_object, stamp, write_arrays, write_json

VERSION = 5                  # a change here cuts all clips again
FIRST_DEFAULTS = ("at_me_only", "box_scale")
"""rules with a default when VERSION became 5; a rule that is added later does not come in here"""
CropsFrom = Literal["videos", "images", "faces"]


@dataclass(frozen=True)
class CutRows:
    """The rows of a clip, in the order of its tracks, and what happened to it."""

    columns: dict[str, np.ndarray]
    """of index.COLUMNS, each [n, ...]; in place of the label `face`, int64 [n], its number in the annotation"""
    tracks: list[str]
    """names of all tracks, also of those without a row"""
    sizes: np.ndarray
    """int64 [tracks]: rows of each track"""
    counts: Counter[str]
    """rule -> how many records it touched"""


@dataclass(frozen=True)
class ClipRows(CutRows):
    """The rows of a finished clip with their labels, and what they were made from."""

    notes: dict[str, str]
    """decoder: why decord could not read the video; short: the video ends before its faces do; setting: the decoder
    that was to read it"""
    shard: dict[str, Any]
    """the file of its crops, as io.writing_by_checksum gives it"""
    source: list[str | None]
    """stamp and SHA-256 of the video or folder of images, as data/stamps.py; no SHA-256 where only headers were read"""


@dataclass
class ClipCrops:
    """One clip (or challenge video) to cut: its source, the settings, and where its crops and rows go."""

    uid: str
    source: Path
    """the video, or the clip's folder of images"""
    path: Path
    """of the clip's files, without suffix"""
    faces: int
    """in the annotation; fewer get a row when the video is shorter"""
    policy: Policy
    crop_size: int
    decoder: str
    crops_from: CropsFrom | Literal["challenge", "streamed"] = "videos"
    """streamed: rows only, whose crops are cut while they are used"""
    tracks: list[FaceTrack] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    notes: dict[str, str] = field(default_factory=dict)

    @property
    def bad(self) -> Path:
        """Holds the reason why the clip cannot be used."""
        return self.path.with_name(f"{self.path.name}.bad")

    @property
    def table(self) -> Path:
        """The rows; written last, so a clip with a table is whole."""
        return self.path.with_name(f"{self.path.name}.npz")

    def key(self) -> str:
        """Hash of everything that the crops and rows depend on, beside the bytes of the source.

        A rule at its default is left out, so that a new rule cuts no clip again; of those in FIRST_DEFAULTS it is
        there, as in the keys of clips that were cut before.
        """
        later = {rule.name: rule.default for rule in fields(self.policy) if rule.name not in FIRST_DEFAULTS}
        rules = ", ".join(f"{name}={value!r}" for name, value in vars(self.policy).items()
                          if name in FIRST_DEFAULTS or value != later[name])
        digest = hashlib.sha256(f"({VERSION}, {self.crop_size}, Policy({rules}))".encode())
        for track in self.tracks:
            digest.update(track.track.encode())
            for column in (track.frames, track.boxes):
                digest.update(np.ascontiguousarray(column).tobytes())
        return digest.hexdigest()

    def is_finished(self) -> bool:
        """Whether an earlier run has cut the clip, from a source of the same bytes with the same settings."""
        try:
            made = read_arrays(self.table)
            shard, (seen, digest) = json.loads(str(made["shard"])), json.loads(str(made["source"]))
            path = self.path.with_name(shard["file"])
            if str(made["key"]) != self.key() or path.stat().st_size != shard["bytes"]:
                return False
            now = stamp_of_files(self.source)
            if now in (seen, None):                                    # the same, or gone since
                return True
            if digest is None or digest_of(self.source) != digest:
                return False
            # copied or touched, with the same bytes
            write_arrays(self.table, {**made, "source": np.array(json.dumps([now, digest]))})
            return True
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def rows(self, columns: bool = True) -> ClipRows:
        """The table of a finished clip, with today's labels; without `columns`, only how many rows there are and what
        happened."""
        names = ("tracks", "sizes", "counts", "notes", "shard", "source")
        arrays = read_arrays(self.table, None if columns else names)
        arrays.pop("key", None)
        tracks, sizes, *texts = (arrays.pop(name) for name in names)
        counts, notes, shard, source = (json.loads(str(text)) for text in texts)
        if columns:
            labels = np.concatenate([np.zeros(0, np.int8), *(track.labels for track in self.tracks)])
            face = arrays.pop("face", None)                            # a crop of the test set has none
            arrays["label"] = np.full(int(sizes.sum()), -1, np.int8) if face is None else labels[face]
        return ClipRows(arrays, tracks.tolist(), sizes, Counter(counts) + self.counts, notes, shard, source)

    def write_table(self, cut: CutRows, notes: dict[str, str], shard: dict[str, Any], source: list[str | None]) -> None:
        """Write the rows; arguments as of ClipRows."""
        texts = {"counts": +cut.counts, "notes": notes, "shard": shard, "source": source}
        write_arrays(self.table, {**cut.columns, "tracks": np.array(cut.tracks, str), "sizes": cut.sizes,
                                  **{name: np.array(json.dumps(text)) for name, text in texts.items()},
                                  "key": np.array(self.key())})

    def unfinished(self) -> list[Path]:
        """Temporary files of a process that died while it cut the clip."""
        return leftovers(self.path.parent, self.shard_name)

    @property
    def shard_name(self) -> str:
        """Of the crops' file, before its checksum comes into the name."""
        return f"{self.uid[:96]}.bin"

    def known_bad(self) -> bool:
        """Whether the clip could not be used, and its source is still the same."""
        return self.bad.is_file() and read_object(self.bad).get("stamp") == stamp(self.source)

    def mark_bad(self, reason: str) -> None:
        """Note why the clip cannot be used."""
        mark_bad(self.bad, self.source, reason)


def mark_bad(path: Path, source: Path, reason: str) -> None:
    """Write CLIP.bad: why a clip cannot be used, until its source changes."""
    write_json(path, {"reason": reason, "stamp": stamp(source)})


def bad_clips(folder: Path) -> dict[str, str]:
    """Clip -> reason why it cannot be used, from the .bad files of a folder."""
    return {path.name.removesuffix(".bad"): str(read_object(path).get("reason"))
            for path in sorted(folder.glob("*.bad"))}
