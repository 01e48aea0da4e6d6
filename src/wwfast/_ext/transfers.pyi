from typing import Literal

class Transfers:
    strangers: int
    resent: int
    live: int
    kept: int
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
    def forget(self, number: int, local: int, ip: int, port: int) -> bool: ...
    def drain(self) -> list[tuple[int, Literal["begun", "done", "failed"], int, int, str]]: ...
    def feed(self, local: int, ip: int, port: int, data: bytes, now: float) -> None: ...
    def tick(self, now: float) -> None: ...
    def take(self) -> list[tuple[int, int, int, bytes]]: ...

def live() -> dict[str, int]: ...
