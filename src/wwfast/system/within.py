"""Paths inside an image, seen as the node will see them: `/` is the image, links never lead out of it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

LINKS = 40  # as the kernel: more links than this in one path is a loop


def resolve(root: Path, path: str, *, absent: bool = False) -> Path | None:
    """The real file behind `path` of the image, every link followed inside `root` as chroot would do.

    None when something on the way does not exist, is not a directory, or is a loop of links. With `absent` what does
    not exist is where it would be made.
    """
    todo = [part for part in reversed(path.split("/")) if part not in ("", ".")]
    at: list[str] = []
    links = 0
    while todo:
        part = todo.pop()
        if part == "..":
            del at[-1:]
            continue
        here = os.path.join(root, *at, part)  # noqa: PTH118 - hot: Path objects would double the cost
        try:
            mode = os.lstat(here).st_mode
            if not stat.S_ISLNK(mode):
                if todo and not stat.S_ISDIR(mode):
                    return None
                at.append(part)
                continue
            links += 1
            if links > LINKS:
                return None
            target = os.readlink(here)  # noqa: PTH115
        except FileNotFoundError:
            if not absent:
                return None
            at.append(part)
            continue
        except OSError:
            return None
        if target.startswith("/"):
            at.clear()
        todo.extend(piece for piece in reversed(target.split("/")) if piece not in ("", "."))
    return root.joinpath(*at)


def is_file(root: Path, path: str) -> bool:
    real = resolve(root, path)
    return real is not None and real.is_file()


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
