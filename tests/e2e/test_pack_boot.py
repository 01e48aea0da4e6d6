"""Linux unpacks images of every format, with hard links and file capabilities, and starts what is in them."""

from __future__ import annotations

import os
import re
import shutil
import stat
import struct
import zlib
from pathlib import Path

import pytest

from support import trees
from wwfast.archive.artefact import FORMATS
from wwfast.demo.debian import Tree
from wwfast.demo.netns import Namespace
from wwfast.demo.vm import ARGUMENTS, Direct, Vm
from wwfast.pack.build import build, load
from wwfast.paths import SHARE
from wwfast.system.run import run

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(900)]

PROGRAMS = ("usr/bin/dash", "usr/bin/stat", "usr/bin/od", "usr/bin/sleep", "usr/sbin/setcap", "usr/sbin/getcap")
INIT = """#!/usr/bin/dash
PATH=/usr/bin:/usr/sbin
dash /warewulf/init.d/10-capabilities
echo "LINKS $(stat -c %i:%h:%s /one/name) $(stat -c %i:%h:%s /two/name)"
echo "MODES $(stat -c %a:%u:%g:%Y /one/name) $(stat -c %F:%t:%T /dev/thing)"
echo "TAIL $(od -An -tx1 -j40000000 /large)"
echo "CAPS $(getcap /usr/bin/od)"
echo "END"
exec sleep 1000
"""


@pytest.fixture(scope="module")
def tree(debian: Tree, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smallest tree that can answer: a shell, stat, od, setcap and the libraries they need."""
    root = tmp_path_factory.mktemp("boot") / "rootfs"
    for program in PROGRAMS:
        listed = run(["chroot", debian.rootfs, "ldd", f"/{program}"]).stdout.decode().split()
        for name in [f"/{program}", *(word for word in listed if word.startswith("/"))]:
            real = run(["chroot", debian.rootfs, "realpath", name]).stdout.decode().strip()
            (root / name[1:]).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(debian.rootfs / real[1:], root / name[1:])
    for directory in ("dev", "one", "two", "warewulf/init.d"):
        (root / directory).mkdir(parents=True)
    shutil.copy(SHARE / "overlays/wwinit/rootfs/warewulf/init.d/10-capabilities", root / "warewulf/init.d")
    os.mknod(root / "dev/console", stat.S_IFCHR | 0o600, os.makedev(5, 1))
    os.mknod(root / "dev/thing", stat.S_IFBLK | 0o600, os.makedev(7, 9))
    (root / "init").write_text(INIT)
    (root / "init").chmod(0o755)
    (root / "one/name").write_bytes(b"linked")
    os.chown(root / "one/name", 12, 34)
    (root / "one/name").chmod(0o4750)
    (root / "two/name").hardlink_to(root / "one/name")
    os.utime(root / "one/name", (1_000_000_000, 1_000_000_000))
    os.setxattr(root / "usr/bin/od", "security.capability", struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0))
    text = zlib.compress(b"".join(b"%d " % number for number in range(3_000_000)), 1)
    (root / "large").write_bytes((text * (40_000_000 // len(text) + 1))[:40_000_000] + b"\xca\xfe")
    return root


@pytest.fixture(scope="module")
def images(tree: Path) -> Path:
    dest = tree.parent / "images/1"
    build(tree, dest, name="boot", formats=FORMATS, frames=tree.parent / "frames")
    return dest


@pytest.mark.parametrize("fmt", FORMATS)
def test_pack_image_boots(fmt: str, tree: Path, images: Path, debian: Tree, tmp_path: Path) -> None:
    artefact = load(images, fmt)
    assert artefact is not None
    (tmp_path / "image").write_bytes(trees.contents(artefact.extents))
    (kernel,) = debian.rootfs.glob("boot/vmlinuz-*")
    direct = Direct(kernel, [tmp_path / "image"], f"{ARGUMENTS} quiet")
    with (
        Namespace(label="pack") as network,
        Vm(network, tmp_path, fmt, "52:54:00:00:00:77", memory=1024, direct=direct) as vm,
    ):
        vm.wait("END", timeout=200)
        shown = vm.console()
    links = re.search(r"LINKS (\d+):(\d+):(\d+) (\S+)", shown)
    assert links is not None
    assert links.group(2, 3) == ("2", "6")
    assert links[4] == ":".join(links.group(1, 2, 3)), "both names are one inode"
    assert "MODES 4750:12:34:1000000000 block special file:7:9" in shown
    assert "TAIL  ca fe" in shown
    assert "CAPS /usr/bin/od cap_net_raw=ep" in shown
