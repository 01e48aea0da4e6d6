"""What the parsers of other provisioners' files share: texts in, hosts as entries of nodes.conf out, and a list of what
has no place there.

A parser is a function `Given -> Found`. It reads nothing but the texts it is given (and what those include, through
`Given.include`), and judges no value: what an entry may say is checked where entries are written. A key that it does
not carry over goes to `Left`, whatever the key; what it cannot read at all is a ConfigError with file and line.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from wwfast.config import checks
from wwfast.errors import ConfigError
from wwfast.nodes.edit.change import put

PRIMARY = "default"  # what the device is called that a node boots from, as everywhere
UNKNOWN = "no field of nodes.conf is like it"
BY_WWFAST = "wwfast does this by itself"
OVERLAY = "to do: an overlay"
BARE = re.compile(r"[0-9A-Fa-f]{12}")
DOTTED = re.compile(r"[0-9A-Fa-f]{4}(?:\.[0-9A-Fa-f]{4}){2}")
SHORT = re.compile(r"[0-9A-Fa-f]{1,2}(?::[0-9A-Fa-f]{1,2}){5,19}")


class Text(NamedTuple):
    """A file, decoded; `name` is for messages."""

    name: str
    body: str

    def fault(self, line: int, problem: str, hint: str | None = None) -> ConfigError:
        """An error of this file to raise; lines count from 1."""
        return ConfigError(f"{self.name}:{line}: {problem}", hint=hint)

    def lines(self) -> Iterator[tuple[int, str]]:
        """As editors count them: splitlines() knows more line ends than any of these formats."""
        return enumerate(self.body.replace("\r\n", "\n").split("\n"), 1)


class Place(NamedTuple):
    """Where a host was described; line 0 where only the file is known."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


@dataclass(slots=True)
class Host:
    """A node as another provisioner had it. `entry` is what nodes.conf would say of it, all by itself.

    `image`: the key and the name of what it booted, which here may or may not be the name of an image.
    """

    name: str
    place: Place
    entry: dict[str, Any] = field(default_factory=dict)
    image: tuple[str, str] = ("", "")

    def put(self, value: Any, *keys: str) -> None:
        """Say something of it; an empty value says nothing."""
        if value not in ("", [], {}, None):
            put(self.entry, keys, value)

    def join(self, values: Sequence[str], *keys: str) -> None:
        """Add to a list, each word once."""
        had = self.entry
        for key in keys[:-1]:
            had = had.get(key, {})
        self.put(list(dict.fromkeys([*had.get(keys[-1], ()), *values])), *keys)


class Lost(NamedTuple):
    """A key that is not carried over, why, how many hosts have it and one of them."""

    key: str
    why: str
    hosts: int
    example: str


class Left:
    """What is not carried over, counted: it grows with the number of keys, not of hosts."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], list[Any]] = {}  # how many, the first host, the last one

    def add(self, key: str, host: str, why: str = UNKNOWN, hosts: int = 1) -> None:
        row = self._rows.get((key, why))
        if row is None:
            row = self._rows[key, why] = [0, host, None]
        if row[2] != host:
            row[0] += hosts
            row[2] = host

    def rows(self) -> list[Lost]:
        return [Lost(key, why, count, first) for (key, why), (count, first, _) in sorted(self._rows.items())]


@dataclass(slots=True)
class Found:
    hosts: list[Host] = field(default_factory=list)
    left: Left = field(default_factory=Left)


Include = Callable[[Text, int, str], list[Text]]


@dataclass(frozen=True, slots=True)
class Given:
    """What a parser gets. `include(text, line, name)`: the files that `name` means, said in a line of `text`.

    `fields`: which key of the source is which of our fields, where only the site knows (--map).
    """

    texts: list[Text]
    include: Include
    fields: Mapping[str, str]


class Networks:
    """Networks and what is known of each; the smallest one that holds an address says what counts for it."""

    def __init__(self) -> None:
        self._by_mask: dict[int, dict[int, dict[str, str]]] = {}

    def add(self, address: str, mask: str, **known: str) -> bool:
        """False when that is no network. `mask`: dotted, or a prefix length."""
        dotted = netmask(mask)
        if checks.ip4(address) or not dotted:
            return False
        bits = number(dotted)
        values = {key: value for key, value in known.items() if value}
        self._by_mask.setdefault(bits, {}).setdefault(number(address) & bits, {"netmask": dotted}).update(values)
        return True

    def of(self, address: str) -> Mapping[str, str]:
        if not checks.ip4(address):
            whole = number(address)
            for mask in sorted(self._by_mask, reverse=True):
                if (known := self._by_mask[mask].get(whole & mask)) is not None:
                    return known
        return {}


def number(address: str) -> int:
    first, second, third, fourth = map(int, address.split("."))
    return first << 24 | second << 16 | third << 8 | fourth


LENGTHS = {str(bits): mask for mask, bits in checks.MASKS.items()}


def netmask(text: str) -> str:
    """A dotted mask of a mask or a prefix length (`24`, `/24`); "" when it is neither."""
    return LENGTHS.get(text.removeprefix("/"), text if text in checks.MASKS else "")


def mac(text: str) -> str:
    """A hardware address as nodes.conf has it, of any way to write one; what is none stays as it is."""
    plain = text.strip().replace("-", ":")
    if BARE.fullmatch(plain) or DOTTED.fullmatch(plain):
        digits = plain.replace(".", "")
        plain = ":".join(digits[at : at + 2] for at in range(0, 12, 2))
    elif SHORT.fullmatch(plain):
        plain = ":".join(part.zfill(2) for part in plain.split(":"))
    return plain.lower()


def addressed(device: dict[str, Any], text: str) -> None:
    """Give a device an address, with or without a prefix length, of either family."""
    address, _, bits = text.partition("/")
    if ":" in address:
        device["ipaddr6"] = address
        if bits:
            device["prefixlen6"] = bits
    elif address:
        device["ipaddr"] = address
        if mask := netmask(bits):
            device["netmask"] = mask
        elif bits:
            device["ipaddr"] = text  # for the check to refuse


def devices(host: Host, nics: Sequence[dict[str, Any]], primary: int = 0) -> None:
    """Give a host its network devices: the primary one is called `default`, the others by their interface."""
    used = [nic for nic in nics if nic]
    first = nics[primary] if nics and nics[primary] else None
    for nic in used:
        name = PRIMARY if nic is first else nic.get("device") or "net"
        while name in host.entry.get("network devices", {}) or (name == PRIMARY and first not in (None, nic)):
            name += "-2"
        host.put(nic, "network devices", name)
    if len(used) > 1 and first is not None:
        host.put(PRIMARY, "primary network")


def objects(text: Text) -> Any:
    """JSON: numbers stay text as they were written, and nothing may be said twice of one key."""

    def united(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) < len(pairs):
            seen: set[str] = set()
            twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
            raise text.fault(text.body.count("\n", 0, text.body.find(f'"{twice}"')) + 1, f"{twice!r} is there twice")
        return made

    try:
        return json.loads(text.body, object_pairs_hook=united, parse_int=str, parse_float=str, parse_constant=str)
    except json.JSONDecodeError as error:
        raise text.fault(error.lineno, f"this is no JSON: {error.msg} (column {error.colno})") from None
    except RecursionError:
        raise ConfigError(f"{text.name}: its JSON is nested too deeply to describe nodes") from None


def legible(name: str) -> str:
    """A key or name in a message: as it is, unless that would break a line or fill the screen."""
    return name if name.isprintable() and len(name) <= 80 else checks.shown(name)


def word(value: Any) -> str:
    """A value of JSON or YAML as text: booleans spelled, null nothing, a list or map nothing of use."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value.strip() if isinstance(value, str) else ""
