"""Running a command inside an image: own mount, PID, UTS and IPC namespaces, and a /dev that is not the server's.

Three processes: we wait; a keeper makes the namespaces; the first process of the new PID namespace mounts, starts the
command and reaps. Each dies with its parent (PR_SET_PDEATHSIG), and with the first process of the namespace the kernel
ends the rest and drops the mounts: however we end, nothing is left.
"""

from __future__ import annotations

import errno
import os
import signal
import stat
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from wwfast.errors import WwfastError
from wwfast.images.inside import mountpoints
from wwfast.images.inside.binds import Bind, Mount, Places, make_fresh
from wwfast.system import libc, within
from wwfast.system.libc import (
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REC,
    MS_REMOUNT,
)
from wwfast.system.run import fork

# What installing packages takes (linux/capability.h), and nothing that reaches the server through its namespaces: a
# mount could be made writable again (SYS_ADMIN), a disk be made and read (MKNOD), any file of the file system be opened
# by its handle (DAC_READ_SEARCH); modules, raw I/O, reboot, clock, kernel log and network know no namespace of ours.
KEPT = {
    "CAP_CHOWN": 0,
    "CAP_DAC_OVERRIDE": 1,
    "CAP_FOWNER": 3,
    "CAP_FSETID": 4,
    "CAP_KILL": 5,
    "CAP_SETGID": 6,
    "CAP_SETUID": 7,
    "CAP_SETPCAP": 8,
    "CAP_NET_BIND_SERVICE": 10,
    "CAP_SYS_CHROOT": 18,
    "CAP_AUDIT_WRITE": 29,
    "CAP_SETFCAP": 31,
}
# Never the host's devtmpfs: a package's grub-install must not find the server's disks.
DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
LINKS = {"ptmx": "pts/ptmx", "fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"}
PATH = "/bin:/sbin:/usr/bin:/usr/sbin:/usr/local/bin:/usr/local/sbin"
CANNOT_START = 127


@dataclass(frozen=True, slots=True)
class Room:
    """Where and how to run: the tree, what is bound into it, what covers it.

    `over`: trees laid over it, the first on top; then all is read-only, as it is with `readonly`.
    """

    name: str
    rootfs: Path
    binds: Sequence[Bind] = ()
    readonly: bool = False
    over: Sequence[Path] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


def run_inside(room: Room, command: Sequence[str]) -> int:
    """Run a command in the image, on our terminal; return its exit status (128 + n when signal n ended it).

    Needs root. Raises WwfastError when something bound does not exist. Mount points that had to be made and copies
    that were not changed are taken away again.
    """
    if os.geteuid() != 0:
        raise WwfastError("a command inside an image needs root", hint="run it with sudo")
    mountpoints.sweep(room.rootfs)
    made = Places(room.name, room.rootfs, writable=not (room.readonly or room.over))
    try:
        mounts = made.make(room.binds)
        sys.stdout.flush()
        sys.stderr.flush()
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the command
        try:
            keeper = fork(lambda: _child(lambda: keep(room, mounts, command)))
            return _status(os.waitpid(keeper, 0)[1])
        finally:
            signal.signal(signal.SIGINT, before)
    finally:
        made.undo()


def environment(name: str, readonly: bool) -> dict[str, str]:
    """What the command finds: Warewulf's PATH, prompt and history file, and the terminal's type."""
    mark = "(ro)" if readonly else ""
    found = {
        "PATH": PATH,
        "HOME": "/root",
        "PS1": f"[warewulf:{name}{mark}] " + os.environ.get("WW_PS1", "\\w\\$ "),
        "HISTFILE": os.environ.get("WW_HISTFILE", "/dev/null"),
        "WW_IMAGE_SHELL": name,
        "WW_CONTAINER_SHELL": name,
    }
    return found | {key: os.environ[key] for key in ("TERM", "LANG", "LC_ALL", "COLORTERM") if key in os.environ}


def shell(rootfs: Path) -> str:
    """The first of $SHELL, /bin/bash and /bin/sh that the image has."""
    for path in (os.environ.get("SHELL", ""), "/bin/bash", "/bin/sh"):
        if path.startswith("/") and within.is_file(rootfs, path):
            return path
    raise WwfastError(f"{rootfs} has no shell")


def _status(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code


# -- the children: from here on everything ends in _exit -------------------------------------------------------------


def _child(body: Callable[[], int]) -> int:
    try:
        return body()
    except OSError as error:
        print(f"error: {error.strerror}: {error.filename or 'image'}", file=sys.stderr)
    except WwfastError as error:
        print(f"error: {error.message}", file=sys.stderr)
    finally:
        sys.stderr.flush()
    return CANNOT_START


def keep(room: Room, mounts: Sequence[Mount], command: Sequence[str]) -> int:
    libc.die_with_parent()
    libc.unshare(libc.CLONE_NEWNS | libc.CLONE_NEWUTS | libc.CLONE_NEWIPC | libc.CLONE_NEWPID)
    first = fork(lambda: _child(lambda: _first(room, mounts, command)))
    return _status(os.waitpid(first, 0)[1])


def _first(room: Room, mounts: Sequence[Mount], command: Sequence[str]) -> int:
    """PID 1 of the namespace: it starts the command and reaps what the command leaves behind."""
    libc.die_with_parent()
    _furnish(room, mounts)
    worker = fork(lambda: _child(lambda: _work(room, command)))
    while True:
        pid, status = os.wait()
        if pid == worker:
            return _status(status)


def _work(room: Room, command: Sequence[str]) -> int:
    for number in (signal.SIGINT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    libc.drop_capabilities(KEPT.values())
    surroundings = environment(room.name, room.readonly or bool(room.over)) | dict(room.environment)
    try:
        os.execvpe(command[0], list(command), surroundings)
    except OSError as error:
        if error.errno == errno.ENOEXEC:
            raise WwfastError(f"{command[0]} is for another architecture, or no program") from error
        raise WwfastError(f"cannot run {command[0]} in image {room.name}: {error.strerror}") from error


def _furnish(room: Room, mounts: Sequence[Mount]) -> None:
    root = room.rootfs
    libc.mount(None, Path("/"), None, MS_REC | MS_PRIVATE)
    if room.over:
        layers = ":".join(str(layer).replace("\\", "\\\\").replace(":", "\\:") for layer in (*room.over, root))
        libc.mount("overlay", root, "overlay", MS_RDONLY, f"lowerdir={layers}")
    else:
        libc.mount(root, root, None, MS_BIND)
        if room.readonly:
            libc.mount(None, root, None, MS_BIND | MS_REMOUNT | MS_RDONLY)
    for name in ("dev", "proc", "sys", "run"):
        if not (root / name).is_dir() or (root / name).is_symlink():
            raise WwfastError(f"image {room.name} has no directory /{name}", hint=f"mkdir {root / name}")
    _dev(root / "dev")
    libc.mount("proc", root / "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    for name in ("proc/sys", "proc/sysrq-trigger"):  # these are the server's
        if not (root / name).exists():
            continue
        libc.mount(root / name, root / name, None, MS_BIND)
        libc.mount(None, root / name, None, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC)
    libc.mount("sysfs", root / "sys", "sysfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC)
    libc.mount("tmpfs", root / "run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755")
    for mount in mounts:
        if mount.fresh:
            make_fresh(root, mount)
        libc.mount(mount.source, root / mount.path, None, MS_BIND | MS_REC)
        if mount.readonly:
            _make_readonly(mount, root / mount.path)
    libc.set_hostname(room.name)
    os.chdir(root)
    # pivot_root(2): with `.` twice the old root ends up on top and is detached at once.
    libc.pivot_root(".", ".")
    libc.umount(".", libc.MNT_DETACH)
    os.chdir("/")


def _dev(place: Path) -> None:
    libc.mount("tmpfs", place, "tmpfs", MS_NOSUID | MS_NOEXEC, "mode=755,size=64k")
    os.umask(0)
    for name, (major, minor) in DEVICES.items():
        os.mknod(place / name, 0o666 | stat.S_IFCHR, os.makedev(major, minor))
    os.umask(0o022)
    for name, target in LINKS.items():
        (place / name).symlink_to(target)
    for name, kind, options in (
        ("pts", "devpts", "newinstance,ptmxmode=0666,mode=620,gid=5"),
        ("shm", "tmpfs", "mode=1777"),
    ):
        (place / name).mkdir()
        libc.mount(kind, place / name, kind, MS_NOSUID | MS_NOEXEC, options)


def _make_readonly(mount: Mount, target: Path) -> None:
    """With all that is mounted below; before Linux 5.12 (mount_setattr) what is below is left out instead."""
    try:
        libc.mount_readonly(target)
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
        libc.umount(target, libc.MNT_DETACH)
        libc.mount(mount.source, target, None, MS_BIND)
        libc.mount(None, target, None, MS_BIND | MS_REMOUNT | MS_RDONLY)
