"""Kernels that no node boots: their modules, hundreds of MiB of every node's memory, stay out of what is packed."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from glob import escape
from pathlib import Path

from wwfast.images.kernels import detect
from wwfast.images.kernels.detect import Kernel
from wwfast.system import within


def spare(root: Path, found: Sequence[Kernel], wanted: Collection[str]) -> dict[str, str]:
    """Releases among the kernels `found` that nodes can do without, each with the exclude rule for its modules.

    Kept are the modules of the default kernel, of those that `wanted` chooses (what nodes write as `kernel: version`),
    what these borrow from others (weak-updates), and modules without a kernel in the tree. Nothing is spare where the
    modules of a kept kernel are not found: then the names mean something else than we think.
    """
    kept = [detect.default(found)]
    kept += [detect.choose(found, want) or detect.by_path(root, want) for want in wanted if want]
    homes = {kernel.release: home for kernel in found if (home := detect.modules(root, kernel.release))}
    needed = {homes.get(kernel.release) for kernel in kept if kernel is not None}
    if not needed or None in needed:
        return {}
    lenders = {home for each in needed if each for target in borrowed(root, each) for home in target.parents}
    return {
        release: escape(str(home.relative_to(root)))
        for release, home in sorted(homes.items())
        if home not in needed and home not in lenders
    }


def borrowed(root: Path, home: Path) -> Iterator[Path]:
    """Modules of other kernels that the one in `home` uses: the links that RHEL and SUSE keep in weak-updates."""
    for directory, _, names in os.walk(home / "weak-updates"):
        for name in names:
            seen = Path("/", Path(directory, name).relative_to(root))
            if (target := within.resolve(root, str(seen))) is not None:
                yield target
