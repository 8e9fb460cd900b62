"""The loss, the step and the prediction, on networks small enough to compute by hand or in milliseconds."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import nn

from gazepose.data.loader import make_loader
from gazepose.data.windows import WindowRule
from gazepose.models import Prediction
from gazepose.processes import Preempted
from gazepose.training import engine, runlog
from gazepose.training.checkpoint import Progress
from gazepose.training.engine import predict, train_steps
from gazepose.training.losses import LossRule, global_loss, loss_parts, pinball
from gazepose.training.optim import OptimConfig, learning_rate, make_optimizer
from gazepose.training.runlog import MAX_SKIPPED, RunLog


class Grey(nn.Module):
    """Looks at the mean level of the centre frame."""

    def __init__(self, gaze: bool = False):
        super().__init__()
        self.head, self.gaze = nn.Linear(1, 2), nn.Linear(1, 3) if gaze else None

    def forward(self, frames, window, priors):
        level = frames.mean((1, 2, 3))[window[:, window.shape[1] // 2], None]
        return Prediction(self.head(level), self.gaze(level) if self.gaze else None)


def rows(label, gaze=None) -> dict[str, torch.Tensor]:
    return {"label": torch.tensor(label), "row": torch.arange(len(label)),
            "gaze": torch.full((len(label), 2), torch.nan) if gaze is None else torch.tensor(gaze)}


def test_the_loss_is_torchs_weighted_cross_entropy_over_known_labels():
    logits = torch.randn(5, 2)
    rule = LossRule((0.2, 0.8))
    value, (_, samples, _) = global_loss(loss_parts(logits.requires_grad_(), None, rows([0, 1, -1, 1, 0]), rule), rule,
                                         Accelerator(cpu=True))
    known = [0, 1, 3, 4]
    expected = nn.functional.cross_entropy(logits[known], torch.tensor([0, 1, 1, 0]), torch.tensor([0.2, 0.8]))
    assert value.item() == pytest.approx(expected.item(), rel=1e-6) and samples == 4


def test_the_gaze_loss_counts_rows_with_a_known_gaze_only():
    gaze = torch.tensor([[0.1, 0.0, 0.2], [9.0, 9.0, 0.2]], requires_grad=True)
    rule = LossRule(label=0.0, gaze=2.0)
    value, (_, samples, _) = global_loss(
        loss_parts(torch.zeros(2, 2), gaze, rows([-1, -1], [[0.1, 0.0], [math.nan, 0.0]]), rule), rule,
        Accelerator(cpu=True))
    # no error: the spread of 0.2 costs 0.1 * 0.2 below and 0.1 * 0.2 above
    assert value.item() == pytest.approx(2 * 0.04, rel=1e-5) and samples == 1


def test_pinball_is_lowest_where_the_spread_holds_four_errors_in_five():
    errors = torch.linspace(-1, 1, 2001)
    def cost(spread: float) -> float:
        gaze = torch.stack([torch.zeros(2001), torch.zeros(2001), torch.full((2001,), spread)], 1)
        return pinball(gaze, torch.stack([errors, errors], 1)).mean().item()
    assert min(np.linspace(0.1, 1.5, 29), key=cost) == pytest.approx(0.8, abs=0.051)


def test_a_batch_without_a_known_row_is_a_step_of_zeros():
    model = Grey()
    rule = LossRule()
    value, (mean_loss, samples, _) = global_loss(
        loss_parts(model.head(torch.ones(2, 1)), None, rows([-1, -1]), rule), rule, Accelerator(cpu=True))
    value.backward()
    assert mean_loss == 0 and samples == 0 and not model.head.weight.grad.any()


def test_the_learning_rate_is_a_function_of_the_step():
    config = OptimConfig(lr=1e-3, min_lr=1e-5, warmup=0.1)
    rates = [learning_rate(step, 100, config) for step in range(100)]
    assert np.argmax(rates) == 10 and rates[10] == pytest.approx(1e-3)
    assert rates[0] == pytest.approx(1e-3 / 11) and rates[99] == pytest.approx(1e-5, rel=0.1)
    assert (np.diff(rates[10:]) < 0).all()


def test_matrices_decay_and_queries_do_not():
    class Parts(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.head_queries = nn.Linear(2, 2), nn.Embedding(3, 2)
            self.contents = nn.Parameter(torch.zeros(8, 2))
    groups = make_optimizer(Parts(), OptimConfig(weight_decay=0.1)).param_groups
    assert {group["weight_decay"]: len(group["params"]) for group in groups} == {0.1: 1, 0.0: 3}


@pytest.fixture
def grey_rows(index_of):
    """A track whose brighter half is looked from."""
    return index_of([range(100)], label=[0] * 50 + [1] * 50)


def loader_of(accelerator: Accelerator, index, count: int, batch_size: int = 10):
    """A prepared loader of the first rows of an index."""
    return accelerator.prepare(
        make_loader(index, WindowRule(), np.arange(count), batch_size=batch_size, crop_size=16))


def trained(index, accumulation: int = 1, batch_size: int = 20, poison: float | None = None, epochs: int = 1,
            save_every: int | None = None, rows: int = 100):
    torch.manual_seed(0)
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=accumulation)
    model, config = Grey(), OptimConfig(lr=0.1)
    rule = WindowRule(train=True, flip=False, random_crop=False)
    loader = make_loader(index, rule, np.arange(rows), batch_size=batch_size, crop_size=16)
    prepared = accelerator.prepare(model, make_optimizer(model, config), loader)
    if poison is not None:
        nn.init.constant_(model.head.weight, poison)
    steps = [step for epoch in range(epochs)
             for steps in train_steps(accelerator, *prepared, step=5 * epoch, total=5 * epochs, seed=0,
                                      loss=LossRule((0.5, 0.5)), optim=config, save_every=save_every)
             for step in steps]
    return model, steps


def test_training_moves_the_weights_and_counts_every_row(grey_rows):
    model, steps = trained(grey_rows, epochs=4)
    assert [step.step for step in steps] == list(range(20)) and sum(step.samples for step in steps) == 400
    assert np.mean([step.loss for step in steps[-5:]]) < 0.8 * np.mean([step.loss for step in steps[:5]])


def test_accumulated_batches_are_one_step(grey_rows):
    whole, steps = trained(grey_rows, batch_size=20)
    halves, more = trained(grey_rows, batch_size=10, accumulation=2)
    assert len(steps) == len(more) == 5
    torch.testing.assert_close(whole.head.weight, halves.head.weight, rtol=0.02, atol=0.002)


def test_the_last_batches_of_an_epoch_are_a_whole_step_if_they_are_fewer(grey_rows):
    norms = {}
    for accumulation in (1, 2, 3, 4):
        _, steps = trained(grey_rows, accumulation=accumulation, batch_size=100)
        norms[accumulation] = steps[-1].grad_norm
    assert norms == pytest.approx(dict.fromkeys(norms, norms[1])) and norms[1] > 0      # one batch of one to four


def test_steps_that_are_read_together_are_those_that_are_read_one_by_one(grey_rows, monkeypatch):
    one_by_one, steps = trained(grey_rows, batch_size=8, save_every=4)
    sizes, read = [], engine.read_steps
    monkeypatch.setattr(engine, "read_interval", lambda accelerator: 10)         # as on a GPU
    monkeypatch.setattr(engine, "read_steps", lambda unread, began: sizes.append(len(unread)) or read(unread, began))
    together, others = trained(grey_rows, batch_size=8, save_every=4)
    assert sizes == [4, 4, 2, 2, 1]                                              # after 4, 8, 10, 12 and 13 steps
    assert torch.equal(one_by_one.head.weight, together.head.weight)
    assert [replace(step, seconds=0, waited=0) for step in steps] == [
        replace(step, seconds=0, waited=0) for step in others]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_step_without_a_finite_gradient_is_skipped_and_says_so(grey_rows, value):
    _, steps = trained(grey_rows, poison=value)
    assert all(step.skipped for step in steps)


def test_a_run_of_skipped_steps_ends_the_training(grey_rows, tmp_path):
    _, (step, *_) = trained(grey_rows, poison=math.nan)
    log = RunLog(tmp_path, Accelerator(cpu=True))
    log.start(Progress(), 100, {})
    def steps(count: int) -> None:
        for _ in range(count):
            log.step(step, 0)
    steps(MAX_SKIPPED - 1)
    log.step(replace(step, grad_norm=1.0), 0)
    with pytest.raises(ValueError, match="not finite for 20 steps in a row -> start a new run with a lower --lr"):
        steps(MAX_SKIPPED)


def test_a_package_that_a_machine_cannot_have_has_no_version(monkeypatch):
    monkeypatch.setattr(runlog, "PACKAGES", ("torch", "decord-for-no-machine"))
    assert runlog.versions()["torch"] and runlog.versions()["decord-for-no-machine"] is None


def test_records_of_steps_that_come_again_are_cut(tmp_path):
    before = [{"kind": "train", "step": 1}, {"kind": "train", "step": 2}, {"kind": "val", "step": 2, "epoch": 1}]
    gone = [{"kind": "train", "step": 3}, {"kind": "train", "step": 4}, {"kind": "val", "step": 4, "epoch": 2}]
    lines = [json.dumps(entry) + "\n" for entry in before + gone]
    (tmp_path / "metrics.jsonl").write_text("".join(lines) + '{"kind": "tra')
    RunLog(tmp_path, Accelerator(cpu=True)).start(Progress(step=2, epoch=1), 9, {})
    assert (tmp_path / "metrics.jsonl").read_text() == "".join(lines[:3])
    RunLog(tmp_path, Accelerator(cpu=True)).start(Progress(step=2, epoch=0), 9, {})     # only its validation is missing
    assert (tmp_path / "metrics.jsonl").read_text() == "".join(lines[:2])


def test_a_stop_comes_with_the_step_and_between_two_batches_of_a_prediction(grey_rows):
    accelerator, model = Accelerator(cpu=True), Grey()
    loader = loader_of(accelerator, grey_rows, 100)
    stops = iter([False, True])
    steps = train_steps(accelerator, model, make_optimizer(model, OptimConfig()), loader, step=0, total=5, seed=0,
                        loss=LossRule(), optim=OptimConfig(), stop=lambda: next(stops))
    assert [step.stopping for _ in range(2) for step in next(steps)] == [False, True]
    with pytest.raises(Preempted):
        predict(accelerator, model, loader, np.arange(100), stop=lambda: True)


def test_every_row_is_scored_once_and_in_order(index_of):
    accelerator, model = Accelerator(cpu=True), Grey()
    loader = loader_of(accelerator, index_of([range(37)]), 37)
    nn.init.constant_(model.head.weight, 0)
    model.head.weight.data[1] = 1.0                     # brighter, that is later, rows score higher
    scored = predict(accelerator, model, loader, np.arange(37))
    assert scored.score.shape == (37,) and (np.diff(scored.score) >= -1e-3).all() and scored.score[-1] > scored.score[0]
    assert scored.gaze is None
    assert predict(accelerator, Grey(gaze=True), loader, np.arange(37)).gaze.shape == (37, 3)


class Left(Grey):
    """Looks at the mean level of the left half of the centre frame."""

    def forward(self, frames, window, priors):
        return super().forward(frames[..., :frames.shape[3] // 2], window, priors)


def test_flip_averaging_is_the_mean_over_a_picture_and_its_mirror(index_of):
    accelerator, model, flipped = Accelerator(cpu=True), Left(gaze=True), Left(gaze=True)
    flipped.load_state_dict(model.state_dict())
    forward = flipped.forward
    flipped.forward = lambda frames, *others: forward(frames.flip(3), *others)          # sees each picture mirrored

    def scored(index, model, **options):
        return predict(accelerator, model, loader_of(accelerator, index, 7, 3), np.arange(7), **options)

    noise = index_of([range(7)], noise=True)
    plain, mirrored, both = scored(noise, model), scored(noise, flipped), scored(noise, model, flip_average=True)
    assert plain.plain is None and np.array_equal(both.plain, plain.score) and (plain.score != mirrored.score).any()
    np.testing.assert_allclose(both.score, (plain.score + mirrored.score) / 2, atol=1e-6)
    np.testing.assert_allclose(both.gaze[:, 0], (plain.gaze[:, 0] - mirrored.gaze[:, 0]) / 2, atol=1e-6)
    np.testing.assert_allclose(both.gaze[:, 1:], (plain.gaze[:, 1:] + mirrored.gaze[:, 1:]) / 2, atol=1e-6)
    symmetric = scored(index_of([range(7)]), model, flip_average=True)       # grey faces are their own mirror
    np.testing.assert_allclose(symmetric.score, symmetric.plain, atol=1e-7)
    without_gaze = scored(noise, Left(), flip_average=True)
    assert without_gaze.gaze is None and without_gaze.plain.shape == (7,)


def test_a_missing_row_is_an_error(index_of):
    accelerator = Accelerator(cpu=True)
    loader = loader_of(accelerator, index_of([range(37)]), 36)
    with pytest.raises(RuntimeError, match="predicted 36 rows, 36 of them distinct, for 37 windows"):
        predict(accelerator, Grey(), loader, np.arange(37))


def test_scores_that_are_not_finite_are_an_error(index_of):
    accelerator, model = Accelerator(cpu=True), Grey()
    nn.init.constant_(model.head.weight, math.nan)
    with pytest.raises(RuntimeError, match="5 of 5 scores are not finite"):
        predict(accelerator, model, loader_of(accelerator, index_of([range(5)]), 5), np.arange(5))
