"""Formats of single values: the one table of what each kind may be, for flags, editor, import and the files themselves.

A check returns what is wrong, or "" when the value is right. A `fatal` fault (an address that is none) makes the entry
unusable when a file says it; the others are warnings in a file. Where a value is written every fault is an error.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

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
# What iPXE does not pass on where a script has it in an argument: another line, a setting's value, the words that end a
# command and begin another, and a comment, which hides all that follows (system() and command_terminator() of exec.c).
COMMAND_ENDS = frozenset(("||", "&&", ";"))
RUN_BY_IPXE = re.compile(r"[\x00-\x08\n-\x1f\x7f]|\$\{|(?<!\S)(?:(?:\|\||&&|;)(?!\S)|#)")
FOR_IPXE = "a line break, `${`, a word `||`, `&&` or `;`, or one that begins with `#`"
UNPACKED = ("initramfs", "tmpfs", "ramfs")  # roots that an image is unpacked to in memory
MOUNTED = ("squashfs", "erofs")  # roots that are mounted as they came, which takes two stages
ROOTS = (*UNPACKED, *MOUNTED)
AUTO, ALWAYS, NEVER = "auto", "always", "never"
TWO_STAGE = (AUTO, ALWAYS, NEVER)
REBUILD, UPDATE = DISK_ROOTS = ("rebuild", "update")  # what becomes of a root on a disk at a boot
TMPFS, ZRAM = UPPERS = ("tmpfs", "zram")  # where what is written over a mounted root is kept
#: What firmware and dmidecode say where nobody wrote an asset tag.
NO_ASSET = ("Unknown", "Not_Specified")
KEY_TYPES = ("ed25519", "ecdsa", "rsa", "dsa")
SCOPE = re.compile(r"[A-Za-z0-9_.-]+")
TRUE = frozenset(("1", "t", "true", "y", "yes", "on"))  # of Go's ParseBool, Warewulf and YAML 1.1, in any case
FALSE = frozenset(("0", "f", "false", "n", "no", "off"))
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
# What inet_aton takes for an address, so that no program looks such a name up: 10.0.0.1, 7, 0x1f.
NUMERIC = re.compile(r"(?:0[xX][0-9A-Fa-f]*|[0-9]+)(?:\.(?:0[xX][0-9A-Fa-f]*|[0-9]+)){0,3}")
SIMPLE = re.compile(r"(?!(?i:localhost)$)[A-Za-z_][A-Za-z0-9_-]{0,62}")  # what nearly all nodes are called
WHOLE = re.compile(r"0|-?[1-9][0-9]{0,17}")  # no blanks, signs, zeros in front, digits of other scripts
MODE = re.compile(r"0*[0-7]{1,4}")
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")  # ends a line, drives a terminal, or is no text
LONGEST = 4096  # of a line: PATH_MAX, and more than any field holds
KEY = 253  # of a name in a map; YAML reads no key of more than 1024
NOTE = 65536  # of a text of several lines
ARGUMENTS = 2048  # of the kernel's command line: COMMAND_LINE_SIZE of x86 and arm64


def shown(text: str) -> str:
    """A value in a message: in quotes, on one line, and not all of a long one."""
    short = text if len(text) <= 80 else text[:77] + "..."
    return f"'{short}'" if short.isprintable() else ascii(short)


def line(text: str) -> str:
    """One line of text."""
    found = CONTROL.search(text)
    if found:
        return f"{shown(text)} has a character that no line of text has: {found[0]!a}"
    return "" if len(text) <= LONGEST else f"{shown(text)} is longer than {LONGEST} letters"


def note(text: str) -> str:
    """Text of several lines."""
    found = CONTROL.search(text.replace("\n", "").replace("\t", ""))
    if found:
        return f"{shown(text)} has a character that no text has: {found[0]!a}"
    return "" if len(text) <= NOTE else f"{shown(text)} is longer than {NOTE} letters"


def key(text: str) -> str:
    """A name in a map: of a tag, a disk, a file system, a resource."""
    wrong = line(text) if text.strip() else "a name cannot be empty"
    return wrong or ("" if len(text) <= KEY else f"{shown(text)} is longer than {KEY} letters")


def label(text: str) -> str:
    """A name in a map that becomes part of a file name: of a network device, a partition."""
    wrong = key(text)
    if text in (".", ".."):
        return f"{shown(text)} means a directory, and is no name"
    return wrong or (f"{shown(text)} cannot have a / in it" if "/" in text else "")


@lru_cache(1024)  # ten thousand nodes name their devices alike: a tenth of the time to read them
def interface(text: str) -> str:
    """Linux: IFNAMSIZ, and dev_valid_name of net/core/dev.c."""
    bad = len(text.encode(errors="replace")) > 15 or set(text) & set("/ \t") or text in (".", "..")
    return line(text) or (f"{shown(text)} is not an interface (15 letters, no blank and no /)" if bad else "")


def character(text: str) -> str:
    return line(text) or ("" if len(text) == 1 else f"{shown(text)} is not one character")


def whole(low: int, high: int, what: str = "a whole number") -> Check:
    """A check for whole numbers from `low` to `high`, both included."""

    @lru_cache(1024)
    def check(text: str) -> str:
        right = WHOLE.fullmatch(text) is not None and low <= int(text) <= high
        return "" if right else f"{shown(text)} is not {what} ({low} to {high})"

    return check


mtu = whole(68, 65536, "an MTU")
port = whole(1, 65535, "a port")
port_or_none = whole(0, 65535, "a port")
prefix6 = whole(0, 128, "a prefix length")
prefix4 = whole(0, 32, "a prefix length")
count = whole(0, 1 << 59)
positive = whole(1, 1 << 59)
seconds = whole(0, 31_536_000)  # a year
versions = whole(0, 10_000)
megabits = whole(0, 10_000_000)
partition = whole(0, 1024, "the number of a partition")
mebibytes = whole(0, 1 << 43, "a size in MiB")  # 2^63 bytes
owner = whole(0, 0xFFFFFFFE, "the number of a user or group")  # the one above means to chown(2) that it stays


def mode(text: str) -> str:
    """Permissions, and set-id and sticky bits."""
    return "" if MODE.fullmatch(text) else f"{shown(text)} is not an octal mode"


def ip6(text: str) -> str:
    from ipaddress import AddressValueError, IPv6Address  # here: 8 ms that few commands need

    try:
        scope = IPv6Address(text).scope_id
    except AddressValueError:
        return f"{shown(text)} is not an IPv6 address"
    return "" if scope is None or SCOPE.fullmatch(scope) else f"{shown(text)} is not an IPv6 address"


def ip(text: str) -> str:
    return "" if IP4.fullmatch(text) or (":" in text and not ip6(text)) else f"{shown(text)} is not an IP address"


def ip4(text: str) -> str:
    return "" if IP4.fullmatch(text) else f"{shown(text)} is not an IPv4 address"


def host4(text: str) -> str:
    """An address that a host can have (RFC 6890); 0.0.0.0 is a word for none."""
    if wrong := ip4(text):
        return wrong
    first = int(text.partition(".")[0])
    if text == "0.0.0.0" or (0 < first < 224 and first != 127):
        return ""
    kind = "loopback" if first == 127 else "multicast" if 224 <= first < 240 else "reserved"
    return f"{shown(text)} is an address that no host has ({kind})"


def host6(text: str) -> str:
    from ipaddress import IPv6Address

    if wrong := ip6(text):
        return wrong
    address = IPv6Address(text)
    kind = "loopback" if address.is_loopback else "multicast" if address.is_multicast else ""
    return f"{shown(text)} is an address that no host has ({kind})" if kind else ""


def host(text: str) -> str:
    return host6(text) if ":" in text and not ip6(text) else ip(text) or host4(text)


def mask(text: str) -> str:
    return "" if text in MASKS else f"{shown(text)} is not a netmask"


def hwaddr(text: str) -> str:
    """Of a card: of Ethernet's addresses an odd first octet means many of them, or all (IEEE 802 8.2.2)."""
    if not MAC.fullmatch(text):
        return f"{shown(text)} is not a hardware address (six pairs of hex digits)"
    octets = bytes.fromhex(text.replace(text[2], ""))
    kind = "none" if not any(octets) else "broadcast" if set(octets) == {255} else ""
    if not kind and len(octets) == 6 and octets[0] & 1:
        kind = "multicast"
    return f"{shown(text)} is a hardware address that no card has ({kind})" if kind else ""


def cidr6(text: str) -> str:
    from ipaddress import IPv6Network

    try:
        IPv6Network(text, strict=False)
    except ValueError:
        return f"{shown(text)} is not an IPv6 address or network"
    return ""


def cidr(text: str) -> str:
    from ipaddress import ip_network

    try:
        ip_network(text, strict=False)
    except ValueError:
        return f"{shown(text)} is not a network"
    return ""


def address(text: str) -> str:
    """An IPv4 address, with or without a prefix length."""
    bare, _, bits = text.partition("/")
    return ip4(bare) or ("" if "/" not in text or not prefix4(bits) else f"{shown(text)} is no CIDR")


def truth(text: str) -> bool | None:
    """The truth value a word means; None when it means none."""
    low = text.lower()
    return True if low in TRUE else False if low in FALSE else None


def wwbool(text: str) -> str:
    known = truth(text) is not None or text.lower() in UNSET
    return "" if known else f"{shown(text)} is neither true nor false"


def asset_tag(tag: str) -> str:
    """An asset tag, whoever tells it: blanks are `_`, as wwclient has them, and count for nothing at its ends; ""
    where it is none. iPXE and dmidecode tell it as it was written."""
    text = "_".join(re.split(r"\s", tag)).strip("_")
    return "" if text in NO_ASSET else text


def asset_key(text: str) -> str:
    known = asset_tag(text) or text.lower() in UNSET
    return line(text) or (
        "" if known else f"{shown(text)} is what machines without an asset tag say: it keeps nobody out"
    )


def architecture(text: str) -> str:
    """DHCP option 93, as Warewulf writes it (RFC 4578 2.1)."""
    right = re.fullmatch(r"[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}", text)
    return "" if right else f"{shown(text)} is not an architecture (two pairs of hex digits, like 00:07)"


def absolute(text: str) -> str:
    return line(text) or ("" if text.startswith("/") else f"{shown(text)} is not an absolute path")


def key_type(text: str) -> str:
    """Of SSH keys that lie in files alone; OpenSSH 10 makes no dsa, which files of Warewulf name."""
    return "" if text in KEY_TYPES else f"{shown(text)} is no type of SSH keys ({', '.join(KEY_TYPES)})"


def download_order(text: str) -> str:
    return "" if text in ("wave", "fair") else f"{shown(text)} is neither wave nor fair"


def kernel_modules(text: str) -> str:
    return "" if text in ("booted", "all") else f"{shown(text)} is neither booted nor all"


def script(text: str) -> str:
    """What stands in the script that a node's iPXE runs."""
    if not RUN_BY_IPXE.search(text):
        return ""
    return f"{shown(text)} holds {FOR_IPXE}, which iPXE would run instead of passing it on"


def argument(text: str) -> str:
    """A value that goes to iPXE, and through it to the kernel's command line."""
    return script(text) or line(text) or ("" if len(text) <= ARGUMENTS else f"{shown(text)} is too long for a kernel")


def root(text: str) -> str:
    """Where a node has its root: one of the ways we know, or a device by its path, label or number."""
    known = not text or text in ROOTS or text.lower() in UNSET or "/" in text or "=" in text
    return argument(text) or ("" if known else f"{shown(text)} is no root ({', '.join(ROOTS)}, /dev/..., LABEL=...)")


def two_stage(text: str) -> str:
    right = text in TWO_STAGE or text.lower() in UNSET
    return "" if right else f"{shown(text)} is none of {', '.join(TWO_STAGE)}"


def upper(text: str) -> str:
    right = text in UPPERS or text.lower() in UNSET
    return "" if right else f"{shown(text)} is none of {', '.join(UPPERS)}"


def cache(text: str) -> str:
    """A partition for pieces of images, named as a root on a disk is."""
    right = text.lower() in UNSET or (("/" in text or "=" in text) and not set(text) & set(" \t"))
    told = f"{shown(text)} is no device for a cache (/dev/..., LABEL=..., UUID=...; a blank in a label is \\x20)"
    return argument(text) or ("" if right else told)


def disk_root(text: str) -> str:
    right = text in DISK_ROOTS or text.lower() in UNSET
    return "" if right else f"{shown(text)} is none of {', '.join(DISK_ROOTS)}"


def way(root: str, two_stage: str) -> str:
    """Whether a root can come as `two stage` says."""
    if two_stage == NEVER and root in MOUNTED:
        return f"root {root} always comes in two stages, and two stage is never"
    return ""


def on_disk(root: str) -> bool:
    """Whether this root is a device."""
    return bool(root) and root not in ROOTS and root.lower() not in UNSET


def name(text: str) -> str:
    """Ids of profiles, names of overlays and images: they become file names and URLs."""
    right = NAME.fullmatch(text) and len(text) <= 253
    return "" if right else f"{shown(text)} cannot be a name (letters, digits, _ . -)"


def reference(text: str) -> str:
    """A name in a list, where ~name takes one out."""
    return name(text.removeprefix("~"))


def image(text: str) -> str:
    """NAME, or NAME@BUILD."""
    bare, at, build = text.partition("@")
    return name(bare) or (name(build) if at else "")


def cache_url(text: str) -> str:
    """Of a cache: an address, for stage-1 asks no DNS, and it goes to iPXE and a kernel's command line."""
    found = re.fullmatch(r"http://(\[[0-9a-fA-F:.]+\]|[0-9.]+)(?::([0-9]+))?", text)
    right = found is not None and not ip(found[1].strip("[]")) and not (found[2] and port(found[2]))
    return "" if right else f"{shown(text)} is no URL of a cache (http://ADDRESS:PORT)"


def head(text: str) -> str:
    """Another server of these nodes: an address, as iPXE and stage-1 are told it, and perhaps a port."""
    found = re.fullmatch(r"([0-9.]+)(?::([0-9]+))?", text)
    right = found is not None and not ip4(found[1]) and not (found[2] and port(found[2]))
    return "" if right else f"{shown(text)} is no address of a head (ADDRESS or ADDRESS:PORT)"


def hostname(text: str) -> str:
    """The id of a node: a name that files, URLs, DNS and programs take for nothing else (RFC 1035 2.3.4, 1123 2.1)."""
    if SIMPLE.fullmatch(text):
        return ""
    if wrong := name(text):
        return wrong
    if not all(0 < len(label) < 64 for label in text.split(".")):
        return f"{shown(text)} cannot be a node: between dots are 1 to 63 letters"
    if NUMERIC.fullmatch(text):
        return f"{shown(text)} cannot be a node: programs take it for an address"
    if text.lower().split(".")[-1] == "localhost" or text.lower() == "localhost.localdomain":
        return f"{shown(text)} cannot be a node: every machine calls itself that"
    return ""


def fatal(check: Check, text: str) -> bool:
    """Whether a file that says this describes nothing usable.

    What must be an IPv4 address is put into packets of 32-bit addresses, so nothing else will do. A dotted mask with
    holes, an address that no host has, and an IPv4 address where an IPv6 one belongs, are only odd.
    """
    if check is mask:
        return bool(ip4(text))
    if check in (host, host4):
        return bool(ip(text) if check is host else ip4(text))
    if check in (name, hostname):
        return bool(label(text))
    return check in (ip, ip4, address) or (check in (ip6, host6) and bool(ip(text)))
