"""Every on-disk location. `--root DIR` or WWFAST_ROOT moves all of them.

Rule: wwfast writes only below `state`, `cache` and `run`, and edits the two configuration files when an admin
asks it to. An existing Warewulf's chroots/ and overlays/ are read; its provision/ is never touched.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from wwfast.errors import WwfastError

SHARE = Path(__file__).parent / "share"


@dataclass(frozen=True, slots=True)
class Paths:
    """All locations below one root; `replace()` fields from the `paths:` section of warewulf.conf."""

    root: Path
    conf: Path  # warewulf.conf
    etc: Path  # nodes.conf, ipxe/, keys/, tls/
    state: Path
    cache: Path
    run: Path
    warewulf_chroots: Path  # read only: images of an existing Warewulf
    warewulf_overlays: Path  # read only: site overlays of an existing Warewulf
    warewulf_files: Path  # read only: what /files/ serves
    ipxe_source: Path | None = None  # `paths: ipxesource`; else boot.loader.binaries searches
    overlays_aside: tuple[str, ...] = ()  # of warewulf_overlays, those that are not looked at
    mirror: Path | None = None  # what a server that follows another one has of it, and serves

    @classmethod
    def at(cls, root: str | os.PathLike[str] = "/", conf: str | os.PathLike[str] | None = None) -> Paths:
        base = Path(root)
        etc = base / "etc/warewulf"
        return cls(
            root=base,
            conf=Path(conf) if conf else etc / "warewulf.conf",
            etc=etc,
            state=base / "var/lib/wwfast",
            cache=base / "var/cache/wwfast",
            run=base / "run/wwfast",
            warewulf_chroots=base / "var/lib/warewulf/chroots",
            warewulf_overlays=base / "var/lib/warewulf/overlays",
            warewulf_files=base / "var/lib/warewulf/files",
        )

    @classmethod
    def from_environment(cls, root: str | None = None, conf: str | None = None) -> Paths:
        """Flags first, then WWFAST_ROOT and WAREWULFCONF, then the defaults."""
        return cls.at(root or os.environ.get("WWFAST_ROOT") or "/", conf or os.environ.get("WAREWULFCONF"))

    def with_(self, **changes: Path | None) -> Paths:
        return replace(self, **changes)  # type: ignore[arg-type]

    def followed(self) -> Paths:
        """Those of a server that follows another one: what nodes get is of that one."""
        return replace(self, mirror=self.state / "mirror", warewulf_chroots=self.state / "mirror/none")

    @property
    def following(self) -> Path:
        """Says whom this server follows, if it does."""
        return self.state / "following"

    def as_served(self) -> Paths:
        """Where what is served here is: of another server, where this one follows it."""
        return self.followed() if self.mirror is None and self.following.exists() else self

    def require_edits(self) -> None:
        """Raises WwfastError where what nodes get is another server's."""
        try:
            where = self.following.read_text().strip()
        except FileNotFoundError:
            return
        raise WwfastError(
            f"this server follows {where} and takes no edits: they are made there, and are here seconds later",
            hint=f"log in to {where} and give the same command there; `wwfast follow end` ends the following",
        )

    @property
    def _served(self) -> Path:
        return self.mirror / "current" if self.mirror else self.state

    @property
    def _told(self) -> Path:
        return self.mirror / "current/etc" if self.mirror else self.etc

    @property
    def nodes_conf(self) -> Path:
        return self._told / "nodes.conf"

    @property
    def ipxe_templates(self) -> Path:
        """Those of the site."""
        return self._told / "ipxe"

    @property
    def chroots(self) -> Path:
        """Image trees: <name>/rootfs."""
        return self._served / "chroots"

    @property
    def images(self) -> Path:
        """Built images: <name>/<build>/ and <name>/current."""
        return self._served / "images"

    @property
    def kernels(self) -> Path:
        """Kernels kept apart from images: <name>/."""
        return self._served / "kernels"

    @property
    def site_overlays(self) -> Path:
        return self.state / "overlays"

    @property
    def distribution_overlays(self) -> Path:
        return SHARE / "overlays"

    @property
    def overlay_search(self) -> tuple[Path, ...]:
        """First match wins, a whole overlay at a time."""
        return (self.site_overlays, self.warewulf_overlays, self.distribution_overlays)

    @property
    def frames(self) -> Path:
        """Compressed frames of images, shared by all images (a cache)."""
        return self.cache / "frames"

    @property
    def overlay_cache(self) -> Path:
        """Packs of rendered overlay segments (a cache, 0700)."""
        return (self.mirror or self.cache) / "overlays"

    @property
    def blobs(self) -> Path:
        """SHA-256 of what is served by it (a cache)."""
        return self.cache / "blobs.json"

    @property
    def history(self) -> Path:
        """Former versions of nodes.conf for `wwfast undo` (0700)."""
        return self.state / "history"

    @property
    def database(self) -> Path:
        """What is not configuration: leases and the boot timeline (SQLite, 0600)."""
        return self.state / "wwfast.db"

    @property
    def machines(self) -> Path:
        """What nodes said of their machines when they booted last."""
        return self.state / "machines.json"

    @property
    def own(self) -> tuple[Path, Path, Path]:
        """What is nobody else's (0700): locks, images with their /etc/shadow, leases, frames."""
        return self.run, self.state, self.cache

    def workplaces(self) -> Iterator[Path]:
        """Every directory in which a writer may have something unfinished."""
        yield from (self.etc, self.etc / "keys", Path(os.path.realpath(self.nodes_conf)).parent)
        yield from (self.state, self.history, self.chroots, self.kernels, self.site_overlays, self.images)
        yield from (self.run, self.cache, self.frames, self.overlay_cache, self.cache / "layers", self.cache / "exec")
        try:
            yield from (Path(entry.path) for entry in os.scandir(self.images) if entry.is_dir(follow_symlinks=False))
        except OSError:
            return

    @property
    def handover(self) -> Path:
        """Where a running server gives its listening sockets to its successor."""
        return self.run / "handover"
