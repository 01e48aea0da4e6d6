"""What is asked for on the wire, and what comes back: statuses of the real program, node n1 with `secure: false`."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import zstandard

from support.daemon import MAC, Serving, serving, tiny_site
from wwfast.pack import derive
from wwfast.paths import Paths

DASHED = MAC.replace(":", "-").upper()
OTHER = "52:54:00:00:00:99"
ROUTES = [
    (f"/ipxe/{MAC}", 200),
    (f"/ipxe/{DASHED}", 200),
    (f"/ipxe/?wwid={MAC}", 200),
    (f"/provision/{MAC}", 200),
    (f"/provision/{MAC}?stage=ipxe", 200),
    (f"/ipxe/{OTHER}", 200),
    (f"/kernel/{MAC}", 200),
    (f"/kernel/{OTHER}", 400),
    (f"/image/{MAC}", 200),
    (f"/image/{MAC}?compress=gz", 200),
    (f"/image/{MAC}?compress=xz", 404),
    (f"/image/{OTHER}", 400),
    (f"/container/{MAC}", 200),
    (f"/container/{MAC}?compress=gz", 200),
    (f"/provision/{MAC}?stage=image", 200),
    (f"/provision/{MAC}?stage=container&compress=gz", 200),
    (f"/provision/{MAC}?stage=bogus", 400),
    (f"/system/{MAC}", 200),
    (f"/system/{MAC}?compress=gz", 200),
    (f"/overlay-system/{MAC}", 200),
    (f"/runtime/{MAC}", 200),
    (f"/runtime/{MAC}?compress=gz", 200),
    (f"/overlay-runtime/{MAC}?compress=gz", 200),
    (f"/runtime/{OTHER}", 400),
    ("/status", 200),
    ("/api/", 404),
    ("/nothing", 404),
]


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Paths:
    return tiny_site(Paths.at(tmp_path_factory.mktemp("site")))


@pytest.fixture(scope="module")
def server(at: Paths) -> Iterator[Serving]:
    with serving(at) as running:
        yield running


@pytest.mark.parametrize(("path", "status"), ROUTES)
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
def test_compat_route_answers_as_the_real_program(server: Serving, path: str, status: int, method: str) -> None:
    assert server.get(path, method=method)[0] == status


def unpacked(server: Serving, path: str) -> bytes:
    status, body, _ = server.get(path)
    assert status == 200
    if path.endswith("gz"):
        return gzip.decompress(body)
    return (
        zstandard.ZstdDecompressor().decompressobj(read_across_frames=True).decompress(body) if "zst" in path else body
    )


def test_compat_image_comes_in_every_form_and_each_is_the_same(server: Serving) -> None:
    forms = [unpacked(server, f"/image/{MAC}{query}") for query in ("?compress=zst", "", "?compress=gz")]
    assert b"ID=tiny" in forms[0]
    assert forms[1:] == forms[:1] * 2
    body = server.get(f"/image/{MAC}?compress=gz")[1]
    assert len(body) % 4 == 0, "Linux wants what follows it aligned"
    status, part, headers = server.get(f"/image/{MAC}", headers={"Range": "bytes=100-199"})
    assert (status, part) == (206, forms[0][100:200])
    assert server.get(f"/image/{MAC}", headers={"If-None-Match": headers["etag"]})[0] == 304


def test_compat_image_form_is_made_once_for_all_who_ask(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_site(paths)
    made, calls = derive.make, []
    monkeypatch.setattr(derive, "make", lambda dest, fmt: (calls.append(fmt), made(dest, fmt)))
    with serving(paths) as running, ThreadPoolExecutor(8) as clients:
        bodies = list(clients.map(lambda _: running.get(f"/image/{MAC}")[1], range(8)))
        assert len(set(bodies)) == 1
        assert calls == ["raw"]
    with serving(paths) as running:
        assert running.get(f"/container/{MAC}")[1] == bodies[0]
    assert calls == ["raw"], "another process finds it"
    [body] = paths.images.glob("tiny/2*/image/also-raw")
    body.write_bytes(b"damaged")
    with serving(paths) as running:
        assert running.get(f"/image/{MAC}")[1] == bodies[0]
    assert calls == ["raw", "raw"]
