"""Functions of text, lists, data and addresses that templates use: pure, no files, no node."""

from __future__ import annotations

import base64
import binascii
import hashlib
import ipaddress
import json
import posixpath
import re
import shlex
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

import msgspec

from wwfast._ext.attributes import Place, View, whole
from wwfast.config import yaml
from wwfast.nodes.model import truth


def text(value: object) -> str:
    return value if isinstance(value, str) else str(value)


compiled = lru_cache(1024)(re.compile)  # re's own cache costs more than a short match


def boolean(value: object, unset: bool = False) -> bool:
    if value is None or value == "":
        return unset
    return value if isinstance(value, bool) else truth(text(value), unset)


def split(value: object, sep: str | None = None) -> list[str]:
    return text(value).split(sep)


def regex_split(value: object, pattern: str) -> list[str]:
    return compiled(pattern).split(text(value))


def regex_replace(value: object, pattern: str, by: str) -> str:
    return compiled(pattern).sub(by, text(value))


def regex_findall(value: object, pattern: str) -> list[Any]:
    return compiled(pattern).findall(text(value))


def plain(value: object) -> Any:
    """Structs of nodes and settings as maps and lists."""
    return msgspec.to_builtins(whole(value), str_keys=True, enc_hook=_simple)


def _simple(value: object) -> Any:
    """A quoted scalar is a kind of str; a node within a list."""
    return whole(value) if isinstance(value, View | Place) else str(value)


def to_json(value: object, indent: int | None = None) -> str:
    return json.dumps(plain(value), indent=indent, ensure_ascii=False)


def from_json(value: object) -> Any:
    return json.loads(text(value))


def to_yaml(value: object) -> str:
    return yaml.dump(plain(value))


def from_yaml(value: object) -> Any:
    return yaml.load(text(value).encode(), "from_yaml")


def b64encode(value: object) -> str:
    return base64.b64encode(text(value).encode("utf-8", "surrogateescape")).decode()


def b64decode(value: object) -> str:
    try:
        return base64.b64decode(text(value), validate=True).decode("utf-8", "surrogateescape")
    except binascii.Error as error:
        raise ValueError("no base64") from error


def hasher(name: str) -> Callable[[object], str]:
    function = getattr(hashlib, name)

    def digest(value: object) -> str:
        return str(function(text(value).encode("utf-8", "surrogateescape"), usedforsecurity=False).hexdigest())

    return digest


def prefixlen(mask: object) -> str:
    return str(ipaddress.ip_network(f"0.0.0.0/{mask}").prefixlen)


def netmask(prefix: object) -> str:
    return str(ipaddress.ip_network(f"0.0.0.0/{prefix}").netmask)


def network(address: object, mask: object = None) -> str:
    spelled = text(address) if mask is None or mask == "" else f"{address}/{mask}"
    return str(ipaddress.ip_interface(spelled).network)


def address(cidr: object) -> str:
    return text(cidr).partition("/")[0]


def host(cidr: object, number: int) -> str:
    return str(ipaddress.ip_interface(text(cidr)).network[int(number)])


@lru_cache(4096)
def mac(value: object, sep: str = ":") -> str:
    digits = re.sub(r"[^0-9a-fA-F]", "", text(value)).lower()
    if len(digits) % 2:
        raise ValueError("no hardware address")
    return sep.join(digits[at : at + 2] for at in range(0, len(digits), 2))


def natsort(values: Iterable[object]) -> list[object]:
    def key(value: object) -> list[tuple[int, int, str]]:
        return [(0, int(p), "") if p.isdecimal() else (1, 0, p) for p in re.split(r"(\d+)", text(value)) if p]

    return sorted(values, key=key)


def basename(path: object) -> str:
    return posixpath.basename(text(path))


def dirname(path: object) -> str:
    return posixpath.dirname(text(path))


def unique_field(sep: str, index: int, value: object) -> str:
    """Lines whose field `index` was not there yet; lines that lack it or have it empty all stay."""
    seen: set[str] = set()
    kept: list[str] = []
    for line in text(value).split("\n"):
        fields = line.split(sep)
        field = fields[index] if index < len(fields) else ""
        if field and field in seen:
            continue
        seen.add(field)
        kept.append(line)
    return "\n".join(kept)


def systemd_escape(value: object) -> str:
    """As systemd-escape(1)."""
    raw = text(value).encode("utf-8", "surrogateescape")
    return "".join(_escape_byte(byte, first=at == 0) for at, byte in enumerate(raw))


def systemd_escape_path(value: object) -> str:
    """As systemd-escape --path: `/` alone is `-`, other slashes separate."""
    words = [word for word in text(value).split("/") if word not in ("", ".")]
    return systemd_escape("/".join(words)) if words else "-"


def _escape_byte(byte: int, *, first: bool) -> str:
    char = chr(byte)
    if char == "/":
        return "-"
    if (char.isascii() and (char.isalnum() or char in ":_")) or (char == "." and not first):
        return char
    return f"\\x{byte:02x}"


def _is_address(version: int) -> Callable[[object], bool]:
    def test(value: object) -> bool:
        try:
            return ipaddress.ip_address(text(value)).version == version
        except ValueError:
            return False

    return test


def is_cidr(value: object) -> bool:
    try:
        ipaddress.ip_interface(text(value))
    except ValueError:
        return False
    return "/" in text(value)


def matches(value: object, pattern: str) -> bool:
    return compiled(pattern).match(text(value)) is not None


def contains(value: object, pattern: str) -> bool:
    return compiled(pattern).search(text(value)) is not None


FILTERS: dict[str, Callable[..., Any]] = {
    "bool": boolean,
    "split": split,
    "regex_split": regex_split,
    "regex_replace": regex_replace,
    "regex_findall": regex_findall,
    "shell_quote": lambda value: shlex.quote(text(value)),
    "to_json": to_json,
    "from_json": from_json,
    "to_yaml": to_yaml,
    "from_yaml": from_yaml,
    "b64encode": b64encode,
    "b64decode": b64decode,
    **{name: hasher(name) for name in ("md5", "sha1", "sha256", "sha512")},
    "prefixlen": prefixlen,
    "netmask": netmask,
    "network": network,
    "address": address,
    "host": host,
    "mac": mac,
    "natsort": natsort,
    "basename": basename,
    "dirname": dirname,
}

TESTS: dict[str, Callable[..., bool]] = {
    "ipv4": _is_address(4),
    "ipv6": _is_address(6),
    "cidr": is_cidr,
    "match": matches,
    "search": contains,
}

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "unique_field": unique_field,
    "systemd_escape": systemd_escape,
    "systemd_escape_path": systemd_escape_path,
    "basename": basename,
    "dirname": dirname,
}
