"""Calibration: one or two numbers that make scores mean what they say, without changing their order.

A temperature makes a model less or more sure. A bias moves the threshold: a model trained with class weights leans
towards the rarer class by the logarithm of their ratio.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from gazepose.experiments.ensemble.folds import cross_fitted

SURE = 20.0             # logits beyond are cut for the fit: one confident mistake shall not decide it alone
SHARPEST, FLATTEST = np.log(0.05), np.log(20.0)
LEAN = 10.0             # largest bias
GOLDEN = (np.sqrt(5) - 1) / 2


def logit(score: np.ndarray) -> np.ndarray:
    """log(p / (1 - p)) in float64; finite for 0 and 1 too, and rising wherever the scores rise."""
    score = np.clip(np.asarray(score, np.float64), 1e-300, 1 - 2.0 ** -53)
    return np.log(score) - np.log1p(-score)


class Calibration(NamedTuple):
    temperature: float = 1.0
    bias: float = 0.0

    def apply(self, score: np.ndarray) -> np.ndarray:
        """Scores float [N] -> float64 [N] in the same order."""
        return np.exp(-np.logaddexp(0, -(logit(score) / self.temperature + self.bias)))


def likelihood(label: np.ndarray, score: np.ndarray) -> float:
    """Mean negative log-likelihood of the known labels in nats; logits beyond +-20 count as 20.

    Args:
        label: int [N], -1 unknown (left out). score: float [N].
    """
    sign = np.where(label == 1, -1.0, 1.0)[label >= 0]
    return float(np.logaddexp(0, sign * np.clip(logit(score)[label >= 0], -SURE, SURE)).mean())


def lowest(cost: Callable[[float], float], low: float, high: float, steps: int = 36) -> float:
    """Where a function with one valley between low and high is lowest: golden section, to 3e-8 of the way."""
    inner = [high - GOLDEN * (high - low), low + GOLDEN * (high - low)]
    costs = [cost(inner[0]), cost(inner[1])]
    for _ in range(steps):
        if costs[0] <= costs[1]:
            high, inner[1], costs[1] = inner[1], inner[0], costs[0]
            inner[0] = high - GOLDEN * (high - low)
            costs[0] = cost(inner[0])
        else:
            low, inner[0], costs[0] = inner[0], inner[1], costs[1]
            inner[1] = low + GOLDEN * (high - low)
            costs[1] = cost(inner[1])
    return (low + high) / 2


def temperature(label: np.ndarray, score: np.ndarray, bias: bool = False) -> Calibration:
    """The temperature, 0.05 to 20, and with `bias` the bias too, under which the labels are likeliest.

    The likelihood is concave in (1 / temperature, bias), so there is one valley, and a search within a search finds it.

    Args:
        label: int [N], -1 unknown (left out).
        score: probability of looking, float [N].

    Raises:
        ValueError: without a label of each class there is nothing to fit.

    Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017; with a bias Platt's scaling.
    """
    label = np.asarray(label)
    if not (label == 1).any() or not (label == 0).any():
        raise ValueError(f"calibration: {(label == 1).sum()} looking and {(label == 0).sum()} not looking -> both are "
                         "needed; give it a labelled split")
    sign = np.where(label == 1, -1.0, 1.0)[label >= 0]
    logits = np.clip(logit(score)[label >= 0], -SURE, SURE)

    def cost(log_temperature: float, bias: float) -> float:
        return float(np.logaddexp(0, sign * (logits * np.exp(-log_temperature) + bias)).mean())

    def best_bias(log_temperature: float) -> float:
        return lowest(lambda value: cost(log_temperature, value), -LEAN, LEAN) if bias else 0.0

    found = lowest(lambda value: cost(value, best_bias(value)), SHARPEST, FLATTEST)
    return Calibration(float(np.exp(found)), best_bias(found))


def cross_fitted_likelihood(label: np.ndarray, score: np.ndarray, clip: np.ndarray, bias: bool = False) -> float:
    """`likelihood` of scores that are calibrated by the numbers of the other clips; as `temperature`, clip int [N]."""
    return likelihood(label, cross_fitted(clip, lambda rest, rows: temperature(label[rest], score[rest], bias)
                                          .apply(score[rows])))
