"""/files/: what the site keeps for its nodes."""

from __future__ import annotations

import re
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
            (f"/files/a{WWID}&render", 400, b""),
            ("/files/a", 401, b""),
            ("/files/a?wwid=52:54:00:00:00:99", 401, b""),
        ):
            found = server.get(path)
            assert found[0] == status, path
            assert status != 200 or found[1] == body, path
        for path in (f"/files/../secret{WWID}", f"/files/%2e%2e/secret{WWID}", f"/files/deep/../../../secret{WWID}"):
            assert server.get(path)[0] in (400, 404)
        status, part, headers = server.get(f"/files/a{WWID}", headers={"Range": "bytes=2-4"})
        assert (status, part) == (206, b"234")
        assert server.get(f"/files/a{WWID}", headers={"If-None-Match": headers["etag"]})[0] == 304
        (place / "a").write_bytes(b"changed")
        assert server.get(f"/files/a{WWID}")[1] == b"changed"
        assert server.status()["nodes"]["n1"]["stage"] == "", "it is no stage of a boot"


TEMPLATES = {
    "go.ww": "{{ .Id }} {{ .Tags.rack }} {{ .NetDevs.default.Ipaddr }}\n",
    "both.ww": "of Go",
    "both.j2": "of Jinja: {{ id }}\n",
    "gone.ww": "x{{ abort }}",
    "other.ww": '{{ file "/etc/x" }}not told',
    "wrong.ww": "\n{{ .Nope }}",
    "slow.ww": "{{ range until 9999 }}{{ range until 9999 }}{{ end }}{{ end }}",
    "deep/in.ww": "{{ len .AllNodes }}",
    "plain": "{{ .Id }}",
}


def test_compat_files_are_rendered_for_the_node_that_asks(paths: Paths) -> None:
    """With the limits of overlays; what is wrong is told to who asks, and the server goes on."""
    place = paths.warewulf_files
    (place / "deep").mkdir(parents=True)
    for name, text in TEMPLATES.items():
        (place / name).write_text(text)
    (paths.root / "secret.ww").write_text("no")
    (place / "out.ww").symlink_to(paths.root / "secret.ww")
    write_conf(paths, wwfast={"template seconds": 1})
    paths.nodes_conf.write_text(NODES)
    with serving(paths) as server:
        for path, status, body in (
            (f"/files/go{WWID}&render", 200, rb"n1 .* 10\.0\.0\.\d+\n"),
            (f"/files/go.ww{WWID}&render=", 200, rb"n1 .*\n"),
            (f"/files/go{WWID}&render=n1", 200, rb"n1 .*\n"),
            (f"/files/go{WWID}&render=n2", 400, rb""),
            (f"/files/go.ww{WWID}", 200, rb"\{\{ \.Id \}\}.*\n"),
            (f"/files/both{WWID}&render", 200, rb"of Jinja: n1\n"),
            (f"/files/both.ww{WWID}&render", 200, rb"of Go"),
            (f"/files/gone{WWID}&render", 200, rb""),
            (f"/files/other{WWID}&render", 200, rb""),
            (f"/files/deep/in{WWID}&render", 200, rb"\d+"),
            (f"/files/plain{WWID}&render", 400, rb""),
            (f"/files/none{WWID}&render", 404, rb".*"),
            (f"/files/none.ww{WWID}&render", 404, rb".*"),
            (f"/files/deep{WWID}&render", 404, rb".*"),
            (f"/files/out{WWID}&render", 404, rb".*"),
            (f"/files/wrong{WWID}&render", 500, rb".*wrong\.ww, line 2, column 4, node n1: .*Nope.*"),
            (f"/files/slow{WWID}&render", 500, rb".*slow\.ww.*node n1.*more than 1 s of CPU time.*"),
            ("/files/go?render", 401, rb".*"),
        ):
            found = server.get(path)
            assert found[0] == status, (path, found)
            assert re.fullmatch(body, found[1], re.DOTALL), (path, found)
        (place / "go.ww").write_text("changed {{ .Id }}")
        assert server.get(f"/files/go{WWID}&render")[1] == b"changed n1"
        server.daemon.guard.own_dhcp = True  # so that addresses are known
        assert server.get(f"/files/go{WWID}&render")[0] == 403
        assert server.get(f"/files/go.ww{WWID}")[0] == 200


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
        ({"render": ""}, None),
        ({"render": "n2"}, 400),
        ({"render": "n2", "port": 40000}, 403),
    ],
)
def test_compat_files_are_refused_in_the_order_of_the_real_program(
    paths: Paths, asked: dict[str, Any], status: int | None
) -> None:
    node = Node(id="n1", asset_key=asked.get("key", ""))
    files = SiteFiles(paths.warewulf_files, asked.get("secure", True))
    refused = files.refuses(asked.get("node", node), asked.get("given"), asked.get("port", 987), asked.get("render"))
    assert (refused[0] if refused else None) == status


@pytest.mark.parametrize(("text", "secured"), [("{}", True), ("{secure: false}", False), ("{secure files: no}", False)])
def test_compat_secure_files_is_as_secure_unless_it_says_more(paths: Paths, text: str, secured: bool) -> None:
    from wwfast.config.settings import load

    paths.conf.write_text(f"warewulf: {text}\n")
    assert load(paths).warewulf.files_secured is secured
