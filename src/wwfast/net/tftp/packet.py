"""TFTP on the wire: requests, options, acknowledgements. Bytes in, values out; no sockets, no state.

RFC 1350, 2347 (options), 2348 (blksize), 2349 (timeout, tsize), 7440 (windowsize).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum


class Opcode(IntEnum):
    RRQ = 1
    WRQ = 2
    DATA = 3
    ACK = 4
    ERROR = 5
    OACK = 6


class Error(IntEnum):
    UNDEFINED = 0
    NOT_FOUND = 1
    ACCESS = 2
    DISK_FULL = 3
    ILLEGAL = 4
    UNKNOWN_TID = 5
    EXISTS = 6
    NO_USER = 7
    OPTIONS = 8


class Refused(Exception):
    """The request gets an ERROR with this code and text."""

    def __init__(self, code: Error, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


DEFAULT_BLKSIZE = 512
#: RFC 2348; the reply names at most what fits the path's MTU.
MAX_BLKSIZE = 65464
#: IPv4, UDP and TFTP headers: blocks above MTU - 32 would be fragmented, which PXE ROMs drop.
HEADERS = 32
#: Bytes read of a request: RFC 2347 says 512, some ROMs pad theirs.
MAX_REQUEST = 1024
MAX_WINDOW = 64


@dataclass(frozen=True, slots=True)
class Request:
    """An RRQ or WRQ; option names in lower case, in the order asked."""

    opcode: Opcode
    name: str
    mode: str
    options: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Terms:
    """What both sides agreed on. `timeout` in seconds, 0 when not asked for; `oack` is what the reply grants."""

    blksize: int = DEFAULT_BLKSIZE
    windowsize: int = 1
    timeout: int = 0
    oack: dict[str, str] = field(default_factory=dict)


def opcode(packet: bytes) -> int:
    return int.from_bytes(packet[:2], "big") if len(packet) >= 4 else 0


def parse_request(packet: bytes) -> Request:
    """Read an RRQ or WRQ. Raises Refused (illegal operation) for anything else."""
    kind = opcode(packet)
    if kind not in (Opcode.RRQ, Opcode.WRQ):
        raise Refused(Error.ILLEGAL, "not a request")
    if not packet.endswith(b"\0"):
        raise Refused(Error.ILLEGAL, "request is cut off")
    words = [word.decode("utf-8", "replace") for word in packet[2:-1].split(b"\0")]
    if len(words) < 2 or not words[0]:
        raise Refused(Error.ILLEGAL, "request without name and mode")
    # Some ROMs pad the packet with zeros: an empty option name ends the list.
    options: dict[str, str] = {}
    for name, value in zip(words[2::2], words[3::2], strict=False):
        if not name:
            break
        options[name.lower()] = value
    return Request(Opcode(kind), words[0], words[1].lower(), options)


def plain_name(name: str) -> str:
    """A file name as the lookup knows it: no leading or doubled slashes. Raises Refused for a way out of the tree."""
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
    if ".." in parts or not parts or any(ord(letter) < 32 for letter in name):
        raise Refused(Error.ACCESS, "no such place")
    return "/".join(parts)


def negotiate(request: Request, size: int, *, max_blksize: int = 1468, max_window: int = MAX_WINDOW) -> Terms:
    """Grant what we can of the options asked: never more than asked, nothing that was not asked (RFC 2347)."""
    blksize, windowsize, timeout = DEFAULT_BLKSIZE, 1, 0
    oack: dict[str, str] = {}
    for name, text in request.options.items():
        value = int(text) if text.isascii() and text.isdigit() and len(text) < 12 else -1
        if name == "blksize" and value >= 8:
            blksize = min(value, MAX_BLKSIZE, max_blksize)
            oack[name] = str(blksize)
        elif name == "windowsize" and 1 <= value <= 65535:
            windowsize = min(value, max_window)
            oack[name] = str(windowsize)
        elif name == "timeout" and 1 <= value <= 255:
            timeout = value
            oack[name] = text
        elif name == "tsize" and value >= 0 and request.mode == "octet":
            oack[name] = str(size)  # netascii changes the size on its way, so none is promised there
    return Terms(blksize, windowsize, timeout, oack)


def netascii(data: bytes) -> bytes:
    """RFC 764's line ends: LF becomes CR LF, a bare CR becomes CR NUL."""
    return data.replace(b"\r", b"\r\0").replace(b"\n", b"\r\n")


def request(name: str, options: dict[str, str] | None = None, *, mode: str = "octet") -> bytes:
    """An RRQ."""
    words = [name, mode, *(word for pair in (options or {}).items() for word in pair)]
    return b"\0\1" + b"".join(word.encode() + b"\0" for word in words)


def oack(options: dict[str, str]) -> bytes:
    return b"\0\6" + b"".join(f"{name}\0{value}\0".encode() for name, value in options.items())


def parse_oack(packet: bytes) -> dict[str, str]:
    words = [word.decode("ascii", "replace") for word in packet[2:].split(b"\0")[:-1]]
    return {name.lower(): value for name, value in zip(words[::2], words[1::2], strict=False)}


def ack(block: int) -> bytes:
    return b"\0\4" + (block & 0xFFFF).to_bytes(2, "big")


def data(block: int, payload: bytes) -> bytes:
    return b"\0\3" + (block & 0xFFFF).to_bytes(2, "big") + payload


def error(code: int, text: str) -> bytes:
    return b"\0\5" + int(code).to_bytes(2, "big") + text.encode() + b"\0"


def parse_error(packet: bytes) -> tuple[int, str]:
    return int.from_bytes(packet[2:4], "big"), packet[4:].partition(b"\0")[0].decode("utf-8", "replace")
