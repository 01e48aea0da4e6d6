"""The use cases: what may be built, deleted, written and pinned, whose boot a change strands, what a plan would change.

The command line asks and prints around these, and so will the API: nothing here prints, asks or ends the process. What
is refused is an error for people (WwfastError); what is told beside is told by `warn`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from wwfast.api import references
from wwfast.api.entries import Place, Warn, nowhere, wrong_values
from wwfast.errors import ConfigError, UsageError, WwfastError
from wwfast.nodes import uses
from wwfast.nodes.edit.store import Change, Draft, Store
from wwfast.nodes.registry import Snapshot
from wwfast.nodes.text.source import NODES, PROFILES, Source
from wwfast.paths import Paths

if TYPE_CHECKING:
    from wwfast.config.settings import Settings
    from wwfast.images.building import How
    from wwfast.images.kernels.detect import Kernel
    from wwfast.images.kernels.store import KernelEntry
    from wwfast.images.stage1.rules import Choice
    from wwfast.images.store import Build

SHOWN = 10  # faults told of one change


@dataclass(slots=True)
class Plan:
    """What a change of nodes.conf would do, and what speaks against it."""

    draft: Draft
    result: Source
    made: Snapshot  # the nodes as they would be
    paths: Paths
    faults: list[str]  # wrong values, references to nothing, addresses taken twice

    def stranded(self) -> list[str]:
        """What keeps nodes from booting once it is written, one line a cause."""
        return references.unbootable(self.draft, self.made, self.paths)

    def accept(self, *, force: bool, warn: Warn) -> None:
        """Raises ConfigError for faults unless forced; warns of them then, and else of nodes that could not boot."""
        if self.faults and not force:
            raise ConfigError("\n".join(self.faults[:SHOWN]), hint="--force writes it all the same")
        for line in self.faults or self.stranded()[:SHOWN]:
            warn(line)


@dataclass(frozen=True, slots=True)
class Built:
    """What became of a build: `changed` is False when nothing had to be done."""

    build: Build
    changed: bool
    warnings: list[str] = field(default_factory=list)


class Service:
    """Of one installation. `snapshot` gives the nodes as they are now; it and the settings are asked when needed."""

    def __init__(self, paths: Paths, settings: Callable[[], Settings], snapshot: Callable[[], Snapshot]) -> None:
        self.paths = paths
        self._settings = settings
        self._snapshot = snapshot

    # --- nodes.conf ------------------------------------------------------------------------------------------

    def store(self) -> Store:
        return Store(self.paths, history=self._settings().wwfast.history)

    def plan(self, edit: Change, place: Place = nowhere) -> Plan:
        """What the change would do; nothing is written. `place`: where the text it came from says something."""
        return self._planned(*self.store().draft(edit), place)

    def _planned(self, draft: Draft, result: Source, place: Place) -> Plan:
        faults = wrong_values(draft.changes(), place)
        made = Snapshot(result)
        faults += references.faults(draft, made, self.paths, self._settings())
        return Plan(draft, result, made, self.paths, faults)

    def write(
        self,
        edit: Change,
        *,
        why: str,
        warn: Warn,
        force: bool = False,
        place: Place = nowhere,
        agree: Callable[[Plan], bool] | None = None,
    ) -> Draft | None:
        """Check and write. `agree` is asked without the lock, as a person may take long; None when it says no.

        A draft without changes: nothing was to be done, and nothing was written.
        """
        agreed = True

        def judge(draft: Draft, result: Source) -> None:
            self._planned(draft, result, place).accept(force=force, warn=warn)

        def review(draft: Draft, result: Source) -> bool:
            nonlocal agreed
            plan = self._planned(draft, result, place)
            plan.accept(force=force, warn=warn)
            agreed = agree is None or agree(plan)
            return agreed

        if agree is None:
            return self.store().change(edit, why=why, judge=judge)
        done = self.store().change(edit, why=why, review=review)
        return done if agreed or not done.changes() else None

    # --- images ----------------------------------------------------------------------------------------------

    def roots_of(self, name: str) -> list[str]:
        """The forms of an image that stage-1 makes the roots of its nodes of."""
        from wwfast.archive.artefact import DISK, FILESYSTEMS, TMPFS
        from wwfast.config.checks import ALWAYS, NEVER, on_disk

        nodes = uses.having(self._snapshot(), name)
        roots = {node.root for node in nodes if node.wwfast.two_stage != NEVER}
        if "ramfs" in roots or any(node.wwfast.two_stage == ALWAYS and node.root not in FILESYSTEMS for node in nodes):
            roots.add(TMPFS)
        if any(map(on_disk, roots)):
            roots.update((TMPFS, DISK))
        caching = [node for node in nodes if on_disk(node.wwfast.cache) and node.wwfast.two_stage != NEVER]
        if caching:
            roots.update((DISK, *(TMPFS for node in caching if node.root not in FILESYSTEMS)))
        return [kind for kind in (*FILESYSTEMS, TMPFS, DISK) if kind in roots]

    def least_memory(self, name: str) -> int:
        """MiB of the smallest machine known to boot an image in whichever way fits it, 0 where none is known."""
        from wwfast.config.checks import MOUNTED, NEVER, on_disk
        from wwfast.nodes import machines

        try:
            known = machines.read(self.paths.machines)
        except WwfastError:  # the server that runs tells it
            return 0
        nodes = [node for node in uses.having(self._snapshot(), name) if node.id in known]
        free = (it for it in nodes if it.wwfast.two_stage != NEVER and it.root not in MOUNTED and not on_disk(it.root))
        return min((known[node.id] for node in free), default=0)

    def boots_by_dracut(self, name: str) -> bool:
        """Whether nodes of an image boot by the initramfs in it, which unpacks gzip alone."""
        from wwfast.boot import dracut

        return any(dracut.entry(node) != "" for node in uses.having(self._snapshot(), name))

    def stranded(self, name: str) -> list[str]:
        """What keeps nodes of an image from booting the build that is served now, one line a cause."""
        nodes = uses.having(self._snapshot(), name)
        return references.without_kernel(nodes, self.paths)

    def stranded_by(self, data: bytes) -> list[str]:
        """What would keep nodes from booting by these bytes of nodes.conf and keeps none now, one line a cause: undo
        takes back what an image was called in nodes.conf, and not the image's name."""
        try:
            before = Snapshot(Source.parse(data, str(self.paths.nodes_conf)))
            now = set(references.without_kernel(self._snapshot().nodes.values(), self.paths))
        except ConfigError:  # one of them is what is to be got rid of, or back
            return []
        return [line for line in references.without_kernel(before.nodes.values(), self.paths) if line not in now]

    def build_image(self, name: str, how: How) -> Built:
        """Pack an image. What nodes boot, and what may not be thrown away, is found here."""
        from wwfast.archive.artefact import DISK, GZ, TMPFS
        from wwfast.images import building

        by_dracut = self.boots_by_dracut(name)
        formats = (*how.formats, *self.roots_of(name), *([GZ] if by_dracut else []))
        disks = DISK in formats
        more = replace(
            how,
            formats=(*formats, TMPFS) if DISK in how.formats else formats,
            dracut=by_dracut,
            memory=self.least_memory(name),
            in_use=uses.pinned(self._snapshot()),
            boots=uses.booted_kernels(self._snapshot(), name),
            spare=self._settings().wwfast.kernel_modules != "all",
            drivers=self.stage1_drivers(disks=disks),
        )
        made, changed = building.build(self.paths, name, more)
        return Built(made, changed, made.manifest().warnings if changed else [])

    def stage1_drivers(self, *, disks: bool) -> Choice:
        """Which drivers are in the first stage of two. Raises ConfigError naming file and line of a bad rule."""
        from wwfast.images.stage1 import rules

        found = rules.read(self.paths.etc / rules.FILE)
        return rules.Choice(found, self._settings().wwfast.stage1_infiniband, disks)

    def import_kernel(
        self, source: str, name: str, *, version: str = "", force: bool = False, strip: bool = False
    ) -> KernelEntry:
        """As KernelStore.import_, with what stage-1 needs of it."""
        from wwfast.config.checks import on_disk
        from wwfast.images.kernels.store import KernelStore
        from wwfast.images.stage1 import making

        disks = any(on_disk(node.root) or on_disk(node.wwfast.cache) for node in self._snapshot().nodes.values())
        choice, former = self.stage1_drivers(disks=disks), self.paths.kernels / name / making.PLACE

        def drivers(tree: Path, new: Path, found: Sequence[Kernel]) -> None:
            job = making.Job(tree, f"kernel {name}", new / making.PLACE, self.paths.frames, former, choice)
            making.kernels(job, found)

        return KernelStore(self.paths).import_(source, name, version=version, force=force, strip=strip, beside=drivers)

    def check_deletable_images(self, names: Iterable[str]) -> None:
        """Raises WwfastError when one of them is not there or still used; to be asked before the first is gone."""
        from wwfast.images import manage
        from wwfast.images.names import check
        from wwfast.images.store import ImageStore

        store = ImageStore(self.paths)
        for name in names:
            owners = () if manage.follows(self.paths, name) else uses.owners(self._snapshot(), name)
            manage.refuse_used(store.get(check(name)), owners)

    def delete_image(self, name: str) -> None:
        from wwfast.images import manage

        manage.delete(self.paths, name, used_by=uses.owners(self._snapshot(), name))

    def rename_image(self, old: str, new: str) -> int:
        """The image, and its name in nodes.conf; how many nodes and profiles that changed. Both or neither."""
        from wwfast.images import manage, names

        def rewrite(draft: Draft) -> None:
            for section in (PROFILES, NODES):
                for name, tree in draft.source.trees[section].items():
                    named = str((tree or {}).get("image name", "") if isinstance(tree, dict) else "")
                    if uses.base(named) == old:
                        draft.get(section, name)["image name"] = new + named[len(old) :]

        manage.rename(self.paths, names.check(old), new)
        try:
            done = self.store().change(rewrite, why=f"image rename {old} {new}")
        except BaseException:
            manage.unrename(self.paths, old, new)
            raise
        manage.renamed(self.paths, new)
        return len(done.changes())

    # --- kernels and overlays --------------------------------------------------------------------------------

    def kernel_users(self, name: str) -> list[str]:
        """Nodes, and profiles that may have no nodes yet, that name a kernel."""
        snapshot = self._snapshot()
        profiles = [f"profile {key}" for key, it in snapshot.profiles.items() if it.kernel.override == name]
        return profiles + [node.id for node in snapshot.nodes.values() if node.kernel.override == name]

    def overlay_users(self, name: str) -> list[str]:
        nodes = self._snapshot().nodes.values()
        return [node.id for node in nodes if name in node.system_overlay or name in node.runtime_overlay]

    def delete_from_overlay(self, name: str, file: str | None, *, force: bool, parents: bool) -> None:
        """A file of an overlay, or (None) a site overlay: refused while nodes use it and none shipped takes its
        place."""
        from wwfast.overlays.files import edit, model

        used: Sequence[str] = () if file else self.overlay_users(name)
        if used and model.distribution(self.paths, name) is None and not force:
            raise UsageError(
                f"overlay {name} is used by {len(used)} nodes, for example {used[0]}",
                hint="delete it all the same: --force",
            )
        edit.delete(self.paths, name, file, force=force, parents=parents)
