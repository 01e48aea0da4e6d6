"""BootPlan: the one answer to "this node is at this stage, what is sent?".

`Planner.plan` never opens a socket and never waits unless told that it may; everything it hands out is a
prebuilt artefact or a short script.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from wwfast.boot.script import Expanded, Scripts, plain
from wwfast.boot.stages import Stage
from wwfast.boot.urls import Urls
from wwfast.config import checks
from wwfast.errors import NotFoundError, WwfastError
from wwfast.images import names
from wwfast.images.kernels import KernelStore, NodeKernel, for_node
from wwfast.images.store import Image, ImageStore
from wwfast.pack.artefact import FORMATS, Artefact

if TYPE_CHECKING:
    from wwfast.config.settings import Settings
    from wwfast.nodes.model import Node
    from wwfast.nodes.registry import Snapshot
    from wwfast.overlays.service import OverlayService
    from wwfast.paths import Paths

RETRY_SECONDS = 30
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class BootPlan:
    """What is sent: an artefact or a text, or why nothing is (`status` and `reason`).

    `sent` is what the status table shows: the object's name, NOT_FOUND or BAD_REQUEST.
    """

    stage: Stage
    node: str
    status: int = 200
    artefact: Artefact | None = None
    text: str | None = None
    sent: str = ""
    reason: str = ""

    @property
    def failed(self) -> bool:
        return self.status >= 400


@dataclass(frozen=True, slots=True)
class Ask:
    """What a request adds to (node, stage): `compress` as asked; `memsize` in MiB (0 when the loader can't tell);
    `image` (NAME@BUILD) that the script of this boot began with; `arch` of the node where its script found that the
    image is for another; `tar` for the runtime overlay of wwclient; for the script, `place` in the queue for downloads
    (0: none) and `eta` in seconds."""

    wwid: str
    compress: str = ""
    memsize: int = 0
    image: str = ""
    arch: str = ""
    tar: bool = False
    ipv6: bool = False
    place: int = 0
    eta: int = 0


class Planner:
    """The only policy of a boot: (node, stage) -> BootPlan."""

    def __init__(self, paths: Paths, settings: Settings, overlays: OverlayService) -> None:
        self.settings = settings
        self.images = ImageStore(paths)
        self.kernels = KernelStore(paths)
        self.overlays = overlays
        self.scripts = Scripts(paths)

    def plan(
        self, snapshot: Snapshot, node: Node | None, stage: Stage, ask: Ask, *, may_wait: bool = True
    ) -> BootPlan | None:
        """Decide. None only without `may_wait`: then an overlay must be built first, so call again from a thread."""
        if node is None:
            return self._unknown(stage, ask)
        try:
            if stage is Stage.IPXE:
                return self._script(node, ask)
            if stage is Stage.KERNEL:
                return self._send(node, stage, self.kernel(node, ask).artefact, ask)
            if stage is Stage.IMAGE:
                return self._image(node, ask)
            if stage is Stage.KMODS:
                return self._send(node, stage, self.kernel(node, ask).kmods(ask.compress or "raw"), ask)
            if stage in (Stage.SYSTEM, Stage.RUNTIME):
                return self._overlay(snapshot, node, stage, ask, may_wait)
        except WwfastError as error:
            return self.refuse(node.id, stage, 404 if isinstance(error, NotFoundError) else 500, reason(error))
        return self.refuse(node.id, stage, 404, f"stage {stage} is not served")

    @staticmethod
    def refuse(node: str, stage: Stage, status: int, reason: str) -> BootPlan:
        sent = "BAD_REQUEST" if status == 400 else "NOT_FOUND" if status == 404 else "ERROR"
        return BootPlan(stage, node, status, sent=sent, reason=reason)

    def _unknown(self, stage: Stage, ask: Ask) -> BootPlan:
        """Facts of the routes: a script that says so, 400 for everything else, 404 for a GRUB configuration."""
        if stage is Stage.IPXE:
            if checks.script(ask.wwid):
                return self.refuse("", stage, 400, f"{ask.wwid} is no hardware address")
            url = Expanded(self._urls(ask).script(ask.wwid))
            variables = {"hwaddr": ask.wwid, "wait": RETRY_SECONDS, "script_url": url}
            text = self.scripts.render("unconfigured", variables)
            return BootPlan(stage, "", text=text, sent="unconfigured.ipxe", reason=f"no node has {ask.wwid}")
        status = 404 if stage is Stage.GRUB else 400
        return self.refuse("", stage, status, f"no node has {ask.wwid}")

    def _urls(self, ask: Ask) -> Urls:
        return Urls.of(self.settings, ipv6=ask.ipv6)

    def image(self, node: Node, ask: Ask) -> Image:
        """Raises WwfastError."""
        if not node.image_name:
            raise NotFoundError(f"node {node.id} has no image", hint=f"wwfast node set {node.id} --image NAME")
        return self.images.get(self._begun(node, ask) or node.image_name)

    def kernel(self, node: Node, ask: Ask) -> NodeKernel:
        """Raises WwfastError."""
        return for_node(node, self.images, self.kernels, self._begun(node, ask))

    @staticmethod
    def _begun(node: Node, ask: Ask) -> str:
        """The build that this boot began with: kernel and modules must be of one, whatever is served meanwhile."""
        if not ask.image:
            return ""
        name, pin = names.split(node.image_name)
        if names.split(ask.image)[0] != name or (pin is not None and ask.image != node.image_name):
            raise NotFoundError(f"node {node.id} began to boot {ask.image} and now has {node.image_name or 'no image'}")
        return ask.image

    def _script(self, node: Node, ask: Ask) -> BootPlan:
        try:
            return self.boot_script(node, ask)
        except WwfastError as error:
            # A node that can't boot must say why on its console and come back, never stop.
            lines = [*error.message.splitlines(), *([f"on the server: {error.hint}"] if error.hint else [])]
            text = self._message(node, ask, [f"node {node.id} cannot boot yet:", *lines])
            return BootPlan(Stage.IPXE, node.id, text=text, sent="message.ipxe", reason=reason(error))

    def boot_script(self, node: Node, ask: Ask) -> BootPlan:
        """The script that boots the node. Raises WwfastError for what its console would show instead."""
        urls = self._urls(ask)
        name = node.ipxe_template or "default"
        variables: dict[str, object] = {
            "id": node.id,
            "hostname": node.id,
            "fqdn": node.id,
            "cluster": node.cluster_name,
            "hwaddr": ask.wwid,
            "ipaddr": self.settings.ipaddr,
            "ipaddr6": self.settings.ipaddr6,
            "port": self.settings.warewulf.port,
            "authority": urls.authority,
            "script_url": Expanded(urls.script(ask.wwid)),
            "tags": node.tags,
            "network_devices": node.network_devices,
            "kernel_args": " ".join(node.kernel.args),
            "root": node.root,
            "wait": RETRY_SECONDS,
            "ipxe": name,
            "place": ask.place,
            "eta": ask.eta,
        }
        if name == "localdisk":
            return BootPlan(Stage.IPXE, node.id, text=self.scripts.render(name, variables), sent=f"{name}.ipxe")
        image = self.image(node, ask)
        kernel = self.kernel(node, ask)
        artefact = image.artefact(image.boot_format)
        if artefact is None:
            raise NotFoundError(f"image {image.name} is not built", hint=f"wwfast image build {image.name}")
        if ask.arch and image.arch and ask.arch != image.arch:
            raise WwfastError(
                f"image {image.name} is for {image.arch} and this node is {ask.arch}",
                hint=f"wwfast node set {node.id} --image NAME",
            )
        least = image.min_ram // MIB
        if ask.memsize and least > ask.memsize:
            raise WwfastError(f"image {image.name} needs {least} MiB of memory and this node has {ask.memsize}")
        stages = [Stage.IMAGE, *([Stage.KMODS] if node.kernel.override else []), Stage.SYSTEM]
        variables |= {
            "image_name": image.name,
            "image_build": f"{image.name}@{image.build.id}" if image.build else image.name,
            "image_format": image.boot_format,
            "image_arch": image.arch,
            "kernel_version": kernel.version,
            "stages": [stage.value for stage in stages],
        }
        return BootPlan(Stage.IPXE, node.id, text=self.scripts.render(name, variables), sent=f"{name}.ipxe")

    def _message(self, node: Node, ask: Ask, lines: list[str]) -> str:
        return self.scripts.render(
            "message",
            {
                "id": node.id,
                "message": [plain(line) for line in lines],
                "wait": RETRY_SECONDS,
                "script_url": Expanded(self._urls(ask).script(ask.wwid)),
            },
        )

    def _image(self, node: Node, ask: Ask) -> BootPlan:
        if not node.image_name:
            return self.refuse(node.id, Stage.IMAGE, 400, f"node {node.id} has no image")
        image = self.image(node, ask)
        fmt = ask.compress or "raw"
        artefact = image.artefact(fmt)
        if artefact is None:
            reason = f"image {image.name} is not built as {fmt}: run wwfast image build --format {fmt} {image.name}"
            return self.refuse(node.id, Stage.IMAGE, 404, reason)
        return self._send(node, Stage.IMAGE, artefact, ask)

    def _overlay(self, snapshot: Snapshot, node: Node, stage: Stage, ask: Ask, may_wait: bool) -> BootPlan | None:
        fmt = "tar" if ask.tar else ask.compress or "raw"
        if fmt != "tar" and fmt not in FORMATS:
            return self.refuse(node.id, stage, 404, f"compress={ask.compress} is not known")
        if may_wait:
            artefact: Artefact | None = self.overlays.artefact(snapshot, node, stage.value, fmt)
        else:
            artefact = self.overlays.peek(snapshot, node, stage.value, fmt)
            if artefact is None:
                return None
        return self._send(node, stage, artefact, ask)

    def _send(self, node: Node, stage: Stage, artefact: Artefact | None, ask: Ask) -> BootPlan:
        if artefact is None:
            return self.refuse(
                node.id, stage, 404, f"there is no {stage} for node {node.id} as {ask.compress or 'raw'}"
            )
        return BootPlan(stage, node.id, artefact=artefact, sent=artefact.name)


def reason(error: WwfastError) -> str:
    """One line for log and status: what is wrong, and what to do."""
    return f"{error.message}: {error.hint}" if error.hint else error.message
