"""What the files of the site ask for and do not get: warewulf.conf, nodes.conf, keys, iPXE binaries."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from wwfast.boot import dracut
from wwfast.boot.loader import binaries
from wwfast.config import checks
from wwfast.config.settings import lacking
from wwfast.doctor.finding import ERROR, WARNING, Fault, Finding, Scene, grouped
from wwfast.doctor.ports import port_holder
from wwfast.errors import ConfigError, WwfastError
from wwfast.net.dhcp.network import NONE, require_range, require_written, unfit
from wwfast.net.dhcp.packet import dotted, number
from wwfast.nodes import former
from wwfast.overlays.files.sshkeys import has_host_keys

# Which images an iPXE binary boots, by DHCP option 93; UEFI of x86-64 says 7 or 9.
OF_PROFILE = re.compile(r"its profile '([^']+)' is unusable")  # nodes.registry
MACHINES = {"00:00": "amd64", "00:07": "amd64", "00:09": "amd64", "00:0B": "arm64"}


def ipxe(scene: Scene) -> Iterator[Finding]:
    """The iPXE binaries of `tftp: ipxe`: an error for machines that images in use are made for. Others may never come,
    and the distributions bring no binary for them."""
    if not scene.settings.tftp.enabled:
        yield from _without_tftp(scene)
        return
    source = scene.paths.ipxe_source
    if source is not None and not source.is_dir():
        why = f"{scene.paths.conf} sets ipxesource to {source}, which is no directory: the system's binaries are used"
        yield Finding(WARNING, "ipxe", why, f"mkdir -p {source} and put them there, or take it out")
    needed = _machines(scene) or {"amd64"}
    found, missing = binaries.find_all(scene.settings.tftp.ipxe, source)
    if not scene.settings.dhcp.enabled:
        told = [replace(it, name=binaries.flat_name(it.arch, scene.settings.tftp.ipxe[it.arch])) for it in found]
        for it, named in zip(told, binaries.apart(told), strict=True):
            if it != named:
                why = f"two iPXE binaries are {it.name} to another DHCP server: those of architecture {it.arch} get"
                fix = f"cp {it.path} to another name, and say that in `tftp: ipxe` for {it.arch}"
                yield Finding(WARNING, "ipxe", f"{why} the other one, not {it.path}", fix)
    for arch, complaint in missing.items():
        if not found or MACHINES.get(arch) in needed:
            yield Finding(ERROR, "ipxe", complaint, binaries.hint(arch))
        elif arch not in MACHINES:
            yield Finding(WARNING, "ipxe", complaint, binaries.hint(arch))


def _without_tftp(scene: Scene) -> Iterator[Finding]:
    """Our DHCP names this server's TFTP to the firmware, whoever is to serve it."""
    if scene.settings.dhcp.enabled and port_holder("udp", 69, scene.proc) is None:
        why = "`tftp: enabled: false`, and no other program serves TFTP here: only UEFI HTTP boot and iPXE in ROM boot"
        yield Finding(WARNING, "ipxe", why, f"set `tftp: enabled: true` in {scene.paths.conf}, or start your own")


def _machines(scene: Scene) -> set[str]:
    """Architectures of the images that nodes have."""
    found = set()
    for name in {node.image_name for node in scene.nodes if node.image_name}:
        try:
            found.add(scene.paper.images.get(name).arch)
        except WwfastError:
            continue  # told of the nodes that have it
    return found & set(MACHINES.values())


def dhcp(scene: Scene) -> Iterator[Finding]:
    """DHCP serves only the network that the admin wrote down, and no server starts without its DHCP."""
    if not scene.settings.dhcp.enabled:
        return
    for rule in (require_written, require_range):
        try:
            rule(scene.settings, scene.paths)
        except ConfigError as error:
            yield Finding(ERROR, "dhcp", f"{error.message}: the server will not start", error.hint or "")


def address(scene: Scene) -> Iterator[Finding]:
    """What all nodes are told of this server has to be an address of a host, in a network that they can be in."""
    settings, fix = scene.settings, f"correct ipaddr, netmask and network in {scene.paths.conf}"
    said, netmask = settings.ipaddr, settings.netmask
    if said in NONE:
        if said or not settings.dhcp.enabled:  # else told by DHCP
            why = f"ipaddr of {scene.paths.conf} is {said or 'not set'}: nodes are not told where this server is"
            yield Finding(ERROR, "ipaddr", why, "ipaddr: ADDRESS/LENGTH of the interface to the nodes")
        return
    if why := unfit(said, netmask):
        yield Finding(ERROR, "ipaddr", f"ipaddr of {scene.paths.conf}, {said}, {why}: no node reaches it", fix)
    elif netmask in checks.MASKS:
        network = dotted(number(said) & number(netmask))
        if settings.network not in ("", network):
            why = f"{scene.paths.conf} says network {settings.network}, and ipaddr and netmask are of {network}"
            yield Finding(WARNING, "ipaddr", f"{why}: that is what nodes are given", fix)
        if checks.MASKS[netmask] == 32:
            why = f"{scene.paths.conf} says netmask {netmask}: a node that has none of its own reaches nobody"
            yield Finding(WARNING, "ipaddr", why, fix)


def keys(scene: Scene) -> list[Finding]:
    """The host keys that the nodes' overlay brings: an image from a container has none of its own."""
    if has_host_keys(scene.paths, scene.settings.ssh.key_types):
        return []
    why = f"no SSH host keys for the nodes in {scene.paths.etc / 'keys'}: sshd does not start"
    return grouped(
        Fault(node.id, WARNING, "keys", why, "wwfast configure ssh")
        for node in scene.nodes
        if "ssh.host_keys" in (*node.system_overlay, *node.runtime_overlay)
    )


def unserved(scene: Scene) -> Iterator[Finding]:
    """What warewulf.conf asks for and does not get: that must not be found out when it is needed."""
    for key, lack in lacking(scene.settings):
        level = ERROR if key == "warewulf: tls" else WARNING  # the one that keeps the server from starting
        yield Finding(level, "settings", f"{scene.paths.conf} sets {key}, but {lack}", "take it out, or go without")


def templates(scene: Scene) -> Iterator[Finding]:
    """GRUB templates of the site: GRUB is not served. Warewulf brings grub.cfg.ww, so that one tells only of a wish to
    boot by GRUB."""
    place = scene.paths.etc / "grub"
    for path in sorted(place.glob("*.ww")):
        if path.name != "grub.cfg.ww" or scene.settings.warewulf.grubboot:
            why = f"{path} has no effect: GRUB is not served, nodes boot by iPXE"
            yield Finding(
                WARNING, "templates", why, f"what it did, as an iPXE script: {scene.paths.etc}/ipxe/NAME.ipxe"
            )


INSTALLED = ("default", "localdisk", "unconfigured")  # scripts that Warewulf brings, and we have, too
TOGETHER = 60.0  # seconds between files of one installation, at most
MENU = ("", "initrd", "initrd_nocompress", "imgextract", "shell", *dracut.ENTRIES)


def scripts(scene: Scene) -> list[Finding]:
    """What of a site's way of booting by iPXE nodes do not get: a script of Warewulf that the site changed, for which
    there is ours; an entry of the menu that it does not have."""
    faults = []
    changed = _changed(scene.paths.ipxe_templates)
    for node in scene.nodes:
        name = node.ipxe_template or "default"
        if name in changed:
            theirs = f"{scene.paths.etc}/ipxe/{name}.ipxe"
            why = f"boots by a script of wwfast's own, not by {theirs}, which the site changed"
            fix = f"mv {name}.ipxe OTHER.ipxe, wwfast node set {node.id} --ipxe OTHER; or the change in {name}.ipxe.j2"
            faults.append(Fault(node.id, WARNING, "templates", why, fix))
        if name == "default" and (entry := node.tags.get("IPXEMenuEntry", "")) not in MENU:
            why = f"has the tag IPXEMenuEntry={entry}, which the menu does not have: it boots by initrd"
            fix = f"wwfast node set {node.id} --tagdel IPXEMenuEntry"
            faults.append(Fault(node.id, WARNING, "templates", why, fix))
    return grouped(faults)


def _changed(folder: Path) -> set[str]:
    """Of the scripts that Warewulf installs together, those that are newer than another, or alone."""
    times = {}
    for name in INSTALLED:
        with suppress(OSError):
            times[name] = (folder / f"{name}.ipxe").stat().st_mtime
    whole = len(times) == len(INSTALLED)
    return {
        name
        for name, at in times.items()
        if (not whole or at > min(times.values()) + TOGETHER) and not (folder / f"{name}.ipxe.j2").exists()
    }


def members(scene: Scene) -> list[Finding]:
    """Devices that are of a bond by their type, which older versions of Warewulf had, and of none by their tags."""
    return grouped(
        Fault(
            node.id,
            WARNING,
            "network",
            f"its device {name} is of type bond-slave and has no tag master, so it is of no bond",
            f"wwfast node set {node.id} --netname {name} --nettagadd master=BOND",
        )
        for node in scene.nodes
        for name, device in node.network_devices.items()
        if "bond-slave" in (device.type.lower(), device.tags.get("type", "").lower()) and not device.tags.get("master")
    )


def registry(scene: Scene) -> list[Finding]:
    """What is wrong in nodes.conf; an entry that cannot be used is a node that does not boot."""
    others, faults = [], []
    for problem in scene.snapshot.problems:
        level = ERROR if problem.fatal else WARNING
        edit = problem.mend
        if (profile := OF_PROFILE.search(problem.message)) is not None:
            edit = f"wwfast profile edit {profile[1]}"
        fix = former.COMMAND if former.HINT in problem.message else edit
        if problem.kind != "node":
            others.append(Finding(level, "nodes.conf", str(problem), fix))
        elif scene.asked(problem.id):
            faults.append(Fault(problem.id, level, "nodes.conf", problem.message, fix))
    return [*others, *grouped(faults)]


def names(scene: Scene) -> list[Finding]:
    """Names that mean two things: in DNS upper and lower case are one, /etc/hosts has NODE-NETWORK for every address,
    and this server is in it, too."""
    own = os.uname().nodename.partition(".")[0].lower()
    taken: dict[str, str] = dict.fromkeys((own, "localhost", "warewulf"), "this server")
    for node in scene.snapshot.nodes.values():
        for device in node.network_devices:
            taken.setdefault(f"{node.id}-{device}".lower(), f"network {device} of {node.id}")
    faults = []
    for node in scene.snapshot.nodes.values():
        other = taken.setdefault(node.id.lower(), node.id)
        if other != node.id and scene.asked(node.id):
            why = f"has a name that also means {other}"
            faults.append(Fault(node.id, WARNING, "names", why, "rename one: wwfast node add, wwfast node delete"))
    return grouped(faults)
