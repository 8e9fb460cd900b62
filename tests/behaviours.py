"""What the tests of the two behaviours share."""

import math
from typing import Any

from gazepose.data.windows import BEHAVIOURS, WindowRule

FIT = {"gaussian_drop": True, "quality_fit": (50.0, 10.0)}             # quality 0 has p 0, 100 has p 1


def rule_of(behaviour: str, **options: Any) -> WindowRule:
    return WindowRule(behaviour=BEHAVIOURS[behaviour], **options)


def landmarks(*known: int, count: int = 9) -> list[Any]:
    """Of a track: row n has all numbers n / 10 if it is known."""
    return [[[row / 10 if row in known else math.nan] * 3] * 5 for row in range(count)]
