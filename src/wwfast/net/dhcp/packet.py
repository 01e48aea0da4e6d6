"""DHCP messages on the wire: parse, build, and who is asking. Bytes in, values out; no sockets, no policy.

Addresses are 32-bit integers here (`dotted` for people), MACs lower case with colons.
RFC 2131 and 2132; RFC 3396 (options longer than 255), RFC 3046 (relay agent information), RFC 4578 (PXE), RFC 1534
(BOOTP), RFC 3011 and 3527 (which link a client is on).
"""

from __future__ import annotations

import struct
import uuid as uuids
from collections.abc import Iterable, Mapping
from enum import IntEnum
from functools import lru_cache

import msgspec

from wwfast._ext.dhcp import read_options


class Malformed(Exception):
    """The packet cannot be a DHCP request; it is dropped and counted."""


class Kind(IntEnum):
    """Option 53."""

    DISCOVER = 1
    OFFER = 2
    REQUEST = 3
    DECLINE = 4
    ACK = 5
    NAK = 6
    RELEASE = 7
    INFORM = 8


class Option:
    """Codes; plain integers, for they are looked up a dozen times in each packet."""

    NETMASK = 1
    ROUTER = 3
    DNS = 6
    HOSTNAME = 12
    DOMAIN = 15
    VENDOR_SPECIFIC = 43
    REQUESTED_ADDRESS = 50
    LEASE_TIME = 51
    OVERLOAD = 52
    KIND = 53
    SERVER_ID = 54
    MAX_SIZE = 57
    RENEWAL_TIME = 58
    REBINDING_TIME = 59
    VENDOR_CLASS = 60
    CLIENT_ID = 61
    TFTP_SERVER = 66
    BOOT_FILE = 67
    USER_CLASS = 77
    RELAY_AGENT = 82
    CLIENT_ARCH = 93
    CLIENT_UUID = 97
    SUBNET = 118
    IPXE = 175


MAGIC = 0x63825363
BROADCAST_FLAG = 0x8000
REQUEST, REPLY = 1, 2
#: Hardware types (IANA, ARP). Of IEEE 802 the addresses are those of Ethernet, and some clients say that of theirs.
ETHERNET, IEEE802, INFINIBAND = 1, 6, 32
#: op htype hlen hops, xid, secs flags, ciaddr yiaddr siaddr giaddr, chaddr, sname, file, magic cookie
HEADER = struct.Struct("!4BI2H4I16s64s128sI")
#: What we keep of a client's name: a longer one (RFC 3396) is nobody's, and would fill memory and database.
NAME_SIZE = 64
#: BOOTP's minimum: relays and old ROMs drop shorter packets. A reply to BOOTP has no more either (RFC 1534 2).
MIN_SIZE = 300
#: Option 57 counts IP and UDP as well (RFC 2132 9.10): what everyone takes, and what fits in a frame.
IP_UDP = 28
LEAST, MOST = 576 - IP_UDP, 1500 - IP_UDP
#: Old ROMs read these as C strings: what follows must be a NUL, which a pad option is (RFC 2132 2, 3.1).
TEXTS = frozenset((Option.VENDOR_CLASS, Option.TFTP_SERVER, Option.BOOT_FILE))
#: What a boot does without: where a reply would be too long for its client the last of these goes first.
SPARE = (
    Option.CLIENT_ID,
    Option.CLIENT_UUID,
    Option.SUBNET,
    Option.DNS,
    Option.HOSTNAME,
    Option.DOMAIN,
    Option.TFTP_SERVER,
    Option.RENEWAL_TIME,
    Option.REBINDING_TIME,
)
#: Sub-option of the relay's information: the link of the client (RFC 3527).
LINK_SELECTION = 5
ARCHITECTURES = 8  # of one client; firmware names one to three


@lru_cache(maxsize=65536)
def dotted(address: int) -> str:
    return f"{address >> 24}.{address >> 16 & 255}.{address >> 8 & 255}.{address & 255}"


@lru_cache(maxsize=65536)
def number(address: str) -> int:
    """The integer of a dotted address; "" is 0. Raises ValueError when it is not one."""
    if not address:
        return 0
    parts = [int(part) for part in address.split(".")]
    if len(parts) != 4 or any(not 0 <= part <= 255 for part in parts):
        raise ValueError(f"{address!r} is not an IPv4 address")
    return parts[0] << 24 | parts[1] << 16 | parts[2] << 8 | parts[3]


class Message(msgspec.Struct):
    """One BOOTP/DHCP packet; `options` with the parts of split options joined, without PAD and END."""

    op: int = REQUEST
    htype: int = ETHERNET
    hops: int = 0
    xid: int = 0
    secs: int = 0
    flags: int = 0
    ciaddr: int = 0
    yiaddr: int = 0
    siaddr: int = 0
    giaddr: int = 0
    chaddr: bytes = b""
    sname: bytes = b""
    file: bytes = b""
    options: dict[int, bytes] = msgspec.field(default_factory=dict)

    @property
    def mac(self) -> str:
        return self.chaddr.hex(":")

    @property
    def kind(self) -> int:
        """Option 53, or 0 for plain BOOTP."""
        value = self.options.get(Option.KIND, b"")
        return value[0] if len(value) == 1 else 0

    @property
    def room(self) -> int:
        """Bytes of a reply that the client takes (option 57; one that says less than it must take is not believed)."""
        value = self.options.get(Option.MAX_SIZE)
        if not self.kind:
            return MIN_SIZE
        if value is None or len(value) != 2:
            return LEAST
        return min(max(int.from_bytes(value, "big") - IP_UDP, LEAST), MOST)

    @property
    def link(self) -> int:
        """An address of the client's link as relays tell it (RFC 3527 before RFC 3011 before giaddr); 0 for ours."""
        if Option.RELAY_AGENT in self.options:
            value = sub_options(self.options[Option.RELAY_AGENT]).get(LINK_SELECTION, b"")
            if len(value) == 4:
                return int.from_bytes(value, "big")
        return self.address(Option.SUBNET) or self.giaddr

    def address(self, option: int) -> int:
        """An option holding one address, or 0."""
        value = self.options.get(option, b"")
        return int.from_bytes(value, "big") if len(value) == 4 else 0


def parse(data: bytes) -> Message:
    """Read one packet. Raises Malformed for anything that is not whole."""
    if len(data) < HEADER.size:
        raise Malformed(f"{len(data)} bytes are too short")
    op, htype, hlen, hops, xid, secs, flags, ciaddr, yiaddr, siaddr, giaddr, chaddr, sname, file, magic = (
        HEADER.unpack_from(data)
    )
    if magic != MAGIC:
        raise Malformed("no DHCP magic cookie")
    if op not in (REQUEST, REPLY) or hlen > 16:
        raise Malformed(f"operation {op}, hardware address length {hlen}")
    options: dict[int, bytes] = {}
    _read_options(data, HEADER.size, options)
    overload = options.pop(Option.OVERLOAD, b"\0")
    if overload[:1] in (b"\1", b"\3"):
        _read_options(file, 0, options)
        file = b""
    if overload[:1] in (b"\2", b"\3"):
        _read_options(sname, 0, options)
        sname = b""
    return Message(
        op,
        htype,
        hops,
        xid,
        secs,
        flags,
        ciaddr,
        yiaddr,
        siaddr,
        giaddr,
        chaddr[:hlen],
        sname.partition(b"\0")[0],
        file.partition(b"\0")[0],
        options,
    )


def _read_options(data: bytes, at: int, options: dict[int, bytes]) -> None:
    torn = read_options(data, at, options)
    if torn >= 0:
        raise Malformed(f"option {torn} runs past the end")


def build(message: Message) -> bytes:
    """The packet of `message`: options in their order, but option 53 first and option 82 last."""
    return assemble(message, encode_options(message.options))


def assemble(message: Message, options: bytes, room: int = MOST) -> bytes:
    """The packet of `message` with `options`, already encoded, in place of its own; in at most `room` bytes."""
    sname, file = message.sname, message.file if len(message.file) < 128 else b""
    if HEADER.size + len(options) >= room:
        options, sname, file = _squeeze(options, sname, file, room - HEADER.size - 1)
    header = HEADER.pack(
        message.op,
        message.htype,
        len(message.chaddr),
        message.hops,
        message.xid,
        message.secs,
        message.flags,
        message.ciaddr,
        message.yiaddr,
        message.siaddr,
        message.giaddr,
        message.chaddr,
        sname,
        file,
        MAGIC,
    )
    return (header + options + b"\xff").ljust(MIN_SIZE, b"\0")


def encoded(code: int, value: bytes) -> bytes:
    """One option; a value of more than 255 bytes in pieces (RFC 3396)."""
    if len(value) < 256:
        return bytes((code, len(value))) + value
    return b"".join(encoded(code, value[at : at + 255]) for at in range(0, len(value), 255))


def encode_options(options: Mapping[int, bytes]) -> bytes:
    """Options as code, length, value; relay information last (RFC 3046 2.1)."""
    parts = []
    for code in sorted(options, key=lambda code: (code != Option.KIND, code == Option.RELAY_AGENT)):
        parts.append(encoded(code, options[code]))
        if code in TEXTS:
            parts.append(b"\0")
    return b"".join(parts)


def _squeeze(options: bytes, sname: bytes, file: bytes, room: int) -> tuple[bytes, bytes, bytes]:
    """As many options as fit in `room` bytes and, but for BOOTP, in the fields that say nothing (RFC 2131 4.1), the
    needed ones before the SPARE; and those fields."""
    values: dict[int, bytes] = {}
    _read_options(options, 0, values)
    encoded = {code: encode_options({code: value}) for code, value in values.items()}
    free = [room - 3, 0 if file else 127, 0 if sname else 63] if Option.KIND in values else [room, 0, 0]
    places: list[list[int]] = [[], [], []]
    need = dict.fromkeys((Option.KIND, Option.RELAY_AGENT), -1) | {code: at for at, code in enumerate(SPARE, 1)}
    for code in sorted(encoded, key=lambda code: need.get(code, 0)):
        size = len(encoded[code])
        # The relay's information is looked for at the end of the options, and nowhere else.
        for place in range(1 if code in (Option.KIND, Option.RELAY_AGENT) else 3):
            if size <= free[place]:
                free[place] -= size
                places[place].append(code)
                break
    main, in_file, in_sname = (b"".join(encoded[code] for code in encoded if code in place) for place in places)
    overload = (1 if in_file else 0) | (2 if in_sname else 0)
    if overload:
        kind = len(encoded.get(Option.KIND, b""))
        main = main[:kind] + bytes((Option.OVERLOAD, 1, overload)) + main[kind:]
    return main, in_sname + b"\xff" if in_sname else sname, in_file + b"\xff" if in_file else file


def sub_options(value: bytes) -> dict[int, bytes]:
    """The encapsulated options of 43, 82 or 175; what is cut off is left out."""
    found: dict[int, bytes] = {}
    try:
        _read_options(value, 0, found)
    except Malformed:
        pass
    return found


def user_classes(value: bytes) -> tuple[str, ...]:
    """Option 77: RFC 3004 has a list with lengths; iPXE and gPXE send the bare word."""
    words: list[bytes] = []
    rest = value
    while rest:
        length = rest[0]
        if not 0 < length < len(rest):
            words = [value]
            break
        words.append(rest[1 : 1 + length])
        rest = rest[1 + length :]
    return tuple(word.decode("ascii", "replace") for word in words)


def guid(value: bytes) -> str:
    """Option 97 as text, the way SMBIOS, iPXE and nodes.conf print it; "" when it names nobody.

    Type 0 and 16 bytes, the first three fields little-endian. All zeros (QEMU without -uuid) and all ones (boards
    never programmed) are the same on many machines, so they are no identity.
    """
    if len(value) != 17 or value[0] != 0 or value[1:] in (bytes(16), b"\xff" * 16):
        return ""
    return str(uuids.UUID(bytes_le=value[1:]))


class ClientInfo(msgspec.Struct, frozen=True):
    """Who asks, in terms policy can use; nothing in it is particular to IPv4 (RFC 5970 has the same for DHCPv6).

    `arch` is option 93 (None when not sent) and `others` what else is in it, for it is a list; `uuid` is "" without an
    identity, addresses are dotted or "".
    """

    mac: str
    arch: int | None = None
    others: tuple[int, ...] = ()
    vendor_class: str = ""
    user_class: str = ""
    is_ipxe: bool = False
    is_pxe: bool = False
    is_http: bool = False
    uuid: str = ""
    giaddr: str = ""
    requested: str = ""
    hostname: str = ""

    @property
    def boots(self) -> bool:
        """A firmware or boot loader asks, not an operating system."""
        return self.is_pxe or self.is_http or self.is_ipxe


def client_info(message: Message) -> ClientInfo:
    options = message.options
    vendor_class, user_class, archs, is_ipxe, is_pxe, is_http = _kind_of_client(
        options.get(Option.VENDOR_CLASS, b""),
        options.get(Option.USER_CLASS, b""),
        options.get(Option.CLIENT_ARCH, b""),
        Option.IPXE in options,
    )
    requested = message.address(Option.REQUESTED_ADDRESS) or message.ciaddr
    hostname = options.get(Option.HOSTNAME)
    uuid = options.get(Option.CLIENT_UUID)
    return ClientInfo(
        message.mac,
        archs[0] if archs else None,
        archs[1:],
        vendor_class,
        user_class,
        is_ipxe,
        is_pxe,
        is_http,
        guid(uuid) if uuid else "",
        dotted(message.giaddr) if message.giaddr else "",
        dotted(requested) if requested else "",
        hostname[:NAME_SIZE].decode("ascii", "replace") if hostname else "",
    )


@lru_cache(maxsize=512)  # of up to 2 kB of strangers' words each
def _kind_of_client(
    vendor: bytes, classes: bytes, arch: bytes, says_ipxe: bool
) -> tuple[str, str, tuple[int, ...], bool, bool, bool]:
    """The same few for all nodes of a kind: read once."""
    vendor_class, words = vendor.decode("ascii", "replace"), user_classes(classes)
    return (
        vendor_class,
        ",".join(words),
        tuple(int.from_bytes(arch[at : at + 2], "big") for at in range(0, min(len(arch) & ~1, ARCHITECTURES * 2), 2)),
        # iPXE says PXEClient in option 60 whatever loaded it, so it is known by its user class or its own option.
        says_ipxe or "iPXE" in words,
        vendor_class.startswith("PXEClient"),
        vendor_class.startswith("HTTPClient"),
    )


def addresses(values: Iterable[str]) -> bytes:
    return b"".join(number(value).to_bytes(4, "big") for value in values)
