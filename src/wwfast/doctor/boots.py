"""Every node's boot on paper: what the server would answer at each stage, by the same planner and overlays.

Nothing is written: not a build, not a cache. What nodes have in common is looked at once.
"""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from wwfast.archive.artefact import GZ
from wwfast.boot import dracut, stage1
from wwfast.boot.plan import Ask
from wwfast.boot.stages import Stage
from wwfast.boot.ways import DRACUT, OF_UDEV
from wwfast.config import checks
from wwfast.config.checks import NEVER, UPDATE, on_disk
from wwfast.doctor import disks, initramfs, initrd, reach
from wwfast.doctor.finding import ERROR, WARNING, Fault, Finding, Scene, grouped
from wwfast.errors import ConfigError, WwfastError
from wwfast.images import names
from wwfast.nodes.registry import uncollected
from wwfast.overlays.making.service import CONTEXTS, RUNTIME, SYSTEM, overlays_of

if TYPE_CHECKING:
    from wwfast.boot.ways import Choice
    from wwfast.nodes.model import Node

WITHOUT = "00:00:00:00:00:00"  # stands for the hardware address of a node that has none yet
Look = Callable[["Node"], Iterable[Fault]]

LOCAL = "localdisk"  # the iPXE template that loads nothing from us
SCRIPT = re.compile(r"#!(?:ipxe|gpxe)\s")  # script_probe of iPXE
IMGARGS = re.compile(r"(?m)^imgargs \S+ (.*)$")
TELL = 0.1  # seconds between two reports of the progress


def boots(scene: Scene) -> list[Finding]:
    """What keeps nodes from booting, alike ones in one finding."""
    play, nodes, told = Rehearsal(scene), scene.nodes, 0.0
    faults: list[Fault] = []
    with uncollected():
        for at, node in enumerate(nodes):
            if scene.progress is not None and time.monotonic() - told > TELL:
                scene.progress(at, len(nodes))
                told = time.monotonic()
            faults += play.node(node)
    return grouped(faults)


class Rehearsal:
    """Boots nodes on paper. With `thorough` off what may differ between nodes is looked at for one of each kind."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._paper = scene.paper
        self._alike: dict[str, list[Fault]] = {}

    def node(self, node: Node) -> Iterator[Fault]:
        """The stages in their order. What several of them fall over, such as an image that is not there, comes once."""
        said: set[str] = set()
        for fault in itertools.chain(self._known(node), self._loaded(node)):
            if fault.message not in said:
                said.add(fault.message)
                yield fault

    def _known(self, node: Node) -> Iterator[Fault]:
        yield from reach.known(self._scene, node)
        yield from reach.addressed(self._scene, node)

    def _loaded(self, node: Node) -> Iterator[Fault]:
        way = (node.root, node.wwfast, dracut.entry(node), self._paper.machine(node))
        kind = (node.image_name, node.ipxe_template, node.kernel, *way)
        yield from self._each(("script", kind), node, self._script)
        if node.ipxe_template == LOCAL:
            return
        yield from self._once(("files", kind), node, self._files)
        failed = {context: self._of_overlays(node, context) for context in CONTEXTS}
        yield from itertools.chain(*failed.values())
        if not failed[SYSTEM]:
            lists = (overlays_of(node, SYSTEM), overlays_of(node, RUNTIME), node.image_name, node.ipxe_template)
            made = (node.root, node.disks, node.filesystems, node.resources)
            by = (node.init, node.kernel, dracut.entry(node), *made)
            yield from self._once(("root", *lists, *by), node, self._root)

    def _of_overlays(self, node: Node, context: str) -> list[Fault]:
        kind = (context, overlays_of(node, context), node.image_name)
        return self._each(kind, node, partial(self._overlays, context=context))

    def _each(self, kind: tuple[object, ...], node: Node, look: Look) -> list[Fault]:
        return _tried(look, node)[0] if self._scene.thorough else self._once(kind, node, look)

    def _once(self, kind: tuple[object, ...], node: Node, look: Look) -> list[Fault]:
        """What was found with the first node of the kind, said of this one; a template may fail for that one alone."""
        key = repr(kind)  # there are lists in it
        found = self._alike.get(key)
        if found is not None:
            return [replace(fault, node=node.id) for fault in found]
        found, own = _tried(look, node)
        self._alike[key] = [] if own else found
        return found

    def _script(self, node: Node) -> Iterator[Fault]:
        script = self._paper.boot_script(node, self._ask(node)).text or ""
        if not SCRIPT.match(script):
            name = node.ipxe_template or "default"
            why = f"its iPXE template {name} does not begin with a line of `#!ipxe`: iPXE takes it for no script"
            yield Fault(node.id, ERROR, "templates", why, f"correct {self._scene.paths.etc}/ipxe/{name}.ipxe(.j2)")
        longest = max((len(line) for line in IMGARGS.findall(script)), default=0)
        if longest >= checks.ARGUMENTS:
            why = f"the command line of its kernel has {longest} letters and may have {checks.ARGUMENTS - 1}"
            fix = f"wwfast node set {node.id} --kernelargs ARG,..., or less of them in its profiles"
            yield Fault(node.id, ERROR, "kernel", f"{why}: those at the end are lost", fix)

    def _files(self, node: Node) -> Iterator[Fault]:
        """Kernel, image and modules: there to be sent, and made for each other."""
        image, boots = self._paper.image(node), self._paper.kernel(node)
        fmt, way = image.boot_format, self._paper.way(node, self._ask(node))
        for stage in _stages(node, way):
            plan = self._paper.plan(node, stage, self._ask(node, fmt))
            if plan.failed and image.artefact(fmt):  # one that is not built is told by the script
                yield Fault(node.id, ERROR, str(stage), plan.reason)
        if way and way.root in ("", DRACUT):
            yield from initrd.unpacks(node, image, boots, GZ if way.root else fmt)
        if way and (on_disk(node.wwfast.cache) or node.wwfast.disk_root == UPDATE):
            yield from _kept(node, way, self._paper.boot_script(node, self._ask(node)).text or "")
        if way and way.root == DRACUT:
            yield from initramfs.fetches(node, image, boots, self._scene.settings)

    def _overlays(self, node: Node, *, context: str) -> Iterator[Fault]:
        self._paper.overlays.rehearse(self._scene.snapshot, node, context)
        return iter(())

    def _root(self, node: Node) -> Iterator[Fault]:
        image = self._paper.image(node)
        root = initrd.Root(image, self._paper.overlays.laid(self._scene.snapshot, node, SYSTEM))
        by_dracut = dracut.entry(node) != ""
        yield from initrd.starts(node, root, initrd.RUN_INIT if by_dracut else initrd.first_program(node))
        script = self._paper.boot_script(node, self._ask(node)).text or ""
        preloads = by_dracut or f"/{Stage.RUNTIME}/" in script or stage1.PRELOADS in script
        yield from initrd.refreshed(node, root, preloads)
        yield from disks.prepared(node, root, self._paper.kernel(node))

    def _ask(self, node: Node, fmt: str = "") -> Ask:
        mac = next((it.hwaddr for it in node.network_devices.values() if it.hwaddr), WITHOUT)
        return Ask(mac, compress=fmt, machine=self._paper.machine(node))


def _stages(node: Node, way: Choice | None) -> tuple[Stage, ...]:
    """What its boot loader fetches, but for overlays."""
    if way and way.root:
        return Stage.KERNEL, Stage.INITRAMFS if way.root == DRACUT else Stage.STAGE1
    return Stage.KERNEL, Stage.IMAGE, *([Stage.KMODS] if node.kernel.override else [])


def _kept(node: Node, way: Choice, script: str) -> Iterator[Fault]:
    """A cache or a root on the node's disk that nothing comes of, or that stage-1 does not find."""
    build = f"wwfast image build {names.split(node.image_name)[0]}"
    if node.kernel.override:
        build += f"; wwfast kernel import --force SOURCE {node.kernel.override}"
    why, fix = "", ""
    if way.root == DRACUT:
        why, fix = f"the image comes {way.way.name}", "unset the tag IPXEMenuEntry or GrubMenuEntry"
    elif node.wwfast.two_stage == NEVER:
        why, fix = "two stage is never", f"wwfast node set {node.id} --twostage auto"
    unused = f"stage-1 is not built with programs and drivers for disks, or not used ({way.why})"
    if on_disk(node.wwfast.cache):
        of_udev = next((it for it in (node.wwfast.cache, *node.disks, *node.filesystems) if it.startswith(OF_UDEV)), "")
        reason, hint = why, fix
        if not why and stage1.CACHES not in script:
            reason, hint = unused, build
        elif not why and of_udev:
            reason = f"stage-1 has no udev, which makes {of_udev}"
            hint = "name it by /dev/disk/by-partlabel, LABEL= or UUID="
        if reason:
            yield Fault(node.id, WARNING, "cache", f"the cache {node.wwfast.cache} has no effect: {reason}", hint)
    if node.wwfast.disk_root == UPDATE:
        if not on_disk(node.root):
            why, fix = "its root is on no disk", f"wwfast node set {node.id} --root DEVICE"
        elif not why and stage1.UPDATES not in script:
            why, fix = unused, build
        if why:
            yield Fault(node.id, WARNING, "disk root", f"disk root {UPDATE} has no effect: {why}", fix)


def _tried(look: Look, node: Node) -> tuple[list[Fault], bool]:
    """What it finds, and what it falls over; and whether that may be for something of this very node."""
    try:
        return list(look(node)), False
    except WwfastError as error:
        return [Fault(node.id, ERROR, "boot", error.message, error.hint or "")], isinstance(error, ConfigError)
    except OSError as error:
        return [Fault(node.id, ERROR, "boot", f"{error.filename}: {error.strerror}")], False
