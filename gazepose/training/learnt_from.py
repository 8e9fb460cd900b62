"""What weights have learnt from: rendered faces, real faces, or both; in this run and in those that it started from."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from gazepose.records import from_json


@dataclass(frozen=True, kw_only=True)
class LearntFrom:
    """The record `learnt_from` in config.json of a run and of its checkpoints. Each name is listed once."""

    rendered: tuple[str, ...] = ()
    """embedded worlds"""
    real: tuple[str, ...] = ()
    """data sets of real faces, by folder or by name"""
    unknown: tuple[str, ...] = ()
    """start weights that do not say what they have learnt from"""
    labels: tuple[str, ...] = ()
    """who made labels that no person gave, such as a landmark score"""
    start: tuple[str, ...] = ()
    """start weights, each with its licence as far as it is known"""
    boxes: tuple[str, ...] = ()
    """how crops of rendered faces lie on the face: as annotated boxes, or as a face detector's; they suit both if both
    are listed"""

    def __add__(self, other: "LearntFrom") -> "LearntFrom":
        both = {field.name: (*getattr(self, field.name), *getattr(other, field.name)) for field in fields(self)}
        return LearntFrom(**{name: tuple(dict.fromkeys(values)) for name, values in both.items()})

    def __str__(self) -> str:
        return "; ".join(f"{field.name}: {', '.join(getattr(self, field.name))}" for field in fields(self)
                         if getattr(self, field.name))

    def warning(self, rendered: bool) -> str | None:
        """A line for scores of real faces by weights that have seen rendered faces only; otherwise None.

        Args:
            rendered: the faces that are scored are of an embedded world.
        """
        if rendered or self.real or self.unknown or not self.rendered:
            return None
        return (f"these weights have learnt from rendered faces only ({', '.join(self.rendered)}), so their scores of "
                "real faces are not tested")


def data_set(root: Path, preset: str | None, seed: int, labels: str | None, boxes: tuple[str, ...] = ()) -> LearntFrom:
    """What a training on a data set learns from.

    Args:
        preset, seed: of an embedded world; preset None: of real faces. labels: who made them, if no person did.
        boxes: of rendered faces, see LearntFrom.
    """
    makers = (labels,) if labels else ()
    if preset is None:
        return LearntFrom(real=(str(root),), labels=makers)
    return LearntFrom(rendered=(f"embedded world {preset}, seed {seed}",), labels=makers, boxes=boxes)


def learnt_from(config: Mapping[str, Any], path: Path) -> LearntFrom:
    """What the weights of a checkpoint have learnt from.

    Args:
        config: its config.json; one of an older version does not say.
        path: named in messages.

    Raises:
        ValueError: the record is damaged.
    """
    record = config.get("learnt_from")
    return LearntFrom(unknown=(str(path),)) if record is None else from_json(LearntFrom, record, path)
