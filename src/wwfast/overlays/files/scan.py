"""Overlays in use: their entries, kept up to date by watching their directories."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from wwfast.errors import ConfigError, WwfastError
from wwfast.overlays.files import model
from wwfast.overlays.files.model import Item
from wwfast.paths import Paths
from wwfast.system import settled
from wwfast.system.watch import Watch, existing

log = logging.getLogger(__name__)


class Overlays:
    """Entries by overlay. The list of an unchanged overlay, and the entry of an unchanged file, stay the same.

    Without `watch` it is told by `rescan` when to look again.
    """

    def __init__(self, paths: Paths, watch: Watch | None, *, ignore_go_templates: bool) -> None:
        self._paths = paths
        self._watch = watch
        self._ignore_go = ignore_go_templates
        self._lists: dict[str, list[Item] | WwfastError] = {}

    def items(self, name: str) -> list[Item]:
        """The entries of an overlay, in the order of their names. Raises what is wrong with it."""
        if name not in self._lists:
            self._watched_list(name)
        found = self._lists[name]
        if isinstance(found, WwfastError):
            raise found
        return found

    def rescan(self) -> None:
        for name in list(self._lists):
            self._watched_list(name)

    def newest(self) -> float:
        """When a file of these overlays was last written or made, seconds since the epoch."""
        items = (item for found in self._lists.values() if isinstance(found, list) for item in found)
        return max((item.signature.mtime for item in items if item.kind == model.FILE), default=0) / 1e9

    def _whole(self, name: str) -> list[Item]:
        """The entries of an overlay, when none of its files is being written. Raises WwfastError, OSError."""
        end = time.monotonic() + settled.UNSETTLED
        while True:
            items = model.find(self._paths, name).items()
            written = next((item.path for item in items if _being_written(item)), None)
            if written is None:
                return items
            if time.monotonic() > end:
                raise ConfigError(f"overlay {name}: {written}: {settled.BUSY}")
            time.sleep(settled.SETTLED)

    def _watched_list(self, name: str) -> None:
        """List it; once more if a directory was not watched yet, for what happened before it was."""
        while True:
            self._lists[name] = self._list(name)
            if self._watch is None:
                return
            places = [*map(existing, self._paths.overlay_search), *self._places(name)]
            if not self._watch.follow(self._ways(name)) | self._watch.add(places):
                return

    def _ways(self, name: str) -> Iterable[Path]:
        """Where links may lead, and directories above be renamed; what is shipped stays where it is."""
        yield from (self._paths.site_overlays, self._paths.warewulf_overlays)
        with suppress(WwfastError):
            overlay = model.find(self._paths, name)
            if not overlay.distribution:
                yield overlay.rootfs

    def _places(self, name: str) -> Iterable[Path]:
        try:
            overlay = model.find(self._paths, name)
        except WwfastError:
            return
        yield overlay.path
        yield overlay.rootfs
        items = self._lists[name]
        if isinstance(items, list):
            own = not overlay.distribution
            yield from (item.source for item in items if item.kind == model.DIRECTORY or (own and item.aliased))

    def _list(self, name: str) -> list[Item] | WwfastError:
        try:
            items = self._read(name)
        except WwfastError as error:
            return error
        except OSError as error:
            return WwfastError(f"overlay {name}: {error.strerror}: {error.filename}")
        before = self._lists.get(name)
        if not isinstance(before, list):
            return items
        known = {item.path: item for item in before}
        same = [known[item.path] if known.get(item.path) == item else item for item in items]
        return before if len(same) == len(before) and all(a is b for a, b in zip(same, before, strict=True)) else same

    def _read(self, name: str) -> list[Item]:
        items = self._whole(name)
        go = [item for item in items if item.kind != model.DIRECTORY and item.path.endswith(model.GO_TEMPLATE)]
        if not go:
            return items
        shipped = model.distribution(self._paths, name)
        if shipped is not None and self._ignore_go:
            log.warning("overlay %s: the site's copy has Go templates, so the one of wwfast is used", name)
            return shipped.items()
        for item in go:
            if item.kind == model.LINK:
                raise ConfigError(
                    f"overlay {name}: {item.path} is a symbolic link to a template",
                    hint="put the template there itself: a link has neither mode nor owner for what it makes",
                )
        ported = {item.output for item in items if item.path.endswith(model.TEMPLATE)}
        return [item for item in items if item not in go or item.output not in ported]


def _being_written(item: Item) -> bool:
    if item.kind != model.FILE or not settled.recent(item.signature.mtime):
        return False
    with item.source.open("rb") as file:
        return settled.being_written(file.fileno())
