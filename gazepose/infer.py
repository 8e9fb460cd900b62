"""Score every face of a split: python -m gazepose.infer --split test --to-json

From top to bottom: weights, data, predict, pred.csv, the submission's JSON. All flags: docs/flags.md, or --help.
"""
# ruff: noqa: E402

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")     # before torch: waiting threads must not spin on shared cores

from gazepose.startup import end_at_interrupt, end_with_launcher

if __name__ == "__main__":
    end_at_interrupt("infer")
end_with_launcher()                                     # before the slow imports

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from gazepose.config import DataConfig, InferConfig, check_priors, parse, readable_errors, source_of
from gazepose.data.box_table import find_table
from gazepose.data.challenge import faces_on_disk, load_test_labels
from gazepose.data.index import Index
from gazepose.data.loader import make_loader
from gazepose.data.prepare import PrepareConfig
from gazepose.data.windows import BEHAVIOURS, WindowRule, quality_fit
from gazepose.evaluation.metrics import evaluate, metrics_line
from gazepose.evaluation.predictions import (
    faces,
    predictions_folder,
    refuse_links,
    save_scores,
    write_about,
    write_csv,
)
from gazepose.evaluation.submission import check, csv_to_json
from gazepose.io import write_json
from gazepose.models.gazepose import ModelConfig
from gazepose.processes import command
from gazepose.source import chosen_rows
from gazepose.training import checkpoint
from gazepose.training.distributed import share_preparation, start_accelerator
from gazepose.training.engine import predict
from gazepose.training.feature_cache import cache_features
from gazepose.training.learnt_from import learnt_from
from gazepose.training.provenance import check_data
from gazepose.training.runlog import world_line


def is_own_data(index: Index, root: Path, trained: Mapping[str, Any], same_faces: bool) -> bool:
    """Whether a split is of the data set that a checkpoint was trained on; it may have moved. A published file does not
    say which that was.

    Args:
        trained: the checkpoint's config.json; same_faces: by its rules, out of the same pictures.
    """
    fingerprint, trained_root = trained.get("fingerprint"), trained.get("root")
    if isinstance(fingerprint, dict) and fingerprint.get(index.facts["split"]) == index.facts["fingerprint"]:
        return True
    return same_faces and trained_root is not None and Path(str(trained_root)).resolve() == root.resolve()


def is_best_of(run: Path, weights: Path) -> bool:
    """Whether these are the best weights of a run."""
    try:
        return checkpoint.weights_folder(run).resolve() == weights.resolve()
    except FileNotFoundError:
        return False


@readable_errors()
def main() -> None:
    with command("infer"):
        infer(parse(InferConfig))


def infer(config: InferConfig) -> None:
    split = config.guide.split_name(config.split)
    accelerator = start_accelerator(mixed_precision=config.mixed_precision)
    accelerator.print(world_line(accelerator, config.batch_size))

    # ---- weights, and the configuration they were trained with
    start = config.checkpoint or checkpoint.newest_finished(Path("runs"))
    refuse_links(config.exp_path or checkpoint.run_folder(start), split)
    model, trained = checkpoint.read_model(start)
    network = checkpoint.from_json(ModelConfig, trained["model"], start)
    data = checkpoint.from_json(DataConfig, trained.get("data"), start)
    prepared = checkpoint.from_json(PrepareConfig, trained.get("prepare"), start)
    preparation, run = config.preparation(prepared), checkpoint.run_folder(start)
    learnt = learnt_from(trained, start)
    config.guide.must_agree(vars(network), start, config.split)
    accelerator.print(f"model: {network.model} from {start}")

    # ---- data
    processes = share_preparation(accelerator, preparation.data_disk)
    check_data(config.data, trained, start)
    source = source_of(config.data, data, trained, start).ready(processes)
    index = source.split(split, preparation, processes)
    same_faces = (preparation.rules, preparation.crops_from) == (prepared.rules, prepared.crops_from)
    own_data = is_own_data(index, source.root, trained, same_faces)
    own_stride = data.test_stride if split == "test" else data.val_stride
    if not own_data and split != "test" and find_table(source.root, split):
        own_stride = 1                                                         # the user's own videos
    given_stride = config.guide.test_stride if split == "test" else config.guide.val_stride
    stride = config.stride or given_stride or own_stride
    rows = chosen_rows(index, stride, config.limit)
    check_priors(network, index, rows, config.allow_unknown_priors)
    windows = replace(data, gaussian_drop=config.gaussian_drop or data.gaussian_drop,
                      quality_scale=config.quality_scale or data.quality_scale,
                      quality_from=config.quality_from or data.quality_from)
    behaviour, fit = BEHAVIOURS[network.behaviour], trained["quality_fit"]
    # a published file brings no fit, and a fit holds for its own scale
    if fit is None or windows.quality_from == "split" or windows.quality_scale != data.quality_scale:
        fit = quality_fit(index, windows.quality_scale, behaviour, stride)
    rule = WindowRule.of(windows, reach=network.reach, stride=stride, test=split == "test", behaviour=behaviour,
                         quality_fit=fit)
    workers = data.num_workers if config.num_workers is None else config.num_workers
    loader = make_loader(index, rule, rows, batch_size=config.batch_size, crop_size=preparation.crop_size,
                         num_workers=workers, world_size=accelerator.num_processes,
                         pin_memory=accelerator.device.type == "cuda")

    # ---- predict: every face once, on all processes together; with --flip_average its mirror too
    model = accelerator.prepare_model(model.to(memory_format=torch.channels_last), evaluation_mode=True)
    loader = accelerator.prepare(loader)
    if (config.cache_features or data.cache_features) and not config.flip_average:      # which needs pixels
        cache_features(accelerator.unwrap_model(model).frames, [loader], processes, make=config.cache_features)
    scores = predict(accelerator, model, loader, rows, flip_average=config.flip_average)
    if not accelerator.is_main_process:
        return

    # ---- files
    label = (load_test_labels(source.root, index) if split == "test" else index.label)[rows]
    home, weights = config.exp_path or run, start if start.is_file() else checkpoint.weights_folder(start)
    settings: dict[str, Any] = {"stride": stride, "gaussian_drop": windows.gaussian_drop}
    if windows.gaussian_drop:
        settings |= {"quality_scale": windows.quality_scale, "quality_from": windows.quality_from}
    other = {name: value for name, value in settings.items() if value != {**vars(data), "stride": own_stride}[name]}
    if not own_data:
        other["data"] = str(index.folder.parent.resolve())
    if not is_best_of(home, weights):
        other["checkpoint"] = weights.name
    folder = predictions_folder(home, source.root.resolve().name, other)
    partial = ".partial" if config.limit or (split == "test" and stride > 1) else ""
    table = folder / split / f"pred{partial}.csv"
    write_csv(table, index, rows, label, scores.score)
    print(f"{len(rows)} faces -> {table}")
    about = {"checkpoint": str(weights), "data": str(source.root), "fingerprint": index.facts["fingerprint"],
             "limit": config.limit, "flip_average": config.flip_average, **settings, "learnt_from": asdict(learnt),
             "warning": learnt.warning(rendered=source.preset is not None)}
    for name, (old, new) in write_about(table.with_name(f"about{partial}.json"), about).items():
        print(f"predictions replaced: {name} {new}, before {old}")
    if about["warning"]:
        print(f"warning: {about['warning']}")
    if (label >= 0).any():
        result = evaluate(label, scores.score)
        write_json(folder / split / f"metrics{partial}.json", result)
        print(f"{split}: {metrics_line(result)}" + (f"  no mAP: {result['reason']}" if result["reason"] else ""))
    if config.to_json and split == "test":
        submission = table.with_name(f"submission{partial}.json")
        csv_to_json(table, submission)
        check(submission, faces(index, rows) if partial else faces_on_disk(source.root))
        print(f"submission checked, {len(rows)} faces -> {submission}")
    save_scores(folder, index, rows, label, scores.score, partial, scores.plain, trained.get("head_pose_fit"))
    if config.report and folder.name != "pred":
        print(f"report: only of a run's own predictions, so not of {folder}")
    elif config.report:
        from gazepose.report import make_report  # matplotlib is slow to import
        print(f"report -> {make_report(folder.parent)}")


if __name__ == "__main__":
    main()
