"""Text: from files, bounded and in UTF-8, and for the terminal, without what would control it."""

from pathlib import Path
from typing import Any

from gazepose.io import open_regular, parse_json

MAX_TEXT = 2 << 30           # bytes of a list or a log: about ten million steps


def printable(text: object) -> str:
    """Text for a terminal: control characters and marks of direction, as file names may hold, become escapes."""
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in str(text))


def counted(number: int, one: str, several: str = "", form: str = "") -> str:
    """1 clip, 2 clips; `several` where it is not `one` with an s. form: of the number, such as ","."""
    return f"{number:{form}} {one if number == 1 else several or one + 's'}"


def read_text(path: str | Path, what: str = "text file", most: int = MAX_TEXT) -> str:
    """A text file in UTF-8; FileNotFoundError or ValueError naming it."""
    with open_regular(path, what, most) as file:
        try:
            return file.read().decode()
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: not UTF-8 text: {error} -> use another copy") from None


def read_json_lines(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The JSON objects of a file that has one a line, and how many lines are something else, as a killed writer leaves.

    Raises:
        FileNotFoundError, ValueError: naming the file.
    """
    objects, lines = [], read_text(path).splitlines()
    for line in lines:
        try:
            objects.append(parse_json(line.encode()))
        except (ValueError, RecursionError):
            continue
    objects = [line for line in objects if isinstance(line, dict)]
    return objects, len(lines) - len(objects)
