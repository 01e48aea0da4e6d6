"""Which kernels a tree holds, which of them is the default, and what each can do.

Search order, version pattern and ordering are Warewulf's; what it got wrong is put right: links are followed
inside the tree only, a version prefix ends at a component (`5.1` is not `5.14`) and picks the newest match, and
kernels without a version in their name (`vmlinuz-linux`, `vmlinuz-lts`) tell it themselves.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from wwfast.system import within

PATTERNS = (
    "/boot/Image-*",
    "/boot/vmlinuz-linux*",
    "/boot/vmlinuz-*",
    "/lib/modules/*/vmlinuz",
    "/lib/modules/*/vmlinuz.gz",
)
MACHINE = re.compile(r"[.-](x86_64|aarch64|ppc64le|s390x|riscv64|amd64|arm64)$")
VERSION = re.compile(r"\d+\.\d+\.\d+(?:-[\d.]+|)")
#: `uname -r`: numbers first (depmod takes no other either), no longer than the kernel has room for. It is the name of
#: directories on this server, and a word of commands.
RELEASE = re.compile(r"[0-9][!-.0-~]{0,63}")
# `+debug` (RHEL 8 and later), `-debug` (SUSE, Fedora's +rt-debug), `.debug` (RHEL 7, UEK): a word of its own behind the
# version. Rescue kernels carry `-rescue-` before it.
DEBUG = re.compile(r"[+.-]debug(?=[+.-]|$)")
#: What package managers, editors and admins leave beside a kernel: dpkg, rpm, pacman, backups.
LEFTOVER = re.compile(r"\.(dpkg-(new|old|dist|tmp)|rpm(save|new|orig)|pac(new|save|orig)|bak|old|orig|save|tmp)$|~$")

Key = tuple[bool, tuple[int, ...], bool, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Kernel:
    """One kernel: `path` as seen inside the image, `file` where its bytes are.

    `version` is `5.14.0-427.37.1` ("" when unknown), `release` what `uname -r` will say ("" when unknown) and the
    name below lib/modules; `zstd`: its configuration says that it unpacks zstd; `aside`: not in the usual places, so
    for those alone who name its path.
    """

    path: str
    file: Path
    version: str
    release: str
    zstd: bool
    aside: bool = False

    @property
    def unwanted(self) -> bool:
        """Debug and rescue kernels, and leftovers of an upgrade, are never chosen unless named by path."""
        named = (MACHINE.sub("", text) for text in (self.path, self.release))
        return "-rescue" in self.path or bool(LEFTOVER.search(self.path)) or any(map(DEBUG.search, named))

    @property
    def order(self) -> Key:
        """Sorts kernels from oldest to newest: without a version first; a suffix sorts below none."""
        numbers, _, suffix = self.version.partition("-")
        return (
            bool(self.version),
            tuple(int(n) for n in numbers.split(".") if n),
            not suffix,
            tuple(int(n) for n in suffix.split(".") if n),
        )

    @property
    def flavour(self) -> tuple[str, ...]:
        """The words of the release: `-rt-` and `-cloud-` kernels are of others than the plain one."""
        return tuple(re.findall(r"[a-z]+", MACHINE.sub("", self.release)))

    @property
    def patch(self) -> tuple[int, ...]:
        """All numbers of the release: `el9_8.0.2` after `el9_8.0.1` after `el9_8`, `rc10` after `rc2`."""
        return tuple(int(number) for number in re.findall(r"\d+", MACHINE.sub("", self.release)))

    def answers_to(self, wanted: str) -> bool:
        """True when `wanted` is a prefix of version or release that ends where a component ends."""
        return any(
            text.startswith(wanted) and not text[len(wanted) : len(wanted) + 1].isalnum()
            for text in (self.version, self.release)
            if text
        )


def kernels(root: Path) -> list[Kernel]:
    """All kernels below `root`, in search order, each file once."""
    found: dict[Path, Kernel] = {}
    for pattern in PATTERNS:
        for path in within.matching(root, pattern):
            file = within.resolve(root, path)
            if file is not None and file not in found and file.is_file():
                found[file] = examine(root, path, file)
    return list(found.values())


def examine(root: Path, path: str, file: Path) -> Kernel:
    release = _release(root, path, file)
    match = VERSION.search(path) or VERSION.search(release)
    return Kernel(path, file, match.group().rstrip(".") if match else "", release, _unpacks_zstd(root, release))


def default(found: Iterable[Kernel]) -> Kernel | None:
    """The newest kernel that is neither unwanted nor aside. Among those of one version, the newest of
    the flavour that is found first."""
    usable = [k for k in found if not (k.unwanted or k.aside)]
    first = max(usable, key=lambda k: k.order, default=None)
    if first is None:
        return None
    alike = (k for k in usable if (k.order, k.flavour) == (first.order, first.flavour))
    return max(alike, key=lambda k: k.patch)


def choose(found: Sequence[Kernel], wanted: str) -> Kernel | None:
    """The kernel a node gets: by exact path, else the newest whose version begins with `wanted`, else the default."""
    if not wanted:
        return default(found)
    path = "/" + wanted.lstrip("/")
    for kernel in found:
        if kernel.path == path:
            return kernel
    return default(k for k in found if k.answers_to(wanted))


def modules(root: Path, release: str) -> Path | None:
    """The directory of the modules of `release` below root."""
    if not release:
        return None
    real = within.resolve(root, f"/lib/modules/{release}") or within.resolve(root, f"/usr/lib/modules/{release}")
    return real if real is not None and real.is_dir() else None


def config(root: Path, release: str) -> Path | None:
    """The configuration the kernel was built with, where its package ships it."""
    if not release:
        return None
    for path in (f"/boot/config-{release}", f"/lib/modules/{release}/config", f"/usr/lib/modules/{release}/config"):
        real = within.resolve(root, path)
        if real is not None and real.is_file():
            return real
    return None


def by_path(root: Path, path: str) -> Kernel | None:
    """Any file of the tree as the kernel, named by its path and `aside`; None when there is no such file."""
    path = "/" + path.lstrip("/")
    file = within.resolve(root, path)
    return replace(examine(root, path, file), aside=True) if file is not None and file.is_file() else None


def _release(root: Path, path: str, file: Path) -> str:
    """The first of what the image says of it that is one."""
    return next((said for said in _said(root, path, file) if RELEASE.fullmatch(said)), "")


def _said(root: Path, path: str, file: Path) -> Iterator[str]:
    parts = path.split("/")
    if parts[1:3] == ["lib", "modules"]:
        yield parts[3]
        return
    label = parts[-1].partition("-")[2].removesuffix(".gz")
    if VERSION.match(label):
        yield label
    yield _header_release(file)
    # Arch writes the name of the kernel's package beside its modules.
    for base in within.matching(root, "/lib/modules/*/pkgbase"):
        real = within.resolve(root, base)
        if real is not None and real.is_file() and within.text(real).strip() == label:
            yield base.split("/")[3]
    # Alpine names the kernel by its flavour; on arm64 its header does not tell the release.
    homes = [home.split("/")[3] for home in within.matching(root, "/lib/modules/*")]
    alike = [home for home in homes if home.endswith(f"-{label}")] if label else []
    if len(alike) == 1:
        yield alike[0]


def _header_release(file: Path) -> str:
    """uname -r out of the header of an x86 bzImage (Linux/x86 boot protocol: HdrS at 0x202, kernel_version 0x20e)."""
    try:
        with file.open("rb") as stream:
            head = stream.read(0x10000)
    except OSError:
        return ""
    if head[0x202:0x206] != b"HdrS":
        return ""
    start = int.from_bytes(head[0x20E:0x210], "little") + 0x200
    text = head[start : start + 128].split(b"\0", 1)[0].decode("ascii", "replace")
    return text.split(" ", 1)[0]


def _unpacks_zstd(root: Path, release: str) -> bool:
    """CONFIG_RD_ZSTD=y in the configuration shipped beside the kernel; unknown means no, gzip always works."""
    file = config(root, release)
    return file is not None and "\nCONFIG_RD_ZSTD=y\n" in f"\n{within.text(file)}\n"


def machine(file: Path) -> str:
    """amd64, 386 or arm64 by the header of a kernel; "" when it does not tell, as when it is compressed.

    x86 boot protocol (HdrS at 0x202, XLF_KERNEL_64 in 0x236), arm64 booting.rst (`ARM\\x64` at 56), PE of the EFI stub.
    """
    try:
        with file.open("rb") as stream:
            head = stream.read(0x400)
    except OSError:
        return ""
    if head[0x202:0x206] == b"HdrS":
        return "amd64" if head[0x236:0x237] and head[0x236] & 1 else "386"
    if head[56:60] == b"ARM\x64":
        return "arm64"
    pe = int.from_bytes(head[0x3C:0x40], "little")
    if head[:2] == b"MZ" and head[pe : pe + 4] == b"PE\0\0":
        return {0x8664: "amd64", 0xAA64: "arm64", 0x14C: "386"}.get(int.from_bytes(head[pe + 4 : pe + 6], "little"), "")
    return ""
