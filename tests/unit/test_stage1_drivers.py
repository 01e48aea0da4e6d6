"""The drivers of stage-1: which are in it, what a site's rules make of that, and when they are packed again."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

import pytest

from support.modules import module, plant
from wwfast.errors import ConfigError, WwfastError
from wwfast.images.kernels.detect import Kernel
from wwfast.images.stage1 import drivers, making, rests, rules
from wwfast.images.stage1.making import Job
from wwfast.images.stage1.rests import Look
from wwfast.images.stage1.rules import Choice, Rule

RELEASE = "6.1.0-1"
NIC = "kernel/drivers/net/ethernet/a/nic.ko"
DEPENDS = {
    NIC: "kernel/drivers/net/mii.ko",
    "kernel/drivers/net/mii.ko": "",
    "kernel/drivers/net/phy/soft.ko": "",
    "kernel/drivers/base/beside.ko": "",
    "kernel/drivers/infiniband/hw/hca.ko": "",
    "kernel/drivers/scsi/disk.ko": "",
    "kernel/fs/squashfs/squashfs.ko": "",
    "kernel/fs/overlayfs/overlay.ko": "",
    "kernel/drivers/block/loop.ko": "",
    "kernel/drivers/net/virtio_net.ko": "kernel/drivers/net/net_failover.ko",
    "kernel/drivers/net/net_failover.ko": "",
}
DEFAULT = {"nic", "mii", "soft", "squashfs", "overlay", "loop", "virtio_net", "net_failover"}
KERNEL = Kernel("/boot/vmlinuz", Path("/"), "6.1.0-1", RELEASE, zstd=True)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A tree with the modules above; `nic` asks for two files of firmware, of which one is there."""
    made = tmp_path / "image"
    plant(made, RELEASE, DEPENDS, nic=["a/nic.bin", "a/absent.bin"])
    for name in ("a/nic.bin", "a/other.bin"):
        (made / "lib/firmware" / name).parent.mkdir(parents=True, exist_ok=True)
        (made / "lib/firmware" / name).write_text(name)
    return made


def chosen(
    root: Path, tree: Path, *texts: str, infiniband: bool = False, disks: bool = False
) -> tuple[set[str], list[str]]:
    """Names of modules and firmware, and idle rules."""
    file = root.parent / "rules"
    file.write_text("\n".join(texts))
    _, idle = drivers.collect(Look(root), RELEASE, tree, Choice(rules.read(file), infiniband, disks))
    modules = {path.stem for path in tree.rglob("*.ko")}
    return modules | {path.name for path in tree.rglob("*.bin") if "firmware" in path.parts}, idle


def test_stage1_drivers_are_network_cards_and_roots_with_what_they_need(root: Path, tmp_path: Path) -> None:
    home = root / "usr/lib/modules" / RELEASE
    (home / "modules.softdep").write_text("# a line\nsoftdep nic pre: beside post: absent\n")
    (home / "modules.builtin").write_text("kernel/fs/erofs/erofs.ko\n")
    there, _ = drivers.collect(Look(root), RELEASE, tmp_path / "tree", Choice())
    assert {path.stem for path in (tmp_path / "tree").rglob("*.ko")} == DEFAULT | {"beside"}
    assert [path.name for path in (tmp_path / "tree/lib/firmware").rglob("*.bin")] == ["nic.bin"]
    assert {"loop", "overlay", "squashfs", "nic", "erofs"} <= set(there)
    (home / "modules.dep").unlink()
    with pytest.raises(WwfastError, match=r"kernel 6\.1\.0-1 has no modules\.dep"):
        drivers.collect(Look(root), RELEASE, tmp_path / "other", Choice())


def test_stage1_driver_that_replaces_the_kernels_own_is_taken(root: Path, tmp_path: Path) -> None:
    """dkms and weak-updates put it elsewhere, and depmod names that one alone."""
    home = root / "usr/lib/modules" / RELEASE
    (home / "updates/dkms").mkdir(parents=True)
    (home / "updates/dkms/nic.ko").write_bytes(module(license="GPL"))
    index = home / "modules.dep"
    index.write_text(index.read_text().replace(f"{NIC}:", "updates/dkms/nic.ko:"))
    drivers.collect(Look(root), RELEASE, tmp_path / "tree", Choice())
    found = {
        str(path.relative_to(tmp_path / "tree/lib/modules" / RELEASE)) for path in tmp_path.rglob("tree/**/nic.ko")
    }
    assert found == {"updates/dkms/nic.ko"}


DEEP = ["qcom/a/b/deep.bin", "qcom/top.bin.xz", "qcom/[c]/x.bin.zst", "qcom/link/b/deep.bin"]


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        (["- firmware q.fw"], []),
        (["- firmware q.fw.xz"], []),
        (["+ firmware one.fw"], ["q.fw.xz", "one.fw.zst"]),
        (["+ firmware one.fw.zst"], ["q.fw.xz", "one.fw.zst"]),
        (["+ firmware qcom/"], ["q.fw.xz", *DEEP]),
        (["+ firmware qcom/*.bin", "- firmware qcom/link/"], ["q.fw.xz", *DEEP[:3]]),
        (["+ firmware /q*m/", "- firmware qcom/top.bin"], ["q.fw.xz", *DEEP[:1], *DEEP[2:]]),
        (["+ firmware qcom/a/b/deep.bin"], ["q.fw.xz", *DEEP[:1]]),
    ],
)
def test_stage1_rules_of_firmware_go_down_and_by_names_that_are_not_compressed(
    root: Path, tmp_path: Path, texts: list[str], found: list[str]
) -> None:
    plant(root, RELEASE, DEPENDS, nic=["q.fw"])
    for name in ("q.fw.xz", "one.fw.zst", *DEEP[:3]):
        (root / "lib/firmware" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "lib/firmware" / name).write_text(name)
    (root / "lib/firmware/qcom/link").symlink_to("a")
    (root / "lib/firmware/qcom/a/back").symlink_to("..")
    _, idle = chosen(root, tmp_path / "tree", *texts)
    target = tmp_path / "tree/lib/firmware"
    assert sorted(str(path.relative_to(target)) for path in target.rglob("*") if path.is_file()) == sorted(found)
    assert idle == []


def test_stage1_firmware_by_a_pattern_of_a_module_may_be_compressed(root: Path, tmp_path: Path) -> None:
    plant(root, RELEASE, DEPENDS, nic=["card*.fw"])
    for name in ("card1.fw", "card2.fw.xz", "card3.fw.zst"):
        (root / "lib/firmware" / name).write_text(name)
    chosen(root, tmp_path / "tree")
    assert len(list((tmp_path / "tree/lib/firmware").iterdir())) == 3


def test_stage1_firmware_that_a_rule_adds_is_copied_to_nowhere_else(root: Path, tmp_path: Path) -> None:
    other = tmp_path / "other/x.bin"
    inside = root / str(other).lstrip("/")
    inside.parent.mkdir(parents=True)
    inside.touch()
    texts = [f"+ firmware {'../' * 40}{str(path).lstrip('/')}" for path in (other, other.parent / "*")]
    assert chosen(root, tmp_path / "tree", *texts) == (DEFAULT | {"nic.bin"}, texts)
    assert not other.exists()


def test_stage1_firmware_whose_links_lead_to_each_other_without_end_is_refused(root: Path, tmp_path: Path) -> None:
    for number in range(11):
        (root / f"lib/firmware/m/{number}").mkdir(parents=True)
        for name in "ab":
            (root / f"lib/firmware/m/{number}/{name}").symlink_to(f"../{number + 1}")
    (root / "lib/firmware/m/11").symlink_to("../m")
    with pytest.raises(WwfastError, match="/lib/firmware/m of the image has more than 2000 directories"):
        chosen(root, tmp_path / "tree", "+ firmware m/")


def test_stage1_is_made_again_when_firmware_came_below_what_a_rule_adds(parts: Parts, root: Path) -> None:
    choice = Choice((Rule(True, True, "qcom/"),))
    for name in ("a/b/x.bin", "a/b/y.bin"):
        (root / "lib/firmware/qcom" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "lib/firmware/qcom" / name).write_text(name)
        assert not parts.make(choice)
        assert parts.make(choice)


@pytest.mark.parametrize("up", ["", "kernel/../../../../../../.."])
def test_stage1_module_is_copied_to_nowhere_else(
    root: Path, tmp_path: Path, up: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A name in modules.dep that is absolute, or climbs: the image has a file there, and so may this server."""
    home, other = root / "usr/lib/modules" / RELEASE, tmp_path / "cron.d/loop.ko"
    odd = f"{up}{other}"
    for inside in (home / str(other).lstrip("/"), root / str(other).lstrip("/")):
        inside.parent.mkdir(parents=True)
        inside.write_bytes(module(license="GPL"))
    index = home / "modules.dep"
    index.write_text(f"{odd}:\n\0/loop.ko:\n:\n{index.read_text()}".replace(f"{NIC}:", f"{NIC}: {odd}"))
    drivers.collect(Look(root), RELEASE, tmp_path / "a/b/c/d/tree", Choice())
    assert not other.exists()
    assert {path.stem for path in tmp_path.rglob("tree/**/*.ko")} == DEFAULT
    assert "kernel 6.1.0-1 has modules by names that lead out of its own: " in caplog.text
    assert odd in caplog.text


@pytest.mark.parametrize(
    ("texts", "more", "less"),
    [
        (["+ disk"], {"disk"}, set()),
        (["+ kernel/drivers/scsi/"], {"disk"}, set()),
        (["+ drivers/scsi/*"], {"disk"}, set()),
        (["- nic"], set(), {"nic", "mii", "nic.bin"}),
        (["# a comment", "", "- drivers/net/", "+ n?c"], set(), {"soft"}),
        (["- mii"], set(), set()),
        (["- virtio-net"], set(), {"virtio_net", "net_failover"}),
        (["- firmware a/*"], set(), {"nic.bin"}),
        (["+ firmware a/"], {"other.bin"}, set()),
        (["+ firmware a/other.bin", "- firmware a/nic.bin"], {"other.bin"}, {"nic.bin"}),
    ],
)
def test_stage1_rules_of_a_site_widen_and_narrow(
    root: Path, tmp_path: Path, texts: list[str], more: set[str], less: set[str]
) -> None:
    found, idle = chosen(root, tmp_path / "tree", *texts)
    if texts[-1] == "+ n?c":  # the last one that matches wins; what virtio_net needs came with it
        less = less | {"virtio_net", "net_failover"}
    assert (found, idle) == ((DEFAULT | {"nic.bin"} | more) - less, [])


def test_stage1_rule_that_matches_nothing_is_said(root: Path, tmp_path: Path) -> None:
    _, idle = chosen(root, tmp_path / "tree", "+ e1000e", "- firmware b/", "+ disk")
    assert idle == ["+ e1000e", "- firmware b/"]


def test_stage1_infiniband_comes_by_setting(root: Path, tmp_path: Path) -> None:
    assert chosen(root, tmp_path / "tree", infiniband=True)[0] == DEFAULT | {"nic.bin", "hca"}


def test_stage1_drivers_of_disks_come_with_a_root_on_one(root: Path, tmp_path: Path) -> None:
    assert chosen(root, tmp_path / "tree", disks=True)[0] == DEFAULT | {"nic.bin", "disk"}
    assert str(Choice(disks=True)) != str(Choice()), "stage-1 is made again"


@pytest.mark.parametrize("line", ["e1000e", "+", "* e1000e", "+ e1000e igb", "+ firmware", "- firmware a b", "+e1000e"])
def test_stage1_rule_that_is_none_is_refused_with_its_line(tmp_path: Path, line: str) -> None:
    file = tmp_path / "rules"
    file.write_text(f"# drivers\n+ nvme\n{line}\n")
    if line == "+ firmware":  # the name of a module like any other
        assert rules.read(file)[-1] == Rule(True, False, "firmware")
        return
    with pytest.raises(ConfigError, match=r"rules:3: .* is no rule of drivers"):
        rules.read(file)


class Parts:
    """Packs the drivers of one tree again and again, each time with the last ones as its predecessor."""

    def __init__(self, root: Path, room: Path) -> None:
        self.root, self.room, self.number = root, room, 0
        room.mkdir()

    def make(self, choice: Choice = rules.DEFAULT) -> bool:
        """Whether they were taken over."""
        former = self.place if self.number else None
        self.number += 1
        self.place.mkdir()
        job = Job(self.root, "x", self.place, self.room / "frames", former, choice)
        making.for_kernel(job, KERNEL)
        again = former is not None and self.inode(former) == self.inode(self.place)
        assert making.packing.damage(self.place / RELEASE) is None
        return again

    @property
    def place(self) -> Path:
        return self.room / str(self.number)

    @staticmethod
    def inode(place: Path) -> int:
        return (place / RELEASE / "manifest.json").stat().st_ino

    def content(self) -> str:
        """Digest of what a node gets; the order of its pieces on disk is that in which threads ended them."""
        made = making.packing.load(self.place / RELEASE, "zst")
        assert made is not None
        return made.digest


@pytest.fixture
def parts(root: Path, tmp_path: Path) -> Parts:
    made = Parts(root, tmp_path / "parts")
    assert not made.make()
    return made


def test_stage1_is_taken_over_while_nothing_of_it_changed(parts: Parts, root: Path) -> None:
    assert parts.make()
    (root / "etc").mkdir()
    (root / "etc/hostname").write_text("another")
    (root / "usr/lib/modules" / RELEASE / "kernel/drivers/scsi/disk.ko").write_bytes(b"another")
    assert parts.make(), "files that are not in it make no difference"
    copy = root.parent / "copy"
    shutil.copytree(root, copy, symlinks=True)
    shutil.rmtree(root)
    copy.rename(root)
    assert parts.make(), "the same content in other inodes is the same"


@pytest.mark.parametrize(
    "change",
    ["module", "mode", "dep", "softdep", "firmware", "firmware-came", "gone", "rules", "infiniband", "link"],
)
def test_stage1_is_made_again_when_what_it_rests_on_changed(parts: Parts, root: Path, change: str) -> None:
    home = root / "usr/lib/modules" / RELEASE
    choice = Choice()
    if change == "module":
        (home / NIC).write_bytes(module(license="BSD"))
    elif change == "mode":
        (home / NIC).chmod(0o600)
    elif change == "dep":
        (home / "modules.dep").write_text((home / "modules.dep").read_text() + "kernel/net/x.ko:\n")
    elif change == "softdep":
        (home / "modules.softdep").write_text("softdep nic pre: beside\n")
    elif change == "firmware":
        file = root / "lib/firmware/a/nic.bin"
        times = file.stat()
        file.write_text("A/nic.bin")
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    elif change == "firmware-came":
        (root / "lib/firmware/a/absent.bin").write_text("came")
    elif change == "gone":
        (home / NIC).unlink()
    elif change == "rules":
        choice = Choice((Rule(True, False, "disk"),))
    elif change == "infiniband":
        choice = Choice(infiniband=True)
    elif change == "link":
        (root / "lib/firmware/a/nic.bin").rename(root / "lib/firmware/a/real.bin")
        (root / "lib/firmware/a/nic.bin").symlink_to("real.bin")
    assert not parts.make(choice)
    assert parts.make(choice), "and then no more"


@pytest.mark.parametrize("name", [rests.FILE, "manifest.json", "*.pack"])
def test_stage1_that_was_damaged_is_made_again(parts: Parts, name: str) -> None:
    whole = parts.content()
    (file,) = (parts.place / RELEASE).glob(name)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.chmod(0o600)
    file.unlink()
    file.write_bytes(data)
    assert not parts.make()
    assert parts.content() == whole


def test_stage1_comes_out_the_same_whenever_it_is_made(parts: Parts, root: Path, tmp_path: Path) -> None:
    for file in root.rglob("*"):
        os.utime(file, (1, 1), follow_symlinks=False)
    other = Parts(root, tmp_path / "others")
    other.make()
    assert other.content() == parts.content()


def test_stage1_of_a_kernel_that_cannot_mount_is_refused_in_words(
    root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    index = root / "usr/lib/modules" / RELEASE / "modules.dep"
    for name in ("squashfs", "overlay"):
        index.write_text("".join(line for line in index.read_text().splitlines(True) if f"{name}.ko" not in line))
        (tmp_path / name).mkdir()
        job = Job(root, "x", tmp_path / name, tmp_path / "frames")
        if name == "squashfs":
            assert making.mounts(making.for_kernel(job, KERNEL)) == []
        else:
            with pytest.raises(WwfastError, match="the kernel has no overlay"):
                making.for_kernel(job, KERNEL)
            assert list((tmp_path / name).iterdir()) == [], "nothing of it is left"
    with caplog.at_level(logging.WARNING):
        assert making.make(Job(root, "x", tmp_path / "none", tmp_path / "frames"), [KERNEL]) == {}
    assert "x has no stage-1: the image has no sh" in caplog.text
