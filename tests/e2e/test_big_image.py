"""An image of more than 4 GiB, packed: neither BIOS nor a kernel takes it in one stage. `make big-image`."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.lab import Laboratory, Namespace
from wwfast.demo.cluster import IMAGE

pytestmark = [pytest.mark.vm, pytest.mark.soak, pytest.mark.timeout(5400)]

FILES, EACH = 3, 1500  # MiB each, of noise
MEMORY = 6144
ROOM = 30 << 30  # bytes: the tree, and what is packed of it in three forms


@pytest.fixture
def site(lab: Laboratory, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laboratory]:
    room = tmp_path_factory.mktemp("big")
    if shutil.disk_usage(room).free < ROOM:
        pytest.skip(f"needs {ROOM >> 30} GiB of disk")
    with Namespace(label="big") as network:
        made = Laboratory(room, network, lab.tree)
        made.configure()
        made.make_keys()
        made.populate()
        for number in range(FILES):
            noise(made.paths.chroots / IMAGE / f"rootfs/opt/noise{number}", EACH)
        made.add_node("big", 1, "--root", "squashfs")
        made.wwfast("image", "build", IMAGE, timeout=3000)
        made.serve()
        yield made
        made.stop()
    shutil.rmtree(room)


def noise(file: Path, mib: int) -> None:
    with file.open("wb") as out:
        for _ in range(mib):
            out.write(os.urandom(1 << 20))


def test_big_image_of_more_than_4_gib_boots_on_bios(site: Laboratory) -> None:
    ours = site.paths.chroots / IMAGE / "rootfs/opt"
    with site.machine("big", 1, memory=MEMORY) as vm:
        vm.wait(timeout=3000)
        vm.wait_ssh()
        assert vm.ssh("stat -f -c %T /").strip() == "overlayfs"
        for number in range(FILES):
            with (ours / f"noise{number}").open("rb") as file:
                file.seek((EACH - 1) << 20)
                wanted = file.read()
            assert (len(wanted), vm.ssh(f"stat -c %s /opt/noise{number}").strip()) == (1 << 20, str(EACH << 20))
            name = f"/opt/noise{number}"
            assert vm.ssh(f"tail -c 1M {name} | cksum").strip() == cksum(wanted)


def cksum(data: bytes) -> str:
    return subprocess.run(["cksum"], input=data, capture_output=True, check=True).stdout.decode().strip()
