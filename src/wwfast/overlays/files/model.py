"""Overlays on disk: finding them, and what they hold.

An overlay is a directory `<name>/rootfs`, or `<name>` itself in the older layout. Site overlays shadow distribution
overlays whole. Scanning reads metadata only; `digest` of a file is read once per version of it.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import xxhash

from wwfast.archive.newc import SIZE_MAX
from wwfast.errors import ConfigError, NotFoundError, UsageError
from wwfast.paths import Paths
from wwfast.system import files

NAME = re.compile(r"[a-zA-Z0-9._:-]+")
TEMPLATE = ".j2"
GO_TEMPLATE = ".ww"
TEMPLATES = (TEMPLATE, GO_TEMPLATE)
PERMISSIONS = "permissions"
# Names that Warewulf's distribution overlays have, or had, where ours has another one.
ALIASES = {"debian.interfaces": "ifupdown", "wwclient.aarch64": "wwclient", "wwclient.x86_64": "wwclient"}

DIRECTORY, FILE, LINK = "dir", "file", "link"


class Signature(NamedTuple):
    """What changes when a file changes, by stat alone."""

    dev: int
    ino: int
    size: int
    mtime: int
    ctime: int

    @classmethod
    def of(cls, st: os.stat_result) -> Signature:
        return cls(st.st_dev, st.st_ino, st.st_size, st.st_mtime_ns, st.st_ctime_ns)


class Replaced(FileNotFoundError):
    """The file that was found is not there any more, but another one, or more or less of it."""


@dataclass(frozen=True)
class Item:
    """One entry of an overlay: `path` is relative to rootfs, `mode` the permission bits.

    `template` entries are files whose name in the node lacks the suffix.
    """

    path: str
    kind: str
    mode: int
    uid: int
    gid: int
    source: Path
    signature: Signature
    target: str = ""
    aliased: bool = False  # a file that may be written by another name: of a hard link, or of what is mounted here

    @classmethod
    def alone(cls, folder: Path, path: str) -> Item:
        """A file of `folder`, which is no overlay. Raises OSError."""
        file = folder / path
        return cls(path, FILE, 0o644, 0, 0, file, Signature.of(file.stat()))

    @property
    def template(self) -> bool:
        return self.kind == FILE and self.path.endswith(TEMPLATES)

    @property
    def output(self) -> str:
        """Path in the node (of a template: of its unnamed output)."""
        return self.path.rpartition(".")[0] if self.template else self.path

    def read(self) -> bytes:
        return files.read(self.source)

    @cached_property
    def digest(self) -> bytes:
        """xxh3-128 of the content of a file, of the target of a link. Raises OSError, Replaced; ConfigError where no
        node can be sent it, before all of it is read."""
        if self.kind == LINK:
            return xxhash.xxh3_128_digest(os.fsencode(self.target))
        if self.signature.size > SIZE_MAX:
            told = f"{self.source} is larger than 4 GiB - 1, the most an initramfs can carry"
            raise ConfigError(told, hint="keep it on shared storage")
        state = xxhash.xxh3_128()
        with self.source.open("rb") as file:
            while block := file.read(1 << 20):
                state.update(block)
            if Signature.of(os.fstat(file.fileno())) != self.signature:
                raise Replaced(errno.ENOENT, "it changed while it was read", str(self.source))
        return state.digest()

    @cached_property
    def identity(self) -> tuple[object, ...]:
        """Everything about the entry that can reach a node."""
        content = b"" if self.kind == DIRECTORY else self.digest
        return (self.path, self.kind, self.mode, self.uid, self.gid, content)


@dataclass(frozen=True)
class Overlay:
    """One overlay as found; `site` ones can be edited in place."""

    name: str
    path: Path
    site: bool
    distribution: bool

    @property
    def rootfs(self) -> Path:
        inner = self.path / "rootfs"
        return inner if inner.is_dir() else self.path

    def inside(self, relative: str) -> Path:
        """The host path of an entry; UsageError when the name leaves rootfs."""
        name = clean(relative)
        path = self.rootfs / name
        if name != "." and not path.parent.resolve().is_relative_to(self.rootfs.resolve()):
            raise UsageError(f"overlay {self.name}: {relative} leaves the overlay through a symbolic link")
        return path

    def named(self, relative: str) -> Path:
        """As `inside`; of an entry that is there the template suffix may be left out."""
        path = self.inside(relative)
        candidates = (path, *(path.with_name(path.name + suffix) for suffix in TEMPLATES))
        return next(filter(os.path.lexists, candidates), path)

    def find(self, relative: str) -> Path:
        """As `named`, for an entry that must exist."""
        path = self.named(relative)
        if not os.path.lexists(path):
            told = f"wwfast overlay list -a {self.name} shows its files"
            raise NotFoundError(f"overlay {self.name} has no {clean(relative)}", hint=told)
        return path

    def read(self, path: Path) -> bytes | None:
        """What a file of it holds, None where none is. UsageError for what is no file: a link leads to what this server
        has there, not the node, and a pipe waits."""
        try:
            mode = path.lstat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            return None
        if stat.S_ISREG(mode):
            return files.read(path)
        shown = f"overlay {self.name}: {path.relative_to(self.rootfs)}"
        if stat.S_ISLNK(mode):
            raise UsageError(
                f"{shown} is a symbolic link, which has no content of its own", hint=f"it leads to {path.readlink()}"
            )
        raise UsageError(f"{shown} is {'a directory' if stat.S_ISDIR(mode) else 'a special file'}, not a file")

    def items(self) -> list[Item]:
        """All entries, each directory before its content, in the order of their names."""
        return list(self._walk(self.rootfs, "", self.permissions()))

    def _walk(self, directory: Path, prefix: str, permissions: dict[str, tuple[int, int, int]]) -> Iterator[Item]:
        nobody, device = os.geteuid(), directory.stat().st_dev
        for entry in sorted(os.scandir(directory), key=lambda entry: entry.name):
            path = prefix + entry.name
            st = entry.stat(follow_symlinks=False)
            mode, uid, gid = stat.S_IMODE(st.st_mode), st.st_uid, st.st_gid
            kind = FILE
            if stat.S_ISDIR(st.st_mode):
                kind = DIRECTORY
            elif stat.S_ISLNK(st.st_mode):
                kind, mode = LINK, 0o777
            elif not stat.S_ISREG(st.st_mode):
                raise ConfigError(
                    f"overlay {self.name}: {path} is neither file, directory nor symbolic link",
                    hint="make device nodes and pipes on the node, for example with systemd-tmpfiles",
                )
            if self.distribution:
                # A package or a checkout keeps neither owners nor modes, but for the executable bit.
                default = 0o755 if kind == DIRECTORY or mode & 0o100 else 0o644
                mode, uid, gid = permissions.get(path, (default if kind != LINK else mode, 0, 0))
            elif nobody:
                uid, gid = (0 if uid == nobody else uid), (0 if gid == os.getegid() else gid)
            target = os.readlink(entry.path) if kind == LINK else ""  # noqa: PTH115 - as written
            aliased = kind == FILE and (st.st_nlink > 1 or st.st_dev != device)
            yield Item(path, kind, mode, uid, gid, Path(entry.path), Signature.of(st), target, aliased)
            if kind == DIRECTORY:
                yield from self._walk(Path(entry.path), path + "/", permissions)

    def permissions(self) -> dict[str, tuple[int, int, int]]:
        """The `permissions` file of a distribution overlay: path -> mode, uid, gid."""
        file = self.path / PERMISSIONS
        if not self.distribution or not file.is_file() or self.rootfs == self.path:
            return {}
        found: dict[str, tuple[int, int, int]] = {}
        for number, line in enumerate(file.read_text().splitlines(), 1):
            words = line.split("#")[0].split()
            if not words:
                continue
            try:
                mode, path = int(words[0], 8), words[-1].strip("/")
                owner = words[1].split(":") if len(words) == 3 else ["0", "0"]
                found[path] = (mode, int(owner[0]), int(owner[1]))
            except (ValueError, IndexError) as error:
                raise ConfigError(f"{file}, line {number}: not MODE [UID:GID] PATH: {line.strip()}") from error
        return found


def clean(relative: str) -> str:
    """A path below rootfs without leading slash; UsageError for one that leaves it."""
    name = os.path.normpath(relative.strip("/") or ".")
    if name == ".." or name.startswith("../") or "\0" in name:
        raise UsageError(f"{relative}: the path leaves the overlay")
    return name


def check_name(name: str) -> str:
    if not NAME.fullmatch(name) or name in (".", ".."):
        raise UsageError(
            f"{name!r} is not a name for an overlay", hint="letters, digits, dot, dash, underscore and colon"
        )
    return name


def find(paths: Paths, name: str) -> Overlay:
    """The overlay of that name: site first, then distribution (also by its name in Warewulf)."""
    check_name(name)
    for directory in paths.overlay_search:
        path = directory / name
        if directory == paths.warewulf_overlays and name in paths.overlays_aside:
            continue
        if path.is_dir() and directory != paths.distribution_overlays:
            return Overlay(name, path, directory == paths.site_overlays, distribution=False)
    if (shipped := distribution(paths, name)) is not None:
        return shipped
    raise NotFoundError(f"no overlay {name}", hint=f"wwfast overlay list; or: wwfast overlay create {name}")


def distribution(paths: Paths, name: str) -> Overlay | None:
    """The shipped overlay of that name, shadowed or not."""
    path = paths.distribution_overlays / ALIASES.get(check_name(name), name)
    return Overlay(name, path, site=False, distribution=True) if path.is_dir() else None


def names(paths: Paths) -> list[str]:
    """Distribution overlays, then the others, each group sorted."""
    found: list[str] = []
    for directory in reversed(paths.overlay_search):
        if directory.is_dir():
            aside = paths.overlays_aside if directory == paths.warewulf_overlays else ()
            there = {entry.name for entry in directory.iterdir() if entry.is_dir() and entry.name[0] != "."}
            here = sorted(there.difference(aside))
            found += [name for name in here if name not in found and NAME.fullmatch(name)]
    return found
