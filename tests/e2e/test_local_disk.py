"""A machine that asks the network, and boots the system on its own disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.efi import program
from support.lab import Laboratory, Namespace
from wwfast.demo.debian import Tree

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(900)]

SAID = b"HERE IS THE LOCAL DISK"
#: Of all that the firmware may try before the disk, what comes from the network once more.
ONLY_IPV4 = ("-fw_cfg", "name=opt/org.tianocore/IPv6Support,string=n")


def test_local_disk_is_booted_by_uefi_where_the_script_says_so(debian: Tree, tmp_path: Path) -> None:
    """iPXE ends, and the firmware goes on to the next in its order."""
    disk = tmp_path / "esp"
    (disk / "EFI/BOOT").mkdir(parents=True)
    (disk / "EFI/BOOT/BOOTX64.EFI").write_bytes(program(SAID))
    drive = ("-drive", f"if=none,id=local,format=raw,readonly=on,file=fat:{disk}")
    device = ("-device", "virtio-blk-pci,drive=local,bootindex=1")
    with Namespace(label="local") as network:
        site = Laboratory(tmp_path / "site", network, debian)
        site.configure()
        site.add_node("n1", 1, "--ipxe", "localdisk")
        site.serve()
        try:
            with site.machine("n1", 1, firmware="uefi", memory=384, extra=[*drive, *device, *ONLY_IPV4]) as vm:
                vm.wait("node n1 boots from its own disk", 300)
                vm.wait(SAID.decode(), 300)
            assert [part["stage"] for part in site.status("n1")["boot"]].count("kernel") == 0
        finally:
            site.stop()
