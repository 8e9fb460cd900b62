"""Offline: crops -> columns of the index (quality, head pose, landmarks). NaN is unknown, never a number."""
