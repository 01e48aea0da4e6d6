"""Kernel modules and trees of them, small and real enough for modinfo and for what reads modules.dep."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path


def module(**info: str | Sequence[str]) -> bytes:
    """An ELF object whose section .modinfo has these fields."""
    fields = [(key, [value] if isinstance(value, str) else value) for key, value in info.items()]
    body = b"".join(f"{key}={each}".encode() + b"\0" for key, values in fields for each in values) or b"\0"
    names = b"\0.modinfo\0.shstrtab\0"
    start = 64 + len(body) + len(names)
    start += -start % 8
    head = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1", 1, 62, 1, 0, 0, start, 0, 64, 0, 0, 64, 3, 2)

    def section(name: int, kind: int, offset: int, size: int) -> bytes:
        return struct.pack("<IIQQQQIIQQ", name, kind, 0, 0, offset, size, 0, 0, 1, 0)

    table = [section(0, 0, 0, 0), section(1, 1, 64, len(body)), section(10, 3, 64 + len(body), len(names))]
    return (head + body + names).ljust(start, b"\0") + b"".join(table)


def plant(root: Path, release: str, depends: Mapping[str, str], **firmware: Sequence[str]) -> Path:
    """Modules by path with what each needs, and what each asks for by name, below `root`/usr/lib, with a link to it."""
    if not (root / "lib").exists():
        (root / "usr/lib").mkdir(parents=True, exist_ok=True)
        (root / "lib").symlink_to("usr/lib")
    home = root / "usr/lib/modules" / release
    for path in depends:
        (home / path).parent.mkdir(parents=True, exist_ok=True)
        asks = firmware.get(Path(path).stem, ())
        (home / path).write_bytes(module(license="GPL", **({"firmware": asks} if asks else {})))
    (home / "modules.dep").write_text("".join(f"{path}: {needed}\n" for path, needed in depends.items()))
    (home / "modules.order").write_text("".join(f"{path}\n" for path in depends if path.startswith("kernel/")))
    return home
