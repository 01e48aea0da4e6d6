"""A signal that asks a command to end is obeyed, whenever it comes, and no child is left that nobody knows."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support.patience import until
from wwfast.system.run import start

BEGIN = """
import os, signal, subprocess, sys, time
from wwfast.system import run, signals
number, asleep = int(sys.argv[1]), ["sleep", sys.argv[2]]
signal.signal(signal.SIGINT, signal.default_int_handler)
signals.take()
def strike():
    os.kill(os.getpid(), number)
begun, real = [], subprocess._fork_exec
def fork_exec(*arguments):
    begun.append(real(*arguments))
    strike()
    return begun[-1]
"""
END = """
except KeyboardInterrupt:
    print("SIGINT", *begun)
except signals.Ended as end:
    print(signal.Signals(end.number).name, *begun)
"""
AMID = "subprocess._fork_exec = fork_exec\ntry:\n"  # the child is there, and Popen knows it not yet
CALLBACK = "os.register_at_fork(after_in_parent=strike)\ntry:\n"  # what is raised there is forgotten
WAYS = {
    "start": AMID + "    run.start(asleep)\n    time.sleep(60)",
    "start, tied": AMID + "    run.start(asleep, tied=True)\n    time.sleep(60)",
    "run": AMID + "    run.run(asleep)",
    "beside": AMID + "    with run.beside(asleep) as ended:\n        ended()",
    "attached": AMID + "    run.attached(asleep)",
    "callback, start": CALLBACK + "    run.start(asleep, tied=True)\n    time.sleep(60)",
    "callback, forked": CALLBACK + "    with run.forked(lambda: time.sleep(60)) as received:\n        received()",
    "callback, anybody": CALLBACK + "    os.fork() or os._exit(0)\n    time.sleep(60)",
    "finalizer": "class Left:\n    __del__ = lambda self: strike()\ntry:\n    Left()\n    time.sleep(60)",
}
NUMBERS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: number.name)
@pytest.mark.parametrize("way", WAYS)
def test_signals_are_obeyed_whenever_they_come(way: str, number: signal.Signals) -> None:
    words = [sys.executable, "-c", BEGIN + WAYS[way] + END, str(int(number)), "77.91"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=50, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    name, *children = done.stdout.split()
    assert name == number.name
    for pid in children:
        until(lambda pid=pid: not runs(pid))  # type: ignore[misc]


def runs(pid: str) -> bool:
    try:
        return b"77.91" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return False


def test_signals_to_a_program_on_our_terminal_are_its_own_and_it_ends_with_us(tmp_path: Path) -> None:
    script = tmp_path / "editor"
    script.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/new\nmv {tmp_path}/new {tmp_path}/pid\nexec sleep 77.91\n")
    script.chmod(0o755)
    code = BEGIN + f"try:\n    run.attached(['{script}'])" + END
    process = start([sys.executable, "-c", code, "0", "0"], stdout=subprocess.PIPE, tied=True)
    until((tmp_path / "pid").exists)
    editor = (tmp_path / "pid").read_text().strip()
    until(lambda: runs(editor))
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert process.poll() is None
    assert runs(editor)
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=50)[0] == b"SIGTERM\n"
    assert not runs(editor)


def said(code: str) -> str:
    words = [sys.executable, "-c", "import os, signal, threading, time\nfrom wwfast.system import signals\n" + code]
    return subprocess.run(words, capture_output=True, text=True, timeout=50, check=True).stdout


def test_signals_that_are_ignored_stay_so() -> None:
    assert said(
        "signal.signal(1, signal.SIG_IGN)\n"
        "signals.take()\n"
        "os.kill(os.getpid(), 1)\n"
        "print('goes on')\n"
    ) == "goes on\n"  # fmt: skip


def test_signals_are_held_until_the_outermost_is_left_and_by_the_main_thread_alone() -> None:
    code = """
signals.take()
inside, over = threading.Event(), threading.Event()
def elsewhere():
    with signals.held():
        inside.set()
        over.wait()
other = threading.Thread(target=elsewhere)
other.start()
inside.wait()
try:
    with signals.held():
        with signals.held():
            os.kill(os.getpid(), 15)
        print("held")
    print("never")
except signals.Ended:
    print("raised")
over.set()
other.join()
"""
    assert said(code) == "held\nraised\n"
