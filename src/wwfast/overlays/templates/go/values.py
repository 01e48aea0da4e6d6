"""Go's values as Python has them: text, numbers, lists and maps are its own, with subclasses where Go has more types.

| Go | here |
|---|---|
| string, bool, int, float64 | str, bool, int, float |
| int64, uint64, uint8 | Int64, UInt64, Byte |
| []interface {}, []string, []int | list, Strings, Ints |
| map[string]interface {}, map[string]string, maps of structs | dict, StringMap, StructMap |
| no value, nil interface | None |
| nil pointer, nil address | Null, EMPTY |
| structs, and what has methods | Object |

Truth is `bool()`, so an `if` of a template is an `if` of Python. Bytes that are no UTF-8 are surrogates.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, ClassVar

from wwfast.overlays.templates.faults import Refused


class Int64(int):
    """What sprig's arithmetic gives."""


class UInt64(int):
    """A number of a version."""


class Byte(int):
    """One byte of a text or an address."""


class Strings(list[str]):
    """[]string."""


class NoStrings(Strings):
    """The nil of it: as an empty one, but for JSON and `kindIs`."""


class Ints(list[int]):
    """[]int."""


class StringMap(dict[str, str]):
    """map[string]string: a key that is not there is an empty text for `index`."""


class StructMap(dict[str, Any]):
    """A map of structs."""


class Object:
    """What has fields and methods by a closed list."""

    __slots__ = ()
    GO: ClassVar[str]
    NUMBER: ClassVar[str] = "struct"  # its kind

    def member(self, name: str) -> Any:
        raise Refused(f"can't evaluate field {{}} in type {self.GO}", name)

    def json(self) -> str | list[tuple[str, Any]]:
        """What encoding/json makes of it: a text, or names and values."""
        raise Refused(f"toJson: a value of type {self.GO} is not supported", hint="name its fields: dict KEY VALUE ...")

    def call(self, name: str, arguments: tuple[Any, ...]) -> Any:
        """A method with arguments."""
        self.member(name)
        raise Refused(f"{{}} of type {self.GO} has arguments but takes none", name)


class Struct(Object):
    """One of our structs under Go's names; MEMBERS is all there is of it."""

    __slots__ = ("raw",)
    MEMBERS: ClassVar[Mapping[str, Callable[[Any], Any]]]
    KEYS: ClassVar[tuple[tuple[str, str], ...]] = ()  # of JSON

    def __init__(self, raw: Any) -> None:
        self.raw = raw

    def json(self) -> str | list[tuple[str, Any]]:
        """Without what is empty."""
        if not self.KEYS:
            return super().json()
        found = [(key, self.MEMBERS[name](self.raw)) for name, key in self.KEYS]
        return [(key, value) for key, value in found if value]

    def member(self, name: str) -> Any:
        try:
            get = self.MEMBERS[name]
        except KeyError:
            return super().member(name)
        return get(self.raw)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.raw == other.raw

    __hash__ = None  # type: ignore[assignment]


class Null(Object):
    """A nil pointer to what `GO` says."""

    __slots__ = ("to",)
    NUMBER = "ptr"

    def __init__(self, to: str) -> None:
        self.to = to

    @property
    def GO(self) -> str:  # type: ignore[override]
        return self.to

    def __bool__(self) -> bool:
        return False

    def member(self, name: str) -> Any:
        raise Refused(f"nil pointer evaluating {self.to}.{{}}", name)


class Flag(Object):
    """A yes/no that may be unset, when it is set: a pointer, so true whatever it says; printed as what it says."""

    __slots__ = ("says",)
    GO = "*bool"
    NUMBER = "ptr"
    UNSET = Null("*bool")

    def __init__(self, says: bool) -> None:
        self.says = says


FLAGS = {True: Flag(True), False: Flag(False), None: Flag.UNSET}


_BYTE = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
FOUR = re.compile(rf"{_BYTE}(?:\.{_BYTE}){{3}}")
MAPPED = b"\0" * 10 + b"\xff\xff"  # before the bytes of IPv4


class Address(Object):
    """An address (net.IP): bytes with a text; nothing when unset."""

    __slots__ = ("packed", "text")
    GO = "net.IP"
    NUMBER = "slice"

    def __init__(self, text: str) -> None:
        if FOUR.fullmatch(text):  # nearly all there are: three times as fast as what follows
            self.packed, self.text = MAPPED + bytes(map(int, text.split("."))), text
            return
        found = ipaddress.ip_address(text) if text else None
        if found is not None and found.version == 6 and found.ipv4_mapped:
            found = found.ipv4_mapped
        self.text = str(found) if found is not None else "<nil>"
        packed = found.packed if found is not None else b""
        self.packed = MAPPED + packed if len(packed) == 4 else packed

    def __bool__(self) -> bool:
        return bool(self.packed)

    def __eq__(self, other: object) -> bool:
        return type(other) is Address and other.packed == self.packed

    __hash__ = None  # type: ignore[assignment]

    def member(self, name: str) -> Any:
        if name == "String":
            return self.text
        if name in ("IsUnspecified", "IsLoopback", "IsPrivate", "IsMulticast"):
            found = ipaddress.ip_address(self.text) if self.packed else None
            return bool(getattr(found, {"IsPrivate": "is_private"}.get(name, "is_" + name[2:].lower()), False))
        if name in ("To4", "To16"):
            four = self.packed[:12] == MAPPED
            return self if self.packed and (four or name == "To16") else EMPTY
        return super().member(name)


EMPTY = Address("")


@lru_cache(1 << 16)
def address(text: str) -> Address | str:
    """An address by its text; what is none stays text, so that a template can print what nodes.conf says."""
    if not text:
        return EMPTY
    try:
        return Address(text)
    except ValueError:
        return text


class Word(Object):
    """Warewulf's yes/no (WWbool): a text with methods."""

    __slots__ = ("text",)
    GO = "wwtype.WWbool"
    NUMBER = "string"
    METHODS: ClassVar[Mapping[str, Callable[[str], bool]]] = {}

    def __init__(self, text: str) -> None:
        self.text = text

    def __bool__(self) -> bool:
        return self.text != ""

    def __eq__(self, other: object) -> bool:
        return type(other) is Word and other.text == self.text

    __hash__ = None  # type: ignore[assignment]

    def member(self, name: str) -> Any:
        method = self.METHODS.get(name)
        return super().member(name) if method is None else method(self.text)


TYPES: dict[type, str] = {
    str: "string",
    bool: "bool",
    int: "int",
    float: "float64",
    Int64: "int64",
    UInt64: "uint64",
    Byte: "uint8",
    list: "[]interface {}",
    Strings: "[]string",
    NoStrings: "[]string",
    Ints: "[]int",
    dict: "map[string]interface {}",
    StringMap: "map[string]string",
    StructMap: "map[string]struct",
    type(None): "<nil>",
}
KINDS = {"[": "slice", "m": "map"}


def type_of(value: object) -> str:
    return value.GO if isinstance(value, Object) else TYPES[type(value)]


def told(value: object) -> str:
    """Its type for messages, in which `{}` stands for something else."""
    return type_of(value).replace("interface {}", "any")


def kind_of(value: object) -> str:
    if value is None:
        return "invalid"
    if isinstance(value, Object):
        return value.NUMBER
    name = TYPES[type(value)]
    return KINDS.get(name[0], name)


def field(value: Any, name: str) -> Any:
    """`.NAME` of a value."""
    if isinstance(value, dict):
        return value.get(name)
    if isinstance(value, Object):
        return value.member(name)
    if value is None:
        return None
    raise Refused(f"can't evaluate field {{}} in type {told(value)}", name)


def method(value: Any, name: str, *arguments: Any) -> Any:
    """`.NAME ARGUMENTS` of a value."""
    if isinstance(value, Object):
        return value.call(name, arguments)
    if value is None:
        return None
    if isinstance(value, dict):
        raise Refused("{} is not a method but has arguments", name)
    raise Refused(f"can't evaluate field {{}} in type {told(value)}", name)


def elements(value: Any) -> list[Any] | None:
    """What a list or an address holds; None for what is neither."""
    if isinstance(value, list):
        return value
    if type(value) is Address:
        return [Byte(byte) for byte in value.packed]
    return None


def one(value: Any) -> list[Any]:
    """What `range` goes over, for one variable."""
    if isinstance(value, dict):
        return [item for _, item in sorted(value.items())]
    if (found := elements(value)) is not None:
        return list(found)
    return [item for _, item in _odd(value, 1)]


def two(value: Any) -> list[tuple[Any, Any]]:
    """What `range` goes over, for two variables."""
    if isinstance(value, dict):
        return sorted(value.items())
    if (found := elements(value)) is not None:
        return list(enumerate(found))
    return _odd(value, 2)


LONGEST = 10_000_000


def _odd(value: Any, variables: int) -> list[tuple[Any, Any]]:
    if value is None:
        return []
    if isinstance(value, int) and type(value) is not bool:
        if variables == 2:
            raise Refused("can't use a number to iterate over more than one variable")
        if value > LONGEST:
            raise Refused(f"range goes over more than {LONGEST} numbers")
        kind = type(value)
        return [(None, kind(number)) for number in range(value)]
    raise Refused(f"range can't iterate over a value of type {told(value)}")


def index(item: Any, *keys: Any) -> Any:
    if item is None:
        raise Refused("index of untyped nil")
    for key in keys:
        item = _item(item, key)
    return item


def _item(item: Any, key: Any) -> Any:
    if isinstance(item, dict):
        if type(key) is str:
            found = item.get(key)
            return found if found is not None or key in item else _zero(item)
        raise Refused(f"value has type {told(key)}; should be string")
    if type(item) is Null:
        raise Refused("index of nil pointer")
    whole = item.encode("utf-8", "surrogateescape") if type(item) is str else elements(item)
    if whole is None:
        raise Refused("index of untyped nil" if item is None else f"can't index item of type {told(item)}")
    if not isinstance(key, int) or type(key) is bool:
        raise Refused(f"cannot index slice/array with {'nil' if key is None else 'type ' + told(key)}")
    if not 0 <= key < len(whole):
        raise Refused(f"index out of range: there are {len(whole)}", hint="ask before: {{ if gt (len LIST) N }}")
    return Byte(whole[key]) if isinstance(whole, bytes) else whole[key]


def _zero(item: dict[str, Any]) -> Any:
    """What `index` gives for a key that a map has not."""
    if type(item) is StringMap:
        return ""
    return Null(getattr(item, "to", "*struct")) if isinstance(item, StructMap) else None


def length(value: Any) -> int:
    if isinstance(value, str):
        return len(value) if value.isascii() else len(value.encode("utf-8", "surrogateescape"))
    if isinstance(value, list | dict):
        return len(value)
    if type(value) is Address:
        return len(value.packed)
    if type(value) is Word:
        return length(value.text)
    raise Refused("len of nil pointer" if value is None or type(value) is Null else f"len of type {told(value)}")


def is_nil(value: Any) -> bool:
    """Nothing, or the nil of its type."""
    return value is None or value is EMPTY or type(value) in (Null, NoStrings)
