"""A root file system of a test's own, with this machine's programs: a command in it sees no other."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
PLACES = dict.fromkeys(str(place) for place in (CHECKOUT, sys.base_prefix, sys.prefix))
# All mounts are of a namespace that ends with the command.
ENTER = f"""\
root=$1; binds=$2; shift 2
mount --rbind /usr "$root/usr"
for place in {" ".join(PLACES)}; do
    mkdir -p "$root$place"
    mount --bind "$place" "$root$place"
done
for pair in $binds; do
    mount --bind "${{pair%%:*}}" "$root/${{pair#*:}}"
    mount -o remount,bind,ro "$root/${{pair#*:}}"
done
for place in /proc /dev /sys; do mount --rbind "$place" "$root$place"; done
cd /
exec chroot "$root" "$@"
"""


def furnish(root: Path) -> None:
    """What every root has, but for its own files."""
    for name in ("proc", "dev", "sys", "run", "tmp", "usr", "root", "srv", "home", "boot", "etc", "var"):
        (root / name).mkdir(parents=True, exist_ok=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")


def wwfast(root: Path, binds: Mapping[Path, str] | None = None) -> list[str | Path]:
    """The command line of wwfast in `root`; `binds` are directories that are there read-only, by their path in it."""
    pairs = " ".join(f"{source}:{target}" for source, target in (binds or {}).items())
    private: list[str | Path] = ["unshare", "--mount", "--propagation", "private"]
    return [*private, "sh", "-euc", ENTER, "enter", root, pairs, sys.executable, "-m", "wwfast"]
