"""Exclude rules of an image, in Warewulf's grammar.

One shell glob per line against the whole path relative to the root (`*` does not cross `/`); slashes at both ends
do not count; a matching directory goes with all that is below it. No comments, no negation; a pattern that is not
well formed matches nothing. `/boot/` leaves out boot itself, `boot/*` keeps it empty.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

FILE = "etc/warewulf/excludes"
# Forms of other programs' lists, and what to write instead.
FOREIGN = (
    (re.compile(r"^\.{1,2}/"), "paths begin at the root of the image: leave out the ./"),
    (re.compile(r"\s#"), "a rule is the whole line: put the comment into a line of its own, where it matches nothing"),
    (re.compile(r"\{.*,.*\}"), "braces are not expanded: write one rule for each"),
    (re.compile(r"\*\*"), "a star does not cross a slash: name the directory, all below it goes with it"),
)


def well_formed(pattern: str) -> bool:
    """True when every bracket is closed and nothing is escaped at the very end."""
    position = 0
    while position < len(pattern):
        if pattern[position] == "\\":
            position += 1
            if position == len(pattern):
                return False
        elif pattern[position] == "[":
            end = position + 2 if pattern[position + 1 : position + 2] in ("^", "]") else position + 1
            while end < len(pattern) and pattern[end] != "]":
                end += 2 if pattern[end] == "\\" else 1
            if end >= len(pattern) or end == position + 1:
                return False
            position = end
        position += 1
    return True


def compile(lines: Iterable[str]) -> tuple[list[bytes], list[str]]:
    """Patterns for the walk, and those that are not well formed.

    The walk matches with fnmatch(3), where `[!a]` negates; in this grammar only `[^a]` does.
    """
    good, bad = [], []
    for line in lines:
        pattern = line.strip().strip("/")
        if not pattern:
            continue
        if well_formed(pattern):
            good.append(os.fsencode(pattern.replace("[!", "[\\!")))
        else:
            bad.append(pattern)
    return good, bad


def idle(own: int, patterns: Sequence[bytes], matched_nothing: Collection[bytes]) -> list[tuple[str, str]]:
    """(rule, reason or "") of the tree's `own` first patterns that matched nothing, but for lines meant as comments.

    Admins who come from xCAT's lists or rsync write rules that mean something else here.
    """
    found = []
    for pattern in patterns[:own]:
        if pattern in matched_nothing and not pattern.startswith(b"#"):
            rule = os.fsdecode(pattern.replace(b"[\\!", b"[!"))
            reasons = (why for shape, why in FOREIGN if shape.search(rule))
            found.append((rule, next(reasons, "")))
    return found


def read(tree: Path) -> list[str]:
    """The lines of the image's own rule file; a symbolic link on the way is not followed out of the image."""
    directory = os.open(tree, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        *parents, name = FILE.split("/")
        for parent in parents:
            inner = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
            os.close(directory)
            directory = inner
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        if error.errno == errno.ELOOP:
            return []
        raise
    finally:
        os.close(directory)
    with os.fdopen(descriptor, encoding="utf-8", errors="surrogateescape") as file:
        return file.read().splitlines()
