"""What Go templates of iPXE scripts (`<name>.ipxe` of the site) see, as in Warewulf; with sprig's functions only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from wwfast.config import checks
from wwfast.overlays.templates.faults import Refused
from wwfast.overlays.templates.go import printing
from wwfast.overlays.templates.go.library.builtin import SPRIG
from wwfast.overlays.templates.go.render import SCRIPT, Engine, Program
from wwfast.overlays.templates.go.shapes import many, struct
from wwfast.overlays.templates.go.structs import NetDev, NetDevs
from wwfast.overlays.templates.go.values import Object, StringMap

# Name in Go, and ours of the variables of a script; what is not there is an empty text.
TEXTS = {
    "Id": "id",
    "Hostname": "hostname",
    "Fqdn": "fqdn",
    "Cluster": "cluster",
    "ImageName": "image_name",
    "Ipxe": "ipxe",
    "Hwaddr": "hwaddr",
    "Ipaddr": "ipaddr",
    "Ipaddr6": "ipaddr6",
    "Port": "port",
    "Authority": "authority",
    "KernelArgs": "kernel_args",
    "KernelVersion": "kernel_version",
    "Root": "root",
    "Message": "",  # these two Warewulf never sets
    "WaitTime": "",
}
OTHERS = frozenset({"TLS", "Tags", "NetDevs"})


class Variables(Object):
    __slots__ = ("_values",)
    GO = "TemplateVars"

    def __init__(self, values: Mapping[str, object]) -> None:
        self._values = values

    def member(self, name: str) -> Any:
        values: Mapping[str, Any] = self._values
        if name in TEXTS:
            return str(values.get(TEXTS[name], ""))
        if name == "TLS":
            return False
        if name == "Tags":
            return StringMap(values.get("tags", {}))
        if name == "NetDevs":
            return NetDevs((key, NetDev(device)) for key, device in values.get("network_devices", {}).items())
        return super().member(name)


DEVICES = many(struct("of a network device", NetDev.MEMBERS, Tags=many(None)))
SHAPE = struct("in a script", dict.fromkeys((*TEXTS, *OTHERS)), NetDevs=DEVICES)


def shown(words: frozenset[str]) -> Callable[[Any], str]:
    """Prints what iPXE takes for a part of an argument, or what stands in the template itself (see templates.ipxe)."""

    def show(value: Any) -> str:
        text = printing.show(value)
        if text not in words and checks.script(text):
            raise Refused(f"this value holds {checks.FOR_IPXE}, which iPXE would run")
        return text

    return show


def engine() -> Engine:
    return Engine(SPRIG, shown, SHAPE)


class Script:
    """A compiled script; rendered as those of Jinja2 are."""

    def __init__(self, engine: Engine, source: str, where: str, node: str) -> None:
        self._program = Program(engine, source, where, SCRIPT, node)

    def doubts(self) -> list[str]:
        return self._program.doubts()

    def run(self, values: Mapping[str, object], facts: Mapping[str, str], node: str, memory: float = 0) -> str:
        made = self._program.run(Variables(values), node, memory=memory)
        return "".join(piece for piece in made if isinstance(piece, str))
