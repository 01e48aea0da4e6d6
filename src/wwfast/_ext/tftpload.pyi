from collections.abc import Sequence

class Crowd:
    seconds: float
    completed: int
    failed: int
    repeats: int
    blocks: int
    wrong: int
    def __init__(
        self,
        server: int,
        port: int,
        request: bytes,
        content: bytes,
        *,
        count: int = 1,
        delay: float = 0.0,
        timeout: float = 1.0,
        patience: float = 30.0,
        sources: Sequence[int] = (),
    ) -> None: ...
    def run(self) -> None: ...
    def ended(self) -> list[float]: ...

def live() -> dict[str, int]: ...
