"""The script of stage-1, its parts run by the shell of this machine with a real curl, against servers that fail."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from wwfast.images import filesystems
from wwfast.images.stage1 import programs

BODY = bytes(range(256)) * 4096  # 1 MiB
#: Words that are programs elsewhere: of the shell itself, arguments of others, and what `chroot` finds in the image.
BUILTIN = {"echo", "[", "test", "true", "false", "read", "wait", "cd", "umask", "printf", "time"}
ARGUMENTS = {"link", "size", "route", "more", "sum", "wwfast"}
IN_THE_IMAGE = {"gzip", "cpio"}
MAIN = "\nmkdir -p /proc"


class Server(ThreadingHTTPServer):
    """Serves BODY by ranges; `faults` are taken one for each request: what is to go wrong with it."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.faults: list[str] = []
        self.always = ""
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/image"


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None: ...

    def do_GET(self) -> None:
        asked = self.headers.get("Range", "")
        self.server.asked.append(asked)
        fault = self.server.faults.pop(0) if self.server.faults else self.server.always
        if fault == "503":
            self.send_error(503)
            return
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", asked)
        data = BODY[int(found[1]) : int(found[2]) + 1] if found else BODY
        self.send_response(206 if found else 200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if fault == "flipped":
            data = data[:100] + bytes([data[100] ^ 1]) + data[101:]
        if fault == "cut":
            self.wfile.write(data[: len(data) // 2])
            self.close_connection = True
            return
        self.wfile.write(data)


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as made:
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def run(place: Path, server: Server, command: str) -> subprocess.CompletedProcess[str]:
    """A part of the script; its pauses are only noted, and a boot that stops ends with 9."""
    parts, main, _ = programs.INIT.read_text().partition(MAIN)
    assert main
    words = f"""{parts}
STORE={place} image={server.url} wwid=52:54:00:00:00:01 asset='a b&c' delay=0
sleep() {{ echo "$1" >> {place}/pauses; }}
fail() {{ say "BOOT STOPPED: $*"; exit 9; }}
{command}"""
    return subprocess.run(["sh", "-c", words], capture_output=True, text=True, timeout=60, check=False)


def listed(place: Path, size: int = 300_000) -> Path:
    lines = []
    for start in range(0, len(BODY), size):
        piece = BODY[start : start + size]
        lines.append(f"{len(piece)} {hashlib.sha256(piece).hexdigest()}\n")
    (place / "pieces").write_text("".join(lines))
    return place / "pieces"


@pytest.mark.parametrize(
    "faults", [[], ["cut"], ["503", "cut", "cut"], ["flipped"], ["flipped", "cut", "503", "flipped"]], ids=str
)
def test_stage1_image_arrives_whole_whatever_happens_on_the_way(
    tmp_path: Path, server: Server, faults: list[str]
) -> None:
    server.faults = list(faults)
    done = run(tmp_path, server, f"fetch_image {listed(tmp_path)} {tmp_path}/root")
    assert done.returncode == 0, done
    assert (tmp_path / "root").read_bytes() == BODY
    assert len(server.asked) >= 4 + len(faults)
    assert not (tmp_path / "first").exists()
    assert not (tmp_path / "second").exists()


def test_stage1_cut_piece_goes_on_where_it_ended(tmp_path: Path, server: Server) -> None:
    server.faults = ["cut"]
    listed(tmp_path, len(BODY))
    assert run(tmp_path, server, f"fetch_image {tmp_path}/pieces {tmp_path}/root").returncode == 0
    assert server.asked == [f"bytes=0-{len(BODY) - 1}", f"bytes={len(BODY) // 2}-{len(BODY) - 1}"]


def test_stage1_piece_that_is_wrong_for_ever_stops_the_boot(tmp_path: Path, server: Server) -> None:
    server.always = "flipped"
    done = run(tmp_path, server, f"fetch_image {listed(tmp_path)} {tmp_path}/root")
    assert done.returncode == 9
    assert "BOOT STOPPED: the image is not what was built" in done.stdout
    assert len(server.asked) <= 10


def test_stage1_pauses_grow_and_are_not_in_step(tmp_path: Path, server: Server) -> None:
    server.faults = ["503"] * 9
    assert run(tmp_path, server, f"small {server.url} {tmp_path}/file").returncode == 0
    assert (tmp_path / "file").read_bytes() == BODY
    pauses = [int(line) for line in (tmp_path / "pauses").read_text().split()]
    for pause, least in zip(pauses, [1, 2, 4, 8, 16, 32, 32, 32, 32], strict=True):
        assert least <= pause <= 1.5 * least


def test_stage1_calls_what_it_says_it_calls() -> None:
    """Or one would be missing that no image builds in: each word that is a program on this machine is looked at."""
    text = re.sub(r"(?m)^\s*#.*$|\s#\s.*$", "", programs.INIT.read_text())
    text = re.sub(r'\b(say|fail) "[^"$]*', "", text)
    words = set(re.findall(r"(?<![\w$/.-])[a-z][a-z0-9_]*(?![\w=])", text))
    called = {word for word in words if shutil.which(word)} - BUILTIN - ARGUMENTS
    assert {"curl", "switch_root", "sha256sum", "modprobe"} <= called
    assert called == set(programs.wanted()) | IN_THE_IMAGE


def test_stage1_list_of_pieces_is_what_the_script_reads(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filesystems, "PIECE", 1 << 18)
    (tmp_path / "squashfs").write_bytes(BODY)
    info = filesystems.listed(tmp_path / "squashfs")
    beside = tmp_path / "squashfs.pieces"
    assert hashlib.sha256(beside.read_bytes()).hexdigest() == info.pieces
    done = run(tmp_path, server, f"fetch_image {beside} {tmp_path}/root")
    assert (done.returncode, (tmp_path / "root").read_bytes() == BODY, len(server.asked)) == (0, True, 4)
