from collections.abc import Sequence

DEBUG: bool

def pack(
    entries: Sequence[tuple[bytes, int, int, int, int, bytes, tuple[int, int]]], segment: int, trailer: bool
) -> bytes: ...
