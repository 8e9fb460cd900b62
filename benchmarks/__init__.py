"""Benchmarks: one script per goal, each ours against the plain reference way.

python -m benchmarks.run runs them all, python -m benchmarks.NAME one. They call gazepose and keep no copy of it.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")     # before torch: spinning threads would count as CPU-seconds
