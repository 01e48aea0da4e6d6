"""JSON of what is kept beside builds. Among its strings are names of files, which need not be UTF-8: such a byte stands
as `\\udcXX`, as Python has it (PEP 383) and its json writes it, but msgspec neither writes nor reads."""

from __future__ import annotations

from typing import TypeVar

import msgspec

T = TypeVar("T")


def encode(value: object) -> bytes:
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        import json

        return json.dumps(msgspec.to_builtins(value), separators=(",", ":")).encode()


def decode(data: bytes, kind: type[T]) -> T:
    """Raises msgspec.MsgspecError."""
    if b"\\udc" not in data:
        return msgspec.json.decode(data, type=kind)
    import json

    try:
        return msgspec.convert(json.loads(data), kind)
    except (ValueError, RecursionError) as error:
        raise msgspec.DecodeError(str(error)) from error
