#!/usr/bin/env bash
# What: a training on several machines, the same command on each. HEAD=HOST[:PORT] MACHINES=2 hosts.sh FLAG ...
#       HEAD is one of them. PROCESSES=N starts N processes on each (default: one per GPU). torchrun's c10d rendezvous.
#       A HEAD of IPv6 with a port has brackets: HEAD=[fe80::1]:29500.
# How long: as train.py, after a rendezvous that waits 10 minutes for the last machine.
# Expect: "world: N processes on ..." with the N of all machines together; more in docs/cluster.md.
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
machines="${MACHINES:-1}" head="${HEAD:-localhost:0}"
if [ "$machines" -gt 1 ] && [ -z "${HEAD:-}" ]; then
  echo "error: MACHINES=$machines without HEAD -> name the machine where they meet: HEAD=host0:29500" >&2; exit 2
fi
case "$head" in
  \[*\]) head="$head:29500" ;;
  \[*\]:*) ;;
  *:*:*) head="[$head]:29500" ;;                    # IPv6, whose colons are no port
  *:*) ;;
  *) head="$head:29500" ;;
esac
if [ "$machines" -eq 1 ]; then                    # they meet in a file and on loopback, not on all interfaces
  export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
  meet=(--rdzv_conf store_type=file)
else
  meet=(--rdzv_endpoint "$head")
fi
exec torchrun --nnodes "$machines" --nproc_per_node "${PROCESSES:-gpu}" --rdzv_backend c10d "${meet[@]}" \
  --rdzv_id "${JOB:-gazepose}" train.py "$@"
