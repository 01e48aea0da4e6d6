"""Trees for benchmarks, made once below a directory and used again."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

SUITE = "bookworm"
BASE = "linux-image-amd64,openssh-server,curl,ca-certificates,systemd-sysv,iputils-ping,libcap2-bin"
# The firmware that drivers of ethernet cards ask for.
FIRMWARE = (
    "firmware-misc-nonfree,firmware-bnx2,firmware-bnx2x,firmware-cavium,firmware-netronome,firmware-qlogic,"
    "firmware-realtek"
)
# What nodes of a cluster have beside the base: compilers, libraries, languages, tools.
ADDED = (
    "libboost1.74-dev golang-1.19-src openjdk-17-jre-headless libllvm14 llvm-14-dev libclang-14-dev gcc-12 g++-12 "
    "gfortran-12 libstd-rust-dev vim-runtime python3-scipy python3-numpy python3-matplotlib git libicu-dev "
    "texlive-latex-extra texlive-latex-recommended python3-pandas cpp-12 libgcc-12-dev libopenblas0-pthread "
    "libhdf5-dev valgrind perl-modules-5.36"
)
UPGRADED = ("curl", "libcurl4")  # the archive and the security archive have two versions of these


def run(argv: Sequence[str | Path], cwd: Path | None = None) -> None:
    subprocess.run(
        [str(word) for word in argv], check=True, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )


def made(place: Path, name: str) -> Path:
    """The tree of that name, made if it is not there yet. `place` keeps them."""
    tree = place / name
    if not tree.is_dir():
        unfinished = place / f"{name}.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        place.mkdir(parents=True, exist_ok=True)
        {"real": _real, "generic": _generic, "typical": _typical, "many-small": _many_small, "few-huge": _few_huge}[
            name
        ](place, unfinished)
        unfinished.rename(tree)
    return tree


def _real(place: Path, tree: Path) -> None:
    run(["mmdebstrap", "--quiet", "--variant=important", f"--include={BASE}", SUITE, tree])


def _generic(place: Path, tree: Path) -> None:
    """The Debian tree with the firmware of network cards."""
    words = ["--variant=important", "--components=main,non-free-firmware", f"--include={BASE},{FIRMWARE}"]
    run(["mmdebstrap", "--quiet", *words, SUITE, tree])


def _typical(place: Path, tree: Path) -> None:
    """The Debian tree, and further packages unpacked over it: over 2 GiB and 60,000 entries."""
    run(["cp", "-a", made(place, "real"), tree])
    packages = place / "packages"
    packages.mkdir(exist_ok=True)
    run(["apt-get", "download", *ADDED.split()], cwd=packages)
    for package in sorted(packages.glob("*.deb")):
        run(["dpkg-deb", "-x", package, tree])


def _many_small(place: Path, tree: Path) -> None:
    chance = random.Random(1)
    words = [bytes(chance.choices(range(97, 123), k=chance.randint(2, 9))) for _ in range(3000)]
    for number in range(60_000):
        directory = tree / f"d{number // 1000}" / f"e{number // 50 % 20}"
        if number % 50 == 0:
            directory.mkdir(parents=True, exist_ok=True)
        (directory / f"file{number}").write_bytes(b" ".join(chance.choices(words, k=chance.randint(20, 400))))


def _few_huge(place: Path, tree: Path) -> None:
    """4 GiB in nine files, about half of it compressible."""
    tree.mkdir()
    chance = random.Random(1)
    text = b" ".join(chance.choices([b"module", b"symbol", b"table", b"string", b"\0\0\0\0", b"data"], k=200_000))
    block = (text + os.urandom(len(text)))[: 1 << 21]
    for number, blocks in enumerate([1000, 400, *[92] * 7]):
        with (tree / f"huge{number}").open("wb") as file:
            for position in range(blocks):
                file.write(block[position % 4096 :] + block[: position % 4096])


def versions(place: Path) -> tuple[list[Path], list[Path]]:
    """Package files of two versions of the same packages, to let dpkg replace one by the other for real."""
    packages = place / "upgrade"
    if not packages.is_dir():
        packages.mkdir(parents=True)
        for name in UPGRADED:
            table = subprocess.run(["apt-cache", "madison", name], capture_output=True, text=True, check=True).stdout
            both = sorted({line.split("|")[1].strip() for line in table.splitlines()})
            run(["apt-get", "download", *(f"{name}={version}" for version in both[:2])], cwd=packages)
    pairs = [sorted(packages.glob(f"{name}_*.deb")) for name in UPGRADED]
    return [pair[0] for pair in pairs], [pair[-1] for pair in pairs]


def install(tree: Path, packages: list[Path]) -> None:
    """dpkg inside the tree: files, database, triggers, log and all."""
    inside = tree / "tmp"
    for package in packages:
        shutil.copy(package, inside)
    run(["chroot", tree, "dpkg", "--install", *(f"/tmp/{package.name}" for package in packages)])
    for package in packages:
        (inside / package.name).unlink()


MAKERS = {
    "real": _real,
    "generic": _generic,
    "typical": _typical,
    "many-small": _many_small,
    "few-huge": _few_huge,
}
