"""Run: an experiment from its file to the tables of its worlds."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from gazepose.experiments.sweep.plan import Experiment, plan
from gazepose.experiments.sweep.table import markdown, record_of
from gazepose.experiments.sweep.work import ONE_PROCESS, share, work
from gazepose.experiments.sweep.write import write_record
from gazepose.source import find_source


def run_sweep(experiment: Experiment, command: str, out: Path, *, data: Path | None = None,
              worlds: Sequence[str] | None = None, seeds: Sequence[int] | None = None, start: Path | None = None,
              flags: Sequence[str] = (), launch: str = ONE_PROCESS, jobs: int = 1, part: tuple[int, int] = (1, 1)
              ) -> list[str]:
    """Do what is left of an experiment, then write and print the table of each of its worlds.

    Args:
        command: how it was called, for the records.
        jobs: runs at a time; 0: none, the tables are made of what is there.
        part: (3, 8): only the third eighth of the predictions; a table is made where all of it is done.
        The others as of `python -m gazepose sweep`.

    Returns:
        What failed, in sentences.
    """
    source = find_source(data)
    setting = experiment.embedded if source.preset else experiment.ego4d
    if data is not None and source.preset:
        worlds = (source.preset,)                # the one that is there
    setting = replace(setting, worlds=tuple(worlds or setting.worlds), seeds=tuple(seeds or setting.seeds))
    extra = [*(("--data", str(data)) if data else ()), *flags]
    plans = [(world, plan(experiment, setting, world, extra, start)) for world in setting.worlds or (None,)]
    everything = [prediction for _, predictions in plans for prediction in predictions]
    failed = work(share(everything, part), jobs, launch) if jobs else []
    for world, predictions in plans:
        done = sum(prediction.file.exists() for prediction in predictions)
        if done < len(predictions) and jobs and not failed:
            print(f"sweep: {done} of {len(predictions)} predictions of {world or data} are there; no table yet")
            continue
        record = record_of(experiment, predictions, world, command)
        print(f"\n{record['title']}, {world or data}\n\n{markdown(record)}\ntable -> {write_record(out, record)}")
    return failed
