"""Check this project against golden vectors: python tests/check_parity.py FOLDER [FILE ...]

Prints one line per file of the folder (of models.json one per model and precision) with the comparison that comes
nearest to its tolerance, and ends with 1 if one fails, or if a file is missing or holds nothing to compare.
"""

import argparse
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from golden import (
    Result,
    annotations,
    crops,
    loader,
    metrics,
    models,
    priors,
    sensitivity,
    submission,
    tracks,
    training,
)

Check = Callable[[Path], Iterable[Result]]
CHECKS: dict[str, Check] = {
    "models.json": models.check, "sensitivity.json": sensitivity.check, "training.json": training.check,
    "metrics.json": metrics.check, "tracks.json": tracks.check, "priors.json": priors.check,
    "loader.json": loader.check, "crops.json": crops.check, "annotations": annotations.check,
    "submission.json": submission.check}


class Line(NamedTuple):
    """What is printed of some comparisons: the one that fails, or comes nearest to failing."""

    name: str
    worst: Result
    compared: int
    failed: int

    def __str__(self) -> str:
        what, difference, tolerance = self.worst
        failed = f", {self.failed} failed" if self.failed else ""
        return (f"{'FAIL' if failed else 'PASS'}  {self.name:<40} difference {difference:.1e}  "
                f"tolerance {tolerance:.1e}  ({what}; {self.compared} compared{failed})")


def holds(result: Result) -> bool:
    return result.difference <= result.tolerance                          # not so if the difference is NaN


def results(check: Check, folder: Path) -> Iterator[Result]:
    """All results of a check; what stops it is a result that fails, and so is silence."""
    silent = True
    try:
        for result in check(folder):
            silent = False
            yield result
    except FileNotFoundError as error:
        yield Result(f"missing: {error.filename or error}", math.inf, 0)
    except Exception as error:
        yield Result(f"stopped: {type(error).__name__}: {error}", math.inf, 0)
    else:
        if silent:
            yield Result("nothing was compared", math.inf, 0)


def lines(file: str, checked: Iterable[Result]) -> list[Line]:
    """One line, or those of models.json by what stands before the colon of each result."""
    groups: dict[str, list[Result]] = {}
    for result in checked:
        group, colon, what = result.what.partition(": ")
        by_model = file == "models.json" and colon
        groups.setdefault(f"{file} {group}" if by_model else file, []).append(
            result._replace(what=what) if by_model else result)

    def nearness(result: Result) -> tuple[bool, float]:
        share = result.difference / result.tolerance if result.tolerance else result.difference
        return not holds(result), math.inf if math.isnan(share) else share

    return [Line(name, max(group, key=nearness), len(group), sum(not holds(result) for result in group))
            for name, group in groups.items()]


def check_parity(folder: Path, files: Sequence[str] = ()) -> Iterator[Line]:
    """Lines of the given files, or of all."""
    for file in files or CHECKS:
        yield from lines(file, results(CHECKS[file], folder))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Check this project against golden vectors.")
    parser.add_argument("folder", type=Path, help="folder of golden vectors")
    parser.add_argument("files", nargs="*", choices=[*CHECKS, []], metavar="FILE",
                        help=f"only these: {', '.join(CHECKS)}")
    options = parser.parse_args(arguments)
    failed = 0
    for line in check_parity(options.folder, options.files):
        print(line, flush=True)
        failed += line.failed > 0
    print(f"{failed} line{'s' * (failed > 1)} FAIL" if failed else "all PASS")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
