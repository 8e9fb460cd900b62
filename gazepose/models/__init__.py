"""The models by name. All have one call: model(frames, window, priors) -> Prediction.

Names are imported when they are first used, because torch and timm take seconds.
"""

import importlib
from typing import TYPE_CHECKING, Any

from gazepose.models.config import ModelConfig

if TYPE_CHECKING:
    from torch import nn

    from gazepose.models.gaze_lstm import BaselineLSTM, GazeLSTM
    from gazepose.models.gazepose import FaceGaze, GazePose, Prediction
    from gazepose.models.queries import Priors

__all__ = ["BaselineLSTM", "FaceGaze", "GazeLSTM", "GazePose", "ModelConfig", "Prediction", "Priors", "build_model",
           "sync_batchnorm"]

MODELS = {"GazePose": "gazepose", "FaceGaze": "gazepose", "GazeLSTM": "gaze_lstm", "BaselineLSTM": "gaze_lstm"}
"""class -> its file"""
FILES = {**MODELS, "Prediction": "gazepose", "Priors": "queries"}


def __getattr__(name: str) -> Any:
    if name not in FILES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{FILES[name]}"), name)


def build_model(config: ModelConfig) -> "nn.Module":
    """The model that `config` describes, at its random start."""
    return __getattr__(config.model)(config)


def sync_batchnorm(model: "nn.Module") -> "nn.Module":
    """The same model and parameters, with BatchNorm over all processes; timm's, which keep their activation, too."""
    from timm.layers.norm_act import convert_sync_batchnorm
    return convert_sync_batchnorm(model)
