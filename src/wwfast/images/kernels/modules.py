"""The modules of one kernel, complete: the files, an index that matches them, and the firmware they ask for."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import product
from pathlib import Path

from wwfast.errors import WwfastError
from wwfast.images.kernels import detect
from wwfast.system import within
from wwfast.system.run import LONG, run

log = logging.getLogger(__name__)

Resolve = Callable[[str], Path | None]
Matching = Callable[[str], Iterator[str]]

NOT_MODULES = ("build", "source", "vmlinuz", "vmlinuz.gz")
SUFFIXES = (".ko", ".ko.gz", ".ko.xz", ".ko.zst")
FIRMWARE = "/lib/firmware"
COMPRESSED = (".xz", ".zst")  # what the kernel looks for beside a file of firmware, and unpacks


def gather(root: Path, release: str, tree: Path, *, strip: bool = False) -> int:
    """Copy the modules of `release` from the tree `root` to `tree`/lib, with firmware; return how many modules.

    A kernel without modules (all built in) yields none. `strip` removes debugging symbols.
    """
    place = tree / "lib/modules"
    place.mkdir(parents=True, exist_ok=True)
    source = detect.modules(root, release)
    if source is None:
        return 0
    target = place / release
    run(["cp", "-a", "--reflink=auto", "--one-file-system", source, target], timeout=LONG)
    for name in NOT_MODULES:
        if (target / name).is_dir() and not (target / name).is_symlink():
            shutil.rmtree(target / name)
        else:
            (target / name).unlink(missing_ok=True)
    _follow(root, source, target)
    files = modules(target)
    if strip:
        plain = [file for file in files if file.suffix == ".ko" and not file.is_symlink()]
        if not plain and files:
            log.warning("the modules of kernel %s are compressed: --strip-debug does nothing to them", release)
        for batch in (plain[i : i + 500] for i in range(0, len(plain), 500)):
            run(["strip", "--strip-debug", *batch], package="binutils")
    if not index_matches(target, files):
        run(["depmod", "-b", tree, release], package="kmod")
        if not index_matches(target, files):
            raise WwfastError(f"modules.dep of kernel {release} does not name the modules that are there")
    firmware(root, files, tree / "lib/firmware")
    return len(files)


def _follow(root: Path, source: Path, target: Path) -> None:
    """Links that lead out of `source`, in the image or on this server, which RHEL and SUSE keep in weak-updates: the
    module itself in their place. One that leads nowhere inside the image goes: on this server it could lead to the
    server's own."""
    inside = os.path.realpath(target) + "/"
    for link in [file for file in target.rglob("*.ko*") if file.is_symlink()]:
        seen = source / link.relative_to(target)
        real = within.resolve(root, f"/{seen.relative_to(root)}")
        here = os.path.realpath(link)  # where it leads on this server, by all links on the way
        if real is not None and real.is_relative_to(source) and here.startswith(inside):
            continue
        link.unlink()
        if real is not None and real.is_file():
            shutil.copy2(real, link)


def modules(place: Path) -> list[Path]:
    return sorted(file for file in place.rglob("*.ko*") if file.name.endswith(SUFFIXES) and file.is_file())


def index_matches(place: Path, files: list[Path]) -> bool:
    """True when modules.dep names exactly the modules that are there."""
    index = place / "modules.dep"
    if not index.is_file():
        return not files
    named = {line.partition(":")[0] for line in os.fsdecode(index.read_bytes()).split("\n") if ":" in line}
    return named == {str(file.relative_to(place)) for file in files}


def firmware(root: Path, files: list[Path], target: Path) -> None:
    """Copy what modules ask for and the source has, plain or compressed; the rest was never there."""
    if within.resolve(root, FIRMWARE) is not None:
        copy_firmware(root, asked(files), target)


def asked(files: list[Path]) -> set[str]:
    """The firmware that modules name, below lib/firmware."""
    wanted: set[str] = set()
    for batch in (files[i : i + 500] for i in range(0, len(files), 500)):
        wanted |= firmware_names(run(["modinfo", "-F", "firmware", *batch], package="kmod").stdout)
    return wanted


def firmware_names(listed: bytes) -> set[str]:
    """Names, a line each, of files below lib/firmware. A module says what it likes: a name that leads elsewhere would
    be copied to there on this server, and the kernel refuses it (drivers/base/firmware_loader, since 6.12)."""
    names = os.fsdecode(listed).split("\n")
    good = {name for name in names if not within.leads_out(name)}
    if odd := sorted({*names} - good - {""}):
        log.warning("modules ask for firmware by names that lead out of lib/firmware: %s", ", ".join(map(ascii, odd)))
    return good


def firmware_files(wanted: Iterable[str], resolve: Resolve, matching: Matching) -> Iterator[tuple[str, Path]]:
    """The name below lib/firmware and the real file of each that there is, in a tree that is looked at by these."""
    for name, suffix in product(sorted(wanted), ("", *COMPRESSED)):
        path = f"{FIRMWARE}/{name}{suffix}"
        for each in matching(path) if "*" in name else (path,):
            real = resolve(each)
            if real is not None and real.is_file():
                yield each.removeprefix(f"{FIRMWARE}/"), real


def copy_firmware(root: Path, wanted: Iterable[str], target: Path) -> None:
    for name, real in firmware_files(wanted, partial(within.resolve, root), partial(within.matching, root)):
        copy = target / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(real, copy)
