"""/files/: what the site keeps for its nodes."""

from __future__ import annotations

from typing import Any

import pytest

from support.daemon import MAC, NODES, serving, write_conf
from wwfast.daemon.boot.files import SiteFiles
from wwfast.nodes.model import Node
from wwfast.paths import Paths

WWID = f"?wwid={MAC}"


def test_compat_files_are_served_to_nodes(paths: Paths) -> None:
    place = paths.warewulf_files
    (place / "deep").mkdir(parents=True)
    (place / "a").write_bytes(b"0123456789")
    (place / "deep/empty").write_bytes(b"")
    (place / "link").symlink_to("a")
    (paths.root / "secret").write_text("no")
    write_conf(paths)
    paths.nodes_conf.write_text(NODES)
    with serving(paths) as server:
        for path, status, body in (
            (f"/files/a{WWID}", 200, b"0123456789"),
            (f"/files/link{WWID}", 200, b"0123456789"),
            (f"/files/deep/empty{WWID}", 200, b""),
            (f"/files/deep{WWID}", 404, b""),
            (f"/files/{WWID}", 404, b""),
            (f"/files/none{WWID}", 404, b""),
            (f"/files/a{WWID}&render", 404, b""),
            ("/files/a", 401, b""),
            ("/files/a?wwid=52:54:00:00:00:99", 401, b""),
        ):
            assert server.get(path)[:2] == (status, body), path
        for path in (f"/files/../secret{WWID}", f"/files/%2e%2e/secret{WWID}", f"/files/deep/../../../secret{WWID}"):
            assert server.get(path)[0] in (400, 404)
        status, part, headers = server.get(f"/files/a{WWID}", headers={"Range": "bytes=2-4"})
        assert (status, part) == (206, b"234")
        assert server.get(f"/files/a{WWID}", headers={"If-None-Match": headers["etag"]})[0] == 304
        (place / "a").write_bytes(b"changed")
        assert server.get(f"/files/a{WWID}")[1] == b"changed"
        assert server.status()["nodes"]["n1"]["stage"] == "", "it is no stage of a boot"


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ({}, None),
        ({"node": None}, 401),
        ({"port": 40000}, 403),
        ({"secure": False, "port": 40000}, None),
        ({"key": "k", "given": None}, 401),
        ({"key": "k", "given": "x"}, 403),
        ({"key": "k", "given": "k"}, None),
        ({"key": "k", "given": None, "port": 40000}, 403),
    ],
)
def test_compat_files_are_refused_in_the_order_of_the_real_program(
    paths: Paths, asked: dict[str, Any], status: int | None
) -> None:
    node = Node(id="n1", asset_key=asked.get("key", ""))
    files = SiteFiles(paths.warewulf_files, asked.get("secure", True))
    refused = files.refuses(asked.get("node", node), asked.get("given"), asked.get("port", 987), render=False)
    assert (refused[0] if refused else None) == status


@pytest.mark.parametrize(("text", "secured"), [("{}", True), ("{secure: false}", False), ("{secure files: no}", False)])
def test_compat_secure_files_is_as_secure_unless_it_says_more(paths: Paths, text: str, secured: bool) -> None:
    from wwfast.config.settings import load

    paths.conf.write_text(f"warewulf: {text}\n")
    assert load(paths).warewulf.files_secured is secured
