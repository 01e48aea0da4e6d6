"""`wwfast server` with short time limits and one thing that goes wrong: python strained_server.py JSON WORDS...

JSON: `limits` {"module.CONSTANT": value}; `at`, a step of `Daemon.reached`, "taking" (before the last word) or a
function "module:Class.method"; `do`, what happens there: kill, hang (the whole process), raise, stuck (the thread, for
ever), late (asleep for 3 s, then on).
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import threading
import time
from typing import Any

from wwfast.cli.main import main
from wwfast.daemon.app import Daemon
from wwfast.daemon.life.handover import Predecessor


def happen(what: str) -> None:
    print(f"strained: {what}", file=sys.stderr, flush=True)
    match what:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "hang":
            time.sleep(600)
        case "late":
            time.sleep(3)
        case "stuck":
            threading.Event().wait()
        case "raise":
            raise RuntimeError("injected")


def before(owner: Any, name: str, wanted: str, what: str) -> None:
    """Let it happen when `owner.name` is called, where `wanted` is empty or its first argument."""
    original = getattr(owner, name)

    def replaced(self: Any, *args: Any, **named: Any) -> Any:
        if not wanted or args[:1] == (wanted,):
            happen(what)
        return original(self, *args, **named)

    setattr(owner, name, replaced)


def strain(plan: dict[str, Any]) -> None:
    for name, value in plan.get("limits", {}).items():
        module, constant = name.rsplit(".", 1)
        setattr(importlib.import_module(f"wwfast.{module}"), constant, value)
    at, what = plan.get("at", ""), plan.get("do", "")
    if at == "taking":
        before(Predecessor, "take", "", what)
    elif ":" in at:
        module, path = at.split(":")
        kind, method = path.split(".")
        before(getattr(importlib.import_module(f"wwfast.{module}"), kind), method, "", what)
    elif at:
        before(Daemon, "reached", at, what)


if __name__ == "__main__":
    strain(json.loads(sys.argv[1]))
    sys.argv[1:] = sys.argv[2:]
    sys.exit(main())
