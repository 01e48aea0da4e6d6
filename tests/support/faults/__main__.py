"""`python -m support.faults [--most N] [WRITER...]`: the table of writers, points and faults.

Ends with status 1 when a promise was broken. Without --most every call of every writer is hit by every fault.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from support.faults.shim import preloaded

ROOM = 256 << 20  # bytes
WORK = "FAULT_WORK"


def main() -> int:
    options = argparse.ArgumentParser(prog="python -m support.faults")
    options.add_argument("writers", nargs="*", metavar="WRITER")
    options.add_argument("--most", type=int, help="points of each writer that are tried (default: all)")
    given = options.parse_args()
    place = Path(os.environ.setdefault(WORK, "") or workplace())
    os.environ[WORK] = str(place)
    try:
        return table(given, options, place)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def workplace() -> str:
    """In memory where there is room: thousands of fsyncs of a disk that others use take minutes."""
    roomy = Path("/dev/shm").is_dir() and shutil.disk_usage("/dev/shm").free > ROOM
    return tempfile.mkdtemp(prefix="wwfast-faults-", dir="/dev/shm" if roomy else None)


def table(given: argparse.Namespace, options: argparse.ArgumentParser, place: Path) -> int:
    shim = preloaded([sys.executable, "-m", "support.faults", *sys.argv[1:]], place)

    from support.faults.sloppy import sloppy
    from support.faults.trial import PROMISES, attempt
    from support.faults.writers import writers

    known = {each.name: each for each in (*writers(), *sloppy())}
    if missing := set(given.writers) - known.keys():
        options.error(f"no such writer: {', '.join(sorted(missing))}")
    chosen = [known[name] for name in given.writers] or writers()
    findings = []
    print(f"{'writer':<26}{'calls':>6}{'points':>7}{'trials':>7}" + "".join(f"{name:>9}" for name in PROMISES))
    for number, writer in enumerate(chosen):
        begun = time.monotonic()
        row = attempt(writer, shim, place / str(number), most=given.most)
        shutil.rmtree(place / str(number))
        counts = "".join(f"{sum(each.promise == name for each in row.findings):>9}" for name in PROMISES)
        took = f"{time.monotonic() - begun:>8.1f} s"
        print(f"{row.writer:<26}{row.calls:>6}{row.points:>7}{row.trials.total():>7}{counts}{took}", flush=True)
        findings += row.findings
    for finding in findings:
        print(finding)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
