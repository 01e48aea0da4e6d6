"""Heads among each other: who is asked first, how a range is divided, what a manifest says, which boots are over."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from support.scenes import CONF, scene
from wwfast.boot import heads
from wwfast.boot.stages import Stage
from wwfast.config.settings import Settings, parse
from wwfast.daemon.boot.guard import Guard
from wwfast.doctor import racks as doctor
from wwfast.errors import ConfigError, UsageError, WwfastError
from wwfast.heads import key, manifest
from wwfast.heads.closings import Closings
from wwfast.heads.following import address
from wwfast.heads.manifest import Entry
from wwfast.nodes.model import NetDev, Node
from wwfast.paths import Paths

MAC = "52:54:00:00:00:01"
NODE: Any = Node(id="n1", network_devices={"default": NetDev(hwaddr=MAC, ipaddr="10.0.0.11")})


def settings(paths: Paths, ipaddr: str, *others: str) -> Settings:
    text = json.dumps({"ipaddr": f"{ipaddr}/24", "wwfast": {"heads": list(others)}})
    return parse(text.encode(), paths)


def test_heads_are_the_same_whether_this_one_is_named_or_not(paths: Paths) -> None:
    both = ["10.0.0.1:9873", "10.0.0.2:9873"]
    assert heads.authorities(settings(paths, "10.0.0.1", "10.0.0.1", "10.0.0.2")) == both
    assert heads.authorities(settings(paths, "10.0.0.2", "10.0.0.1")) == both
    assert heads.authorities(settings(paths, "10.0.0.1", "10.0.0.2:80")) == ["10.0.0.1:9873", "10.0.0.2:80"]
    assert heads.authorities(settings(paths, "10.0.0.1", "10.0.0.1")) == []
    assert heads.siblings(settings(paths, "10.0.0.1", "10.0.0.1", "10.0.0.2:80")) == ["10.0.0.2"]


@pytest.mark.parametrize("said", ["10.0.0", "head2", "10.0.0.1:0", "http://10.0.0.1", "10.0.0.1:99999"])
def test_heads_that_are_no_addresses_are_refused(paths: Paths, said: str) -> None:
    with pytest.raises(ConfigError, match="is no address of a head"):
        settings(paths, "10.0.0.1", said)


def test_heads_are_asked_by_each_node_in_an_order_of_its_own() -> None:
    three = [f"10.0.0.{at}:9873" for at in (1, 2, 3)]
    firsts = [heads.order(f"n{number:04}", three)[0] for number in range(3000)]
    assert all(700 < firsts.count(each) < 1300 for each in three)
    assert heads.order("n1", three) == heads.order("n1", three[::-1])


@pytest.mark.parametrize("size", [1, 2, 3, 10, 101])
def test_heads_have_a_range_between_them_of_which_no_address_is_two_heads(paths: Paths, size: int) -> None:
    all_heads = [f"10.0.0.{at}" for at in (1, 2, 3)]
    parts = [heads.share(settings(paths, each, *all_heads), 1000, 1000 + size - 1) for each in all_heads]
    given = [number for first, last in parts for number in range(first, last + 1)]
    assert given == list(range(1000, 1000 + size))
    assert heads.share(settings(paths, "10.0.0.1"), 5, 9) == (5, 9)
    assert heads.share(settings(paths, "10.0.0.1", "10.0.0.2"), 0, 0) == (0, 0)


@pytest.mark.parametrize("url", ["http://10.0.0.1", "https://", "https://10.0.0.1/x", "https://a:99999", "ftp://x"])
def test_follow_what_is_no_head_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="is no head"):
        address(url, 9875)


def test_follow_head_may_be_named_briefly() -> None:
    assert [address(url, 9875) for url in ("10.0.0.1", "https://10.0.0.1:5", "head.site:7")] == [
        ("10.0.0.1", 9875), ("10.0.0.1", 5), ("head.site", 7),
    ]  # fmt: skip


def entry(path: str) -> Entry:
    return Entry(path, 1, "0" * 64, 0)


@pytest.mark.parametrize("path", ["/etc/passwd", "../up", "a/../b", "a//b", "", ".", "a/\0", "link/below"])
def test_follow_manifest_leads_out_of_no_place(path: str) -> None:
    good = manifest.made("1", [entry("etc/nodes.conf")], {"link": ".."}, ["chroots/a"])
    assert manifest.read(msgspec.json.encode(good), "x") == good
    for wrong in (
        msgspec.structs.replace(good, entries=[entry(path)]),
        msgspec.structs.replace(good, folders=[path]),
        msgspec.structs.replace(good, links={path: "x", "link": ".."}),
    ):
        with pytest.raises(WwfastError, match="has a path that is none"):
            manifest.read(msgspec.json.encode(wrong), "x")


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format": "1"}', '{"format": 1}', '{"format": 1, "entries": [[1]]}']
)
def test_follow_manifest_that_is_none_is_refused_in_words(text: str) -> None:
    with pytest.raises(WwfastError, match="the head"):
        manifest.read(text.encode(), "the head")


def test_follow_revision_is_that_of_what_is_in_it() -> None:
    one = manifest.made("1", [entry("a"), entry("b")], {"x": "y"}, ["f"])
    assert one.revision == manifest.made("2", [entry("b"), entry("a")], {"x": "y"}, ["f"]).revision
    others = [([entry("a")], {"x": "y"}), ([entry("a"), entry("b")], {"x": "z"})]
    assert one.revision not in [manifest.made("1", entries, links, ["f"]).revision for entries, links in others]


def test_follow_boot_that_ended_at_one_head_is_over_at_the_other() -> None:
    now = [1000.0]
    closings = Closings()
    first, second = (
        Guard(secure=True, own_dhcp=True, leased=lambda _: "10.0.0.11", clock=lambda: now[0]) for _ in range(2)
    )
    first.ended = closings.note
    for head in (first, second):
        head.saw_dhcp(MAC, boots=True)
    now[0] += 5
    asyncio.run(first.fetched_runtime(MAC))
    told, last = closings.after(0)
    assert [mac for mac, _ in told] == [MAC]
    assert closings.after(last)[0] == []
    assert closings.after(last + 5)[0], "a number of another process is none"
    assert second.refuses(NODE, Stage.SYSTEM, MAC, "10.0.0.11", 987) is None
    for mac, seconds in told:
        second.ended_elsewhere(mac, seconds)
    assert second.refuses(NODE, Stage.SYSTEM, MAC, "10.0.0.11", 987) is not None
    second.saw_dhcp(MAC, boots=True)
    second.ended_elsewhere(MAC, 60.0)
    assert second.refuses(NODE, Stage.SYSTEM, MAC, "10.0.0.11", 987) is None, "it boots anew since"


# -- doctor -------------------------------------------------------------------------------------------------------


def told(paths: Paths, **running: object) -> list[str]:
    text = json.dumps({"ipaddr": "10.0.0.1/24", "wwfast": {"heads": ["10.0.0.1", "10.0.0.2"]}})
    made = scene(paths, CONF.replace("PORT", "9873"), running=running)
    given = msgspec.structs.replace(parse(text.encode(), paths), locations=paths)
    return [f"{it.level}: {it.message}" for it in doctor.heads(replace(made, settings=given))]


def test_follow_doctor_tells_of_keys(paths: Paths) -> None:
    [said] = told(paths)
    assert said.startswith("warning: wwfast: heads names other heads, and there is no key")
    place = key.make(paths)
    assert told(paths) == []
    place.chmod(0o640)
    [said] = told(paths)
    assert said.startswith("error: the key of heads is no secret")
    assert "(mode 0640)" in said


def test_follow_doctor_tells_of_heads_that_are_behind(paths: Paths) -> None:
    key.make(paths)
    well = {"address": "10.0.0.2", "behind": 0.0, "seen": 1.0, "silent": False, "said": "", "missing": 0}
    assert told(paths, peers={"two": well}) == []
    assert told(paths, peers={"two": well | {"behind": 5.0, "missing": 1 << 30}}) == [], "an image takes its time"
    for change, words in (
        ({"silent": True, "seen": 90.0}, "head two (10.0.0.2) has not asked for 90 s"),
        ({"said": "disk full"}, "head two (10.0.0.2) cannot follow: disk full"),
        ({"behind": 100.0, "missing": 3 << 20}, "head two (10.0.0.2) is 100 s behind: 3 MiB are still to come"),
    ):
        [said] = told(paths, peers={"two": well | change})
        assert words in said


def test_follow_without_a_key_leaves_a_server_that_takes_edits(paths: Paths) -> None:
    def wwfast(*words: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "wwfast", "--root", str(paths.root), *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        return done.returncode, done.stderr

    status, told = wwfast("server", "--follow", "https://10.0.0.9")
    assert (status, "there is no key" in told) == (1, True), told
    assert not paths.following.exists()
    assert wwfast("node", "add", "n9") == (0, "")
