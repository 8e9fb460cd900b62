"""Score every face of a split: python -m gazepose.infer --split test --to-json

From top to bottom: weights, data, predict, pred.csv, the submission's JSON. All flags: docs/flags.md, or --help.
"""
# ruff: noqa: E402

if __name__ == "__main__":                              # reads the flags before the slow imports
    from gazepose.programs import program
    raise SystemExit(program("infer"))

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from gazepose.config import DataConfig, InferConfig, check_priors, parse, source_of
from gazepose.data.challenge import faces_on_disk, load_test_labels
from gazepose.data.loader import make_loader
from gazepose.data.prepare import PrepareConfig
from gazepose.data.windows import BEHAVIOURS, WindowRule, quality_fit
from gazepose.errors import readable_errors
from gazepose.evaluation.metrics import evaluate, metrics_line
from gazepose.evaluation.predictions import (
    FLIPPED,
    PLAIN,
    faces,
    predictions_folder,
    refuse_links,
    save_scores,
    write_about,
    write_csv,
)
from gazepose.evaluation.submission import Face, check, csv_to_json
from gazepose.io import write_json
from gazepose.models.gazepose import ModelConfig
from gazepose.processes import command
from gazepose.source import chosen_rows
from gazepose.text import counted, printable
from gazepose.training import checkpoint, runlog
from gazepose.training.distributed import in_step, share_preparation, start_accelerator
from gazepose.training.engine import predict
from gazepose.training.feature_cache import cache_features
from gazepose.training.hub import is_on_hub, pinned
from gazepose.training.learnt_from import learnt_from
from gazepose.training.provenance import allows_unknown_priors, check_data, origin_of, usual_stride


def is_best_of(run: Path, weights: Path) -> bool:
    """Whether these are the best weights of a run."""
    try:
        return checkpoint.weights_folder(run).resolve() == weights.resolve()
    except FileNotFoundError:
        return False


@readable_errors()
def main(flags: InferConfig | None = None) -> None:
    """Score a split. flags: as `parse` returns them; None: those of the command line."""
    with command("infer"):
        infer(flags or parse(InferConfig))


def infer(config: InferConfig) -> None:
    split = config.guide.split_name(config.split)
    accelerator = start_accelerator(mixed_precision=config.mixed_precision)
    accelerator.print(runlog.world_line(accelerator, config.batch_size))

    # ---- weights, and the configuration they were trained with
    start = pinned(config.checkpoint or runlog.newest_finished(Path("runs")))
    if is_on_hub(start) and config.exp_path is None:
        raise ValueError(f"{start}: its predictions have no folder yet -> add --exp_path FOLDER")
    refuse_links(config.exp_path or runlog.run_folder(start), split)
    model, trained = checkpoint.read_model(start)
    network = checkpoint.from_json(ModelConfig, trained["model"], start)
    data = checkpoint.from_json(DataConfig, trained.get("data"), start)
    prepared = checkpoint.from_json(PrepareConfig, trained.get("prepare"), start)
    preparation, run = config.preparation(prepared), runlog.run_folder(start)
    learnt = learnt_from(trained, start)
    config.guide.must_agree(vars(network), start, config.split)
    accelerator.print(f"model: {network.model} from {start}")

    # ---- data
    processes = share_preparation(accelerator, preparation.data_disk)
    check_data(config.data, trained, start)
    source = source_of(config.data, data, trained, start).ready(processes)
    index = source.split(split, preparation, processes)
    same_rules = (preparation.rules, preparation.crops_from) == (prepared.rules, prepared.crops_from)
    origin = origin_of(index, source.root, trained, same_rules)
    usual, reason = usual_stride(split, data, origin, embedded=source.preset is not None)
    given_stride = config.stride or (config.guide.test_stride if split == "test" else config.guide.val_stride)
    stride = given_stride or usual
    rows = chosen_rows(index, stride, config.limit)
    accelerator.print(f"data: {counted(len(rows), 'face')} of {split} in {source.root}, stride {stride}: "
                      f"{'as given' if given_stride else reason}")
    unknown = config.allow_unknown_priors
    check_priors(network, index, rows, allows_unknown_priors(trained) if unknown is None else unknown)
    windows = config.windows(data)
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
    cached = data.cache_features if config.cache_features is None else config.cache_features
    if cached and not config.flip_average:       # which needs pixels
        cache_features(accelerator.unwrap_model(model).frames, [loader], processes, make=bool(config.cache_features))
    with in_step():
        scores = predict(accelerator, model, loader, rows, flip_average=config.flip_average)
    if not accelerator.is_main_process:
        return

    # ---- files
    label = (load_test_labels(source.root, index) if split == "test" else index.label)[rows]
    home, weights = config.exp_path or run, start if start.is_file() else checkpoint.weights_folder(start)
    settings: dict[str, Any] = {"stride": stride, "gaussian_drop": windows.gaussian_drop}
    if windows.gaussian_drop:
        settings |= {"quality_scale": windows.quality_scale, "quality_from": windows.quality_from}
    folder = predictions_folder(home, index, settings, {**vars(data), "stride": usual}, own_data=origin == "own",
                                weights=None if is_best_of(home, weights) else weights.name,
                                flip_average=config.flip_average)
    partial = ".partial" if config.limit or (split == "test" and stride > 1) else ""
    table = folder / split / f"pred{partial}.csv"
    write_csv(table, index, rows, label, scores.score)
    print(f"{counted(len(rows), 'face')} -> {table}")
    about = {"checkpoint": str(start if is_on_hub(start) else weights), "data": str(source.root),
             "fingerprint": index.facts["fingerprint"], "limit": config.limit, "flip_average": config.flip_average,
             **settings, "learnt_from": asdict(learnt),
             "warning": learnt.warning(rendered=source.preset is not None)}
    for name, (old, new) in write_about(table.with_name(f"about{partial}.json"), about).items():
        print(printable(f"predictions replaced: {name} {new}, before {old}"))
    if about["warning"]:
        print(printable(f"warning: {about['warning']}"))
    if (label >= 0).any():
        result = evaluate(label, scores.score)
        write_json(folder / split / f"metrics{partial}.json", result)
        print(f"{split}: {metrics_line(result)}" + (f"  no mAP: {result['reason']}" if result["reason"] else ""))
    if config.to_json and split == "test":
        write_submission(table, source.root, faces(index, rows) if partial else None)
    save_scores(folder, index, rows, label, scores.score, partial, scores.plain, trained.get("head_pose_fit"))
    if config.report and folder.name not in (PLAIN, FLIPPED):
        print(f"report: only of a run's own predictions, so not of {folder}")
    elif config.report:
        from gazepose.report import make_report  # matplotlib is slow to import
        print(f"report -> {make_report(folder.parent)}")


def write_submission(table: Path, root: Path, names: list[Face] | None) -> None:
    """Turn pred.csv of test into the submission's JSON beside it, and check that every face is in it once.

    Args:
        names: of the faces that were scored, if these are not all; else they are the crops on the disk of `root`.
    """
    submission = table.with_name(table.name.replace("pred", "submission")).with_suffix(".json")
    csv_to_json(table, submission)
    print(f"submission checked, {counted(check(submission, names or faces_on_disk(root)), 'face')} -> {submission}")

