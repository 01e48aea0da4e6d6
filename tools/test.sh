#!/bin/sh
# tools/test.sh [fast]: all tests, or those without virtual machines, in two halves beside each other, as either waits
# most of the time. What the second half prints comes at the end.
set -u
cd "$(dirname "$0")/.." || exit
fast=${1:-}
LAST=tests/e2e/test_two_stage.py # machines that the first half boots at its end: it would be done long before the second
rooms=$(mktemp -d /tmp/tests.XXXXXX) || exit # of their own: either pytest clears away what the other one has begun to
trap 'rm -rf --one-file-system "$rooms"' EXIT

half() { # half NUMBER NICENESS OPTIONS: becomes pytest
    mkdir "$rooms/$1"
    export PYTEST_DEBUG_TEMPROOT="$rooms/$1"
    niceness=$2
    shift 2
    exec nice -n "$niceness" .venv/bin/python -m pytest --durations=30 --durations-min=5 -p no:cacheprovider "$@"
}

if [ "$fast" = fast ]; then
    (half 2 0 -m "not vm and not soak" tests/adversity) >"$rooms/log" 2>&1 &
    set -- -m "not vm and not soak" --ignore=tests/adversity
else
    (half 2 10 -m "vm and not soak" "--ignore=$LAST") >"$rooms/log" 2>&1 & # behind: they take a core each
    set -- -m "not vm and not soak"
fi
second=$!
trap 'kill "$second" 2>/dev/null; exit 130' INT TERM HUP
(half 1 0 "$@")
first=$?
if [ "$fast" != fast ]; then
    (half 3 0 -m "vm and not soak" "$LAST") || first=$?
fi
wait "$second"
status=$?
cat "$rooms/log"
[ "$first" = 0 ] && [ "$status" = 0 ]
