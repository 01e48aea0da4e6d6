#!/bin/sh
# All tests: those with virtual machines beside the rest, and behind it. What the machines' tests print comes at the end.
set -u
cd "$(dirname "$0")/.." || exit
mkdir -p .cache
log=.cache/test-machines.log
room=$(mktemp -d /tmp/vms.XXXXXX) || exit # of their own: either pytest clears away what the other one has begun to

nice -n 10 env PYTEST_DEBUG_TEMPROOT="$room" .venv/bin/python -m pytest -m "vm and not soak" --durations=30 --durations-min=5 -p no:cacheprovider >"$log" 2>&1 &
machines=$!
trap 'rm -rf --one-file-system "$room"' EXIT
trap 'kill "$machines" 2>/dev/null; exit 130' INT TERM HUP
.venv/bin/python -m pytest -m "not vm and not soak" --durations=30 --durations-min=5
rest=$?
wait "$machines"
status=$?
cat "$log"
[ "$rest" = 0 ] && [ "$status" = 0 ]
