"""All drills, a table of their figures, and its JSON: python tests/drills/run.py [--kills N] [--warm] [FILE]"""

import argparse
import os
import sys
from pathlib import Path

import pytest

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))      # this package, not another that is installed
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50, help="random moments of a kill -9, each a run of its own")
    parser.add_argument("--warm", action="store_true", help="kill processes that are forked from one which has the "
                        "slow imports behind it, instead of real launches")
    parser.add_argument("--figures", default="drills.json", help="the JSON file")
    known, others = parser.parse_known_args()
    os.environ.update(KILLS=str(known.kills), WARM=str(int(known.warm)), FIGURES=known.figures)
    unwatched = ["-o", "faulthandler_timeout=0"]                       # of tests, which end within minutes
    sys.exit(pytest.main(["-m", "drill", "-s", *unwatched, *(others or [str(Path(__file__).parents[1])])]))
