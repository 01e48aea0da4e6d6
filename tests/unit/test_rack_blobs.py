"""Names by content: what has one, what never has, what is told of them, and which caches a node is told of."""

from __future__ import annotations

import hashlib
import json
import threading
from pathlib import Path
from typing import Any

import pytest

from support.daemon import MAC, serving, tiny_site, write_conf
from support.patience import until
from wwfast.archive.artefact import RAW, Artefact, Extent
from wwfast.boot.blobs import Cancelled, Names
from wwfast.boot.caches import TOLD, Caches
from wwfast.config import checks
from wwfast.config.settings import Cache, load
from wwfast.nodes.model import NetDev, Node
from wwfast.paths import Paths

NEAR, FAR = "http://127.0.0.1:1", "http://127.0.0.1:2"


def named(running: Any, what: str) -> str:
    """The name of what is served at a path, as soon as it has one."""
    body = running.get(what)[1]
    name = f"sha256-{hashlib.sha256(body).hexdigest()}"
    until(lambda: running.get(f"/blob/{name}", method="HEAD")[0] == 200, 20)
    return name


def test_blob_is_whatever_has_this_content_for_ever_and_in_parts(paths: Paths) -> None:
    site = tiny_site(paths)
    write_conf(site, wwfast={"caches": [{"url": NEAR}]})
    with serving(site) as running:
        for path in (f"/kernel/{MAC}", f"/image/{MAC}?compress=zst"):
            body = running.get(path)[1]
            name = named(running, path)
            status, got, headers = running.get(f"/blob/{name}")
            assert (status, got) == (200, body)
            assert headers["cache-control"] == "public, max-age=31536000, immutable"
            assert headers["etag"] == f'"{name.removeprefix("sha256-")}"'
            part = running.get(f"/blob/{name}", headers={"Range": "bytes=5-8"})
            assert part[:2] == (206, body[5:9])
            assert running.get(f"/blob/{name}", headers={"If-None-Match": headers["etag"]})[0] == 304
        assert "blob" not in json.dumps(running.status()["nodes"])


@pytest.mark.parametrize("name", ["sha256-" + "0" * 64, "sha256-" + "A" * 64, "x", "", "sha256-"])
def test_blob_that_nobody_has_is_not_there_for_seconds(paths: Paths, name: str) -> None:
    site = tiny_site(paths)
    write_conf(site, wwfast={"caches": [{"url": NEAR}]})
    with serving(site) as running:
        named(running, f"/kernel/{MAC}")
        status, body, headers = running.get(f"/blob/{name}")
        assert (status, body) == (404, b"")
        assert headers["cache-control"] == "public, max-age=5"


def test_blob_of_an_overlay_or_a_script_is_never_there(paths: Paths) -> None:
    """They hold what is a node's own."""
    site = tiny_site(paths)
    write_conf(site, wwfast={"caches": [{"url": NEAR}]})
    with serving(site) as running:
        named(running, f"/kernel/{MAC}")
        for path in (f"/system/{MAC}?compress=zst", f"/system/{MAC}", f"/runtime/{MAC}", f"/ipxe/{MAC}"):
            status, body, _ = running.get(path)
            assert status == 200
            assert running.get(f"/blob/sha256-{hashlib.sha256(body).hexdigest()}")[0] == 404


def test_blobs_are_named_where_there_are_caches_alone(paths: Paths) -> None:
    with serving(tiny_site(paths)) as running:
        body = running.get(f"/kernel/{MAC}")[1]
        assert running.get(f"/blob/sha256-{hashlib.sha256(body).hexdigest()}")[0] == 404
        assert "/blob/" not in running.get(f"/ipxe/{MAC}")[1].decode()
    assert not paths.blobs.exists()


def test_script_asks_the_caches_before_the_server(paths: Paths) -> None:
    site = tiny_site(paths)
    caches = [{"url": FAR, "networks": ["10.9.0.0/16"]}, {"url": NEAR, "networks": ["10.0.0.0/24"]}]
    write_conf(site, wwfast={"caches": caches})
    with serving(site) as running:
        name = named(running, f"/kernel/{MAC}")
        script = running.get(f"/ipxe/{MAC}")[1].decode()
    [line] = [line for line in script.splitlines() if line.startswith("kernel ")]
    assert line.startswith(
        f"kernel --name kernel --timeout 20000 {NEAR}/blob/{name} || "
        f"kernel --name kernel --timeout 20000 {FAR}/blob/{name} || kernel --name kernel ${{base}}/kernel/"
    )
    assert line.endswith("|| goto failed")
    assert f"initrd --name image {NEAR}" not in script, "what nobody checks comes from the server"


def test_blob_names_are_read_once_and_forgotten_with_what_they_name(paths: Paths) -> None:
    site = tiny_site(paths)
    write_conf(site, wwfast={"caches": [{"url": NEAR}]})
    with serving(site) as running:
        named(running, f"/kernel/{MAC}")
        until(site.blobs.exists)
    kept = json.loads(site.blobs.read_text())
    site.blobs.write_text(json.dumps(dict.fromkeys(kept, "f" * 64) | {"gone": "0" * 64}))
    with serving(site) as running:
        until(lambda: running.get(f"/blob/sha256-{'f' * 64}")[0] == 200)
        until(lambda: "gone" not in site.blobs.read_text())
    site.blobs.write_text("{")
    with serving(site) as running:
        named(running, f"/kernel/{MAC}")
        until(lambda: json.loads(site.blobs.read_text()) == kept)


def test_blob_that_is_read_while_the_server_ends_is_not_waited_for(tmp_path: Path) -> None:
    file = tmp_path / "large"
    with file.open("wb") as out:
        out.truncate(1 << 33)
    ended = threading.Event()
    names = Names(tmp_path / "kept", ended.is_set)
    threading.Timer(0.2, ended.set).start()
    with pytest.raises(Cancelled):
        names.of(Artefact("large", RAW, (Extent(str(file), 0, 1 << 33),), "d", (RAW,), 0))


def test_blob_of_a_file_that_is_shorter_than_it_was_has_no_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 10)
    with pytest.raises(OSError, match="became shorter"):
        Names(tmp_path / "kept").of(Artefact("file", RAW, (Extent(str(tmp_path / "file"), 0, 11),), "d", (RAW,), 0))


# -- pieces ----------------------------------------------------------------------------------------------------------


def test_artefact_parts_are_its_bytes_in_order(tmp_path: Path) -> None:
    whole = Artefact("x", RAW, (Extent("a", 5, 10), Extent("b", 0, 3), Extent("a", 0, 4)), "d", (RAW,), 0)
    assert list(whole.parts([4, 8, 0, 5])) == [
        (Extent("a", 5, 4),),
        (Extent("a", 9, 6), Extent("b", 0, 2)),
        (),
        (Extent("b", 2, 1), Extent("a", 0, 4)),
    ]
    with pytest.raises(ValueError, match="17 bytes"):
        list(whole.parts([18]))


# -- which caches ----------------------------------------------------------------------------------------------------


def node(name: str = "n1", address: str = "10.1.2.3", **tags: str) -> Node:
    return Node(id=name, network_devices={"default": NetDev(ipaddr=address)}, tags=tags)


def test_caches_are_nearest_first(tmp_path: Path) -> None:
    caches = Caches(
        [
            Cache("http://10.0.0.1:1"),
            Cache("http://10.0.0.2:1", networks=["10.1.0.0/16"]),
            Cache("http://10.0.0.3:1", networks=["10.1.2.0/24", "10.9.0.0/16"]),
            Cache("http://10.0.0.4:1", tags={"rack": "r1"}),
            Cache("http://10.0.0.5:1", tags={"rack": "r1"}, networks=["10.8.0.0/16"]),
        ]
    )

    def of(made: Node, peer: str = "") -> list[str]:
        return [url[-3] for url in caches.of(made, peer)]

    assert of(node()) == ["3", "2", "1"]
    assert of(node(rack="r1")) == ["4", "3", "2"]
    assert of(node(address="10.8.0.1", rack="r1"))[:2] == ["5", "4"]
    assert of(node(address="192.168.0.1"))[0] == "1"
    assert of(node(address=""), "10.9.9.9")[0] == "3"
    assert of(node(address=""), "::ffff:10.9.9.9")[0] == "3"
    assert not Caches([]).of(node())


@pytest.mark.parametrize("count", [2, 3, 5, 6])
def test_caches_that_are_equally_near_share_the_nodes(count: int) -> None:
    urls = [f"http://10.{number}.0.1:9880" for number in range(1, count + 1)]
    caches = Caches([Cache(url) for url in urls])
    firsts = [caches.of(node(f"n{number}"))[0] for number in range(1200)]
    part = 1200 / count
    assert all(0.8 * part < firsts.count(url) < 1.2 * part for url in urls), [firsts.count(url) for url in urls]
    assert len(caches.of(node())) == min(TOLD, count)
    assert caches.of(node("n7")) == caches.of(node("n7"))


@pytest.mark.parametrize(
    ("url", "right"),
    [
        ("http://10.1.0.1:9880", True),
        ("http://10.1.0.1", True),
        ("http://[fd00::1]:80", True),
        ("http://rack1:80", False),
        ("https://10.1.0.1:80", False),
        ("http://10.1.0.1:80/", False),
        ("http://10.1.0.1:0", False),
        ("http://10.1.0.1:65536", False),
        ("http://10.1.0.256:80", False),
        ("http://10.1.0.1:80 ${x}", False),
        ("http://10.1.0.1:80\n", False),
        ("", False),
    ],
)
def test_cache_urls_are_addresses(url: str, right: bool) -> None:
    assert (not checks.cache_url(url)) is right


def test_cache_without_a_url_is_refused(paths: Paths) -> None:
    write_conf(paths, wwfast={"caches": [{"networks": ["10.0.0.0/8"]}]})
    with pytest.raises(Exception, match="url"):
        load(paths)
