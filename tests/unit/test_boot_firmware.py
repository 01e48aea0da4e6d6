"""Which boot file for which client, and where iPXE binaries are found."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from wwfast.boot.loader import binaries
from wwfast.boot.loader.firmware import arch_key, boot_file
from wwfast.boot.loader.urls import Urls
from wwfast.daemon.boot.addresses import BootFiles

FOUND = {"00:00": "undionly.kpxe", "00:07": "snponly.efi", "00:0B": "ipxe-arm64.efi"}
URLS = Urls("10.0.0.1:9873")
MAC = "52:54:00:00:00:01"


@dataclass
class Client:
    arch: int | None = 7
    is_ipxe: bool = False
    is_http: bool = False
    is_pxe: bool = True
    others: tuple[int, ...] = ()


@pytest.mark.parametrize(
    ("client", "name"),
    [
        (Client(arch=0), "undionly.kpxe"),
        (Client(arch=None), "undionly.kpxe"),
        (Client(arch=7), "snponly.efi"),
        (Client(arch=11), "ipxe-arm64.efi"),
        (Client(arch=6), None),
        (Client(arch=16, is_http=True, is_pxe=False), "http://10.0.0.1:9873/efiboot/snponly.efi"),
        (Client(arch=19, is_http=True, is_pxe=False), "http://10.0.0.1:9873/efiboot/ipxe-arm64.efi"),
        (Client(arch=7, is_pxe=False), None),
        (Client(arch=15, others=(7, 0)), "snponly.efi"),
        (Client(arch=15, others=(6,)), None),
        (Client(arch=15, is_http=True, is_pxe=False, others=(16,)), "http://10.0.0.1:9873/efiboot/snponly.efi"),
    ],
)
def test_boot_file_follows_architecture_and_class(client: Client, name: str | None) -> None:
    assert boot_file(client, MAC, URLS, FOUND) == name


def test_ipxe_gets_its_script_whatever_loaded_it() -> None:
    """iPXE says PXEClient and arch 7 after UEFI HTTP boot too; anything else would be a loop."""
    script = f"http://10.0.0.1:9873/ipxe/{MAC}?assetkey=${{asset:uristring}}&uuid=${{uuid}}&memsize=${{memsize}}"
    for client, firmware in (
        (Client(arch=None, is_ipxe=True), ""),
        (Client(arch=7, is_ipxe=True), "&firmware=uefi"),
        (Client(arch=16, is_ipxe=True, is_http=True), "&firmware=uefi"),
        (Client(arch=0, is_ipxe=True), "&firmware=bios"),
    ):
        assert boot_file(client, MAC, URLS, {}) == script + firmware


def test_two_binaries_of_one_name_stay_two(tmp_path: Path) -> None:
    wanted = {}
    for arch, name in (("00:06", "a/snponly.efi"), ("00:07", "b/snponly.efi"), ("00:09", "b/snponly.efi")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
        wanted[arch] = str(tmp_path / name)
    files = BootFiles.load(wanted, None)
    for _ in range(2):
        got = {arch: files.get(name) for arch, name in files.by_arch.items()}
        assert got == {"00:06": b"a/snponly.efi", "00:07": b"b/snponly.efi", "00:09": b"b/snponly.efi"}
        files.refresh(None)
    (tmp_path / "a/snponly.efi").unlink()
    files.refresh(None)
    assert files.get(files.by_arch["00:06"]) == b"a/snponly.efi", "what is gone stays as it was"
    assert files.get(files.by_arch["00:07"]) == b"b/snponly.efi"


def test_architecture_keys_are_those_of_warewulf_conf() -> None:
    assert [arch_key(0), arch_key(7), arch_key(11), arch_key(0x0100)] == ["00:00", "00:07", "00:0B", "01:00"]


def test_a_binary_is_found_under_another_distributions_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "snponly.efi").write_bytes(b"x86")
    monkeypatch.setattr(binaries, "SEARCH", (tmp_path,))
    found = binaries.find("00:07", "ipxe-snponly-x86_64.efi", None)
    assert found is not None
    assert (found.name, found.read()) == ("snponly.efi", b"x86")


def test_the_admins_folder_comes_first_and_absolute_paths_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site, shipped = tmp_path / "site", tmp_path / "shipped"
    for folder in (site, shipped):
        folder.mkdir()
        (folder / "undionly.kpxe").write_bytes(folder.name.encode())
    monkeypatch.setattr(binaries, "SEARCH", (shipped,))
    ours = binaries.find("00:00", "undionly.kpxe", site)
    assert ours is not None
    assert ours.read() == b"site"
    named = binaries.find("00:00", str(shipped / "undionly.kpxe"), site)
    assert named is not None
    assert named.read() == b"shipped"


def test_two_architectures_may_have_a_file_of_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "arm64-efi").mkdir()
    (tmp_path / "arm64-efi/snponly.efi").write_bytes(b"arm")
    (tmp_path / "snponly.efi").write_bytes(b"x86")
    monkeypatch.setattr(binaries, "SEARCH", (tmp_path,))
    wanted = {"00:07": "ipxe-snponly-x86_64.efi", "00:0B": "arm64-efi/snponly.efi"}
    found, missing = binaries.find_all(wanted, None)
    assert {binary.name: binary.read() for binary in found} == {"snponly.efi": b"x86", "arm64-snponly.efi": b"arm"}
    assert missing == {}


def test_missing_binaries_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binaries, "SEARCH", (tmp_path,))
    found, missing = binaries.find_all({"00:00": "undionly.kpxe"}, None)
    assert found == []
    assert missing == {"00:00": "no iPXE binary undionly.kpxe for architecture 00:00"}


def test_only_boot_files_have_names(tmp_path: Path) -> None:
    (tmp_path / "snponly.efi").write_bytes(b"x86")
    files = BootFiles([binaries.Binary("00:07", "snponly.efi", tmp_path / "snponly.efi")], {"00:07": "x/ipxe-x86.efi"})
    for name in (
        "snponly.efi",
        "/snponly.efi",
        "warewulf/snponly.efi",
        "/warewulf/snponly.efi",
        "warewulf/ipxe-x86.efi",
    ):
        assert files.get(name) == b"x86"
    for name in ("", "/", "../snponly.efi", "other/snponly.efi", "autoexec.ipxe", str(tmp_path / "snponly.efi")):
        assert files.get(name) is None
