"""Submission: scores to pred.csv, pred.csv to the evaluation server's JSON, and the check before handing in.

Ids are text from end to end (a face called 00000 is not the number 0), scores keep every digit, and a file that has
its name is whole. How good the scores are is in metrics.py.
"""

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from gazepose.io import is_id, open_regular, read_json, writing
from gazepose.text import counted

CHALLENGE = {"version": "1.0", "challenge": "ego4d_looking_at_me"}
VAL_HEADER = ["clip", "track", "frame", "x1", "y1", "x2", "y2", "label", "score"]
REBUILD = "build it again with `python -m gazepose submit`"
MAX_TABLE = 4 << 30          # bytes of a pred.csv: about 40 million faces
FORMULA = ("=", "+", "@", "-", "\t", "\r")
"""what a spreadsheet takes for a formula at the start of a cell"""

Face = tuple[str, str, str]  # video_id, unique_id, track_id
TestRow = tuple[str, str, str, float]  # a face and its probability of looking


def write_val_csv(path: Path | str, rows: Iterable[Sequence[Any]]) -> None:
    """rows: (clip, track, frame, x1, y1, x2, y2, label, score), one per face; the file starts with a header."""
    with writing(Path(path), newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(VAL_HEADER)
        for clip, track, frame, x1, y1, x2, y2, label, score in rows:
            _no_formula(path, (clip, track))
            box = (float(x1), float(y1), float(x2), float(y2))  # a numpy float32 would be written with fewer digits
            table.writerow((clip, track, int(frame), *box, int(label), float(score)))


def write_test_csv(path: Path | str, rows: Iterable[TestRow]) -> None:
    """rows: (video_id, unique_id, track_id, score). Written without header as video_id,unique_id,track_id,1,score."""
    with writing(Path(path), newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        for video, unique, track, score in rows:
            _no_formula(path, (video, unique, track))
            table.writerow((video, unique, track, 1, float(score)))


def _no_formula(path: Path | str, names: Iterable[str]) -> None:
    """Refuse names that a spreadsheet would compute; `-` alone, as in -a1, is harmless in an id."""
    for name in names:
        if name.startswith(FORMULA) and not is_id(name):
            raise ValueError(f"{path}: the name {name!r:.140} would be a formula in a spreadsheet -> give it letters, "
                             "digits, _ . - only")


def read_test_csv(path: Path | str) -> list[TestRow]:
    """Rows of a test split's pred.csv, in their order.

    Raises:
        ValueError: a line that is not video_id,unique_id,track_id,1,score, with its number.
    """
    rows: list[TestRow] = []
    with io.TextIOWrapper(open_regular(path, "pred.csv", MAX_TABLE), encoding="utf-8", newline="") as file:
        for number, row in enumerate(_lines(path, file), 1):
            if not row:
                continue
            if len(row) != 5:
                raise ValueError(f"{path}: line {number}: expected video_id,unique_id,track_id,1,score, not "
                                 f"{counted(len(row), 'column')} -> give the pred.csv of the test split, not of val")
            video, unique, track, label, score = row
            try:
                rows.append((video, unique, track, float(score)))
                is_one = float(label) == 1
            except ValueError:
                raise ValueError(f"{path}: line {number}: label {label!r} or score {score!r} is not a number "
                                 "-> the file must have five columns and no header") from None
            if not is_one:
                raise ValueError(f"{path}: line {number}: label is {label} -> it must be 1, because the score is that "
                                 "of looking")
    return rows


def _lines(path: Path | str, file: TextIO) -> Iterator[list[str]]:
    try:
        yield from csv.reader(file)
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not CSV in UTF-8: {error} -> predict again") from error


def csv_to_json(csv_path: Path | str, json_path: Path | str) -> int:
    """Build the submission; rows keep their order, repeated ones too (`check` refuses those). Returns the rows.

    Raises:
        ValueError: a line that is not video_id,unique_id,track_id,1,score, or a score that is not finite.
    """
    rows = read_test_csv(csv_path)
    for number, (video, unique, track, score) in enumerate(rows, 1):
        if not math.isfinite(score):
            raise ValueError(f"{csv_path}: row {number} ({video}:{track}:{unique}): score is {score} -> predict again")
    results = [{"video_id": v, "unique_id": u, "track_id": t, "label": 1, "score": s} for v, u, t, s in rows]
    with writing(Path(json_path)) as file:
        file.write(json.dumps({**CHALLENGE, "results": results}, allow_nan=False))
    return len(rows)


NO_TEXT = "id that is not text (leading zeros are lost)", "ids that are not text (leading zeros are lost)"
NO_ONE = "label other than 1", "labels other than 1"


def _read_submission(path: Path) -> tuple[list[TestRow], list[str]]:
    """Rows of a submission's JSON and the faults of its form; one fault does not hide the others."""
    document = read_json(path, remedy=REBUILD)
    results = document.get("results") if isinstance(document, dict) else None
    if not isinstance(results, list) or any(not isinstance(entry, dict) for entry in results):
        raise ValueError(f"{path}: no list of entries under \"results\" -> {REBUILD}")
    faults = [f"{key} is {document.get(key)!r}, not {value!r}" for key, value in CHALLENGE.items()
              if document.get(key) != value]
    keys = ("video_id", "unique_id", "track_id")
    rows: list[TestRow] = []
    wrong: dict[tuple[str, str], list[str]] = {}
    for number, entry in enumerate(results, 1):
        ids, score = [entry.get(key) for key in keys], entry.get("score")
        if not all(isinstance(i, str) for i in ids):
            wrong.setdefault(NO_TEXT, []).append(f"entry {number}: {ids}")
        if type(entry.get("label")) is not int or entry["label"] != 1:
            wrong.setdefault(NO_ONE, []).append(f"entry {number}: {entry.get('label')!r}")
        number_like = isinstance(score, int | float) and not isinstance(score, bool) and -1e300 < score < 1e300
        rows.append((*map(str, ids), float(score) if number_like else math.nan))  # type: ignore[arg-type]
    return rows, faults + [_fault(words, examples) for words, examples in wrong.items()]


def _fault(words: tuple[str, str], examples: Sequence[str]) -> str:
    more = ", ..." if len(examples) > 3 else ""
    one, several = words
    return f"{counted(len(examples), one, several)}: {', '.join(examples[:3])}{more}"


def check(path: Path | str, expected: Iterable[Face]) -> int:
    """Refuse a submission that the server would refuse, or would score as something it is not.

    Args:
        path: the JSON, or the headerless CSV it is made from; recognised by their first character.
        expected: (video_id, unique_id, track_id) of every face that must be in it.

    Returns:
        The number of faces.

    Raises:
        ValueError: faces that are missing, repeated or invented, scores that are not finite or outside 0..1, ids that
            are not text, labels other than 1; counts and first examples of each in one message.
    """
    path = Path(path)
    with open_regular(path, "submission", MAX_TABLE) as file:
        is_json = file.read(4096).lstrip()[:1] in (b"{", b"[")
    rows, faults = _read_submission(path) if is_json else (read_test_csv(path), [])
    required = dict.fromkeys(tuple(map(str, face)) for face in expected)  # keeps the order for the examples
    counts = Counter(row[:3] for row in rows)

    def names(faces: Iterable[tuple]) -> list[str]:
        return [f"{video}:{track}:{unique}" for video, unique, track in faces]

    scores = [(f"{video}:{track}:{unique}={score}", score) for video, unique, track, score in rows]
    examples = {
        ("face missing", "faces missing"): names(face for face in required if face not in counts),
        ("face more than once", "faces more than once"): names(face for face, times in counts.items() if times > 1),
        ("face that the test set does not have", "faces that the test set does not have"): names(
            face for face in counts if face not in required),
        ("score not finite", "scores not finite"): [name for name, score in scores if not math.isfinite(score)],
        ("score outside 0..1", "scores outside 0..1"): [
            name for name, score in scores if math.isfinite(score) and not 0 <= score <= 1],
    }
    faults += [_fault(words, some) for words, some in examples.items() if some]
    if not rows:
        faults.append("no rows at all")
    if faults:
        raise ValueError(f"{path}: {counted(len(rows), 'row')} for {counted(len(required), 'face')}: "
                         f"{'; '.join(faults)} -> do not hand this in; run `python -m gazepose infer` on the whole "
                         "test split, and build it again")
    return len(rows)
