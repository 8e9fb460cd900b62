"""Dataclasses from JSON objects that a file holds."""

import math
from pathlib import Path
from typing import Any, TypeVar, get_origin, get_type_hints

from typeguard import TypeCheckError, check_type

Kind = TypeVar("Kind")


def from_json(kind: type[Kind], facts: Any, path: Path,
              remedy: str = "written by another version, or damaged; use another checkpoint") -> Kind:
    """Build a dataclass from a JSON object: every name known, every value of its type, every number finite.

    Raises:
        ValueError: naming the file and the first name or value that is wrong.
    """
    try:
        if not isinstance(facts, dict):
            raise TypeError(f"expected an object, this is a {type(facts).__name__}")
        hints, values = get_type_hints(kind), {}
        for name, value in facts.items():
            if name not in hints:
                raise TypeError(f"{name[:40]!r} is unknown")
            if isinstance(value, list) and get_origin(hints[name]) is tuple:     # JSON has no tuples
                value = tuple(value)
            elif isinstance(value, str) and hints[name] == Path | None:
                value = Path(value)
            try:
                values[name] = check_type(value, hints[name])
            except TypeCheckError as error:
                raise TypeError(f"{name}: {error}") from None
            infinite = isinstance(value, float) and not math.isfinite(value)
            if infinite or (isinstance(value, bool) and hints[name] in (int, float)):
                raise TypeError(f"{name} {value}")
        return kind(**values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {kind.__name__}: {error} -> {remedy}") from None
