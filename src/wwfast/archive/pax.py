"""Members of a tar archive in the pax form (POSIX.1-2001), with what GNU tar adds to it: extended attributes and holes.

ustar where it suffices; what does not fit there is a record before the member. Holes are GNU's format 1.0: the file's
content is a map of what is no hole, and then that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

BLOCK = 512
END = bytes(2 * BLOCK)
FILE, LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"
RECORDS = b"x"
ATTRIBUTE = b"SCHILY.xattr."  # before the name of an extended attribute
OCTAL_7, OCTAL_11 = 8**7, 8**11  # the first number that has no place in 7 and in 11 digits
NAME, TARGET = 100, 100  # bytes that ustar has room for

Record = tuple[bytes, bytes]
#: Offset and length of what is no hole.
Extent = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Member:
    """`size` are the bytes of the content that follow; `target` is of links; `attributes` by their full names."""

    name: bytes
    kind: bytes
    mode: int
    uid: int
    gid: int
    mtime: int
    size: int = 0
    target: bytes = b""
    device: tuple[int, int] = (0, 0)
    attributes: Sequence[Record] = ()


def head(member: Member, extra: Iterable[Record] = (), stand_in: bytes = b"") -> bytes:
    """The blocks before a member's content. `stand_in` is the name for who does not read `extra`."""
    records = [*extra, *((attribute(name), value) for name, value in member.attributes)]
    if not stand_in and len(member.name) > NAME:
        records.append((b"path", member.name))
    if len(member.target) > TARGET:
        records.append((b"linkpath", member.target))
    for key, number, limit in (
        (b"uid", member.uid, OCTAL_7),
        (b"gid", member.gid, OCTAL_7),
        (b"size", member.size, OCTAL_11),
    ):
        if number >= limit:
            records.append((key, b"%d" % number))
    before = b""
    if records:
        body = b"".join(record(key, value) for key, value in records)
        about = Member(b"pax", RECORDS, 0o644, 0, 0, member.mtime, len(body))
        before = _block(about, about.name) + padded(body)
    return before + _block(member, stand_in or member.name)


def sparse(member: Member, extents: Sequence[Extent]) -> bytes:
    """The blocks before the content of a file with holes, which is its `extents`. `member.size` is with the holes."""
    whole = [*extents, (member.size, 0)] if not extents or sum(extents[-1]) < member.size else extents
    text = b"%d\n" % len(whole) + b"".join(b"%d\n%d\n" % extent for extent in whole)
    extra = [
        (b"GNU.sparse.major", b"1"),
        (b"GNU.sparse.minor", b"0"),
        (b"GNU.sparse.name", member.name),
        (b"GNU.sparse.realsize", b"%d" % member.size),
    ]
    size = len(padded(text)) + sum(length for _, length in extents)
    stored = replace(member, kind=FILE, size=size)
    return head(stored, extra, b"GNUSparseFile.0/file") + padded(text)


def attribute(name: bytes) -> bytes:
    """The key of an extended attribute, in which GNU tar has `=` and `%` as %3D and %25."""
    return ATTRIBUTE + name.replace(b"%", b"%25").replace(b"=", b"%3D")


def record(key: bytes, value: bytes) -> bytes:
    """One record; its length counts itself."""
    rest = b" %s=%s\n" % (key, value)
    length = len(rest) + 1
    while len(b"%d" % length) + len(rest) != length:
        length = len(b"%d" % length) + len(rest)
    return b"%d%s" % (length, rest)


def padded(data: bytes) -> bytes:
    return data + padding(len(data))


def padding(size: int) -> bytes:
    """What follows a content of so many bytes."""
    return bytes(-size % BLOCK)


def _block(member: Member, name: bytes) -> bytes:
    block = bytearray(BLOCK)
    block[: len(name[:NAME])] = name[:NAME]
    numbers = (
        (100, 8, member.mode & 0o7777),
        (108, 8, member.uid % OCTAL_7),
        (116, 8, member.gid % OCTAL_7),
        (124, 12, member.size % OCTAL_11),
        (136, 12, member.mtime),
        (329, 8, member.device[0]),
        (337, 8, member.device[1]),
    )
    for offset, width, number in numbers:
        block[offset : offset + width - 1] = b"%0*o" % (width - 1, number)
    block[148:156] = b" " * 8
    block[156:157] = member.kind
    target = member.target[:TARGET]
    block[157 : 157 + len(target)] = target
    block[257:265] = b"ustar\x0000"
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)
