"""Every command on disks that are full, read-only, absent or another user's, and on bad files in place of good ones: it
never ends in a traceback, it says what is wrong, it leaves nothing behind, and it works when the disk does."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from support.everycommand import ARGUMENTS, WAITING, Ended, Site, content, in_child, leaves, left, make_site, run
from wwfast.paths import Paths

NEWNS, PRIVATE = 0x20000, "private"
NOBODY = 65534


class Tried(NamedTuple):
    """One command: on the bad disk, what it left there or changed, and on the good disk afterwards."""

    bad: Ended
    traces: list[str]
    after: int


def own_mounts(root: Path, size: str) -> None:
    """A small disk at `root`, in a mount namespace that ends with this process."""
    assert ctypes.CDLL(None, use_errno=True).unshare(NEWNS) == 0
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=0755", "none", root], check=True)


def fill(root: Path) -> None:
    with (root / "filler").open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"x" * 4096)


def unfill(root: Path) -> None:
    (root / "filler").unlink()


def mounted(root: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", root], check=True)


#: How to spoil and to mend each, and the word for it.
DISKS: dict[str, tuple[Callable[[Path], None], Callable[[Path], None], str]] = {
    "full": (fill, unfill, os.strerror(errno.ENOSPC)),
    "read-only": (lambda root: mounted(root, "ro"), lambda root: mounted(root, "rw"), os.strerror(errno.EROFS)),
}


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site, and the status of each command on it when nothing is wrong."""
    root = tmp_path_factory.mktemp("site") / "pristine"

    def made() -> tuple[()]:
        make_site(root)
        return ()

    in_child(made)
    return root


@pytest.fixture(scope="module")
def usual(pristine: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ended]:
    """How each command ends when nothing is wrong."""
    root = tmp_path_factory.mktemp("usual") / "root"

    def all_of_them() -> dict[str, Ended]:
        site, ended = Site(pristine, root), {}
        for name in ARGUMENTS:
            site.restore()
            ended[name] = run(root, name)
        return ended

    found: dict[str, Ended] = in_child(all_of_them)
    return found


def told(name: str, ended: Ended) -> str:
    """What is wrong with how a command ended; "" when nothing is."""
    if "Traceback" in ended.said or "is a bug" in ended.said or ended.status not in (0, 1, 2, 127):
        return f"{name} ended in {ended.said}"
    if ended.status and not any(word in ended.said for word in ("error: ", "Error: ", "failed", "no (not a terminal")):
        return f"{name} says nothing: {ended}"
    return ""


def shown(disk: str, ended: dict[str, Ended]) -> None:
    print(f"\n{len(ended)} commands, {disk}:")
    for name, each in ended.items():
        line = next((line for line in each.said.splitlines() if "rror: " in line), "")
        print(f"  {name:30} {each.status}  {line[:160]}")


def test_every_command_of_the_program_is_in_the_table() -> None:
    assert set(leaves()) == set(ARGUMENTS) | WAITING


def test_every_command_works_where_nothing_is_wrong(usual: dict[str, Ended]) -> None:
    assert not [wrong for name, ended in usual.items() if (wrong := told(name, ended))]
    failing = {name for name, ended in usual.items() if ended.status}
    others = {name for name in ARGUMENTS if name.split()[0] in ("power", "doctor")}
    machines = {"node console", "node sensors", "node status", "image exec", "image shell", "image rollback"}
    assert failing <= others | machines | {"image verify", "image syncuser"}, [usual[name] for name in failing]


@pytest.mark.root
@pytest.mark.timeout(300)
@pytest.mark.parametrize("disk", DISKS)
def test_every_command_says_what_the_disk_refuses_and_works_after_it(
    pristine: Path, usual: dict[str, Ended], tmp_path: Path, disk: str
) -> None:
    spoil, mend, reason = DISKS[disk]
    root = tmp_path / "root"
    root.mkdir()

    def tried() -> dict[str, Tried]:
        own_mounts(root, "24m")
        site, found = Site(pristine, root), {}
        for name in ARGUMENTS:
            site.restore()
            before = content(root)
            spoil(root)
            bad = run(root, name)
            mend(root)
            traces = left(root)
            if bad.status:
                now = content(root)
                traces += [
                    f"{path} changed" for path in before.keys() | now.keys() if before.get(path) != now.get(path)
                ]
            site.restore()
            found[name] = Tried(bad, traces, run(root, name).status)
        return found

    found = in_child(tried)
    shown(disk, {name: each.bad for name, each in found.items()})
    assert not [wrong for name, each in found.items() if (wrong := told(name, each.bad))]
    failed = {name: each.bad.said for name, each in found.items() if each.bad.status and not usual[name].status}
    assert not {name: said for name, said in failed.items() if reason not in said}
    assert {name: each.traces for name, each in found.items() if each.traces} == {}
    assert {name: each.after for name, each in found.items()} == {name: each.status for name, each in usual.items()}


@pytest.mark.root
@pytest.mark.timeout(300)
@pytest.mark.parametrize("place", ["another user's", "absent", "a file"])
def test_every_command_says_what_is_wrong_with_its_place(pristine: Path, tmp_path: Path, place: str) -> None:
    root = Path("/dev/shm") / f"wwfast-{os.getpid()}" if place == "another user's" else tmp_path / "root"

    def tried() -> dict[str, Ended]:
        site, found = Site(pristine, root), {}
        if place == "another user's":  # who can read all of it, but for what is private
            for name in ARGUMENTS:  # the interpreter's own files may be closed to others: all is imported before
                site.restore()
                run(root, name)
            site.restore()
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        elif place == "a file":
            root.write_text("")
        for name in ARGUMENTS:
            found[name] = run(root, name)
            if place == "absent":
                subprocess.run(["rm", "-rf", root], check=True)
        return found

    try:
        found = in_child(tried)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    shown(place, found)
    assert not [wrong for name, ended in found.items() if (wrong := told(name, ended))]


BAD: dict[str, bytes | Callable[[Path], None]] = {
    "binary": bytes(range(256)) * 64,
    "UTF-16": "nodes:\n  n1: {}\n".encode("utf-16"),
    "Latin-1": b"nodes:\n  n1:\n    comment: gr\xfcn\n",
    "nested deeply": b"nodes: " + b"[" * 20000,
    "maps nested deeply": b"nodes: " + b"{a: " * 20000,
    "a huge line": b"nodes: {n1: {comment: '" + b"x" * 500_000 + b"'}}\n",
    "zero bytes": b"nodes:\n  n1: {comment: \0}\n",
    "a byte order mark": b"\xef\xbb\xbfnodes:\n  n1: {}\n",
    "line ends of DOS": b"nodes:\r\n  n1: {}\r\n",
    "empty": b"",
    "a list": b"- a\n- b\n",
    "one word": b"nodes",
    "a directory": Path.mkdir,
    "a loop of links": lambda path: path.symlink_to(path),
    "a link to nothing": lambda path: path.symlink_to("nowhere/at/all"),
    "a socket": lambda path: os.mknod(path, 0o140600),
}

# Every command meets these, the others meet one of each way to read and write.
FOR_ALL = {"binary", "a directory"}
READERS = {"node list", "node set", "node edit", "profile export", "undo", "config show", "overlay build"}
READERS |= {"overlay edit", "overlay info", "overlay list", "image list", "doctor"}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("file", ["nodes.conf", "warewulf.conf", "motd.j2"])
def test_every_command_says_what_is_wrong_with_a_file(pristine: Path, tmp_path: Path, file: str) -> None:
    root = tmp_path / "root"
    paths = Paths.at(root)
    places = {"nodes.conf": paths.nodes_conf, "warewulf.conf": paths.conf}
    place = places.get(file, paths.site_overlays / "motd/rootfs/etc/motd.j2")
    names = [name for name in ARGUMENTS if file in places or name.split()[0] == "overlay"]

    def tried() -> dict[str, Ended]:
        site, found = Site(pristine, root), {}
        for kind, bad in BAD.items():
            site.restore()
            for name in names if kind in FOR_ALL else set(names) & READERS:
                subprocess.run(["rm", "-rf", place], check=True) if place.is_dir() else place.unlink(missing_ok=True)
                place.parent.mkdir(parents=True, exist_ok=True)
                bad(place) if callable(bad) else place.write_bytes(bad)
                found[f"{name}, {kind}"] = run(root, name)
                if left(root):
                    found[f"{name}, {kind}"] = Ended(70, f"left {left(root)}")
        return found

    found = in_child(tried)
    assert not [wrong for name, ended in found.items() if (wrong := told(name, ended))]
