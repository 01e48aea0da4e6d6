"""What the files of the site ask for and do not get: warewulf.conf, nodes.conf, keys, iPXE binaries."""

from __future__ import annotations

from collections.abc import Iterator

from wwfast.boot import binaries
from wwfast.config.settings import lacking
from wwfast.doctor.finding import ERROR, WARNING, Finding, Scene
from wwfast.errors import ConfigError
from wwfast.net.dhcp.network import require_range
from wwfast.overlays.sshkeys import has_host_keys


def ipxe(scene: Scene) -> Iterator[Finding]:
    """The iPXE binaries of `tftp: ipxe`; only x86-64 ones are an error, a cluster may have no arm64 node."""
    if not scene.settings.tftp.enabled:
        return
    found, missing = binaries.find_all(scene.settings.tftp.ipxe, scene.paths.ipxe_source)
    for arch, complaint in missing.items():
        needed = not found or arch in ("00:00", "00:07")
        yield Finding(ERROR if needed else WARNING, "ipxe", complaint, binaries.hint(arch))


def dhcp(scene: Scene) -> Iterator[Finding]:
    """DHCP starts only where the admin wrote the network down."""
    settings = scene.settings
    missing = [key for key in ("ipaddr", "network") if not settings.is_written(key)]
    if settings.dhcp.enabled and missing:
        yield Finding(
            WARNING,
            "dhcp",
            f"{scene.paths.conf} does not name {' and '.join(missing)}: DHCP will not start",
            "write them down, or set `dhcp: enabled: false` if another server gives the addresses",
        )
    if settings.dhcp.enabled:
        try:
            require_range(settings, scene.paths)
        except ConfigError as error:
            yield Finding(ERROR, "dhcp", f"{error.message}: the server will not start", error.hint or "")


def keys(scene: Scene) -> Iterator[Finding]:
    """The host keys that the nodes' overlay brings: an image from a container has none of its own."""
    if has_host_keys(scene.paths, scene.settings.ssh.key_types):
        return
    nodes = [
        node.id
        for node in scene.snapshot.nodes.values()
        if "ssh.host_keys" in (*node.system_overlay, *node.runtime_overlay)
    ]
    if nodes:
        message = f"no SSH host keys for the nodes in {scene.paths.etc / 'keys'}: sshd does not start on them"
        yield Finding(WARNING, "keys", message, "wwfast configure ssh")


def unserved(scene: Scene) -> Iterator[Finding]:
    """What warewulf.conf asks for and does not get: that must not be found out when it is needed."""
    for key, lack in lacking(scene.settings):
        yield Finding(WARNING, "settings", f"{scene.paths.conf} sets {key}, but {lack}", "take it out, or go without")


def registry(scene: Scene) -> Iterator[Finding]:
    for problem in scene.snapshot.problems:
        level = ERROR if problem.fatal else WARNING
        yield Finding(level, "nodes.conf", f"{problem.kind} {problem.id}: {problem.message}", "wwfast node edit")
