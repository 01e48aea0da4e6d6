"""What `wwfast doctor` and `image show` say of nodes that boot by Warewulf's dracut module."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from support.healthy import CONFIG, RELEASE, Healthy, put
from support.initramfs import LOAD, PARSE, initramfs
from wwfast.cli.main import main
from wwfast.images.stage1 import programs
from wwfast.paths import Paths

WHERE = f"boot/initramfs-{RELEASE}.img"


@pytest.fixture
def site(paths: Paths) -> Healthy:
    """Nodes of which two boot by dracut, from an image that is built for that."""
    made = Healthy(paths)
    made.profiles["default"]["tags"] = {"IPXEMenuEntry": "dracut"}
    made.entries["n3"]["tags"] = {"IPXEMenuEntry": "initrd"}
    brings(made, initramfs("4.7.0"))
    return made


def brings(site: Healthy, data: bytes, where: str = WHERE) -> None:
    for old in (site.rootfs / "boot").glob("initramfs*"):
        old.unlink()
    if data:
        put(site.rootfs / where, data)
    run(site, "image", "build", "deb")


def run(site: Healthy, *words: str) -> int:
    site.write()
    with pytest.raises(SystemExit) as ended:
        main(["--root", str(site.paths.root), *words])
    return int(ended.value.code or 0)


@pytest.fixture
def doctor(site: Healthy, capsys: pytest.CaptureFixture[str]) -> Any:
    """Level, message and what mends it, of each finding."""

    def ask() -> list[tuple[str, str, str]]:
        capsys.readouterr()
        run(site, "doctor", "--json")
        return [(it["level"], it["message"], it["fix"]) for it in json.loads(capsys.readouterr().out)]

    return ask


def test_dracut_doctor_says_nothing_of_nodes_that_boot_so(doctor: Any) -> None:
    assert doctor() == []


@pytest.mark.parametrize(
    ("data", "where", "says"),
    [
        (b"", WHERE, f"image deb has no initramfs for kernel {RELEASE} in /boot"),
        (initramfs("4.7.0"), f"boot/initramfs-0-rescue-{RELEASE}.img", "image deb has no initramfs for kernel"),
        (initramfs(), WHERE, f"initramfs-{RELEASE}.img of image deb is without Warewulf's module (90wwinit)"),
        *(
            (initramfs(version), WHERE, f"image deb has the module of Warewulf {told}: it would lose")
            for version, told in (
                ("4.5.3", "4.5.3 to 4.5.6"), ("4.5.7", "4.5.7 or 4.5.8"), ("4.6.0", "4.6.0 or 4.6.1"),
            )
        ),
    ],
)  # fmt: skip
def test_dracut_doctor_tells_who_cannot_boot_and_why(
    site: Healthy, doctor: Any, data: bytes, where: str, says: str
) -> None:
    brings(site, data, where)
    [(level, message, fix)] = doctor()
    assert level == "error"
    assert message.startswith("n[1-2]: ")
    assert says in message
    assert f"dracut --force --no-hostonly --add wwinit --kver {RELEASE}; wwfast image build deb" in fix


def test_dracut_doctor_tells_of_an_image_that_was_built_before_the_tag(site: Healthy, doctor: Any) -> None:
    """Its initramfs was kept, as the image has the module; gzip costs more, and is for those who need it."""
    put(site.rootfs / "usr/lib/dracut/modules.d/90wwinit/load-wwinit.sh", LOAD["4.7.0"])
    site.profiles["default"]["tags"] = {}
    run(site, "image", "build", "--force", "deb")
    site.profiles["default"]["tags"] = {"GrubMenuEntry": "dracut"}
    [(level, message, fix)] = doctor()
    assert (level, fix) == ("warning", "wwfast image build deb")
    assert message.startswith("n[1-2]: image deb is not built as gzip, which dracut unpacks")
    run(site, "image", "build", "deb")
    assert doctor() == []


def test_dracut_doctor_tells_of_an_initramfs_that_it_cannot_look_into(site: Healthy, doctor: Any) -> None:
    """It may be right: the node boots."""
    home = site.rootfs / "usr/lib/dracut/modules.d/90wwinit"
    put(home / "load-wwinit.sh", LOAD["4.6.2"])
    put(home / "parse-wwinit.sh", PARSE["4.6.2"])
    brings(site, b"\x02\x21\x4c\x18" + bytes(100))
    [(level, message, _)] = doctor()
    assert level == "warning"
    assert f"nobody knows which module is in /{WHERE} of image deb" in message
    assert "compressed by lz4, which is not read here; its tree has that of Warewulf 4.6.2 to 4.6.5" in message


def test_dracut_doctor_tells_of_modules_that_die_where_runtime_overlays_come_by_tls(site: Healthy, doctor: Any) -> None:
    site.conf["warewulf"]["tls"] = True
    assert not [message for _, message, _ in doctor() if "module of Warewulf" in message]
    brings(site, initramfs("4.6.2"))
    [(level, message)] = [(level, message) for level, message, _ in doctor() if "module of Warewulf" in message]
    assert level == "error"
    assert "the module of Warewulf 4.6.2 to 4.6.5" in message


def test_dracut_doctor_tells_of_a_node_without_what_the_module_hands_over_to(site: Healthy, doctor: Any) -> None:
    site.profiles["default"]["system overlay"] = ["hostname", "wwclient"]
    site.entries["n3"]["system overlay"] = ["wwinit"]
    [(level, message, fix)] = doctor()
    assert level == "error"
    assert "is /warewulf/run-init, the first program of a node" in message
    assert "--system-overlays wwinit,hostname,wwclient" in fix


def test_dracut_kernel_without_its_modules_is_told_as_ever(site: Healthy, doctor: Any) -> None:
    put(site.rootfs / f"boot/config-{RELEASE}", CONFIG.replace("CONFIG_DEVTMPFS=y\n", "# CONFIG_DEVTMPFS is not set\n"))
    run(site, "image", "build", "deb")
    assert {message.partition(":")[0] for _, message, _ in doctor()} == {"n[1-3]"}


def test_dracut_is_a_way_that_image_show_tells(site: Healthy, capsys: pytest.CaptureFixture[str]) -> None:
    def last() -> dict[str, Any]:
        capsys.readouterr()
        run(site, "image", "show", "--json", "deb")
        shown = json.loads(capsys.readouterr().out)
        assert set(shown["sizes"]) == {"zst", "gz"}
        found: dict[str, Any] = shown["ways"][-1]
        return found

    way = last()
    assert (way["way"], way["lacks"]) == ("in two stages by dracut", "")
    assert way["need"] > 100
    brings(site, initramfs("4.6.0"))
    assert "has the module of Warewulf 4.6.0 or 4.6.1" in last()["lacks"]


def test_dracut_is_told_of_when_the_tag_is_set_and_when_an_image_is_built(
    site: Healthy, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not when the first node stands before its console."""
    site.profiles["default"]["tags"] = {}
    brings(site, b"")
    site.paths.nodes_conf.write_text("nodes:\n  n1:\n    image name: deb\n    system overlay: [wwinit]\n")
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["--root", str(site.paths.root), "node", "set", "--yes", "n1", "--tagadd", "IPXEMenuEntry=dracut"])
    assert "image deb was built without its own initramfs" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--root", str(site.paths.root), "image", "build", "deb"])
    assert f"image deb has no initramfs for kernel {RELEASE} in /boot" in capsys.readouterr().err
    put(site.rootfs / WHERE, initramfs("4.7.0"))
    with pytest.raises(SystemExit):
        main(["--root", str(site.paths.root), "image", "build", "deb"])
    assert capsys.readouterr().err == ""


CORE = programs.of_scripts()
OWN = ["sfdisk", "mkfs.ext4", "e2label", "mkswap"]
PARTS = "/dev/disk/by-partlabel"
DISK = {
    "root": f"{PARTS}/root",
    "disks": {"/dev/vda": {"partitions": {"root": {"size_mib": "100"}, "swap": {"size_mib": "9"}, "data": {}}}},
    "filesystems": {
        f"{PARTS}/root": {"format": "ext4", "path": "/"},
        f"{PARTS}/swap": {"format": "swap"},
        f"{PARTS}/data": {"format": "xfs", "path": "/data"},
    },
}
ON = f"for {{}} on {PARTS}/{{}}: a boot stops where there is none yet"
STOPS = ": a boot stops$"


@pytest.mark.parametrize(
    ("inside", "overlays", "says"),
    [
        ([*CORE, *OWN, "mkfs.xfs", "xfs_db"], "sfdisk mkfs mkswap", []),
        ([*CORE, *OWN], "sfdisk mkfs mkswap", ["mkfs.xfs, xfs_db " + ON.format("xfs", "data")]),
        (
            [*CORE, "e2label"],
            "sfdisk mkfs mkswap",
            [
                f"sfdisk for a partition table{STOPS}",
                "mkfs.ext4 " + ON.format("ext4", "root"),
                "mkswap " + ON.format("swap space", "swap"),
                "mkfs.xfs, xfs_db " + ON.format("xfs", "data"),
            ],
        ),
        ([*CORE, "e2label"], "mkswap", ["mkswap " + ON.format("swap space", "swap")]),
        (
            ["cat", "sh"],
            "sfdisk",
            [f"blkid, wipefs, partx, mount.* for whatever is done with disks{STOPS}", "sfdisk for"],
        ),
        ([*CORE, *OWN], "ignition", ["mkfs.xfs, xfs_db " + ON.format("xfs", "data")]),
        ([*CORE, "ignition"], "ignition", []),
    ],
    ids=str,
)
def test_dracut_doctor_tells_which_programs_for_disks_an_initramfs_lacks(
    site: Healthy, doctor: Any, inside: list[str], overlays: str, says: list[str]
) -> None:
    site.entries = {"n1": site.entries["n1"] | DISK | {"system overlay": ["wwinit", *overlays.split()]}}
    site.profiles["default"]["runtime overlay"] = []
    brings(site, initramfs("4.7.0", programs=inside))
    found = [each for each in doctor() if f"/{WHERE} of image deb lacks " in each[1]]
    assert len(found) == len(says)
    for (level, message, fix), words in zip(found, says, strict=True):
        assert re.search(f"lacks {words}", message), message
        assert level == ("error" if re.search(STOPS, message) else "warning")
        assert 'dracut --force --no-hostonly --add wwinit --install "' in fix
        assert "apt-get install" in fix, "the image has none of these either"


def test_disks_doctor_tells_which_programs_an_image_lacks(site: Healthy, doctor: Any) -> None:
    """In one stage, and for stage-1, which is made of them."""
    kind = {"tags": {"IPXEMenuEntry": "initrd"}, "system overlay": ["wwinit", "mkfs"], "runtime overlay": []}
    site.entries = {"n1": site.entries["n1"] | kind | {"filesystems": {"/dev/vdb": {"format": "xfs"}}}}
    for name in [*CORE, "mkfs.xfs"]:
        put(site.rootfs / "usr/bin" / name, b"\x7fELF", 0o755)
    run(site, "image", "build", "deb")
    [(level, message, fix)] = [each for each in doctor() if "xfs" in each[1]]
    assert (level, fix.partition("  ")[0]) == ("warning", "wwfast image exec deb -- apt-get install -y xfsprogs")
    assert message == "n1: image deb lacks xfs_db for xfs on /dev/vdb: a boot stops where there is none yet"
