"""The loop watchdog of every test: no callback of a daemon may use more than 50 ms of its loop's thread.

It watches the loops of this process and of all programs that tests start (loopwatch); conftest asks after each test.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import uvloop

WATCH = Path(__file__).parent / "loopwatch"
sys.path.append(str(WATCH))

import loopwatch  # noqa: E402


def begin(folder: Path) -> None:
    """For this process and those it starts; what they find is written to `folder`."""
    os.environ[loopwatch.FOLDER] = str(folder)
    former = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = f"{WATCH}{os.pathsep}{former}" if former else str(WATCH)
    loopwatch.install(uvloop, forgives=True)


def taken() -> list[dict[str, Any]]:
    """What was found since the last call."""
    loopwatch.found.clear()  # of this process: it is in the folder as well
    entries = []
    for file in Path(os.environ[loopwatch.FOLDER]).iterdir():
        entries += [json.loads(line) for line in file.read_text().splitlines()]
        file.unlink()
    return entries


def complaint(entries: list[dict[str, Any]]) -> str:
    lines = [f"{entry['ms']} ms in {entry['callback']}: {' > '.join(entry['stack'])}" for entry in entries]
    return "a callback kept the event loop: " + "; ".join(lines)
