"""What strangers call themselves, in the log, in /status and on a terminal: bounded, on one line, without escapes."""

from __future__ import annotations

import json
import logging
import socket
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.daemon import NODES, overlay, serving, tiny_image, write_conf
from support.httpserver import running
from wwfast.cli.main import main
from wwfast.daemon.report import EACH
from wwfast.net.http.message import Response
from wwfast.net.names import tame
from wwfast.net.restraint import SOURCES, Restraint
from wwfast.net.transfer import Outcome, Transfer
from wwfast.paths import Paths

FORGED = "x\n2026-01-01 n1 runtime done \x1b[2J\x1b]0;owned\x07\u202e\x9b31m"


@given(st.text(max_size=400), st.integers(8, 200))
def test_names_are_tame_whatever_they_are(text: str, most: int) -> None:
    shown = tame(text, most)
    assert len(shown) <= most
    assert shown.isprintable()
    if len(text) <= most and text.isprintable():
        assert shown == text


def test_names_in_events_are_tame_whoever_makes_them() -> None:
    event = Transfer("tftp", Outcome.FAILED, 0.0, "10.0.0.1", wwid=FORGED, node=FORGED, sent=FORGED, detail=FORGED * 99)
    assert all(said.isprintable() and len(said) <= 300 for said in (event.wwid, event.node, event.sent, event.detail))


def test_restraint_is_for_each_source_and_bounded() -> None:
    now = [0.0]
    restraint = Restraint(3, 1.0, lambda: now[0])
    assert [restraint.allows("a") for _ in range(5)] == [True, True, True, False, False]
    assert restraint.allows("b")
    now[0] = 2.0
    assert [restraint.allows("a") for _ in range(3)] == [True, True, False]
    assert restraint.held_back == 3
    for number in range(SOURCES + 10):
        restraint.allows(str(number))
    assert restraint.allows("a"), "the one not heard of for longest is forgotten"


@pytest.fixture
def site(paths: Paths) -> Paths:
    tiny_image(paths)
    overlay(paths)
    write_conf(paths)
    paths.nodes_conf.write_text(NODES)
    return paths


def ask(port: int, *targets: str) -> None:
    """GET each of them on one connection; the answers are read."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as sock:
        sock.sendall(b"".join(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode() for target in targets[:-1]))
        sock.sendall(f"GET {targets[-1]} HTTP/1.1\r\nConnection: close\r\n\r\n".encode())
        while sock.recv(1 << 16):
            pass


def hostile(name: str) -> list[str]:
    said = quote(name)
    where = [f"/{stage}/{said}" for stage in ("ipxe", "grub", "kernel", "image", "system", "runtime", "kmods", said)]
    asks = [f"/provision/52:54:00:00:00:01?stage={said}", f"/image/52:54:00:00:00:01?image={said}&assetkey={said}"]
    return [*where, *asks, f"/efiboot/{said}", f"/ipxe/52:54:00:00:00:02?arch={said}&compress={said}"]


def test_http_names_reach_log_and_status_bounded_and_on_one_line(site: Paths, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with serving(site) as server:
        for name in (FORGED, "A" * 7000, "\x1b" * 900, "é\u2028" * 300):
            ask(server.port, *hostile(name))
        body = server.get("/status")[1]
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) > 5
    assert all(line.isprintable() and len(line) < 900 for line in lines)
    assert len(body) < 60_000
    for said in strings(json.loads(body)):
        assert said.isprintable()
        assert len(said) <= 310


def strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for pair in value.items() for part in pair for text in strings(part)]
    if isinstance(value, list):
        return [text for part in value for text in strings(part)]
    return [value] if isinstance(value, str) else []


def test_http_refusals_of_one_address_are_told_so_often_and_then_counted(
    site: Paths, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with serving(site) as server:
        ask(server.port, *[f"/kernel/52:54:00:00:09:{number:02x}" for number in range(250)])
        ask(server.port, "/ipxe/52:54:00:00:00:01")
        told = [line for line in caplog.messages if " kernel failed " in line]
        assert EACH[0] <= len(told) < EACH[0] + 50
        assert len(server.status()["unknown"]) == len(told), "nor does the status take more of them"


def test_status_of_a_node_that_is_gone_is_gone_though_it_still_downloads(site: Paths) -> None:
    with serving(site) as server:
        server.get("/ipxe/52:54:00:00:00:01")
        assert server.status()["nodes"]["n1"]["stage"] == "ipxe"
        site.nodes_conf.write_text("nodes: {n2: {}}\n")
        server.loop.call_soon_threadsafe(server.daemon.reload)
        while "n1" in (nodes := server.status()["nodes"]):
            pass
        late = Transfer("image", Outcome.DONE, 1.0, "10.0.0.11", "52:54:00:00:00:01", "n1", "tiny")
        server.loop.call_soon_threadsafe(server.daemon.report.record, late)
        while not (body := server.status())["unknown"]:
            pass
        assert set(nodes) == set(body["nodes"]) == {"n2"}


def test_node_status_writes_no_escapes_to_a_terminal(paths: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever the server is: it may be older than the command."""
    entry = {"node name": "n1", "stage": "ipxe", "sent": FORGED, "bytes": 1, "total": 1, "last seen": 0, "stuck": 0}
    part = {"stage": "ipxe", "at": 0, "sent": FORGED, "bytes": 1, "seconds": 0, "outcome": FORGED}
    body = {"nodes": {"n1": entry | {"failed": True, "error": FORGED * 50, "boot": [part]}}}
    with running(lambda request: Response(body=json.dumps(body).encode())) as server:
        write_conf(paths, warewulf={"port": server.port})
        paths.nodes_conf.write_text("nodes:\n  n1: {}\n")
        with pytest.raises(SystemExit):
            main(["--root", str(paths.root), "node", "status", "n1"])
    shown = capsys.readouterr().out
    assert "n1" in shown
    assert all(line.isprintable() for line in shown.split("\n")), shown
    assert len(shown) < 4000
