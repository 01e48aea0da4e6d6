"""What a head that follows keeps of the other: files by content, each verified, and trees of links to them by revision.

    mirror/objects/SHA256-MTIME       a file, once it is whole and right; with .part behind it, as far as it came
    mirror/revisions/REVISION/        links to these, as the other head has them, and manifest.json
    mirror/current -> revisions/...   what is served; flipped by rename
    mirror/overlays/                  parts of overlays, as in any cache of them (overlays.making.store)

A download that broke goes on where it ended, also after a crash: so what has arrived stands under a name of its own,
and not in a directory of `system.work`, which goes with its maker. For one thread.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from wwfast.errors import WwfastError
from wwfast.heads import manifest
from wwfast.heads.manifest import Entry, Manifest
from wwfast.system import files, work
from wwfast.system.folders import folder, naming

KEPT = "manifest.json"
SPARE = 16 << 20  # bytes that are left on a disk
FOLDER, FILE = 0o700, 0o600


class Mirror:
    """Below `place`, which is nobody else's."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.current = place / "current"
        self._objects, self._revisions = place / "objects", place / "revisions"

    def manifest(self) -> Manifest | None:
        """Of what is served; None where there is nothing."""
        try:
            return manifest.read((self.current / KEPT).read_bytes(), str(self.current))
        except (OSError, WwfastError):
            return None

    # -- files ---------------------------------------------------------------------------------------------------

    def lacking(self, wanted: Manifest) -> list[Entry]:
        """What has to be fetched, each content once. What somebody has changed here is forgotten."""
        found: dict[Path, Entry] = {}
        for entry in wanted.entries:
            path = self.path(entry)
            if path not in found and not self._sound(path, entry):
                path.unlink(missing_ok=True)
                found[path] = entry
        return list(found.values())

    def path(self, entry: Entry) -> Path:
        return self._objects / f"{entry.sha256}-{entry.mtime}"

    def begun(self, entry: Entry) -> int:
        """Bytes of it that have arrived."""
        with suppress(OSError):
            return self._part(entry).stat().st_size
        return 0

    def require_room(self, wanted: Iterable[Entry]) -> None:
        """Raises WwfastError before a disk is full, not when it is."""
        folder(self._objects)
        needed = sum(max(0, entry.size - self.begun(entry)) for entry in wanted)
        free = os.statvfs(self._objects)
        room = free.f_bavail * free.f_frsize - SPARE
        if needed > room:
            raise WwfastError(
                f"{self.place} has room for {max(0, room) >> 20} MiB more, and {-(-needed >> 20)} MiB are to come",
                hint="make room on that file system; what was mirrored before is served meanwhile",
            )

    def take(self, entry: Entry, pieces: Iterable[bytes]) -> None:
        """What arrives of a file, from begun() on. Raises WwfastError where all of it came and is not what was named,
        OSError."""
        part = self._part(entry)
        handle = os.open(part, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, FILE)
        try:
            with naming(part):
                for data in pieces:
                    files.fill(handle, data)
                if os.fstat(handle).st_size < entry.size:
                    return
                os.fsync(handle)
        finally:
            os.close(handle)
        if self.begun(entry) != entry.size or _sha256(part) != entry.sha256:
            part.unlink()
            raise WwfastError(f"{entry.path} is not what the other head said it is; it is fetched anew")
        os.utime(part, ns=(entry.mtime, entry.mtime))
        part.rename(self.path(entry))

    def _part(self, entry: Entry) -> Path:
        return self.path(entry).with_name(f"{self.path(entry).name}.part")

    @staticmethod
    def _sound(path: Path, entry: Entry) -> bool:
        """Whether it is as it was verified: a change would have set its time."""
        try:
            found = path.lstat()
        except OSError:
            return False
        return (found.st_size, found.st_mtime_ns) == (entry.size, entry.mtime) and not path.is_symlink()

    # -- revisions -----------------------------------------------------------------------------------------------

    def holds(self, wanted: Manifest) -> bool:
        """Whether this is served, and as it was mirrored."""
        if not self.current.is_symlink() or self.current.readlink() != Path("revisions", wanted.revision):
            return False
        try:
            return all(
                self._sound(self.path(entry), entry) and (self.current / entry.path).samefile(self.path(entry))
                for entry in wanted.entries
            ) and all((self.current / path).readlink() == Path(said) for path, said in wanted.links.items())
        except OSError:
            return False

    def switch(self, wanted: Manifest, text: bytes) -> None:
        """Serve this, whose files are all there: whole, or what was before. Raises OSError."""
        place = folder(self._revisions) / wanted.revision
        with work.directory(self._revisions) as room:
            tree = room / "tree"
            self._lay(tree, wanted)
            (tree / KEPT).write_bytes(text)
            files.settle(tree)
            files.install(tree, place)  # over one that somebody changed
            link = room / "current"
            link.symlink_to(Path("revisions", wanted.revision))
            link.rename(self.current)
            files.sync(self.place)

    def _lay(self, tree: Path, wanted: Manifest) -> None:
        tree.mkdir(FOLDER)
        for path in wanted.folders:
            folder(tree / path)
        for entry in wanted.entries:
            os.link(self.path(entry), folder((tree / entry.path).parent) / Path(entry.path).name)
        for path, said in wanted.links.items():
            (folder((tree / path).parent) / Path(path).name).symlink_to(said)

    def sweep(self, former: str = "") -> None:
        """Remove what neither the current revision nor `former` needs: boots that began with that one go on."""
        current = self.manifest()
        if current is None:
            return
        for tree in self._revisions.iterdir():
            if tree.name not in (current.revision, former) and not tree.name.startswith(work.PREFIX):
                work.remove(tree)
        for path in self._objects.iterdir():
            if path.lstat().st_nlink == 1:
                path.unlink()


def _sha256(path: Path) -> str:
    with path.open("rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
