"""Train GazePose or a baseline: accelerate launch -m gazepose.train --model GazePose --prior_head

From top to bottom: configuration, data, model, resume, loop. All flags: docs/flags.md, or --help.
"""
# ruff: noqa: E402

if __name__ == "__main__":                              # reads the flags before the slow imports
    from gazepose.programs import program
    raise SystemExit(program("train"))

import math
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict as fields
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from torch import nn
from torch.distributed.elastic.multiprocessing.errors import record
from torch.utils.data import DataLoader

from gazepose.compat.start import find_start, start_from, start_from_imagenet, start_from_package
from gazepose.config import TrainConfig, asdict, check_priors, parse_train
from gazepose.data.index import Index
from gazepose.data.loader import BatchOrder, check_workers, make_loader, order_of
from gazepose.data.outcome import skipped
from gazepose.data.windows import BEHAVIOURS, WindowRule, counts_of, quality_fit
from gazepose.errors import readable_errors
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
from gazepose.models.average import RunningAverage, running_average, updates
from gazepose.processes import Overdue, Preempted, Processes, StopRequest, command, shield_workers
from gazepose.source import Source, chosen_rows
from gazepose.training import checkpoint
from gazepose.training.checkpoint import Progress
from gazepose.training.distributed import (
    check_alike,
    check_processes,
    from_main,
    in_step,
    share_preparation,
    start_accelerator,
)
from gazepose.training.engine import predict, train_steps
from gazepose.training.feature_cache import cache_features
from gazepose.training.graphs import prepare_launches, step_graphs
from gazepose.training.hub import pinned
from gazepose.training.learnt_from import LearntFrom, data_set, learnt_from
from gazepose.training.optim import make_optimizer
from gazepose.training.run_config import check_learning, check_same_data, data_read, face_heights, files_read
from gazepose.training.runlog import (
    RunLog,
    check_same_program,
    device_name,
    find_checkpoint,
    launched,
    versions,
    world_line,
)
from gazepose.training.shipped_start import default_card
from gazepose.training.trackers import check_tracker, start_tracker


@record                                                 # the launcher shows the traceback
@readable_errors()
def main(flags: tuple[TrainConfig, Source] | None = None) -> None:
    """Train a run. flags: as `parse_train` returns them; None: those of the command line."""
    with command("train") as stop:
        config, source = flags or parse_train()
        run = config.run
        check_tracker(run.log_with)
        if not run.resume:
            if run.checkpoint is not None:
                run = replace(run, checkpoint=pinned(run.checkpoint))
            low_pass = find_start(run, config.model, source.preset is not None)           # before data are prepared
            config = replace(config, run=run, model=replace(config.model, low_pass=low_pass))
        folder = run.exp_path or Path("runs") / f"{config.model.model}-{datetime.now():%Y%m%d-%H%M%S}"
        accelerator = start_accelerator(
            mixed_precision=run.mixed_precision, gradient_accumulation_steps=run.gradient_accumulation_steps,
            log_with=run.log_with, project_dir=folder)
        accelerator.print(world_line(accelerator, run.batch_size))
        check_processes(accelerator, run.processes, run.sync_batchnorm, run.gradient_accumulation_steps)
        check_same_program(asdict(config), accelerator)
        log = RunLog(from_main(accelerator, lambda: folder), accelerator)     # one clock names it for all processes
        record = {**asdict(config), "root": str(source.root), **launched(accelerator)}
        with log.running(run.resume, record, stop):
            train(config, source, accelerator, log, stop)


def train(config: TrainConfig, source: Source, accelerator: Accelerator, log: RunLog, stop: StopRequest) -> None:
    run = config.run

    # ---- data
    processes = share_preparation(accelerator, config.prepare.data_disk)
    data = open_splits(config, source, accelerator, processes)
    label = data.train_index.label[data.train_rows]
    weights = run.weights or (class_weights(label) if run.label_weight > 0 else (1.0, 1.0))
    loss = run.rule(weights)
    accelerator.print(f"data: {source.root}, windows for training: {len(data.train_rows)}, for validation: "
                      f"{len(data.val_rows)}, class weights {weights[0]:.3f} {weights[1]:.3f}")

    # ---- model
    resumed = find_checkpoint(log.folder, accelerator) if run.resume else None
    if resumed is not None:
        checkpoint.check_size(resumed, config.model, log.folder)
    torch.manual_seed(run.seed)
    model = build_model(config.model).to(memory_format=torch.channels_last)
    learnt = learnt_from(log.earlier, log.folder)
    if resumed is None:
        learnt = initial_weights(model, config, source, log.folder, accelerator)
    if run.sync_batchnorm:
        model = sync_batchnorm(model)
    frames: Any = model.frames
    if config.optim.freeze_backbone:
        frames.backbone.requires_grad_(False)
    optimizer = make_optimizer(model, config.optim)
    average = running_average(model, config.optim.ema) if config.optim.ema else None
    prepare_launches(accelerator, model, run.compile)
    wrapped, optimizer, data.train_loader, data.val_loader = accelerator.prepare(
        model, optimizer, data.train_loader, data.val_loader)
    if average is not None:
        average.to(accelerator.device)

    # ---- resume, also mid-epoch
    progress = Progress(world_size=accelerator.num_processes)
    record = config_record(config, source, data, weights, learnt, log.earlier, accelerator)
    if resumed is not None:
        check_same_data(log.folder, log.earlier, record, data.indexes, resumed)
        progress = checkpoint.resume(resumed, model, optimizer, accelerator.scaler, accelerator.num_processes,
                                     run.processes is not None, average and average.module)
        data.order.epoch = progress.epoch
        if progress.consumed and progress.order != data.order.fingerprint():
            raise ValueError(f"{resumed}: it stopped in an epoch with other windows or another order -> "
                             f"{checkpoint.own_flags(resumed, log.folder)}")
        accelerator.print(f"resume: {resumed}, epoch {progress.epoch + 1}, step {progress.step}, "
                          f"best mAP {progress.best_mAP:.3f}")
    if config.data.cache_features:
        accelerator.print("features: of whole, unmirrored crops, so --flip and --random_crop are off")
        cache_features(frames, (data.train_loader, data.val_loader), processes)
    graphs = step_graphs(accelerator, optimizer, data.order, run.compile)
    state = RunState(config, accelerator, log, stop, model, average, wrapped, optimizer, data, progress, record)

    # ---- loop
    per_step = data.order.after(run.gradient_accumulation_steps)                       # windows
    per_epoch = math.ceil(len(data.train_loader) / run.gradient_accumulation_steps)    # steps
    log.start(progress, per_epoch * run.epochs, state.record)
    start_tracker(accelerator, log.folder, state.record, progress.step)
    stop.at_once = False
    try:
        with in_step():
            if run.checkpoint and progress.step == 0:
                state.validate(0)                                        # the score of the initial weights
            for epoch in range(progress.epoch, run.epochs):
                data.order.epoch, data.order.start = epoch, progress.consumed
                progress.order = data.order.fingerprint()
                # 0 unless the number of processes has changed
                ahead = epoch * per_epoch + progress.consumed // per_step - progress.step
                moved = average and updates(average, model, per_epoch, ahead)
                for steps in train_steps(accelerator, wrapped, optimizer, data.train_loader, step=progress.step,
                                         ahead=ahead, total=log.total, seed=run.seed, loss=loss, optim=config.optim,
                                         epoch=epoch, mirror_priors=BEHAVIOURS[config.model.behaviour].mirror_priors,
                                         save_every=run.save_steps, stop=stop, moved=moved, graphs=graphs):
                    progress.step, progress.consumed = steps[-1].step + 1, data.order.after(steps[-1].batches)
                    for step in steps:
                        log.step(step, epoch)
                    if steps[-1].stopping:
                        raise Preempted(f"after step {progress.step}")
                    state.save_if_due()
                reached = state.validate(epoch + 1)
                progress.epoch, progress.consumed = epoch + 1, 0
                state.save(reached)
    except Preempted as stopped:
        state.save()
        if not isinstance(stopped, Overdue):
            accelerator.wait_for_everyone()                              # the first to end ends the others
        raise
    log.bar.close()                                                      # the lines that follow stand below it
    accelerator.wait_for_everyone()
    accelerator.end_training()
    if line := check_learning(progress.skipped, progress.step, log.folder):
        accelerator.print(line)
    reached = f"{progress.best_mAP:.3f}" if progress.best_mAP >= 0 else "none, the newest"
    if log.main:
        print(f"best val_mAP={reached}, weights in {log.folder / checkpoint.BEST}")


@dataclass
class Splits:
    """The rows of a training and of its validation, and the loaders that batch them."""

    train_index: Index
    val_index: Index
    train_rows: np.ndarray
    """int64 [N] ascending, centre rows"""
    val_rows: np.ndarray
    train_loader: DataLoader
    val_loader: DataLoader
    order: BatchOrder
    """of the training loader"""
    quality_fit: Any
    """of the training split, which inference uses too"""

    @property
    def indexes(self) -> dict[str, Index]:
        return {"train": self.train_index, "val": self.val_index}


def open_splits(config: TrainConfig, source: Source, accelerator: Accelerator, processes: Processes) -> Splits:
    """Open the training rows and val, prepared on first use, and batch them for all processes.

    Raises:
        ValueError: a prior that the model queries with is unknown for every row; too little shared memory.
    """
    data, run, behaviour = config.data, config.run, BEHAVIOURS[config.model.behaviour]
    rule = WindowRule.of(data, reach=config.model.reach, stride=data.train_stride, behaviour=behaviour, train=True,
                         seed=run.seed)
    check_workers(data.num_workers, rule, run.batch_size, config.prepare.crop_size)      # preparation may take hours
    if data.num_workers:
        shield_workers()
    source.ready(processes)
    train_index = source.split(run.rows_of, config.prepare, processes)
    val_index = source.split("val", config.prepare, processes)
    train_rows = chosen_rows(train_index, data.train_stride, data.limit, labelled=run.label_weight > 0)
    val_rows = chosen_rows(val_index, data.val_stride, data.limit)
    for index in (train_index, val_index):
        check_alike(processes.gather, f"data in {index.folder}", files_read(index, config.model, data, run),
                    "give every machine the same videos and priors; delete this folder where it is wrong")
    if not len(train_rows) and run.label_weight > 0:
        raise ValueError(f"{train_index.folder}: none of its {len(train_index)} faces has a label -> add labels to "
                         f"the annotations of {run.rows_of}, and start again")
    if run.gaze_weight > 0 and run.label_weight <= 0 and not np.isfinite(train_index.gaze[train_rows]).any():
        raise ValueError(f"{train_index.folder}: the gaze of none of its faces is known, so nothing can be learnt "
                         "-> train on labels (--task lam), or on an embedded world")
    for index, rows in ((train_index, train_rows), (val_index, val_rows)):
        check_priors(config.model, index, rows, run.allow_unknown_priors)
        accelerator.print(f"data: {counts_of(index, rows)}")
        if line := skipped(index):
            accelerator.print(f"data: {line}")
    fit = quality_fit(train_index, data.quality_scale, behaviour, data.train_stride)
    rule = replace(rule, quality_fit=fit)
    val_rule = rule.for_evaluation(data.val_stride)
    if data.quality_from == "split":
        val_rule = replace(val_rule, quality_fit=quality_fit(val_index, data.quality_scale, behaviour,
                                                             data.train_stride))
    loading: dict[str, Any] = {
        "batch_size": run.batch_size, "crop_size": config.prepare.crop_size, "num_workers": data.num_workers,
        "world_size": accelerator.num_processes, "pin_memory": accelerator.device.type == "cuda"}
    train_loader = make_loader(train_index, rule, train_rows, **loading)
    val_loader = make_loader(val_index, val_rule, val_rows, **loading)
    return Splits(train_index, val_index, train_rows, val_rows, train_loader, val_loader, order_of(train_loader), fit)


def initial_weights(model: nn.Module, config: TrainConfig, source: Source, folder: Path, accelerator: Accelerator
                    ) -> LearntFrom:
    """Start from --checkpoint, or from ImageNet's weights: on real data if this machine has them, with --pretrained yes
    always; else from the package's, but not under behaviour published; say which, and warn of random weights on real
    data. Returns what they have learnt from.
    """
    run, start = config.run, None
    card = default_card(run, config.model)
    if run.checkpoint:
        start = start_from(model, run.checkpoint)
    elif run.pretrained == "yes" or (source.preset is None and run.pretrained is None):
        start = start_from_imagenet(model, config.model.backbone, fetch=run.pretrained == "yes")
    if start is None and card is not None:
        start = start_from_package(model, card)
    if start is not None:
        if accelerator.is_main_process:
            write_json(folder / "start.json", fields(start))
        accelerator.print(f"start: {start}")
        return start.learnt_from
    if run.pretrained == "no":
        accelerator.print("start: random weights (--pretrained no)")
    elif source.preset is not None:
        accelerator.print("start: random weights; for a better start, train with --task gaze first, and give that "
                          "run as --checkpoint")
    else:
        accelerator.print(f"start: WARNING: random weights, because this machine has no ImageNet weights of "
                          f"{config.model.backbone}. Such a model learns slowly -> add --pretrained yes to download "
                          "them; or --checkpoint FILE, such as Gaze360's file or a run of yours; or --pretrained no if "
                          "you mean it")
    return LearntFrom()


def config_record(config: TrainConfig, source: Source, data: Splits, weights: tuple[float, float], start: LearntFrom,
                  earlier: Mapping[str, Any], accelerator: Accelerator) -> dict[str, Any]:
    """What config.json of a run and of its checkpoints holds: the flags, and what the numbers depend on beside them.

    Args:
        start: what the first weights have learnt from; earlier: config.json of the run that is resumed.
    """
    pose_fit = fit_head_pose(data.train_index.head_pose[data.train_rows], data.train_index.label[data.train_rows])
    learnt = start + data_set(source.root, source.preset, source.seed, data.train_index.facts.get("labels"),
                              source.boxes())
    return {**asdict(config), "quality_fit": data.quality_fit, "class_weights": weights, "root": str(source.root),
            "head_pose_fit": None if pose_fit is None else pose_fit.tolist(),
            "face_heights": face_heights(data.train_index.box[data.train_rows]),
            **data_read(data.indexes, config.model, config.data, config.run),
            "learnt_from": fields(learnt), "changes": earlier.get("changes", []),
            "versions": versions(), "command": " ".join(sys.argv), **launched(accelerator),
            "device": accelerator.device.type, "device_name": device_name(accelerator)}


class RunState:
    """Where a run stands; validates it and saves it.

    With --ema, the running average is what the run makes: it is validated, its mAP says which step is the best, and
    best/ holds it. The mAP of the weights themselves is recorded beside.
    """

    def __init__(self, config: TrainConfig, accelerator: Accelerator, log: RunLog, stop: StopRequest, model: nn.Module,
                 average: RunningAverage | None, wrapped: nn.Module, optimizer: torch.optim.Optimizer, data: Splits,
                 progress: Progress, record: dict[str, Any]) -> None:
        self.run, self.accelerator, self.log, self.stop = config.run, accelerator, log, stop
        self.model, self.wrapped, self.optimizer, self.data = model, wrapped, optimizer, data
        self.average = average and average.module
        self.progress, self.record = progress, record
        self.saved, self.saved_at = replace(progress), time.monotonic()
        rows, index = data.val_rows, data.val_index
        pose_fit = record["head_pose_fit"]
        self.baselines = trivial_baselines(data.train_index.label[data.train_rows], pose_fit, index.head_pose[rows],
                                           index.label[rows])

    def validate(self, epochs: int) -> float | None:
        """Score val after so many epochs, record the result, and return its mAP; None where it is not defined."""
        result = self.score(self.wrapped)
        if self.average is not None:
            for buffer in self.average.buffers():        # each process saw other windows; the first one's are saved
                buffer.copy_(broadcast(buffer))
            result = {**self.score(self.average), "mAP_without_ema": result["mAP"]}
        self.log.validation(self.progress.step, epochs, result, self.baselines)
        return result["mAP"]

    def score(self, model: nn.Module) -> dict[str, Any]:
        """The measures of a model on val."""
        rows, index = self.data.val_rows, self.data.val_index
        scores = predict(self.accelerator, model, self.data.val_loader, rows, self.stop)
        score = scores.score
        if self.run.label_weight <= 0:
            assert scores.gaze is not None               # a run without a loss on labels has one on the gaze
            score = score_of_gaze(scores.gaze)
        result = evaluate(index.label[rows], score)
        if scores.gaze is not None:
            result["gaze_degrees"] = float(np.nanmedian(gaze_degrees(scores.gaze, index.gaze[rows])))
        return result

    def save(self, reached: float | None = -1.0) -> None:
        """Save a checkpoint unless nothing has changed since the last; before it the weights as best/, if the mAP that
        they reached is a record, or not defined: then the newest are kept."""
        if (reached is None or reached > self.progress.best_mAP) and self.accelerator.is_main_process:
            checkpoint.save_best(self.log.folder, self.average or self.model, self.record, self.progress.step)
        self.progress.best_mAP = max(self.progress.best_mAP, -1.0 if reached is None else reached)
        if self.accelerator.is_main_process and self.progress != self.saved:
            checkpoint.save_training(self.log.folder, self.model, self.optimizer, self.accelerator.scaler,
                                     self.progress, self.record, self.average)
        self.saved, self.saved_at = replace(self.progress), time.monotonic()

    def save_if_due(self) -> None:
        """Save after the steps and minutes of --save_every."""
        minutes = (time.monotonic() - self.saved_at) / 60
        steps_due = self.run.save_steps is not None and self.progress.step % self.run.save_steps == 0
        if steps_due or 0 < self.run.save_minutes <= minutes:
            self.save()

