"""A Warewulf site becomes ours: what is the same, what is not, what is left to do, and steps that can be taken back.

Where its files are those of this server, they stay where they are and are used there. Those of another root are copied.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

from wwfast.api import site as sites
from wwfast.api import upgrading
from wwfast.api.host import Host, HostFile
from wwfast.api.service import Service
from wwfast.api.site import Finding, Site
from wwfast.bmc.commands import TEMPLATES
from wwfast.config.settings import lacking, load, parse
from wwfast.errors import ConfigError
from wwfast.images import manage
from wwfast.images.kernels.store import KernelStore
from wwfast.images.sources import importing
from wwfast.images.store import ImageStore
from wwfast.nodes import hostlist, uses
from wwfast.nodes.edit.store import Store
from wwfast.nodes.registry import Registry
from wwfast.nodes.text.source import NODES, PROFILES, Source
from wwfast.overlays.files import model
from wwfast.paths import Paths
from wwfast.system import files, within, work

WHY = "import warewulf"
TOLD = 20  # faults of nodes that are told one by one
#: Why a service of each section of warewulf.conf is to be stopped.
REPLACED = {
    "warewulf": "the server takes its place",
    "dhcp": "the server has DHCP inside and reads nothing of this one's files; to keep it: `dhcp: {enabled: false}`",
    "tftp": "the server has TFTP inside; to keep it for others: `tftp: {enabled: false}`",
}


class Step(NamedTuple):
    """One thing to do, and the command that takes it back (none: another step's does); `run` gives what to warn of. It
    raises WwfastError where nothing was done."""

    name: str
    does: str
    undo: str
    run: Callable[[], list[str]]


@dataclass(slots=True)
class Plan:
    site: Site
    same: list[str] = field(default_factory=list)
    differs: list[Finding] = field(default_factory=list)
    todo: list[Finding] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)

    @property
    def faults(self) -> list[Finding]:
        return self.site.faults

    def accept(self) -> None:
        """Raises ConfigError where something keeps the site from being taken over."""
        if self.faults:
            raise ConfigError(
                "\n".join(
                    f"{each.what}: {each.why}" if each.what not in each.why else each.why for each in self.faults
                ),
                hint=self.faults[0].fix or "nothing was changed; correct it and try again",
            )


class Adoption:
    """Of the Warewulf below `root` by the installation of `given`."""

    def __init__(self, given: Paths, root: Path) -> None:
        self.given = given
        self.here = root.resolve() == given.root.resolve()
        kernels = set(KernelStore(given).names())
        theirs = given if self.here else Paths.at(root)
        self.site = site = sites.read(theirs, kernels.__contains__, foreign=not self.here)
        self.aside = sites.packaged(site)
        self.conf = site.conf.after
        self.paths = given
        if not site.faults:
            self.conf = self._conf()
            self.paths = parse(self.conf, given).locations
            site.settings = parse(self.conf, given if self.here else Paths.at(root))
            site.paths = site.settings.locations

    def _conf(self) -> bytes:
        """Its warewulf.conf as it is to be here: said as since 4.6, overlays of its packages left aside."""
        if not self.aside:
            return self.site.conf.after
        name = str(self.site.conf.path)
        tree = upgrading.conf_tree(self.site.conf.after, name)
        own = tree.get("wwfast") or {}
        there = own.get("overlays aside") or []
        made = {
            **tree,
            "wwfast": {**own, "overlays aside": [*there, *(name for name in self.aside if name not in there)]},
        }
        return upgrading.said(self.site.conf.after, name, tree, made)

    def plan(self) -> Plan:
        """What there is and what would be done; nothing is written."""
        plan = Plan(self.site)
        if self.site.faults:
            return plan
        parts = self._files, self._overlays, self._images, self._nodes_conf, self._builds
        for part in (*parts, self._nodes, self._settings, self._services):
            part(plan)
        return plan

    # --- warewulf.conf, nodes.conf, and the files beside them --------------------------------------------------

    def _files(self, plan: Plan) -> None:
        site, target = self.site, self._resolved(self.given.conf)
        there = target.read_bytes() if target.exists() else b""
        if self.conf == there and not self._host().begun(target):
            plan.same.append(f"warewulf.conf: {target} is read as it is")
        else:
            does = "is said as since 4.6" if site.conf.former else "is taken over"
            does += f"; overlays left aside: {', '.join(self.aside)}" if self.aside else ""
            step = f"{target} {does if self.conf != there else 'is written, and that is noted'}"
            run = partial(self._put, target, self.conf, 0o644)
            plan.steps.append(Step("warewulf.conf", step, f"wwfast configure undo {target}", run))
        plan.differs += [Finding("warewulf.conf", line) for line in site.conf.told]
        if self.here:
            return
        found = [each for name in ("keys", "tls", "ipxe") for each in sorted((site.paths.etc / name).glob("*"))]
        plain = [each for each in found if each.is_file() and not each.is_symlink()]
        news = [each for each in plain if not same(each, self._beside(each))]
        if news:
            targets = " ".join(str(self._beside(each)) for each in news)
            does = f"keys and iPXE scripts are copied to {self.paths.etc}: {len(news)} files"
            plan.steps.append(Step("keys", does, f"wwfast configure undo {targets}", partial(self._copy, news)))

    def _nodes_conf(self, plan: Plan) -> None:
        site, target = self.site, self.paths.nodes_conf
        plan.differs += [Finding("nodes.conf", line) for line in site.nodes.told]
        there = sites.content(target)
        if there == site.nodes.after:
            plan.same.append(f"nodes.conf: {target} is read as it is")
            return
        ours = Source.parse(there, str(target)).trees if not self.here else {}
        if any(ours.get(section) for section in (PROFILES, NODES)):
            why = f"{target} has nodes already, and others than {site.nodes.path}"
            site.faults.append(Finding("nodes.conf", why, f"merge them: wwfast node import {site.nodes.path}"))
            return
        does = "is said as since 4.6" if self.here else f"is taken over from {site.nodes.path}"
        plan.steps.append(Step("nodes.conf", f"{target} {does}", "wwfast undo --yes", self._write_nodes))

    def _write_nodes(self) -> list[str]:
        store = Store(self.paths, history=load(self.given).wwfast.history)
        if self.here:
            store.change(self.site.edit, why=WHY)
            return []
        with store.locked():
            store.publish(store.content(), self.site.nodes.after, WHY)
        return []

    def _resolved(self, path: Path) -> Path:
        """Where links below the root lead. Raises ConfigError where they lead nowhere."""
        if not path.is_relative_to(self.given.root):
            return path
        found = within.resolve(self.given.root, str(path.relative_to(self.given.root)), absent=True)
        if found is None:
            raise ConfigError(f"{path}: a part of its path is a file, or links lead to each other there")
        return found

    def _put(self, target: Path, content: bytes, mode: int) -> list[str]:
        """A file, kept so that `configure undo` puts back what was there."""
        before = target.read_bytes() if target.exists() else None
        self._host().write(HostFile(target, content, mode, before), force=True)
        return []

    def _host(self) -> Host:
        return Host(self.paths, self.site.settings, self.site.snapshot)

    def _beside(self, theirs: Path) -> Path:
        """The place here of a file beside their nodes.conf."""
        return self.paths.etc / theirs.relative_to(self.site.paths.etc)

    def _copy(self, found: list[Path]) -> list[str]:
        for folder in dict.fromkeys(each.parent for each in found):
            self._beside(folder).mkdir(folder.stat().st_mode & 0o777, parents=True, exist_ok=True)
        for each in found:
            self._put(self._beside(each), each.read_bytes(), each.stat().st_mode & 0o777)
        return []

    # --- overlays ------------------------------------------------------------------------------------------------

    def _overlays(self, plan: Plan) -> None:
        from wwfast.overlays.templates.porting.lint import Linter

        site, linter = self.site, Linter(self.site.paths)
        for name in self.aside:
            own = sites.only_there(site, name) if name != "debug" else []
            why = "it came with Warewulf before 4.6 and is left aside: wwfast has its own"
            plan.differs.append(Finding(f"overlay {name}", why))
            if own:
                more = f" and {len(own) - TOLD} more" if len(own) > TOLD else ""
                why = f"files that no overlay of wwfast brings: {', '.join(own[:TOLD])}{more}"
                place = site.paths.warewulf_overlays / name
                fix = f"those of the site's own: wwfast overlay create NAME, wwfast overlay import NAME {place}/..."
                plan.todo.append(Finding(f"overlay {name}", why, fix))
        for name in sites.folders(site.paths.warewulf_overlays):
            place = site.paths.warewulf_overlays / name
            if name in site.paths.overlays_aside:
                continue
            if why := sites.no_overlay(site, place):
                plan.todo.append(Finding(f"overlay {name}", why, f"remove, rename or copy {place}"))
                continue
            overlay = model.Overlay(name, place, site=False, distribution=False)
            wrong = list(linter.overlay(overlay))
            fix = "docs/templates.md says what runs; wwfast overlay lint says it again"
            plan.todo += [Finding("template", said, fix) for said in wrong]
            self._overlay(plan, overlay)

    def _overlay(self, plan: Plan, overlay: model.Overlay) -> None:
        name = overlay.name
        if model.distribution(self.paths, name) is not None:
            why = f"{overlay.path} takes the place of wwfast's own"
            plan.differs.append(Finding(f"overlay {name}", why, f"wwfast overlay diff {name}"))
        target = self.paths.site_overlays / name
        if self.here or target.exists():
            plan.same.append(f"overlay {name}: {overlay.path if self.here else target}")
            return
        undo, run = f"wwfast overlay delete {name} --force", partial(self._copy_overlay, overlay.path, target)
        plan.steps.append(Step(f"overlay {name}", f"is copied to {target}", undo, run))

    @staticmethod
    def _copy_overlay(source: Path, target: Path) -> list[str]:
        with work.directory(target.parent) as room:
            importing.copy_tree(source, room / "overlay")
            files.install(room / "overlay", target)
        return []

    # --- images --------------------------------------------------------------------------------------------------

    def _images(self, plan: Plan) -> None:
        whole, wrong = sites.images(self.site)
        plan.todo += wrong
        there = {image.name: image for image in ImageStore(self.paths)}
        for name in whole:
            if why := sites.half_built(self.site, name):
                plan.differs.append(Finding(f"image {name}", f"{why}; wwfast packs the tree itself"))
            image = there.get(name)
            if image is None or not image.own:
                does = f"a copy of its tree becomes ours: {self.paths.chroots / name}"
                undo = f"wwfast image delete {name} --yes"
                plan.steps.append(Step(f"image {name}", does, undo, partial(self._adopt, name)))
            else:
                plan.same.append(f"image {name}: it is ours already, {image.rootfs.parent}")

    def _builds(self, plan: Plan) -> None:
        """Behind nodes.conf, which says what kernels are booted. They go, or stay, with their image."""
        there = {image.name: image for image in ImageStore(self.paths)}
        for name in sites.images(self.site)[0]:
            if name not in there or there[name].build is None:
                plan.steps.append(Step(f"build {name}", "it is packed for the nodes", "", partial(self._build, name)))

    def _adopt(self, name: str) -> list[str]:
        manage.adopt(self.paths.with_(warewulf_chroots=self.site.paths.warewulf_chroots), name)
        return []

    def _build(self, name: str) -> list[str]:
        from wwfast.images.building import How

        settings, registry = load(self.given), Registry(self.paths)
        return Service(self.paths, lambda: settings, registry.snapshot).build_image(name, How()).warnings

    # --- nodes ---------------------------------------------------------------------------------------------------

    def _nodes(self, plan: Plan) -> None:
        snapshot = self.site.snapshot
        problems = snapshot.problems
        for problem in problems[:TOLD]:
            plan.todo.append(Finding(f"{problem.kind} {problem.id}".strip(), problem.message, problem.mend))
        if len(problems) > TOLD:
            plan.todo.append(Finding("nodes.conf", f"{len(problems) - TOLD} more of this kind", "wwfast doctor"))
        plan.same.append(f"nodes: {len(snapshot.nodes)} nodes, {len(snapshot.profiles)} profiles")
        for kind, name, nodes in self._missing(plan):
            who = hostlist.compress(nodes)
            fix = f"wwfast {kind} list; give them another: wwfast node set '{who}' --help"
            plan.todo.append(Finding(f"{kind} {name}", f"it is named by {who} and is not there", fix))

        self._bmcs(plan)

    def _bmcs(self, plan: Plan) -> None:
        """Templates of BMC commands: ours are the words of ipmitool.tmpl, and no template is run."""
        found: dict[str, list[str]] = {}
        for node in self.site.snapshot.nodes.values():
            if node.ipmi.template not in TEMPLATES:
                found.setdefault(node.ipmi.template, []).append(node.id)
        for name, nodes in found.items():
            who = hostlist.compress(nodes)
            why = f"{who} have it as `ipmi: template`; power calls ipmitool itself and runs no template"
            plan.todo.append(Finding(name, why, f"wwfast node set '{who}' --ipmitemplate ipmitool.tmpl"))

    def _missing(self, plan: Plan) -> Iterator[tuple[str, str, list[str]]]:
        """Images and overlays that nodes name in vain, and which nodes."""
        images = {*sites.images(self.site)[0], *(image.name for image in ImageStore(self.paths))}
        overlays = {*model.names(self.site.paths), *model.names(self.paths), *model.ALIASES}
        found: dict[tuple[str, str], list[str]] = {}
        for node in self.site.snapshot.nodes.values():
            if node.image_name and uses.base(node.image_name) not in images:
                found.setdefault(("image", node.image_name), []).append(node.id)
            for name in dict.fromkeys((*node.system_overlay, *node.runtime_overlay)):
                if name not in overlays:
                    found.setdefault(("overlay", name), []).append(node.id)
        return ((kind, name, nodes) for (kind, name), nodes in found.items())

    # --- what stands beside ----------------------------------------------------------------------------------------

    def _settings(self, plan: Plan) -> None:
        from wwfast.boot.loader.script import Scripts

        for key, lack in lacking(self.site.settings):
            plan.differs.append(Finding("warewulf.conf", f"{key} is set, but {lack}"))
        plan.todo += [Finding("iPXE script", said, "wwfast overlay lint") for said in Scripts(self.site.paths).wrong()]
        if not self.here and sites.folders(self.site.paths.warewulf_files):
            source, target = self.site.paths.warewulf_files, self.paths.warewulf_files
            plan.todo.append(Finding("files", f"{source} is served by /files/", f"cp -a {source}/. {target}"))

    def _services(self, plan: Plan) -> None:
        found = dict(reversed(list(sites.units(self.site))))  # one that is both is told as DHCP
        for unit, section in reversed(found.items()):
            fix, undo = f"systemctl disable --now {unit}", f"systemctl enable --now {unit}"
            plan.todo.append(Finding(unit, REPLACED[section], fix, undo))


def same(one: Path, other: Path) -> bool:
    return other.is_file() and one.read_bytes() == other.read_bytes()
