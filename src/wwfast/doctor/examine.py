"""What keeps nodes from booting, found before they try: `wwfast doctor` and the start of the server.

Every check returns findings; a finding says what is wrong and the command that mends it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from wwfast.doctor import boots, machine, ports, racks, reach, running, site
from wwfast.doctor.finding import ERROR, WARNING, Finding, Scene
from wwfast.errors import WwfastError, cause

Check = Callable[[Scene], Iterable[Finding]]
CHECKS: tuple[Check, ...] = (
    running.service,
    ports.ports,
    site.address,
    machine.address,
    site.dhcp,
    reach.room,
    reach.clashing,
    site.ipxe,
    ports.firewall,
    ports.ipv6,
    machine.disk,
    machine.kernel_limits,
    site.registry,
    site.names,
    boots.boots,
    site.keys,
    site.unserved,
    site.templates,
    site.scripts,
    site.members,
    racks.caches,
    racks.heads,
)


def examine(scene: Scene) -> list[Finding]:
    """All findings, errors first, each said once. A check that itself fails becomes a finding."""
    found: list[Finding] = []
    for check in CHECKS:
        name = check.__name__
        try:
            found += check(scene)
        except (OSError, WwfastError) as error:
            found.append(Finding(WARNING, name, f"{name} could not be checked: {cause(error)}", "run it as root"))
        except Exception as error:  # a fault of ours must keep no server from starting
            why = f"{name} could not be checked: {type(error).__name__}: {error}"
            found.append(Finding(WARNING, name, why, "this is a fault of wwfast: please report it"))
    found.sort(key=lambda finding: finding.level != ERROR)
    first: dict[str, Finding] = {}
    return [finding for finding in found if first.setdefault(finding.message, finding) is finding]
