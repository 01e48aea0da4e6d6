"""Run a command in a kernel without IPv6, as far as it can see: python without_ipv6.py WORDS...

A filter of seccomp(2) refuses socket(AF_INET6) with EAFNOSUPPORT, as Linux does with `ipv6.disable=1`.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import socket
import struct
import sys

PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, FILTER = 22, 38, 2
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06  # of struct seccomp_data: the number of the call at 0, its first argument at 16
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
SOCKET = {"x86_64": 41, "aarch64": 198}


def forbid() -> None:
    program = [
        (LOAD, 0, 0, 0),
        (EQUAL, 0, 3, SOCKET[platform.machine()]),
        (LOAD, 0, 0, 16),
        (EQUAL, 0, 1, int(socket.AF_INET6)),
        (RETURN, 0, 0, ERRNO | errno.EAFNOSUPPORT),
        (RETURN, 0, 0, ALLOW),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in program))
    head = ctypes.create_string_buffer(struct.pack("@HP", len(program), ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    for words in ((PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (PR_SET_SECCOMP, FILTER, head, 0, 0)):
        if libc.prctl(*words):
            raise OSError(ctypes.get_errno(), "prctl")


if __name__ == "__main__":
    forbid()
    os.execvp(sys.argv[1], sys.argv[1:])
