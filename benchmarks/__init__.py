"""Benchmarks: one script per goal, each ours against the plain reference way.

python -m benchmarks.run runs them all, python -m benchmarks.NAME one. They call gazepose and keep no copy of it.
"""

from gazepose.machine import let_waiting_threads_sleep

let_waiting_threads_sleep()              # spinning threads would count as CPU-seconds
