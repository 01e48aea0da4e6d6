"""Commands inside an image, users synchronised, one image by three ways: on the real Debian tree where it matters."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

import pytest
from isal import igzip

from support.box import box as make_box
from support.oci import Layout, Registry, facts, small_tree, tar_of
from support.package import CONTENT, FILE, INSTALLED_BY, NAME, package
from wwfast.demo.debian import Tree
from wwfast.errors import WwfastError
from wwfast.images import building
from wwfast.images.inside import contain, users
from wwfast.images.inside.binds import Bind
from wwfast.images.inside.contain import Room, run_inside
from wwfast.images.sources.importing import copy_tree, import_image
from wwfast.images.sources.options import Options
from wwfast.images.store import ImageStore
from wwfast.paths import Paths
from wwfast.system.run import run

pytestmark = [pytest.mark.root, pytest.mark.slow]


@pytest.fixture
def box(tmp_path: Path) -> Path:
    return make_box(tmp_path / "box")


def say(root: Path, script: str, **how: object) -> tuple[int, str]:
    """Exit status and what a script inside says."""
    room = Room("box", root, **how)  # type: ignore[arg-type]
    (root / "tmp/said").unlink(missing_ok=True)
    status = run_inside(room, ["/bin/sh", "-c", f"exec >/tmp/said 2>&1; {script}"])
    return status, (root / "tmp/said").read_text()


def running(words: str) -> list[str]:
    """Processes of this machine whose command line holds `words`."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if words in (entry / "cmdline").read_text(errors="replace"):
                found.append(entry.name)
    return found


def mounts() -> str:
    return Path("/proc/self/mountinfo").read_text()


def test_image_exec_has_its_own_devices_processes_and_name(box: Path) -> None:
    before = mounts()
    status, said = say(box, "ls /dev; hostname; ps; touch /sys/x; echo x >/proc/sys/kernel/hostname; exit 7")
    assert status == 7
    devices = "fd full null ptmx pts random shm stderr stdin stdout tty urandom zero"
    assert said.split()[:14] == [*devices.split(), "box"]
    assert len(re.findall(r"^ +\d+ ", said, re.M)) <= 4, "only processes of its own"
    assert said.lower().count("read-only file system") == 2
    assert mounts() == before


# Each line: what is tried, then errno. A library of its own would not be in the box, so it is linked statically.
ESCAPES = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/io.h>
#include <sys/klog.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <unistd.h>

static void try(const char *what, long result) {
    printf("%s %s\n", what, result < 0 ? strerrorname_np(errno) : "DONE");
    fflush(stdout);
}

int main(int argc, char **argv) {
    struct { struct file_handle head; unsigned char bytes[128]; } handle = {{.handle_bytes = 128}};
    struct timeval now;
    int mount_id;
    gettimeofday(&now, NULL);
    try("remount", mount(NULL, "/proc/sys", NULL, MS_REMOUNT | MS_BIND, NULL));
    try("mount", mount("none", "/tmp", "tmpfs", 0, NULL));
    try("umount", umount2("/proc/sys", MNT_DETACH));
    try("mknod", mknod("/tmp/disk", S_IFBLK | 0600, makedev(8, 0)));
    try("init_module", syscall(SYS_init_module, "", 0, ""));
    try("name_to_handle", name_to_handle_at(AT_FDCWD, "/", &handle.head, &mount_id, 0));
    try("open_by_handle", open_by_handle_at(open("/", O_RDONLY), &handle.head, O_RDONLY));
    try("iopl", iopl(3));
    try("reboot", reboot(RB_DISABLE_CAD));
    try("settimeofday", settimeofday(&now, NULL));
    try("setns", setns(open("/proc/1/ns/mnt", O_RDONLY), 0));
    try("klog", klogctl(5, NULL, 0));
    try("bpf", syscall(SYS_bpf, 0, NULL, 0));
    try("outside", ptrace(PTRACE_ATTACH, @outside@, NULL, NULL));
    return 0;
}
"""
HARMLESS = {"name_to_handle"}


def test_image_exec_reaches_no_disk_no_module_no_mount_and_no_clock(box: Path, tmp_path: Path) -> None:
    source = tmp_path / "escapes.c"
    source.write_text(ESCAPES.replace("@outside@", str(os.getpid())))
    run(["gcc", "-static", "-O1", "-w", "-o", box / "bin/escapes", source], package="gcc")
    lines = dict(line.split() for line in say(box, "escapes")[1].splitlines())
    assert len(lines) == 14
    assert {what for what, result in lines.items() if result == "DONE"} <= HARMLESS
    refused = ("remount", "mount", "umount", "mknod", "open_by_handle", "reboot", "settimeofday")
    assert {what: lines[what] for what in refused} == dict.fromkeys(refused, "EPERM")
    said = say(box, "cat /proc/self/status")[1]
    bounding = int(re.search(r"CapBnd:\s+(\w+)", said).group(1), 16)  # type: ignore[union-attr]
    assert bounding == sum(1 << number for number in contain.KEPT.values())
    devices = [entry for entry in Path("/dev").iterdir() if entry.is_block_device()]
    for device in devices:
        assert say(box, f"cat {device}")[1].endswith("No such file or directory\n")


def test_image_exec_status_of_signals_and_missing_commands(box: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_inside(Room("box", box), ["/bin/sh", "-c", "kill -9 $$"]) == 137
    assert run_inside(Room("box", box), ["nonsense"]) == contain.CANNOT_START
    assert "cannot run nonsense in image box" in capfd.readouterr().err


def test_image_exec_ends_what_the_command_leaves_running(box: Path) -> None:
    marker = f"9{os.getpid()}"
    say(box, f"sleep {marker} & exit 0")
    assert not running(f"sleep\0{marker}")


def test_image_exec_binds_are_there_and_leave_nothing(box: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_text("of the server")
    before = facts(box)
    binds = [Bind.parse(f"{source}:/mnt"), Bind.parse(f"{source}/file:/etc/ro:ro")]
    said = say(box, "cat /mnt/file; echo more >/mnt/new; echo no >/etc/ro", binds=binds)[1]
    assert said.startswith("of the server")
    assert "Read-only" in said
    assert (source / "new").read_text() == "more\n"
    (box / "tmp/said").unlink()
    os.utime(box / "tmp", ns=(0, before["tmp"][3]))  # type: ignore[arg-type]
    assert facts(box) == before


def test_image_exec_copies_go_when_untouched_and_stay_when_changed(box: Path, tmp_path: Path) -> None:
    for name in ("same", "changed"):
        (tmp_path / name).write_text("first\n")
    binds = [Bind.parse(f"{tmp_path}/{name}:/etc/{name}:copy") for name in ("same", "changed")]
    say(box, "cat /etc/same; echo second >>/etc/changed", binds=binds)
    assert not (box / "etc/same").exists()
    assert (box / "etc/changed").read_text() == "first\nsecond\n"
    assert (tmp_path / "changed").read_text() == "first\n"
    say(box, "echo mine >/etc/changed", binds=binds)
    assert (box / "etc/changed").read_text() == "mine\n", "what the image has is never replaced"


@pytest.mark.parametrize("how", ["", ":ro", ":copy"])
@pytest.mark.parametrize("link", ["{server}", "../../../../../../../../..{server}"])
def test_image_exec_never_writes_the_server_through_a_link(box: Path, tmp_path: Path, link: str, how: str) -> None:
    """The place of a bind is where the link leads inside the image; the link stays."""
    victim, source = tmp_path / "server/victim", tmp_path / "source"
    victim.parent.mkdir()
    victim.write_text("precious")
    source.write_text("of the bind")
    for name in ("here", "absent"):
        target = str(victim if name == "here" else victim.with_name("new"))
        (box / "etc" / name).symlink_to(link.format(server=target))
    inside = box / str(victim.parent).lstrip("/")
    inside.mkdir(parents=True)
    binds = [Bind.parse(f"{source}:/etc/{name}{how}") for name in ("here", "absent")]
    assert say(box, "cat /etc/here /etc/absent", binds=binds) == (0, "of the bindof the bind")
    assert victim.read_text() == "precious"
    assert [entry.name for entry in victim.parent.iterdir()] == ["victim"]
    assert not list(inside.iterdir())
    assert (box / "etc/here").is_symlink()
    assert (box / "etc/absent").is_symlink()


def test_image_exec_binds_reach_into_run_and_dev(box: Path, tmp_path: Path) -> None:
    """What systemd-resolved leaves: a link into /run, which is new in every run."""
    (tmp_path / "source").write_text("nameserver 10.0.0.1\n")
    (box / "etc/resolv.conf").symlink_to("../run/systemd/resolve/stub-resolv.conf")
    binds = [Bind.parse(f"{tmp_path}/source:{place}") for place in ("/etc/resolv.conf", "/dev/some:ro", "/run/x:copy")]
    said = say(box, "cat /etc/resolv.conf /dev/some /run/x; echo no >/run/x", binds=binds)[1]
    assert said.startswith("nameserver 10.0.0.1\n" * 3)
    assert "Read-only" in said
    assert not list((box / "run").iterdir())
    assert not list((box / "dev").iterdir())


def test_image_exec_a_read_only_bind_is_so_below_other_mounts_too(box: Path, tmp_path: Path) -> None:
    below = tmp_path / "source/below"
    below.mkdir(parents=True)
    run(["mount", "-t", "tmpfs", "tmpfs", below])
    try:
        (below / "file").write_text("seen\n")
        binds = [Bind.parse(f"{tmp_path}/source:/mnt:ro")]
        said = say(box, "cat /mnt/below/file; touch /mnt/below/new", binds=binds)[1]
        assert said.startswith("seen\n")
        assert "Read-only" in said
        assert [entry.name for entry in below.iterdir()] == ["file"]
    finally:
        run(["umount", below])


def test_image_exec_directory_times_tell_whether_the_command_changed_it(box: Path, tmp_path: Path) -> None:
    (tmp_path / "source").write_text("x")
    os.utime(box / "etc", ns=(0, 10**18))
    for how in ("", ":copy"):
        binds = [Bind.parse(f"{tmp_path}/source:/etc/{name}{how}") for name in ("a", "b")]
        say(box, "true", binds=binds)
        assert (box / "etc").stat().st_mtime_ns == 10**18, "nothing changed, so nothing is to be built"
        say(box, f"echo >/etc/made{how}", binds=binds)
        assert (box / "etc").stat().st_mtime_ns != 10**18
        os.utime(box / "etc", ns=(0, 10**18))


def test_image_exec_says_what_cannot_be_bound(box: Path, tmp_path: Path) -> None:
    for text, words in ((f"{tmp_path}/no", "does not exist"), (f"{tmp_path}:/opt/x:copy", "is no file")):
        with pytest.raises(WwfastError, match=words):
            say(box, "true", binds=[Bind.parse(text)])
    # A copy that the command replaces by something else is the image's.
    (tmp_path / "source").write_text("x")
    say(box, "rm /etc/x; mkdir /etc/x", binds=[Bind.parse(f"{tmp_path}/source:/etc/x:copy")])
    assert (box / "etc/x").is_dir()


def test_image_exec_read_only_and_with_a_tree_over_it(box: Path, tmp_path: Path) -> None:
    assert run_inside(Room("box", box, readonly=True), ["/bin/touch", "/etc/x"]) == 1
    over = tmp_path / "over: a"
    (over / "etc").mkdir(parents=True)
    (over / "etc/hostname").write_text("n1")
    (box / "etc/hostname").write_text("image")
    assert run_inside(Room("box", box, over=(over,)), ["/bin/sh", "-c", '[ "$(cat /etc/hostname)" = n1 ]']) == 0
    assert run_inside(Room("box", box, over=(over,)), ["/bin/touch", "/etc/x"]) == 1
    assert sorted(entry.name for entry in (box / "etc").iterdir()) == ["hostname"]


@pytest.mark.timeout(900)
def test_image_exec_installs_a_debian_package(paths: Paths, debian: Tree, tmp_path: Path) -> None:
    made = package(tmp_path)
    image = import_image(paths, str(debian.rootfs), "deb", Options())
    building.build(paths, "deb")
    bind = Bind.parse(f"{made}:/tmp/probe.deb:ro")
    assert run_inside(Room("deb", image.rootfs, [bind]), ["dpkg", "-i", "/tmp/probe.deb"]) == 0
    assert (image.rootfs / FILE.lstrip("/")).read_text() == CONTENT
    installed_by = (image.rootfs / INSTALLED_BY.lstrip("/")).read_text()
    assert "uid=0(root)" in installed_by
    assert not {entry.name for entry in Path("/dev").iterdir() if entry.is_block_device()} & set(installed_by.split())
    status = (image.rootfs / "var/lib/dpkg/status").read_text()
    assert f"Package: {NAME}\nStatus: install ok installed" in status
    assert not (image.rootfs / "tmp/probe.deb").exists()
    second, changed = building.build(paths, "deb")
    assert changed
    assert second.manifest().reused > second.manifest().packed, "a rebuild compresses only what changed"


@pytest.mark.timeout(900)
def test_image_by_registry_archive_and_directory_is_one_and_the_same(
    paths: Paths, debian: Tree, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    source = tmp_path / "source"
    copy_tree(debian.rootfs, source)
    os.setxattr(source / "usr/bin/env", "security.capability", b"\x01\0\0\2\0\4\0\0" + bytes(12))
    packed = tar_of(source)
    (tmp_path / "tree.tar.gz").write_bytes(igzip.compress(packed, 1))
    layout = Layout(tmp_path / "layout")
    layout.tag("v1", layout.image([packed]))
    registry = Registry(tmp_path_factory.mktemp("registry"))
    try:
        reference = registry.push(layout, "v1")
        import_image(paths, reference, "registry", Options(plain_http=True))
    finally:
        registry.stop()
    import_image(paths, str(tmp_path / "tree.tar.gz"), "archive", Options())
    import_image(paths, str(source), "directory", Options())
    store = ImageStore(paths)
    wanted = facts(source)
    digests = set()
    for name in store.names():
        assert facts(store.get(name).rootfs) == wanted
        made, _ = building.build(paths, name, building.How(formats=("raw",)))
        artefact = made.artefact("raw")
        assert artefact is not None
        digests.add(artefact.digest)
    assert len(digests) == 1


@pytest.fixture
def server(paths: Paths) -> Paths:
    """A server whose slurm has another id than the image's."""
    (paths.root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/bash\nslurm:x:450:450::/:/bin/false\n")
    (paths.root / "etc/group").write_text("root:x:0:\nslurm:x:450:\nextra:x:77:\n")
    return paths


def test_image_syncuser_changes_owners_and_never_follows_a_link(server: Paths, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").touch()
    tree = small_tree(tmp_path / "tree")
    (tree / "srv/escape").symlink_to(outside / "file")
    (tree / "srv/dangling").symlink_to("/nowhere/at/all")
    (tree / "srv/set").write_text("x")
    (tree / "srv/mine").write_text("x")
    for name in ("escape", "dangling", "set", "mine"):
        os.chown(tree / "srv" / name, 900, 900 if name != "mine" else 31, follow_symlinks=False)
    (tree / "srv/set").chmod(0o6755)
    (tree / "etc/passwd").write_text(
        "root:x:0:0:root:/root:/bin/sh\nslurm:x:900:900::/:/bin/false\nonly:x:31:31::/:/\n"
    )
    image = import_image(server, str(tree), "x", Options())
    os.setxattr(image.rootfs / "srv/set", "security.capability", b"\x01\0\0\2\0\4\0\0" + bytes(12))
    before = facts(image.rootfs)
    planned = users.plan(server, "x")
    assert planned.uids == {"slurm": (900, 450)}
    assert {change.path for change in planned.changes} == {
        *("srv/deep", "srv/away", "srv/escape", "srv/dangling", "srv/set", "srv/mine")
    }
    assert facts(image.rootfs) == before, "a plan changes nothing"
    users.sync(server, "x")
    owners = {name: (path.lstat().st_uid, path.lstat().st_gid) for name in ("escape", "dangling", "set", "mine")
              for path in [image.rootfs / "srv" / name]}  # fmt: skip
    assert owners == {"escape": (450, 450), "dangling": (450, 450), "set": (450, 450), "mine": (450, 31)}
    assert (image.rootfs / "srv/deep").stat().st_gid == 901
    assert (image.rootfs / "srv/set").stat().st_mode & 0o7777 == 0o6755
    assert "security.capability" in os.listxattr(image.rootfs / "srv/set")
    assert ((outside / "file").stat().st_uid, (outside / "file").stat().st_gid) == (0, 0)
    assert (image.rootfs / "etc/passwd").read_text() == (
        "root:x:0:0:root:/root:/bin/bash\nslurm:x:450:450::/:/bin/false\nonly:x:31:31::/:/\n"
    )
    assert "extra:x:77:" in (image.rootfs / "etc/group").read_text()
    assert not users.sync(server, "x").needed


def test_image_syncuser_swaps_ids_once(server: Paths, tmp_path: Path) -> None:
    """Three users of the image in a ring; what belongs to one is not taken for what has just been given to another."""
    names = ("slurm", "munge", "ldap")
    ours, theirs = dict(zip(names, (450, 451, 452), strict=True)), dict(zip(names, (451, 452, 450), strict=True))
    for place, ids in ((server.root, ours), (small_tree(tmp_path / "tree"), theirs)):
        lines = [f"{name}:x:{ids[name]}:{ids[name]}::/:/bin/false\n" for name in names]
        (place / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n" + "".join(lines))
        (place / "etc/group").write_text("root:x:0:\n" + "".join(f"{name}:x:{ids[name]}:\n" for name in names))
    tree = tmp_path / "tree"
    for name in names:
        (tree / "srv" / name).write_text("x")
        os.chown(tree / "srv" / name, theirs[name], theirs[name])
    (tree / "srv/slurm").chmod(0o6755)
    (tree / "srv/hard").hardlink_to(tree / "srv/slurm")
    image = import_image(server, str(tree), "x", Options())
    users.sync(server, "x")
    found = {name: (image.rootfs / "srv" / name).stat() for name in (*names, "hard")}
    assert {name: (it.st_uid, it.st_gid) for name, it in found.items()} == {
        **{name: (ours[name], ours[name]) for name in names}, "hard": (450, 450),
    }  # fmt: skip
    assert (found["hard"].st_mode & 0o7777, found["hard"].st_nlink) == (0o6755, 2)
    assert not users.sync(server, "x").needed


def test_image_syncuser_refuses_an_id_that_is_somebody_elses(server: Paths, tmp_path: Path) -> None:
    tree = small_tree(tmp_path / "tree")
    (tree / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nmunge:x:450:450::/:/bin/false\n")
    image = import_image(server, str(tree), "x", Options())
    before = facts(image.rootfs)
    with pytest.raises(WwfastError, match="munge has the id 450, which is slurm"):
        users.sync(server, "x")
    assert facts(image.rootfs) == before
