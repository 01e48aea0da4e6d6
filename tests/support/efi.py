"""A program for UEFI on x86-64, by the bytes of its format (PE32+, Microsoft's PE/COFF specification)."""

from __future__ import annotations

import struct

HEADERS, PAGE = 0x200, 0x1000
#: To the first serial port: mov dx,3f8h; lea rsi,[behind]; lodsb; test al,al; jz; out dx,al; jmp; hlt; jmp.
CODE = bytes.fromhex("66baf803488d350b000000ac84c07403eeebf8f4ebfd")


def program(said: bytes) -> bytes:
    """One that writes this, at most 400 bytes, to the first serial port, and stays."""
    section = (CODE + said + b"\0").ljust(HEADERS, b"\0")
    optional = struct.pack("<HxxIIIII", 0x20B, len(section), 0, 0, PAGE, PAGE)
    optional += struct.pack("<QII", 0, PAGE, HEADERS)  # where it wants to be, and how it is cut
    optional += bytes(16) + struct.pack("<III", 2 * PAGE, HEADERS, 0)
    optional += struct.pack("<HH4QII", 10, 0, 0, 0, 0, 0, 0, 16) + bytes(16 * 8)  # an EFI application
    coff = struct.pack("<HHIIIHH", 0x8664, 1, 0, 0, 0, len(optional), 0x22)
    text = struct.pack("<8sIIII12xI", b".text", len(section), PAGE, len(section), HEADERS, 0x60000020)
    dos = b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 0x40)
    return (dos + b"PE\0\0" + coff + optional + text).ljust(HEADERS, b"\0") + section
