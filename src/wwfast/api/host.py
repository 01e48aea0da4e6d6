"""The host overlay on this server: /etc/hosts, /etc/exports and whatever else it holds, written, kept and taken back.

Before the first write of a file its former content is kept (`state`/host), and so is what was written last: a file that
others changed since is left alone, unless all that they added stays (an own line of /etc/hosts above the marker).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from wwfast.config.settings import Settings
from wwfast.errors import NotFoundError, WwfastError
from wwfast.nodes.edit.store import Draft
from wwfast.nodes.registry import Snapshot
from wwfast.nodes.text.source import NODES
from wwfast.paths import Paths
from wwfast.system import files, within, work
from wwfast.system.folders import new_folder

OVERLAY = "host"
#: Of DHCP servers that are the site's own: written only where DHCP is not ours.
FOREIGN = ("etc/dhcp/", "etc/dnsmasq.d/", "etc/kea/")


@dataclass(frozen=True, slots=True)
class HostFile:
    """One file of the overlay as it is to be on this server. `before`: what is there now, None where nothing is."""

    target: Path
    content: bytes
    mode: int
    before: bytes | None

    @property
    def differs(self) -> bool:
        return self.before != self.content


class Host:
    def __init__(self, paths: Paths, settings: Settings, snapshot: Snapshot) -> None:
        self.paths = paths
        self._settings = settings
        self._snapshot = snapshot
        self._kept = paths.state / "host"
        self.left: list[str] = []  # links, devices: what `rendered` met that is no file

    def rendered(self, wanted: Callable[[str], bool]) -> list[HostFile]:
        """The files of the overlay whose path (without a leading slash) is wanted. Raises WwfastError."""
        from wwfast.overlays.files import model
        from wwfast.overlays.files.scan import Overlays
        from wwfast.overlays.making.service import OverlayService

        overlays = Overlays(self.paths, None, ignore_go_templates=self._settings.wwfast.ignore_go_templates)
        snapshot, name = self._with_server()
        found = []
        with closing(OverlayService(self.paths, self._settings, alone=True)) as service:
            for item in overlays.items(OVERLAY):
                skipped = item.output.startswith(FOREIGN) and self._settings.own_dhcp
                if item.kind == model.DIRECTORY or skipped or not wanted(item.output):
                    continue
                if not item.template and item.kind != model.FILE:
                    self.left.append(f"/{item.output}")
                elif not item.template:
                    found.append(self.file(item.path, item.read(), stat.S_IMODE(item.source.stat().st_mode)))
                else:
                    _, outputs = service.render(snapshot, snapshot.nodes[name], OVERLAY, item.path)
                    made = [each for each in outputs if each.kind == model.FILE]
                    found += [self.file(each.path, each.content, item.mode) for each in made]
        return found

    def _with_server(self) -> tuple[Snapshot, str]:
        """The nodes, and one of this server's name for templates that ask whose file it is."""
        name = os.uname().nodename
        if name in self._snapshot.nodes:
            return self._snapshot, name
        draft = Draft(self._snapshot.source)
        draft.put(NODES, name, {"comment": "this server"})
        return Snapshot(draft.result()), name

    def file(self, path: str, content: bytes, mode: int) -> HostFile:
        """A file of this server (no leading slash) beside what is there; links lead nowhere out of the root."""
        target = within.resolve(self.paths.root, path, absent=True)
        if target is None:
            raise WwfastError(f"/{path}: a part of its path is a file, or links lead to each other there")
        return HostFile(target, content, mode, target.read_bytes() if target.exists() else None)

    # --- writing ---------------------------------------------------------------------------------------------

    def lost(self, file: HostFile) -> list[str]:
        """Lines that others wrote into the file since we did, and that would go."""
        kept = [path.read_bytes() for kind in ("written", "next") if (path := self._place(file.target, kind)).exists()]
        if file.before is None or not kept:
            return []
        ours = {line for text in (*kept, file.content) for line in text.splitlines()}
        return [line.decode(errors="replace") for line in file.before.splitlines() if line not in ours]

    def write(self, file: HostFile, *, force: bool = False) -> None:
        """Raises WwfastError where others changed the file."""
        if (lost := self.lost(file)) and not force:
            raise WwfastError(
                f"{file.target} was changed by others since it was written; {len(lost)} of its lines would go, "
                f"the first is: {lost[0][:200]}",
                hint="move what you need above the marker or into the overlay `host`, or --force writes it",
            )
        ours, coming, former = (self._place(file.target, kind) for kind in ("written", "next", "before"))
        work.sweep(self._kept, file.target.parent)
        if not file.differs:
            if coming.exists():  # of a writer that was killed when all but this was done
                coming.rename(ours)
                files.sync(self._kept)
            return
        first = not ours.exists() and not (coming.exists() and coming.read_bytes() == file.before)
        with new_folder(self._kept, 0o700):
            try:
                if first and file.before is not None:
                    files.replace(former, file.before, mode=stat.S_IMODE(file.target.stat().st_mode))
                # Two are kept while the file changes: whenever this ends, the file is one of them, and not others'.
                files.replace(coming, file.content)
                file.target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
                files.replace(file.target, file.content, mode=None if file.before is not None else file.mode)
                files.replace(ours, file.content)
                coming.unlink()
            except BaseException:
                # An fsync may fail after the rename: the file is new then, and what it was must not be lost.
                if file.target.exists() and file.target.read_bytes() == file.content:
                    if coming.exists():
                        coming.rename(ours)
                else:
                    forget(coming, *([former] if first else []))
                raise

    def begun(self, target: Path) -> bool:
        """Whether a writer of the file was killed: to write it again finishes what is kept of it."""
        return self._place(target, "next").exists()

    # --- taking back -----------------------------------------------------------------------------------------

    def written(self) -> list[Path]:
        """The files that were written and not taken back."""
        from urllib.parse import unquote

        kept = {each.stem for kind in ("written", "next") for each in self._kept.glob(f"*.{kind}")}
        return [Path(unquote(name)) for name in sorted(kept)]

    def configured(self) -> list[Path]:
        """As `written`, without wwfast's own files, which `import` brought: an undo of those is asked for by name."""
        conf = Path(os.path.realpath(self.paths.conf))
        return [each for each in self.written() if each != conf and not each.is_relative_to(self.paths.etc)]

    def undo(self, target: Path, *, force: bool = False) -> None:
        """Put back what was there before the first write, or nothing. Raises WwfastError where others changed it."""
        former = self._place(target, "before")
        ours = [path for kind in ("written", "next") if (path := self._place(target, kind)).exists()]
        if not ours:
            raise NotFoundError(f"{target} was not written by us", hint="wwfast configure undo, without names: all")
        there = target.read_bytes() if target.exists() else None
        known = [path.read_bytes() for path in (*ours, former) if path.exists()]
        if there is not None and there not in known and not force:
            raise WwfastError(
                f"{target} was changed by others since it was written", hint="--force puts the former file back"
            )
        if former.exists():
            files.replace(target, former.read_bytes(), mode=stat.S_IMODE(former.stat().st_mode))
        else:
            target.unlink(missing_ok=True)
        forget(*ours, former)

    def _place(self, target: Path, kind: str) -> Path:
        return self._kept / f"{quote(str(target), safe='')}.{kind}"


def forget(*kept: Path) -> None:
    for path in kept:
        path.unlink(missing_ok=True)
