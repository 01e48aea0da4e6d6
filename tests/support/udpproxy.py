"""A TFTP proxy on loopback that loses, repeats and reorders packets, for real sockets on both sides."""

from __future__ import annotations

import selectors
import socket
import threading
from random import Random


class Proxy:
    """Between clients, which ask at `port`, and the server at `upstream`; a context manager with its own thread.

    Each client gets a socket towards the server; what the server's transfer port answers is passed on from `port`.
    """

    def __init__(self, upstream: tuple[str, int], *, lose: float, repeat: float, swap: float, seed: int) -> None:
        self._upstream = upstream
        self._lose, self._repeat, self._swap = lose, repeat, swap
        self._random = Random(seed)
        self._front = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._front.bind(("127.0.0.1", 0))
        self.port: int = self._front.getsockname()[1]
        self._backs: dict[tuple[str, int], socket.socket] = {}
        self._peers: dict[socket.socket, tuple[tuple[str, int], tuple[str, int]]] = {}
        self._held: list[tuple[socket.socket, bytes, tuple[str, int]]] = []
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._front, selectors.EVENT_READ)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.harmed = 0

    def __enter__(self) -> Proxy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._selector.close()
        for sock in (self._front, *self._backs.values()):
            sock.close()

    def _run(self) -> None:
        while not self._over.is_set():
            for key, _ in self._selector.select(0.02):
                sock = key.fileobj
                assert isinstance(sock, socket.socket)
                data, source = sock.recvfrom(65536)
                if sock is self._front:
                    back = self._back(source)
                    if data[1] == 1:
                        self._peers[back] = (source, self._upstream)
                    self._pass(back, data, self._peers[back][1])
                else:
                    self._peers[sock] = (self._peers[sock][0], source)
                    self._pass(self._front, data, self._peers[sock][0])
            for sock, data, target in self._held:
                sock.sendto(data, target)
            self._held.clear()

    def _back(self, client: tuple[str, int]) -> socket.socket:
        if client not in self._backs:
            back = self._backs[client] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            back.bind(("127.0.0.1", 0))
            self._peers[back] = (client, self._upstream)
            self._selector.register(back, selectors.EVENT_READ)
        return self._backs[client]

    def _pass(self, sock: socket.socket, data: bytes, target: tuple[str, int]) -> None:
        chance = self._random.random()
        if chance < self._lose:
            self.harmed += 1
        elif chance < self._lose + self._repeat:
            self.harmed += 1
            sock.sendto(data, target)
            sock.sendto(data, target)
        elif chance < self._lose + self._repeat + self._swap:
            self.harmed += 1
            self._held.append((sock, data, target))  # after what comes next
        else:
            sock.sendto(data, target)
