"""Which kernels a tree holds and which one a node gets, on trees as distributions lay them out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from wwfast.images.kernels import detect, modules
from wwfast.system import within


def plant(root: Path, *names: str, content: bytes = b"kernel") -> None:
    for name in names:
        file = root / name.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)


def bzimage(release: str) -> bytes:
    head = bytearray(0x400)
    head[0x202:0x206] = b"HdrS"
    head[0x20E:0x210] = (0x300 - 0x200).to_bytes(2, "little")
    head[0x300 : 0x300 + len(release) + 9] = f"{release} (builder)".encode()[: len(release) + 9]
    return bytes(head)


@pytest.mark.parametrize(
    ("path", "version"),
    [
        ("/boot/vmlinuz-5.14.0-427.37.1.el9_4.x86_64", "5.14.0-427.37.1"),
        ("/boot/vmlinuz-5.14.0-570.12.1.el9_8.0.1.x86_64", "5.14.0-570.12.1"),
        ("/boot/vmlinuz-6.1.0-13-amd64", "6.1.0-13"),
        ("/boot/vmlinuz-6.4.0-150600.21-default", "6.4.0-150600.21"),
        ("/boot/Image-6.4.0-150600.21-default", "6.4.0-150600.21"),
        ("/lib/modules/6.12.0-55.el10.x86_64/vmlinuz", "6.12.0-55"),
        ("/lib/modules/6.12.0-55.el10.aarch64/vmlinuz.gz", "6.12.0-55"),
        ("/boot/vmlinuz-6.6.9", "6.6.9"),
    ],
)
def test_kernel_version_is_read_from_the_path(tmp_path: Path, path: str, version: str) -> None:
    plant(tmp_path, path)
    (found,) = detect.kernels(tmp_path)
    assert (found.path, found.version) == (path, version)


def test_kernel_without_a_version_in_its_name_tells_it_itself(tmp_path: Path) -> None:
    plant(tmp_path, "/boot/vmlinuz-lts", content=bzimage("6.6.58-0-lts"))
    plant(tmp_path, "/boot/vmlinuz-linux", content=bzimage("6.10.3-arch1-1"))
    assert [(k.path, k.version, k.release) for k in detect.kernels(tmp_path)] == [
        ("/boot/vmlinuz-linux", "6.10.3", "6.10.3-arch1-1"),
        ("/boot/vmlinuz-lts", "6.6.58-0", "6.6.58-0-lts"),
    ]


def test_kernel_of_arch_is_matched_to_its_modules_by_package(tmp_path: Path) -> None:
    plant(tmp_path, "/boot/vmlinuz-linux-zen", content=b"no header")
    plant(tmp_path, "/lib/modules/6.10.1-zen1/pkgbase", content=b"linux-zen\n")
    plant(tmp_path, "/lib/modules/6.10.2-arch1/pkgbase", content=b"linux\n")
    (found,) = detect.kernels(tmp_path)
    assert found.release == "6.10.1-zen1"


def test_kernel_linked_from_boot_is_listed_once(tmp_path: Path) -> None:
    plant(tmp_path, "/usr/lib/modules/6.4.0-1-default/vmlinuz")
    (tmp_path / "lib").symlink_to("usr/lib")
    (tmp_path / "boot").mkdir()
    (tmp_path / "boot/vmlinuz-6.4.0-1-default").symlink_to("../usr/lib/modules/6.4.0-1-default/vmlinuz")
    assert [k.path for k in detect.kernels(tmp_path)] == ["/boot/vmlinuz-6.4.0-1-default"]


def test_kernel_order_is_numeric_and_a_suffix_sorts_below_none() -> None:
    versions = ["", "5.9.2", "5.14.0-9", "5.14.0-70.1", "5.14.0-70.1.2", "5.14.0-427.37.1", "5.14.0", "6.1.0-13"]
    made = [detect.Kernel(f"/boot/{v}", Path(v), v, v, False) for v in reversed(versions)]
    assert [k.version for k in sorted(made, key=lambda k: k.order)] == versions


@pytest.mark.parametrize(
    ("releases", "newest"),
    [
        (["6.14.0-rc1", "6.14.0-rc10", "6.14.0-rc2"], "6.14.0-rc10"),
        ([f"5.14.0-570.el9_8{patch}.x86_64" for patch in (".0.1", ".0.2", "")], "5.14.0-570.el9_8.0.2.x86_64"),
        (["6.1.0-18-amd64", "6.1.0-18-cloud-amd64", "6.1.0-18-rt-amd64"], "6.1.0-18-amd64"),
        (["6.12.41+deb13-amd64", "6.12.41+deb13-rt-amd64"], "6.12.41+deb13-amd64"),
        (["5.14.0-570.el9.x86_64", "5.14.0-570.el9.x86_64+rt-debug"], "5.14.0-570.el9.x86_64"),
    ],
)  # fmt: skip
def test_kernel_default_among_those_of_one_version(tmp_path: Path, releases: list[str], newest: str) -> None:
    plant(tmp_path, *(f"/boot/vmlinuz-{release}" for release in releases))
    found = detect.default(detect.kernels(tmp_path))
    assert found is not None
    assert found.release == newest


def test_kernel_named_by_its_flavour_has_the_release_of_its_modules(tmp_path: Path) -> None:
    plant(tmp_path, "/boot/vmlinuz-lts")
    for release in ("6.6.58-0-lts", "6.6.58-0-virt"):
        (tmp_path / "lib/modules" / release).mkdir(parents=True)
    (found,) = detect.kernels(tmp_path)
    assert (found.release, found.version) == ("6.6.58-0-lts", "6.6.58-0")


def test_kernel_default_is_the_newest_but_never_debug_or_rescue(tmp_path: Path) -> None:
    plant(
        tmp_path,
        "/boot/vmlinuz-5.14.0-70.el9.x86_64",
        "/boot/vmlinuz-5.14.0-427.el9.x86_64",
        "/boot/vmlinuz-5.14.0-500.el9.x86_64+debug",
        "/boot/vmlinuz-0-rescue-4c7b",
    )
    found = detect.kernels(tmp_path)
    assert len(found) == 4
    newest = detect.default(found)
    assert newest is not None
    assert newest.version == "5.14.0-427"
    assert detect.choose(found, "5.14.0-500") is None


@pytest.mark.parametrize(
    ("wanted", "others"),
    [
        ("6.4.0-150600.23.7-default", ["6.4.0-150600.23.7-debug", "6.4.0-150600.23.14-debug"]),
        ("3.10.0-1160.2.1.el7.x86_64", ["3.10.0-1160.2.1.el7.x86_64.debug"]),
        ("5.4.17-2136.331.7.el8uek.x86_64", ["5.4.17-2136.331.7.el8uek.x86_64.debug"]),
        ("5.14.0-427.el9_4.x86_64", ["5.14.0-427.el9_4.x86_64+debug", "5.14.0-427.el9_4.x86_64+rt-debug"]),
        ("6.1.0-32-amd64", ["6.1.0-33-amd64.dpkg-new", "6.1.0-34-amd64.dpkg-old", "6.1.0-35-amd64.dpkg-tmp"]),
        ("5.14.0-70.el9.x86_64", ["5.14.0-80.el9.x86_64.rpmsave", "5.14.0-90.el9.x86_64.bak", "5.14.0-95.el9.x86_64~"]),
        # Words that only resemble: Debian's debug builds of cloud flavours have none, and a name may hold "debug".
        ("6.1.0-33-debuggable-amd64", ["6.1.0-32-amd64"]),
    ],
)  # fmt: skip
def test_kernel_that_is_not_meant_to_be_booted_is_taken_by_its_path_only(
    tmp_path: Path, wanted: str, others: list[str]
) -> None:
    plant(tmp_path, *(f"/boot/vmlinuz-{release}" for release in [wanted, *others]))
    found = detect.kernels(tmp_path)
    assert len(found) == 1 + len(others)
    chosen = detect.default(found)
    assert chosen is not None
    assert chosen.path == f"/boot/vmlinuz-{wanted}"
    for other in others:
        named = detect.choose(found, f"/boot/vmlinuz-{other}")
        assert named is not None
        assert named.path == f"/boot/vmlinuz-{other}"


def test_kernel_by_prefix_is_the_newest_and_5_1_is_not_5_14(tmp_path: Path) -> None:
    plant(tmp_path, *(f"/boot/vmlinuz-{v}" for v in ("5.1.20", "5.1.3", "5.14.1", "5.14.0-70.el9.x86_64")))
    found = detect.kernels(tmp_path)

    def pick(wanted: str) -> str | None:
        kernel = detect.choose(found, wanted)
        return kernel.version if kernel else None

    assert pick("5.1") == "5.1.20"
    assert pick("5.14") == "5.14.1"
    assert pick("5.14.0-70.el9.x86_64") == "5.14.0-70"
    assert pick("/boot/vmlinuz-5.1.3") == pick("boot/vmlinuz-5.1.3") == "5.1.3"
    assert pick("5.2") is None


def test_kernel_zstd_is_what_its_configuration_says(tmp_path: Path) -> None:
    plant(tmp_path, "/boot/vmlinuz-6.1.1-a", "/boot/vmlinuz-4.18.0-b", "/boot/vmlinuz-6.2.0-c")
    plant(tmp_path, "/boot/config-6.1.1-a", content=b"CONFIG_A=y\nCONFIG_RD_ZSTD=y\n")
    plant(tmp_path, "/boot/config-4.18.0-b", content=b"# CONFIG_RD_ZSTD is not set\nCONFIG_RD_GZIP=y\n")
    assert {k.release: k.zstd for k in detect.kernels(tmp_path)} == {
        "6.1.1-a": True,
        "4.18.0-b": False,
        "6.2.0-c": False,
    }


def test_image_links_are_resolved_inside_the_image_only(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    plant(outside, "/vmlinuz-9.9.9", "/boot/vmlinuz-9.9.8")
    root = tmp_path / "image"
    plant(root, "/usr/lib/modules/6.1.0/vmlinuz")
    (root / "boot").mkdir()
    (root / "boot/vmlinuz-9.9.9").symlink_to(outside / "vmlinuz-9.9.9")
    (root / "boot/vmlinuz-9.9.8").symlink_to("../../../../outside/boot/vmlinuz-9.9.8")
    (root / "lib").symlink_to("/usr/lib")
    (root / "loop").symlink_to("loop")
    assert [k.path for k in detect.kernels(root)] == ["/lib/modules/6.1.0/vmlinuz"]
    assert within.resolve(root, "/loop/x") is None
    assert within.resolve(root, "../../lib/modules") == root / "usr/lib/modules"


@pytest.mark.parametrize("name", ["../../../../etc/cron.d/x", "/etc/cron.d/x", "intel/../../../../etc/cron.d/x"])
def test_kernel_firmware_is_copied_to_nowhere_else(tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    root, target = tmp_path / "a/b/image", tmp_path / "a/b/tree/lib/firmware"
    for path in ("/lib/firmware/intel/good.bin", "/etc/cron.d/x", "/lib/firmware/etc/cron.d/x"):
        plant(root, path)
    modules.copy_firmware(root, modules.firmware_names(f"intel/good.bin\n{name}\n".encode()), target)
    made = [file for file in tmp_path.rglob("*") if file.is_file() and root not in file.parents]
    assert made == [target / "intel/good.bin"]
    assert name in caplog.text


def test_kernel_configuration_of_terabytes_is_not_read_to_its_end(tmp_path: Path) -> None:
    plant(tmp_path, "/boot/vmlinuz-6.1.0-1", "/boot/config-6.1.0-1", content=b"CONFIG_RD_ZSTD=y\n")
    plant(tmp_path, "/boot/vmlinuz-linux", "/lib/modules/6.1.0-2/pkgbase", content=b"linux\n")
    for name in ("boot/config-6.1.0-1", "lib/modules/6.1.0-2/pkgbase"):
        os.truncate(tmp_path / name, 1 << 40)
    assert {(k.path, k.release, k.zstd) for k in detect.kernels(tmp_path)} == {
        ("/boot/vmlinuz-6.1.0-1", "6.1.0-1", True), ("/boot/vmlinuz-linux", "", False),
    }  # fmt: skip


NO_RELEASES = ["../../../srv/x", "/srv/x", "..", ".", "programs", "-n", "6.1.0/x", "6.1.0\x07", "6.1.0-" + "x" * 59]


@pytest.mark.parametrize("said", [*NO_RELEASES, "6.1.0-\xe4"])
def test_kernel_release_that_is_none_is_not_believed(tmp_path: Path, said: str) -> None:
    """It is joined to paths of this server, by stage-1 and by `kernel import`."""
    plant(tmp_path, "/boot/vmlinuz-lts", content=bzimage(said))
    (found,) = detect.kernels(tmp_path)
    assert found.release == ""
    if said.strip("/.") and "/" not in said:
        (tmp_path / "boot/vmlinuz-lts").unlink()
        plant(tmp_path, f"/lib/modules/{said}/vmlinuz", "/boot/vmlinuz-linux")
        plant(tmp_path, f"/lib/modules/{said}/pkgbase", content=b"linux")
        assert [kernel.release for kernel in detect.kernels(tmp_path)] == ["", ""]
        assert detect.by_path(tmp_path, f"/boot/../lib/modules/{said}/vmlinuz").release == ""  # type: ignore[union-attr]


def test_kernel_release_of_the_file_is_asked_where_its_name_is_none(tmp_path: Path) -> None:
    plant(tmp_path, "/boot/vmlinuz-6.1.0\n..", content=bzimage("6.1.0-1"))
    assert [kernel.release for kernel in detect.kernels(tmp_path)] == ["6.1.0-1"]


def test_kernel_index_of_modules_is_bytes(tmp_path: Path) -> None:
    plant(tmp_path, "/modules.dep", content=b"kernel/\xff.ko: kernel/b.ko\n")
    assert modules.index_matches(tmp_path, [tmp_path / os.fsdecode(b"kernel/\xff.ko")])
