#!/usr/bin/env bash
# What: makes the environment if needed and runs the tests.
# How long: the installation, then under 6 minutes on 2 cores.
# Expect: every test passes; those that need golden vectors or a GPU say why they are skipped where there are none.
EXTRA=test
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"     # pytest runs on all cores already; threads on top wait for each other
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-PASSIVE}"      # and do not spin, where a test trains with several
processes="$(python -c "from gazepose.machine import cores; print(cores() + 1)")"    # tests of stopped processes mostly wait
exec python -m pytest -q -n "$processes" --dist loadfile --no-loadscope-reorder "$@"
