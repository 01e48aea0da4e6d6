"""The members of a tar archive, one after another, from a source that is read once and only forwards.

Formats: ustar and pax (POSIX.1-2008, pax: "ustar Interchange Format", "pax Header Block"), V7, GNU (GNU tar manual,
"Basic Tar Format"; long names, base-256 numbers, labels, dumpdirs) and sparse files in all four forms ("Storing
Sparse Files"). Names stay bytes: what encoding they have is the image's business.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from wwfast.archive import magic
from wwfast.archive.limits import Limits, exceeded
from wwfast.archive.stream import Forward
from wwfast.errors import WwfastError

BLOCK = 512
END = bytes(BLOCK)
LATEST = (2**32 - 1) * 10**9  # ns: what the archive for the node can express
FILE, HARD, SYMBOLIC, CHARACTER, DEVICE, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"
FILES = b"0\x007N"  # contiguous ones, and what GNU tar before 1.13 kept long names in, are read as files
HEADER_ONLY = b"123456"  # whatever size they say, no data follows
EXTENDED = b"xXgLK"
LABEL, DUMPDIR, CONTINUED, SPARSE = b"V", b"D", b"M", b"S"
# name mode uid gid size mtime chksum type linkname magic (version uname gname) devmajor devminor prefix
USTAR = struct.Struct("100s8s8s8s12s12s8sc100s6s66x8s8s155s12x")
MAP = b"GNU.sparse.map"
SPARSE_KEYS = frozenset((MAP, b"GNU.sparse.major", b"GNU.sparse.size"))
DIGITS = 32  # of a number in a map
#: What a header for all entries to come may say of them; each costs something for every one of these.
GLOBAL = frozenset((b"path", b"linkpath", b"size", b"uid", b"gid", b"mtime"))

Records = dict[bytes, bytes]


@dataclass(slots=True)
class Member:
    """One entry. `size` is that of the file, `stored` what of it is in the archive, `mtime` in ns.

    `pieces` of a sparse file: (offset, length) of what is stored, in order; the rest is holes.
    """

    name: bytes
    kind: bytes
    link: bytes
    mode: int
    uid: int
    gid: int
    size: int
    stored: int
    mtime: int
    device: tuple[int, int]
    records: Records = field(default_factory=dict)
    pieces: list[tuple[int, int]] | None = None

    @property
    def shown(self) -> str:
        return repr(self.name[:200].decode(errors="replace"))


def members(source: Forward, limits: Limits, *, endless: bool = False) -> Iterator[Member]:
    """Every member; its data is what `source` gives next, and what is not read of it is passed over.

    `endless`: the end mark may be absent. Raises WwfastError for what is damaged, cut short, over the limits or no tar
    archive at all.
    """
    globally: Records = {}
    while True:
        at = source.tell()
        try:
            block, extra = _extended(source, limits, globally)
            if block == END or (not block and endless and at):
                # Disks and file systems may begin with zeros, as an archive without members does.
                if at == 0 and (other := magic.known(block + source.peek(magic.HEAD))):
                    raise other
                if extra.records or extra.long:
                    raise WwfastError("the archive is damaged: its last header belongs to nothing")
                return
            member = _header(block)
        except _WrongError as error:
            if at == 0:
                raise magic.refusal(error.block + source.peek(magic.HEAD), str(error)) from None
            where = f"{error} at byte {at}" if error.block else "its end mark is missing"
            raise WwfastError(f"the archive is damaged or cut short: {where}") from None
        member.name = extra.long.get(b"L", member.name)
        member.link = extra.long.get(b"K", member.link)
        if records := {**globally, **extra.records} if globally else extra.records:
            _apply(member, records)
        if block[156:157] == SPARSE or not SPARSE_KEYS.isdisjoint(extra.records):
            _sparse(source, member, block, limits.headers - extra.used)
        _check(member)
        end = source.tell() + member.stored
        yield member
        source.skip(end - source.tell())
        if source.tell() < end:
            raise WwfastError(f"the archive is cut short within {member.shown}")
        source.skip(-end % BLOCK)


@dataclass(slots=True)
class _Extra:
    """What stands before a header and belongs to it: long names by their kind, and records; `used` bytes of it."""

    long: dict[bytes, bytes] = field(default_factory=dict)
    records: Records = field(default_factory=dict)
    used: int = 0


def _extended(source: Forward, limits: Limits, globally: Records) -> tuple[bytes, _Extra]:
    """The next header that is no extended one, and what those before it said."""
    extra = _Extra()
    while True:
        block = source.read(BLOCK)
        kind = block[156:157]
        if len(block) < BLOCK or kind not in EXTENDED:
            return block, extra
        size = _header(block).stored
        extra.used += BLOCK + size
        if extra.used > limits.headers:
            raise exceeded(
                f"an entry of the archive has {extra.used:,} bytes of headers", "image headers", limits.headers
            )
        if size < 0:
            raise _WrongError("a header has an impossible size", block)
        data = source.read(_padded(size))[:size]
        if len(data) < size:
            raise WwfastError("the archive is cut short within a header")
        if kind in b"LK":
            extra.long[kind] = data.partition(b"\0")[0]
        elif kind == b"g":
            globally.update((key, value) for key, value in _records(data).items() if key in GLOBAL)
        else:
            extra.records.update(_records(data))


class _WrongError(Exception):
    """A block that is no header, and why."""

    def __init__(self, why: str, block: bytes) -> None:
        super().__init__(why)
        self.block = block


def _header(block: bytes) -> Member:
    """What one header says, without what extended ones before it add."""
    if len(block) < BLOCK:
        raise _WrongError("it is empty" if not block else "it ends within a header", block)
    name, mode, uid, gid, size, mtime, total, kind, link, sign, major, minor, prefix = USTAR.unpack(block)
    try:
        should = _number(total)
        found = sum(block) - sum(total) + 256
        if found != should:
            # Some old programs added signed bytes.
            found -= 256 * sum(byte > 127 for byte in block) - 256 * sum(byte > 127 for byte in total)
        if found != should:
            raise _WrongError("a header has a wrong checksum", block)
        stored = _number(size)
        device = (_number(major), _number(minor)) if kind in b"34" else (0, 0)
        made = Member(
            *(_text(name), kind, _text(link), _number(mode), _number(uid), _number(gid), stored, stored),
            *(_time(_number(mtime) * 10**9), device),
        )
    except ValueError:
        raise _WrongError("a header has fields that are no numbers", block) from None
    if prefix[0] and sign[:5] == b"ustar" and sign[5:] != b" ":  # GNU's has times there
        star = block[508:512] == b"tar\0"
        made.name = b"%b/%b" % (_text(prefix[:131] if star else prefix), made.name)
    if kind in FILES:
        made.kind = FILE
    elif kind in HEADER_ONLY:
        made.size = made.stored = 0
    return made


def _number(field: bytes) -> int:
    """Octal text, or GNU's base 256 for what does not fit."""
    if field[0] & 0x80:
        bits = 8 * len(field) - 1
        value = int.from_bytes(field, "big") & ((1 << bits) - 1)
        return value - (1 << bits) if field[0] & 0x40 else value
    return int(field.partition(b"\0")[0].strip() or b"0", 8)


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _padded(size: int) -> int:
    return size + -size % BLOCK


def _time(time: int) -> int:
    return min(max(time, 0), LATEST)


def _records(data: bytes) -> Records:
    """The records `LENGTH KEY=VALUE\\n` of an extended header, LENGTH counting all of it.

    The pairs of sparse format 0.0, keys of which repeat, become the map of 0.1.
    """
    found: Records = {}
    pairs: list[bytes] = []
    at = 0
    try:
        while at < len(data) and data[at]:
            space = data.index(b" ", at, at + 21)
            end = at + int(data[at:space])
            key, equals, value = data[space + 1 : end - 1].partition(b"=")
            if end <= space + 2 or data[end - 1 : end] != b"\n" or not equals:
                raise ValueError
            if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
                pairs.append(value)
            else:
                found[key] = value
            at = end
    except ValueError:
        raise WwfastError("the archive is damaged: an extended header is not readable") from None
    if pairs:
        found[MAP] = b",".join(pairs)
    return found


def _apply(member: Member, records: Records) -> None:
    """What extended headers say goes before the header's own fields; an empty value says nothing."""
    member.records = records
    get = records.get
    member.name = get(b"GNU.sparse.name") or get(b"path") or member.name
    member.link = get(b"linkpath") or member.link
    try:
        if mtime := get(b"mtime"):
            seconds, _, fraction = mtime.partition(b".")
            if seconds.isdigit() and (fraction.isdigit() or not fraction):
                member.mtime = _time(int(seconds) * 10**9 + int(fraction[:9].ljust(9, b"0")))
            elif seconds.startswith(b"-"):
                member.mtime = 0
        member.uid = int(get(b"uid") or member.uid)
        member.gid = int(get(b"gid") or member.gid)
        if (size := get(b"size")) and member.kind not in HEADER_ONLY:
            member.size = member.stored = int(size)
    except ValueError:
        raise WwfastError(
            f"the archive is damaged: {member.shown} has a size, owner or time that is no number"
        ) from None


def _check(member: Member) -> None:
    """Of a file with a slash behind its name programs before POSIX made directories; numbers must be possible."""
    if member.kind == FILE and member.name.endswith(b"/"):
        member.kind = DIRECTORY
    if member.size < 0 or member.stored < 0:
        raise WwfastError(f"the archive is damaged: {member.shown} has an impossible size")
    if not (0 <= member.uid < 2**32 - 1 and 0 <= member.gid < 2**32 - 1):
        raise WwfastError(f"the archive is damaged: {member.shown} has an impossible owner")


# -- sparse files ----------------------------------------------------------------------------------------------------


def _sparse(source: Forward, member: Member, block: bytes, room: int) -> None:
    """Size, stored size and pieces of a sparse file; of its maps at most `room` bytes are read."""
    records = member.records
    try:
        if block[156:157] == SPARSE:
            numbers, size = _old_map(source, block, room)
            member.kind = FILE
        elif records.get(b"GNU.sparse.major") == b"1":
            at = source.tell()
            numbers = _stored_map(source, room)
            member.stored -= source.tell() - at
            size = int(records[b"GNU.sparse.realsize"])
        else:
            numbers = [int(number) for number in records.get(MAP, b"").split(b",") if number]
            size = int(records[b"GNU.sparse.size"])
        pieces = list(zip(numbers[::2], numbers[1::2], strict=True))
    except (ValueError, KeyError):
        raise WwfastError(f"the archive is damaged: the map of sparse file {member.shown} is not readable") from None
    last = total = 0
    for offset, length in pieces:
        if length < 0 or offset < last or offset + length > size:
            raise WwfastError(f"the archive is damaged: the map of sparse file {member.shown} is impossible")
        last = offset + length
        total += length
    if total > member.stored:
        raise WwfastError(f"the archive is damaged: sparse file {member.shown} has less data than its map")
    member.size, member.pieces = size, pieces


def _old_map(source: Forward, block: bytes, room: int) -> tuple[list[int], int]:
    """GNU's own format: four pairs in the header, 21 in each block behind it as long as the last says so."""
    size = _number(block[483:495])
    numbers: list[int] = []
    fields, more = block[386:482], block[482]
    while True:
        for at in range(0, len(fields), 24):
            if not fields[at + 12]:
                break
            numbers += _number(fields[at : at + 12]), _number(fields[at + 12 : at + 24])
        if not more:
            return numbers, size
        block = source.read(BLOCK)
        room -= BLOCK
        if len(block) < BLOCK or room < 0:
            raise ValueError
        fields, more = block[:504], block[504]


def _stored_map(source: Forward, room: int) -> list[int]:
    """Format 1.0: before the data, in whole blocks, decimal lines: how many pairs, then their numbers."""
    text = b""
    lines: list[bytes] = []
    wanted = 1
    while len(lines) < wanted:
        block = source.read(BLOCK)
        room -= BLOCK
        if len(block) < BLOCK or room < 0:
            raise ValueError
        *whole, text = (text + block).split(b"\n")
        if whole and not lines:
            wanted += 2 * int(whole[0])
        lines += whole
        if wanted < 1 or (len(lines) < wanted and len(text) > DIGITS):
            raise ValueError
    return [int(line) for line in lines[1:wanted]]
