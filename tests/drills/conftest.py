"""Drills: slow faults with real launchers. `python tests/drills/run.py` runs all and shows their figures.

A drill is a test marked `drill` that takes the fixture `figure` and calls figure(name, value, wanted) for each number
it is about, before it asserts anything about it.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))             # for rig
FIGURES: list[dict[str, str]] = []


@pytest.fixture
def figure(request) -> Callable[[str, object, object], None]:
    """Report a figure of a drill: its name, what was measured, what is wanted."""
    def report(name: str, value: object, expected: object = "") -> None:
        request.node.user_properties.append(("figure", {"figure": name, "value": str(value), "wanted": str(expected)}))
    return report


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" and "drill" in report.keywords:
        drill = {"drill": report.nodeid.split("::")[-1], "outcome": report.outcome, "seconds": f"{report.duration:.0f}"}
        figures = [value for key, value in report.user_properties if key == "figure"]
        FIGURES.extend({**drill, **row} for row in figures or [{"figure": "", "value": "", "wanted": ""}])


def pytest_terminal_summary(terminalreporter) -> None:
    if not FIGURES:
        return
    names = list(FIGURES[0])
    table = [names, *([row[name] for name in names] for row in FIGURES)]
    widths = [max(len(row[column]) for row in table) for column in range(len(names))]
    terminalreporter.section("figures")
    for row in table:
        terminalreporter.line("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    path = Path(os.environ.get("FIGURES", "drills.json"))
    path.write_text(json.dumps(FIGURES, indent=1))
    terminalreporter.line(f"-> {path}")
