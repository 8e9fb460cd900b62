"""The two baselines: a BiLSTM over seven frames, and a small head on its output at the centre.

They have GazePose's call and ignore the priors. Gaze360's own network is GazeLSTM with its `gaze_head`.
"""

from torch import Tensor, nn

from gazepose.models.gazepose import VECTOR, FrameEncoder, GazeHead, ModelConfig, Prediction
from gazepose.models.low_precision import weights_cast_once
from gazepose.models.queries import Priors


class GazeLSTM(nn.Module):
    """Gaze360's network with a two-class head."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.frames = FrameEncoder(config)
        self.lstm = nn.LSTM(VECTOR, VECTOR, num_layers=2, batch_first=True, bidirectional=True)
        self.last_layer: nn.Module = nn.Linear(2 * VECTOR, 2)
        self.gaze_head = GazeHead(2 * VECTOR) if config.gaze_head else None

    @weights_cast_once
    def forward(self, frames: Tensor, window: Tensor, priors: Priors) -> Prediction:
        """As GazePose.forward; the priors are not read."""
        _, vectors = self.frames(frames)                                  # [F, 256]
        sequence, _ = self.lstm(vectors[window])                          # [B, T, 512]
        centre = sequence[:, window.shape[1] // 2]                        # [B, 512]
        return Prediction(self.last_layer(centre), None if self.gaze_head is None else self.gaze_head(centre))


class BaselineLSTM(GazeLSTM):
    """The Ego4D baseline: a head of two linear layers with nothing between, and a Kaiming start."""

    def __init__(self, config: ModelConfig):
        super().__init__(config)
        self.last_layer = nn.Sequential(nn.Linear(2 * VECTOR, 128), nn.Linear(128, 2))
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
