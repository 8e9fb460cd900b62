"""Comparison: several sets of scores of the same faces, each with its mean, spread, gain and 95 % intervals.

The one place where scores are compared; the report, sweeps and ensembles make their tables and pictures from its rows.

    entries = [Entry("baseline", {0: a, 1: b}), Entry("ours", {0: c, 1: d}, against="baseline")]
    rows = compare(label, clip, entries)            # scores by seed, each float [N]
    rows[1].mean["mAP"], rows[1].sd["mAP"]          # over the seeds: 0.712, 0.004
    rows[1].gain["mAP"].mean, .interval, .seeds     # paired: 0.031, (0.012, 0.049), 2
    markdown(["", "mAP", "gain"], [[row.name, spread(row, "mAP"), difference(row.gain.get("mAP"))] for row in rows])

An interval is a bootstrap over whole clips, because faces of one clip are not independent evidence. All sets see the
same draws, so that a difference is paired. It says nothing about the luck of a training; `sd` over several seeds does.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gazepose.evaluation.metrics import METRICS, Scored, evaluate, known_faces, percent

FEWEST_CLIPS = 5  # fewer have no interval
Interval = tuple[float, float]


@dataclass(frozen=True)
class Entry:
    """One line of a comparison before it is computed."""

    name: str
    scores: Mapping[int, np.ndarray]
    """probability of looking by seed, each float [N]; a single set has seed 0"""
    against: str | None = None
    """name of the entry that the gain is measured against; None: no gain"""


@dataclass(frozen=True)
class Gain:
    """How much a metric rises from the reference to an entry, over the seeds that both have."""

    mean: float | None
    """None where the metric is not defined"""
    interval: Interval | None = None
    """95 %, over clips, paired; None with fewer than five clips"""
    seeds: int = 1

    @property
    def sign(self) -> int | None:
        """1: a gain. -1: a loss. 0: neither is shown, because the interval holds 0 in tenths of a point, as tables give
        it. None: there is no interval."""
        if self.interval is None:
            return None
        low, high = (round(bound, 3) for bound in self.interval)
        return 1 if low > 0 else -int(high < 0)


@dataclass(frozen=True)
class Row:
    """One line of a comparison; `dataclasses.asdict` makes JSON values of it."""

    name: str
    results: dict[int, dict[str, Any]]
    """seed -> `metrics.evaluate`"""
    mean: dict[str, float | None]
    """every metric, over the seeds; None where it is not defined"""
    sd: dict[str, float | None]
    """standard deviation over the seeds; None with one seed"""
    interval: dict[str, Interval | None] = field(default_factory=dict)
    """95 %, over clips, of the mean; for the metrics asked for"""
    gain: dict[str, Gain] = field(default_factory=dict)
    """for the metrics asked for; empty without a reference, or without a seed that both have"""
    against: str | None = None


def compare(label: np.ndarray, clip: np.ndarray | None, entries: Sequence[Entry], metrics: Sequence[str] = ("mAP",),
            draws: int | None = None) -> list[Row]:
    """Compare sets of scores of the same faces.

    Args:
        label: int [N], 1 looking, 0 not looking, -1 unknown (left out).
        clip: the clip of each face, int [N]; None: unknown, so there are no intervals.
        entries: a reference may stand anywhere in them; names differ.
        metrics: keys of METRICS for which intervals and gains are computed.
        draws: of clips; None: 200, or 50 where there are many faces.

    Returns:
        One row per entry, in their order.

    Raises:
        ValueError: a score is not finite, or an array has another length; two entries have one name; a reference is
            not among the entries.
    """
    label = np.asarray(label)
    named = {entry.name: entry for entry in entries}
    if len(named) < len(entries):
        raise ValueError(f"entries {[entry.name for entry in entries]}: two have one name -> give each its own")
    if unknown := [entry.against for entry in entries if entry.against is not None and entry.against not in named]:
        raise ValueError(f"no entry {unknown[0]!r} to compare with -> name one of {', '.join(named)}")
    place: dict[tuple[str, int], int] = {}               # which column of the draws is which set
    sets: list[np.ndarray] = []
    for entry in entries:
        for seed, score in entry.scores.items():
            place[entry.name, seed] = len(sets)
            sets.append(np.asarray(score))
    drawn = {} if clip is None else resampled(label, sets, clip, metrics, draws)
    results = [evaluate(label, score) for score in sets]
    rows = []
    for entry in entries:
        own = {seed: results[place[entry.name, seed]] for seed in entry.scores}
        columns = [place[entry.name, seed] for seed in own]
        pairs = []
        if entry.against not in (None, entry.name):
            pairs = [(place[entry.against, seed], place[entry.name, seed]) for seed in own
                     if seed in named[entry.against].scores]
        rows.append(Row(
            entry.name, own,
            mean={key: _mean([result[key] for result in own.values()]) for key in METRICS},
            sd={key: _sd([result[key] for result in own.values()]) for key in METRICS},
            interval={key: _interval(drawn[key][:, columns]) if columns and key in drawn else None for key in metrics},
            gain={key: _gain(results, pairs, key, drawn.get(key)) for key in metrics} if pairs else {},
            against=entry.against))
    return rows


def _gain(results: Sequence[Mapping[str, Any]], pairs: Sequence[tuple[int, int]], metric: str,
          drawn: np.ndarray | None) -> Gain:
    values = [(results[first][metric], results[second][metric]) for first, second in pairs]
    if any(None in pair for pair in values):
        return Gain(None, seeds=len(pairs))
    interval = None
    if drawn is not None:
        first, second = np.array(pairs).T
        interval = _interval(drawn[:, second] - drawn[:, first])
    return Gain(float(np.mean([after - before for before, after in values])), interval, len(pairs))


def _interval(drawn: np.ndarray) -> Interval:
    """Of the mean over the columns of [draws, sets]."""
    low, high = np.percentile(drawn.mean(1), (2.5, 97.5)).tolist()
    return low, high


def _mean(values: Sequence[float | None]) -> float | None:
    return float(np.mean(values)) if values and None not in values else None       # type: ignore[arg-type]


def _sd(values: Sequence[float | None]) -> float | None:
    return float(np.std(values, ddof=1)) if len(values) > 1 and None not in values else None  # type: ignore[arg-type]


def resampled(label: np.ndarray, sets: Sequence[np.ndarray], clip: np.ndarray, metrics: Sequence[str] = ("mAP",),
              draws: int | None = None) -> dict[str, np.ndarray]:
    """Metrics of several sets of scores when whole clips are drawn with replacement; the same draws for all sets.

    Args:
        As in `compare`; sets: each float [N].

    Returns:
        Key of METRICS -> float [draws, sets], without the draws that do not hold both classes. Empty with fewer than
        five clips, or when fewer than half of the draws hold both classes.
    """
    if draws is None:
        draws = 200 if len(label) < 50_000 else 50
    values: dict[str, list[list[float]]] = {key: [] for key in metrics}
    scored = [known_faces(label, score)[0] for score in sets]
    clip = np.asarray(clip)[np.asarray(label) >= 0]
    for rows in draws_of_clips(clip, draws) if scored else ():
        looking = scored[0].looking[rows]
        if looking.all() or not looking.any():
            continue
        faces = [Scored(looking, each.score[rows]) for each in scored]
        for key in metrics:
            values[key].append([METRICS[key].compute(each) for each in faces])
    return {key: np.array(drawn) for key, drawn in values.items() if len(drawn) > draws / 2}


def draws_of_clips(clip: np.ndarray, draws: int) -> Iterator[np.ndarray]:
    """Rows of as many clips as there are, drawn with replacement: int64 [about N], `draws` times."""
    names, inverse = np.unique(clip, return_inverse=True)
    if len(names) < FEWEST_CLIPS:
        return
    members = np.split(np.argsort(inverse, kind="stable"), np.cumsum(np.bincount(inverse))[:-1])
    random = np.random.default_rng(0)
    for _ in range(draws):
        yield np.concatenate([members[drawn] for drawn in random.integers(len(names), size=len(names))])


def reason_not_paired(first: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> str:
    """Why two tables of scores (columns row, label and, where known, clip, track, frame) are not of the same faces.

    Returns:
        Words that follow "they"; empty where the faces are the same.
    """
    for name in ("row", "clip", "track", "frame", "label"):
        if name in first and name in other and not np.array_equal(first[name], other[name]):
            return "scored different faces" if name != "label" else "have different labels for the same faces"
    return ""


# ---- words: the same numbers as cells of a table

def spread(row: Row, metric: str) -> str:
    """Mean over the seeds in percent with its standard deviation: "71.2 ± 0.4"."""
    sd = row.sd[metric]
    return percent(row.mean[metric]) + ("" if sd is None else f" ± {percent(sd)}")


def between(row: Row, metric: str) -> str:
    """Mean in percent with its 95 % interval over clips: "71.2 [69.0, 73.1]"."""
    return percent(row.mean[metric]) + _bracket(row.interval.get(metric))


def difference(gain: Gain | None) -> str:
    """Gain in points with its 95 % interval: "+3.1 [+1.2, +4.9]"; a dash without one."""
    return "–" if gain is None or gain.mean is None else percent(gain.mean, True) + _bracket(gain.interval, True)


def _bracket(interval: Interval | None, signed: bool = False) -> str:
    return "" if interval is None else f" [{percent(interval[0], signed)}, {percent(interval[1], signed)}]"


def markdown(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A Markdown table; columns are padded, so that it reads in a terminal too."""
    lines = [head, *body]
    width = [max(3, *(len(line[column]) for line in lines)) for column in range(len(head))]
    text = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(line, width, strict=True)) + " |" for line in lines]
    return "\n".join([text[0], "|" + "|".join("-" * (w + 2) for w in width) + "|", *text[1:]])
