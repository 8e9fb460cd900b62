"""Train GazePose or a baseline: accelerate launch -m gazepose.train --model GazePose --prior_head

From top to bottom: configuration, data, model, resume, loop. All flags: python train.py --help
"""
# ruff: noqa: E402

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")     # before torch: waiting threads must not spin on shared cores

from gazepose.processes import Preempted, StopRequest, end_with_launcher, shield_workers

end_with_launcher()                                     # before the slow imports

import math
import sys
import time
from dataclasses import asdict as fields
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch.distributed.elastic.multiprocessing.errors import record

from gazepose.config import TrainConfig, asdict, parse_train, readable_errors
from gazepose.data.loader import make_loader, order_of
from gazepose.data.skipped import skipped
from gazepose.data.windows import BEHAVIOURS, WindowRule, quality_fit
from gazepose.evaluation.metrics import (
    class_weights,
    evaluate,
    fit_head_pose,
    gaze_degrees,
    score_of_gaze,
    trivial_baselines,
)
from gazepose.io import write_json
from gazepose.models import build_model, sync_batchnorm
from gazepose.source import Source, chosen_rows
from gazepose.training import checkpoint, distributed
from gazepose.training.engine import LossRule, predict, train_steps
from gazepose.training.feature_cache import cache_features
from gazepose.training.optim import make_optimizer
from gazepose.training.runlog import RunLog, device_name, from_main, start_accelerator, versions, world_line


@record                                                 # the launcher shows the traceback
@readable_errors()
def main() -> None:
    config, source = parse_train()
    run = config.run
    folder = run.exp_path or Path("runs") / f"{config.model.model}-{datetime.now():%Y%m%d-%H%M%S}"
    accelerator = start_accelerator(
        mixed_precision=run.mixed_precision, gradient_accumulation_steps=run.gradient_accumulation_steps,
        log_with=run.log_with, project_dir=folder,
        kwargs_handlers=distributed.compressed_gradients(run.gradient_compression))
    accelerator.print(world_line(accelerator, run.batch_size))
    if run.expect_world not in (None, accelerator.num_processes):
        raise SystemExit(f"error: --expect_world {run.expect_world}, but {accelerator.num_processes} were started -> "
                         "see accelerate_configs/ for files that start what they say")
    distributed.check_flags(accelerator, run.gradient_compression, run.sync_batchnorm, run.resume,
                            config.data.cache_features)
    log = RunLog(from_main(accelerator, lambda: folder), accelerator)               # its clock named the folder
    with log.running(run.resume) as stop:
        train(config, source, accelerator, log, stop)


def train(config: TrainConfig, source: Source, accelerator: Accelerator, log: RunLog, stop: StopRequest) -> None:
    data, run, folder = config.data, config.run, log.folder

    # data: the index of each split, and its rows as batches for all processes
    if data.num_workers:
        shield_workers()
    processes = distributed.share_preparation(accelerator, config.prepare.data_disk)
    source.ready(processes)
    train_index, val_index = (source.split(name, config.prepare, processes) for name in (run.rows_of, "val"))
    train_rows = chosen_rows(train_index, data.train_stride, data.limit, labelled=run.label_weight > 0)
    val_rows = chosen_rows(val_index, data.val_stride, data.limit)
    behaviour = BEHAVIOURS[config.model.behaviour]
    fits = [quality_fit(index, data.quality_scale, behaviour, data.train_stride) for index in (train_index, val_index)]
    rule = WindowRule(reach=config.model.reach, stride=data.train_stride, windows_per_segment=data.windows_per_segment,
                      behaviour=behaviour, train=True, flip=data.flip, crop=data.random_crop,
                      gaussian_drop=data.gaussian_drop, quality_scale=data.quality_scale, quality_fit=fits[0],
                      seed=run.seed)
    val_rule = replace(rule.for_evaluation(data.val_stride), quality_fit=fits[data.quality_from == "split"])
    loading = {"batch_size": run.batch_size, "crop_size": config.prepare.crop_size, "num_workers": data.num_workers,
               "world_size": accelerator.num_processes, "pin_memory": accelerator.device.type == "cuda"}
    train_loader = make_loader(train_index, rule, train_rows, **loading)
    order = order_of(train_loader)
    val_loader = make_loader(val_index, val_rule, val_rows, **loading)
    weights = run.weights or (class_weights(train_index.label[train_rows]) if run.label_weight > 0 else (1.0, 1.0))
    accelerator.print(f"data: {source.root}, {len(train_rows)} training and {len(val_rows)} validation windows, "
                      f"class weights {weights[0]:.3f} {weights[1]:.3f}")
    for left in filter(None, map(skipped, (train_index, val_index))):
        accelerator.print(f"data: {left}")

    # model, from a checkpoint of this run if it is resumed
    found, damaged = from_main(accelerator, lambda: checkpoint.newest_whole(folder)) if run.resume else (None, [])
    for reason in damaged:
        accelerator.print(f"resume: passed over {reason}")
    torch.manual_seed(run.seed)
    sharded = distributed.is_sharded(accelerator)                    # which takes contiguous weights only
    model = build_model(config.model).to(memory_format=torch.contiguous_format if sharded else torch.channels_last)
    start = None if found else checkpoint.start_from(model, run.checkpoint) if run.checkpoint else \
        checkpoint.start_from_imagenet(model, config.model.backbone) if source.preset is None else None
    if not found:
        accelerator.print(f"start: {start or 'at random; launch/demo.sh trains the backbone first'}")
    if start and accelerator.is_main_process:
        write_json(folder / "start.json", fields(start))
    if run.sync_batchnorm:
        model = sync_batchnorm(model)
    if config.optim.freeze_backbone:
        model.frames.backbone.requires_grad_(False)
    optimizer = make_optimizer(model, config.optim)
    if run.compile:
        model.compile()
    model, optimizer, train_loader, val_loader = accelerator.prepare(model, optimizer, train_loader, val_loader)
    plain = build_model(config.model) if sharded else accelerator.unwrap_model(model)

    pose_fit = fit_head_pose(train_index.head_pose[train_rows], train_index.label[train_rows])
    baselines = trivial_baselines(train_index.label[train_rows], pose_fit, val_index.head_pose[val_rows],
                                  val_index.label[val_rows])
    kept = {**asdict(config), "quality_fit": rule.quality_fit, "class_weights": weights, "root": str(source.root),
            "head_pose_fit": None if pose_fit is None else pose_fit.tolist(),
            "fingerprint": {"train": train_index.facts["fingerprint"], "val": val_index.facts["fingerprint"]},
            "versions": versions(), "command": " ".join(sys.argv), "world_size": accelerator.num_processes,
            "device": accelerator.device.type, "device_name": device_name(accelerator)}
    loss = LossRule(weights, run.label_weight, run.gaze_weight)

    # resume, in the middle of an epoch too
    progress = checkpoint.Progress(world_size=accelerator.num_processes)
    if found:
        progress = checkpoint.resume(found, plain, optimizer, accelerator.scaler, accelerator.num_processes,
                                     run.elastic)
        order.epoch = progress.epoch
        if progress.consumed and progress.order != order.fingerprint():
            raise ValueError(f"{found}: stopped within an epoch of other windows, or in another order -> resume with "
                             f"the data, --seed, --train_stride, ... of {folder / 'config.json'}")
        accelerator.print(f"resume: {found}, epoch {progress.epoch + 1}, step {progress.step}, "
                          f"best mAP {progress.best_mAP:.3f}")
    elif run.resume:
        accelerator.print(f"resume: {folder} has no checkpoint yet, so it starts anew")
    if data.cache_features:
        cache_features(plain.frames, (train_loader, val_loader), processes)
    per_step = order.after(run.gradient_accumulation_steps)              # windows
    per_epoch = math.ceil(len(train_loader) / run.gradient_accumulation_steps)
    saved, saved_at = replace(progress), time.monotonic()
    log.start(progress, per_epoch * run.epochs, kept)

    def validate(epochs: int) -> float:
        scores = predict(accelerator, model, val_loader, val_rows, stop)
        score = scores.score if run.label_weight > 0 else score_of_gaze(scores.gaze)
        result = evaluate(val_index.label[val_rows], score)
        if scores.gaze is not None:
            result["gaze_degrees"] = float(np.nanmedian(gaze_degrees(scores.gaze, val_index.gaze[val_rows])))
        log.validation(progress.step, epochs, result, baselines)
        return result["mAP"] or 0.0

    def save() -> None:
        nonlocal saved, saved_at
        log.settle()
        if accelerator.is_main_process and progress != saved and not sharded:
            checkpoint.save_training(folder, plain, optimizer, accelerator.scaler, progress, kept)
        saved, saved_at = replace(progress), time.monotonic()

    # loop
    accelerator.init_trackers("gazepose")
    stop.at_once = False
    try:
        if run.checkpoint and progress.step == 0:
            validate(0)                                              # where the start stands
        for epoch in range(progress.epoch, run.epochs):
            order.epoch, order.start = epoch, progress.consumed
            progress.order = order.fingerprint()
            ahead = epoch * per_epoch + progress.consumed // per_step - progress.step  # 0 unless the world has changed
            for step in train_steps(accelerator, model, optimizer, train_loader, step=progress.step, ahead=ahead,
                                    total=log.total, seed=run.seed, loss=loss, optim=config.optim, epoch=epoch,
                                    mirror_priors=behaviour.mirror_priors, stop=stop):
                progress.step, progress.consumed = step.step + 1, order.after(step.batches)
                log.step(step, epoch)
                if log.stopping:
                    raise Preempted(f"after step {progress.step}")
                minutes = (time.monotonic() - saved_at) / 60
                if progress.step % (run.save_every or math.inf) == 0 or 0 < run.save_minutes <= minutes:
                    save()
            log.settle()
            reached = validate(epoch + 1)
            progress.epoch, progress.consumed = epoch + 1, 0
            if sharded:
                distributed.gather_weights(model, plain)
            if reached > progress.best_mAP and accelerator.is_main_process:
                checkpoint.save_weights(folder / "best", plain, kept)
            progress.best_mAP = max(progress.best_mAP, reached)
            save()
    except Preempted:
        save()
        accelerator.wait_for_everyone()                              # the first to end ends the others
        raise
    accelerator.wait_for_everyone()
    accelerator.end_training()
    accelerator.print(f"best val_mAP={progress.best_mAP:.3f}, weights in {folder / 'best'}")


if __name__ == "__main__":
    main()
