"""The models by name. All have one call: model(frames, window, priors) -> Prediction."""

from timm.layers.norm_act import convert_sync_batchnorm
from torch import nn

from gazepose.models.gaze_lstm import BaselineLSTM, GazeLSTM
from gazepose.models.gazepose import FaceGaze, GazePose, ModelConfig, Prediction
from gazepose.models.queries import Priors

__all__ = ["MODELS", "BaselineLSTM", "FaceGaze", "GazeLSTM", "GazePose", "ModelConfig", "Prediction", "Priors",
           "build_model", "sync_batchnorm"]

MODELS: dict[str, type[nn.Module]] = {"GazePose": GazePose, "GazeLSTM": GazeLSTM, "BaselineLSTM": BaselineLSTM,
                                     "FaceGaze": FaceGaze}


def build_model(config: ModelConfig) -> nn.Module:
    """The model that `config` describes, at its random start."""
    return MODELS[config.model](config)


def sync_batchnorm(model: nn.Module) -> nn.Module:
    """The same model and parameters, with BatchNorm over all processes; timm's, which keep their activation, too."""
    return convert_sync_batchnorm(model)
