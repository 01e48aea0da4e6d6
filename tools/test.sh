#!/bin/sh
# All tests: those with virtual machines beside the rest, and behind it. What the machines' tests print comes at the end.
set -u
cd "$(dirname "$0")/.."
mkdir -p .cache
log=.cache/test-machines.log

nice -n 10 .venv/bin/python -m pytest -m "vm and not soak" --durations=30 --durations-min=5 -p no:cacheprovider >"$log" 2>&1 &
machines=$!
trap 'kill "$machines" 2>/dev/null; exit 130' INT TERM HUP
.venv/bin/python -m pytest -m "not vm and not soak" --durations=30 --durations-min=5
rest=$?
wait "$machines"
status=$?
cat "$log"
[ "$rest" = 0 ] && [ "$status" = 0 ]
