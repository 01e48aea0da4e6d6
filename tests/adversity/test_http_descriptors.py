"""A server that is out of descriptors takes up again the clients that waited."""

from __future__ import annotations

import os
import resource
import socket

import pytest

from support.httpserver import running
from support.patience import until
from wwfast.net.http.message import Response


def test_http_clients_that_came_while_descriptors_were_out_are_served(caplog: pytest.LogCaptureFixture) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with running(lambda _: Response(200, b"served")) as server, socket.socket() as client:
        client.settimeout(20)
        lowest = os.dup(client.fileno())  # the next one would be this
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
        try:
            client.connect(("127.0.0.1", server.port))
            client.sendall(b"GET /x HTTP/1.1\r\nConnection: close\r\n\r\n")
            until(lambda: "cannot accept" in caplog.text, 20.0)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert b"served" in client.recv(1000)
