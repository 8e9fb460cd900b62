"""The embedded world can be learnt from its pixels, and the network does learn: more than the head pose gives away."""

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from gazepose.data.index import Index
from gazepose.data.loader import make_loader, order_of
from gazepose.data.windows import WindowRule
from gazepose.evaluation.metrics import evaluate, fit_head_pose, head_pose_scores
from gazepose.models import ModelConfig, build_model
from gazepose.synthetic.stills import render_stills
from gazepose.training.engine import predict, train_steps
from gazepose.training.losses import LossRule
from gazepose.training.optim import OptimConfig, make_optimizer

STILLS, LEARNT, EPOCHS, SIZE = 1200, 896, 2, 32


@pytest.mark.drill
def test_a_tiny_training_beats_head_pose_alone(tmp_path, figure):
    # people of the scored stills are in none of the learnt ones: ten stills a person, in order, and 128 a batch
    index = Index.open(render_stills(tmp_path, "tiny", 0, STILLS, SIZE, notify=lambda line: None))
    learnt, scored = np.arange(LEARNT), np.arange(LEARNT, STILLS)
    accelerator = Accelerator(cpu=True)
    torch.manual_seed(0)
    model = build_model(ModelConfig(model="FaceGaze", output_stride=8)).to(memory_format=torch.channels_last)
    optim = OptimConfig(lr=2e-3, warmup=0.1, weight_decay=0.05, clip=1.0)
    rule = WindowRule(train=True)
    model, optimizer, training, scoring = accelerator.prepare(
        model, make_optimizer(model, optim), make_loader(index, rule, learnt, batch_size=32, crop_size=SIZE),
        make_loader(index, rule.for_evaluation(1), scored, batch_size=64, crop_size=SIZE))
    done = 0
    for epoch in range(EPOCHS):
        order_of(training).epoch = epoch
        for steps in train_steps(accelerator, model, optimizer, training, step=done, total=EPOCHS * len(training),
                                 seed=0, loss=LossRule((0.5, 0.5), label=1, gaze=3), optim=optim):
            done = steps[-1].step + 1
    reached = evaluate(index.label[scored], predict(accelerator, model, scoring, scored).score)["mAP"]
    fit = fit_head_pose(index.head_pose[learnt], index.label[learnt])
    alone = evaluate(index.label[scored], head_pose_scores(fit, index.head_pose[scored]))["mAP"]
    figure("val mAP", f"{reached:.3f}", f"> {alone + 0.05:.3f}")
    assert alone < 0.72 and reached > alone + 0.05, (reached, alone)
