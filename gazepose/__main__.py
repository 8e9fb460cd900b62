"""python -m gazepose <verb>: everything that is not training or inference."""

from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro
from accelerate import PartialState

from gazepose import checkpoint, submission
from gazepose.config import Preset, asdict, readable_errors
from gazepose.data.index import Index
from gazepose.models.published import read_published
from gazepose.predictions import faces
from gazepose.report import make_report
from gazepose.sources import Processes, find_source
from gazepose.synthetic.world import render_world


def prepare(split: Literal["train", "val", "test", "stills"], data: Path | None = None, preset: Preset = "default",
            world_seed: int = 0, policy: Literal["clean", "baseline"] = "clean", crop_size: int = 224,
            decoder: Literal["decord", "pyav"] = "decord") -> None:
    """Cut the faces of a split out of its videos; several processes share the clips under accelerate launch."""
    state = PartialState(cpu=not torch.accelerator.is_available())
    processes = Processes(state.process_index, state.num_processes, state.wait_for_everyone, state.print)
    source = find_source(data, preset, world_seed).ready(processes)
    index = source.split(split, processes, policy=policy, crop_size=crop_size, decoder=decoder)
    state.print(f"{len(index)} rows -> {index.folder}")


def synthetic(out: Path, preset: Preset = "default", seed: int = 0, jobs: int | None = None) -> None:
    """Render an embedded world into a folder, in the layout of Ego4D."""
    print(f"world -> {render_world(out, preset, seed, jobs)}")


def import_checkpoint(checkpoint_file: tyro.conf.Positional[Path], out: Path) -> None:
    """Turn a published checkpoint into model.safetensors and config.json, which infer.py takes as any other."""
    published = read_published(checkpoint_file)
    model, config = checkpoint.read_model(checkpoint_file)
    checkpoint.save_weights(out, model, {**config, "model": asdict(published.config)})
    left = ", ".join(published.left) or "none"
    print(f"{published.kind}: {len(published.taken)} entries taken, left: {left} -> {out}")


def submit(csv: tyro.conf.Positional[Path], index: Path | None = None, json: Path | None = None) -> None:
    """Build the evaluation server's JSON from a pred.csv, or check one.

    Args:
        csv: pred.csv of the test split, or a submission's JSON to check.
        index: prepared test set to check against: every face once.
        json: where the JSON goes; default: beside the CSV.
    """
    made = csv
    if csv.suffix != ".json":
        made = json or csv.with_name("submission.json")
        print(f"{submission.csv_to_json(csv, made)} faces -> {made}")
    if index is not None:
        opened = Index.open(index)
        counts = submission.check(made, faces(opened, np.arange(len(opened))))
        print(f"checked: {counts['faces']} faces, every one once")


def report(run: tyro.conf.Positional[Path]) -> None:
    """Write a run's report: pictures and one self-contained HTML page."""
    print(f"report -> {make_report(run)}")


def main() -> None:
    verbs = {"prepare": prepare, "synthetic": synthetic, "import": import_checkpoint, "submit": submit,
             "report": report}
    with readable_errors():
        tyro.extras.subcommand_cli_from_dict(verbs, prog="python -m gazepose", use_underscores=True)


if __name__ == "__main__":
    main()
