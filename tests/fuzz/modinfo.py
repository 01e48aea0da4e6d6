"""What kernels and modules of an image say of themselves: read or left out, and nothing is copied out of its place."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from wwfast.images.kernels import detect, modules

COUNT = 1500
TOKENS = (
    b"HdrS", b"../", b"/", b"*", b"[", b"?", b"fw.bin", b"../../secret", b"/secret", b"kernel/a.ko: kernel/b.ko\n",
    b"linux\n", b"CONFIG_RD_ZSTD=y\n", b"6.1.0-13-amd64 (a@b)", b"\n", b"\xff", b"a" * 300, b"{", b"\x85",
)  # fmt: skip
ROOM = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else None


def one(data: bytes) -> None:
    """The same bytes as the header of a kernel, an index of modules, a package's name, and a list of firmware."""
    with tempfile.TemporaryDirectory(dir=ROOM) as name:
        around = Path(name)
        root, target = around / "image", around / "tree/lib/firmware"
        place = root / "lib/modules/6.1.0"
        for made in (root / "boot", place, root / "lib/firmware", target):
            made.mkdir(parents=True)
        header = bytearray(0x20E) + data
        header[0x202:0x206] = b"HdrS"
        (root / "boot/vmlinuz-linux").write_bytes(header)
        for file in ("modules.dep", "pkgbase", "config"):
            (place / file).write_bytes(data)
        for secret in (root / "secret", root / "lib/firmware/fw.bin"):
            secret.write_text("bytes")
        for kernel in detect.kernels(root):
            assert kernel.file.is_relative_to(root)
            assert kernel.order <= kernel.order
        modules.index_matches(place, [])
        modules.copy_firmware(root, modules.firmware_names(data.replace(b"\0", b"")), target)
        assert {path.name for path in around.iterdir()} == {"image", "tree"}
        outside = [file for file in around.rglob("*") if file.is_file() and root not in file.parents]
        assert all(target in file.parents for file in outside)
        assert not any(file.name.startswith("secret") for file in outside)
