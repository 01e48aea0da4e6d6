"""What the image and kernel commands share: sizes, a progress bar, building one image."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from wwfast.cli.context import App
from wwfast.cli.output import warn

if TYPE_CHECKING:
    from wwfast.images.sizes import Footprint


SIZES = ("size", "tree", "disk", "shared", "min_ram")  # facts in bytes


def size_text(count: int | None) -> str:
    """1024-based, one decimal: `1.4 GiB`."""
    if count is None:
        return "--"
    value, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            break
        value /= 1024
    return f"{count} B" if unit == "B" else f"{value:.1f} {unit}"


@contextmanager
def progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar on a terminal's standard error; elsewhere nothing."""
    import sys

    if not sys.stderr.isatty():
        yield lambda what, done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, Any] = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total or None)
            bars.update(tasks[what], completed=done)

        yield show


def warn_stranded(app: App, name: str) -> None:
    """Say which nodes cannot boot the build that is served now."""
    for line in app.service.stranded(name):
        warn(line)


def build_one(app: App, name: str, *, quiet: bool = False, **how: Any) -> dict[str, Any]:
    """Build an image; what became of it, told in lines for people unless `quiet`, and returned for programs."""
    import time

    from wwfast.images.building import How

    begun = time.monotonic()
    with progress() as shown:
        built = app.service.build_image(name, How(**how, progress=lambda a, b: shown("packing", a, b)))
    row = {
        "name": name,
        "build": built.build.id,
        "changed": built.changed,
        "seconds": round(time.monotonic() - begun, 3),
        "sizes": built.build.info.sizes,
        "without": built.build.info.without,
        "warnings": built.warnings,
    }
    if not quiet:
        _tell(row)
    warn_stranded(app, name)
    return row


def _tell(row: dict[str, Any]) -> None:
    name, build = row["name"], row["build"]
    if not row["changed"]:
        click.echo(f"{name}: nothing changed since build {build}")
        return
    sizes = ", ".join(f"{fmt} {size_text(row['sizes'][fmt])}" for fmt in ("raw", "zst", "gz") if fmt in row["sizes"])
    click.echo(f"{name}: build {build} in {row['seconds']:.1f} s, {sizes}")
    if row["without"]:
        click.echo(f"{name}: without the modules of {', '.join(row['without'])}, which no node boots")
    for warning in row["warnings"]:
        warn(f"{name}: {warning}")


def facts(app: App, made: Any, disk: Mapping[tuple[str, str], Footprint] | None = None) -> dict[str, Any]:
    """One image for list and show: counts, times as Unix seconds, sizes in bytes.

    `size` is what a node downloads, `tree` what that unpacks to (None before the first build), `sizes` those of every
    format, `disk` what the build takes here and `shared` how much of that other builds have too.
    """
    from wwfast.images.sizes import Footprint
    from wwfast.nodes import uses

    default = made.default_kernel()
    build = made.build
    takes = (disk or {}).get((made.name, build.id) if build else ("", ""), Footprint(0, 0))
    return {
        "name": made.name,
        "nodes": len(uses.users(app.registry.snapshot(), made.name)),
        "kernel": (default.release or default.version) if default else "",
        "arch": made.arch,
        "created": int(made.rootfs.parent.stat().st_mtime),
        "built": made.build.info.created if made.build else None,
        "build": made.build.id if made.build else None,
        "format": made.boot_format,
        "size": made.build.info.sizes.get(made.boot_format, 0) if made.build else 0,
        "tree": made.unpacked if build else None,
        "sizes": build.info.sizes if build else {},
        "disk": takes.disk,
        "shared": takes.shared,
        "writable": not made.readonly,
        "rootfs": str(made.rootfs),
    }


def ways_of(made: Any) -> list[dict[str, Any]]:
    """The ways in which nodes can have an image with its default kernel: MiB of memory that each needs, or what it
    lacks; none before the first build."""
    from wwfast.boot import dracut, ways
    from wwfast.boot.resolve import served
    from wwfast.errors import WwfastError

    default = made.default_kernel()
    if default is None or made.build is None:
        return []
    try:
        release, image = default.release or default.version, served(made)
        found = ways.offered(image, release)
        if image.initramfs is not None:
            found.append(dracut.offered(image, release))
    except WwfastError as error:  # damaged: `image verify` says where
        found = [ways.Way("", lacks=error.message)]
    return [{"way": way.name, "need": way.need or None, "lacks": way.lacks} for way in found]


def way_text(way: Mapping[str, Any]) -> str:
    return f"{way['way']}: {way['lacks'] or 'from ' + str(way['need']) + ' MiB of memory'}"


def cell(row: dict[str, Any], key: str) -> str:
    import time

    value = row[key]
    if key in ("created", "built"):
        return time.strftime("%d %b %y %H:%M %Z", time.localtime(value)) if value else ""
    return size_text(value) if key in SIZES else str(value)


def text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
