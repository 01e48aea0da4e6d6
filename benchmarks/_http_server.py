"""Our HTTP server over a directory of files, for the benchmarks: `python -m benchmarks._http_server DIR PORT POLICY`.

/NAME is DIR/NAME; with /NAME/MAC the transfer belongs to the node MAC and POLICY `wave` puts it in its turn. With
DIR/MAC.NAME there, that is what is sent. `fair` is without a scheduler.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import uvloop

from wwfast.daemon.scheduler import WaveScheduler
from wwfast.net.http.message import Request, Response
from wwfast.net.http.server import HttpServer, Limits, listen
from wwfast.pack.artefact import RAW, Artefact, Extent


def artefacts(tree: Path) -> dict[str, Artefact]:
    found: dict[str, Artefact] = {}
    for entry in os.scandir(tree):
        if entry.is_file():
            stat = entry.stat()
            found[entry.name] = Artefact(
                entry.name, RAW, (Extent(entry.path, 0, stat.st_size),), f"{stat.st_ino:x}", (RAW,), int(stat.st_mtime)
            )
    return found


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

    scheduler = WaveScheduler() if policy == "wave" else None
    server = HttpServer(listen([("0.0.0.0", port)]), handler, limits=Limits(send_threads=2), scheduler=scheduler)
    server.start()
    over = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)
    print("ready", flush=True)
    await over.wait()
    await server.close()


if __name__ == "__main__":
    uvloop.run(serve(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))
