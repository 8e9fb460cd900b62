"""training.json: loss, gradients, BatchNorm statistics of one step, and the learning rate.

The learning rate is compared up to `T_max` epochs, where published runs end; beyond it the original's cosine rises
again, ours stays at its floor.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gazepose.training.optim import OptimConfig, learning_rate
from golden import Result, apart, read, rules, same, some
from golden.models import BETWEEN, FLOAT32

GRADIENT, SCHEDULE = 1e-3, 1e-9                                           # both relative


def check(folder: Path) -> Iterator[Result]:
    recorded, training = read(folder / "models.json"), read(folder / "training.json")
    some("training models", training["models"])
    for mode in some("modes", {mode: None for entry in training["models"].values() for mode, step in entry.items()
                               if isinstance(step, dict)}):
        yield from check_mode(recorded, training, mode)
    yield from check_schedule(training["cosine_lr_per_epoch"])


def check_mode(recorded: dict, training: dict, mode: str) -> Iterator[Result]:
    """One step of every model with BatchNorm in the mode; they have the same frames, and share their graph."""
    pool = rules.clip(recorded["inputs"]["clip_labels"][training["clip"]], recorded["inputs"]["batch"],
                      recorded["inputs"]["frames"])                       # unshared: B * T frames for B windows
    shared: list[Any] = []
    for name, entry in training["models"].items():
        if mode not in entry:
            continue
        model, config = rules.build(recorded, name, dropout=0.0)
        own = {key: value.clone() for key, value in model.frames.state_dict().items()}  # a step changes statistics
        if not shared or not all(torch.equal(own[key], shared[0][key]) for key in own):
            model.frames.load_state_dict(own, assign=True)
            before = {key: value.clone() for key, value in own.items()}
            shared = [before, model.frames, model.frames.train(mode != "eval")(pool)]
        model.train(mode != "eval")
        _, model.frames, maps = shared
        model.frames.zero_grad()
        model.frames.forward = lambda frames, maps=maps: maps
        for what, difference, tolerance in step(recorded, training, name, mode, model, config.split):
            yield Result(f"{name} {mode}: {what}", difference, tolerance)


def step(recorded: dict, training: dict, name: str, mode: str, model: Any, split: float) -> Iterator[Result]:
    entry, expected = training["models"][name], training["models"][name][mode]
    entries = rules.entries_of(recorded, name)
    key_of = rules.names(entries, rules.recognise(recorded["fill"]["salt"], entries).kind)
    case = training if "config" in recorded["models"][name] else {}       # the LSTMs read no priors
    window = rules.windows(recorded)
    with rules.published_landmarks():
        logits = model(window, window, rules.priors(recorded, case, split)).logits
    loss = nn.functional.cross_entropy(logits, torch.tensor(training["labels"]),
                                       weight=torch.tensor(training["class_weights"]))
    loss.backward(retain_graph=True)
    yield Result("logits", apart(logits.detach(), expected["logits"]), FLOAT32)
    yield Result("loss", apart(loss.detach(), expected["loss"]), FLOAT32)
    parameters = {key_of[key]: value for key, value in model.named_parameters()}
    norms = {key: None if value.grad is None else value.grad.double().norm().item()
             for key, value in parameters.items()}
    without = sorted(key for key, norm in norms.items() if norm is None)
    yield Result("no gradient", same(without, sorted(expected["no_gradient"])), 0)
    yield Result("zero gradient", same(sorted(key for key, norm in norms.items() if norm == 0),
                                       sorted(expected["zero_gradient"])), 0)
    yield Result("parameters", same((sum(value.numel() for value in parameters.values()),
                                     sum(parameters[key].numel() for key in without)),
                                    (entry["parameters"], entry["parameters_without_gradient"])), 0)
    for key, norm in some("gradient_norms", expected["gradient_norms"]).items():
        yield Result(f"gradient of {key}", apart(norms.get(key), norm) / (norm or 1), GRADIENT)
    total = math.sqrt(sum(norm**2 for norm in norms.values() if norm))
    wanted_total = expected["total_gradient_norm"]
    yield Result("total gradient", apart(total, wanted_total) / wanted_total, GRADIENT)
    statistics = {key_of[key]: value for key, value in model.named_buffers()}
    for key, first in expected.get("running_stats_after_one_step", {}).items():
        largest = max(abs(value) for value in first["first4"])
        yield Result(key, apart(statistics[key][:4], first["first4"]) / largest, BETWEEN)


def check_schedule(schedule: dict) -> Iterator[Result]:
    period = schedule["T_max"]
    for start, rates in some("cosine_lr_per_epoch", schedule["lr"]).items():
        config = OptimConfig(lr=float(start), min_lr=schedule["eta_min"])
        epochs = range(min(period + 1, schedule["epochs"]))
        worst = max(apart(learning_rate(epoch, period, config), rates[epoch]) / rates[epoch] for epoch in epochs)
        yield Result(f"learning rate from {start}", worst, SCHEDULE)
