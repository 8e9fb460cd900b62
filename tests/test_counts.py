"""Counts in messages: 1 face, 2 faces."""

import ast
import re
from pathlib import Path

import pytest

from gazepose.text import counted

PACKAGE = Path(__file__).resolve().parents[1] / "gazepose"
THINGS = ("bouts|boxes|checkpoints|clips|columns|cores|corrections|crops|entries|faces|frames|lines|looks|models|"
          "people|persons|pictures|predictions|processes|records|rows|runs|scores|times|tracks|videos|windows")
PLURAL = re.compile(rf" (?:(?:damaged|labelled|rendered|scored|validation) )?(?:{THINGS})\b(?! per)")
OF_MANY = re.compile(r"\b(?:of|all|most|than|of its|the model's) $", re.IGNORECASE)        # 3 of 5 faces
MANY = {"len(uids)", "len(batch[0])", "frames", "len(entries) if isinstance(entries, dict) else 'no'", "len(videos)",
        "tasks", "window['frames']"}
"""numbers that are never 1 where they are printed"""


def counts_without_a_singular(file: Path) -> list[str]:
    """Places of f-strings with a whole number and then a plural, such as {len(rows)} rows."""
    found = []
    for text in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        parts = [ast.Constant(""), *text.values] if isinstance(text, ast.JoinedStr) else []
        for before, value, after in zip(parts, parts[1:], parts[2:], strict=False):
            if not isinstance(value, ast.FormattedValue) or not isinstance(after, ast.Constant):
                continue
            rounded = value.format_spec is not None and ast.unparse(value.format_spec)[-2] in "efg%"
            if PLURAL.match(after.value) and not rounded and ast.unparse(value.value) not in MANY and not (
                    isinstance(before, ast.Constant) and OF_MANY.search(before.value)):
                found.append(f"{file}:{value.lineno}: {{{ast.unparse(value.value)}}}{after.value[:30]}")
    return found


@pytest.mark.parametrize("room", sorted({file.parent for file in PACKAGE.rglob("*.py")}), ids=lambda room: room.name)
def test_a_count_has_a_singular(room):
    assert not [place for file in room.glob("*.py") for place in counts_without_a_singular(file)]


def test_a_count_without_a_singular_is_found(tmp_path):
    file = tmp_path / "a.py"
    lines = ['f"{n} faces"', 'f"{len(x):,} labelled rows -> y"', 'f"{a} and {b} clips"', 'f"3 of {n} faces"',
             'f"{n:.1f} frames"', 'f"{fps} frames per second"', "f\"{counted(n, 'face')} here\""]
    file.write_text("\n".join(lines))
    assert [place.split(":")[1] for place in counts_without_a_singular(file)] == ["1", "2", "3"]


def test_one_is_singular():
    assert [counted(n, "clip") for n in (0, 1, 2)] == ["0 clips", "1 clip", "2 clips"]
    assert (counted(1, "entry", "entries"), counted(1234, "person", "people", form=",")) == ("1 entry", "1,234 people")
