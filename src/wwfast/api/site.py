"""What a Warewulf 4 left on a server: its two files said as since 4.6, where its things are, what of them is not whole.

DIR is the root of that server's files. Nothing is written, and nothing wrong ends the reading: it is told. Where DIR is
another server's root, its links lead to nothing of this one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from wwfast.api import upgrading
from wwfast.config import former as old_conf
from wwfast.config.settings import Settings, parse
from wwfast.errors import ConfigError, NotFoundError, WwfastError
from wwfast.images import names
from wwfast.nodes.edit.store import Draft
from wwfast.nodes.former import DEFAULTS, REPLACED, Upgrade
from wwfast.nodes.registry import Snapshot
from wwfast.nodes.text.source import NODES, PROFILES, Source
from wwfast.overlays.files import model
from wwfast.paths import Paths
from wwfast.system import files, within

#: Overlays that the packages of Warewulf before 4.6 put among those of the site.
PACKAGED = (*REPLACED, "host", "debug")
#: Programs whose place the server takes: units to look for, by the section of warewulf.conf that names one. dnsmasq is
#: none of them unless it is named there: it may be there for names alone.
SERVICES = {
    "warewulf": ("warewulfd.service",),
    "dhcp": ("dhcpd.service", "isc-dhcp-server.service", "kea-dhcp4-server.service"),
    "tftp": ("tftp.socket", "tftp.service", "tftpd-hpa.service", "atftpd.service"),
}


class Finding(NamedTuple):
    """Something to know or to do: what, why, the command, and the one that takes that back."""

    what: str
    why: str = ""
    fix: str = ""
    undo: str = ""


@dataclass(slots=True)
class Text:
    """One of the two files: as it is, and as it is to be; `former`: it is of a Warewulf before 4.6."""

    path: Path
    before: bytes = b""
    after: bytes = b""
    told: list[str] = field(default_factory=list)
    former: bool = False


@dataclass(slots=True)
class Site:
    """`faults` keep everything from being taken over; without them there are settings, paths and a snapshot."""

    root: Path
    conf: Text
    nodes: Text
    paths: Paths
    settings: Settings
    snapshot: Snapshot
    edit: Callable[[Draft], None]
    foreign: bool
    faults: list[Finding] = field(default_factory=list)

    @property
    def former(self) -> bool:
        """Whether one of its files is of a Warewulf before 4.6."""
        return self.conf.former or self.nodes.former


def read(given: Paths, kept: Callable[[str], bool], *, foreign: bool = False) -> Site:
    """The site whose files are below `given.root`, the root of another server if `foreign`. `kept`: whether a kernel is
    kept apart under that name. Raises NotFoundError where there is no Warewulf.
    """
    root = given.root if foreign else None
    conf, faults = Text(given.conf), []
    tree: dict[str, Any] = {}
    settings = Settings(locations=given)
    try:
        conf.before = conf.after = content(conf.path, root)
        tree = upgrading.conf_tree(conf.before, str(conf.path))
        conf.after, conf.told = upgrading.conf(conf.before, str(conf.path))
        conf.former = conf.after != conf.before
        settings = parse(conf.after, given)
    except WwfastError as error:
        faults.append(Finding(str(conf.path), error.message, error.hint or ""))
    nodes = Text(settings.locations.nodes_conf)
    usual = {key: value for key, value in DEFAULTS.items() if key != "resources"}
    run = Upgrade(True, True, old_conf.mounts(tree), kept, usual)
    source, result = Source.parse(b"", str(nodes.path)), Source.parse(b"", str(nodes.path))
    try:
        nodes.before = nodes.after = content(nodes.path, root)
        source = result = Source.parse(nodes.before, str(nodes.path))
        nodes.former = is_former(source, run)
        run = run if nodes.former else Upgrade(kept=kept, mounts=run.mounts)
        draft = Draft(source)
        upgrading.edit(run, draft)
        result = draft.result()
        nodes.after, nodes.told = result.data, list(run.told)
    except WwfastError as error:
        faults.append(Finding(str(nodes.path), error.message, error.hint or ""))
    if not faults and not (conf.before or nodes.before):
        raise NotFoundError(
            f"there is no Warewulf below {given.root}: neither {conf.path} nor {nodes.path}",
            hint="--from names the root of its files",
        )
    return Site(
        *(given.root, conf, nodes, settings.locations, settings, Snapshot(result)),
        *(lambda draft: upgrading.edit(run, draft), foreign, faults),
    )


def is_former(source: Source, run: Upgrade) -> bool:
    """Whether nodes.conf is of a Warewulf before 4.6: it has something that is said otherwise now."""
    plain = Upgrade(kept=run.kept)
    return plain.entries(source.trees) != {section: dict(source.trees[section]) for section in (PROFILES, NODES)}


def content(path: Path, root: Path | None = None) -> bytes:
    """A file of the site; nothing where there is none. Links lead nowhere out of `root`, if given.

    Raises ConfigError for what cannot be read.
    """
    real = within.resolve(root, str(path.relative_to(root)), absent=True) if root is not None else path
    try:
        if real is None:
            raise ConfigError(f"{path}: a part of its path is a file, or links lead to each other there")
        return files.read(real)
    except FileNotFoundError:
        if path.is_symlink():
            raise ConfigError(f"{path} is a link that leads nowhere: {path.readlink()}") from None
        return b""
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error


def leads_out(site: Site, place: Path) -> str:
    """Said of a directory of another server's root that is behind a link to one of this server's, or nothing."""
    if not site.foreign:
        return ""
    inside = within.resolve(site.root, str(place.relative_to(site.root)))
    if inside is not None and os.path.realpath(inside) == os.path.realpath(place):
        return ""
    return f"{place} is behind a link that leads out of {site.root}"


def folders(place: Path) -> list[str]:
    """Names in a directory that are not hidden, links that lead nowhere among them."""
    try:
        return sorted(name for name in os.listdir(place) if not name.startswith("."))  # noqa: PTH208
    except OSError:
        return []


def images(site: Site) -> tuple[list[str], list[Finding]]:
    """Names of those that are whole, and what is wrong with the others."""
    whole, wrong = [], []
    for name in folders(site.paths.warewulf_chroots):
        place = site.paths.warewulf_chroots / name
        if why := unusable(place) or leads_out(site, place / "rootfs"):
            wrong.append(Finding(f"image {name}", why, f"import it again, or remove {place}"))
            continue
        whole.append(name)
        if (place / "run").exists():
            why = f"{place}/run is there: `image exec` of Warewulf is at work in it, or was killed"
            wrong.append(Finding(f"image {name}", why, f"look whether something is mounted below {place}"))
    return whole, wrong


def unusable(place: Path) -> str:
    """Why a directory among the images is none, or nothing."""
    if not place.exists():
        return f"{place} is a link that leads nowhere: {place.readlink()}"
    if not place.is_dir():
        return f"{place} is a file"
    if not names.NAME.fullmatch(place.name):
        return f"its name cannot be one here: {place.name!r}"
    rootfs = place / "rootfs"
    if rootfs.is_symlink() and not rootfs.exists():
        return f"{rootfs} is a link that leads nowhere: {rootfs.readlink()}"
    if not rootfs.is_dir():
        return "it has no rootfs: an import was cut short"
    if within.resolve(rootfs, "/bin/sh") is None:
        return "it has no /bin/sh inside: an import was cut short, or it is no root file system"
    return ""


def no_overlay(site: Site, place: Path) -> str:
    """Why what stands among the overlays is none, or nothing."""
    if not place.exists():
        return f"{place} is a link that leads nowhere: {place.readlink()}"
    if not place.is_dir():
        return f"{place} is a file"
    if not model.NAME.fullmatch(place.name):
        return f"its name cannot be one here: {place.name!r}"
    return leads_out(site, place / "rootfs" if (place / "rootfs").exists() else place)


def half_built(site: Site, image: str) -> str:
    """What is wrong with the build that Warewulf itself serves of an image, or nothing."""
    place = provision(site) / "images"
    plain, packed = place / f"{image}.img", place / f"{image}.img.gz"
    if not place.is_dir() or not plain.exists():
        return ""  # never built, or only for one of the two forms
    if not plain.stat().st_size or (packed.exists() and not packed.stat().st_size):
        return f"what Warewulf built of it in {place} is empty"
    if not packed.exists():
        return f"what Warewulf built of it in {place} is half: there is no {packed.name}"
    return ""


def provision(site: Site) -> Path:
    """Where Warewulf puts what it builds."""
    return site.root / site.settings.paths.wwprovisiondir.lstrip("/")


def packaged(site: Site) -> list[str]:
    """Overlays among the site's that came with a Warewulf before 4.6, which is what the nodes were told to have.

    Where a newer one is installed, which has its own elsewhere, one of these names is what the site made of it.
    """
    newer = site.root / site.settings.paths.datadir.lstrip("/") / "warewulf/overlays/wwinit"
    if not site.former or newer.is_dir():
        return []
    return [name for name in PACKAGED if (site.paths.warewulf_overlays / name).is_dir()]


def only_there(site: Site, name: str) -> list[str]:
    """Files of an overlay of Warewulf's packages that none of those brings that take its place: the site's own."""
    theirs = model.Overlay(name, site.paths.warewulf_overlays / name, site=False, distribution=False)
    ours = [model.distribution(site.paths, each) for each in REPLACED.get(name, [name])]
    brought = {item.output for each in ours if each is not None for item in each.items()}
    return [item.output for item in theirs.items() if item.kind != model.DIRECTORY and item.output not in brought]


def units(site: Site) -> Iterator[tuple[str, str]]:
    """Enabled units of programs whose place the server takes, and the section of warewulf.conf they are of."""
    own = site.settings.warewulf.systemd_name, site.settings.dhcp.systemd_name, site.settings.tftp.systemd_name
    serves = True, site.settings.own_dhcp, site.settings.tftp.enabled
    for named, needed, (section, usual) in zip(own, serves, SERVICES.items(), strict=True):
        for unit in dict.fromkeys([*([f"{named}.service"] if named else []), *usual]) if needed else ():
            wants = (site.root / "etc/systemd/system").glob("*.wants")
            if unit != "wwfast.service" and any(os.path.lexists(place / unit) for place in wants):  # links below a root
                yield unit, section
