"""Where the distributions keep their iPXE binaries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from wwfast.errors import WwfastError
from wwfast.system import settled

# Debian and Ubuntu /usr/lib/ipxe and /boot; RHEL, Fedora and SUSE /usr/share/ipxe; then local builds.
SEARCH = (
    Path("/usr/share/ipxe"),
    Path("/usr/lib/ipxe"),
    Path("/boot"),
    Path("/usr/local/share/ipxe"),
    Path("/var/lib/tftpboot/warewulf"),
)
# The same binary under the names of several distributions; first match wins. snponly drives the one card the
# firmware booted from with the firmware's driver, which is what most sites want.
ALIASES: dict[str, tuple[str, ...]] = {
    "undionly.kpxe": ("undionly.kpxe",),
    "ipxe-snponly-x86_64.efi": ("ipxe-snponly-x86_64.efi", "snponly.efi", "x86_64-efi/snponly.efi", "ipxe.efi"),
    "snponly.efi": ("snponly.efi", "ipxe-snponly-x86_64.efi"),
    "ipxe-x86_64.efi": ("ipxe-x86_64.efi", "ipxe.efi"),
    "arm64-efi/snponly.efi": ("arm64-efi/snponly.efi", "snp-arm64.efi", "ipxe-arm64.efi"),
    "snp-arm64.efi": ("snp-arm64.efi", "arm64-efi/snponly.efi", "ipxe-arm64.efi"),
}
HINT = "install the package ipxe (Debian, Ubuntu) or ipxe-bootimgs (RHEL, SUSE), or set `paths: ipxesource`"
# Debian 12's package ipxe holds binaries for x86 alone.
HINT_ARM = "install ipxe-bootimgs-aarch64 (RHEL), or put one of your own below `paths: ipxesource`; ARM nodes only"


@dataclass(frozen=True, slots=True)
class Binary:
    """One iPXE binary: `name` is what clients ask for, `path` where it lies."""

    arch: str
    name: str
    path: Path

    def read(self) -> bytes:
        try:
            return settled.read(self.path)
        except OSError as error:
            raise WwfastError(f"cannot read the iPXE binary {self.path}: {error.strerror}", hint=HINT) from error


def find(arch: str, wanted: str, source: Path | None) -> Binary | None:
    """The file for one entry of `tftp: ipxe`: an absolute path as it is, else `source` and the search list."""
    if Path(wanted).is_absolute():
        return Binary(arch, Path(wanted).name, Path(wanted)) if _holds(Path(wanted)) else None
    folders = ((source,) if source else ()) + SEARCH
    for name in ALIASES.get(wanted, (wanted,)):
        for folder in folders:
            if _holds(folder / name):
                return Binary(arch, flat_name(arch, name), folder / name)
    return None


def _holds(file: Path) -> bool:
    """Whether it is a file and not an empty one, as what a copy on a full disk leaves."""
    return file.is_file() and file.stat().st_size > 0


def flat_name(arch: str, name: str) -> str:
    """Clients ask for a base name; two architectures may have a file of the same name (snponly.efi)."""
    base = Path(name).name
    return f"arm64-{base}" if arch == "00:0B" and "arm" not in base else base


def hint(arch: str) -> str:
    """How to come by the missing binary of an architecture."""
    return HINT_ARM if arch == "00:0B" else HINT


def find_all(wanted: Mapping[str, str], source: Path | None) -> tuple[list[Binary], dict[str, str]]:
    """What was found, and a complaint for each architecture whose entry is missing."""
    found: list[Binary] = []
    missing: dict[str, str] = {}
    for arch, name in sorted(wanted.items()):
        binary = find(arch, name, source)
        if binary:
            found.append(binary)
        else:
            missing[arch] = f"no iPXE binary {name} for architecture {arch}"
    return found, missing


def apart(found: Sequence[Binary]) -> list[Binary]:
    """Each file under a name of its own: of two that are called alike the second has its architecture before it."""
    first: dict[str, Path] = {}
    for binary in found:
        first.setdefault(binary.name, binary.path)
    return [
        it if it.path == first[it.name] else replace(it, name=f"{it.arch.replace(':', '-').lower()}-{it.name}")
        for it in found
    ]


class BootFiles:
    """The iPXE binaries in memory, under the names that clients ask for; what is on the disk is read by `load`."""

    def __init__(self, found: list[Binary], wanted: Mapping[str, str]) -> None:
        """`wanted`: names in warewulf.conf by architecture. A DHCP server of the site's own tells these, whatever the
        distribution calls its file."""
        self.by_arch: Mapping[str, str] = {}
        self._data: dict[str, bytes] = {}
        self._stamps: dict[Binary, tuple[int, ...]] = {}
        self._wanted = wanted
        self._take(found)

    @classmethod
    def load(cls, wanted: Mapping[str, str], source: Path | None) -> BootFiles:
        return cls(find_all(wanted, source)[0], wanted)  # what is missing, `health` tells

    def refresh(self, source: Path | None) -> None:
        """Read anew what changed, in a thread. What cannot be found or read now stays as it was."""
        found = find_all(self._wanted, source)[0]
        there = {binary.arch for binary in found}
        self._take([*(one for one in self._stamps if one.arch not in there), *found])

    def places(self) -> set[Path]:
        """Directories and files where a change may make a difference."""
        found = {binary.path for binary in self._stamps}
        return found | {path.parent for path in found} | set(SEARCH)

    def _take(self, found: list[Binary]) -> None:
        data: dict[str, bytes] = {}
        stamps: dict[Binary, tuple[int, ...]] = {}
        found = apart(found)
        for binary in found:
            stamps[binary] = stamp = _stamp(binary.path)
            known = self._data.get(binary.name)
            same = known is not None and (not stamp or self._stamps.get(binary) == stamp)
            data[binary.name] = known if same and known is not None else binary.read()
        for binary in found:
            data.setdefault(flat_name(binary.arch, self._wanted[binary.arch]), data[binary.name])
        self.by_arch = {binary.arch: binary.name for binary in found}
        self._data, self._stamps = data, stamps

    def bodies(self) -> list[bytes]:
        return list(self._data.values())

    def get(self, name: str) -> bytes | None:
        """`snponly.efi`, `/snponly.efi` and Warewulf's `warewulf/snponly.efi` are one file; nothing else exists."""
        return self._data.get(name.lstrip("/").removeprefix("warewulf/"))


def _stamp(path: Path) -> tuple[int, ...]:
    """What tells a file from another one at its place; empty where there is none."""
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
