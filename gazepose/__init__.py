"""Is a person in an egocentric video looking at the camera wearer? GazePose and its baselines."""

__version__ = "0.2.0"
