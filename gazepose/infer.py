"""Score every face of a split: python -m gazepose.infer --split test --to-json

From top to bottom: weights, data, predict, pred.csv, the submission's JSON. All flags: docs/flags.md, or --help.
"""
# ruff: noqa: E402

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")     # before torch: waiting threads must not spin on shared cores

from pathlib import Path

import torch

from gazepose.config import DataConfig, InferConfig, check_priors, parse, readable_errors
from gazepose.data.challenge import faces_on_disk, load_test_labels
from gazepose.data.loader import make_loader
from gazepose.data.prepare import PrepareConfig
from gazepose.data.windows import BEHAVIOURS, WindowRule, quality_fit
from gazepose.evaluation.metrics import evaluate, metrics_line
from gazepose.evaluation.predictions import faces, results_folder, save_scores, write_csv
from gazepose.evaluation.submission import check, csv_to_json
from gazepose.io import write_json
from gazepose.models.gazepose import ModelConfig
from gazepose.source import chosen_rows, find_source
from gazepose.training import checkpoint
from gazepose.training.distributed import share_preparation, start_accelerator
from gazepose.training.engine import predict
from gazepose.training.feature_cache import cache_features
from gazepose.training.provenance import check_data
from gazepose.training.runlog import world_line


@readable_errors()
def main() -> None:
    config = parse(InferConfig)
    split = config.guide.split_name(config.split)
    accelerator = start_accelerator(mixed_precision=config.mixed_precision)
    accelerator.print(world_line(accelerator, config.batch_size))

    # ---- weights, and the configuration they were trained with
    start = config.checkpoint or checkpoint.newest_finished(Path("runs"))
    folder = results_folder(config.exp_path or checkpoint.run_folder(start), split)
    model, trained = checkpoint.read_model(start)
    network = checkpoint.from_json(ModelConfig, trained["model"], start)
    data = checkpoint.from_json(DataConfig, trained.get("data"), start)
    preparation = config.preparation(checkpoint.from_json(PrepareConfig, trained.get("prepare"), start))
    config.guide.must_agree(vars(network), start, config.split)
    accelerator.print(f"model: {network.model} from {start}")

    # ---- data
    check_data(config.data, trained, start)
    processes = share_preparation(accelerator, preparation.data_disk)
    source = find_source(config.data or data.data, data.preset).ready(processes)
    index = source.split(split, preparation, processes)
    strides = {"test": config.guide.test_stride or data.test_stride, "val": config.guide.val_stride or data.val_stride}
    stride = config.stride or strides[split]
    rows = chosen_rows(index, stride, config.limit)
    check_priors(network, index, rows, config.allow_unknown_priors)
    behaviour, scale, fit = BEHAVIOURS[network.behaviour], data.quality_scale, trained["quality_fit"]
    if fit is None or (config.quality_from or data.quality_from) == "split":   # a published file brings no fit
        fit = quality_fit(index, scale, behaviour, stride)
    rule = WindowRule(reach=network.reach, stride=stride, test=split == "test", behaviour=behaviour,
                      gaussian_drop=config.gaussian_drop or data.gaussian_drop, quality_scale=scale, quality_fit=fit)
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
    partial = ".partial" if config.limit or (split == "test" and stride > 1) else ""
    table = folder / split / f"pred{partial}.csv"
    write_csv(table, index, rows, label, scores.score)
    print(f"{len(rows)} faces -> {table}")
    if (label >= 0).any():
        result = evaluate(label, scores.score)
        write_json(folder / split / f"metrics{partial}.json", result)
        print(f"{split}: {metrics_line(result)}")
    if config.to_json and split == "test":
        submission = table.with_name(f"submission{partial}.json")
        csv_to_json(table, submission)
        check(submission, faces(index, rows) if partial else faces_on_disk(source.root))
        print(f"submission checked, {len(rows)} faces -> {submission}")
    save_scores(folder, index, rows, label, scores.score, partial, scores.plain, trained.get("head_pose_fit"))
    if config.report:
        from gazepose.report import make_report  # matplotlib is slow to import
        print(f"report -> {make_report(folder.parent)}")


if __name__ == "__main__":
    main()
