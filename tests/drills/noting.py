"""train.py that also writes down every row it learns from, in RUN.rows.<rank>."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[level]) for level in (1, 2)]

from rig import note_rows  # noqa: E402

from gazepose.programs import program  # noqa: E402  after the path

if __name__ == "__main__":
    note_rows()
    program("train")
