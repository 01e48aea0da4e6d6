"""What a file is that is no tar archive, by its first bytes, and how its tree gets here nevertheless."""

from __future__ import annotations

from wwfast.errors import WwfastError

HEAD = 40 << 10  # bytes looked at: ISO 9660 tells at 32 KiB

_DISK = "virt-tar-out -a FILE / TREE.tar (libguestfs), then import TREE.tar"
_CPIO = "mkdir TREE; cd TREE; cpio -idm <FILE; then import TREE"
_LOADED = "look at it: this is what the download brought instead of an archive"

KINDS = (
    (0, b"\x04\x22\x4d\x18", "an lz4 file", "lz4 -d FILE TREE.tar, then import TREE.tar"),
    (0, b"\x02\x21\x4c\x18", "an lz4 file", "lz4 -d FILE TREE.tar, then import TREE.tar"),
    (0, b"LZIP", "an lzip file", "lzip -dc FILE >TREE.tar, then import TREE.tar"),
    (0, b"\x89LZO", "an lzop file", "lzop -dc FILE >TREE.tar, then import TREE.tar"),
    (0, b"\x5d\x00\x00", "an lzma file", "xz -dc --format=lzma FILE >TREE.tar, then import TREE.tar"),
    (0, b"\x1f\x9d", "a file of compress", "gzip -dc FILE >TREE.tar, then import TREE.tar"),
    (32, b"SIF_MAGIC", "a SIF image", "apptainer build --sandbox TREE FILE, then import TREE"),
    (0, b"#!/usr/bin/env run-singularity", "a SIF image", "apptainer build --sandbox TREE FILE, then import TREE"),
    (0, b"hsqs", "a squashfs file system", "unsquashfs -d TREE FILE, then import TREE"),
    (0, b"sqsh", "a squashfs file system", "unsquashfs -d TREE FILE, then import TREE"),
    (1024, b"\xe2\xe1\xf5\xe0", "an EROFS file system", "fsck.erofs --extract=TREE FILE, then import TREE"),
    (0, b"QFI\xfb", "a qcow2 disk", _DISK),
    (0, b"KDMV", "a VMDK disk", _DISK),
    (0, b"vhdxfile", "a VHDX disk", _DISK),
    (512, b"EFI PART", "a disk with partitions", _DISK),
    (510, b"\x55\xaa", "a disk with partitions", _DISK),
    (1080, b"\x53\xef", "an ext4 file system", _DISK),
    (0, b"XFSB", "an XFS file system", _DISK),
    (32769, b"CD001", "an ISO 9660 file system", "bsdtar -C TREE -xf FILE; it mostly holds an installer, no root tree"),
    (0, b"070701", "a cpio archive", _CPIO),
    (0, b"070702", "a cpio archive", _CPIO),
    (0, b"070707", "a cpio archive", _CPIO),
    (0, b"\xc7\x71", "a cpio archive", _CPIO),
    (0, b"PK\x03\x04", "a zip archive", "unzip -d TREE FILE, then import TREE; owners and modes are lost"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", "7z x -oTREE FILE, then import TREE; owners and modes are lost"),
    (0, b"\xed\xab\xee\xdb", "an RPM package", "import an image of the distribution, and install it there"),
    (0, b"!<arch>\n", "a package (ar archive)", "import an image of the distribution, and install it there"),
    (0, b"\x7fELF", "a program", "name an archive or a directory of a root file system"),
    (0, b"<!doctype html", "a web page", _LOADED),
    (0, b"<html", "a web page", _LOADED),
    (0, b"<?xml", "an XML document", _LOADED),
    (0, b"{", "a JSON document", _LOADED),
)


def known(head: bytes) -> WwfastError | None:
    """The refusal of a file that begins with `head`; None where that says nothing."""
    for at, sign, what, todo in KINDS:
        if head[at : at + len(sign)].lower() == sign.lower():
            return WwfastError(f"it is {what}, which is not read as an image", hint=todo)
    return None


def refusal(head: bytes, why: str) -> WwfastError:
    """The error for a file that begins with `head`, in which no tar header is because of `why`."""
    return known(head) or WwfastError(
        f"the archive is damaged or no tar archive: {why}", hint="wwfast image import --help tells what can be a source"
    )
