"""Power commands against a real BMC simulator, by the real ipmitool."""

from __future__ import annotations

import json
import os
import pty
import select
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.bmc import PASSWORD, Bmc, bmc, silent
from wwfast.paths import Paths
from wwfast.system.run import Done, run, start

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bmc]:
    with bmc(tmp_path_factory.mktemp("bmc") / "live") as made:
        yield made


def describe(paths: Paths, **ports: int) -> None:
    """One node per name; `wrong` has another password."""
    nodes = {
        name: {
            "ipmi": {
                "ipaddr": "127.0.0.1",
                "port": str(port),
                "username": "admin",
                "interface": "lan",
                "password": "no" if name == "wrong" else PASSWORD,
            }
        }
        for name, port in ports.items()
    }
    paths.nodes_conf.write_text(json.dumps({"nodes": nodes}))


def words(paths: Paths, *rest: str) -> list[str | Path]:
    return [sys.executable, "-m", "wwfast", "--root", paths.root, *rest]


def wwfast(paths: Paths, *rest: str) -> Done:
    return run(words(paths, *rest), check=False, timeout=100)


def test_power_status_on_and_off_change_the_state_of_the_bmc(paths: Paths, live: Bmc) -> None:
    describe(paths, n1=live.port)
    (live.folder / "power").write_text("0\n")
    assert wwfast(paths, "power", "status", "n1").stdout == b"n1: Chassis Power is off\n"
    done = wwfast(paths, "power", "on", "n1")
    assert done.returncode == 0, done.stderr.decode()
    assert live.power
    done = wwfast(paths, "power", "status", "n1", "--json")
    assert json.loads(done.stdout) == {"n1": {"power": "on", "output": "Chassis Power is on", "error": ""}}
    assert wwfast(paths, "power", "off", "n1").returncode == 0
    assert not live.power


@pytest.mark.parametrize(("action", "call"), [("cycle", "power 0"), ("reset", "reset 1"), ("soft", "shutdown 1")])
def test_power_actions_reach_the_chassis(paths: Paths, live: Bmc, action: str, call: str) -> None:
    describe(paths, n1=live.port)
    (live.folder / "power").write_text("1\n")
    before = len(live.calls)
    done = wwfast(paths, "power", action, "n1")
    assert done.returncode == 0, done.stderr.decode()
    assert live.calls[before] == call


def test_power_dead_bmc_and_wrong_password_beside_a_live_one(paths: Paths, live: Bmc) -> None:
    with silent() as port:
        describe(paths, dead=port, live=live.port, wrong=live.port)
        began = time.monotonic()
        done = wwfast(paths, "power", "status", "dead,live,wrong", "unknown")
        took = time.monotonic() - began
    assert done.returncode == 1
    assert b"live:    Chassis Power is" in done.stdout
    errors = done.stderr.decode()
    assert "dead:    error: ipmitool failed" in errors
    assert "wrong:   error: ipmitool failed" in errors
    assert "unknown: error: no node of that name" in errors
    assert errors.splitlines()[-1].startswith("error: failed on 3 of 4 nodes: ")
    assert took < 60


def test_power_password_is_in_no_command_line_and_not_shown(paths: Paths, live: Bmc) -> None:
    with silent() as port:
        describe(paths, n1=port)
        process = start(words(paths, "power", "status", "n1"), tied=True)
        try:
            seen = b""
            end = time.monotonic() + 20
            while not seen and time.monotonic() < end:
                seen = b"".join(line for line in command_lines() if f"-p\0{port}\0".encode() in line)
                time.sleep(0.02)
            everything = b"".join(command_lines())
        finally:
            process.terminate()
            process.wait(30)
    assert b"-E\0" in seen
    assert PASSWORD.encode() not in everything
    shown = wwfast(paths, "power", "off", "n1", "--show")
    assert shown.returncode == 0
    assert shown.stdout.decode() == f"n1: ipmitool -I lan -p {port} -H 127.0.0.1 -U admin -E chassis power off\n"


@pytest.mark.parametrize(("answer", "powered"), [(b"n\n", True), (b"y\n", False)])
def test_power_off_of_several_is_asked_for_on_a_terminal(paths: Paths, live: Bmc, answer: bytes, powered: bool) -> None:
    describe(paths, n1=live.port, n2=live.port)
    (live.folder / "power").write_text("1\n")
    ours, theirs = pty.openpty()
    try:
        with os.fdopen(theirs, "rb") as terminal, (paths.root / "out").open("wb") as out:
            process = start(words(paths, "power", "off", "n[1-2]"), stdin=terminal, stdout=out, stderr=out, tied=True)
            os.write(ours, answer)
            assert process.wait(60) == 0
    finally:
        os.close(ours)
    assert "Power off 2 nodes: n[1-2]? [y/N]" in (paths.root / "out").read_text()
    assert live.power is powered


def test_power_console_is_on_the_terminal_until_it_is_left(paths: Paths, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as serial:
        serial.settimeout(30)
        with bmc(tmp_path / "bmc", console=serial.getsockname()[1]) as made:
            line, _ = serial.accept()
            line.settimeout(30)
            ipmi = {"ipaddr": "127.0.0.1", "port": str(made.port), "username": "admin", "password": PASSWORD}
            paths.nodes_conf.write_text(json.dumps({"nodes": {"n1": {"ipmi": ipmi}}}))
            ours, theirs = pty.openpty()
            with line, os.fdopen(ours, "r+b", buffering=0) as ours_end, os.fdopen(theirs, "rb") as terminal:
                process = start(words(paths, "node", "console", "n1"), stdin=terminal, stdout=terminal, stderr=terminal,
                                tied=True)  # fmt: skip
                seen = read_until(ours_end.fileno(), b"operational")
                os.write(ours, b"hello\r")
                assert line.recv(100)[:1] == b"h"
                line.sendall(b"login: ")
                seen += read_until(ours_end.fileno(), b"login: ")
                os.write(ours, b"\r~.")
                seen += read_until(ours_end.fileno(), b"terminated")
                assert process.wait(30) == 0, seen


def read_until(terminal: int, word: bytes, seconds: float = 20) -> bytes:
    seen = b""
    end = time.monotonic() + seconds
    while word not in seen:
        assert time.monotonic() < end, seen
        if select.select([terminal], [], [], 0.2)[0]:
            seen += os.read(terminal, 1000)
    return seen


def command_lines() -> list[bytes]:
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(place.read_bytes())
        except OSError:
            continue
    return found
