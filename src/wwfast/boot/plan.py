"""BootPlan: the one answer to "this node is at this stage, what is sent?".

`Planner.plan` opens nothing and never waits: it looks up what a thread found on the disk (boot.standing), and all that
it hands out is a prebuilt artefact or a short script.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from wwfast.archive.artefact import FORMATS, GZ, RAW, Artefact
from wwfast.boot import caches, dracut, heads, stage1, ways
from wwfast.boot.caches import Caches
from wwfast.boot.loader.script import plain
from wwfast.boot.loader.urls import Urls
from wwfast.boot.stages import Stage
from wwfast.boot.standing import UnresolvedError
from wwfast.boot.ways import DRACUT, UNTOLD, Choice, Machine
from wwfast.config import checks
from wwfast.errors import NotFoundError, WwfastError
from wwfast.images import names
from wwfast.overlays.templates.ipxe import Expanded

if TYPE_CHECKING:
    from wwfast.boot.standing import ServedImage, ServedKernel, Standing
    from wwfast.config.settings import Settings
    from wwfast.nodes.model import Node
    from wwfast.overlays.making.messages import Write

#: The overlay of a node's stage in a format; None where it must be made first. May raise WwfastError.
Overlay = Callable[["Node", str, str], "Artefact | None"]

REFRESHER = "wwclient"  # the overlay that fetches the runtime overlay on a running node; also with .ARCH after it
DERIVED = (RAW, GZ)  # what every image can be brought into when it is asked for
RETRY_SECONDS = 30
UNSEEN = Artefact("", RAW, (), "", (), 0)  # stands for an overlay that only has to be there


@dataclass(frozen=True, slots=True)
class BootPlan:
    """What is sent: an artefact or a text, or why nothing is (`status` and `reason`).

    A `script` must be run first, elsewhere, and becomes the text (`with_text`), or `Planner.instead` of it is sent.
    `sent` is what the status table shows: the object's name, NOT_FOUND or BAD_REQUEST. Of a script that boots `way` is
    the way in which the image comes, and `image` its build (NAME@BUILD); `unfit`: the machine is too small for each.
    """

    stage: Stage
    node: str
    status: int = 200
    artefact: Artefact | None = None
    text: str | None = None
    script: Write | None = None
    sent: str = ""
    reason: str = ""
    way: Choice | None = None
    image: str = ""
    unfit: bool = False

    @property
    def failed(self) -> bool:
        return self.status >= 400

    def with_text(self, text: str) -> BootPlan:
        return replace(self, text=text, script=None)


@dataclass(frozen=True, slots=True)
class Ask:
    """What a request adds to (node, stage): `compress` as asked; `machine` as its loader tells it or is known to be;
    `image` (NAME@BUILD) that the script of this boot began with; `arch` of the node where its script found that the
    image is for another; `tar` for the runtime overlay of wwclient; `peer`, the address that asks; for the script,
    `place` in the queue for downloads (0: none) and `eta` in seconds; `moved`: the script of another head sent it."""

    wwid: str
    compress: str = ""
    machine: Machine = UNTOLD
    image: str = ""
    arch: str = ""
    tar: bool = False
    ipv6: bool = False
    peer: str = ""
    place: int = 0
    eta: int = 0
    moved: bool = False

    @property
    def format(self) -> str:
        """Of an overlay: raw, zst, gz, tar, or what else was asked for."""
        return "tar" if self.tar else self.compress or "raw"


class Planner:
    """The only policy of a boot: (node, stage) -> BootPlan."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._caches = Caches(settings.wwfast.caches)
        self._heads = heads.authorities(settings)
        self.away: Callable[[], Sequence[str]] = list  # addresses of heads that do not answer this one

    def plan(self, standing: Standing, node: Node | None, stage: Stage, ask: Ask, overlay: Overlay) -> BootPlan | None:
        """Decide. None where `overlay` has none yet. Raises UnresolvedError where `standing` does not know."""
        if node is None:
            return self._unknown(standing, stage, ask)
        try:
            if stage is Stage.IPXE:
                return self._script(standing, node, ask, overlay)
            if stage is Stage.KERNEL:
                return self._send(node, stage, self.kernel(standing, node, ask).artefact, ask)
            if stage is Stage.STAGE1:
                release = self.kernel(standing, node, ask).version
                made = stage1.archive(self.image(standing, node, ask), release, node.kernel.override)
                return self._send(node, stage, made, ask)
            if stage is Stage.INITRAMFS:
                release = self.kernel(standing, node, ask).version
                made = dracut.initramfs(self.image(standing, node, ask), release).artefact
                return self._send(node, stage, made, ask)
            if stage is Stage.IMAGE:
                return self._image(standing, node, ask)
            if stage is Stage.KMODS:
                modules = self.kernel(standing, node, ask).kmods
                return self._send(node, stage, modules.get(ask.compress or "raw"), ask)
            if stage in (Stage.SYSTEM, Stage.RUNTIME):
                return self._overlay(node, stage, ask, overlay)
        except WwfastError as error:
            return self.failed(node, stage, error)
        return self.refuse(node.id, stage, 404, f"stage {stage} is not served")

    @classmethod
    def failed(cls, node: Node, stage: Stage, error: WwfastError) -> BootPlan:
        return cls.refuse(node.id, stage, 404 if isinstance(error, NotFoundError) else 500, reason(error))

    @staticmethod
    def refuse(node: str, stage: Stage, status: int, reason: str) -> BootPlan:
        sent = "BAD_REQUEST" if status == 400 else "NOT_FOUND" if status == 404 else "ERROR"
        return BootPlan(stage, node, status, sent=sent, reason=reason)

    def _unknown(self, standing: Standing, stage: Stage, ask: Ask) -> BootPlan:
        """Facts of the routes: a script that says so, 400 for everything else, 404 for a GRUB configuration."""
        if stage is Stage.IPXE:
            if checks.script(ask.wwid):
                return self.refuse("", stage, 400, f"{ask.wwid} is no hardware address")
            url = Expanded(self._urls(ask).script(ask.wwid, ask.machine.firmware))
            variables = {"hwaddr": ask.wwid, "wait": RETRY_SECONDS, "script_url": url}
            return self._script_of(standing, "", "unconfigured", variables, f"no node has {ask.wwid}")
        status = 404 if stage is Stage.GRUB else 400
        return self.refuse("", stage, status, f"no node has {ask.wwid}")

    def _urls(self, ask: Ask) -> Urls:
        return Urls.of(self.settings, ipv6=ask.ipv6)

    def image(self, standing: Standing, node: Node, ask: Ask) -> ServedImage:
        """Raises WwfastError."""
        if not node.image_name:
            raise NotFoundError(f"node {node.id} has no image", hint=f"wwfast node set {node.id} --image NAME")
        image = standing.image(node, self._begun(node, ask))
        if not node.kernel.override:
            return image
        try:
            return stage1.with_kernel(image, self.kernel(standing, node, ask))
        except WwfastError:  # told where the kernel itself is sent
            return image

    def kernel(self, standing: Standing, node: Node, ask: Ask) -> ServedKernel:
        """Raises WwfastError."""
        return standing.kernel(node, self._begun(node, ask))

    @staticmethod
    def _begun(node: Node, ask: Ask) -> str:
        """The build that this boot began with: kernel and modules must be of one, whatever is served meanwhile."""
        if not ask.image:
            return ""
        name, pin = names.split(node.image_name)
        if names.split(ask.image)[0] != name or (pin is not None and ask.image != node.image_name):
            raise NotFoundError(f"node {node.id} began to boot {ask.image} and now has {node.image_name or 'no image'}")
        return ask.image

    def _script(self, standing: Standing, node: Node, ask: Ask, overlay: Overlay) -> BootPlan | None:
        try:
            return self.boot_script(standing, node, ask, overlay)
        except WwfastError as error:
            return self._cannot(standing, node.id, ask, error)

    def _cannot(self, standing: Standing, node: str, ask: Ask, error: WwfastError) -> BootPlan:
        """A node that can't boot must say why on its console and come back, never stop."""
        variables = {
            "id": node,
            "message": [plain(line) for line in (f"node {node} cannot boot yet:", *told(error))],
            "wait": RETRY_SECONDS,
            "script_url": Expanded(self._urls(ask).script(ask.wwid, ask.machine.firmware)),
        }
        plan = self._script_of(standing, node, "message", variables, reason(error))
        return replace(plan, unfit=isinstance(error, ways.UnfitError))

    @staticmethod
    def _script_of(
        standing: Standing, node: str, name: str, variables: Mapping[str, object], reason: str = ""
    ) -> BootPlan:
        made = standing.scripts.script(name, variables)
        text, script = (made, None) if isinstance(made, str) else (None, made)
        return BootPlan(Stage.IPXE, node, text=text, script=script, sent=f"{name}.ipxe", reason=reason)

    def instead(self, standing: Standing, plan: BootPlan, ask: Ask, error: WwfastError) -> BootPlan:
        """What is sent where the `script` of a plan could not be run: why, to a node; our own script, where that of the
        site which says so fails, too. Raises WwfastError."""
        if plan.node and not plan.reason:
            return self._cannot(standing, plan.node, ask, error)
        assert plan.script is not None
        return plan.with_text(standing.scripts.shipped(plan.sent.removesuffix(".ipxe"), plan.script.variables))

    def boot_script(self, standing: Standing, node: Node, ask: Ask, overlay: Overlay) -> BootPlan | None:
        """The script that boots the node; None where `overlay` has none yet. Raises WwfastError for what its console
        would show instead."""
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
            "script_url": Expanded(urls.script(ask.wwid, ask.machine.firmware)),
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
            return self._script_of(standing, node.id, name, variables)
        image = self._bootable(standing, node, ask)
        near = self._caches.of(node, ask.peer)
        way = self._way(standing, node, ask, image, bool(near))
        variables |= {"way": plain(way.why), **self._downloads(standing, node, ask, image)}
        variables |= {"cached": self._cached(standing, node, ask, image, near), "silence": caches.SILENCE}
        variables |= self._elsewhere(node, ask)
        overlays = self._overlays(node, way.root, GZ if way.root else image.boot_format, overlay)
        if overlays is None:
            return None
        variables |= overlays
        if way.root == DRACUT:
            if standing.scripts.fetches(name):  # else a script of the site's, which has the arguments in it
                variables |= dracut.variables(node, ask.wwid, Urls.of(self.settings).base)
        elif way.root:
            need = ways.total(way.way.need)
            release = self.kernel(standing, node, ask).version
            preload = bool(overlays["preload"])
            all_heads = [urls.base, *(other.base for other in self._others(node, ask))]
            arguments = stage1.arguments(image, release, node, all_heads, way.root, need, preload=preload)
            arguments += stage1.sources(standing.blobs, image, way.root, near)
            stage1.require_room(node, arguments)
            variables |= {"stages": [Stage.STAGE1.value], "preload": False, "kernel_args": Expanded(arguments)}
        return replace(self._script_of(standing, node.id, name, variables), way=way, image=image.build)

    def _others(self, node: Node, ask: Ask) -> list[Urls]:
        """The heads beside this one, as this node asks them; stage-1 and scripts know IPv4 alone for them."""
        own = Urls.of(self.settings).authority
        return [Urls(each) for each in heads.order(node.id, self._heads) if each != own and not ask.ipv6]

    def _elsewhere(self, node: Node, ask: Ask) -> dict[str, object]:
        """Scripts of other heads: those that the node is to ask `before` this one, unless one of them sent it here
        or is away, and, when a download failed, whom to ask `after`: this one first, for the node may only have waited
        its turn."""

        def scripts(of: Sequence[Urls]) -> list[Expanded]:
            return [Expanded(urls.script(ask.wwid, ask.machine.firmware) + "&moved=1") for urls in of]

        own, others = Urls.of(self.settings), self._others(node, ask)
        order = heads.order(node.id, self._heads)
        first = order[: order.index(own.authority)] if others and not ask.moved else []
        away = self.away() if first else ()
        before = [Urls(each) for each in first if each.partition(":")[0] not in away]
        return {"before": scripts(before), "after": scripts([own, *others]) if others else []}

    def _cached(
        self, standing: Standing, node: Node, ask: Ask, image: ServedImage, near: Sequence[str]
    ) -> list[list[str]]:
        """Stages that iPXE fetches, each with a URL where a cache has it, the nearest first. Raises WwfastError."""
        kernel = self.kernel(standing, node, ask)
        found = {Stage.KERNEL: kernel.artefact, Stage.STAGE1: image.stage1.get(kernel.version)}
        if image.initramfs is not None and kernel.version in image.initramfs:
            found[Stage.INITRAMFS] = image.initramfs[kernel.version].artefact
        names = {stage.value: standing.blobs.name(artefact) for stage, artefact in found.items() if artefact}
        return [[stage, f"{url}/blob/{name}"] for stage, name in names.items() if name for url in near]

    def _way(self, standing: Standing, node: Node, ask: Ask, image: ServedImage, cached: bool) -> Choice:
        """Raises WwfastError where none is for this node."""
        release = self.kernel(standing, node, ask).version
        if dracut.entry(node):
            return dracut.choose(image, node, release, ask.machine)
        name = node.ipxe_template or "default"
        lacks = "" if standing.scripts.fetches(name) else f"iPXE template {name} of this site fetches no stages"
        lacks = lacks or ("stage-1 has no IPv6 address" if ask.ipv6 else "")
        return ways.choose(image, node, release, ask.machine, lacks, cached=cached)

    def _bootable(self, standing: Standing, node: Node, ask: Ask) -> ServedImage:
        """Raises WwfastError where the image would not boot this machine."""
        image = self.image(standing, node, ask)
        if image.boot_format not in image.artefacts and not image.roots:
            raise NotFoundError(f"image {image.name} is not built", hint=f"wwfast image build {image.name}")
        if ask.arch and image.arch and ask.arch != image.arch:
            raise WwfastError(
                f"image {image.name} is for {image.arch} and this node is {ask.arch}",
                hint=f"wwfast node set {node.id} --image NAME",
            )
        return image

    def _overlays(self, node: Node, root: str, fmt: str, overlay: Overlay) -> dict[str, object] | None:
        """Whether the runtime overlay is fetched before init, as Warewulf does, and why not. None where an overlay
        must be made first. Raises WwfastError where there is no system overlay: nothing large is fetched in vain; by
        dracut also without the other one, which most modules cannot do without."""
        if overlay(node, Stage.SYSTEM.value, fmt) is None:
            return None
        if root == DRACUT:
            return {"preload": False, "lost": []} if overlay(node, Stage.RUNTIME.value, fmt) is not None else None
        if not preloads(self.settings, node):
            return {"preload": False, "lost": []}
        try:
            if overlay(node, Stage.RUNTIME.value, fmt) is None:
                return None
        except WwfastError as error:
            return {"preload": False, "lost": [plain(line) for line in told(error)]}
        return {"preload": True, "lost": []}

    def _downloads(self, standing: Standing, node: Node, ask: Ask, image: ServedImage) -> dict[str, object]:
        """What the script fetches. Raises WwfastError."""
        stages = [Stage.IMAGE, *([Stage.KMODS] if node.kernel.override else []), Stage.SYSTEM]
        return {
            "image_name": image.name,
            "image_build": image.build,
            "image_format": image.boot_format,
            "image_arch": image.arch,
            "kernel_version": self.kernel(standing, node, ask).version,
            "stages": [stage.value for stage in stages],
        }

    def _image(self, standing: Standing, node: Node, ask: Ask) -> BootPlan:
        if not node.image_name:
            return self.refuse(node.id, Stage.IMAGE, 400, f"node {node.id} has no image")
        image = self.image(standing, node, ask)
        fmt = ask.compress or "raw"
        if fmt in image.roots:
            return self._send(node, Stage.IMAGE, image.roots[fmt], ask)
        if fmt not in image.artefacts and image.artefacts and fmt in DERIVED:
            raise UnresolvedError(image.build, fmt)
        if fmt not in image.artefacts:
            reason = f"image {image.name} is not built as {fmt}: run wwfast image build --format {fmt} {image.name}"
            return self.refuse(node.id, Stage.IMAGE, 404, reason)
        return self._send(node, Stage.IMAGE, image.artefacts[fmt], ask)

    def _overlay(self, node: Node, stage: Stage, ask: Ask, overlay: Overlay) -> BootPlan | None:
        if not ask.tar and ask.format not in FORMATS:
            return self.refuse(node.id, stage, 404, f"compress={ask.compress} is not known")
        artefact = overlay(node, stage.value, ask.format)
        return self._send(node, stage, artefact, ask) if artefact is not None else None

    def _send(self, node: Node, stage: Stage, artefact: Artefact | None, ask: Ask) -> BootPlan:
        if artefact is None:
            return self.refuse(
                node.id, stage, 404, f"there is no {stage} for node {node.id} as {ask.compress or 'raw'}"
            )
        return BootPlan(stage, node.id, artefact=artefact, sent=artefact.name)


def preloads(settings: Settings, node: Node) -> bool:
    """Whether the boot loader fetches the runtime overlay: it has no port below 1024, so where overlays are secured it
    needs a DHCP of ours, by which its boot is known."""
    return bool(node.runtime_overlay) and (not settings.warewulf.secure or settings.own_dhcp)


def refreshes(node: Node) -> bool:
    """Whether the node fetches its runtime overlay itself once it runs."""
    return any(name.partition(".")[0] == REFRESHER for name in node.system_overlay)


def told(error: WwfastError) -> list[str]:
    """Lines for a console: what is wrong, and what to do."""
    return [*error.message.splitlines(), *([f"on the server: {error.hint}"] if error.hint else [])]


def reason(error: WwfastError) -> str:
    """One line for log and status: what is wrong, and what to do."""
    return f"{error.message}: {error.hint}" if error.hint else error.message
