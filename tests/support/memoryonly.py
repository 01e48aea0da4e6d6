"""A thread that may use nothing but memory: the kernel refuses it every system call that looks at a file system.

seccomp filters are a thread's own. Refused calls are reported to a process of ours, which says ENOTRECOVERABLE in the
kernel's place and writes down what was tried: it needs no interpreter lock of the one that is watched. Threads that the
watched one starts inherit the filter, so thread pools must have theirs before: see `crowded`.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import platform
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

# Number on x86-64 and arm64, and which argument is a path (-1: none).
CALLS: dict[str, tuple[int, int, int]] = {
    "open": (2, -1, 0), "stat": (4, -1, 0), "lstat": (6, -1, 0), "access": (21, -1, 0), "readlink": (89, -1, 0),
    "pread64": (17, 67, -1), "preadv": (295, 69, -1), "sendfile": (40, 71, -1), "flock": (73, 32, -1),
    "fsync": (74, 82, -1), "fdatasync": (75, 83, -1), "getdents": (78, -1, -1), "getdents64": (217, 61, -1),
    "rename": (82, -1, 0), "mkdir": (83, -1, 0), "creat": (85, -1, 0), "unlink": (87, -1, 0), "statfs": (137, 43, 0),
    "openat": (257, 56, 1), "mkdirat": (258, 34, 1), "newfstatat": (262, 79, 1), "unlinkat": (263, 35, 1),
    "renameat": (264, 38, 1), "readlinkat": (267, 78, 1), "faccessat": (269, 48, 1), "renameat2": (316, 276, 1),
    "statx": (332, 291, 1), "faccessat2": (439, 439, 1), "openat2": (437, 437, 1), "inotify_add_watch": (254, 27, 1),
}  # fmt: skip
MACHINES = {"x86_64": (0, 317), "aarch64": (1, 277)}  # column above, seccomp(2)
NO_NEW_PRIVS, SET_MODE_FILTER, NEW_LISTENER = 38, 1, 1 << 3
ALLOW, NOTIFY = 0x7FFF0000, 0x7FC00000
RECEIVE, SEND = 0xC0502100, 0xC0182101
LOAD, EQUALS, RETURN = 0x20, 0x15, 0x06


class Program(ctypes.Structure):
    _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_void_p)]


def numbers() -> dict[int, tuple[str, int]]:
    """System call number -> name and path argument, on this machine."""
    column, _ = MACHINES[platform.machine()]
    return {call[column]: (name, call[2]) for name, call in CALLS.items() if call[column] >= 0}


class Watched:
    """The thread that calls `confine`, from then to its end."""

    def __init__(self) -> None:
        if platform.machine() not in MACHINES:
            pytest.skip("the numbers of system calls are known for x86-64 and arm64")
        self.tried: list[str] = []
        self._process: subprocess.Popen[str] | None = None
        self.ready = threading.Event()
        self.failed = ""

    def confine(self) -> None:
        try:
            self._confine()
        except OSError as error:
            self.failed = str(error)
        finally:
            self.ready.set()

    def _confine(self) -> None:
        wanted = list(numbers())
        steps = [struct.pack("HBBI", LOAD, 0, 0, 0)]
        steps += [struct.pack("HBBI", EQUALS, len(wanted) - at, 0, number) for at, number in enumerate(wanted)]
        steps += [struct.pack("HBBI", RETURN, 0, 0, ALLOW), struct.pack("HBBI", RETURN, 0, 0, NOTIFY)]
        text = ctypes.create_string_buffer(b"".join(steps))
        program = Program(len(steps), ctypes.addressof(text))
        libc = ctypes.CDLL(None, use_errno=True)
        here = os.getpid()
        read, write = os.pipe()
        # Started before: a child of a confined thread is confined as well.
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(here), str(read)], stdout=subprocess.PIPE, text=True, pass_fds=(read,)
        )
        libc.prctl(NO_NEW_PRIVS, 1, 0, 0, 0)
        listener = libc.syscall(MACHINES[platform.machine()][1], SET_MODE_FILTER, NEW_LISTENER, ctypes.byref(program))
        if listener < 0:
            code = ctypes.get_errno()
            self._process.kill()
            raise OSError(code, f"seccomp: {os.strerror(code)}")
        os.write(write, b"%d\n" % listener)
        os.close(write)
        os.close(read)
        assert self._process.stdout is not None
        self._process.stdout.readline()  # it holds the listener
        os.close(listener)
        self._listener = threading.Thread(target=self._listen, args=(self._process,), daemon=True)
        self._listener.start()

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self.tried.extend(line.strip() for line in process.stdout)

    def end(self) -> None:
        """The thread has ended."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)
            self._listener.join(30)
            assert self._process.stdout is not None
            self._process.stdout.close()


@contextlib.contextmanager
def crowded(patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Thread pools made within have all their threads at once."""
    made = ThreadPoolExecutor.__init__

    def init(self: ThreadPoolExecutor, max_workers: int | None = None, *given: Any, **named: Any) -> None:
        made(self, max_workers, *given, **named)
        meeting = threading.Barrier(self._max_workers + 1)
        for _ in range(self._max_workers):
            ThreadPoolExecutor.submit(self, meeting.wait)
        meeting.wait(30)

    with patch.context() as patched:
        patched.setattr(ThreadPoolExecutor, "__init__", init)
        yield


def _path(pid: int, address: int) -> str:
    try:
        with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:  # noqa: PTH123
            memory.seek(address)
            return memory.read(200).split(b"\0")[0].decode(errors="replace")
    except OSError:
        return "?"


def supervise(pid: int, pipe: int) -> None:
    """In the process beside the watched one: refuse, and say what."""
    while not (said := os.read(pipe, 100)):
        pass
    # The descriptor by its number there: ours was made before.
    there = os.pidfd_open(pid)
    listener = ctypes.CDLL(None, use_errno=True).syscall(438, there, int(said), 0)  # pidfd_getfd
    if listener < 0:
        sys.exit(f"pidfd_getfd: {os.strerror(ctypes.get_errno())}")
    print("ready", flush=True)
    known = numbers()
    while True:
        asked = bytearray(80)
        try:
            fcntl.ioctl(listener, RECEIVE, asked)
        except OSError as error:
            if error.errno == errno.EINTR:
                continue
            return
        number, tid, _, call, _, _, *arguments = struct.unpack("QIIiIQ6Q", asked)
        name, at = known.get(call, (str(call), -1))
        print(name, _path(tid, arguments[at]) if at >= 0 else "", flush=True)
        with contextlib.suppress(OSError):
            fcntl.ioctl(listener, SEND, bytearray(struct.pack("QqiI", number, 0, -errno.ENOTRECOVERABLE, 0)))


if __name__ == "__main__":
    supervise(int(sys.argv[1]), int(sys.argv[2]))
