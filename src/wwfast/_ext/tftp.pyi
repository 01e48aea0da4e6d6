from collections.abc import Sequence
from typing import Literal

class Engine:
    fileno: int
    strangers: int
    resent: int
    send_errors: int
    live: int
    busy: bool
    def __init__(self, sockets: Sequence[int] = (), *, segments: bool = True) -> None: ...
    def serve(self) -> None: ...
    def stop(self) -> None: ...
    def start(
        self,
        local: int,
        ip: int,
        port: int,
        data: bytes,
        blksize: int,
        window: int,
        timeout: int = 0,
        oack: bytes = b"",
        now: float | None = None,
    ) -> int: ...
    def again(self, local: int, ip: int, port: int) -> bool: ...
    def drain(self) -> list[tuple[int, Literal["begun", "done", "failed"], int, int, str]]: ...
    def feed(self, local: int, ip: int, port: int, data: bytes, now: float) -> None: ...
    def tick(self, now: float) -> None: ...
    def take(self) -> list[tuple[int, int, int, bytes]]: ...
