"""Things of the server shown inside an image for one run: where each goes, and taking away what was made for it.

No path of the image is used before it is resolved inside the image: a link that leads nowhere, or out of it, must not
let an image write the server's files.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from wwfast.errors import UsageError, WwfastError
from wwfast.images.inside import mountpoints
from wwfast.system import within

FRESH = ("dev", "run")  # new file systems in every run: a place below them is made when they are there
HIDDEN = ("proc", "sys")


@dataclass(frozen=True, slots=True)
class Bind:
    """Something of the server made visible at `dest` of the image, or copied there for the time of the run."""

    source: Path
    dest: str
    readonly: bool = False
    copy: bool = False

    @classmethod
    def parse(cls, text: str) -> Bind:
        """`source[:dest[:ro|copy]]`."""
        source, _, rest = text.partition(":")
        dest, _, how = rest.partition(":")
        if not source.startswith("/") or how not in ("", "ro", "copy"):
            raise UsageError(f"--bind {text} is not understood", hint="--bind /SOURCE[:/DEST[:ro|copy]]")
        return cls(Path(source), dest or source, how == "ro", how == "copy")


@dataclass(frozen=True, slots=True)
class Mount:
    """A bind to be mounted at `path`, relative to the root of the image and free of links."""

    source: Path
    path: str
    readonly: bool

    @property
    def fresh(self) -> bool:
        """Below a file system that the run brings: its place is made there."""
        return self.path.partition("/")[0] in FRESH


class Places:
    """Makes the places for binds in a tree; undo() takes away those the command left alone."""

    def __init__(self, name: str, rootfs: Path, *, writable: bool) -> None:
        self._name = name
        self._rootfs = rootfs
        self._writable = writable
        self._undo: list[Callable[[], None]] = []

    def make(self, binds: Sequence[Bind]) -> list[Mount]:
        """What is to be mounted. Raises WwfastError for a source that does not exist or cannot be copied."""
        for bind in binds:
            if not bind.source.exists():
                raise WwfastError(f"{bind.source} does not exist and cannot be bound into image {self._name}")
            if bind.copy and not bind.source.is_file():
                raise WwfastError(f"{bind.source} is no file, and only files are copied", hint="bind it without :copy")
        return [mount for bind in binds if (mount := self._make(bind)) is not None]

    def undo(self) -> None:
        for step in reversed(self._undo):
            step()
        if self._undo:
            mountpoints.done(self._rootfs)

    def _make(self, bind: Bind) -> Mount | None:
        there = within.resolve(self._rootfs, bind.dest, absent=True)
        path = str(there.relative_to(self._rootfs)) if there is not None else "."
        top = path.partition("/")[0]
        if there is None or top in (".", *HIDDEN):
            self._leave_out(bind)
            return None
        if top in FRESH:
            return Mount(bind.source.resolve(), path, bind.readonly or bind.copy)
        if not os.path.lexists(there):
            if not self._writable or not there.parent.is_dir():
                self._leave_out(bind)
                return None
            self._fill(bind, there, path)
        return None if bind.copy else Mount(bind.source.resolve(), path, bind.readonly)

    def _leave_out(self, bind: Bind) -> None:
        print(f"warning: {bind.dest} is not in image {self._name}: {bind.source} is left out", file=sys.stderr)

    def _fill(self, bind: Bind, there: Path, path: str) -> None:
        """Make the mount point or the copy at `there`, where nothing is."""
        before = there.parent.stat()
        if bind.copy:
            # Beside the tree until it is whole: nodes never get half of it, however we end.
            aside = mountpoints.aside(self._rootfs)
            try:
                shutil.copy2(bind.source, aside)
            except OSError as error:
                aside.unlink(missing_ok=True)
                raise WwfastError(
                    f"{bind.source} cannot be copied into image {self._name}: {error.strerror}"
                ) from error
            mountpoints.note(self._rootfs, mountpoints.Place(path, mountpoints.fingerprint(aside)))
            aside.rename(there)
        else:
            mountpoints.note(self._rootfs, mountpoints.Place(path))
            if bind.source.is_dir():
                there.mkdir()
            else:
                os.close(os.open(there, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644))
        made = mountpoints.fingerprint(there)
        after = there.parent.stat()
        self._undo.append(lambda: _take_away(there, made, before, after))


def make_fresh(root: Path, mount: Mount) -> None:
    """The place of a mount below a file system that is new in this run."""
    there = root / mount.path
    there.parent.mkdir(parents=True, exist_ok=True)
    if mount.source.is_dir():
        there.mkdir(exist_ok=True)
    elif not os.path.lexists(there):
        there.touch()


def _take_away(there: Path, made: str, before: os.stat_result, after: os.stat_result) -> None:
    """Remove what we made if it is as we made it; a directory the command left alone looks as before, so that the image
    counts as unchanged."""
    try:
        if mountpoints.fingerprint(there) != made:
            return
        untouched = there.parent.stat().st_mtime_ns == after.st_mtime_ns
        mountpoints.remove(there)
        if untouched:
            os.utime(there.parent, ns=(before.st_atime_ns, before.st_mtime_ns))
    except OSError:
        pass  # the command removed or filled it: then it is the image's
