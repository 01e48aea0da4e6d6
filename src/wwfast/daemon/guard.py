"""Who may have which overlay (`warewulf: secure: true`).

The system overlay holds host keys and BMC passwords, the runtime overlay user databases and tokens. Both go only
to the address that our DHCP leased to that wwid; the system overlay only between the node's DHCP from firmware or
iPXE and its first runtime fetch; the runtime overlay only to a privileged source port. With an external DHCP
server the address and phase can't be known: then only the port is checked, and the server says so at start.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from wwfast.boot.stages import Stage

if TYPE_CHECKING:
    from wwfast.nodes.model import Node

PRIVILEGED = 1024


@dataclass(slots=True)
class Guard:
    """`leased(mac)` is the address our DHCP gave, or ""; `own_dhcp` whether our DHCP serves at all."""

    secure: bool
    own_dhcp: bool
    leased: Callable[[str], str] = lambda _mac: ""
    clock: Callable[[], float] = time.time
    _booting: dict[str, float] = field(default_factory=dict)
    _seen: dict[str, float] = field(default_factory=dict)

    def restore(self, phases: Iterable[tuple[str, float]]) -> None:
        """After a restart: the nodes that were in the middle of a boot go on."""
        self._booting.update(phases)

    def booting(self) -> list[tuple[str, float]]:
        return list(self._booting.items())

    def saw_dhcp(self, mac: str, *, boots: bool) -> None:
        """Our DHCP answered `mac`; `boots` when firmware or iPXE asked, not an operating system."""
        now = self.clock()
        self._seen[mac] = now
        if boots:
            self._booting[mac] = now

    def seen_within(self, mac: str, seconds: float) -> bool:
        """Discovery takes only an address that our DHCP saw lately (or any, with an external DHCP server)."""
        return not self.own_dhcp or self.clock() - self._seen.get(mac, float("-inf")) <= seconds

    def boots_within(self, mac: str, seconds: float) -> bool:
        """Whether firmware or iPXE of this machine asked our DHCP so lately."""
        return self.clock() - self._booting.get(mac, float("-inf")) <= seconds

    def refuses(self, node: Node, stage: Stage, wwid: str, peer_ip: str, peer_port: int) -> tuple[int, str] | None:
        """(status, reason) when this request may not have the overlay; None when it may."""
        if not self.secure or stage not in (Stage.SYSTEM, Stage.RUNTIME):
            return None
        if stage is Stage.RUNTIME and peer_port >= PRIVILEGED:
            return 401, f"the runtime overlay is for privileged source ports, not {peer_port}"
        if not self.own_dhcp:
            return None
        allowed = {device.ipaddr for device in node.network_devices.values() if device.hwaddr == wwid}
        allowed.add(self.leased(wwid))
        if peer_ip not in allowed:
            return 403, f"{peer_ip} is not the address of {wwid}"
        if stage is Stage.SYSTEM and wwid not in self._booting:
            return 403, f"{node.id} is not booting: it had no boot DHCP since its last runtime overlay"
        return None

    def fetched_runtime(self, wwid: str) -> None:
        """The node is up: its system overlay is closed until it boots again."""
        self._booting.pop(wwid, None)
