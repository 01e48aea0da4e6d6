"""The TFTP server's real sockets against peers whose packets get lost, doubled and out of order."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from support.patience import until
from support.tftpserver import RunningTftp, running_tftp
from support.udpproxy import Proxy
from wwfast.errors import WwfastError
from wwfast.net.transfer import Outcome
from wwfast.storm.dhcp import fetch

CONTENT = os.urandom(200_000)


@pytest.fixture
def running() -> Iterator[RunningTftp]:
    with running_tftp({"boot": CONTENT}) as made:
        yield made


@pytest.mark.parametrize("window", ["1", "4", "16"])
def test_tftp_through_a_bad_link(running: RunningTftp, window: str) -> None:
    options = {"blksize": "1432", "tsize": "0", "windowsize": window}
    with Proxy(("127.0.0.1", running.port), lose=0.02, repeat=0.03, swap=0.03, seed=int(window)) as proxy:
        assert fetch("127.0.0.1", "127.0.0.1", "boot", options, port=proxy.port) == CONTENT
        assert proxy.harmed > 0


def test_tftp_size_probe_is_no_failure(running: RunningTftp) -> None:
    """OVMF asks for the size, aborts with error 8, and asks again from the same port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(5)
        for _ in range(3):
            sock.sendto(b"\0\1boot\0octet\0tsize\x000\0blksize\x001468\0windowsize\x004\0", ("127.0.0.1", running.port))
            data, peer = sock.recvfrom(2000)
            assert data == b"\0\6tsize\x00200000\0blksize\x001468\0windowsize\x004\0"
            sock.sendto(b"\0\5\0\x08User aborted the transfer\0", peer)
    assert fetch("127.0.0.1", "127.0.0.1", "boot", {}, port=running.port) == CONTENT
    until(lambda: len(running.events) >= 2, 10.0)
    assert [event.outcome for event in running.events] == [Outcome.STARTED, Outcome.DONE]


def test_tftp_missing_file_is_told_at_once(running: RunningTftp) -> None:
    with pytest.raises(WwfastError, match="no such file"):
        fetch("127.0.0.1", "127.0.0.1", "absent", {}, port=running.port)


def test_tftp_repeated_request_does_not_start_twice(running: RunningTftp) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(5)
        ports = set()
        for _ in range(3):
            sock.sendto(b"\0\1boot\0octet\0blksize\x00512\0", ("127.0.0.1", running.port))
            data, peer = sock.recvfrom(2000)
            assert data == b"\0\6blksize\x00512\0"
            ports.add(peer[1])
    assert len(ports) == 1


def test_tftp_late_copy_of_a_request_does_not_cut_off_its_transfer(running: RunningTftp) -> None:
    """It waited in the server's queue while the first one was answered: seen with thousands of clients."""
    ask = b"\0\1boot\0octet\0blksize\x001432\0"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(5)
        sock.sendto(ask, ("127.0.0.1", running.port))
        peer = sock.recvfrom(2000)[1]
        received = b""
        for block in range(len(CONTENT) // 1432 + 2):
            if block == 3:
                for _ in range(8):  # as many as there are ports in turn, and again
                    sock.sendto(ask, ("127.0.0.1", running.port))
            sock.sendto(b"\0\4" + block.to_bytes(2, "big"), peer)
            if block == len(CONTENT) // 1432 + 1:
                break
            data, sender = sock.recvfrom(2000)
            assert sender == peer
            assert data[:4] == b"\0\3" + (block + 1).to_bytes(2, "big")
            received += data[4:]
        assert received == CONTENT
