"""Reading the headers of a tar archive: the plain ustar and pax ones here, what is unusual by tarfile."""

from __future__ import annotations

import struct
import tarfile
from typing import Any, cast

LATEST = (2**32 - 1) * 10**9  # what the archive for the node can express
# POSIX ustar: name mode uid gid size mtime chksum type linkname (magic version uname gname) devmajor devminor prefix
USTAR = struct.Struct("100s8s8s8s12s12s8sc100s72x8s8s155s12x")


class Header(tarfile.TarInfo):
    """tarfile's reading of the plain headers that nearly all are, five times as fast; it gets what is unusual."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Header:
        if len(buf) == 512 and buf[257:263] == b"ustar\0" and buf[156] in b"0125":
            name, mode, uid, gid, size, mtime, total, kind, link, major, minor, prefix = USTAR.unpack(buf)
            try:
                made = cls(_text(name))
                if int(total.rstrip(b"\0 "), 8) != 256 + sum(buf) - sum(total):
                    raise ValueError
                made.mode, made.uid, made.gid, made.size, made.mtime, made.devmajor, made.devminor = (
                    int(field.rstrip(b"\0 ") or b"0", 8) for field in (mode, uid, gid, size, mtime, major, minor)
                )
                made.type, made.linkname = kind, _text(link)
                if prefix[0]:
                    made.name = f"{_text(prefix)}/{made.name}"
                if kind == tarfile.DIRTYPE:
                    made.name = made.name.rstrip("/")
                return made
            except ValueError:
                pass
        return super().frombuf(buf, encoding, errors)

    def _proc_pax(self, archive: Any) -> tarfile.TarInfo:
        """The extended header of one member; of sparse files, other encodings and all members: tarfile's own reading.

        POSIX pax: records `LENGTH KEY=VALUE\\n`, LENGTH counting all of it. Nearly every file of an image has one.
        """
        data: bytes = archive.fileobj.read(cast(Any, self)._block(self.size))
        records = _pax_records(data[: self.size]) if self.type == tarfile.XHDTYPE else None
        if records is None:
            archive.fileobj.unread(data)
            return cast(tarfile.TarInfo, cast(Any, super())._proc_pax(archive))
        try:
            member: Any = self.fromtarfile(archive)
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from None
        member._apply_pax_info(archive.pax_headers | records, archive.encoding, archive.errors)
        member.offset = self.offset
        if "size" in records:
            archive.offset = member.offset_data + (member._block(member.size) if member.isreg() else 0)
        return cast(tarfile.TarInfo, member)


def _pax_records(data: bytes) -> dict[str, str] | None:
    """Records by key; None for what is not plainly readable."""
    found: dict[str, str] = {}
    at = 0
    try:
        while at < len(data):
            space = data.index(b" ", at, at + 20)
            length = int(data[at:space])
            end = at + length
            key, equals, value = data[space + 1 : end - 1].partition(b"=")
            if end <= space + 2 or data[end - 1 : end] != b"\n" or not equals:
                return None
            if key == b"hdrcharset" or key.startswith(b"GNU."):
                return None
            found[key.decode()] = value.decode("utf-8", "surrogateescape")
            at = end
    except ValueError:
        return None
    return found


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def times(member: tarfile.TarInfo) -> tuple[int, int]:
    """Access and modification time in ns; pax headers carry fractions that a float would round."""
    text = member.pax_headers.get("mtime", "")
    seconds, _, fraction = text.partition(".")
    if seconds.isdecimal() and (fraction.isdecimal() or not fraction):
        time = int(seconds) * 10**9 + int(fraction[:9].ljust(9, "0"))
    else:
        time = int(member.mtime) * 10**9
    time = min(max(time, 0), LATEST)
    return time, time
