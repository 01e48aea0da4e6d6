"""syncuser: the server's users and groups in an image, with the owners of its files changed to match.

The work is done on a copy of the tree, which then takes its place: links are never followed, and an interruption
leaves the image as it was.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from wwfast.config import checks
from wwfast.errors import WwfastError
from wwfast.images.sources.importing import copy_tree
from wwfast.images.store import ImageStore
from wwfast.paths import Paths
from wwfast.system import files, locks, within, work

CAPABILITY = "security.capability"
ID = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class Table:
    """A passwd or group file: its lines by name, the first of each."""

    kind: str  # "passwd" or "group"
    lines: dict[str, str]
    ids: dict[str, int]

    @classmethod
    def read(cls, file: Path, kind: str) -> Table:
        fields = 7 if kind == "passwd" else 4
        lines: dict[str, str] = {}
        ids: dict[str, int] = {}
        try:
            text = file.read_text(errors="surrogateescape")
        except OSError as error:
            raise WwfastError(f"{file} cannot be read: {error.strerror}") from error
        for line in text.splitlines():
            parts = line.split(":")
            name = parts[0]
            if len(parts) != fields or not name or name[0] in "+-" or name in lines:
                continue
            if not ID.fullmatch(parts[2]) or checks.owner(str(number := int(parts[2]))):
                continue
            lines[name] = line
            ids[name] = number
        return cls(kind, lines, ids)

    def text(self) -> str:
        return "".join(f"{line}\n" for line in self.lines.values())


@dataclass(frozen=True, slots=True)
class Change:
    """One path of the image whose owner or group changes (-1: stays)."""

    path: str
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What a sync would do: ids that change by name, files to chown, the new tables."""

    uids: dict[str, tuple[int, int]]
    gids: dict[str, tuple[int, int]]
    changes: list[Change]
    passwd: Table
    group: Table
    needed: bool


def plan(paths: Paths, name: str) -> Plan:
    """Compare the server's passwd and group with the image's. Raises WwfastError on a conflict; changes nothing."""
    tree = ImageStore(paths).get(name).rootfs
    merged: dict[str, Table] = {}
    moved: dict[str, dict[str, tuple[int, int]]] = {}
    needed = False
    for kind in ("passwd", "group"):
        server = Table.read(paths.root / "etc" / kind, kind)
        file = within.resolve(tree, f"/etc/{kind}")
        if file is None or not file.is_file():
            raise WwfastError(f"image {name} has no /etc/{kind}")
        image = Table.read(file, kind)
        owner = {number: user for user, number in reversed(server.ids.items())}
        for user, number in image.ids.items():
            if user not in server.ids and number in owner:
                raise WwfastError(
                    f"image {name}: {user} has the id {number}, which is {owner[number]} on this server",
                    hint=f"give {user} another id in the image, or create it on the server ({kind})",
                )
        own = {user: line for user, line in image.lines.items() if user not in server.lines}
        ids = server.ids | {user: image.ids[user] for user in own}
        merged[kind] = Table(kind, server.lines | own, ids)
        moved[kind] = {
            user: (number, server.ids[user])
            for user, number in image.ids.items()
            if user in server.ids and server.ids[user] != number
        }
        needed = needed or merged[kind].lines != image.lines
    uids = dict(moved["passwd"].values())
    gids = dict(moved["group"].values())
    changes = list(_changes(tree, uids, gids)) if uids or gids else []
    return Plan(moved["passwd"], moved["group"], changes, merged["passwd"], merged["group"], needed)


def sync(paths: Paths, name: str) -> Plan:
    """Do what plan() says, all of it or nothing."""
    image = ImageStore(paths).get(name)
    image.require_own()
    with locks.locked(paths.run / "images", name, "image syncuser"):
        made = plan(paths, name)
        if not made.needed:
            return made
        with work.directory(paths.chroots) as room:
            new = room / "image"
            copy_tree(image.rootfs.parent, new)
            tree = new / "rootfs"
            for change in made.changes:
                _chown(tree, change)
            for table in (made.passwd, made.group):
                _replace(tree, table)
            files.settle(new)
            files.install(new, paths.chroots / name)
    return made


def _changes(tree: Path, uids: dict[int, int], gids: dict[int, int]) -> Iterator[Change]:
    """Paths whose owner is one that moves. Each file is mapped once, from its old ids."""
    for base, directories, plain, fd in os.fwalk(tree, follow_symlinks=False):
        relative = os.path.relpath(base, tree)
        names = [(name, f"{relative}/{name}".removeprefix("./")) for name in (*directories, *plain)]
        for name, path in names:
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            uid, gid = uids.get(status.st_uid, -1), gids.get(status.st_gid, -1)
            if (uid, gid) != (-1, -1):
                yield Change(path, uid, gid)


def _chown(tree: Path, change: Change) -> None:
    """Change an owner, of a link the link itself; what chown(2) takes away (set-id bits, capabilities) is put back."""
    path = tree / change.path
    before = path.lstat()
    plain = stat.S_ISREG(before.st_mode)
    capability = os.getxattr(path, CAPABILITY) if plain and CAPABILITY in os.listxattr(path) else None
    os.chown(path, change.uid, change.gid, follow_symlinks=False)
    if plain:
        path.chmod(stat.S_IMODE(before.st_mode))
        if capability is not None:
            os.setxattr(path, CAPABILITY, capability)


def _replace(tree: Path, table: Table) -> None:
    file = within.resolve(tree, f"/etc/{table.kind}")
    assert file is not None  # plan() has read it, and the copy is ours alone
    status = file.stat()
    new = file.with_name(f".{file.name}.new")
    new.unlink(missing_ok=True)  # a link of the image by that name must not be followed
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as stream:
        stream.write(table.text().encode(errors="surrogateescape"))
        os.fchown(stream.fileno(), status.st_uid, status.st_gid)
        os.fchmod(stream.fileno(), stat.S_IMODE(status.st_mode))
    new.rename(file)
