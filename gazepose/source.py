"""Which data set is used: Ego4D under data/ if it exists, else the embedded world; prepared on first use."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gazepose.data.annotations import official_json
from gazepose.data.config import PrepareConfig
from gazepose.data.index import Index
from gazepose.io import read_object

if TYPE_CHECKING:
    from gazepose.processes import Processes

EGO4D = Path("data")
EMBEDDED = EGO4D / "embedded"


@dataclass(frozen=True)
class Source:
    """A data set: its folder, and the preset and seed if it is an embedded world."""

    root: Path
    preset: str | None = None
    seed: int = 0

    def ready(self, processes: "Processes") -> "Source":
        """Render the embedded world if that has not been done; rank 0 does, the others wait."""
        if self.preset is not None:
            if processes.rank == 0 and not (self.root / "world.json").exists():
                processes.notify(f"data: rendering the embedded world '{self.preset}' into {self.root}, because there "
                                 "is no Ego4D")
                from gazepose.synthetic.world import render_world  # numba takes a second to import
                render_world(self.root, self.preset, self.seed, notify=processes.notify)
            processes.barrier()
            from gazepose.synthetic.presets import VERSION
            if (version := self.version()) != VERSION:
                processes.notify(f"data: {self.root} is version {version} of the embedded world, and this release "
                                 f"renders version {VERSION} -> rename the folder, and it is rendered anew")
        return self

    def version(self) -> int | None:
        """Of the embedded world: of the one that is there, else of the one that would be rendered; None: other data."""
        if self.preset is None:
            return None
        from gazepose.synthetic.presets import VERSION
        file = self.root / "world.json"
        return read_object(file).get("version") if file.is_file() else VERSION

    def boxes(self) -> tuple[str, ...]:
        """How the crops of an embedded world's training faces lie on the face; empty for other data."""
        if self.preset is None:
            return ()
        from gazepose.synthetic.presets import PRESETS
        return PRESETS[self.preset].box_rules

    def split(self, name: str, config: PrepareConfig, processes: "Processes") -> Index:
        """Open train, val, test or stills; prepared on first use by all processes of a disk together.

        With `config.crops` video, train and val get rows only, and their crops are cut when they are used. Test and
        stills are images, which always get shards.

        Raises:
            ValueError: stills of a data set that is not an embedded world; another rank has other rows.
        """
        index = self._split(name, config, processes)
        facts, tables = index.contents, ("track_clip", "track_start", "frame", "label")
        rows = [facts["clips"], facts["track_name"], *(facts["files"][table]["sha256"] for table in tables)]
        differing = [rank for rank, other in enumerate(processes.gather(rows)) if other != rows]
        if differing:                                # each would take a row's number for another face
            raise ValueError(f"{index.folder}: rank {differing[0]} prepared other rows than this rank. Their disks "
                             "hold different data, or their flags differ -> give every machine the same annotations, "
                             "split lists, videos and flags; what is prepared follows")
        return index

    def _split(self, name: str, config: PrepareConfig, processes: "Processes") -> Index:
        if name != "stills":
            from gazepose.data.prepare import prepare  # OpenCV and scipy: not before they are needed
            from gazepose.data.streaming import open_index
            return open_index(prepare(self.root, name, config, processes))
        if self.preset is None:
            raise ValueError(f"{self.root}: only an embedded world has stills -> give --task lam or gaze_clips, or "
                             "leave --data out and give --preset")
        folder = self.root / "stills" / str(config.crop_size)
        if processes.rank == 0:
            from gazepose.synthetic.presets import PRESETS
            from gazepose.synthetic.stills import render_stills
            count = PRESETS[self.preset].stills
            if (folder / "index.json").is_file():        # `gazepose synthetic --stills` may have rendered more
                count = Index.open(folder).facts.get("count", count)
            render_stills(self.root, self.preset, self.seed, count, config.crop_size, notify=processes.notify)
        processes.barrier()
        return Index.open(folder)


def find_source(data: Path | None, preset: str = "default") -> Source:
    """The data set that the flags name; nothing is rendered or prepared yet.

    Raises:
        FileNotFoundError: `data` does not exist. ValueError: it is an embedded world of another version.
    """
    if data is None:
        if official_json(EGO4D, "train").exists():
            return Source(EGO4D)
        return Source(EMBEDDED / f"{preset}-0", preset)
    if (data / "world.json").exists():
        from gazepose.synthetic.presets import PRESETS
        facts = read_object(data / "world.json")
        if facts.get("preset") not in PRESETS or type(facts.get("seed")) is not int:
            raise ValueError(f"{data / 'world.json'}: preset {facts.get('preset')!r:.40}, seed "
                             f"{facts.get('seed')!r:.40} -> it is not of this version; render it again")
        return Source(data, facts["preset"], facts["seed"])
    if not data.is_dir():
        raise FileNotFoundError(f"{data}: no such folder -> give a data set in the Ego4D layout (json/, split/, "
                                "videos/), or Ego4D's download folder, or leave --data out for the embedded world")
    return Source(data)


def prepared_indexes(data: Path | None, splits: Sequence[str] | None = None, prepared: str | None = None
                     ) -> list[Index]:
    """The prepared indexes of a data set: DATA/prepared/<policy>-<size>/<split>.

    Args:
        data: a data set, or one index folder; None as for `find_source`.
        splits: only these. prepared: only those of <policy>-<size>.

    Raises:
        FileNotFoundError: there is none, or none of a split in `splits`.
    """
    from gazepose.data.streaming import open_index
    if data is not None and (data / "index.json").is_file():
        return [open_index(data)]
    root = find_source(data).root
    folders = sorted(path.parent for path in root.glob(f"prepared/{prepared or '*'}/*/index.json"))
    names = splits or sorted({folder.name for folder in folders}) or ["train"]
    if missing := [split for split in names if not any(folder.name == split for folder in folders)]:
        raise FileNotFoundError(f"{root / 'prepared' / (prepared or '*') / missing[0]}: not prepared -> run `python -m "
                                f"gazepose prepare --split {missing[0]} --data {root}` first, or name an index folder "
                                "with --data")
    return [open_index(folder) for folder in folders if folder.name in names]


def chosen_rows(index: Index, stride: int, limit: int | None, labelled: bool = False) -> np.ndarray:
    """Centre rows of every stride-th position or labelled row, int64 ascending; at most `limit` of them, evenly spread.

    Args:
        labelled: only rows whose label is known.
    """
    from gazepose.data.windows import centre_rows
    rows = centre_rows(index, stride)
    if labelled:
        rows = rows[index.label[rows] >= 0]
    if limit is not None and limit < len(rows):
        rows = rows[np.linspace(0, len(rows) - 1, limit).round().astype(np.int64)]
    return rows
