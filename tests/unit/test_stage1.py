"""Stage-1 out of an image: its programs and drivers, the file systems, and what a node that boots so is told."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
import stat
import struct
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import quote

import pytest

from support import trees
from support.daemon import MAC, Serving, serving, tiny_site, write_conf
from support.modules import module, plant
from support.patience import until
from support.planner import Fresh
from wwfast.archive.artefact import DISK, EROFS, FILESYSTEMS, PIECES, SQUASHFS, TAR_GZ, TAR_ZST, TMPFS, Artefact
from wwfast.boot import ways
from wwfast.boot.plan import Ask
from wwfast.boot.stages import Stage
from wwfast.boot.ways import Machine
from wwfast.cli.context import App
from wwfast.cli.main import main
from wwfast.config import checks
from wwfast.config.settings import load
from wwfast.errors import ConfigError, WwfastError
from wwfast.images import building, filesystems
from wwfast.images.building import How
from wwfast.images.stage1 import elf, making, programs, rests, rules
from wwfast.images.stage1.rests import Look
from wwfast.images.stage1.rules import Choice
from wwfast.images.store import ImageStore
from wwfast.nodes.registry import Registry
from wwfast.pack import engine
from wwfast.paths import Paths
from wwfast.system import files, within

RELEASE = "6.1.0-1"


def put(root: Path, *paths: str, text: str = "") -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)


@pytest.fixture(scope="module")
def harvest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stage-1 of this machine, which has all that an image must have."""
    tree = tmp_path_factory.mktemp("harvest")
    assert programs.collect(Look(Path("/")), tree, disks=True) == [DISK]
    for name in programs.inside():
        shutil.copy2(f"/bin/{name}", tree / "usr/bin", follow_symlinks=True)
    return tree


@pytest.mark.root
def test_stage1_programs_of_an_image_run_without_the_image(harvest: Path) -> None:
    for command in ("curl --version", "ip -V", "modprobe --version", "mount --version", "sha256sum /init", "blkid -V"):
        done = subprocess.run(["chroot", harvest, "/bin/sh", "-c", command], capture_output=True, check=False)
        assert done.returncode == 0, (command, done.stderr)
    assert (harvest / "init").stat().st_mode & 0o777 == 0o755


def test_stage1_nothing_of_it_is_outside_the_image(harvest: Path) -> None:
    links = [path for path in harvest.rglob("*") if path.is_symlink()]
    assert links
    for path in links:
        inside = "/" + str(path.relative_to(harvest))
        assert within.resolve(harvest, inside) is not None, f"{inside} leads to nothing in stage-1"
        assert Path(inside).readlink() == path.readlink(), "a link of the image is the same here"


#: Packages of Debian, of Rocky, of another distribution.
NAMED = {
    "curl": ("curl", "curl", "curl"),
    "ip": ("iproute2", "iproute", "iproute2"),
    "modprobe": ("kmod", "kmod", "kmod"),
    "switch_root": ("util-linux", "util-linux", "util-linux"),
    "mount": ("mount", "util-linux", "util-linux"),
    "sh": ("dash", "bash", "bash"),
    "gzip": ("gzip", "gzip", "gzip"),
    "cpio": ("cpio", "cpio", "cpio"),
    "sha256sum": ("coreutils", "coreutils", "coreutils"),
}


def without(harvest: Path, tmp_path: Path, program: str) -> Path:
    """The image without a program, and an empty directory `tree` beside it."""
    image = tmp_path / "image"
    shutil.copytree(harvest, image, symlinks=True)
    for place in ("bin", "sbin", "usr/bin", "usr/sbin"):
        (image / place / program).unlink(missing_ok=True)
    (tmp_path / "tree").mkdir()
    return image


@pytest.mark.parametrize("program", NAMED)
def test_stage1_program_that_the_image_lacks_is_named_with_its_package(
    harvest: Path, tmp_path: Path, program: str
) -> None:
    image = without(harvest, tmp_path, program)
    with pytest.raises(programs.LackingError, match=f"the image has no {program}") as caught:
        programs.collect(Look(image), tmp_path / "tree")
    (image / "etc").mkdir(exist_ok=True)
    assert caught.value.hint == f"install {programs.package(program, image)} in it"
    for words, family in (("ID=debian", 0), ('ID="rocky"\nID_LIKE="rhel centos fedora"', 1), ("ID=arch", 2)):
        (image / "etc/os-release").write_text(words)
        assert programs.package(program, image) == NAMED[program][family]


@pytest.mark.parametrize(
    ("program", "said", "able"),
    [
        ("blkid", "makes no root on a disk: the image has no blkid, install util-linux in it", []),
        ("mkfs.ext4", "on a disk may need more: the image has no mkfs.ext4, install e2fsprogs in it", [DISK]),
    ],
)
def test_disk_program_that_the_image_lacks_is_named_with_its_package(
    harvest: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, program: str, said: str, able: list[str]
) -> None:
    image = without(harvest, tmp_path, program)
    assert programs.collect(Look(image), tmp_path / "tree", disks=True) == able
    assert said in caplog.text
    caplog.clear()
    (tmp_path / "other").mkdir()
    assert programs.collect(Look(image), tmp_path / "other") == []
    assert caplog.text == "", "nobody has a root on a disk"


def test_stage1_library_that_is_missing_is_named_with_who_needs_it(harvest: Path, tmp_path: Path) -> None:
    image = tmp_path / "image"
    shutil.copytree(harvest, image, symlinks=True)
    for library in image.rglob("libcurl.so*"):
        library.unlink()
    (tmp_path / "tree").mkdir()
    with pytest.raises(programs.LackingError, match=r"no libcurl\.so\.4, which /.*/curl needs"):
        programs.collect(Look(image), tmp_path / "tree")


@pytest.mark.root
@pytest.mark.parametrize("kind", ["device", "fifo", "large", "init"])
def test_stage1_program_that_is_run_by_what_is_none_is_refused(harvest: Path, tmp_path: Path, kind: str) -> None:
    """A device would be read without end, and the script of stage-1 be written through a link at its place."""
    image, victim = tmp_path / "image", tmp_path / "victim"
    shutil.copytree(harvest, image, symlinks=True)
    (image / "init").unlink()
    file = image / ("init" if kind == "init" else "dev/it")
    file.parent.mkdir(exist_ok=True)
    if kind == "device":
        os.mknod(file, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    elif kind == "fifo":
        os.mkfifo(file)
    elif kind == "large":
        file.touch()
        os.truncate(file, rests.LARGEST + 1)
    else:
        file.symlink_to(victim)
        put(image, str(victim).lstrip("/"))
    (image / "usr/bin/curl").write_text(f"#! /{file.relative_to(image)}\n")
    (tmp_path / "tree").mkdir()
    why = {"large": "is too large for stage-1: 512 MiB", "init": "stage-1 has of its own"}.get(kind, "no regular file")
    with pytest.raises(programs.LackingError, match=rf"{why} \(/usr.*/curl needs it\)"):
        programs.collect(Look(image), tmp_path / "tree")
    assert not victim.exists()


@pytest.mark.root
def test_stage1_disk_that_is_full_is_no_fault_of_the_image(harvest: Path, tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", tmp_path], check=True)
    try:
        with pytest.raises(OSError, match="No space left on device"):
            programs.collect(Look(harvest), tmp_path)
    finally:
        subprocess.run(["umount", tmp_path], check=True)


@pytest.mark.parametrize("when", ["before", "after"])
def test_stage1_program_that_is_replaced_meanwhile_is_never_another_than_its_digest(tmp_path: Path, when: str) -> None:
    root, file = tmp_path / "image", tmp_path / "image/bin/tool"
    put(root, "bin/tool", text="the old one")

    class Busy(Look):
        def uses(self, real: Path) -> None:
            if when == "before":
                file.write_text("the new one")
            super().uses(real)
            file.write_text("the new one")

    (tmp_path / "tree").mkdir()
    look = Busy(root)
    copy = programs.Collector(look, tmp_path / "tree").copy("/bin/tool")
    assert copy is not None
    known = rests.renewed(look.rests("", [], []), root)
    assert (copy.read_text(), known is not None) == ("the new one", when == "before")


def test_stage1_elf_of_this_python_names_what_ldd_does() -> None:
    found = elf.needs(Path(sys.executable).resolve().read_bytes())
    assert found is not None
    listed = subprocess.run(["ldd", sys.executable], capture_output=True, text=True, check=True).stdout
    assert found.libraries
    assert all(name in listed for name in found.libraries)
    assert found.interpreter in listed


def test_stage1_elf_that_is_damaged_is_none_or_something_and_never_a_crash() -> None:
    data = Path("/bin/sh").resolve().read_bytes()
    assert elf.needs(b"") is None
    assert elf.needs(b"#!/bin/sh\n" * 20) is None
    for cut in range(0, len(data), max(1, len(data) // 97)):
        elf.needs(data[:cut])
    for at in range(16, 1200):
        elf.needs(data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :])


@pytest.fixture
def rootfs(tmp_path: Path) -> Path:
    root = tmp_path / "rootfs"
    put(root, "etc/warewulf/excludes", text="/boot/*\nusr/share/[^a]oc\n# a rule that matches nothing\n")
    put(root, "boot/vmlinuz", "usr/share/doc/x", "usr/share/man/y", "usr/bin/tool", text="text\n" * 1000)
    (root / "usr/bin/link").symlink_to("tool")
    os.setxattr(root / "usr/bin/tool", "user.note", b"kept")
    os.utime(root / "usr/bin/tool", (1_000_000_000, 1_000_000_000))
    with (root / "sparse").open("wb") as file:
        file.truncate(50 << 20)
    return root


def names(file: Path, kind: str, into: Path) -> set[str]:
    """What is in a file system, read by its own tools."""
    if kind == SQUASHFS:
        subprocess.run(["unsquashfs", "-no-progress", "-quiet", "-d", into, file], check=True, capture_output=True)
    else:
        subprocess.run(["fsck.erofs", f"--extract={into}", file], check=True, capture_output=True)
    return {str(path.relative_to(into)) for path in into.rglob("*") if not path.is_dir()}


@pytest.mark.root
@pytest.mark.parametrize("kind", FILESYSTEMS)
def test_squashfs_and_erofs_hold_the_tree_without_what_its_rules_leave_out(
    rootfs: Path, tmp_path: Path, kind: str
) -> None:
    (tmp_path / "one").mkdir()
    info = filesystems.make(rootfs, tmp_path / "one", kind, excludes=["usr/share/man/y"])
    found = names(tmp_path / "one" / kind, kind, tmp_path / "out")
    assert found == {"etc/warewulf/excludes", "usr/bin/tool", "usr/bin/link", "sparse"}
    assert int((tmp_path / "out/usr/bin/tool").stat().st_mtime) == 1_000_000_000
    assert info.size < 1 << 20, "a hole takes nothing"
    if kind == SQUASHFS:
        assert os.getxattr(tmp_path / "out/usr/bin/tool", "user.note") == b"kept"


ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", tag, bits, who)
    for tag, bits, who in (
        (1, 6, -1 & 0xFFFFFFFF),
        (2, 6, 1000),
        (4, 4, 0xFFFFFFFF),
        (16, 6, 0xFFFFFFFF),
        (32, 4, 0xFFFFFFFF),
    )
)
ATTRIBUTES = {
    "security.capability": struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0),
    "security.selinux": b"system_u:object_r:bin_t:s0\0",
    "user.note": b"kept \0\xff",
    "trusted.note": b"",
    "system.posix_acl_access": ACL,
}


def attributes(file: Path) -> dict[str, bytes]:
    return {name: os.getxattr(file, name, follow_symlinks=False) for name in os.listxattr(file, follow_symlinks=False)}


@pytest.mark.root
@pytest.mark.parametrize("kind", FILESYSTEMS)
def test_squashfs_and_erofs_hold_attributes_and_holes(rootfs: Path, tmp_path: Path, kind: str) -> None:
    """Read by the kernel. Squashfs has no place for POSIX ACLs."""
    for name, value in ATTRIBUTES.items():
        os.setxattr(rootfs / "usr/bin/tool", name, value)
    os.setxattr(rootfs / "usr", "system.posix_acl_default", ACL)
    os.setxattr(rootfs / "usr/bin/link", "security.selinux", b"a label of a link", follow_symlinks=False)
    (tmp_path / "made").mkdir()
    info = filesystems.make(rootfs, tmp_path / "made", kind)
    assert info.size < 1 << 20
    at = tmp_path / "at"
    at.mkdir()
    subprocess.run(["mount", "-t", kind, "-o", "loop,ro", tmp_path / "made" / kind, at], check=True)
    try:
        kept = {name: value for name, value in ATTRIBUTES.items() if kind == EROFS or not name.startswith("system.")}
        assert attributes(at / "usr/bin/tool") == kept
        assert attributes(at / "usr") == ({"system.posix_acl_default": ACL} if kind == EROFS else {})
        assert attributes(at / "usr/bin/link") == {"security.selinux": b"a label of a link"}
        assert (at / "sparse").stat().st_size == 50 << 20
    finally:
        subprocess.run(["umount", at], check=True)


@pytest.mark.root
@pytest.mark.parametrize("kind", FILESYSTEMS)
def test_squashfs_and_erofs_hold_a_file_over_4_gib(tmp_path: Path, kind: str) -> None:
    """A hole of erofs is zeros, compressed."""
    at = tmp_path / "at"
    for place in (at, tmp_path / "made"):
        place.mkdir()
    with trees.huge(tmp_path / "rootfs"):
        info = filesystems.make(tmp_path / "rootfs", tmp_path / "made", kind)
    most = (1 if kind == SQUASHFS else 32) << 20
    assert info.size < most
    subprocess.run(["mount", "-t", kind, "-o", "loop,ro", tmp_path / "made" / kind, at], check=True)
    try:
        trees.assert_huge(at / "huge", most)
    finally:
        subprocess.run(["umount", at], check=True)


def test_squashfs_says_how_many_acls_it_loses_and_of_what(site: Paths, caplog: pytest.LogCaptureFixture) -> None:
    root = site.chroots / "tiny/rootfs"
    for number in range(7):
        (root / f"acl{number}").write_text("x")
        os.setxattr(root / f"acl{number}", "system.posix_acl_access", ACL)
    building.build(site, "tiny", How(formats=(EROFS,)))
    assert "ACL" not in caplog.text
    building.build(site, "tiny", How(formats=(SQUASHFS,)))
    said = "image tiny: squashfs holds no POSIX ACLs, which 7 names have (/acl0, /acl1, /acl2, /acl3, /acl4, ...)"
    assert said in caplog.text


@pytest.mark.parametrize("kind", FILESYSTEMS)
def test_squashfs_and_erofs_of_the_same_tree_are_the_same_file(rootfs: Path, tmp_path: Path, kind: str) -> None:
    made = []
    for number in range(2):
        place = tmp_path / str(number)
        place.mkdir()
        made.append(filesystems.make(rootfs, place, kind))
        time.sleep(1.1)  # both programs write the second at which they run
    assert made[0] == made[1]


@pytest.mark.parametrize("kind", FILESYSTEMS)
def test_squashfs_and_erofs_without_their_program_name_the_package(
    rootfs: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(WwfastError) as caught:
        filesystems.make(rootfs, tmp_path, kind)
    program, package = filesystems.PACKAGES[kind]
    assert program in caught.value.message
    assert package in (caught.value.hint or "")


@pytest.fixture
def site(paths: Paths, harvest: Path) -> Paths:
    """An image with all that stage-1 needs and a kernel that says so, for node n1 with a root that is mounted."""
    made = tiny_site(paths)
    root = made.chroots / "tiny/rootfs"
    for name in ("curl", "sh", "tar"):
        (root / "usr/bin" / name).unlink()
    for part in harvest.iterdir():
        if part.is_symlink() and not (root / part.name).is_symlink():
            (root / part.name).symlink_to(part.readlink())
        elif part.is_dir() and not part.is_symlink():
            shutil.copytree(part, root / part.name, symlinks=True, dirs_exist_ok=True)
    put(root, f"usr/lib/modules/{RELEASE}/modules.dep")
    put(
        root,
        f"usr/lib/modules/{RELEASE}/modules.builtin",
        text="".join(f"kernel/{name}.ko\n" for name in rules.BY_NAME),
    )
    text = made.nodes_conf.read_text()
    made.nodes_conf.write_text(text.replace("  n1:\n", "  n1:\n    root: squashfs\n", 1))
    assert "root: squashfs" in made.nodes_conf.read_text()
    return made


def test_two_stage_image_with_names_that_are_not_utf8_is_built(site: Paths, tmp_path: Path) -> None:
    """Its links, kernels and rules, and what stage-1 looked at; the second build finds all of it again."""
    root, rule = site.chroots / "tiny/rootfs", tmp_path / "stage1-drivers"
    odd = os.fsdecode(b"caf\xe9")
    (root / odd).symlink_to("bin")
    put(root, f"boot/vmlinuz-6.9.0-{odd}", text="kernel")
    put(root, "etc/ld.so.conf", text="include ld.so.conf.d/*.conf\n")
    put(root, f"etc/ld.so.conf.d/{odd}.conf", text="/usr/lib\n")
    put(root, f"lib/firmware/{odd}/x.bin")
    (root / "etc/warewulf").mkdir(exist_ok=True)
    (root / "etc/warewulf/excludes").write_bytes(b"/opt/caf\xe9/*\n")
    rule.write_bytes(b"+ firmware caf\xe9/\n- firmware nothing-\xe9\n")
    how = How(formats=(SQUASHFS,), drivers=Choice(rules.read(rule)))
    build, _ = building.build(site, "tiny", how)
    assert build.info.stage1 == {RELEASE: [SQUASHFS, EROFS, TMPFS]}
    assert odd in build.symlinks
    assert f"/boot/vmlinuz-6.9.0-{odd}" in {kernel.path for kernel in build.kernels}
    assert build.manifest().excludes[0] == f"opt/{odd}/*"
    known = rests.read(build.path / "stage1" / RELEASE)
    assert known is not None
    assert f"/usr/lib/firmware/{odd}/x.bin" in known.files
    assert not building.build(site, "tiny", how)[1], "nothing changed since"
    (root / "opt-other").touch()
    again, _ = building.build(site, "tiny", how)
    places = [
        made.path / "stage1" / part / "manifest.json" for made in (build, again) for part in ("programs", RELEASE)
    ]
    assert len({place.stat().st_ino for place in places}) == 2, "stage-1 is taken over"


def told(site: Paths, **more: object) -> tuple[str, str]:
    """What node n1 is sent as its script, and why it is that."""
    snapshot = Registry(site).snapshot()
    plan = Fresh(site, load(site)).plan(snapshot, snapshot.nodes["n1"], Stage.IPXE, Ask(MAC, **more))  # type: ignore[arg-type]
    return plan.text or "", plan.reason


def test_two_stage_node_is_told_of_stage1_alone_and_of_its_image(site: Paths) -> None:
    assert "is not built as squashfs" in told(site)[1]
    build, changed = building.build(site, "tiny", How(formats=(SQUASHFS,)))
    assert changed
    assert build.info.stage1 == {RELEASE: [SQUASHFS, EROFS, TMPFS]}
    text, reason = told(site)
    assert reason == ""
    assert "initrd --name stage1 ${base}/stage1/" in text
    assert "--name image" not in text
    pieces = ImageStore(site).get("tiny").build.roots()[SQUASHFS + PIECES].digest  # type: ignore[union-attr]
    for word in (
        f"wwfast.image=tiny@{build.id}", "wwfast.root=squashfs", f"wwfast.pieces={pieces}",
        "wwfast.ip=${netX/ip}/${netX/netmask}", "initrd=stage1",
    ):  # fmt: skip
        assert word in text
    snapshot = Registry(site).snapshot()
    fresh, node = Fresh(site, load(site)), snapshot.nodes["n1"]
    for stage, compress in ((Stage.STAGE1, ""), (Stage.IMAGE, SQUASHFS), (Stage.IMAGE, SQUASHFS + PIECES)):
        plan = fresh.plan(snapshot, node, stage, Ask(MAC, compress=compress, image=f"tiny@{build.id}"))
        assert plan.artefact is not None, plan.reason
        assert sum(extent.length for extent in plan.artefact.extents) > 0
    assert fresh.plan(snapshot, node, Stage.IMAGE, Ask(MAC, compress=EROFS)).status == 404


def test_two_stage_boot_gets_the_build_that_it_began_with_whatever_is_built_meanwhile(site: Paths) -> None:
    """By the query of stage-1: the list and its pieces are the same bytes, also after a restart of the server."""
    forms = (SQUASHFS, TMPFS)
    root = site.chroots / "tiny/rootfs"

    def word(name: str) -> str:
        found = re.search(rf" {name}=(\S+)", told(site)[0])
        assert found is not None
        return found[1]

    def served(server: Serving, image: str) -> dict[str, list[bytes]]:
        """The list of each form and its pieces, asked for as stage-1 does."""
        found = {}
        for form in forms:
            about, at = f"/image/{MAC}?image={image}&compress={form}", 0
            status, pieces, _ = server.get(f"{about}.pieces&memory=512")
            assert status == 200
            found[form] = [pieces]
            for line in pieces.decode().splitlines():
                length, sum_ = line.split()[:2]
                part = {"Range": f"bytes={at}-{at + int(length) - 1}"}
                status, piece, _ = server.get(about, headers=part)
                assert (status, hashlib.sha256(piece).hexdigest()) == (206, sum_)
                found[form].append(piece)
                at += int(length)
        return found

    building.build(site, "tiny", How(formats=forms))
    with serving(site) as server:
        begun, digest = word("wwfast.image"), word("wwfast.pieces")
        first = served(server, begun)
        assert hashlib.sha256(first[SQUASHFS][0]).hexdigest() == digest
        put(root, "etc/motd", "usr/lib/another", text="changed\n" * 1000)
        building.build(site, "tiny", How(formats=forms))
        assert word("wwfast.image") != begun
        assert word("wwfast.pieces") != digest
        until(lambda: word("wwfast.image") in server.get(f"/ipxe/{MAC}")[1].decode())
        assert served(server, begun) == first
        second = served(server, word("wwfast.image"))
        assert all(second[form] != first[form] for form in forms)
    with serving(site) as server:
        assert served(server, begun) == first
        assert served(server, word("wwfast.image")) == second


def stage1_of(site: Paths) -> set[str]:
    """Names in the first stage that node n1 is sent."""
    snapshot = Registry(site).snapshot()
    plan = Fresh(site, load(site)).plan(snapshot, snapshot.nodes["n1"], Stage.STAGE1, Ask(MAC))
    assert plan.artefact is not None, plan.reason
    return {Path(name).name for name in listed(plan.artefact)}


def test_stage1_drivers_are_what_the_file_and_the_setting_of_the_site_say(site: Paths, tmp_path: Path) -> None:
    nic, usb, hca = "ethernet/a/nic.ko", "usb/r8153.ko", "infiniband/hw/hca.ko"
    depends = {f"kernel/drivers/{place}": "" for place in (f"net/{nic}", f"net/{usb}", hca)}
    plant(site.chroots / "tiny/rootfs", RELEASE, depends)
    source = tmp_path / "source"
    put(source, "boot/vmlinuz-6.9.0-1", text="kernel")
    plant(source, "6.9.0-1", depends | {"kernel/fs/overlayfs/overlay.ko": "", "kernel/drivers/block/loop.ko": ""})
    text, rule = site.nodes_conf.read_text(), site.etc / "stage1-drivers"
    own = text.replace("root: squashfs\n", "root: squashfs\n    kernel: {override: mine}\n")

    def found() -> list[set[str]]:
        """What is in it of each of these: with a kernel of the image, and with one that is kept apart."""
        service = App(site).service
        service.build_image("tiny", How())
        service.import_kernel(str(source), "mine", force=True)
        made = []
        for nodes in (text, own.replace("squashfs", "tmpfs")):
            site.nodes_conf.write_text(nodes)
            made.append(stage1_of(site) & {Path(place).name for place in depends})
        site.nodes_conf.write_text(text)
        return made

    assert found() == [{"nic.ko"}] * 2
    assert not App(site).service.build_image("tiny", How()).changed
    rule.write_text("# cards on USB\n- drivers/net/ethernet/\n+ drivers/net/usb/\n")
    assert found() == [{"r8153.ko"}] * 2
    write_conf(site, wwfast={"stage1 infiniband": True})
    assert found() == [{"r8153.ko", "hca.ko"}] * 2
    rule.unlink()
    assert found() == [{"nic.ko", "hca.ko"}] * 2
    rule.write_text("- nic\nr8153\n")
    for build in (lambda: App(site).service.build_image("tiny", How()), found):
        with pytest.raises(ConfigError, match=r"etc/warewulf/stage1-drivers:2: 'r8153' is no rule of drivers"):
            build()


def test_two_stage_tmpfs_is_an_archive_that_the_programs_of_the_image_unpack(site: Paths) -> None:
    text = site.nodes_conf.read_text()
    two = "    root: tmpfs\n    wwfast:\n      two stage: always\n"
    site.nodes_conf.write_text(text.replace("    root: squashfs\n", two))
    assert App(site).service.roots_of("tiny") == [TMPFS]
    build, _ = building.build(site, "tiny", How(formats=(TMPFS,)))
    form = TAR_ZST if shutil.which("zstd") else TAR_GZ
    assert build.info.archive is not None
    assert build.info.archive.form == form
    assert not building.build(site, "tiny", How(formats=(TMPFS,)))[1], "nothing changed since"
    script, reason = told(site)
    assert (reason, "wwfast.root=tmpfs wwfast.need=" in script) == ("", True)
    assert f"wwfast.pieces={build.info.archive.pieces}" in script
    with serving(site) as server:
        about = f"/image/{MAC}?image=tiny@{build.id}&compress=tmpfs"
        listed, body = server.get(about + ".pieces")[1], server.get(about)[1]
    assert hashlib.sha256(listed).hexdigest() == build.info.archive.pieces
    sizes = [int(line.split()[0]) for line in listed.splitlines()]
    assert sum(sizes) == len(body)
    site.nodes_conf.write_text(text.replace("    root: squashfs\n", two.replace("always", "never")))
    assert App(site).service.roots_of("tiny") == []


@pytest.mark.parametrize(
    ("ways", "small", "made"),
    [
        ("", True, True),
        ("", False, False),
        ("    wwfast:\n      two stage: never\n", True, False),
        ("    root: squashfs\n", True, False),
    ],
    ids=["small", "large", "in one stage", "mounted"],
)
def test_two_stage_archive_is_made_for_machines_known_to_be_small(
    site: Paths, ways: str, small: bool, made: bool
) -> None:
    site.nodes_conf.write_text(site.nodes_conf.read_text().replace("    root: squashfs\n", ways))
    service = App(site).service
    before = service.build_image("tiny", How()).build
    assert before.info.archive is None
    need = 2 * before.info.unpacked >> 20
    site.machines.write_text(json.dumps({"n1": need // 2 if small else 2 * need, "n9": 1}))
    after = service.build_image("tiny", How())
    assert (after.build.info.archive is not None, after.changed) == (made, made)


def test_two_stage_root_on_a_disk_takes_programs_and_drivers_for_disks(site: Paths) -> None:
    text = site.nodes_conf.read_text()
    site.nodes_conf.write_text(
        text.replace("    root: squashfs\n", "    root: LABEL=root\n    wwfast:\n      two stage: always\n")
    )
    service = App(site).service
    assert service.roots_of("tiny") == [TMPFS, DISK]
    building.build(site, "tiny", How(formats=(TMPFS,)))
    assert f"image tiny has no programs or drivers for disks in stage-1 of kernel {RELEASE}" in told(site)[1]
    build = service.build_image("tiny", How()).build
    assert build.info.stage1 == {RELEASE: [SQUASHFS, EROFS, DISK, TMPFS]}
    assert build.info.archive is not None
    script, reason = told(site)
    assert (reason, "wwfast.root=disk wwfast.need=166 " in script) == ("", True)
    assert f"wwfast.pieces={build.info.archive.pieces}" in script
    assert not service.build_image("tiny", How()).changed, "nothing changed since"


def test_cache_of_a_node_takes_programs_and_drivers_for_disks(site: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    def asked(words: str) -> None:
        site.nodes_conf.write_text(text.replace("    root: squashfs\n", words))

    def doctor() -> str:
        with pytest.raises(SystemExit):
            main(["--root", str(site.root), "doctor", "n1"])
        return capsys.readouterr().out

    text = site.nodes_conf.read_text()
    cached = "    wwfast: {cache: LABEL=cache%s}\n"
    asked("    root: squashfs\n" + cached % "")
    service = App(site).service
    assert service.roots_of("tiny") == [SQUASHFS, DISK], "and no archive, which nobody unpacks"
    building.build(site, "tiny", How(formats=(SQUASHFS,)))
    assert "wwfast.root=squashfs" in told(site)[0]
    assert "wwfast.cache" not in told(site)[0]
    assert "the cache LABEL=cache has no effect: stage-1 is not built with programs" in doctor()
    build = App(site).service.build_image("tiny", How()).build
    assert build.info.archive is None
    assert " wwfast.cache=LABEL=cache" in told(site)[0]
    assert "the cache" not in doctor()
    asked("    root: squashfs\n    wwfast: {cache: /dev/x ; shell}\n")
    assert "node n1: '/dev/x ; shell' holds" in told(site)[1]
    asked(cached % "")
    assert App(site).service.roots_of("tiny") == [TMPFS, DISK]
    App(site).service.build_image("tiny", How())
    script = told(site)[0]
    assert "wwfast.root=tmpfs" in script, "where nothing else asks for two stages"
    assert " wwfast.cache=LABEL=cache" in script
    asked(cached % ", two stage: never")
    assert App(site).service.roots_of("tiny") == []
    assert "wwfast.cache" not in told(site)[0]
    assert "the cache LABEL=cache has no effect: two stage is never" in doctor()
    asked("    wwfast: {cache: /dev/disk/by-id/x}\n")
    assert "the cache /dev/disk/by-id/x has no effect: stage-1 has no udev" in doctor()


def test_root_on_a_disk_is_updated_where_stage1_can_and_doctor_says_where_it_cannot(
    site: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    def doctor(words: str) -> str:
        site.nodes_conf.write_text(text.replace("    root: squashfs\n", words))
        with pytest.raises(SystemExit):
            main(["--root", str(site.root), "doctor", "n1"])
        return capsys.readouterr().out

    text = site.nodes_conf.read_text()
    wanted = "    root: LABEL=root\n    wwfast: {disk root: update%s}\n"
    idle = "disk root update has no effect: "
    assert idle + "two stage is never" in doctor(wanted % ", two stage: never")
    assert idle + "its root is on no disk" in doctor((wanted % "").replace("LABEL=root", "tmpfs"))
    building.build(site, "tiny", How(formats=(TMPFS,)))
    assert idle + "stage-1 is not built with programs" in doctor(wanted % "")
    App(site).service.build_image("tiny", How())
    assert "no effect" not in doctor(wanted % "")
    assert " wwfast.update=1" in told(site)[0]
    assert " wwfast.root=disk" in told(site)[0]
    doctor((wanted % "").replace("update", "rebuild"))
    assert "wwfast.update" not in told(site)[0]


def test_two_stage_image_with_a_file_that_no_initramfs_carries_boots_in_two_stages_alone(
    site: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = site.nodes_conf.read_text()
    site.nodes_conf.write_text(text.replace("    root: squashfs\n", ""))
    with (site.chroots / "tiny/rootfs/opt-large").open("wb") as file:
        file.truncate(200 << 20)
    monkeypatch.setattr(engine, "NEWC_MOST", 100 << 20)
    build, _ = building.build(site, "tiny", How())
    (warning,) = [line for line in build.manifest().warnings if "two stages" in line]
    assert "opt-large" in warning
    assert build.differences(site.chroots / "tiny/rootfs") == []
    script, reason = told(site, machine=Machine(300))
    assert reason == ""
    assert "in two stages as tmpfs" in script
    assert "image tiny has a file that an initramfs cannot carry" in script
    site.nodes_conf.write_text(text.replace("    root: squashfs\n", "    wwfast:\n      two stage: never\n"))
    assert "image tiny has a file that an initramfs cannot carry" in told(site)[1]


@pytest.mark.parametrize("other", [None, "/bin/busybox", "/usr/bin/bsdtar"])
def test_two_stage_tmpfs_of_an_image_without_gnu_tar_names_it(
    site: Paths, caplog: pytest.LogCaptureFixture, other: str | None
) -> None:
    for tar in list((site.chroots / "tiny/rootfs").rglob("tar")):
        tar.unlink()
        if other is not None:
            shutil.copy2(other, tar)
    build, _ = building.build(site, "tiny", How(formats=(TMPFS,)))
    assert "image tiny is not made for two stages as tmpfs: it has no GNU tar: install tar in it" in caplog.text
    assert build.info.archive is None


def unrooted(site: Paths) -> None:
    """The node asks for no root, and its image is large enough to need more in one stage than in two."""
    text = site.nodes_conf.read_text()
    site.nodes_conf.write_text(text.replace("    root: squashfs\n", ""))
    (site.chroots / "tiny/rootfs/usr/lib/large").write_bytes(random.Random(1).randbytes(40 << 20))
    building.build(site, "tiny", How(formats=(SQUASHFS,)))


def test_two_stage_is_chosen_by_the_memory_that_the_boot_loader_tells(site: Paths) -> None:
    unrooted(site)
    with serving(site) as server:

        def asked(query: str) -> str:
            return server.get(f"/ipxe/{MAC}?assetkey=&uuid={query}")[1].decode()

        for query, way in (
            ("&memsize=3072", "in one stage: needs"), ("&memsize=", "in one stage: needs"), ("", "in one stage: needs"),
            ("&memsize=240", "in two stages as squashfs: needs"),
        ):  # fmt: skip
            script = asked(query)
            assert f"echo The image comes {way}" in script
            assert ("initrd --name stage1" in script, "initrd --name image" in script) == ("two" in way, "one" in way)
        script = asked("&memsize=240")
        assert ("wwfast.root=squashfs wwfast.need=" in script, "wwfast.upper" in script) == (True, False)
        text = site.nodes_conf.read_text()
        site.nodes_conf.write_text(text.replace("  n1:\n", "  n1:\n    wwfast: {upper: zram}\n"))
        until(lambda: "wwfast.upper=zram" in asked("&memsize=240"))
        script = asked("&memsize=100")
        assert "kernel --name" not in script
        for words in ("node n1 cannot boot yet", "which has 100 MiB", "in one stage it needs", "as squashfs it needs"):
            assert words in script


def shown(site: Paths, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What `image show` says."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        main(["--root", str(site.root), "image", "show", "tiny", *words])
    assert caught.value.code in (0, None)
    return capsys.readouterr().out


def test_two_stage_image_that_is_damaged_is_shown(site: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    build, _ = building.build(site, "tiny", How(formats=(SQUASHFS,)))
    for pack in (build.path / "image").glob("*.pack"):
        os.truncate(pack, 10)
    (damaged,) = json.loads(shown(site, capsys, "--json"))["ways"]
    assert "is damaged" in damaged["lacks"]


def test_two_stage_needs_of_an_image_are_shown_with_it(site: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    building.build(site, "tiny", How(formats=(SQUASHFS,)))
    one, *two = json.loads(shown(site, capsys, "--json"))["ways"]
    assert (one["way"], one["need"] >= 192, one["lacks"]) == ("in one stage", True, "")
    squashfs = next(way for way in two if way["way"] == "in two stages as squashfs")
    assert (130 < squashfs["need"] < 192, squashfs["lacks"]) == (True, "")
    lines = [line.strip().removeprefix("ways:").strip() for line in shown(site, capsys, "--all").splitlines()]
    assert f"in one stage: from {one['need']} MiB of memory" in lines
    assert f"in two stages as squashfs: from {squashfs['need']} MiB of memory" in lines
    assert "in two stages as erofs: image tiny is not built as erofs" in lines
    shutil.rmtree(site.images)
    assert json.loads(shown(site, capsys, "--json"))["ways"] == []


def test_two_stage_is_chosen_by_what_the_node_last_reported(site: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    """UEFI builds of iPXE cannot tell the memory: what Linux said at the last boot counts, also after a restart."""
    unrooted(site)

    def asked() -> str:
        return server.get(f"/ipxe/{MAC}?memsize=")[1].decode()

    def doctor() -> str:
        with pytest.raises(SystemExit):
            main(["--root", str(site.root), "doctor", "n1"])
        return capsys.readouterr().out

    with serving(site) as server:
        assert "in one stage" in asked()
        assert "where 512 are taken for granted" in server.status("n1")["nodes"]["n1"]["way"]
        assert "memory" not in server.status("n1")["nodes"]["n1"]
        for wrong in ("", "-1", "x", "1e9", "9" * 30, "\u0663", "0"):
            assert server.get(f"/runtime/{MAC}?format=tar&memory={quote(wrong)}")[0] == 200
        assert "in one stage" in asked()
        assert server.get(f"/runtime/{MAC}?format=tar&memory=190")[0] == 200
        assert "echo The image comes in two stages as squashfs: needs" in asked()
        told = server.status("n1")["nodes"]["n1"]
        assert told["memory"] == ways.whole(190)
        assert f"of {told['memory']} (as it last reported)" in told["way"]
    assert "does not fit" not in doctor()
    with serving(site) as server:
        assert "in two stages as squashfs" in asked()
        assert server.get(f"/stage1/{MAC}?said=BOOT+STOPPED&memory=90")[0] == 200
        assert "initrd" not in asked()
        told = server.status("n1")["nodes"]["n1"]
        assert (told["failed"], told.get("way")) == (True, None)
        assert "in one stage it needs" in told["error"]
        assert "as squashfs it needs" in told["error"]
        assert "in one stage" in asked(), "it may have more by now, and only Linux can tell"
        assert server.get(f"/runtime/{MAC}?format=tar&memory=190")[0] == 200
        assert "in two stages as squashfs" in server.get(f"/ipxe/{MAC}?memsize=3072")[1].decode(), "Linux has less"
        assert "in two stages as squashfs" in server.get(f"/ipxe/{MAC}?memsize=225")[1].decode()
        assert server.status("n1")["nodes"]["n1"]["memory"] == ways.whole(190), "what iPXE says is not kept"
    site.machines.write_text('{"n1": 123}')
    assert "does not fit node n1, which has 123 MiB of memory" in doctor()
    site.machines.write_text("{")
    assert "does not fit" not in doctor()
    with serving(site) as server:
        assert "in one stage" in asked()
        assert "machines.json" in str(server.status()["troubles"])


def test_two_stage_is_tried_once_by_who_is_not_heard_of_then(site: Paths) -> None:
    """Stage-1 may have no driver for the card: then it tells nothing, and the node comes back for its script."""
    unrooted(site)
    (site.chroots / "tiny/rootfs/usr/lib/large").write_bytes(random.Random(1).randbytes(150 << 20))
    building.build(site, "tiny", How(formats=(SQUASHFS,)))
    with serving(site) as server:

        def asked() -> str:
            return server.get(f"/ipxe/{MAC}?memsize=")[1].decode()

        assert "in two stages as squashfs" in asked()
        assert "in two stages as squashfs" in asked(), "a script alone says nothing"
        server.daemon.guard.own_dhcp = True
        assert server.get(f"/stage1/{MAC}")[0] == 200
        server.daemon.guard.own_dhcp = False
        assert "in two stages as squashfs" in asked(), "nor does what another machine fetches"
        assert server.get(f"/stage1/{MAC}")[0] == 200
        assert "in one stage: needs" in (script := asked())
        assert "stage-1 did not tell it, either" in script
        assert server.get(f"/image/{MAC}?compress=zst")[0] == 200
        assert "in two stages as squashfs" in asked(), "and the other way when that did not help"
        assert server.get(f"/stage1/{MAC}")[0] == 200
        assert server.get(f"/image/{MAC}?compress=squashfs.pieces&memory=460")[0] == 200
        assert "in two stages as squashfs: needs" in (script := asked())
        assert "as it last reported" in script


def test_two_stage_is_not_for_who_boots_by_ipv6(site: Paths) -> None:
    """Stage-1 is given the address that iPXE has, of IPv4."""
    unrooted(site)
    assert "in two stages as squashfs" in told(site, machine=Machine(240))[0]
    assert "stage-1 has no IPv6 address" in told(site, machine=Machine(240), ipv6=True)[1]


def test_two_stage_is_not_chosen_for_a_script_that_loads_an_image_and_nothing_else(site: Paths) -> None:
    unrooted(site)
    (site.etc / "ipxe").mkdir(exist_ok=True)
    own = site.etc / "ipxe/own.ipxe.j2"
    text = site.nodes_conf.read_text()
    site.nodes_conf.write_text(text.replace("  n1:\n", "  n1:\n    ipxe template: own\n", 1))
    for script, stages in (("initrd {{ image_name }} {{ kernel_args }}", False), ("fetch {{ stages }}", True)):
        own.write_text(f"#!ipxe\n{script}\n")
        small, reason = told(site, machine=Machine(240))
        assert ("iPXE template own of this site fetches no stages" in reason) != stages
        assert ("stage1" in small) == stages
        assert told(site, machine=Machine(3072)) == (
            "#!ipxe\nfetch ['image', 'system']\n" if stages else "#!ipxe\ninitrd tiny quiet\n", ""
        )  # fmt: skip


def test_two_stage_that_cannot_be_is_refused_in_words(site: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    building.build(site, "tiny", How(formats=(SQUASHFS,)))
    assert "needs 1" in told(site, machine=Machine(64))[1]
    assert told(site, machine=Machine(256))[1] == ""
    text = site.nodes_conf.read_text()
    site.nodes_conf.write_text(text.replace("root: squashfs", "root: erofs"))
    assert "is not built as erofs: wwfast image build --format erofs tiny" in told(site)[1]
    site.nodes_conf.write_text(text)
    monkeypatch.setattr(programs, "script", lambda: "another")
    assert "no stage-1 of this version of wwfast" in told(site)[1]
    _, changed = building.build(site, "tiny", How(formats=(SQUASHFS,)))
    assert (changed, told(site)[1]) == (True, "")
    assert not building.build(site, "tiny", How(formats=(SQUASHFS,)))[1], "nothing changed since"


def test_two_stage_image_that_lacks_a_program_says_which_when_it_is_built(
    site: Paths, caplog: pytest.LogCaptureFixture
) -> None:
    for curl in (site.chroots / "tiny/rootfs").rglob("curl"):
        curl.unlink()
    build, _ = building.build(site, "tiny", How(formats=(SQUASHFS,)))
    assert "image tiny has no stage-1: the image has no curl: install curl in it" in caplog.text
    assert build.info.stage1 == {}
    assert "image tiny has no stage-1" in told(site)[1]
    assert build.artefact("zst") is not None, "in one stage it boots as before"
    caplog.clear()
    again = building.build(site, "tiny", How(formats=(SQUASHFS,)))
    assert again == (build, False), "what the image still lacks is no other build"
    assert "the image has no curl" in caplog.text, "the hint of the node's trouble sends people here"


@pytest.fixture
def with_driver(site: Paths) -> Paths:
    """A module that asks for firmware, which the image's rules leave out of what nodes get."""
    root = site.chroots / "tiny/rootfs"
    home = f"usr/lib/modules/{RELEASE}"
    put(root, f"{home}/modules.dep", text="kernel/drivers/net/ethernet/nic.ko:\n")
    put(root, f"{home}/kernel/drivers/net/ethernet/nic.ko", "usr/lib/firmware/nic.bin")
    (root / home / "kernel/drivers/net/ethernet/nic.ko").write_bytes(module(license="GPL", firmware="nic.bin"))
    put(root, "etc/warewulf/excludes", text="usr/lib/firmware/*\n")
    return site


def test_two_stage_that_this_server_could_not_make_is_made_once_it_can(
    with_driver: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing of the image changed meanwhile: a server without modinfo got its package."""
    (tmp_path / "bin").mkdir()
    for name in ("mksquashfs", "rm"):
        (tmp_path / "bin" / name).symlink_to(shutil.which(name) or "")
    with monkeypatch.context() as poor:
        poor.setenv("PATH", str(tmp_path / "bin"))
        build, _ = building.build(with_driver, "tiny", How(formats=(SQUASHFS,)))
        assert (build.info.stage1, caplog.text.count("modinfo is not installed")) == ({}, 1)
        assert not building.build(with_driver, "tiny", How(formats=(SQUASHFS,)))[1]
        assert caplog.text.count("modinfo is not installed") == 2
    build, changed = building.build(with_driver, "tiny", How(formats=(SQUASHFS,)))
    assert (changed, list(build.info.stage1), told(with_driver)[1]) == (True, [RELEASE], "")
    assert not building.build(with_driver, "tiny", How(formats=(SQUASHFS,)))[1], "nothing changed since"


def test_two_stage_firmware_that_only_stage1_has_makes_another_build(with_driver: Paths) -> None:
    def built() -> tuple[str, bool]:
        build, changed = building.build(with_driver, "tiny", How(formats=(SQUASHFS,)))
        made = build.stage1(RELEASE)
        assert made is not None
        return made.digest, changed

    first, _ = built()
    assert built() == (first, False)
    put(with_driver.chroots / "tiny/rootfs", "usr/lib/firmware/nic.bin", text="of the next version")
    second, changed = built()
    assert (changed, second != first) == (True, True)
    assert built() == (second, False)


@pytest.mark.root
def test_stage1_on_a_full_disk_is_an_error_and_not_an_image_without(
    site: Paths, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    full = tmp_path / "full"
    full.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "none", full], check=True)
    try:
        job = making.Job(site.chroots / "tiny/rootfs", "image tiny", tmp_path / "made", full)
        with pytest.raises(WwfastError, match="No space left"):
            making.make(job, ImageStore(site).get("tiny").kernels())
    finally:
        subprocess.run(["umount", full], check=True)
    assert "no stage-1" not in caplog.text


def test_two_stage_node_with_a_kernel_of_its_own_gets_the_drivers_of_that(
    site: Paths, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The image's programs, then the kernel's drivers; and its modules, for the image has none that fit."""
    building.build(site, "tiny", How(formats=(SQUASHFS,)))
    text = site.nodes_conf.read_text()
    site.nodes_conf.write_text(text.replace("  n1:\n", "  n1:\n    kernel: {override: mine}\n", 1))
    depends = {"kernel/fs/squashfs/squashfs.ko": "", "kernel/drivers/block/loop.ko": ""}
    source, service = tmp_path / "source", App(site).service
    put(source, "boot/vmlinuz-6.9.0-1", text="kernel")
    plant(source, "6.9.0-1", depends)
    service.import_kernel(str(source), "mine")
    assert "kernel mine has no stage-1 for kernel 6.9.0-1: the kernel has no overlay" in caplog.text
    assert "kernel mine has no drivers for stage-1" in told(site)[1]
    shutil.rmtree(source / "usr")
    (source / "lib").unlink()
    plant(source, "6.9.0-1", depends | {"kernel/fs/overlayfs/overlay.ko": ""})
    service.import_kernel(str(source), "mine", force=True)
    script, reason = told(site)
    assert (reason, "wwfast.kmods=1" in script) == ("", True)
    snapshot = Registry(site).snapshot()
    fresh, node = Fresh(site, load(site)), snapshot.nodes["n1"]
    plan = fresh.plan(snapshot, node, Stage.STAGE1, Ask(MAC))
    assert plan.artefact is not None, plan.reason
    entries = set(listed(plan.artefact))
    assert {"init", f"lib/modules/6.9.0-1/{next(iter(depends))}", "lib"} <= entries
    assert not any(RELEASE in name for name in entries)
    assert fresh.plan(snapshot, node, Stage.KMODS, Ask(MAC, compress="gz")).artefact is not None
    site.nodes_conf.write_text(site.nodes_conf.read_text().replace("root: squashfs", "root: erofs"))
    building.build(site, "tiny", How(formats=(SQUASHFS, EROFS)))
    assert "stage-1 of kernel 6.9.0-1 of image tiny makes no erofs" in told(site)[1]


def test_disk_root_with_a_kernel_of_its_own_takes_drivers_of_that_and_programs_of_the_image(
    site: Paths, tmp_path: Path
) -> None:
    node = "    root: LABEL=root\n    kernel: {override: mine}\n    wwfast:\n      two stage: always\n"
    site.nodes_conf.write_text(site.nodes_conf.read_text().replace("    root: squashfs\n", node))
    depends = {"kernel/fs/overlayfs/overlay.ko": "", "kernel/drivers/block/loop.ko": "", "kernel/drivers/scsi/a.ko": ""}
    source, service = tmp_path / "source", App(site).service
    put(source, "boot/vmlinuz-6.9.0-1", text="kernel")
    plant(source, "6.9.0-1", depends)
    service.import_kernel(str(source), "mine")
    building.build(site, "tiny", How(formats=(TMPFS,)))
    assert "has no programs or drivers for disks in stage-1 of kernel 6.9.0-1" in told(site)[1]
    service.build_image("tiny", How())
    script, reason = told(site)
    assert (reason, "wwfast.root=disk" in script) == ("", True)
    snapshot = Registry(site).snapshot()
    plan = Fresh(site, load(site)).plan(snapshot, snapshot.nodes["n1"], Stage.STAGE1, Ask(MAC))
    assert plan.artefact is not None, plan.reason
    assert "lib/modules/6.9.0-1/kernel/drivers/scsi/a.ko" in listed(plan.artefact)


def listed(artefact: Artefact) -> list[str]:
    """Names in the archives of an artefact that stand one behind the other, as a kernel reads them."""
    data = b"".join(b"".join(files.read_part(Path(path), at, length)) for path, at, length in artefact.extents)
    program = "zstd" if artefact.format == "zst" else "gzip"
    plain = subprocess.run([program, "-dcq"], input=data, capture_output=True, check=True).stdout
    names: list[str] = []
    at = 0
    while at < len(plain):
        assert plain[at : at + 6] == b"070701", f"no header at {at}, where a kernel looks for one"
        size, length = (int(plain[at + place : at + place + 8], 16) for place in (54, 94))
        names.append(plain[at + 110 : at + 109 + length].decode())
        at += -(-(110 + length) // 4) * 4 + -(-size // 4) * 4
        while at % 4 == 0 and plain[at : at + 4] == bytes(4):
            at += 4
    return names


@pytest.mark.parametrize("root", ["squashf", "tmp", "sda1"])
def test_two_stage_root_that_is_none_is_refused_and_not_taken_for_a_device(
    site: Paths, capsys: pytest.CaptureFixture[str], root: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--root", str(site.root), "node", "set", "n1", "--root", root, "--yes"])
    assert (caught.value.code, f"'{root}' is no root (initramfs, tmpfs" in capsys.readouterr().err) == (2, True)
    for right in (*checks.ROOTS, "/dev/sda1", "LABEL=root", "UUID=1-2", "PARTLABEL=root", "UNDEF", ""):
        assert checks.root(right) == "", right


def test_squashfs_that_is_damaged_on_disk_is_found_by_verify(site: Paths) -> None:
    build, _ = building.build(site, "tiny", How(formats=(SQUASHFS,)))
    assert build.damage() is None
    file = build.path / filesystems.PLACE / SQUASHFS
    file.chmod(0o600)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    assert "squashfs is damaged" in (build.damage() or "")


def test_stage1_that_is_damaged_on_disk_is_found_by_verify(site: Paths) -> None:
    build, _ = building.build(site, "tiny", How(formats=(SQUASHFS,)))
    assert build.damage() is None
    (pack,) = (build.path / "stage1/programs").glob("*.pack")
    data = bytearray(pack.read_bytes())
    data[len(data) // 2] ^= 1
    pack.unlink()
    pack.write_bytes(data)
    assert "is damaged" in (build.damage() or "")


def test_stage1_record_that_is_damaged_is_found_by_verify_and_mended_by_the_next_build(site: Paths) -> None:
    build, _ = building.build(site, "tiny", How(formats=(SQUASHFS,)))
    for part, harm in ((RELEASE, "empty"), ("programs", "gone"), (RELEASE, "other"), (RELEASE, "part")):
        record = build.path / "stage1" / part / rests.FILE
        if harm == "part":
            shutil.rmtree(record.parent)
        elif harm == "gone":
            record.unlink()
        else:
            record.write_bytes(b"" if harm == "empty" else record.read_bytes().replace(b"/", b"_"))
        assert str(record.parent) in (build.damage() or ""), harm
        build, changed = building.build(site, "tiny", How(formats=(SQUASHFS,)))
        assert (changed, build.damage(), told(site)[1]) == (True, None, ""), harm


def test_image_build_is_on_the_disk_before_it_is_served(site: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it: each file and directory was synced after the last change of it, also what was taken over."""
    synced: dict[int, int] = {}
    fsync = os.fsync

    def noted(fd: int) -> None:
        fsync(fd)
        synced[os.fstat(fd).st_ino] = os.fstat(fd).st_mtime_ns

    monkeypatch.setattr(os, "fsync", noted)
    for full in (True, False):
        put(site.chroots / "tiny/rootfs", "etc/motd", text=str(full))
        build, changed = building.build(site, "tiny", How(formats=(SQUASHFS, TMPFS), full=full))
        every = [build.path, *build.path.rglob("*")]
        assert {"info.json", "rests", "stage1", "programs", "squashfs", "tmpfs.pieces"} <= {path.name for path in every}
        late = [path for path in every if synced.get(path.stat().st_ino) != path.stat().st_mtime_ns]
        assert (changed, late) == (True, [])


def test_two_stage_doctor_plays_the_boot_that_the_node_has(site: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    def said() -> str:
        with pytest.raises(SystemExit):
            main(["--root", str(site.root), "doctor", "n1"])
        return capsys.readouterr().out

    assert "is not built as squashfs" in said()
    building.build(site, "tiny", How(formats=(SQUASHFS,)))
    assert "squashfs" not in said()
    text = site.nodes_conf.read_text()
    site.nodes_conf.write_text(text.replace("root: squashfs", "root: squashfs\n    wwfast: {two stage: never}"))
    assert said().count("root squashfs always comes in two stages, and two stage is never") == 1
    site.nodes_conf.write_text(text)
    build = ImageStore(site).get("tiny").build
    assert build is not None
    shutil.rmtree(build.path / "stage1")
    assert "image tiny has no stage-1" in said()
    shutil.rmtree(build.path / filesystems.PLACE)
    assert "image tiny is not built as squashfs" in said()
    site.nodes_conf.write_text(site.nodes_conf.read_text().replace("root: squashfs", "root: initramfs"))
    assert told(site)[1] == "", "others boot as before"
