"""An unmodified nginx with our configuration between a server and its nodes."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from support.daemon import MAC, Serving, serving, tiny_site, write_conf
from support.patience import until
from wwfast.images import building
from wwfast.paths import Paths

SIZE = 20_000_000  # of the kernel that is no kernel: three slices


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def wwfast(site: Paths, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "wwfast", "--root", str(site.root), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@contextmanager
def nginx(place: Path, conf: Path) -> Iterator[None]:
    """It writes its pid and its cache below `place`."""
    words = ["nginx", "-c", str(conf), "-p", str(place), "-g", "daemon off; user root;"]
    with (place / "nginx.log").open("wb") as log, subprocess.Popen(words, stderr=log) as process:
        try:
            until((place / "nginx.pid").exists, 20, (place / "nginx.log").read_text)
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


def get(url: str, path: str, headers: dict[str, str] | None = None) -> tuple[int, bytes, dict[str, str]]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=30)
    try:
        connection.request("GET", path, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read(), {name.lower(): value for name, value in answer.getheaders()}
    finally:
        connection.close()


class Rack:
    """A server, a cache, and the name and bytes of a kernel."""

    def __init__(self, site: Paths, running: Serving, url: str, server: ExitStack) -> None:
        self.site, self.running, self.url, self.server = site, running, url, server
        self.body = running.get(f"/kernel/{MAC}")[1]
        self.name = f"sha256-{hashlib.sha256(self.body).hexdigest()}"
        until(lambda: running.get(f"/blob/{self.name}", method="HEAD")[0] == 200)

    @property
    def carried(self) -> dict[str, Any]:
        found: dict[str, Any] = self.running.status()["caches"][self.url]
        return found


@pytest.fixture
def rack(paths: Paths, tmp_path: Path) -> Iterator[Rack]:
    if shutil.which("nginx") is None:
        pytest.skip("nginx is not installed")
    url = f"http://127.0.0.1:{free_port()}"
    place = tmp_path / "rack"
    place.mkdir()
    site = tiny_site(paths)
    (site.chroots / "tiny/rootfs/boot/vmlinuz-6.1.0-1").write_bytes(os.urandom(SIZE))
    building.build(site, "tiny")
    write_conf(site, wwfast={"caches": [{"url": url}]})
    with ExitStack() as server:
        running = server.enter_context(serving(site))
        words = ("--directory", str(place / "kept"), "--head", f"127.0.0.1:{running.port}")
        made = wwfast(site, "cache", "nginx", "--into", str(place), *words)
        assert made.returncode == 0, made
        (place / "kept").mkdir()
        with nginx(place, place / "nginx.conf"):
            yield Rack(site, running, url, server)


def test_rack_cache_fetches_a_blob_once_however_many_ask(rack: Rack) -> None:
    with ThreadPoolExecutor(40) as nodes:
        answers = list(nodes.map(lambda _: get(rack.url, f"/blob/{rack.name}"), range(200)))
    assert {status for status, _, _ in answers} == {200}
    assert {hashlib.sha256(body).hexdigest() for _, body, _ in answers} == {rack.name.removeprefix("sha256-")}
    until(lambda: rack.carried["fetched"] >= SIZE)
    assert rack.carried["fetched"] == SIZE, "the link of the server carried it once"


def test_rack_cache_has_parts_and_says_whether_it_had_them(rack: Rack) -> None:
    part = {"Range": "bytes=9000000-9000099"}
    status, body, headers = get(rack.url, f"/blob/{rack.name}", part)
    assert (status, body, headers["x-cache"]) == (206, rack.body[9_000_000:9_000_100], "MISS")
    status, body, headers = get(rack.url, f"/blob/{rack.name}", part)
    assert (status, body, headers["x-cache"]) == (206, rack.body[9_000_000:9_000_100], "HIT")
    assert headers["cache-control"] == "public, max-age=31536000, immutable"
    until(lambda: rack.carried["fetched"])
    assert rack.carried["fetched"] == 8 << 20, "the second of its slices, and no other"


@pytest.mark.parametrize(
    "path",
    ["/", f"/ipxe/{MAC}", f"/system/{MAC}", f"/runtime/{MAC}", "/status", "/blob/", "/blob/sha256-00", "/files/x"],
)
def test_rack_cache_has_nothing_but_blobs(rack: Rack, path: str) -> None:
    assert get(rack.url, path)[0] == 404


def test_rack_cache_without_its_server_goes_on_with_what_it_has(rack: Rack) -> None:
    assert get(rack.url, f"/blob/{rack.name}")[1] == rack.body
    rack.server.close()
    assert get(rack.url, f"/blob/{rack.name}")[:2] == (200, rack.body)
    assert get(rack.url, f"/blob/sha256-{'0' * 64}")[0] in (502, 504)


def test_rack_cache_keeps_that_there_is_nothing_for_seconds_alone(rack: Rack) -> None:
    status, _, headers = get(rack.url, f"/blob/sha256-{'0' * 64}")
    assert (status, headers["cache-control"]) == (404, "public, max-age=5")


def test_rack_cache_status_and_warm(rack: Rack) -> None:
    rack.site.conf.write_text(rack.site.conf.read_text().replace('"port": 9873', f'"port": {rack.running.port}'))
    done = wwfast(rack.site, "cache", "warm", "tiny")
    assert done.returncode == 0, done
    assert re.search(rf"kernel: {SIZE / 2**20:.1f} MiB, {rack.name[:19]}\.\.\.\n1 caches have image tiny", done.stdout)
    until(lambda: rack.carried["fetched"] == SIZE)
    assert get(rack.url, f"/blob/{rack.name}")[2]["x-cache"] == "HIT"
    told = f"/stage1/{MAC}?said=x&well=1&carried={rack.url}*{SIZE * 4},http://10.9.9.9*1,{rack.url}*-1"
    assert rack.running.get(told)[0] == 200
    done = wwfast(rack.site, "cache", "status", "--json")
    assert done.returncode == 0, done
    [shown] = json.loads(done.stdout)
    assert (shown["url"], shown["state"], shown["fetched"], shown["given"]) == (rack.url, "well", SIZE, SIZE * 4)
    done = wwfast(rack.site, "cache", "status")
    assert " 75%   well" in done.stdout


def test_rack_cache_that_is_down_is_told(rack: Rack) -> None:
    conf = json.loads(rack.site.conf.read_text())
    gone = f"http://127.0.0.1:{free_port()}"
    conf["wwfast"]["caches"].append({"url": gone})
    rack.site.conf.write_text(json.dumps(conf))
    done = wwfast(rack.site, "cache", "status")
    assert done.returncode == 1
    assert re.search(rf"{gone}  .*Connection refused", done.stdout)
    done = wwfast(rack.site, "cache", "warm", "tiny", "--cache", gone)
    assert (done.returncode, f"cache {gone} does not answer: Connection refused" in done.stderr) == (1, True)
    done = wwfast(rack.site, "cache", "warm", "tiny", "--cache", "http://10.0.0.1:1")
    assert done.returncode == 2
