"""What nodes do with several heads: the script, stage-1 and wwclient go on with another one."""

from __future__ import annotations

import gzip
import re
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import stage1
from support.daemon import MAC, serving, tiny_site, write_conf
from support.patience import until
from support.stage1 import BODY, listed
from support.wwclient import SHELLS, Node, Overlay
from support.wwclient import Server as Head
from wwfast.boot.heads import order
from wwfast.paths import Paths

BOTH = ["127.0.0.1:9873", "127.0.0.2:9873"]


@pytest.fixture
def script(paths: Paths) -> Iterator[list[str]]:
    site = tiny_site(paths)
    write_conf(site, wwfast={"heads": ["127.0.0.1", "127.0.0.2"]})
    with serving(site) as running:
        yield [running.get(f"/ipxe/{MAC}{query}")[1].decode() for query in ("", "?moved=1")]


def chained(text: str) -> list[str]:
    """Who is asked for a script, in the order of its lines."""
    return re.findall(r"^chain --replace --autofree --timeout \d+ http://([^/]+)/ipxe/\S+&moved=1 \|\|$", text, re.M)


def test_follow_script_sends_a_node_to_its_own_first_head_once(script: list[str]) -> None:
    first, moved = script
    other = [each for each in order("n1", BOTH)[:1] if each != BOTH[0]]
    assert chained(first) == [*other, *BOTH]
    assert chained(moved) == BOTH, "this one, which may only be busy, then the other"
    for text in script:
        fetched = [line for line in text.splitlines() if line.startswith(("kernel ", "initrd "))]
        assert len(fetched) == 4
        assert all(" --timeout 20000 ${base}/" in line for line in fetched)
    assert first.index(":failed") < first.index(":others") < first.rindex(BOTH[1])


def test_follow_script_of_a_head_that_is_alone_is_as_it_was(paths: Paths) -> None:
    site = tiny_site(paths)
    with serving(site) as running:
        text = running.get(f"/ipxe/{MAC}")[1].decode()
    assert chained(text) == []
    assert not re.search("--timeout|:others|failures", text)


# -- stage-1 ------------------------------------------------------------------------------------------------------


@pytest.fixture
def heads() -> Iterator[tuple[stage1.Server, stage1.Server]]:
    with stage1.serving(stage1.Server()) as one, stage1.serving(stage1.Server()) as other:
        yield one, other


def several(*servers: str) -> str:
    return f"heads='{' '.join(servers)}' wwid=n query=image=x@1 form=tmpfs; use_head {servers[0]}"


@pytest.mark.parametrize("fault", ["cut", "killed"])
def test_follow_stage1_goes_on_with_the_other_head(
    tmp_path: Path, heads: tuple[stage1.Server, stage1.Server], fault: str
) -> None:
    one, other = heads
    one.faults = ["", fault]
    one.always = "cut"
    words = f"fetch_image {listed(tmp_path)} {tmp_path}/root; small $base/system/n?x=1 {tmp_path}/small"
    done = stage1.run(tmp_path, one, f"{several(one.base, other.base)}; {words}")
    assert done.returncode == 0, done
    assert (tmp_path / "root").read_bytes() == BODY
    assert (tmp_path / "small").read_bytes() == BODY
    assert not (tmp_path / "pauses").exists(), "the other one is asked at once"
    assert other.asked
    assert f"the head {one.base} is not asked for now: curl: (" in done.stdout
    assert other.told, "who answers hears of it"


def test_follow_stage1_head_that_is_not_there_is_passed_over_for_small_files(
    tmp_path: Path, heads: tuple[stage1.Server, stage1.Server]
) -> None:
    one, other = heads
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        gone = f"http://127.0.0.1:{free.getsockname()[1]}"
        done = stage1.run(tmp_path, one, f"{several(gone, other.base)}; small $base/system/n?x=1 {tmp_path}/file")
    assert done.returncode == 0, done
    assert [path.partition("?")[0] for path in other.paths] == ["/system/n"]
    assert one.paths == []


def test_follow_stage1_heads_that_all_fail_are_asked_again_after_a_pause(
    tmp_path: Path, heads: tuple[stage1.Server, stage1.Server]
) -> None:
    one, other = heads
    one.faults, other.faults = ["cut"] * 3, ["cut"] * 3
    done = stage1.run(tmp_path, one, f"{several(one.base, other.base)}; stretch 0 {len(BODY)} {tmp_path}/file")
    assert done.returncode == 0, done
    assert (tmp_path / "file").read_bytes() == BODY
    assert len((tmp_path / "pauses").read_text().split()) >= 2
    assert one.asked and other.asked  # noqa: PT018


def test_follow_stage1_piece_that_is_wrong_at_one_head_comes_from_the_other(
    tmp_path: Path, heads: tuple[stage1.Server, stage1.Server]
) -> None:
    one, other = heads
    one.always = "flipped"
    done = stage1.run(tmp_path, one, f"{several(one.base, other.base)}; fetch_image {listed(tmp_path)} {tmp_path}/root")
    assert done.returncode == 0, done
    assert (tmp_path / "root").read_bytes() == BODY


def test_follow_stage1_what_a_head_refuses_is_no_reason_for_another(
    tmp_path: Path, heads: tuple[stage1.Server, stage1.Server]
) -> None:
    one, other = heads
    one.faults = ["503", "404"]
    done = stage1.run(tmp_path, one, f"{several(one.base, other.base)}; small $base/system/n {tmp_path}/file")
    assert (done.returncode, other.paths) == (0, [])


@pytest.mark.root
def test_follow_stage1_head_that_falls_silent_costs_seconds(
    tmp_path: Path, heads: tuple[stage1.Server, stage1.Server]
) -> None:
    one, other = heads
    one.faults = ["gone"]
    begun = time.monotonic()
    done = stage1.run(tmp_path, one, f"{several(one.base, other.base)}; stretch 0 {len(BODY)} {tmp_path}/file")
    assert done.returncode == 0, done
    assert time.monotonic() - begun < 35
    assert (tmp_path / "file").read_bytes() == BODY
    assert other.asked == [f"bytes=1000-{len(BODY) - 1}"], "what came of the first one counts"


# -- wwclient -----------------------------------------------------------------------------------------------------


@pytest.fixture
def overlay() -> Overlay:
    made = Overlay()
    made.put("etc/file", "one")
    return made


@pytest.fixture
def servers(overlay: Overlay) -> Iterator[list[Head]]:
    made = [Head(overlay), Head(overlay)]
    yield made
    for each in made:
        each.stop()


@pytest.fixture(params=SHELLS, ids=["dash", "busybox"])
def node(request: pytest.FixtureRequest, tmp_path: Path, servers: list[Head]) -> Iterator[Node]:
    if not shutil.which(request.param[0]):
        pytest.skip(f"{request.param[0]} is not installed")
    made = Node(tmp_path / "node", request.param, servers[0])
    made.configure(WWHEADS=" ".join(f"127.0.0.1:{each.port}" for each in servers))
    yield made
    made.end()


def test_follow_client_asks_whoever_answers(node: Node, servers: list[Head], overlay: Overlay) -> None:
    for stopped in range(2):
        servers[stopped].stop()
        overlay.put("etc/file", f"without {stopped}")
        node.update()
        assert node.read("etc/file") == f"without {stopped}"
        servers[stopped].start()
    for each in servers:
        each.stop()
    done = node.once()
    assert done.returncode == 1
    assert "the server does not answer" in done.stdout
    assert node.read("etc/file") == "without 1", "what is there stays"


def test_follow_client_changes_the_head_without_a_new_copy(node: Node, servers: list[Head], overlay: Overlay) -> None:
    node.update()
    for stopped in range(2):
        servers[stopped].stop()
        overlay.asked.clear()
        node.update()
        assert [each.status for each in overlay.asked] == [304], "heads have the same, under the same name"
        servers[stopped].start()


def test_follow_client_goes_on_with_the_head_that_answered(node: Node, servers: list[Head], overlay: Overlay) -> None:
    """A running one, of which the first head of its list is gone."""
    process = node.start()
    until(lambda: overlay.begun > 0, 30.0)
    for each in servers:
        each.stop()
    servers[1].start()
    overlay.put("etc/file", "two")

    def has_the_second() -> bool:
        assert process.poll() is None
        return (node.root / "etc/file").exists() and node.read("etc/file") == "two"

    until(has_the_second)


def test_follow_heads_are_in_what_the_system_overlay_tells_the_client(paths: Paths) -> None:
    site = tiny_site(paths)
    write_conf(site, wwfast={"heads": ["127.0.0.1", "127.0.0.2:80"]})
    text = site.nodes_conf.read_text()
    site.nodes_conf.write_text(text.replace("system overlay: [motd]", "system overlay: [wwinit]"))
    with serving(site) as running:
        status, body, _ = running.get(f"/system/{MAC}?compress=gz")
    assert status == 200
    assert b"WWHEADS='127.0.0.1 127.0.0.2:80'\n" in gzip.decompress(body)
