"""The models by name. All have one call: model(frames, window, head_pose, landmarks) -> Prediction."""

from torch import nn

from gazepose.models.gaze_lstm import BaselineLSTM, GazeLSTM
from gazepose.models.gazepose import FaceGaze, GazePose, ModelConfig, Prediction

__all__ = ["MODELS", "BaselineLSTM", "FaceGaze", "GazeLSTM", "GazePose", "ModelConfig", "Prediction", "build_model"]

MODELS: dict[str, type[nn.Module]] = {"GazePose": GazePose, "GazeLSTM": GazeLSTM, "BaselineLSTM": BaselineLSTM,
                                     "FaceGaze": FaceGaze}


def build_model(config: ModelConfig) -> nn.Module:
    """The model that `config` describes, at its random start."""
    return MODELS[config.model](config)
