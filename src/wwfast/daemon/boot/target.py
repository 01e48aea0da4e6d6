"""What a request asks for: the paths and queries of Warewulf's routes to a stage and a node, or why it gets nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from wwfast.boot import ways
from wwfast.boot.plan import Ask
from wwfast.boot.stages import Stage
from wwfast.boot.ways import Machine
from wwfast.net.http.admission import Patience, patience
from wwfast.net.http.message import NOTHING, Request, Response
from wwfast.net.names import tame

ALIASES = {
    "provision": Stage.IPXE,
    "container": Stage.IMAGE,
    "overlay-system": Stage.SYSTEM,
    "overlay-runtime": Stage.RUNTIME,
}
STAGES = {
    stage.value: stage
    for stage in (Stage.IPXE, Stage.GRUB, Stage.KERNEL, Stage.INITRAMFS, Stage.STAGE1, Stage.IMAGE, Stage.KMODS)
} | {"system": Stage.SYSTEM, "runtime": Stage.RUNTIME}
OVERLAYS = (Stage.SYSTEM, Stage.RUNTIME)
HELD_SECONDS = 10.0  # for an overlay in the making, where the client obeys Retry-After; else as long as it takes
MEMORY_DIGITS = 9  # of MiB: a petabyte


@dataclass(frozen=True, slots=True)
class Target:
    """A parsed provisioning request. `said` is what stage-1 tells of its boot, instead of asking for something."""

    stage: Stage
    wwid: str
    assetkey: str
    ask: Ask
    said: str = ""


def parse(
    parts: list[str], wwid: str, request: Request, outlook: Callable[[str], tuple[int, float]]
) -> Target | Response:
    """`outlook` is place and seconds in the queue for downloads."""
    if not is_stage(parts):
        return refusal(404, "no such path")
    name = request.query.get("stage", "ipxe") if parts[0] == "provision" else parts[0]
    stage = STAGES.get(name) or ALIASES.get(name)
    if stage is None or not wwid:
        return refusal(400, "no stage" if stage is None else "no hardware address", stage=stage, wwid=wwid)
    place, eta = outlook(wwid) if stage is Stage.IPXE else (0, 0.0)
    ask = Ask(
        wwid=wwid,
        place=place,
        eta=round(eta),
        compress=tame(request.query.get("compress", "")),
        machine=machine(stage, request.query),
        image=tame(request.query.get("image", "")) if stage is not Stage.IPXE else "",
        arch=tame(request.query.get("arch", "")),
        tar=request.query.get("format") == "tar",
        peer=request.peer_ip,
        moved=bool(request.query.get("moved")),
        ipv6=":" in request.peer_ip and not request.peer_ip.startswith("::ffff:"),
    )
    said = request.query.get("said", "") if stage is Stage.STAGE1 else ""
    return Target(stage, wwid, request.query.get("assetkey", ""), ask, said)


def machine(stage: Stage, query: Mapping[str, str]) -> Machine:
    """What is said of the machine: to its script by iPXE, of which BIOS builds alone may have `memsize`; later, by
    Linux, the MemTotal that it has of it."""
    if stage is not Stage.IPXE:
        return Machine(ways.whole(_mebibytes(query.get("memory", ""))))
    memory, firmware = _mebibytes(query.get("memsize", "")), query.get("firmware", "")
    return Machine(memory, firmware if firmware in (ways.BIOS, ways.UEFI) else ways.BIOS if memory else "")


def _mebibytes(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= MEMORY_DIGITS else 0


def is_stage(parts: list[str]) -> bool:
    return bool(parts) and (parts[0] in STAGES or parts[0] in ALIASES)


def loads(request: Request) -> bool:
    """Whether it is a boot loader that asks."""
    return patience(request.headers.get("user-agent", "")) is not Patience.LONG


def held(request: Request) -> float | None:
    """How long this client is kept waiting for an overlay in the making; None is as long as it takes."""
    return HELD_SECONDS if patience(request.headers.get("user-agent", "")) is Patience.RETRIES else None


def refusal(
    status: int,
    reason: str,
    *,
    stage: Stage | None = None,
    wwid: str = "",
    node: str = "",
    sent: str = "",
    headers: Mapping[str, str] = NOTHING,
) -> Response:
    """Empty body, as the routes have it; the reason goes to the log and the status table."""
    return Response(
        status=status,
        body=b"",
        content_type="text/plain; charset=utf-8",
        headers=headers,
        wwid=wwid,
        node=node,
        stage=stage.value if stage else "",
        sent=sent or ("NOT_FOUND" if status == 404 else "BAD_REQUEST"),
        detail=reason,
    )
