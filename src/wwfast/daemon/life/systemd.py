"""What the daemon tells systemd (sd_notify(3))."""

from __future__ import annotations

import os
import socket


def notify(state: str) -> None:
    """READY=1, RELOADING=1, STOPPING=1, STATUS=...; nothing when not started by systemd."""
    target = os.environ.get("NOTIFY_SOCKET")
    if not target:
        return
    name = "\0" + target[1:] if target.startswith("@") else target
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        try:
            channel.sendto(state.encode(), name)
        except OSError:
            pass  # readiness is a courtesy: systemd going away must not end the service


def ready() -> None:
    """We serve, and are the main process now, whoever started us: a successor is a child of its predecessor."""
    notify(f"READY=1\nMAINPID={os.getpid()}")
