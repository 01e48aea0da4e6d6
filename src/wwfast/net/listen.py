"""What listening sockets of DHCP and TFTP have in common: large buffers and errors for people."""

from __future__ import annotations

import errno
from typing import Protocol

from wwfast.errors import WwfastError

RECEIVE_BUFFER = 16 << 20
SEND_BUFFER = 8 << 20
SOL_SOCKET, SO_SNDBUF, SO_RCVBUF, SO_SNDBUFFORCE, SO_RCVBUFFORCE = 1, 7, 8, 32, 33


class _Socket(Protocol):
    def setsockopt(self, level: int, option: int, value: int, /) -> None: ...


def grow_receive_buffer(sock: _Socket, size: int = RECEIVE_BUFFER) -> None:
    """As root beyond net.core.rmem_max, otherwise up to it: a storm's requests wait in it while we answer."""
    try:
        sock.setsockopt(SOL_SOCKET, SO_RCVBUFFORCE, size)
    except PermissionError:
        sock.setsockopt(SOL_SOCKET, SO_RCVBUF, size)


def grow_send_buffer(sock: _Socket, size: int = SEND_BUFFER) -> None:
    """As root beyond net.core.wmem_max: a batch of replies must not be lost because the card is behind."""
    try:
        sock.setsockopt(SOL_SOCKET, SO_SNDBUFFORCE, size)
    except PermissionError:
        sock.setsockopt(SOL_SOCKET, SO_SNDBUF, size)


def bind_error(port: int, where: str, error: OSError) -> WwfastError:
    """What it means that UDP `port` could not be bound on `where` (an address or an interface)."""
    if error.errno == errno.EADDRINUSE:
        return WwfastError(
            f"UDP port {port} on {where} is in use by another program",
            hint=f"see which one: ss -lunp 'sport = :{port}'; stop it, or disable the service in warewulf.conf",
        )
    if error.errno == errno.ENODEV:
        return WwfastError(f"there is no network interface {where}", hint="see the interfaces: ip -br link")
    if error.errno == errno.EADDRNOTAVAIL:
        return WwfastError(
            f"{where} is not an address of this machine", hint="see the addresses: ip -br address; set ipaddr right"
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return WwfastError(f"not permitted to open UDP port {port} on {where}", hint="start the server as root")
    return WwfastError(f"cannot open UDP port {port} on {where}: {error.strerror}")
