"""The programs of stage-1, out of the image: each with its links, interpreter and libraries. Nothing of it is run."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
import stat
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from wwfast.archive.artefact import DISK
from wwfast.errors import WwfastError
from wwfast.images.stage1 import elf
from wwfast.images.stage1.rests import Look, UnfitError
from wwfast.paths import SHARE
from wwfast.system import within

log = logging.getLogger(__name__)

INIT = SHARE / "stage1/init"
DISKS = SHARE / "overlays/wwinit/rootfs/warewulf/disks.sh"
PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
#: Where ld.so looks when nothing else says so; Debian's multiarch directories are compiled into its glibc.
LIBRARIES = ("/lib/*-linux-gnu*", "/usr/lib/*-linux-gnu*", "/lib64", "/usr/lib64", "/lib", "/usr/lib")
#: What glibc loads by name while it runs, where the image has it.
LOADED = ("libgcc_s.so.1", "libnss_files.so.2")
#: Packages that are not called as their program: by a word of ID or ID_LIKE in os-release(5), "" for all others.
PACKAGES: dict[str, dict[str, str]] = {
    "ip": {"fedora": "iproute", "": "iproute2"},
    "modprobe": {"": "kmod"},
    "switch_root": {"": "util-linux"},
    "mount": {"debian": "mount", "": "util-linux"},
    "umount": {"debian": "mount", "": "util-linux"},
    "sfdisk": {"debian": "fdisk", "": "util-linux"},
    **{name: {"": "util-linux"} for name in ("blkid", "wipefs", "partx", "mkswap")},
    **{name: {"": "e2fsprogs"} for name in ("mkfs.ext4", "mkfs.ext3", "mkfs.ext2", "e2label")},
    **{name: {"": "xfsprogs"} for name in ("mkfs.xfs", "xfs_db")},
    **{name: {"suse": "btrfsprogs", "": "btrfs-progs"} for name in ("mkfs.btrfs", "btrfs")},
    **{name: {"": "dosfstools"} for name in ("mkfs.vfat", "fatlabel")},
    "sh": {"debian": "dash", "alpine": "busybox", "": "bash"},
}
NAMESAKES = ("curl", "gzip", "cpio", "tar", "zstd")  # packages of one program
USUAL = ("sfdisk", "mkfs.ext4", "mkswap")  # what an image lacks of these is said
LARGEST = 64 << 20  # bytes of a program or library; more is read by no mistake


class LackingError(WwfastError):
    """The image has no such program."""


@cache
def script() -> str:
    """Which script this is, in hex: what it is told may be another with another version of this program."""
    return hashlib.sha256(INIT.read_bytes()).hexdigest()[:16]


def _named(script: Path, sign: str) -> list[str]:
    """What a script calls, as it says itself behind this sign."""
    found = re.findall(rf"^{re.escape(sign)} (.+)$", script.read_text(), re.MULTILINE)
    return " ".join(found).split()


def wanted() -> list[str]:
    """What the script of stage-1 calls."""
    return _named(INIT, "#:")


def inside() -> list[str]:
    """What it calls in the image itself, where its overlays are unpacked."""
    return _named(INIT, "#@")


def optional() -> list[str]:
    """What it calls for some roots alone: an image that lacks it goes without these."""
    return _named(INIT, "#?")


def for_disks() -> list[str]:
    """What is called for every root on a disk."""
    return [*inside(), *of_scripts()]


def of_scripts() -> list[str]:
    """What is called for whatever is wanted of a disk."""
    return _named(DISKS, "#%")


def making(wanted: str) -> list[str]:
    """What is called to make this: a table (sfdisk), swap space, a file system by its format."""
    kind = {"fat": "vfat", "msdos": "vfat"}.get(wanted, wanted)
    first = {"sfdisk": "sfdisk", "swap": "mkswap"}.get(kind, f"mkfs.{kind}")
    lines = re.findall(r"^#%\? (.+)$", DISKS.read_text(), re.MULTILINE)
    return next((words for line in lines if (words := line.split())[0] == first), [first])


def for_some_disks() -> list[str]:
    """What is called for some kinds of partitions and file systems alone, or for what stays on them."""
    return [*dict.fromkeys(_named(DISKS, "#%?")), *for_what_stays()]


def for_what_stays() -> list[str]:
    """What the script of stage-1 calls for a cache alone, or for a root that is updated."""
    return _named(INIT, "#%?")


def package(program: str, root: Path) -> str:
    """What the distribution of the tree `root` calls the package of a program."""
    file = within.resolve(root, "/etc/os-release")
    text = within.text(file) if file is not None and file.is_file() else ""
    words = " ".join(re.findall(r"^ID(?:_LIKE)?=(.+)$", text, re.MULTILINE)).replace('"', " ").split()
    known = PACKAGES.get(program, {"": program if program in NAMESAKES else "coreutils"})
    return next((known[word] for word in words if word in known), known[""])


class Collector:
    """Copies files of the tree that is looked at to `tree`, where they have the same names and links."""

    def __init__(self, look: Look, tree: Path) -> None:
        self.look, self.root, self.tree = look, look.root, tree
        self._done: dict[str, Path | None] = {}
        self._listed = list(self._ld_so_conf("/etc/ld.so.conf"))

    def program(self, name: str) -> None:
        """Raises LackingError naming the package."""
        self._needed(self.find(name))

    def find(self, name: str) -> str:
        """Its path in the image. Raises LackingError naming the package."""
        for place in PATH:
            real = self.look.resolve(f"{place}/{name}")
            if real is not None and real.is_file():
                if os.access(real, os.X_OK):
                    return f"{place}/{name}"
                self.look.uses(real)
        raise LackingError(f"the image has no {name}", hint=f"install {package(name, self.root)} in it")

    def home(self, name: str) -> None:
        """A directory at the top as the image has it: a link with the directory that it leads to, or a directory."""
        real = self.look.resolve(f"/{name}")
        (self.tree / (real.relative_to(self.root) if real is not None else name)).mkdir(parents=True, exist_ok=True)
        if (self.root / name).is_symlink():
            (self.tree / name).symlink_to((self.root / name).readlink())

    def extras(self, shell: str) -> None:
        """What the script itself is run by, and what libraries load."""
        self._needed(shell)
        copy = self.copy(shell)
        found = elf.needs(copy.read_bytes()) if copy is not None else None
        for name in LOADED if found is not None else ():
            assert found is not None
            if (path := self._library(name, (), found.kind)) is not None:
                self._needed(path)

    def copy(self, path: str) -> Path | None:
        """A file with every link on the way to it; the copy, None where there is none.

        Raises UnfitError for what is no program, OSError of writing.
        """
        if path not in self._done:
            self._done[path] = self._copied(path)
        return self._done[path]

    def _copied(self, path: str) -> Path | None:
        way: list[tuple[Path, str | None]] = []  # each link with where it leads, each directory with None

        def link(at: list[str], name: str, _more: bool) -> str | None:
            here, there = self.root.joinpath(*at, name), self.tree.joinpath(*at, name)
            mode = here.lstat().st_mode
            if there == self.tree / "init":
                raise UnfitError("the programs of the image need its /init, which stage-1 has of its own")
            target = os.readlink(here) if stat.S_ISLNK(mode) else None  # noqa: PTH115
            if target is not None or stat.S_ISDIR(mode):
                way.append((there, target))
            return target

        if self.look.resolve(path) is None:
            return None
        try:
            parts = within.follow(path, link)
            real, copy = self.root.joinpath(*parts), self.tree.joinpath(*parts)
            self.look.uses(real)
        except OSError:  # of reading: what goes wrong in our own tree is no fault of the image
            return None
        for there, target in way:
            if target is None:
                there.mkdir(exist_ok=True)
                there.chmod(0o755)
            elif not there.is_symlink():
                there.symlink_to(target)
        if not copy.exists():
            self.look.copy(real, copy)
        return copy

    def _needed(self, path: str) -> None:
        """The file and, of what runs it, all that it needs. Raises LackingError."""
        todo = [path]
        while todo:
            one = todo.pop()
            if one in self._done:
                continue
            try:
                copy = self.copy(one)
            except UnfitError as error:
                raise LackingError(f"{error.message} ({path} needs it)") from error
            if copy is None:
                raise LackingError(f"the image has no {one}, which {path} needs", hint="install its package again")
            todo += self._wants(one, copy)

    def _wants(self, path: str, copy: Path) -> Iterator[str]:
        if copy.stat().st_size > LARGEST:
            return
        data = copy.read_bytes()
        if data[:2] == b"#!":
            words = data[2:256].split(b"\n", 1)[0].split()
            if words:
                yield os.fsdecode(words[0])
            return
        found = elf.needs(data)
        if found is None:
            return
        if found.interpreter:
            yield found.interpreter
        real = "/" + str(copy.relative_to(self.tree))
        origin = os.path.dirname(real)  # noqa: PTH120
        search = tuple(part.replace("$ORIGIN", origin).replace("${ORIGIN}", origin) for part in found.search)
        for name in found.libraries:
            library = self._library(name, search, found.kind)
            if library is None:
                raise LackingError(f"the image has no {name}, which {path} needs", hint="install its package again")
            yield library

    def _library(self, name: str, search: tuple[str, ...], kind: tuple[int, int, int]) -> str | None:
        if "/" in name:
            return name
        standard = (place for pattern in LIBRARIES for place in self._matching(pattern))
        for place in (*search, *self._listed, *standard):
            real = self.look.resolve(f"{place}/{name}")
            if real is None or not real.is_file() or real.stat().st_size > LARGEST:
                continue
            found = elf.needs(real.read_bytes())
            if found is not None and found.kind == kind:
                return f"{place}/{name}"
            self.look.uses(real)
        return None

    def _matching(self, pattern: str) -> Iterator[str]:
        return self.look.matching(pattern) if "*" in pattern else iter([pattern])

    def _ld_so_conf(self, path: str, depth: int = 0) -> Iterator[str]:
        real = self.look.resolve(path)
        if real is None or not real.is_file() or depth > 4:
            return
        self.look.uses(real)
        for line in within.text(real).splitlines():
            words = line.partition("#")[0].split()
            if words[:1] == ["include"]:
                for pattern in words[1:]:
                    for each in self.look.matching(pattern if pattern.startswith("/") else f"/etc/{pattern}"):
                        yield from self._ld_so_conf(each, depth + 1)
            elif words and words[0].startswith("/"):
                yield words[0]


def collect(look: Look, tree: Path, *, disks: bool = False) -> list[str]:
    """Fill `tree` with /init and what it calls; -> DISK where that is wanted and all is there that it takes.
    Raises LackingError."""
    collector = Collector(look, tree)
    for name in wanted():
        collector.program(name)
    for name in inside():
        collector.find(name)
    for name in [*optional(), *(for_some_disks() if disks else [])]:
        try:
            collector.program(name)
        except LackingError as error:
            if disks and name in USUAL:
                log.warning("a root on a disk may need more: %s, %s", error.message, error.hint)
    able = [DISK] if disks else []
    for name in for_disks() if disks else []:
        try:
            collector.program(name)
        except LackingError as error:
            log.warning("stage-1 of this image makes no root on a disk: %s, %s", error.message, error.hint)
            able = []
    collector.extras("/bin/sh")
    if not os.path.lexists(tree / "lib"):  # drivers come in an archive of their own, below lib/modules
        collector.home("lib")
    shutil.copyfile(INIT, tree / "init")
    (tree / "init").chmod(0o755)
    return able
