"""DHCP and TFTP as the daemon runs them, for one namespace, from one JSON argument; prints "ready", then events.

Keys: not_in (the network namespace it must not run in), address, netmask, interface (default eth0), nodes
{mac: {...}}, first, last, proxy, files (folder), http (URL), database, dhcp and tftp (booleans), lease. USR1 prints
the counters, TERM ends it.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path

import uvloop

from wwfast.net.dhcp.journal import Journal
from wwfast.net.dhcp.leases import LeaseTable
from wwfast.net.dhcp.packet import ClientInfo, number
from wwfast.net.dhcp.responder import Responder
from wwfast.net.dhcp.server import DhcpServer, open_sockets, transfer
from wwfast.net.dhcp.terms import (
    BootFile,
    DhcpConfig,
    Reservation,
)
from wwfast.net.tftp.server import TftpServer, open_socket
from wwfast.net.transfer import Transfer

BOOT = {0: "undionly.kpxe", 6: "snponly.efi", 7: "snponly.efi", 9: "snponly.efi", 11: "ipxe-arm64.efi"}


async def main(config: dict) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    verbose = config.get("verbose", True)

    def told(event: Transfer) -> None:
        if verbose:
            print(
                f"{event.stage} {event.outcome} {event.sent} {event.wwid} {event.node} {event.peer} "
                f"{event.sent_bytes} {event.detail}",
                flush=True,
            )

    def boot(client: ClientInfo, server_ip: str) -> BootFile | None:
        if client.is_ipxe:
            return BootFile(server_ip, config.get("http", f"http://{server_ip}/boot.ipxe"))
        if client.is_http:
            return BootFile(server_ip, f"http://{server_ip}/snponly.efi")
        return BootFile(server_ip, BOOT.get(client.arch or 0, "undionly.kpxe"))

    servers: list[DhcpServer | TftpServer] = []
    journal = None
    if config.get("dhcp", True):
        nodes = {mac: Reservation(**fields) for mac, fields in config.get("nodes", {}).items()}
        taken = {number(node.address) for node in nodes.values()}
        if config.get("database"):
            journal = Journal(Path(config["database"]))
        leases = LeaseTable(number(config.get("first", "")), number(config.get("last", "")), journal=journal)
        leases.reserve(leases.mask(taken))
        if journal is not None:
            journal.start()
        responder = Responder(
            DhcpConfig(
                config["address"],
                config.get("netmask", "255.255.255.0"),
                router=config.get("router", ""),
                proxy=config.get("proxy", False),
                lease_seconds=config.get("lease", 3600),
            ),
            nodes.get,
            boot,
            leases,
        )
        sockets = open_sockets(config.get("interface", "eth0"))
        servers.append(DhcpServer(sockets, responder, on_contact=lambda contact, now: told(transfer(contact, now))))
    if config.get("tftp", True):
        files = {path.name: path.read_bytes() for path in Path(config["files"]).iterdir()}
        servers.append(
            TftpServer([open_socket(config["address"])], lambda name, peer: files.get(name), on_transfer=told)
        )
    for server in servers:
        server.start()
    loop.add_signal_handler(signal.SIGUSR1, lambda: print(json.dumps([s.stats() for s in servers]), flush=True))
    print("ready", flush=True)
    await stop.wait()
    for server in servers:
        server.stop()
    if journal is not None:
        journal.close()


if __name__ == "__main__":
    settings = json.loads(sys.argv[1])
    if Path("/proc/self/ns/net").stat().st_ino == settings["not_in"]:
        sys.exit("not in the network namespace that started it")
    uvloop.run(main(settings))
