"""Paths inside a tree, as whoever lives in it sees them: `/` is the tree, links never lead out of it.

`follow` is the one way links are followed in this program; what is looked at on the way, and how, its callers say:
by names here, by descriptors in `overlays.files.beneath` and while an image is unpacked.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import AnyStr

TEXT = 16 << 20
LINKS = 40  # as the kernel: more links than this in one path is a loop


def follow(
    path: AnyStr, link: Callable[[list[AnyStr], AnyStr, bool], AnyStr | None], *, strict: bool = False
) -> list[AnyStr]:
    """The components of `path` below the root, with links followed as chroot would.

    `link(at, name, more)` tells where the link `name` in the directory `at` leads; None when it is none. `more`: others
    follow, so it has to be a directory. What it raises goes through. With `strict` `..` may not climb above the root,
    which is EXDEV; without, it stays there. A loop is ELOOP.
    """
    slash, here, up = ("/", ".", "..") if isinstance(path, str) else (b"/", b".", b"..")
    todo = [part for part in reversed(path.split(slash)) if part and part != here]
    at: list[AnyStr] = []
    links = 0
    while todo:
        part = todo.pop()
        if part == up:
            if strict and not at:
                raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), path)
            del at[-1:]
            continue
        target = link(at, part, bool(todo))
        if target is None:
            at.append(part)
            continue
        links += 1
        if links > LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        if target.startswith(slash):
            at.clear()
        todo.extend(piece for piece in reversed(target.split(slash)) if piece and piece != here)
    return at


def resolve(root: Path, path: str, *, absent: bool = False) -> Path | None:
    """The real file behind `path` of the tree. None when something on the way does not exist, is not a directory, or is
    a loop of links. With `absent` what does not exist is where it would be made.
    """

    def link(at: list[str], name: str, more: bool) -> str | None:
        here = os.path.join(root, *at, name)  # noqa: PTH118 - hot: Path objects would double the cost
        try:
            mode = os.lstat(here).st_mode
            if stat.S_ISLNK(mode):
                return os.readlink(here)  # noqa: PTH115
        except FileNotFoundError:
            if absent:
                return None
            raise
        if more and not stat.S_ISDIR(mode):
            raise NotADirectoryError
        return None

    try:
        return root.joinpath(*follow(path, link))
    except (OSError, ValueError):  # no name has a NUL
        return None


def trail(root: Path, relative: str) -> list[str]:
    """The directories in which a name is looked up on the way to `relative`.

    It ends where something is missing: what would make a difference is a name in one of these.
    """
    top = str(root).rstrip("/")
    seen: list[str] = []

    def link(at: list[str], name: str, _more: bool) -> str | None:
        here = "/".join([top, *at])
        seen.append(here or "/")
        try:
            return os.readlink(f"{here}/{name}")  # noqa: PTH115 - a string, many times
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return None

    try:
        follow(relative, link)
    except OSError:
        pass
    return seen


def leads_out(path: str) -> bool:
    """Whether a relative path, joined to a directory as text, may be elsewhere than below it. What an image says of its
    own files is joined to directories of this server."""
    return not path or path.startswith("/") or "\0" in path or ".." in path.split("/")


def is_file(root: Path, path: str) -> bool:
    real = resolve(root, path)
    return real is not None and real.is_file()


def text(file: Path) -> str:
    """A list or configuration of the tree, its first 16 MiB: a sparse file of terabytes takes nothing in an image."""
    with file.open("rb") as stream:
        return stream.read(TEXT).decode(errors="surrogateescape")


def matching(root: Path, pattern: str) -> Iterator[str]:
    """Paths of the image (with leading `/`, sorted) that match a shell pattern; `*` stays within one component."""
    found = [""]
    for part in pattern.strip("/").split("/"):
        if not any(sign in part for sign in "*?["):
            found = [f"{path}/{part}" for path in found]
            continue
        longer = []
        for path in found:
            real = resolve(root, path)
            try:
                names = sorted(os.listdir(real)) if real else []  # noqa: PTH208
            except OSError:
                names = []
            hidden = part.startswith(".")
            longer += [f"{path}/{n}" for n in names if fnmatchcase(n, part) and (hidden or not n.startswith("."))]
        found = longer
    return iter(path for path in found if resolve(root, path) is not None)
