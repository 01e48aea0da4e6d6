"""Our HTTP server over a directory of files, for the benchmarks: `python -m benchmarks._http_server DIR PORT POLICY`.

/NAME is DIR/NAME; with /NAME/MAC the transfer belongs to the node MAC and POLICY `wave` puts it in its turn. With
DIR/MAC.NAME there, that is what is sent. `fair` is without a scheduler. A file MAC.NAME.cut puts a fault in: the
first transfer of MAC.NAME ends in the middle, because the file is cut short while it is sent.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import uvloop

from wwfast.archive.artefact import RAW, Artefact, Extent
from wwfast.daemon.life.handover import Offer, Sockets, find
from wwfast.daemon.traffic.scheduler import WaveScheduler
from wwfast.net.http.message import Request, Response
from wwfast.net.http.server import HttpServer, listen
from wwfast.net.http.serving import Limits
from wwfast.net.transfer import Outcome, Transfer

DRAIN = 30.0  # s that transfers under way may take when a successor has taken over


def artefacts(tree: Path) -> dict[str, Artefact]:
    found: dict[str, Artefact] = {}
    for entry in os.scandir(tree):
        if entry.is_file():
            stat = entry.stat()
            found[entry.name] = Artefact(
                entry.name, RAW, (Extent(entry.path, 0, stat.st_size),), f"{stat.st_ino:x}", (RAW,), int(stat.st_mtime)
            )
    return found


class Holder:
    """Hands over to another server and then ends."""

    def __init__(self, server: HttpServer, over: asyncio.Event) -> None:
        self.pause, self.resume = server.pause, server.resume
        self._server, self._over = server, over

    async def state(self) -> dict[str, object]:
        return {}

    def let_go(self) -> None:
        self._server.stop_accepting()
        self._over.set()


async def serve(tree: Path, port: int, policy: str) -> None:
    known = artefacts(tree)
    last = "runtime"

    def handler(request: Request) -> Response:
        name, _, mac = request.path[1:].partition("/")
        artefact = known.get(f"{mac}.{name}") or known.get(name)
        if artefact is None:
            return Response(404)
        return Response(
            body=artefact,
            content_type="application/octet-stream",
            wwid=mac,
            stage=name if mac else "",
            last=name == last,
        )

    def fault(event: Transfer) -> None:
        victim = tree / f"{event.wwid}.{event.sent.rpartition('.')[2]}"
        flag = victim.with_name(victim.name + ".cut")
        if event.outcome is Outcome.STARTED and flag.exists():
            flag.write_bytes(victim.read_bytes())
            os.truncate(victim, event.total_bytes // 2)
        elif event.outcome is Outcome.FAILED and flag.exists():
            flag.rename(victim)

    scheduler = WaveScheduler() if policy == "wave" else None
    way = tree / f"handover-{port}"
    predecessor = find(way)
    sockets = predecessor.sockets if predecessor else Sockets()
    listener = sockets.get("http", lambda: listen([("0.0.0.0", port)])[0])
    server = HttpServer([listener], handler, on_transfer=fault, limits=Limits(send_threads=2), scheduler=scheduler)
    server.prepare()
    if predecessor:
        await asyncio.to_thread(predecessor.release)
    server.start()
    if predecessor:
        predecessor.take()
    over = asyncio.Event()
    offer = Offer(way, sockets, Holder(server, over))
    offer.publish()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)
    await over.wait()
    offer.close()
    await server.drain(DRAIN)


if __name__ == "__main__":
    uvloop.run(serve(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))
