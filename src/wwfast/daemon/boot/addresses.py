"""The DHCP and TFTP side of the daemon: policy and registry plugged into the sans-IO responders.

Safe on a real network: DHCP starts only where `ipaddr` and `network` are written in warewulf.conf, bound to the
interface that carries ipaddr, and not beside another DHCP server unless forced.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TYPE_CHECKING

from wwfast.boot import heads
from wwfast.boot.loader.binaries import BootFiles
from wwfast.boot.loader.firmware import boot_file
from wwfast.boot.loader.urls import Urls
from wwfast.config import checks
from wwfast.daemon.boot.guard import Guard
from wwfast.daemon.life.handover import Sockets
from wwfast.errors import WwfastError
from wwfast.net.dhcp.journal import Journal
from wwfast.net.dhcp.leases import LeaseTable
from wwfast.net.dhcp.network import clashes, own_addresses, require_range, require_written
from wwfast.net.dhcp.packet import ClientInfo, dotted, number
from wwfast.net.dhcp.pool import Mask
from wwfast.net.dhcp.responder import Responder
from wwfast.net.dhcp.server import PROBE_SECONDS, DhcpServer, interface_of, listening, open_sockets, probe, transfer
from wwfast.net.dhcp.terms import BootFile, Contact, DhcpConfig, Reservation
from wwfast.net.ndp import Impatience
from wwfast.net.ndp.server import NdpServer, link_local
from wwfast.net.transfer import Transfer

if TYPE_CHECKING:
    from wwfast.config.settings import Settings
    from wwfast.nodes.registry import Registry, Snapshot
    from wwfast.paths import Paths

log = logging.getLogger(__name__)

UNUSABLE = "its entry in nodes.conf is unusable, see wwfast doctor"
#: How long after its DHCP a machine may be in iPXE, waiting for an IPv6 router.
SOLICITS_SECONDS = 60.0


class Addresses:
    """Our DHCP: who gets which address and boot file, from the registry as it is at that moment."""

    def __init__(
        self,
        settings: Settings,
        paths: Paths,
        registry: Registry,
        files: BootFiles,
        guard: Guard,
        on_transfer: Callable[[Transfer], None],
    ) -> None:
        require_written(settings, paths)
        require_range(settings, paths)
        self._registry = registry
        self._files = files
        self._guard = guard
        self._urls = Urls.of(settings)
        self._on_transfer = on_transfer
        self.interface = interface_of(settings.ipaddr)
        self.journal = Journal(paths.database)
        first, last = (
            number(address) if address else 0 for address in (settings.dhcp.range_start, settings.dhcp.range_end)
        )
        self.leases = LeaseTable(*heads.share(settings, first, last), journal=self.journal)
        self._settings = settings
        self._taken = set(map(number, own_addresses(settings)))
        self._clashes: dict[tuple[str, str], str] = {}  # of the registry as it was gone through
        own = settings.wwfast
        relays = frozenset(map(number, own.dhcp_relays))
        siblings = frozenset(map(number, heads.siblings(settings)))
        config = DhcpConfig(settings.ipaddr, settings.netmask, proxy=own.proxy_dhcp, relays=relays, siblings=siblings)
        self.responder = Responder(config, self.reservation, self._boot, self.leases)
        self.server: DhcpServer | None = None
        # Where IPv6 is in use its routers answer; elsewhere iPXE would wait for one.
        self._alone = not settings.ipaddr6
        self.routers: NdpServer | None = None

    async def prepare(self, sockets: Sockets, *, force: bool) -> None:
        """Ask the network, open what is needed, read nothing yet. Raises WwfastError naming another server there.

        As ProxyDHCP we live beside another server, so that one is not asked for; and a predecessor, whose sockets
        we have, asked already, unless it was such a guest itself.
        """
        proxy = self.responder.config.proxy
        fact = f"alone on {self.interface}"
        asked = proxy or fact in sockets.former
        others: list[str] = []
        if not asked:
            log.info("asking for %g s whether another DHCP server answers on %s", PROBE_SECONDS, self.interface)
            others = await probe(self.interface)
        known = {self.responder.config.server_ip, *heads.siblings(self._settings)}  # our predecessor, and other heads
        others = [address for address in others if address not in known]
        if others and not force:
            raise WwfastError(
                f"another DHCP server answers on {self.interface}: {', '.join(others)}",
                hint="stop it, or set `dhcp: enabled: false` in warewulf.conf, or start with --force-dhcp",
            )
        mask, self._clashes = await asyncio.to_thread(self._gone_through, self._registry.snapshot())
        self.leases.reserve(mask)

        def listen(interface: str, port: int) -> socket.socket:
            return sockets.get(_name(interface, port), lambda: listening(interface, port))

        opened = open_sockets(self.interface, listen=listen)
        self.server = DhcpServer(opened, self.responder, on_contact=self._event)
        if not proxy:
            sockets.facts.add(fact)
        source = link_local(self.interface) if self._alone else ""
        if source:
            try:
                boots = Impatience(lambda mac: self._guard.boots_within(mac, SOLICITS_SECONDS), time.monotonic)
                self.routers = NdpServer(self.interface, source, boots)
            except OSError as error:  # no right to raw sockets, no IPv6
                log.warning("cannot listen for router solicitations, so iPXE may wait some 16 s for one: %s", error)

    def start(self) -> None:
        """Serve what prepare() made ready; the journal is started apart."""
        if self.server is not None:
            self.server.start()
        if self.routers is not None:
            self.routers.start()

    def pause(self) -> None:
        """Read nothing for now; what comes waits in the sockets."""
        if self.server is not None:
            self.server.pause()

    def resume(self) -> None:
        if self.server is not None:
            self.server.start()

    def stop(self) -> None:
        """Answer nobody any more. Safe to repeat; the journal is closed by close()."""
        if self.server is not None:
            self.server.stop()
            self.server = None
        if self.routers is not None:
            self.routers.stop()
            self.routers = None

    def reservation(self, mac: str) -> Reservation | None:
        snapshot = self._registry.snapshot()
        node = snapshot.by_mac(mac)
        if node is None:
            unusable = snapshot.left_out(mac)
            return Reservation(unusable, unusable=UNUSABLE) if unusable else None
        device = next((device for device in node.network_devices.values() if device.is_called(mac)), None)
        if device is None:
            return Reservation(node.id, hostname=node.id)
        address = device.ipaddr if device.ipaddr != "0.0.0.0" else ""
        if address and (why := self._clashes.get((node.id, address))):
            return Reservation(node.id, unusable=f"its address {address} {why}")
        if address and (other := snapshot.by_ip(address)) is not None and other is not node:
            return Reservation(node.id, unusable=f"its address {address} also belongs to node {other.id}")
        netmask = device.netmask if device.netmask in checks.MASKS else ""
        return Reservation(node.id, address, netmask, device.gateway, node.id)

    async def follow(self, snapshot: Snapshot, executor: Executor) -> None:
        """The range goes round the addresses of a new nodes.conf as soon as a thread has gone through it."""
        mask, found = await asyncio.get_running_loop().run_in_executor(executor, self._gone_through, snapshot)
        if snapshot is self._registry.snapshot():
            self.leases.reserve(mask)
            self._clashes = found

    def _gone_through(self, snapshot: Snapshot) -> tuple[Mask, dict[tuple[str, str], str]]:
        """What the range leaves out, and which address a node does not get: (node, address) and why."""
        addresses = filter(checks.IP4.fullmatch, snapshot.addresses())
        found = {(clash.node, clash.address): clash.why for clash in clashes(snapshot, self._settings, {})}
        return self.leases.mask(self._taken.union(map(number, addresses))), found

    def leased(self, mac: str) -> str:
        """The address this MAC has from us, or "". One that was only offered is nobody's yet."""
        lease = self.leases.get(mac)
        if lease is not None and lease.bound:
            return dotted(lease.address)
        fixed = self.reservation(mac)
        return fixed.address if fixed else ""

    def owner(self, address: str) -> str:
        """The MAC that has this address of the range, or ""."""
        return "" if ":" in address else self.leases.owner(number(address)) or ""

    def _boot(self, client: ClientInfo, server_ip: str) -> BootFile | None:
        name = boot_file(client, client.mac, self._urls, self._files.by_arch)
        return BootFile(server_ip, name) if name else None

    def _event(self, contact: Contact, now: float) -> None:
        self._guard.saw_dhcp(contact.mac, boots=contact.boots, known=bool(contact.node))
        if contact.boots or contact.detail:
            self._on_transfer(transfer(contact, now))


def _name(interface: str, port: int) -> str:
    return f"dhcp {interface}:{port}"
