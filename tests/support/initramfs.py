"""Initramfs files as dracut makes them, with hooks of our own that say what those of Warewulf's versions say."""

from __future__ import annotations

import gzip
import stat
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

from wwfast.archive import newc

#: By the version from which it is so: what the hooks of the module read and run, in the words that tell it.
PARSE = {
    "4.5.3": "image=$(getarg wwinit.container=)\n",
    "4.5.7": "uri=$(getarg wwinit.uri=); other=$(getarg wwinit.KernelOverride=)\n",
    "4.6.0": "uri=$(getarg wwinit.uri=)\n",
    "4.6.2": "uri=$(getarg wwinit.uri=)\n",
    "4.7.0": "server=$(getarg wwinit.server=); uri=$(getarg wwinit.uri=)\n",
}
LOAD = {version: f"gzip -d | cpio -{'ium' if version >= '4.6.2' else 'im'} -D $NEWROOT\n" for version in PARSE}
GZIP = partial(gzip.compress, mtime=0)
HOOKS = "usr/lib/dracut/hooks"


def scripts(version: str) -> dict[str, bytes]:
    """The module's hooks in an initramfs."""
    return {
        f"{HOOKS}/cmdline/30-parse-wwinit.sh": PARSE[version].encode(),
        f"{HOOKS}/pre-mount/30-load-wwinit.sh": LOAD[version].encode(),
    }


def archive(files: Mapping[str, bytes]) -> bytes:
    """A cpio archive of files and the directories that they are in."""
    folders = {str(above) for name in files for above in Path(name).parents} - {"."}
    entries = [newc.Entry(name.encode(), stat.S_IFDIR | 0o755, 0, 0, 0) for name in sorted(folders)]
    entries += [newc.Entry(name.encode(), stat.S_IFREG | 0o755, 0, 0, 0, data) for name, data in files.items()]
    return newc.archive(entries)


def initramfs(version: str = "", pack: Callable[[bytes], bytes] = GZIP, programs: Iterable[str] = ()) -> bytes:
    """With microcode in front, as it lies on every machine of Intel's, the module of a version, and programs."""
    early = archive({"kernel/x86/microcode/GenuineIntel.bin": b"microcode" * 100})
    files = {"init": b"#!/bin/sh\n", "usr/lib/dracut/modules.txt": b"base\nnetwork\n"}
    files |= {f"usr/{'sbin' if name.startswith('mkfs') else 'bin'}/{name}": b"\x7fELF" for name in programs}
    return early + bytes(-len(early) % 512) + pack(archive(files | (scripts(version) if version else {})))
