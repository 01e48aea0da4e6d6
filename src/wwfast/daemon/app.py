"""The composition root: registry, planner and servers plugged together; start, reload and shutdown order.

Start: registry, overlays, boot files, HTTP, TFTP, and DHCP last, so that nobody is told to come before all is up.
Stop is the reverse: DHCP first, then HTTP until its transfers are done, bounded in time.
A successor (`wwfast server --replace`, SIGUSR2) gets the listening sockets; then only what is under way is finished.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from wwfast.boot.firmware import OPTIONAL_FILES
from wwfast.boot.plan import Planner
from wwfast.daemon import health
from wwfast.daemon.addresses import Addresses, BootFiles, require_written
from wwfast.daemon.database import PhaseStore
from wwfast.daemon.discovery import Discovery
from wwfast.daemon.guard import Guard
from wwfast.daemon.handover import Offer, Sockets, find
from wwfast.daemon.routes import Routes
from wwfast.daemon.scheduler import WaveScheduler
from wwfast.daemon.system import notify, ready
from wwfast.daemon.timeline import Timeline
from wwfast.errors import ConfigError
from wwfast.net.http.server import HttpServer, Limits, listen
from wwfast.net.tftp.server import TftpServer, open_socket
from wwfast.net.transfer import Outcome, Transfer
from wwfast.nodes.registry import Registry, Snapshot
from wwfast.nodes.store import Store
from wwfast.overlays.service import OverlayService
from wwfast.run import Process, start
from wwfast.watch import Watch

if TYPE_CHECKING:
    from wwfast.config.settings import Settings
    from wwfast.paths import Paths

log = logging.getLogger(__name__)

DEBOUNCE = 0.05  # an editor's rename and chmod are one change
SAVE_SECONDS = 2.0  # phases are written this often; what a crash loses is one boot's permission, asked for again
TEND_SECONDS = 300.0  # between two looks at the space that overlays take; well below packs.GRACE
DRAIN_SECONDS = 60.0
# How long a thread keeps the interpreter while the loop waits for it. While 10,000 nodes are reloaded in a thread, a
# request, which asks for the interpreter several times, took 65 ms (p99) with CPython's own 5 ms, 20 ms with 0.5 ms and
# 11 ms with this. The reload takes 0.21 s instead of 0.16 s; with 0.2 ms it takes longer still.
SWITCH_SECONDS = 0.0003
QUIET_SECONDS = 5.0  # on the way out a client without progress is not waited for longer: it is dead, or starts over
REPLACED_SECONDS = 600.0  # with a successor at work, finishing what is under way is in nobody's way
BUILDERS = 4  # threads that build overlays; one key is built once whatever the number


class Daemon:
    """One server. Tests give it `listeners`; with `replace` it takes over from the one that runs, if one does."""

    def __init__(
        self,
        paths: Paths,
        settings: Settings,
        *,
        listeners: list[socket.socket] | None = None,
        replace: bool = False,
        force_dhcp: bool = False,
        ignore_go_templates: bool | None = None,
    ) -> None:
        self.paths = paths
        self.settings = settings
        self._force_dhcp = force_dhcp
        self._given = listeners
        self._replace = replace
        self._sockets = Sockets()
        self._offer: Offer | None = None
        self._successor: Process | None = None
        self.replaced = asyncio.Event()
        self._executor = ThreadPoolExecutor(BUILDERS, thread_name_prefix="build")
        self.registry = Registry(paths)
        self.overlays = OverlayService(paths, settings, ignore_go_templates=ignore_go_templates)
        self.planner = Planner(paths, settings, self.overlays)
        self.timeline = Timeline()
        self.guard = Guard(settings.warewulf.secure, settings.dhcp.enabled and not settings.wwfast.proxy_dhcp)
        self.files = BootFiles.load(settings, paths)
        self.scheduler = WaveScheduler() if settings.wwfast.download_order == "wave" else None
        self.phases = PhaseStore(paths.database)
        self.http: HttpServer | None = None
        self.tftp: TftpServer | None = None
        self.dhcp: Addresses | None = None
        self._watch: Watch | None = None
        self._reloading: asyncio.TimerHandle | None = None
        self._saver: asyncio.Task[None] | None = None
        self._tender: asyncio.Task[None] | None = None

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        # Before the first reading: what is edited while we start (DHCP listens for 3 s) is not to be missed.
        self._watch = Watch()
        self._watch.add([self.paths.etc, self.paths.nodes_conf.resolve().parent])  # it may be a link
        if self._watch.fileno() >= 0:
            loop.add_reader(self._watch.fileno(), self._changed)
        snapshot = await loop.run_in_executor(self._executor, self._load)
        self.timeline.seed(snapshot.nodes)
        if self.settings.dhcp.enabled:
            require_written(self.settings, self.paths)
        predecessor = await loop.run_in_executor(None, find, self.paths.handover) if self._replace else None
        try:
            self._sockets = Sockets(predecessor.sockets if predecessor is not None else None)
            sockets = self._given or self._http_sockets()
            requests = self._tftp_socket() if self.settings.tftp.enabled else None
            if predecessor is not None:
                await loop.run_in_executor(None, predecessor.release)
                log.info("took over from the running server")
        except BaseException:
            if predecessor is not None:
                predecessor.close()
            raise
        self.guard.restore(self.phases.load())
        store = Store(self.paths)
        routes = Routes(
            registry=self.registry,
            planner=self.planner,
            guard=self.guard,
            timeline=self.timeline,
            discovery=Discovery(self.registry, store, self.guard, self._executor),
            binaries=self.files.get,
            executor=self._executor,
            extra_status=self._extra_status,
            problems=self._problems,
            standing=self._standing,
            outlook=self.scheduler.outlook if self.scheduler is not None else lambda _wwid: (0, 0.0),
        )
        own = self.settings.wwfast
        limits = Limits(connections=own.connections, pacing_bytes=own.client_rate)
        self.http = HttpServer(sockets, routes, on_transfer=self._record, limits=limits, scheduler=self.scheduler)
        self.http.start()
        if requests is not None:
            self.tftp = TftpServer([requests], self._tftp_file, on_transfer=self._record, optional=OPTIONAL_FILES)
            self.tftp.start()
        if self.settings.dhcp.enabled:
            self.dhcp = Addresses(self.settings, self.paths, self.registry, self.files, self.guard, self._record)
            self.guard.leased = self.dhcp.leased
            await self.dhcp.start(self._sockets, force=self._force_dhcp)
        elif self.settings.warewulf.secure:
            log.warning("DHCP is not ours: overlays are not bound to leased addresses, only to privileged ports")
        self._saver = loop.create_task(self._save_phases())
        self._tender = loop.create_task(self._tend_overlays())
        self._sockets.close_rest()
        if self._sockets.held:
            self._offer = Offer(self.paths.handover, self._sockets.held, self._taken)
            self._offer.start()

    def _http_sockets(self) -> list[socket.socket]:
        port = self.settings.warewulf.port
        addresses = ["0.0.0.0", *(["::"] if socket.has_ipv6 else [])]
        return [self._sockets.get(f"http {at}:{port}", partial(_listen, at, port)) for at in addresses]

    def _tftp_socket(self) -> socket.socket:
        address = self.settings.ipaddr
        return self._sockets.get(f"tftp {address}", partial(open_socket, address))

    def begin_replacement(self) -> None:
        """Start a successor with our own command line: a new program, a new warewulf.conf (SIGUSR2)."""
        if self.replaced.is_set() or (self._successor is not None and self._successor.poll() is None):
            return
        words = [word for word in sys.orig_argv[1:] if word != "--replace"]
        self._successor = start([sys.executable, *words, "--replace"])

    def _taken(self) -> None:
        """A successor is ready: from here on our sockets and the database are its own."""
        log.info("replaced by another server; finishing what is under way")
        if self.dhcp is not None:
            self.dhcp.stop()
        if self.tftp is not None:
            self.tftp.stop_accepting()
        if self.http is not None:
            self.http.stop_accepting()
        self._save()
        if self._tender is not None:
            self._tender.cancel()
        self.replaced.set()

    def _save(self) -> None:
        """Write down what a server after this one must know; nothing is written after that."""
        if self._saver is not None:
            self._saver.cancel()
            self._saver = None
            self.phases.save(self.guard.booting())

    async def finish(self, seconds: float = REPLACED_SECONDS) -> None:
        """After the handover: let the transfers under way end, for at most `seconds`."""
        end = time.monotonic() + seconds
        if self.http is not None:
            await self.http.drain(seconds)
        while self.tftp is not None and self.tftp.running and time.monotonic() < end:
            await asyncio.sleep(0.1)

    async def stop(self, drain: float = DRAIN_SECONDS) -> None:
        """Stop taking nodes in, finish what runs, close everything. Safe after a start that failed half way."""
        if self._offer is not None:
            self._offer.close()
        if self.dhcp is not None:
            self.dhcp.stop()
        if self.tftp is not None:
            self.tftp.stop()
        if self.http is not None:
            await self.http.drain(drain, QUIET_SECONDS)
        self._save()
        if self._tender is not None:
            self._tender.cancel()
        if self._reloading is not None:
            self._reloading.cancel()
        if self._watch is not None:
            if self._watch.fileno() >= 0:
                asyncio.get_running_loop().remove_reader(self._watch.fileno())
            self._watch.close()
        self._executor.shutdown(wait=False, cancel_futures=True)
        self.overlays.close()

    def reload(self) -> None:
        """Re-read nodes.conf soon (SIGHUP, or the file changed)."""
        if self._reloading is None:
            self._reloading = asyncio.get_running_loop().call_later(DEBOUNCE, self._begin_reload)

    def _load(self) -> Snapshot:
        """Read nodes.conf, in a thread. What stays is kept from the collector: looking at 10,000 nodes took it 75 ms,
        in which nobody was answered. An old snapshot has no cycles and goes when its last user lets it go."""
        snapshot = self.registry.reload()
        gc.collect()
        gc.freeze()
        return snapshot

    def _begin_reload(self) -> None:
        self._reloading = None
        future = asyncio.get_running_loop().run_in_executor(self._executor, self._load)
        future.add_done_callback(lambda done: self._reloaded())

    def _reloaded(self) -> None:
        if self.registry.error:
            log.error("nodes.conf was not reloaded, the last good one stays: %s", self.registry.error)
            return
        snapshot = self.registry.snapshot()
        self.timeline.seed(snapshot.nodes)
        log.info("nodes.conf: %d nodes", len(snapshot.nodes))

    def _changed(self) -> None:
        assert self._watch is not None
        if self._watch.changed():
            self.reload()

    def _record(self, event: Transfer) -> None:
        if not event.node and not event.wwid:
            event = self._named(event)
        self.timeline.record(event)
        if event.outcome in (Outcome.DONE, Outcome.FAILED):
            level = logging.INFO if event.outcome is Outcome.DONE else logging.WARNING
            log.log(
                level,
                "%s %s %s %s %d/%d bytes in %.2f s %s",
                event.node or event.wwid or event.peer,
                event.stage,
                event.outcome.value,
                event.sent,
                event.sent_bytes,
                event.total_bytes,
                event.seconds,
                event.detail,
            )

    def _tftp_file(self, name: str, peer: str) -> bytes | None:
        return self.files.get(name)

    def _named(self, event: Transfer) -> Transfer:
        """TFTP and UEFI HTTP boot know only an address: add the MAC or node behind it."""
        snapshot = self.registry.snapshot()
        node = snapshot.by_ip(event.peer)
        if node is not None:
            return replace(event, node=node.id)
        mac = self.dhcp.owner(event.peer) if self.dhcp is not None else ""
        owner = snapshot.by_mac(mac) if mac else None
        return replace(event, wwid=mac, node=owner.id if owner else "")

    def _problems(self) -> dict[str, str]:
        """What keeps nodes from getting what they should, though nobody asked yet: entries and overlays."""
        found = {problem.id: problem.message for problem in self.registry.snapshot().problems}
        for (node, _), failure in self.overlays.failures.items():
            found[node] = failure.message
        return found

    def _standing(self, wwid: str) -> tuple[int, float] | None:
        return self.scheduler.standing(wwid) if self.scheduler is not None else None

    def _extra_status(self) -> dict[str, object]:
        extra: dict[str, object] = {"pid": os.getpid(), "registry error": str(self.registry.error or "")}
        if self.http is not None:
            extra["http"] = dict(self.http.figures)
        if self.scheduler is not None:
            extra["queue"] = self.scheduler.figures
        if self.dhcp is not None and self.dhcp.server is not None:
            extra["dhcp"] = self.dhcp.server.stats()
        if self.tftp is not None:
            extra["tftp"] = self.tftp.stats()
        return extra

    async def _save_phases(self) -> None:
        loop = asyncio.get_running_loop()
        assert self._watch is not None
        while True:
            await asyncio.sleep(SAVE_SECONDS)
            if self._watch.changed():  # where inotify does not work, and directories made again
                self.reload()
            self._watch.add([self.paths.etc, self.paths.nodes_conf.resolve().parent])  # it may be a link
            await loop.run_in_executor(self._executor, self.phases.save, self.guard.booting())

    async def _tend_overlays(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(TEND_SECONDS)
            try:
                if freed := await loop.run_in_executor(self._executor, self.overlays.tend):
                    log.info("overlay cache: %.0f MiB given back", freed / 2**20)
            except OSError as error:
                log.warning("overlay cache cannot be made smaller: %s", error)


def serve(paths: Paths, settings: Settings, *, replace: bool, force_dhcp: bool, ignore_go_templates: bool) -> None:
    """Run in the foreground until SIGTERM or SIGINT. Raises WwfastError when it cannot start."""
    import uvloop

    logging.getLogger().setLevel(min(logging.getLogger().level, logging.INFO))
    if settings.warewulf.tls:
        raise ConfigError(
            f"{paths.conf} sets warewulf: tls, and TLS is not served",
            hint="set `tls: false` to send runtime overlays over plain HTTP, to privileged ports (`secure: true`)",
        )
    daemon = Daemon(paths, settings, replace=replace, force_dhcp=force_dhcp, ignore_go_templates=ignore_go_templates)
    for finding in health.examine(health.Scene(paths, settings, daemon.registry.snapshot())):
        log.warning("%s: %s", finding.message, finding.fix)
    sys.setswitchinterval(SWITCH_SECONDS)
    uvloop.run(_run(daemon))


async def _run(daemon: Daemon) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    loop.add_signal_handler(signal.SIGHUP, daemon.reload)
    loop.add_signal_handler(signal.SIGUSR2, daemon.begin_replacement)
    began = time.monotonic()
    try:
        await daemon.start()
        log.info("serving on port %d after %.2f s", daemon.settings.warewulf.port, time.monotonic() - began)
        ready()
        await _first(ended.wait(), daemon.replaced.wait())
        if daemon.replaced.is_set():
            await _first(ended.wait(), daemon.finish())
        else:
            notify("STOPPING=1")
    finally:
        await daemon.stop()


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


def _listen(host: str, port: int) -> socket.socket:
    (one,) = listen([(host, port)])
    return one
