"""The composition root: registry, planner and servers plugged together; start and shutdown order.

Start: registry, overlays, boot files, HTTP, TFTP, and DHCP last, so that nobody is told to come before all is up.
Stop is the reverse: DHCP first, then HTTP until its transfers are done, bounded in time.
A successor (`wwfast server --replace`, SIGUSR2) gets the listening sockets; then only what is under way is finished.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

from wwfast.boot.firmware import OPTIONAL_FILES
from wwfast.boot.plan import Planner
from wwfast.daemon.addresses import Addresses, BootFiles, require_written
from wwfast.daemon.database import PhaseStore
from wwfast.daemon.discovery import Discovery
from wwfast.daemon.following import Follower
from wwfast.daemon.guard import Forgetful, Guard
from wwfast.daemon.handover import Offer, Sockets, find
from wwfast.daemon.report import Report
from wwfast.daemon.routes import Routes
from wwfast.daemon.scheduler import WaveScheduler
from wwfast.daemon.supervision import Supervisor
from wwfast.daemon.timeline import Timeline
from wwfast.net.http.server import HttpServer, Limits, listen
from wwfast.net.tftp.server import TftpServer, open_socket
from wwfast.nodes.registry import Registry, Snapshot
from wwfast.nodes.store import Store
from wwfast.overlays.service import OverlayService

if TYPE_CHECKING:
    from wwfast.config.settings import Settings
    from wwfast.paths import Paths

log = logging.getLogger(__name__)

TEND_SECONDS = 300.0  # between two looks at the space that overlays take; well below packs.GRACE
DRAIN_SECONDS = 60.0
QUIET_SECONDS = 5.0  # on the way out a client without progress is not waited for longer: it is dead, or starts over
REPLACED_SECONDS = 600.0  # with a successor at work, finishing what is under way is in nobody's way
BUILDERS = 4  # threads that build overlays; one key is built once whatever the number
CHORES = 4  # threads of the daemon's own work, one for each kind: a build that is stuck must not keep phases unwritten


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
        self.replaced = asyncio.Event()
        self.supervisor = Supervisor()
        self._builders = ThreadPoolExecutor(BUILDERS, thread_name_prefix="build")
        self._chores = ThreadPoolExecutor(CHORES, thread_name_prefix="chore")
        self.registry = Registry(paths)
        self.overlays = OverlayService(paths, settings, ignore_go_templates=ignore_go_templates)
        self.planner = Planner(paths, settings, self.overlays)
        self.timeline = Timeline()
        own_dhcp = settings.dhcp.enabled and not settings.wwfast.proxy_dhcp
        self.phases = PhaseStore(paths.database) if own_dhcp else None
        self.guard = Guard(
            settings.warewulf.secure,
            own_dhcp,
            phase_seconds=settings.wwfast.boot_phase * 60.0,
            keeper=self.phases or Forgetful(),
        )
        self.files = BootFiles.load(settings, paths)
        self.scheduler = WaveScheduler() if settings.wwfast.download_order == "wave" else None
        self.report = Report(self.registry, self.overlays, self.timeline, self.guard, self.supervisor, self.scheduler)
        self.http: HttpServer | None = None
        self.tftp: TftpServer | None = None
        self.dhcp: Addresses | None = None
        self._follower: Follower | None = None

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self.supervisor.uncaught)
        self._follower = Follower(self.registry, self.paths, self.supervisor, self._chores, self._loaded)
        await self._follower.load()
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
        if (phases := self.phases) is not None:
            self.guard.restore(await loop.run_in_executor(self._chores, phases.load))
            phases.start()
            self.supervisor.probe("saving boot phases", lambda: phases.error)
        self.http = self.report.http = self._http_server(sockets)
        self.http.start()
        if requests is not None:
            self.tftp = self.report.tftp = TftpServer(
                [requests], self._tftp_file, on_transfer=self.report.record, optional=OPTIONAL_FILES
            )
            self.tftp.start()
        if self.settings.dhcp.enabled:
            self.dhcp = self.report.dhcp = Addresses(
                self.settings, self.paths, self.registry, self.files, self.guard, self.report.record
            )
            self.guard.leased = self.dhcp.leased
            await self.dhcp.start(self._sockets, force=self._force_dhcp)
        elif self.settings.warewulf.secure:
            log.warning("DHCP is not ours: overlays are not bound to leased addresses, only to privileged ports")
        self._follower.start()
        self.supervisor.keep("giving back overlay space", self._tend_overlays)
        self._sockets.close_rest()
        if self._sockets.held:
            self._offer = Offer(self.paths.handover, self._sockets.held, self._taken)
            self._offer.start()

    def _http_server(self, sockets: list[socket.socket]) -> HttpServer:
        routes = Routes(
            registry=self.registry,
            planner=self.planner,
            guard=self.guard,
            timeline=self.timeline,
            discovery=Discovery(self.registry, Store(self.paths), self.guard, self._builders),
            binaries=self.files.get,
            executor=self._builders,
            extra_status=self.report.figures,
            problems=self.report.problems,
            standing=self.report.standing,
            outlook=self.report.outlook,
        )
        own = self.settings.wwfast
        limits = Limits(connections=own.connections, pacing_bytes=own.client_rate)
        return HttpServer(sockets, routes, on_transfer=self.report.record, limits=limits, scheduler=self.scheduler)

    def _http_sockets(self) -> list[socket.socket]:
        port = self.settings.warewulf.port
        addresses = ["0.0.0.0", *(["::"] if socket.has_ipv6 else [])]
        return [self._sockets.get(f"http {at}:{port}", partial(_listen, at, port)) for at in addresses]

    def _tftp_socket(self) -> socket.socket:
        address = self.settings.ipaddr
        return self._sockets.get(f"tftp {address}", partial(open_socket, address))

    def _tftp_file(self, name: str, peer: str) -> bytes | None:
        return self.files.get(name)

    def _loaded(self, snapshot: Snapshot) -> None:
        self.timeline.seed(snapshot.nodes)
        if self.dhcp is not None:
            self.dhcp.follow(snapshot, self._chores)

    def reload(self) -> None:
        """Re-read nodes.conf soon (SIGHUP)."""
        if self._follower is not None:
            self._follower.reload()

    def _taken(self) -> None:
        """A successor is ready: from here on our sockets and the database are its own. Whatever fails, we end."""
        self.replaced.set()
        log.info("replaced by another server; finishing what is under way")
        self._stop_dhcp()
        with self.supervisor.guarded("letting go of TFTP"):
            if self.tftp is not None:
                self.tftp.stop_accepting()
        with self.supervisor.guarded("letting go of HTTP"):
            if self.http is not None:
                self.http.stop_accepting()
        self._save()

    def _stop_dhcp(self) -> None:
        with self.supervisor.guarded("stopping DHCP"):
            if self.dhcp is not None:
                self.dhcp.stop()

    def _save(self) -> None:
        """Write down what a server after this one must know; nothing is written after that."""
        self.supervisor.stop()
        if self.phases is not None:
            self.phases.close()

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
        self._stop_dhcp()
        with self.supervisor.guarded("stopping TFTP"):
            if self.tftp is not None:
                self.tftp.stop()
        with self.supervisor.guarded("stopping HTTP"):
            if self.http is not None:
                await self.http.drain(drain, QUIET_SECONDS)
        if not self.replaced.is_set():
            self._save()
        if self._follower is not None:
            self._follower.close()
        for threads in (self._builders, self._chores):
            threads.shutdown(wait=False, cancel_futures=True)
        self.overlays.close()

    async def _tend_overlays(self) -> None:
        await asyncio.sleep(TEND_SECONDS)
        work = asyncio.get_running_loop().run_in_executor(self._chores, self.overlays.tend)
        if freed := await self.supervisor.attend("giving back overlay space", work):
            log.info("overlay cache: %.0f MiB given back", freed / 2**20)


def _listen(host: str, port: int) -> socket.socket:
    (one,) = listen([(host, port)])
    return one
