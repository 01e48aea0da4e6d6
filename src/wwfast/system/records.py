"""JSON of what is kept beside builds. Among its strings are names of files, which need not be UTF-8: such a byte stands
as `\\udcXX`, as Python has it (PEP 383) and its json writes it, but msgspec neither writes nor reads.

What is packed (msgpack) is JSON where it has such a name: no list or map of msgpack begins as one of JSON does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeVar

import msgspec

T = TypeVar("T")


def encode(value: object) -> bytes:
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        return escaped(value)


def escaped(value: object, order: Literal["deterministic"] | None = None) -> bytes:
    import json

    plain = msgspec.to_builtins(value, str_keys=True, enc_hook=str, order=order)
    return json.dumps(plain, separators=(",", ":")).encode()


def packer(order: Literal["deterministic"] | None = None) -> Callable[[object], bytes]:
    pack = msgspec.msgpack.Encoder(enc_hook=str, order=order).encode

    def packed(value: object) -> bytes:
        try:
            return pack(value)
        except UnicodeEncodeError:
            return escaped(value, order)

    return packed


def unpacked(data: bytes, decoder: msgspec.msgpack.Decoder[T]) -> T:
    """Raises msgspec.MsgspecError."""
    if data[:1] not in (b"[", b"{"):
        return decoder.decode(data)
    kind: Any = decoder.type
    found: T = decode(data, kind)
    return found


def decode(data: bytes, kind: type[T]) -> T:
    """Raises msgspec.MsgspecError."""
    if b"\\udc" not in data:
        return msgspec.json.decode(data, type=kind)
    import json

    try:
        return msgspec.convert(json.loads(data), kind)
    except (ValueError, RecursionError) as error:
        raise msgspec.DecodeError(str(error)) from error
