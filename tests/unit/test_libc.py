"""System calls that Python has none of: what fails says why, as Python's own do."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from support.patience import until
from wwfast.system import libc


def test_libc_exchange_of_two_names(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    (tmp_path / "b").write_text("2")
    libc.exchange(tmp_path / "a", tmp_path / "b")
    assert [(tmp_path / name).read_text() for name in "ab"] == ["2", "1"]


def test_libc_failures_are_errors_of_the_system_with_their_reason(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        libc.exchange(tmp_path / "a", tmp_path / "b")


def apart(code: str, *words: Path) -> str:
    """What a process of its own prints, with mounts and a host name of its own."""
    begin = (
        "import errno, os, sys\n"
        "from pathlib import Path\n"
        "from wwfast.system import libc\n"
        "libc.unshare(libc.CLONE_NEWNS | libc.CLONE_NEWUTS)\n"
        "libc.mount(None, '/', None, libc.MS_REC | libc.MS_PRIVATE)\n"
    )
    command = [sys.executable, "-c", begin + textwrap.dedent(code), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.root
def test_libc_read_only_is_all_that_is_mounted_below_a_place(tmp_path: Path) -> None:
    code = """
        top, inner = Path(sys.argv[1]), Path(sys.argv[1], "inner")
        libc.mount("tmpfs", top, "tmpfs", libc.MS_NOSUID | libc.MS_NODEV, "size=1m,mode=0755")
        inner.mkdir()
        libc.mount("tmpfs", inner, "tmpfs", 0)
        (inner / "there").write_text("read")
        libc.mount_readonly(top)
        for place in (top, inner):
            try:
                (place / "new").touch()
            except OSError as error:
                print(errno.errorcode[error.errno])
        print((inner / "there").read_text())
        try:
            libc.mount_readonly("/proc/self")
        except OSError as error:
            print(errno.errorcode[error.errno], error.filename)
        libc.umount(inner)
        print((inner / "there").exists())
    """
    said = apart(code, tmp_path).splitlines()
    assert said == ["EROFS", "EROFS", "read", "EINVAL mount_setattr on /proc/self", "False"]


@pytest.mark.root
def test_libc_capabilities_that_are_dropped_are_all_but_those_kept() -> None:
    code = """
        libc.drop_capabilities([1, 5, 7])
        libc.drop_capabilities([1, 5])
        print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("CapBnd")))
    """
    assert int(apart(code), 16) == 1 << 1 | 1 << 5


@pytest.mark.root
def test_libc_host_name_is_as_much_as_the_kernel_takes() -> None:
    code = """
        for name in ("n1", "n" * 100):
            libc.set_hostname(name)
            print(os.uname().nodename)
    """
    assert apart(code).splitlines() == ["n1", "n" * 64]


def test_libc_child_that_is_tied_ends_with_who_started_it() -> None:
    code = (
        "import os, subprocess\n"
        "from wwfast.system import libc\n"
        "child = subprocess.Popen(['sleep', '7780'], stdout=subprocess.DEVNULL, preexec_fn=libc.die_with_parent)\n"
        "print(child.pid, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    child = int(subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).stdout)
    try:
        until(lambda: not Path("/proc", str(child)).exists(), 20.0)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
