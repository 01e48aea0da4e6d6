"""Formats of single values. A check returns what is wrong, or "" when the value is right.

A `fatal` fault (an address that is none) makes the entry unusable when a file says it; the others are warnings
in a file. On the command line every fault is an error.
"""

from __future__ import annotations

import re
from collections.abc import Callable

Check = Callable[[str], str]

IP4 = re.compile(r"(?:(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])(?:\.(?!$)|$)){4}")
# Ethernet (6 octets), EUI-64 (8) and InfiniBand (20).
MAC = re.compile(
    r"[0-9A-Fa-f]{2}([:-])[0-9A-Fa-f]{2}(?:\1[0-9A-Fa-f]{2}){4}(?:(?:\1[0-9A-Fa-f]{2}){2}|(?:\1[0-9A-Fa-f]{2}){14})?"
)
MASKS = {
    ".".join(str((0xFFFFFFFF << (32 - bits) & 0xFFFFFFFF) >> shift & 255) for shift in (24, 16, 8, 0)): bits
    for bits in range(33)
}  # netmask -> prefix length
UNSET = frozenset(("unset", "delete", "undef", "--", "nil", "0.0.0.0"))
TRUE = frozenset(("1", "t", "T", "TRUE", "true", "True"))
FALSE = frozenset(("0", "f", "F", "FALSE", "false", "False"))
# What iPXE runs where a script has it in an argument: another line, a setting's value, another command.
RUN_BY_IPXE = re.compile(r"[\x00-\x08\n-\x1f\x7f]|\$\{|(?<!\S)(?:\|\||&&)(?!\S)")
SCOPE = re.compile(r"[A-Za-z0-9_.-]+")
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


def ip6(text: str) -> str:
    from ipaddress import AddressValueError, IPv6Address  # here: 8 ms that few commands need

    try:
        scope = IPv6Address(text).scope_id
    except AddressValueError:
        return f"'{text}' is not an IPv6 address"
    return "" if scope is None or SCOPE.fullmatch(scope) else f"'{text}' is not an IPv6 address"


def ip(text: str) -> str:
    return "" if IP4.fullmatch(text) or (":" in text and not ip6(text)) else f"'{text}' is not an IP address"


def ip4(text: str) -> str:
    return "" if IP4.fullmatch(text) else f"'{text}' is not an IPv4 address"


def host4(text: str) -> str:
    """An address that a host can have (RFC 6890); 0.0.0.0 is a word for none."""
    if wrong := ip4(text):
        return wrong
    first = int(text.partition(".")[0])
    if text == "0.0.0.0" or (0 < first < 224 and first != 127):
        return ""
    kind = "loopback" if first == 127 else "multicast" if 224 <= first < 240 else "reserved"
    return f"'{text}' is an address that no host has ({kind})"


def host6(text: str) -> str:
    from ipaddress import IPv6Address

    if wrong := ip6(text):
        return wrong
    address = IPv6Address(text)
    kind = "loopback" if address.is_loopback else "multicast" if address.is_multicast else ""
    return f"'{text}' is an address that no host has ({kind})" if kind else ""


def host(text: str) -> str:
    return host6(text) if ":" in text and not ip6(text) else ip(text) or host4(text)


def mask(text: str) -> str:
    return "" if text in MASKS else f"'{text}' is not a netmask"


def hwaddr(text: str) -> str:
    return "" if MAC.fullmatch(text) else f"'{text}' is not a hardware address (six pairs of hex digits)"


def number(text: str) -> str:
    return "" if text.isascii() and text.isdigit() else f"'{text}' is not a whole number"


def positive(text: str) -> str:
    return "" if not number(text) and int(text) > 0 else f"'{text}' is not a whole number above 0"


def mtu(text: str) -> str:
    return "" if not number(text) and 68 <= int(text) <= 65536 else f"'{text}' is not an MTU (68 to 65536)"


def port(text: str) -> str:
    return "" if not number(text) and 0 < int(text) < 65536 else f"'{text}' is not a port (1 to 65535)"


def prefix6(text: str) -> str:
    return "" if not number(text) and int(text) <= 128 else f"'{text}' is not a prefix length (0 to 128)"


def cidr6(text: str) -> str:
    from ipaddress import IPv6Network

    try:
        IPv6Network(text, strict=False)
    except ValueError:
        return f"'{text}' is not an IPv6 address or network"
    return ""


def cidr(text: str) -> str:
    from ipaddress import ip_network

    try:
        ip_network(text, strict=False)
    except ValueError:
        return f"'{text}' is not a network"
    return ""


def address(text: str) -> str:
    """An IPv4 address, with or without a prefix length."""
    bare, _, bits = text.partition("/")
    return ip4(bare) or ("" if "/" not in text or (not number(bits) and int(bits) <= 32) else f"'{text}' is no CIDR")


def wwbool(text: str) -> str:
    known = text in TRUE or text in FALSE or text.lower() in UNSET or text.lower() in ("yes", "no")
    return "" if known else f"'{text}' is neither true nor false"


def absolute(text: str) -> str:
    return "" if text.startswith("/") and "\0" not in text else f"'{text}' is not an absolute path"


def download_order(text: str) -> str:
    return "" if text in ("wave", "fair") else f"'{text}' is neither wave nor fair"


def kernel_modules(text: str) -> str:
    return "" if text in ("booted", "all") else f"'{text}' is neither booted nor all"


def script(text: str) -> str:
    """What stands in the script that a node's iPXE runs."""
    if not RUN_BY_IPXE.search(text):
        return ""
    return f"{text!r} holds a line break, `${{`, `||` or `&&`, which iPXE would run instead of passing it on"


def name(text: str) -> str:
    """Ids of nodes and profiles, names of overlays and images: they become file names and URLs."""
    return "" if NAME.fullmatch(text) and len(text) <= 253 else f"'{text}' cannot be a name (letters, digits, _ . -)"


def fatal(check: Check, text: str) -> bool:
    """Whether a file that says this describes nothing usable.

    What must be an IPv4 address is put into packets of 32-bit addresses, so nothing else will do. A dotted mask with
    holes, an address that no host has, and an IPv4 address where an IPv6 one belongs, are only odd.
    """
    if check is mask:
        return bool(ip4(text))
    if check in (host, host4):
        return bool(ip(text) if check is host else ip4(text))
    return check in (ip, ip4, address) or (check in (ip6, host6) and bool(ip(text)))
