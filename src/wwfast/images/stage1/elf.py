"""What an ELF file needs to run: the words that ld.so reads (System V gABI, chapter 5; ld.so(8))."""

from __future__ import annotations

import struct
from dataclasses import dataclass

PT_LOAD, PT_DYNAMIC, PT_INTERP = 1, 2, 3
DT_NEEDED, DT_STRTAB, DT_RPATH, DT_RUNPATH = 1, 5, 15, 29


@dataclass(frozen=True, slots=True)
class Needs:
    """`kind` is class, byte order and machine: only files of one kind go together. `interpreter` is "" where the kernel
    starts the file alone; `search` are directories as they are written, with `$ORIGIN`."""

    kind: tuple[int, int, int]
    interpreter: str = ""
    libraries: tuple[str, ...] = ()
    search: tuple[str, ...] = ()


def needs(data: bytes) -> Needs | None:
    """None for what is no ELF file, or is damaged."""
    if data[:4] != b"\x7fELF" or len(data) < 64:
        return None
    try:
        return _read(data)
    except (struct.error, IndexError, ValueError, OverflowError, StopIteration):
        return None


def _read(data: bytes) -> Needs:
    wide, order = data[4] == 2, "<" if data[5] == 1 else ">"
    (machine,) = struct.unpack_from(order + "H", data, 18)
    kind = (data[4], data[5], machine)
    table = struct.unpack_from(order + ("Q" if wide else "I"), data, 32 if wide else 28)[0]
    size, count = struct.unpack_from(order + "HH", data, 54 if wide else 42)
    segments = [_segment(data, table + size * number, wide, order) for number in range(count)]
    interpreter = ""
    dynamic: list[tuple[int, int]] = []
    for what, offset, _, length in segments:
        if what == PT_INTERP:
            interpreter = data[offset : offset + length].split(b"\0", 1)[0].decode()
        elif what == PT_DYNAMIC:
            each = struct.Struct(order + ("QQ" if wide else "II"))
            dynamic = list(each.iter_unpack(data[offset : offset + length - length % each.size]))
    strings = next((value for tag, value in dynamic if tag == DT_STRTAB), None)
    if strings is None:
        return Needs(kind, interpreter)
    base = next(
        strings - at + offset for what, offset, at, length in segments if what == PT_LOAD and 0 <= strings - at < length
    )

    def text(value: int) -> str:
        return data[base + value : data.index(b"\0", base + value)].decode()

    libraries = tuple(text(value) for tag, value in dynamic if tag == DT_NEEDED)
    # RUNPATH takes the place of RPATH where both are there.
    paths = {tag: text(value) for tag, value in dynamic if tag in (DT_RPATH, DT_RUNPATH)}
    search = paths.get(DT_RUNPATH, paths.get(DT_RPATH, ""))
    return Needs(kind, interpreter, libraries, tuple(part for part in search.split(":") if part))


def _segment(data: bytes, at: int, wide: bool, order: str) -> tuple[int, int, int, int]:
    """Type, offset in the file, address, length in the file."""
    if wide:
        what, _, offset, address, _, length = struct.unpack_from(order + "IIQQQQ", data, at)
    else:
        what, offset, address, _, length = struct.unpack_from(order + "IIIII", data, at)
    return what, offset, address, length
