"""Behaviours: where the published loaders make other windows of the same rows than one would want.

Two named sets of rules; `ModelConfig.behaviour` chooses one for the model (models/queries.py, models/transformer.py)
and for its windows alike. What follows from the rules is in data/windows.py, the learning rate in optim.py. Rows of
validation and test come in the order of the index under both: the published loaders shuffle them, which no score
depends on.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Behaviour:
    name: str
    share_frames: bool
    """in training, neighbouring windows share their frames under one flip and one crop; else every slot of every
    window is a picture of its own, cut at random for itself, and only the flip is one per window"""
    mirror_priors: bool
    """landmarks, head pose and their left and right follow the flip and the crop of the pixels"""
    black_is_missing: bool
    """a neighbour whose crop is all black counts as missing, so the others close up over it"""
    quality_of_key_frames: bool
    """in training only key frames (every stride-th position) have a quality; a frame without one is never dropped"""
    black_centre_at_test: bool
    """a blurred centre frame becomes black at test; else, and in training and validation always, it is spared"""
    landmarks_from: tuple[int, ...]
    """frames counted from the centre, the centre first; the first that has landmarks gives the window's"""
    landmarks_from_at_test: tuple[int, ...]
    """the same at test"""


BEHAVIOURS: dict[str, Behaviour] = {
    "intended": Behaviour(name="intended", share_frames=True, mirror_priors=True, black_is_missing=False,
                          quality_of_key_frames=False, black_centre_at_test=False, landmarks_from=(0,),
                          landmarks_from_at_test=(0,)),
    "published": Behaviour(name="published", share_frames=False, mirror_priors=False, black_is_missing=True,
                           quality_of_key_frames=True, black_centre_at_test=True,
                           landmarks_from=(0, -1, 1, -2, 2, 3, -3), landmarks_from_at_test=(0,)),
}
