#!/bin/bash
# A scheduler beside a Ray node that offers no CPUs: its runners are Ray drivers and need a node on their own host.
# Ends as soon as either of the two ends, so that whoever restarts it (Compose, Kubernetes) gets both anew: a Ray
# node does not survive the loss of the cluster's head, and a scheduler without one would only fail its jobs.
#
# usage: deploy/scheduler.sh HEAD_HOST:PORT OBJECT_STORE_BYTES
set -euo pipefail

ray health-check --address="$1"
ray start --address="$1" --block --num-cpus=0 --num-gpus=0 --object-store-memory="$2" --disable-usage-stats &
node=$!
GLORA_RAY_ADDRESS="$1" python -m services.scheduler &
scheduler=$!

trap : TERM INT # ends the wait below, so that the scheduler is told to stop exactly once
wait -n "$scheduler" "$node" || true
trap '' TERM INT
kill -TERM "$scheduler" 2>/dev/null || true
status=0
wait "$scheduler" || status=$?
kill -TERM "$node" 2>/dev/null || true
wait "$node" || true
exit "$status"
