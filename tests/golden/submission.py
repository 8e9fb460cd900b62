"""submission.json: predictions to the server's JSON."""

import json
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from gazepose.evaluation.submission import csv_to_json, write_test_csv
from golden import Result, read, same, some


def check(folder: Path) -> Iterator[Result]:
    recorded = read(folder / "submission.json")
    with TemporaryDirectory() as name:
        place = Path(name)
        for case in some("cases", recorded["cases"]):
            for what, difference, tolerance in check_case(case, place):
                yield Result(f"{case['name']}: {what}", difference, tolerance)


def write(path: Path, rows: list) -> None:
    write_test_csv(path, [(video, unique, track, score) for video, unique, track, _, score in rows])


def check_case(case: dict, folder: Path) -> Iterator[Result]:
    rows, expected = some("rows", case["rows"]), case["expected"]
    write(folder / "ours.csv", rows)
    yield Result("pred.csv", same((folder / "ours.csv").read_text(), case["pred_csv"]), 0)
    (folder / "pred.csv").write_text(case["pred_csv"])
    count = csv_to_json(folder / "pred.csv", folder / "submission.json")
    text = (folder / "submission.json").read_text()
    yield Result("rows", same(count, len(rows)), 0)
    yield Result("start of the text", same(text[:len(case["expected_text_start"])], case["expected_text_start"]), 0)
    results = [with_ids_as_text(entry, row) for entry, row in zip(expected["results"], rows, strict=True)]
    yield Result("JSON", same(json.loads(text), {**expected, "results": results}), 0)


def with_ids_as_text(entry: dict, row: list) -> dict:
    """The original reads ids of digits as numbers and loses their zeros (00001 becomes 1); ours are as in the CSV."""
    ids = {key: row[column] for column, key in enumerate(("video_id", "unique_id", "track_id"))}
    numbers = [key for key in ids if isinstance(entry[key], int) and entry[key] == int(ids[key])]
    return {**entry, **{key: ids[key] for key in numbers}}
