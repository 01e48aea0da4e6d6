"""What a server that was replaced still has done by its successor: its last answers end boots that are known there.

Between the two is a line; what is said on it is a hardware address, which comes back once its boot is over there.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

#: A successor that has what is known hears this once it reads (handover.TAKING), and then writes it down.
PATIENCE = 15.0


class Relay:
    """The end of the one that is replaced."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._asked: dict[str, asyncio.Future[bool]] = {}
        self._reading = asyncio.get_running_loop().create_task(self._read(reader), name="hearing of a successor")

    @classmethod
    async def over(cls, line: socket.socket) -> Relay:
        return cls(*await asyncio.open_unix_connection(sock=line))

    async def ask(self, mac: str) -> bool:
        """Whether the successor ended this boot; False where it is none in the end, has died or does not answer."""
        if self._writer.is_closing():
            return False
        done = self._asked.get(mac)
        if done is None:
            done = self._asked[mac] = asyncio.get_running_loop().create_future()
            self._writer.write(f"{mac}\n".encode())
        await asyncio.wait([done], timeout=PATIENCE)
        return done.done() and done.result()

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            while line := await reader.readline():
                done = self._asked.pop(line.decode().strip(), None)
                if done is not None:
                    done.set_result(True)
        except OSError:
            pass  # as if it had closed its end
        finally:
            self.close()

    def close(self) -> None:
        """Nobody answers any more. Safe to repeat."""
        self._writer.close()
        while self._asked:
            self._asked.popitem()[1].set_result(False)


async def attend(line: socket.socket, end: Callable[[str], Awaitable[None]]) -> None:
    """The end of the successor: do what is asked for, until the one before it has ended."""
    reader, writer = await asyncio.open_unix_connection(sock=line)

    async def do(said: bytes) -> None:
        await end(said.decode().strip())
        writer.write(said)

    try:
        async with asyncio.TaskGroup() as tasks:
            while said := await reader.readline():
                tasks.create_task(do(said))
    except OSError:
        pass  # it died
    finally:
        writer.close()
