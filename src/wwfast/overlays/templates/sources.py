"""Files that templates may read: of the server, and of images. Nothing else, and never out of their roots.

Everything read while a template renders is remembered as a `Dependency`, with the digest of what was seen: that is
what makes a later build notice that the file changed.
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import xxhash

from wwfast.overlays.files import beneath
from wwfast.overlays.files.model import Signature
from wwfast.overlays.templates.data import Seen
from wwfast.overlays.templates.faults import Refused
from wwfast.paths import Paths
from wwfast.system import settled
from wwfast.system.watch import Watch, existing
from wwfast.system.within import trail

# What the shipped overlays need beside /etc/warewulf.
SHARED = ("/etc/passwd", "/etc/group", "/etc/hosts", "/etc/localtime", "/root/.ssh/authorized_keys")
LIMIT = 16 << 20

SERVER, IMAGE, POINTS, KIND = "server", "image", "points", "kind"
ABSENT = b""


class Dependency(NamedTuple):
    """What was looked at: text of a server file, of an image file, where a link points, the kind of an image path."""

    what: str
    image: str
    path: str


@dataclass
class _Seen:
    signature: Signature | None
    text: str | None
    digest: bytes


class Sources:
    """Reads, remembers, and says whether what was read is still the same."""

    def __init__(self, paths: Paths, allowed: tuple[str, ...], rootfs: Callable[[str], Path | None]) -> None:
        self._paths = paths
        self._allowed = frozenset(SHARED) | frozenset(allowed)
        self._rootfs = rootfs
        self._seen: dict[Dependency, _Seen] = {}
        self._checked: set[Dependency] = set()
        self._followed: set[Dependency] = set()
        self._named: set[str] = set()  # directories in which a name was looked up
        self._opened: set[str] = set()  # files that were read, and their directories
        self.news = False  # something was looked at for the first time since `watched`
        self._local = threading.local()

    def forget_checks(self) -> None:
        """From now on every file is looked at once more before it is believed."""
        self._checked = set()
        self._followed = set()

    def allow(self, paths: tuple[str, ...]) -> None:
        self._allowed = frozenset(SHARED) | frozenset(paths)

    @contextlib.contextmanager
    def recording(self, *, apart: bool = False) -> Iterator[Callable[[], Seen]]:
        """Gives a function that tells what was looked at inside; unless `apart` that counts outside, too."""
        outer: dict[Dependency, bytes] | None = getattr(self._local, "found", None)
        found: dict[Dependency, bytes] = {}
        self._local.found = found
        try:
            yield lambda: tuple(sorted(((*what,), digest) for what, digest in found.items()))
        finally:
            self._local.found = outer
            if outer is not None and not apart:
                outer.update(found)

    def record(self, seen: Seen) -> None:
        """Count as looked at what was looked at when a kept output was made."""
        found = getattr(self._local, "found", None)
        if found is not None:
            found.update((Dependency(*what), digest) for what, digest in seen)

    def server_text(self, path: str) -> str | None:
        """A file below /etc/warewulf or one of the allowed ones; None when it does not exist."""
        return self._look(Dependency(SERVER, "", self._server_name(path))).text

    def image_text(self, image: str, path: str) -> str | None:
        return self._look(Dependency(IMAGE, image, os.path.normpath("/" + path))).text

    def points_to(self, path: str) -> str | None:
        """Where a path of the server finally leads; None when it does not exist."""
        return self._look(Dependency(POINTS, "", self._server_name(path))).text

    def kind(self, image: str, path: str, *, record: bool = True) -> str:
        """`link`, `dir`, `file` or `` for a path of an image, its parent resolved inside the image."""
        return self._look(Dependency(KIND, image, path), record=record, follow=record).text or ""

    def same(self, seen: Seen) -> bool:
        """Whether all of it looks so now, and may be looked at. Each is, also after one that differs: what is looked at
        is watched from then on."""
        now = [self._now(Dependency(*what)) for what, _ in seen]
        return now == [was for _, was in seen]

    def _now(self, dependency: Dependency) -> bytes | None:
        try:
            if dependency.what in (SERVER, POINTS):
                self._server_name(dependency.path)
            return self._look(dependency, record=False).digest
        except Refused:
            return None

    def looked(self) -> Seen:
        """What was looked at since it was last forgotten, by whoever; but for what decides nothing in a template."""
        checked = (what for what in self._checked if what.what != KIND)
        return tuple(sorted(((*what,), self._seen[what].digest) for what in checked))

    def watch(self, watch: Watch) -> bool:
        """Watch whatever was looked at, there or not, on all its way; True when something was not watched yet."""
        names = watch.add({existing(Path(place)) for place in self._named}, contents=False)
        opened = watch.add(self._opened)
        self.news = False
        return opened or names

    def _server_name(self, path: str) -> str:
        name = os.path.normpath(path if path.startswith("/") else f"/etc/warewulf/{path}")
        if name.startswith("/etc/warewulf/") or name in self._allowed:
            return name
        raise Refused(
            "templates may not read {}: it is neither below /etc/warewulf nor listed",
            path,
            hint="allow it by its full path in warewulf.conf: wwfast: {include: [PATH]}",
        )

    def _place(self, dependency: Dependency) -> tuple[Path | None, str]:
        if dependency.what in (IMAGE, KIND):
            return self._rootfs(dependency.image), dependency.path.lstrip("/")
        if dependency.path.startswith("/etc/warewulf/"):
            return self._paths.etc, dependency.path.removeprefix("/etc/warewulf/")
        return self._paths.root, dependency.path.lstrip("/")

    def _look(self, dependency: Dependency, *, record: bool = True, follow: bool = True) -> _Seen:
        if follow and dependency not in self._followed:  # before it is read, so that nothing after is missed
            self._followed.add(dependency)
            self._visit(self._named, self._trail(dependency))
        seen = self._seen.get(dependency)
        if seen is None or dependency not in self._checked:
            seen = self._read(dependency, seen)
            self._seen[dependency] = seen
            self._checked.add(dependency)
        if record and (found := getattr(self._local, "found", None)) is not None:
            found[dependency] = seen.digest
        return seen

    def _trail(self, dependency: Dependency) -> Iterable[str]:
        """The directories in which a name decides what is seen."""
        root, relative = self._place(dependency)
        if dependency.what in (IMAGE, KIND):  # an image may come, or be replaced by another one
            above = (str(self._paths.chroots), str(self._paths.warewulf_chroots))
            inside = () if root is None else (str(root.parent), *trail(root, relative))
            return (*above, *inside)
        assert root is not None
        if root.is_relative_to(self._paths.root):  # /etc/warewulf may be a link itself
            return trail(self._paths.root, str(root.relative_to(self._paths.root) / relative))
        return trail(root, relative)

    def _visit(self, places: set[str], found: Iterable[str]) -> None:
        new = set(found) - places
        if new:
            places |= new
            self.news = True

    def _read(self, dependency: Dependency, before: _Seen | None) -> _Seen:
        root, relative = self._place(dependency)
        if root is None or not relative:
            return _Seen(None, None, ABSENT)
        try:
            if dependency.what == POINTS:
                text = beneath.real_path(root, relative)
                return _Seen(None, text, _digest(text))
            if dependency.what == KIND:
                return _kind(root, relative)
            return self._text(root, relative, before, in_root=root != self._paths.etc)
        except (FileNotFoundError, NotADirectoryError):
            return _Seen(None, None, ABSENT)
        except OSError as error:
            where = " of an image" if dependency.image else ""
            raise Refused(
                f"cannot read {{}}{where} for a template: {error.strerror}",
                dependency.path,
                hint="a link below /etc/warewulf must stay below it" if error.errno == 18 else None,
            ) from error

    def _text(self, root: Path, relative: str, before: _Seen | None, *, in_root: bool) -> _Seen:
        end = time.monotonic() + settled.UNSETTLED
        while True:
            seen = self._text_now(root, relative, before, in_root=in_root)
            if seen is None:
                if time.monotonic() > end:
                    raise Refused(f"{{}}: {settled.BUSY}", f"/{relative}")
                time.sleep(settled.SETTLED)
            elif seen is before or seen.signature is None or not settled.changing(seen.signature.mtime / 1e9, end):
                return seen

    def _text_now(self, root: Path, relative: str, before: _Seen | None, *, in_root: bool) -> _Seen | None:
        """None while it is being written."""
        fd = beneath.open_beneath(root, relative, os.O_RDONLY | os.O_NONBLOCK, in_root=in_root)
        st = os.fstat(fd)
        if not stat.S_ISREG(st.st_mode):
            os.close(fd)
            return _Seen(None, None, ABSENT)
        with open(fd, "rb") as file:  # noqa: PTH123 - a descriptor
            opened = os.readlink(f"/proc/self/fd/{fd}")  # noqa: PTH115
            self._visit(self._opened, [opened, os.path.dirname(opened)])  # noqa: PTH120
            signature = Signature.of(st)
            if before is not None and before.signature == signature:
                return before
            if settled.being_written(fd):
                return None
            if st.st_size > LIMIT:
                raise Refused(f"{{}} is too large for a template ({st.st_size} bytes)", f"/{relative}")
            data = file.read()
            if Signature.of(os.fstat(fd)) != signature:
                return None
        text = data.decode("utf-8", "surrogateescape")
        return _Seen(signature, text, xxhash.xxh3_128_digest(data))


def _kind(root: Path, relative: str) -> _Seen:
    fd = beneath.open_beneath(root, relative, os.O_PATH | os.O_NOFOLLOW, in_root=True)
    try:
        mode = os.fstat(fd).st_mode
    finally:
        os.close(fd)
    text = "link" if stat.S_ISLNK(mode) else "dir" if stat.S_ISDIR(mode) else "file"
    return _Seen(None, text, text.encode())


def _digest(text: str) -> bytes:
    return xxhash.xxh3_128_digest(text.encode("utf-8", "surrogateescape"))
