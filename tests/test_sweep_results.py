"""The table of a sweep's results: means, spreads, paired differences, and what is missing."""

import json
from dataclasses import replace

import numpy as np
import pytest
from test_sweep import experiment

from gazepose.experiments.drawing import draw_rows
from gazepose.experiments.plan import Experiment, Prediction, Row, Run
from gazepose.experiments.results import (
    markdown,
    read_records,
    record_of,
    rows_of,
    section,
    table_csv,
    verdict,
    write_record,
    write_results,
)


def scored_rows(tmp_path, gain: float = 1.0, rows: int = 600) -> tuple[Experiment, list[Prediction]]:
    """Two rows, two seeds; the second row's scores know `gain` times more."""
    random = np.random.default_rng(0)
    label, clip = random.integers(0, 2, rows), np.arange(rows) // 30
    predictions = []
    for row, skill in (("a", 1.0), ("b", 1.0 + gain)):
        for seed in (0, 1):
            noise = np.random.default_rng(seed).normal(0, 1, rows)          # of the seed alone
            prediction = Prediction(row, seed, Run((), tmp_path / f"{row}-{seed}"), "val")
            prediction.file.parent.mkdir(parents=True)
            np.savez(prediction.file, row=np.arange(rows), label=label, clip=clip,
                     score=1 / (1 + np.exp(-(skill * (label - 0.5) + noise))))
            (prediction.folder / "config.json").write_text(json.dumps(
                {"world_size": 1, "device": "cpu", "versions": {"commit": "abc"}, "run": {"epochs": 1}}))
            (prediction.folder / "status.json").write_text('{"seconds": 60}')
            (prediction.folder / "metrics.jsonl").write_text(
                '{"kind": "train", "step": 1}\n{"kind": "val", "step": 1, "baselines": {"head_pose": {"mAP": 0.62}, '
                '"prevalence": null}}\n')
            predictions.append(prediction)
    a = Row(name="a", published={"mAP": 70.0})
    return experiment(a, Row(name="b", published={"mAP": 75.0, "accuracy": 80.0})), predictions


def published(record) -> tuple[dict, dict]:
    """Of the second row and of the first."""
    return record["rows"][1]["published"], record["rows"][0]["published"]


def test_a_table_holds_means_spreads_and_paired_differences(tmp_path):
    two, predictions = scored_rows(tmp_path)
    record = record_of(two, predictions, "tiny", "command", draws=200)
    first, second = record["rows"]
    values = [run["mAP"] for run in second["runs"]]
    assert second["mean"]["mAP"] == pytest.approx(np.mean(values))
    assert second["sd"]["mAP"] == pytest.approx(abs(values[0] - values[1]) / 2**0.5)
    gain = second["gain"]["mAP"]
    assert first["gain"] is None and gain["mean"] == pytest.approx(second["mean"]["mAP"] - first["mean"]["mAP"])
    assert 0 < gain["interval"][0] < gain["mean"] < gain["interval"][1]
    found = rows_of(record)[1].gain["mAP"]
    assert verdict(found, *published(record)) == "gains; published +5.0, confirmed"
    assert verdict(found, {"mAP": 70.0}, {"mAP": 71.0}) == "gains; published -1.0, the contrary"
    assert verdict(found, {"mAP": 71.0}, {"mAP": 71.0}) == "gains"       # one published method in both rows
    assert record["faces"] == 600 and record["clips"] == 20 and record["missing"] == []
    text = markdown(record)
    assert "\n| b   | " in text and "75.00 / 80.00" in text and "20 clips" in text and "seeds 0, 1" in text
    assert "Without a model: head pose alone 62.0 mAP." in text
    assert len(table_csv(record).splitlines()) == 5
    for row in record["rows"]:
        row["published"] = {}
    lines = markdown(record).splitlines()
    assert "published" not in lines[0] and lines[3].endswith("| gains |")


def test_a_table_names_the_version_of_its_world(tmp_path):
    two, predictions = scored_rows(tmp_path)
    assert "“tiny”\n" in section(record_of(two, predictions, "tiny", "command", draws=20))
    predictions = [replace(one, run=replace(one.run, version=3)) for one in predictions]
    assert "“tiny”, version 3\n" in section(record_of(two, predictions, "tiny", "command", draws=20))


@pytest.mark.parametrize("name", ["b", "GazePose with a name that is rather long"])
def test_the_names_of_rows_are_inside_the_drawing(tmp_path, name):
    two, predictions = scored_rows(tmp_path)
    two = replace(two, row=(two.row[0], replace(two.row[1], name=name)))
    predictions = [replace(one, row=name) if one.row == "b" else one for one in predictions]
    figure = draw_rows(rows_of(record_of(two, predictions, "tiny", "command", draws=20)))
    figure.draw_without_rendering()
    assert all(label.get_window_extent().x0 >= 0 for label in figure.axes[0].get_yticklabels())


def test_rows_without_a_difference_are_called_so(tmp_path):
    two, predictions = scored_rows(tmp_path, gain=0.0)
    record = record_of(two, predictions, "tiny", "command", draws=200)
    gain = rows_of(record)[1].gain["mAP"]
    assert (gain.mean, gain.interval, gain.seeds) == (0, (0, 0), 2)
    assert verdict(gain, *published(record)) == "no difference seen; published +5.0"


def test_a_missing_prediction_is_named(tmp_path):
    two, predictions = scored_rows(tmp_path)
    predictions[3].file.unlink()
    record = record_of(two, predictions, "tiny", "command", draws=50)
    assert record["missing"] == ["b, seed 1"] and record["rows"][1]["gain"]["mAP"]["seeds"] == 1
    assert "Missing: b, seed 1." in markdown(record)


def test_predictions_of_other_faces_are_refused(tmp_path):
    two, predictions = scored_rows(tmp_path)
    columns = dict(np.load(predictions[2].file))
    np.savez(predictions[2].file, **columns | {"row": columns["row"] + 1})
    with pytest.raises(ValueError, match="b-0.*other faces than in .*a-0"):
        record_of(two, predictions, "tiny", "command")


def test_the_page_has_a_section_for_every_record(tmp_path):
    two, predictions = scored_rows(tmp_path)
    write_record(tmp_path / "results", record_of(two, predictions, "tiny", "python -m gazepose sweep x", draws=50))
    assert {file.name for file in (tmp_path / "results").iterdir()} == {f"two-tiny{end}" for end in
                                                                        (".json", ".md", ".csv", ".png")}
    (tmp_path / "results.md").write_text("# By hand\n\n## Measured here\n\nold")
    write_results(tmp_path / "results", tmp_path / "results.md")
    page = (tmp_path / "results.md").read_text()
    assert page.startswith("# By hand\n\n## Measured here\n\n### Two") and "old" not in page
    assert "### Two, embedded world “tiny”" in page and "(results/two-tiny.png)" in page and "commit abc" in page
    assert "`python -m gazepose sweep x`: 4 runs, 4 minutes" in page
    with pytest.raises(FileNotFoundError, match="no record -> python -m gazepose sweep"):
        read_records(tmp_path)
