"""A root file system of nothing but busybox: quick to make, and commands run in it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from wwfast.system.run import run

APPLETS = ("sh", "ls", "cat", "touch", "hostname", "id", "rm", "sleep", "ps", "mkdir")


def box(root: Path) -> Path:
    for name in ("bin", "etc", "dev", "proc", "sys", "run", "tmp"):
        (root / name).mkdir(parents=True)
    # Debian's busybox needs its libraries; a static one needs none.
    needed = re.findall(r"(/\S+) \(0x", run(["ldd", "/bin/busybox"], check=False, package="busybox").stdout.decode())
    for file in ("/bin/busybox", *needed):
        copy = root / file.lstrip("/")
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, copy)
    for name in APPLETS:
        (root / "bin" / name).symlink_to("busybox")
    return root
