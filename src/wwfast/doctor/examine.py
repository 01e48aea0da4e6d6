"""What keeps nodes from booting, found before they try: `wwfast doctor` and the start of the server.

Every check returns findings; a finding says what is wrong and the command that mends it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from wwfast.doctor import boots, machine, ports, site
from wwfast.doctor.finding import ERROR, WARNING, Finding, Scene
from wwfast.errors import WwfastError


def examine(scene: Scene) -> list[Finding]:
    """All findings, errors first. A check that itself fails becomes a finding."""
    found: list[Finding] = []
    for check in CHECKS:
        try:
            found += check(scene)
        except (OSError, WwfastError) as error:
            found.append(Finding(WARNING, check.__name__, f"could not be checked: {error}", "run it as root"))
    return sorted(found, key=lambda finding: finding.level != ERROR)


def service(scene: Scene) -> Iterator[Finding]:
    """What does not work in the server that runs: it goes on as well as it can, and tells."""
    troubles = scene.running.get("troubles")
    for name, trouble in troubles.items() if isinstance(troubles, dict) else ():
        message = f"the running server: {name} fails ({trouble['count']} times): {trouble['error']}"
        yield Finding(ERROR, "service", message, "journalctl -u wwfast")
    if error := scene.running.get("registry error"):
        message = f"the running server goes on with the last good nodes.conf: {error}"
        yield Finding(ERROR, "service", message, "wwfast node edit")


Check = Callable[[Scene], Iterable[Finding]]
CHECKS: tuple[Check, ...] = (
    service,
    ports.ports,
    site.dhcp,
    site.ipxe,
    ports.firewall,
    machine.disk,
    machine.kernel_limits,
    boots.images,
    boots.kernels,
    site.keys,
    site.registry,
    site.unserved,
)
