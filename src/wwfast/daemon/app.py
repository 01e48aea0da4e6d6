"""The composition root: registry, planner and servers plugged together; start and shutdown order.

Start: everything is prepared (registry, overlays, boot files, HTTP, TFTP, DHCP), with sockets held and unread; a
predecessor, if there is one, lets go; then all are read. Stop: DHCP first, then HTTP until its transfers are done,
bounded in time. A successor (`wwfast server --replace`, SIGUSR2) gets the listening sockets and the state; then only
what is under way is finished.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from wwfast.boot.loader.binaries import HINT, BootFiles
from wwfast.boot.loader.firmware import OPTIONAL_FILES
from wwfast.boot.plan import Planner
from wwfast.daemon.boot.addresses import Addresses
from wwfast.daemon.boot.discovery import Discovery
from wwfast.daemon.boot.files import SiteFiles
from wwfast.daemon.boot.guard import Forgetful, Guard
from wwfast.daemon.boot.making import Deriving, Making, Writing
from wwfast.daemon.boot.routes import Routes
from wwfast.daemon.following import Follower
from wwfast.daemon.heads import Heads
from wwfast.daemon.life.handover import Offer, Predecessor, Sockets, State, find
from wwfast.daemon.life.relay import Relay, attend
from wwfast.daemon.life.supervision import Supervisor, Threads
from wwfast.daemon.naming import Naming
from wwfast.daemon.notices import Looking
from wwfast.daemon.report import Report
from wwfast.daemon.state.board import Board
from wwfast.daemon.state.database import PhaseStore, require_writable
from wwfast.daemon.state.timeline import Timeline
from wwfast.daemon.traffic.racks import Racks
from wwfast.daemon.traffic.scheduler import WaveScheduler
from wwfast.daemon.upkeep import Upkeep
from wwfast.errors import WwfastError
from wwfast.images.store import ImageStore
from wwfast.net.http.server import HttpServer, has_ipv6, listen
from wwfast.net.http.serving import Limits
from wwfast.net.tftp.server import TftpServer, open_socket
from wwfast.nodes.edit.store import Store
from wwfast.nodes.machines import Machines
from wwfast.nodes.registry import Registry, Snapshot
from wwfast.overlays.making.service import OverlayService

if TYPE_CHECKING:
    from wwfast.config.settings import Settings
    from wwfast.paths import Paths

log = logging.getLogger(__name__)

KEEP_SECONDS = 30.0  # between two looks whether nodes have said of their machines what is not in the file
TEND_SECONDS = 300.0  # between two looks at the space that overlays take; well below packs.GRACE
OFFER_SECONDS = 10.0  # between two looks whether a successor would find us
PREPARE_SECONDS = 120.0  # for a successor; 10,000 nodes take 3 s, asking whether there is another DHCP server 3 s
WRITE_SECONDS = 5.0  # a disk that takes longer must keep neither a successor nor the end waiting
DRAIN_SECONDS = 60.0
QUIET_SECONDS = 5.0  # on the way out a client without progress is not waited for longer: it is dead, or starts over
REPLACED_SECONDS = 600.0  # with a successor at work, finishing what is under way is in nobody's way
# More than may be held up at once; 1,000 nodes that ask together are answered in 0.38 s by 16, 0.31 by 32, 0.23 by 64.
BUILDERS = max(64, 4 * (os.cpu_count() or 1))  # threads that wait for workers
SAVING, TENDING = "saving boot phases", "giving back overlay space"
LEASES = "writing down leases"
MACHINES = "keeping what nodes said of their machines"
OFFERING, HANDING_OVER = "offering the sockets to a successor", "handing over"
CHORES = 4  # threads of the daemon's own work
WRITERS = 4  # threads that wait for scripts of the site's templates
#: What has a queue and a thread of its own, so that nothing that is slow or stuck elsewhere keeps it.
RELOAD, DISCOVERY, STANDING = "reading nodes.conf", "discovery", "looking up images"
LOOKING, ASIDE, RENDERING = "looking at overlays", "asking the kernel", "rendering files"
STRANGERS = "writing scripts for strangers"
RELAYED = "ending boots of the server before"


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
        follow: str = "",
    ) -> None:
        self.paths = paths
        self.settings = settings
        self._force_dhcp = force_dhcp
        self._given = listeners
        self._replace = replace
        self._sockets = Sockets()
        self._offer: Offer | None = None
        self._to_successor: Relay | None = None
        self._from_predecessor: asyncio.Task[None] | None = None
        self.replaced = asyncio.Event()
        self.supervisor = Supervisor()
        self.builders = Threads(BUILDERS, "build")
        self._chores, self._writers = Threads(CHORES, "chore"), Threads(WRITERS, "script")
        rooms = (RELOAD, DISCOVERY, STANDING, LOOKING, ASIDE, RENDERING, STRANGERS)
        self._alone = {name: Threads(1, name) for name in rooms}
        self.registry = Registry(paths)
        self.overlays = OverlayService(paths, settings, ignore_go_templates=ignore_go_templates)
        self.planner = Planner(settings)
        self.timeline = Timeline(known=lambda node: node in self.registry.snapshot().nodes)
        self.phases = PhaseStore(paths.database) if settings.own_dhcp else None
        self.guard = Guard(
            settings.warewulf.secure,
            settings.own_dhcp,
            phase_seconds=settings.wwfast.boot_phase * 60.0,
            keeper=self.phases or Forgetful(),
        )
        self.machines = Machines(paths.machines)
        self.files = BootFiles.load(settings.tftp.ipxe, paths.ipxe_source)
        self.naming: Naming | None = None
        if settings.wwfast.caches:
            self.naming = Naming(paths, self.registry, self.files, self.supervisor, Threads(1, "naming"))
        self.upkeep = Upkeep(
            paths,
            self.registry,
            self.files,
            self.supervisor,
            self._alone[STANDING],
            self.overlays.images_changed,
            self.naming.refresh if self.naming else lambda: None,
        )
        self.scheduler = WaveScheduler() if settings.wwfast.download_order == "wave" else None
        self.report = Report(self.registry, self.overlays, self.timeline, self.guard, self.supervisor, self.scheduler)
        self.heads = self._among_others(follow)
        self._looking = Looking(self.overlays, self.supervisor, self._alone[LOOKING])
        self.http: HttpServer | None = None
        self.tftp: TftpServer | None = None
        self.dhcp: Addresses | None = None
        self._follower: Follower | None = None
        self.step, self.serving = "", False

    def _among_others(self, follow: str) -> Heads:
        """Other heads, and caches of racks, of which /status tells."""
        self.racks = self.report.racks = Racks(self.settings.wwfast.caches)
        mine = self.registry, self.upkeep, self.overlays, self.guard
        heads = Heads(self.paths, self.settings, *mine, self.supervisor, self.reload, follow)
        self.report.heads, self.planner.away = heads.figures, heads.away
        return heads

    async def start(self) -> None:
        """Prepare, take over from a predecessor, serve. Raises WwfastError, and the predecessor goes on."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self.supervisor.uncaught)
        self.reached("looking for the running server")
        predecessor = None
        if self._replace:
            predecessor = await loop.run_in_executor(self._chores, find, self.paths.handover)
        if predecessor is None:
            await self._prepare()
            self._begin(None, None)
            return
        self._sockets = predecessor.sockets
        try:
            async with asyncio.timeout(PREPARE_SECONDS):
                await self._prepare()
                if self.dhcp is not None:
                    self.reached("writing to the database")
                    await loop.run_in_executor(self._chores, require_writable, self.paths.database)
            self.reached("taking over")
            state = await loop.run_in_executor(self._chores, predecessor.release)
            if state is None:  # it has died: what it wrote since we prepared counts
                state = await loop.run_in_executor(self._chores, self._written_state)
            self._begin(state, predecessor)
        except TimeoutError as error:
            where = f"not ready within {PREPARE_SECONDS:g} s, still at: {self.step}"
            raise WwfastError(f"{where}; the running server goes on") from error
        finally:
            predecessor.close()
        log.info("took over from the running server")

    def reached(self, step: str) -> None:
        """What the start does next."""
        self.step = step
        log.debug("starting: %s", step)

    async def _prepare(self) -> None:
        """All that can fail, with the sockets held and unread."""
        self.reached("reading nodes.conf")
        alone, aside = self._alone[RELOAD], self.overlays.aside
        self._follower = Follower(self.registry, self.paths, self.supervisor, alone, self._loaded, aside)
        await self._follower.load()
        self.reached("looking up what nodes boot with")
        await self.upkeep.load()
        if (phases := self.phases) is not None:
            self.reached("reading who boots")
            self.guard.restore(await asyncio.get_running_loop().run_in_executor(self._chores, phases.load))
        with self.supervisor.guarded(MACHINES):
            await asyncio.get_running_loop().run_in_executor(self._chores, self.machines.load)
        self.reached("preparing HTTP")
        self.http = self.report.http = self._http_server(self._given or self._http_sockets())
        self.http.prepare()
        if self.settings.tftp.enabled:
            self.reached("preparing TFTP")
            self.tftp = self.report.tftp = self._tftp_server()
        if self.settings.dhcp.enabled:
            self.reached("preparing DHCP")
            self.dhcp = self.report.dhcp = Addresses(
                self.settings, self.paths, self.registry, self.files, self.guard, self.report.record
            )
            self.guard.leased = self.dhcp.leased
            self.guard.waits = lambda wwid: self.report.standing(wwid) is not None
            await self.dhcp.prepare(self._sockets, force=self._force_dhcp)
        elif self.settings.warewulf.secure:
            log.warning("DHCP is not ours: overlays are not bound to leased addresses, only to privileged ports")

    def _begin(self, state: State | None, predecessor: Predecessor | None) -> None:
        """Serve: in one turn of the loop, so that nothing is read unless a predecessor has heard that we read."""
        self.reached("serving")
        if state is not None:  # and not what was in the database a moment before
            self.guard.adopt(state["guard"])
            self.machines.adopt(state.get("machines", self.machines.export()))
            if self.dhcp is not None:
                self.dhcp.leases.adopt(state["leases"])
        for server in (self.http, self.tftp, self.dhcp):
            if server is not None:
                server.start()
        if predecessor is not None:
            predecessor.take()  # where it fails, stop() comes before anything was read
            if predecessor.relay is not None:
                ends = attend(predecessor.relay, self.guard.fetched_runtime)
                self._from_predecessor = asyncio.get_running_loop().create_task(ends, name=RELAYED)
        self.serving = True
        self._write_state()
        assert self._follower is not None
        self._follower.start()
        self.upkeep.start()
        if self.naming is not None:
            self.naming.start(self.upkeep)
        self._looking.start()
        self.heads.start()
        if self.racks.takes_turns:
            self.supervisor.keep("turns at caches", self.racks.look)
        self._watch_threads()
        self.supervisor.keep(TENDING, self._tend_overlays)
        self.supervisor.keep(MACHINES, self._keep_machines)
        self._sockets.close_rest()
        if self._sockets.held:
            self._offer = Offer(self.paths.handover, self._sockets, self)
            with self.supervisor.guarded(OFFERING):
                self._offer.publish()
            self.supervisor.keep(OFFERING, self._offer_sockets)

    def _written_state(self) -> State:
        """In a thread: what `state` hands over, as far as it is in the database."""
        booting = self.phases.load() if self.phases is not None else []
        nodes = [(mac, at, at, False) for mac, at in booting]
        leases = self.dhcp.journal.load() if self.dhcp is not None else []
        return {"guard": {"nodes": nodes, "strangers": [], "seen": []}, "leases": leases}

    def _watch_threads(self) -> None:
        self.supervisor.probe("overlay cache", self.overlays.trouble)
        self.supervisor.probe("building overlays", self.builders.stuck)
        self.supervisor.probe("writing scripts", self._writers.stuck)
        self.supervisor.probe("the daemon's own work", self._chores.stuck)
        for name, threads in self._alone.items():
            self.supervisor.probe(f"{name} (thread)", threads.stuck)
        if (tftp := self.tftp) is not None:
            self.supervisor.probe("sending by TFTP", lambda: "" if tftp.alive else "its thread has ended")
        self.supervisor.keep("looking for troubles", self.supervisor.look)

    def _write_state(self) -> None:
        """Keep the database what is in memory, from now on."""
        if (phases := self.phases) is not None:
            with self.supervisor.guarded(SAVING):
                phases.start()
            self.supervisor.probe(SAVING, lambda: phases.error)
        if (dhcp := self.dhcp) is not None:
            with self.supervisor.guarded(LEASES):
                dhcp.journal.start()
            self.supervisor.probe(LEASES, lambda: dhcp.journal.trouble)

    def _http_server(self, sockets: list[socket.socket]) -> HttpServer:
        report = self.report
        board = Board(
            self.timeline,
            problems=report.problems,
            standing=report.standing,
            figures=report.figures,
            memory=self.machines.memory,
        )
        routes = Routes(
            registry=self.registry,
            planner=self.planner,
            upkeep=self.upkeep,
            peek=self.overlays.peek,
            making=Making(self.overlays.artefact, self.builders),
            deriving=Deriving(self._derive, self.builders),
            writing=Writing(self.overlays.write, self._writers),
            strangers=Writing(self.overlays.write, self._alone[STRANGERS]),
            guard=self.guard,
            machines=self.machines,
            board=board,
            discovery=Discovery(self.registry, Store(self.paths), self.guard, self._alone[DISCOVERY]),
            binaries=self.files.get,
            files=SiteFiles(self.paths.warewulf_files, self.settings.warewulf.files_secured),
            render_file=self.overlays.render_file,
            rendering=self._alone[RENDERING],
            aside=self._alone[ASIDE],
            outlook=self.report.outlook,
            tell=self.report.record,
            racks=self.racks,
        )
        own = self.settings.wwfast
        limits = Limits(connections=own.connections, pacing_bytes=own.client_rate)
        return HttpServer(sockets, routes, on_transfer=self.report.record, limits=limits, scheduler=self.scheduler)

    def _derive(self, reference: str, fmt: str) -> None:
        """In a thread: a build of an image in another form. Raises WwfastError."""
        build = ImageStore(self.paths).get(reference).build
        if build is not None and build.artefact(fmt) is None:
            build.derive(fmt)

    def _http_sockets(self) -> list[socket.socket]:
        port = self.settings.warewulf.port
        addresses = ["0.0.0.0", *(["::"] if has_ipv6() else [])]
        return [self._sockets.get(f"http {at}:{port}", partial(_listen, at, port)) for at in addresses]

    def _tftp_server(self) -> TftpServer:
        if self._replace and not self.files.by_arch:
            raise WwfastError("no iPXE binary was found, so no machine would boot by PXE", hint=HINT)
        address = self.settings.ipaddr
        requests = self._sockets.get(f"tftp {address}", partial(open_socket, address))
        return TftpServer([requests], self._tftp_file, on_transfer=self.report.record, optional=OPTIONAL_FILES)

    def _tftp_file(self, name: str, peer: str) -> bytes | None:
        return self.files.get(name)

    async def _loaded(self, snapshot: Snapshot) -> None:
        self.timeline.seed(snapshot.nodes)
        self.upkeep.refresh()
        if self.dhcp is not None:
            await self.dhcp.follow(snapshot, self._chores)

    def reload(self) -> None:
        """Re-read nodes.conf soon (SIGHUP)."""
        if self._follower is not None:
            self._follower.reload()

    @property
    def handing_over(self) -> bool:
        return self._offer is not None and self._offer.handing

    def pause(self) -> None:
        """Read no request for now: a successor is about to. What comes waits in the sockets."""
        for server in (self.http, self.tftp, self.dhcp):
            with self.supervisor.guarded(HANDING_OVER):
                if server is not None:
                    server.pause()

    def resume(self) -> None:
        """The successor did not take over."""
        self._to_successor = self.guard.successor = None
        for server in (self.http, self.tftp, self.dhcp):
            with self.supervisor.guarded(HANDING_OVER):
                if server is not None:
                    server.resume()

    async def state(self, relay: Relay | None) -> State:
        """What a successor must know: on the disk as far as that works, and in any case handed to it."""
        await self._in_time(HANDING_OVER, self._write_down)
        if relay is not None:
            self._to_successor, self.guard.successor = relay, relay.ask
        leases = self.dhcp.leases.export() if self.dhcp is not None else []
        return {"guard": self.guard.export(), "leases": leases, "machines": self.machines.export()}

    def _save_machines(self) -> None:
        """In a thread."""
        self.machines.save(self.registry.snapshot().nodes.__contains__)

    async def _keep_machines(self) -> None:
        await asyncio.sleep(KEEP_SECONDS)
        work = asyncio.get_running_loop().run_in_executor(self._chores, self._save_machines)
        await self.supervisor.attend(MACHINES, work)

    def _write_down(self) -> None:
        """In a thread."""
        if self.phases is not None:
            self.phases.flush()
        if self.dhcp is not None:
            self.dhcp.journal.flush()
        self._save_machines()

    def _close_database(self) -> None:
        """In a thread."""
        if self.phases is not None:
            self.phases.close()
        if self.dhcp is not None:
            self.dhcp.journal.close()

    async def _in_time(self, name: str, work: Callable[[], None]) -> None:
        """Run `work` in a thread for at most WRITE_SECONDS. Never raises: it is told."""
        with self.supervisor.guarded(name):
            future = asyncio.get_running_loop().run_in_executor(self._chores, work)
            if not (await asyncio.wait([future], timeout=WRITE_SECONDS))[0]:
                raise WwfastError(f"the database was not written within {WRITE_SECONDS:g} s")
            future.result()

    def let_go(self) -> None:
        """A successor reads: from here on our sockets and the database are its own. Whatever fails, we end."""
        self.replaced.set()
        log.info("replaced by another server; finishing what is under way")
        self.supervisor.stop()
        self.upkeep.start()  # what is under way may wait for it
        self.heads.close()
        if self.naming is not None:
            self.naming.close()
        with self.supervisor.guarded("letting go of DHCP"):
            if self.dhcp is not None:
                self.dhcp.stop()
                self.dhcp.journal.abandon()
            if self.phases is not None:
                self.phases.abandon()
        with self.supervisor.guarded("letting go of TFTP"):
            if self.tftp is not None:
                self.tftp.stop_accepting()
        with self.supervisor.guarded("letting go of HTTP"):
            if self.http is not None:
                self.http.stop_accepting()

    async def finish(self, seconds: float = REPLACED_SECONDS) -> None:
        """After the handover: let the transfers under way end, for at most `seconds`."""
        end = time.monotonic() + seconds
        if self.http is not None:
            await self.http.drain(seconds)
        while self.tftp is not None and self.tftp.running and time.monotonic() < end:
            await asyncio.sleep(0.1)

    async def stop(self, drain: float = DRAIN_SECONDS) -> None:
        """Stop taking nodes in, finish what runs, close everything, whatever of it fails. Safe after a start that
        failed half way."""
        if self._offer is not None:
            self._offer.close()
        if self._from_predecessor is not None:
            self._from_predecessor.cancel()
        self.supervisor.stop()
        self.heads.close()
        if self.naming is not None:
            self.naming.close()
        with self.supervisor.guarded("stopping DHCP"):
            if self.dhcp is not None:
                self.dhcp.stop()
        with self.supervisor.guarded("stopping TFTP"):
            if self.tftp is not None:
                self.tftp.stop()
        with self.supervisor.guarded("stopping HTTP"):
            if self.http is not None:
                await self.http.drain(drain, QUIET_SECONDS)
        if self.serving and not self.replaced.is_set():
            await self._in_time(MACHINES, self._save_machines)
            await self._in_time(SAVING, self._close_database)
        self._sockets.close()
        if self._to_successor is not None:
            self._to_successor.close()
        if self._follower is not None:
            self._follower.close()
        self.upkeep.close()
        self._looking.close()
        await self._in_time("closing the cache of overlays", self.overlays.close)
        for threads in (self.builders, self._writers, self._chores, *self._alone.values()):
            threads.shutdown(wait=False, cancel_futures=True)

    async def _tend_overlays(self) -> None:
        await asyncio.sleep(TEND_SECONDS)
        work = asyncio.get_running_loop().run_in_executor(self._chores, self.overlays.tend)
        if freed := await self.supervisor.attend(TENDING, work):
            log.info("overlay cache: %.0f MiB given back", freed / 2**20)

    async def _offer_sockets(self) -> None:
        await asyncio.sleep(OFFER_SECONDS)
        if self._offer is not None:
            self._offer.publish()


def _listen(host: str, port: int) -> socket.socket:
    (one,) = listen([(host, port)])
    return one
