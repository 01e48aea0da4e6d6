"""What a node fetches, in which order, and what it is told instead."""

from __future__ import annotations

import re
from typing import Any

import pytest

from support.daemon import MAC, NODES, overlay, serving, tiny_site, write_conf
from support.patience import until
from support.planner import Fresh
from wwfast.boot.plan import Ask
from wwfast.boot.stages import Stage
from wwfast.config.settings import load
from wwfast.daemon.boot import routes
from wwfast.daemon.boot.guard import Guard
from wwfast.daemon.state.timeline import Timeline
from wwfast.net.transfer import Outcome, Transfer
from wwfast.nodes.registry import Registry
from wwfast.paths import Paths

IPXE = {"user-agent": "iPXE/1.21.1+git-20220113"}
CURL = {"user-agent": "curl/7.88.1"}


@pytest.fixture
def site(paths: Paths) -> Paths:
    return tiny_site(paths)


def script(paths: Paths, **conf: Any) -> str:
    write_conf(paths, **conf)
    snapshot = Registry(paths).snapshot()
    plan = Fresh(paths, load(paths)).plan(snapshot, snapshot.nodes["n1"], Stage.IPXE, Ask(MAC))
    assert plan.text is not None
    return plan.text


def fetched(text: str) -> list[str]:
    return re.findall(r"\$\{base\}/(\w+)/", text)


@pytest.mark.parametrize(
    ("secure", "dhcp", "brought"),
    [(False, False, True), (False, True, True), (True, True, True), (True, False, False)],
)
def test_compat_script_brings_the_runtime_overlay_before_init(
    site: Paths, secure: bool, dhcp: bool, brought: bool
) -> None:
    """As the real program does where `secure` is false; where it is true, by the phase that our DHCP opens."""
    text = script(site, warewulf={"secure": secure}, dhcp={"enabled": dhcp})
    assert fetched(text) == ["kernel", "image", "system", *(["runtime"] if brought else [])]
    booted = next(line for line in text.splitlines() if line.startswith("imgargs"))
    assert "initrd=image initrd=system ${runtime} wwid=${hwaddr} quiet" in booted
    for line in text.splitlines():
        if "/runtime/" in line:
            assert "&& set runtime initrd=runtime || echo" in line, "without it the node starts all the same"


def test_compat_script_has_no_runtime_overlay_where_the_node_has_none(site: Paths) -> None:
    site.nodes_conf.write_text(NODES.replace("runtime overlay: [motd]", "runtime overlay: []"))
    assert fetched(script(site)) == ["kernel", "image", "system"]


BROKEN = {
    "missing": "",
    "undefined": "{{ nothing_of_that_name }}\n",
    "syntax": "{% if %}\n",
    "of the node": "{{ tags.rack }}\n",
}


@pytest.mark.parametrize("fault", BROKEN)
@pytest.mark.parametrize("runtime", [False, True])
def test_compat_script_says_what_is_wrong_with_an_overlay_before_anything_large(
    site: Paths, monkeypatch: pytest.MonkeyPatch, fault: str, runtime: bool
) -> None:
    """A broken system overlay is the reason on the console, as others are; without a runtime one the node starts."""
    monkeypatch.setattr(routes, "SCRIPT_SECONDS", 60.0)  # however busy the machine is
    if fault != "missing":
        overlay(site, "broken", BROKEN[fault])
    lists = "runtime overlay: [motd]" if runtime else "system overlay: [motd]"
    site.nodes_conf.write_text(NODES.replace(lists, lists.replace("motd", "motd, broken")))
    with serving(site) as server:
        for _ in range(2):
            status, body, _ = server.get(f"/ipxe/{MAC}", headers=IPXE)
            text = body.decode()
            assert status == 200
            assert "overlay broken" in text
            if runtime:
                assert fetched(text) == ["kernel", "image", "system"]
                assert "this node starts without it" in text
            else:
                assert fetched(text) == []
                assert "node n1 cannot boot yet" in text
        if runtime:
            return
        assert "overlay broken" in server.status("n1")["nodes"]["n1"]["error"]
        site.nodes_conf.write_text(NODES)  # mended: the next time it asks it boots
        for _ in range(100):
            text = server.get(f"/ipxe/{MAC}", headers=IPXE)[1].decode()
            if fetched(text):
                break
        assert fetched(text) == ["kernel", "image", "system", "runtime"]


def test_compat_a_loader_gets_the_runtime_overlay_of_a_node_that_boots_and_of_no_other(site: Paths) -> None:
    """It does not end the phase; the first fetch from a privileged port does, or the time."""
    now = [1000.0]
    snapshot = Registry(site).snapshot()
    node = snapshot.nodes["n1"]
    guard = Guard(True, True, phase_seconds=100.0, clock=lambda: now[0])

    def ask(stage: Stage, port: int, ip: str = "10.0.0.11") -> int:
        refused = guard.refuses(node, stage, MAC, ip, port)
        return refused[0] if refused else 200

    assert ask(Stage.RUNTIME, 40000) == 401
    guard.saw_dhcp(MAC, boots=True)
    for _ in range(2):
        assert ask(Stage.RUNTIME, 40000) == 200
        assert not guard.closes(MAC, 40000)
    assert ask(Stage.RUNTIME, 40000, "10.0.0.12") == 403
    assert guard.closes(MAC, 987)
    guard.went_on(node, Stage.RUNTIME, MAC, "10.0.0.11", done=True)
    assert ask(Stage.SYSTEM, 40000) == 200
    now[0] += 101
    assert ask(Stage.RUNTIME, 40000) == 401
    assert ask(Stage.RUNTIME, 987) == 200
    assert Guard(True, False).refuses(node, Stage.RUNTIME, MAC, "10.0.0.11", 40000) is not None, "no DHCP of ours"


@pytest.mark.parametrize("client", [False, True])
def test_compat_a_node_is_up_when_nothing_more_of_its_boot_is_to_come(site: Paths, client: bool) -> None:
    """With wwclient it is up when that has asked; without, when the loader has got the last it gets."""
    overlay(site, "wwclient", "shadows the shipped one\n")
    site.nodes_conf.write_text(
        NODES.replace("system overlay: [motd]", f"system overlay: [motd{', wwclient' * client}]")
    )
    with serving(site) as server:
        for path in ("ipxe", "kernel", "image", "system", "runtime"):
            assert server.get(f"/{path}/{MAC}?compress=zst", headers=IPXE)[0] == 200
        entry = server.daemon.timeline.of("n1")
        assert entry is not None
        until(lambda: entry.stage == "runtime", 10.0)
        assert entry.up is not client
        if client:
            assert entry.stuck(entry.last_seen + 300) > 200, "it hangs between the loader and its init"
            server.get(f"/runtime/{MAC}?format=tar", headers=CURL)
            server.get(f"/runtime/{MAC}?format=tar", headers=CURL)
            until(lambda: entry.up, 10.0)
            assert [it.stage for it in entry.boot][-3:] == ["system", "runtime", "runtime"], "of the boot, and the last"


def test_compat_timeline_a_boot_that_begins_anew_is_not_up() -> None:
    timeline = Timeline(lambda: 1000.0)
    timeline.seed(["n1"])
    for stage, more in (("system", False), ("runtime", True), ("dhcp", False), ("runtime", True), ("runtime", False)):
        timeline.record(Transfer(stage, Outcome.DONE, 1000.0, "10.0.0.1", MAC, "n1", more=more))
        entry = timeline.of("n1")
        assert entry is not None
        assert entry.up == ((stage, more) == ("runtime", False))
