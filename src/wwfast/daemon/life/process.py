"""The process around a daemon: signals, the notes to systemd, and the successor it starts when asked to."""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import signal
import sys
import threading
import time
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from wwfast.boot.paper import Paper
from wwfast.daemon.app import DRAIN_SECONDS, PREPARE_SECONDS, REPLACED_SECONDS, Daemon
from wwfast.daemon.life import logs
from wwfast.daemon.life.systemd import notify, ready
from wwfast.doctor.examine import examine
from wwfast.doctor.finding import Scene
from wwfast.errors import ConfigError, WwfastError
from wwfast.system.run import Process, start

if TYPE_CHECKING:
    from wwfast.config.settings import Settings
    from wwfast.paths import Paths

log = logging.getLogger(__name__)

# How long a thread keeps the interpreter while the loop waits for it. While 10,000 nodes are reloaded in a thread, a
# request, which asks for the interpreter several times, took 65 ms (p99) with CPython's own 5 ms, 20 ms with 0.5 ms and
# 11 ms with this. The reload takes 0.21 s instead of 0.16 s; with 0.2 ms it takes longer still.
SWITCH_SECONDS = 0.0003
# After these a process that still runs is ended by a watchdog that needs neither loop nor interpreter (a thread
# may be stuck in a dead file server for ever), and which says where every thread stands.
STARTING_LIMIT = PREPARE_SECONDS + 30  # a successor; what comes after the preparing is bounded by `handover`
FINISHING_LIMIT = REPLACED_SECONDS + 30
STOPPING_LIMIT = DRAIN_SECONDS + 20  # systemd's is 90 s
CLOSING_LIMIT = 30.0  # after a replaced server's last transfer
LOOK = 0.2  # s between two looks at the successor
REPLACING = "replacing this server"


def serve(
    paths: Paths, settings: Settings, *, replace: bool, force_dhcp: bool, ignore_go_templates: bool, follow: str = ""
) -> None:
    """Run in the foreground until SIGTERM or SIGINT. Raises WwfastError when it cannot start."""
    import uvloop

    logging.getLogger().setLevel(min(logging.getLogger().level, logging.INFO))
    if settings.warewulf.tls:
        raise ConfigError(
            f"{paths.conf} sets warewulf: tls, and TLS is not served",
            hint="set `tls: false` to send runtime overlays over plain HTTP, to privileged ports (`secure: true`)",
        )
    if replace:
        end_after(STARTING_LIMIT)
    daemon = Daemon(
        paths,
        settings,
        replace=replace,
        force_dhcp=force_dhcp,
        ignore_go_templates=ignore_go_templates,
        follow=follow,
    )
    daemon.heads.first()
    snapshot = daemon.registry.snapshot()
    paper = Paper(paths, settings, daemon.overlays, snapshot)
    for finding in examine(Scene(paths, settings, snapshot, paper, thorough=False)):
        log.warning("%s: %s", finding.message, finding.fix)
    sys.setswitchinterval(SWITCH_SECONDS)
    threading.excepthook = daemon.supervisor.uncaught_in_thread
    with logs.aside():
        uvloop.run(_run(daemon))


def end_after(seconds: float) -> None:
    """End this process after that, whatever it does then; in place of what was said before."""
    faulthandler.dump_traceback_later(seconds, exit=True)


async def _run(daemon: Daemon) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    successor = Successor(daemon)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    loop.add_signal_handler(signal.SIGHUP, daemon.reload)
    loop.add_signal_handler(signal.SIGUSR2, successor.begin)
    began = time.monotonic()
    try:
        await daemon.start()
        log.info("serving on port %d after %.2f s", daemon.settings.warewulf.port, time.monotonic() - began)
        faulthandler.cancel_dump_traceback_later()
        ready()
        await _first(ended.wait(), daemon.replaced.wait())
        if daemon.replaced.is_set():
            end_after(FINISHING_LIMIT)
            await _first(ended.wait(), daemon.finish())
        else:
            notify("STOPPING=1")
    finally:
        end_after(CLOSING_LIMIT if daemon.replaced.is_set() else STOPPING_LIMIT)
        await daemon.stop()


class Successor:
    """The process that is to take over from `daemon`, started by us (SIGUSR2) and ended where it does not."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._process: Process | None = None
        self._watching: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Start one with our own command line: a new program, a new warewulf.conf."""
        if self._daemon.replaced.is_set() or (self._process is not None and self._process.poll() is None):
            return
        with self._daemon.supervisor.guarded(REPLACING):
            words = [word for word in sys.orig_argv[1:] if word != "--replace"]
            self._process = start([sys.executable, *words, "--replace"])
            self._watching = asyncio.get_running_loop().create_task(self._watch(self._process), name=REPLACING)

    async def _watch(self, process: Process) -> None:
        """Until it has taken over. One that failed is told until the next is begun."""
        end = time.monotonic() + STARTING_LIMIT + LOOK
        # One to which we are letting go right now is not touched: it may have said the last word.
        while process.poll() is None and (time.monotonic() < end or self._daemon.handing_over):
            await asyncio.sleep(LOOK)
            if self._daemon.replaced.is_set():
                return
        if process.poll() is None:
            process.kill()
            why = f"was not ready within {STARTING_LIMIT:g} s and was ended"
        else:
            why = f"ended with status {process.returncode}"
        if not self._daemon.replaced.is_set():
            hint = "its messages are in the log before this one"
            self._daemon.supervisor.failed(REPLACING, WwfastError(f"the new server {why}; this one goes on ({hint})"))
            notify("STATUS=The new server did not start; this one goes on.")


async def _first(*ways: Coroutine[Any, Any, object]) -> None:
    """Wait until one of them has ended; the others are cancelled."""
    tasks = [asyncio.ensure_future(way) for way in ways]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
    for task in done:
        task.result()
