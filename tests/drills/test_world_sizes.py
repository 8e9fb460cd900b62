"""One, two and four processes with the same global batch: the same rows, losses alike, the same scores."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import warm
from rig import Rig, Run

pytestmark = pytest.mark.drill
ROOT = Path(__file__).resolve().parents[2]
WORLDS = (1, 2, 4)
BATCH = 16                       # windows of all processes together
SMALL = ["--crop_size", "32", "--num_encoder_layers", "1", "--num_decoder_layers", "1", "--dmodel", "64",
         "--dim_feedforward", "64", "--output_stride", "32", "--prior_head", "--num_workers", "0"]


def losses(run: Run) -> np.ndarray:
    lines = (json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines())
    return np.array([line["loss"] for line in lines if line["kind"] == "train"])


def test_the_same_rows_and_losses_alike(index_of, tmp_path, figure):
    random = np.random.default_rng(0)
    index = index_of([range(80)] * 4, noise=True, label=random.integers(0, 2, 320).tolist())
    rig = Rig(index.folder, tmp_path)

    def trained(world: int, seed: int = 0) -> np.ndarray:
        run = rig.run(f"world-{world}-{seed}", "--limit", "315", "--epochs", "2", "--batch_size", str(BATCH // world),
                      "--seed", str(seed), world=world, fault=("note_rows",))
        rows = sorted(int(row) for file in tmp_path.glob(f"world-{world}-{seed}.rows.*")
                      for row in file.read_text().split())
        assert run.status()["samples"] == len(rows) == 2 * 315
        figure(f"rows of two epochs, {world} processes", f"{len(rows)}, of them distinct {len(set(rows))}", "630, 315")
        assert rows == sorted([*set(rows)] * 2) and len(set(rows)) == 315
        return losses(run)

    curves = {world: trained(world) for world in WORLDS}
    noise = np.abs(trained(1, seed=1) - curves[1]).mean()
    for world in WORLDS[1:]:
        apart = np.abs(curves[world] - curves[1]).mean()
        figure(f"mean difference of a step's loss, {world} processes and 1", f"{apart:.4f}",
               f"<= {noise:.4f}, of two seeds")
        assert len(curves[world]) == len(curves[1]) == 2 * 20 and apart <= noise


def test_the_same_scores(tiny_world, tmp_path, figure):
    shutil.copytree(tiny_world, tmp_path / "world")
    warm.ran(str(ROOT / "train.py"), "--data", "world", "--exp_path", "run", "--epochs", "1", *SMALL,
             cwd=tmp_path)
    tables = {}
    for world in WORLDS:
        warm.ran(str(ROOT / "infer.py"), "--checkpoint", "run", "--split", "val", "--stride", "1",
                 "--batch_size", "7", "--exp_path", f"by-{world}", cwd=tmp_path, world=world)
        tables[world] = pd.read_csv(tmp_path / f"by-{world}" / "pred" / "val" / "pred.csv", dtype={"track": str})
        apart = (tables[world]["score"] - tables[1]["score"]).abs().max()
        figure(f"largest difference of a score, {world} processes and 1", f"{apart:.1e}", "<= 5e-6")
        figure(f"faces scored by {world} processes", len(tables[world]), len(tables[1]))
        assert tables[world].drop(columns="score").equals(tables[1].drop(columns="score")) and apart <= 5e-6
